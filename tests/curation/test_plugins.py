"""Plug-ins: what other packages add under our entry-point groups, and what becomes of one that is broken or gone."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from footage import pan, write
from hypothesis import given
from hypothesis import strategies as st
from runs import assert_same_output

import run_pipeline
from cli.common import CAPTIONER_TABLE, OPERATOR_TABLE, TABLES
from cli.plugins import tables_of
from cli.schemas import recipe_schema
from core import plugins
from core.errors import UserError
from core.plugins import PluginTable, folders_to_ship
from core.settings import plain
from core.settings_file import read_yaml
from curation.export import EXPORTERS
from curation.judge import judge, rules_of, verdict
from curation.plugins import FILE, remembered, stand_in
from curation.recipe import load_recipe, recipe_values, resolve
from curation.schema import COLUMNS, table_schema
from curation.shots import DETECTORS

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "plugin"
OPERATOR = """
from dataclasses import dataclass
from typing import ClassVar
import pyarrow as pa
from core.settings import key
from curation.schema import VIDEO, Column
from curation.types import Sampling

@dataclass(frozen=True)
class {kind}:
    scale: float = key(1.0, "what the length is multiplied by", above=0.0)
    writes: ClassVar[tuple[str, ...]] = ("{column}",)
    columns: ClassVar[tuple[Column, ...]] = (Column("{column}", {dtype}, "s", "scaled length", "{writer}", VIDEO),)
    media: ClassVar[frozenset[str]] = VIDEO
    pool: ClassVar[str | None] = {pool}

    @property
    def sampling(self):
        return Sampling(2.0, 1, None, 32)

    def load(self):
        return lambda clips: [{{"{column}": self.scale * (c.span.end_s - c.span.start_s)}} for c in clips]
