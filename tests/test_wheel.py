"""What is installed is the whole program: the wheel holds all code and configs, and works outside the checkout."""

import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
from setuptools import find_packages

import run_pipeline
from configs import CONFIGS, config_file

ROOT = Path(__file__).resolve().parents[1]
NOT_SHIPPED = {"tests", "benchmarks", "docs", "examples", "deploy"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def committed() -> list[Path]:
    """Return the files of the checkout, those that git does not know yet included."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [Path(line) for line in listed.stdout.splitlines() if (ROOT / line).is_file()]


def test_every_folder_of_code_is_found() -> None:
    """By hand one is forgotten as soon as somebody adds one."""
    find = PROJECT["tool"]["setuptools"]["packages"]["find"]
    packages = set(find_packages(str(ROOT), include=find["include"]))
    code = {path.parent for path in committed() if path.suffix == ".py" and path.parts[0] not in NOT_SHIPPED}
    code.discard(Path())
    assert {".".join(folder.parts) for folder in code} == packages
    modules = {path.stem for path in committed() if path.suffix == ".py" and len(path.parts) == 1}
    assert modules == set(PROJECT["tool"]["setuptools"]["py-modules"])


def test_the_distribution_is_called_what_messages_say() -> None:
    assert PROJECT["project"]["name"] == "selects-video" and list(PROJECT["project"]["scripts"]) == ["selects"]
    texts = {path: (ROOT / path).read_text(encoding="utf-8") for path in committed() if path.suffix in (".py", ".yaml")}
    wrong = [str(path) for path, text in texts.items() if "install 'selects" + "[" in text]
    assert wrong == []


def test_a_config_is_found_by_its_name_in_any_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for text in ("configs/web_video.yaml", "web_video.yaml", "web_video"):
        assert config_file(text) == CONFIGS / "web_video.yaml"
    for text in ("nothing.yaml", "../configs/web_video.yaml", "configs/../pyproject.toml", "pyproject", ""):
        assert config_file(text) == Path(text)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/web_video.yaml").write_text("rules: {}\n")
    assert config_file("configs/web_video.yaml") == Path("configs/web_video.yaml")
    assert run_pipeline.main(["recipe", "demo.yaml"]) == run_pipeline.main(["recipe", "train_tiny"]) == 0


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy: a folder `build` of an earlier one would leak into it."""
    folder = tmp_path_factory.mktemp("build")
    for path in committed():
        if path.parts[0] not in NOT_SHIPPED:
            (folder / "checkout" / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, folder / "checkout" / path)
    command = [sys.executable, "-m", "uv", "build", "--wheel", "--no-build-isolation", "--python", sys.executable]
    if find_spec("uv") is None:
        pytest.skip("needs uv, as the Makefile installs it")
    subprocess.run([*command, "--out-dir", folder, folder / "checkout"], check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_all_that_the_program_reads(wheel) -> None:
    assert wheel.name.startswith("selects_video-")
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    suffixes = {".py", ".yaml", ".txt", ".j2", ".js", ".css", ".typed"}
    wanted = {
        path.as_posix()
        for path in committed()
        if path.suffix in suffixes
        and path.parts[0] not in NOT_SHIPPED
        and (len(path.parts) > 1 or path.suffix == ".py")
    }
    assert wanted <= inside, sorted(wanted - inside)
    tops = {name.split("/")[0] for name in inside if name.endswith("/__init__.py")}
    assert {f"{top}/py.typed" for top in tops} <= inside
    assert not {name for name in inside if name.split("/")[0] in NOT_SHIPPED}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_an_installed_command_works_outside_the_checkout(wheel, tmp_path) -> None:
    uv = [sys.executable, "-m", "uv"]
    python = tmp_path / "env/bin/python"
    subprocess.run([*uv, "venv", "-q", "--python", sys.executable, tmp_path / "env"], check=True, capture_output=True)
    install = [*uv, "pip", "install", "-q", "--python", python, "--constraint", ROOT / "constraints.txt", wheel]
    subprocess.run(install, check=True, capture_output=True)
    away = tmp_path / "elsewhere"
    away.mkdir()
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(away), "RAY_USAGE_STATS_ENABLED": "0", "HF_HUB_OFFLINE": "1"}

    def selects(*words: str) -> str:
        done = subprocess.run(
            [tmp_path / "env/bin/selects", *words], cwd=away, capture_output=True, text=True, env=environment
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "detector: fused" in selects("recipe")
    assert "method: " in selects("recipe", "configs/train_tiny.yaml") and "captioner:" in selects("recipe", "web_video")
    shown = selects("demo", "--no-train")
    assert "accepted" in shown and (away / "demo_output/curated/report.html").is_file()
    assert list((away / "demo_output/curated/train").glob("*.mp4"))
    selects("export", "demo_output/curated", "--format", "webdataset")
    where = subprocess.run(
        [python, "-c", "import curation, configs; print(curation.__file__, configs.__file__)"],
        cwd=away, capture_output=True, text=True, check=True, env=environment,
    )  # fmt: skip
    assert str(ROOT) not in where.stdout and where.stdout.count("site-packages") == 2