"""
Install = Callable[..., None]


def operator(kind: str = "Length", column: str = "length_told", writer: str = "told", **changes: str) -> str:
    return OPERATOR.format(
        **{"dtype": "pa.float64()", "pool": "None"} | changes, kind=kind, column=column, writer=writer
    )


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Return what makes a package installed for the time of a test: its module, and entry points by group."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    for table in (OPERATOR_TABLE, CAPTIONER_TABLE, DETECTORS, EXPORTERS):
        monkeypatch.setattr(table, "_loaded", {})
    monkeypatch.setattr(plugins, "_entries", plugins._entries.__wrapped__)

    def install(name: str, code: str, points: dict[str, str], group: str = plugins.OPERATORS) -> None:
        module, info = name.replace("-", "_"), site / f"{name.replace('-', '_')}-1.2.dist-info"
        (site / module).mkdir()
        (site / module / "__init__.py").write_text(code)
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        lines = "".join(f"{point} = {module}:{value}\n" for point, value in points.items())
        (info / "entry_points.txt").write_text(f"[{group}]\n{lines}")
        (info / "RECORD").write_text(f"{module}/__init__.py,,\n{info.name}/entry_points.txt,,\n{info.name}/RECORD,,\n")
        monkeypatch.delitem(sys.modules, module, raising=False)

    return install


def test_an_operator_of_a_stranger_is_one_of_ours_in_recipe_table_and_rules(install: Install) -> None:
    install("acme-told", operator(), {"told": "Length"})
    recipe, _ = resolve({"operators": {"told": {"scale": 2}}, "rules": {"length_told": {"max": 9}}}, TABLES)
    names = table_schema(recipe.writers).names
    assert names.index("length_told") == names.index("status") - 1
    assert names == [n for n in names if n == "length_told" or n in table_schema(()).names]
    assert recipe.writer_of("length_told") == "told" and recipe.columns["length_told"].unit == "s"
    row = dict.fromkeys(names) | {"type": "video", "status": "accepted", "duration_s": 5.0}
    assert judge(row | {"length_told": 10.0}, rules_of(recipe))["reasons"] == ["length_told:high"]
    assert judge(row, rules_of(recipe))["reasons"] == ["length_told:missing"]
    assert verdict(row | {"type": "image"}, rules_of(recipe)) == [], "the column exists for videos only"
    assert resolve(recipe_values(recipe), TABLES)[0] == recipe
    schema = recipe_schema()["properties"]
    assert schema["operators"]["properties"]["told"]["anyOf"][0]["properties"]["scale"]["exclusiveMinimum"] == 0.0
    assert schema["rules"]["properties"]["length_told"]["description"] == "scaled length"


def test_names_of_ours_are_answered_without_looking_at_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "_entries", lambda group: pytest.fail("looked"))
    load_recipe(None, ["operators.motion=true", "rules.motion.min=1"], TABLES)


@pytest.mark.parametrize(
    ("code", "point", "words"),
    [
        ("import not_there_at_all", "told", "cannot be loaded: ModuleNotFoundError"),
        ("raise SyntaxWarning('no\\nway')", "told", "cannot be loaded: SyntaxWarning: no way"),
        ("Length = 7", "told", "must be a frozen dataclass"),
        ("from dataclasses import dataclass\n@dataclass(frozen=True)\nclass Length: pass", "told", "has no writes"),
        (operator(column="motion"), "told", "'motion' has the name of a column of ours"),
        (operator(column="_samples"), "told", "has no name of small letters"),
        (operator(writer="other"), "told", "must have the operator's name as its writer, 'told'"),
        (operator(dtype="pa.date32()"), "told", "has the type date32"),
        (operator(pool="'cut'"), "told", "its pool must be"),
        (operator(pool="'own'\n    sound_hz = 16000"), "told", "its sound_hz must be a whole number"),
        (operator(pool="None\n    sound_hz = 16e3"), "told", "its sound_hz must be a whole number"),
        (operator().replace("VIDEO),)", "frozenset({'image'})),)"), "told", "a type of row that the operator does not"),
        (operator().replace('("length_told",)', '("length_told", "more")'), "told", "it writes length_told, more but"),
        (operator(), "motion", "'motion' is a name of ours"),
        (operator(), "Told!", "a name has small letters"),
    ],
)
def test_a_broken_plugin_costs_who_names_it_one_line_and_others_a_warning(
    install: Install, capsys: pytest.CaptureFixture[str], code: str, point: str, words: str
) -> None:
    install("acme-told", code, {point: "Length"})
    (line,) = OPERATOR_TABLE.survey().broken
    assert words in line and "of acme-told 1.2" in line and "\n" not in line
    if point != "motion":
        with pytest.raises(UserError) as error:
            resolve({"operators": {point: {}}}, TABLES)
        assert str(error.value) == line
    resolve({"operators": {"motion": {}}}, TABLES)
    recipe_schema()
    recipe_schema()
    assert capsys.readouterr().err.count(f"warning: {line}\n") <= 1, "once in a process"
    assert run_pipeline.main(["recipe"]) == 0
    assert line in capsys.readouterr().err


def test_packages_that_clash_are_both_named(install: Install) -> None:
    install("acme-told", operator(), {"told": "Length"})
    install("ump-told", operator(), {"told": "Length"})
    with pytest.raises(UserError, match=r"acme-told 1.2 and ump-told 1.2: several packages add this name"):
        resolve({"operators": {"told": {}}}, TABLES)
    install("bump-said", operator(writer="said"), {"said": "Length"})
    install("tump-sung", operator(writer="sung"), {"sung": "Length"})
    with pytest.raises(UserError, match="said and sung both write the column 'length_told'"):
        resolve({"operators": {"said": {}, "sung": {}}}, TABLES)
    resolve({"operators": {"said": {}}}, TABLES)


def test_captioners_and_detectors_come_from_packages_too(install: Install) -> None:
    code = "from captioners.template import Template as T\nfrom curation.shots.stride import Stride as S\n"
    install("acme-speaker", code, {"speaker": "T"}, plugins.CAPTIONERS)
    install("acme-divider", code, {"divider": "S"}, plugins.DETECTORS)
    values = {"caption": {"captioner": "speaker"}, "shots": {"detector": "divider", "settings": {"every_s": 3}}}
    recipe, captioner = resolve(values, TABLES)
    assert type(captioner).__name__ == "Template" and recipe.detector.every_s == 3.0  # type: ignore[attr-defined]
    shots = recipe_schema()["properties"]["shots"]
    assert "divider" in shots["properties"]["detector"]["enum"]


def test_workers_of_a_cluster_are_sent_the_package_and_its_metadata(install: Install, tmp_path: Path) -> None:
    install("acme-told", operator(), {"told": "Length"})
    install("acme-unused", operator(), {"unused": "Length"})
    site = tmp_path / "site"
    expected = [str(site / "acme_told"), str(site / "acme_told-1.2.dist-info")]
    assert folders_to_ship(["operators.motion", "acme_told.inner"]) == expected
    assert folders_to_ship(["operators.motion"]) == []


settings = st.dictionaries(
    st.from_regex(r"[a-z][a-z_]{0,8}x", fullmatch=True),
    st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.just("text"), st.lists),
    max_size=4,
)


@given(settings)
def test_a_stand_in_keeps_the_settings_as_they_are(values: dict) -> None:
    kind = stand_in("told", values, {"columns": [], "media": ["video"], "pool": None, "package": "acme 1"})
    assert kind is not None
    assert plain(kind(**values)) == values


@pytest.mark.parametrize("facts", [{"columns": [{"name": "x"}]}, {"columns": 3}, {"media": 4}])
def test_what_is_remembered_wrongly_is_stood_in_by_nothing(facts: dict, tmp_path: Path) -> None:
    assert stand_in("told", {}, facts) is None
    (tmp_path / FILE).write_text('{"operators": [1]}')
    assert remembered(tmp_path) == {}


def test_a_format_of_a_stranger_is_written_and_written_again(
    install: Install, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = """
file = "lines.txt"
def write(file, records, tally, prefix):
    for record in records:
        file.write(record["file_path"] + "\\n")
        tally.rows += 1
"""
    install("acme-lines", code, {}, plugins.EXPORTERS)
    points = tmp_path / "site" / "acme_lines-1.2.dist-info" / "entry_points.txt"
    points.write_text(f"[{plugins.EXPORTERS}]\nlines = acme_lines\nwebvid = acme_lines\n")
    out = curated(tmp_path, "operators.facts=true")
    assert run_pipeline.main(["export", str(out), "--format", "lines"]) == 0
    files = json.loads((out / "json_of_internal_datasets.json").read_text())
    assert (out / "lines.txt").read_text().split() == [entry["file_path"] for entry in files] and len(files) == 2
    assert run_pipeline.main(["select", str(out), "rules.brightness.min=0.3"]) == 0
    assert 0 < len((out / "lines.txt").read_text().split()) < 2, "the table has changed, and this with it"
    points.unlink()
    EXPORTERS._loaded.clear()
    capsys.readouterr()
    assert run_pipeline.main(["select", str(out), "rules.brightness=false"]) == 0
    assert "export 'lines' is out of date: no installed package has this format" in capsys.readouterr().out
    assert run_pipeline.main(["export", str(out), "--format", "lines"]) == 2


def sources(folder: Path) -> Path:
    """Two clips of 4 s, one of them darker."""
    folder.mkdir()
    for name, factor in (("bright", 1.0), ("dark", 0.4)):
        write(folder / f"{name}.mp4", [(frame * factor).astype(np.uint8) for frame in pan(96)])
    return folder


def curated(tmp_path: Path, *words: str) -> Path:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("operators: {brightness: true}\ncaption: {captioner: template}\n")
    out = tmp_path / "out"
    words = ("curate", str(sources(tmp_path / "src")), "--output", str(out), "--config", str(recipe), *words)
    assert run_pipeline.main([*words, "--runner", "inline"]) == 0
    return out


@pytest.mark.parametrize("pool", ["None", "'apart'"])
def test_scores_outlive_the_package_that_measured_them(
    install: Install, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, pool: str
) -> None:
    install("acme-told", operator(pool=pool), {"told": "Length"})
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    out = curated(tmp_path, "operators.told.scale=2.5", "rules.length_told.min=1")
    before = pd.read_parquet(out / "clips").set_index("source_path")
    assert before["length_told"].tolist() == pytest.approx([10.0, 10.0], abs=0.2)
    assert json.loads((out / "run.json").read_text())["plugins"] == {"told": "acme-told 1.2"}
    own = read_yaml(out / "recipe.yaml", "recipe")
    shutil.rmtree(tmp_path / "site")
    OPERATOR_TABLE._loaded.clear()
    capsys.readouterr()
    assert run_pipeline.main(["select", str(out), "rules.length_told.max=9"]) == 0
    told = capsys.readouterr()
    assert told.err.count("operator 'told': acme-told 1.2 is not installed here; its scores are kept") == 1
    assert "length_told:high" in told.out
    after = pd.read_parquet(out / "clips").set_index("source_path")
    assert after["length_told"].tolist() == before["length_told"].tolist() and set(after["status"]) == {"rejected"}
    assert run_pipeline.main(["select", str(out), "rules.length_told.max=null"]) == 0
    assert read_yaml(out / "recipe.yaml", "recipe") == own, "with the operator's settings as they were"
    assert remembered(out)["told"]["package"] == "acme-told 1.2"
    capsys.readouterr()
    assert run_pipeline.main(["report", str(out)]) == 0
    assert "length_told [s]" in capsys.readouterr().out
    page = (out / "report.html").read_text()
    assert '"scaled length"' in page and "acme-told 1.2" in page
    assert run_pipeline.main(["curate", str(tmp_path / "src"), "--output", str(out), "--runner", "inline"]) == 2
    assert "its operator 'told' is of acme-told 1.2, which is not installed here" in capsys.readouterr().err


def test_an_output_is_judged_and_shown_without_its_captioner_and_detector(
    install: Install, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = "from captioners.template import Template as T\nfrom curation.shots.stride import Stride as S\n"
    install("acme-speaker", code, {"speaker": "T"}, plugins.CAPTIONERS)
    install("acme-divider", code, {"divider": "S"}, plugins.DETECTORS)
    out = curated(tmp_path, "caption.captioner=speaker", "shots.detector=divider", "shots.settings.every_s=20")
    own = read_yaml(out / "recipe.yaml", "recipe")
    shutil.rmtree(tmp_path / "site")
    for table in (CAPTIONER_TABLE, DETECTORS):
        table._loaded.clear()
    capsys.readouterr()
    assert run_pipeline.main(["select", str(out), "rules.brightness.min=0.3"]) == 0
    told = capsys.readouterr()
    assert "captioner 'speaker': no installed package has it" in told.err and "brightness:low" in told.out
    assert "detector 'divider': no installed package has it" in told.err
    assert read_yaml(out / "recipe.yaml", "recipe") == own | {"rules": {"brightness": {"min": 0.3, "max": None}}}
    assert run_pipeline.main(["report", str(out)]) == 0
    assert run_pipeline.main(["curate", str(tmp_path / "src"), "--output", str(out), "--runner", "inline"]) == 2
    assert "unknown 'divider'" in capsys.readouterr().err


def test_an_output_without_plugins_has_no_file_of_them_and_the_columns_of_before(tmp_path: Path) -> None:
    recipe, _ = load_recipe(None, ["operators.motion=true"], TABLES)
    own = {c.name for c in COLUMNS}
    assert {*table_schema(recipe.writers).names} <= own
    assert remembered(tmp_path) == {}
    table: PluginTable[int] = PluginTable({"a": 1}, "selects.nobody", lambda name, value: None)
    assert dict(table) == {"a": 1} and table.usable() == {"a": 1} and len(table) == 1 and "b" not in table


@pytest.mark.slow
def test_the_example_package_is_installed_and_curates_on_both_runners(tmp_path: Path) -> None:
    package, site = tmp_path / "package", tmp_path / "site"
    shutil.copytree(EXAMPLE, package)
    uv = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    pip = [uv, "pip"] if uv else [sys.executable, "-m", "pip"]
    words = [*pip, "install", "--no-deps", "--no-build-isolation", "--target", str(site), str(package)]
    subprocess.run(words, check=True, capture_output=True)
    home = str(EXAMPLE.parents[1])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([home, str(site)])}

    def selects(*words: str | Path) -> str:
        command = [sys.executable, str(Path(home) / "run_pipeline.py"), *map(str, words)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "operator warmth (selects-warmth 0.1.0)" in selects("doctor")
    source, outs = sources(tmp_path / "src"), []
    for tint in ("red", "blue"):
        shift = np.array((70, 0, -70) if tint == "red" else (-70, 0, 70))
        write(source / f"{tint}.mp4", [np.clip(frame + shift, 0, 255).astype(np.uint8) for frame in pan(96)])
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("operators: {warmth: {frames: 2}}\nrules: {warmth: {min: 0.1}}\n")
    for runner in ("inline", "ray"):
        outs.append(tmp_path / runner)
        selects("curate", source, "--output", outs[-1], "--config", recipe, "--runner", runner)
    assert_same_output(*outs)
    rows = pd.read_parquet(outs[1] / "clips").set_index("source_path")
    assert rows["warmth"]["red.mp4"] > 0.3 and rows["warmth"]["blue.mp4"] < -0.3
    assert rows["status"].to_dict()["red.mp4"] == "accepted" and rows["status"]["blue.mp4"] == "rejected"
    assert "warmth" in selects("report", outs[1]) and tables_of(outs[1]).operators is not None
