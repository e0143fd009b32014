"""The house rules: who imports whom, where Ray may be, how long files are, what the text may not hold."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from benchmarks.rooms import count as rooms_of
from core import packages

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = (*packages.PACKAGES, "benchmarks")
MAY_IMPORT = {
    "core": set(),
    "configs": {"core"},
    "media": {"core"},
    "models": {"core"},
    "curation": {"core", "media"},
    "operators": {"core", "media", "models", "curation"},
    "controls": {"core", "media", "models", "curation"},
    "captioners": {"core", "media", "models", "curation"},
    "sampling": {"core", "media", "models"},
    "train_bridge": {"core", "media", "models", "curation", "sampling"},
    "evaluation": {"core", "media", "curation", "sampling"},
    "serving": {"core", "models", "sampling", "curation"},
    "integrations": {"core", "media", "models", "operators", "controls", "curation", "sampling"},
    "demo": {"core", "media", "curation", "train_bridge", "sampling"},
    "cli": {*PACKAGES},
    "benchmarks": {*PACKAGES},
}
"""Rooms, and what each may import of the others."""
RAY_FILES = {
    *("curation/engine/ray_runner.py", "curation/engine/ray_nodes.py"),
    *("train_bridge/cache/ray_build.py", "train_bridge/loop/launch.py"),
}
LONGEST = 400
RUNS_CODE = frozenset((
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "os.startfile"),
    *("subprocess.getoutput", "subprocess.getstatusoutput", "tempfile.mktemp"),
    *(f"yaml.{name}{end}" for name in ("load", "full_load", "unsafe_load") for end in ("", "_all")),
    *("yaml.Loader", "yaml.FullLoader", "yaml.UnsafeLoader", "yaml.CLoader"),
    *(
        f"{name}.{how}"
        for name in ("pickle", "cloudpickle", "dill", "marshal")
        for how in ("load", "loads", "Unpickler")
    ),
    *("joblib.load", "shelve.open", "pandas.read_pickle"),
))
"""What runs code that a file or a text from outside may hold."""
NAMED_PLACES = {("curation/analysis/samples.py", "pickle.loads"), ("curation/engine/ray_worker.py", "pickle.loads")}
"""What our own worker packed within the same run."""
EVERYWHERE = {"0.0.0.0", "::", "[::]"}
"""addresses under which a server can be reached from other machines"""


def sources() -> list[Path]:
    return [path for name in PACKAGES for path in sorted((ROOT / name).rglob("*.py"))] + [ROOT / "run_pipeline.py"]


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way_and_files_stay_short(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    name = str(path.relative_to(ROOT))
    given = imports(path)
    tops = {module.split(".")[0] for module in given}
    if package in MAY_IMPORT:
        assert (tops & {*PACKAGES, "run_pipeline"}) - {package} <= MAY_IMPORT[package]
    if "ray" in tops:
        assert name in RAY_FILES
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST


def dangers(text: str) -> set[str]:
    """Name what in a piece of Python could run code from outside, or let others in."""
    tree = ast.parse(text)
    full: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            full |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom):
            full |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute):
            first, *rest = ast.unparse(node).split(".")
            name = ".".join([full.get(first, first), *rest])
            found |= {name} & RUNS_CODE
        if isinstance(node, ast.Constant) and node.value in EVERYWHERE:
            found.add(node.value)
        if isinstance(node, ast.Call):
            first, *rest = ast.unparse(node.func).split(".")
            name = ".".join([full.get(first, first), *rest])
            given = {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}
            true = {
                key for key, value in given.items() if not (isinstance(value, ast.Constant) and value.value is False)
            }
            found |= {"shell", "trust_remote_code", "allow_pickle"} & true
            if name == "torch.load" and ast.unparse(given.get("weights_only", ast.Constant(None))) != "True":
                found.add(name)
            if rest[-1:] == ["extractall"] and ast.unparse(given.get("filter", ast.Constant(None))) != "'data'":
                found.add("extractall")
    return found


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_runs_code_from_outside_or_lets_others_in(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    allowed = {danger for place, danger in NAMED_PLACES if place == name}
    assert dangers(path.read_text(encoding="utf-8")) == allowed, "what is allowed no more is to be taken off the list"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import yaml\nyaml.load(x)", "yaml.load"),
        ("import yaml as y\ny.unsafe_load(x)", "yaml.unsafe_load"),
        ("from yaml import load as safe\nsafe(x)", "yaml.load"),
        ("import yaml\nyaml.safe_load(x, yaml.FullLoader)", "yaml.FullLoader"),
        ("import pickle\nf = pickle.loads", "pickle.loads"),
        ("from pickle import Unpickler\nUnpickler(f).load()", "pickle.Unpickler"),
        ("eval('1')", "eval"),
        ("list(map(exec, x))", "exec"),
        ("import os\nos.system('id')", "os.system"),
        ("import subprocess\nsubprocess.run('id', shell=True)", "shell"),
        ("import subprocess\nsubprocess.run('id', shell=maybe)", "shell"),
        ("import torch\ntorch.load(f)", "torch.load"),
        ("from torch import load\nload(f, weights_only=False)", "torch.load"),
        ("import numpy as np\nnp.load(f, allow_pickle=True)", "allow_pickle"),
        ("f(trust_remote_code=True)", "trust_remote_code"),
        ("import tarfile\ntarfile.open(f).extractall(to)", "extractall"),
        ("serve(host='0.0.0.0')", "0.0.0.0"),
    ],
)
def test_what_runs_code_is_seen_however_it_is_written(text: str, found: str) -> None:
    assert dangers(text) == {found}


def test_what_is_safe_is_not_taken_for_a_danger() -> None:
    text = """import re, torch, yaml, pickle, subprocess, numpy as np
re.compile(x), yaml.safe_load(y), yaml.SafeLoader(y), model.eval(), torch.load(f, weights_only=True)
pickle.dumps(z), subprocess.run([a], shell=False), np.load(f), json.load(f), f(trust_remote_code=False)
except_for = pickle.UnpicklingError, "127.0.0.1"
"""
    assert dangers(text) == set()


def asked_for(text: str) -> set[str]:
    """Name where a piece of Python takes the GPU by itself: comparing a device's type with `cuda` does not."""
    tree = ast.parse(text)
    compared = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare)
        or (isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".startswith"))
        or (isinstance(node, ast.Subscript) and ast.unparse(node.value) == "Literal")
        for inner in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in compared:
            found |= {node.value} if re.fullmatch(r"cuda(:\d+)?", node.value) else set()
        if isinstance(node, ast.Call) and (name := ast.unparse(node.func)).endswith((".cuda", "cuda.is_available")):
            found.add(name)
    return found


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_one_module_asks_for_the_gpu(path: Path) -> None:
    found = asked_for(path.read_text(encoding="utf-8"))
    assert not found or path.relative_to(ROOT) == Path("models/accelerator.py")


def test_asking_for_the_gpu_is_seen_however_it_is_written() -> None:
    assert asked_for("torch.device('cuda', 0)") == asked_for("x = 'cuda' if a else 'cpu'") == {"cuda"}
    assert asked_for("x.to('cuda:1')") == {"cuda:1"}
    assert asked_for("model.cuda()") == {"model.cuda"}
    assert asked_for("torch.cuda.is_available()") == {"torch.cuda.is_available"}
    assert asked_for("d.type == 'cuda' or n.startswith('cuda')\nD: Literal['cpu', 'cuda']") == set()


def options_in_errors(text: str) -> set[str]:
    """Name the command line's options that errors of a piece of Python speak of, whole commands left out."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Error"):
            said = re.sub(r"(run_pipeline\.py|pip) [^,;`']*", "", ast.unparse(node))
            found |= set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", said))
    return found


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_errors_below_the_command_line_name_fields_not_options(path: Path) -> None:
    if path.relative_to(ROOT).parts[0] not in ("cli", "benchmarks"):
        assert options_in_errors(path.read_text(encoding="utf-8")) == set()


def test_an_option_in_an_error_is_seen() -> None:
    assert options_in_errors("raise UserError(f'--fps {x}: leave --size out')") == {"--fps", "--size"}
    assert options_in_errors("raise ModelError('not here; run_pipeline.py weights fetch x --weights DIR')") == set()


def usage_reports(text: str) -> set[str]:
    """Name the libraries that a piece of Python imports before it has told them to report nothing."""
    silenced = {"ray": ("RAY_USAGE_STATS_ENABLED", "0"), "vllm": ("VLLM_NO_USAGE_STATS", "1")}
    started: set[str] = set()
    for node in sorted((n for n in ast.walk(ast.parse(text)) if hasattr(n, "lineno")), key=lambda n: n.lineno):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "os.environ.setdefault":
            setting = tuple(getattr(argument, "value", None) for argument in node.args)
            silenced = {name: value for name, value in silenced.items() if value != setting}
        elif isinstance(node, ast.Import):
            started |= {alias.name.split(".")[0] for alias in node.names} & silenced.keys()
        elif isinstance(node, ast.ImportFrom) and node.module == "curation.engine.ray_runner":
            silenced.pop("ray", None)
        elif isinstance(node, ast.ImportFrom):
            started |= {(node.module or "").split(".")[0]} & silenced.keys()
    return started


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_ray_and_vllm_are_told_to_report_no_usage_before_they_are_imported(path: Path) -> None:
    assert usage_reports(path.read_text(encoding="utf-8")) == set()


def test_an_import_before_the_setting_is_seen() -> None:
    setting = 'import os\nos.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")\n'
    assert (
        usage_reports(f"{setting}import ray.data")
        == usage_reports("from curation.engine.ray_runner import x\nimport ray")
        == set()
    )
    assert (
        usage_reports(f"import ray\n{setting}")
        == usage_reports(setting.replace('"0"', '"1"') + "from ray import x")
        == {"ray"}
    )
    assert usage_reports(f"{setting}from vllm import LLM") == {"vllm"}


def test_the_hub_is_told_to_report_no_usage_before_it_is_imported() -> None:
    code = "import train_bridge.loop.checkpoint, huggingface_hub.constants as c; print(c.HF_HUB_DISABLE_TELEMETRY)"
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_DISABLE_TELEMETRY"}
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, env=environment
    )
    assert shown.stdout.strip() == "True"


def test_heavy_libraries_are_not_imported_with_the_command_line() -> None:
    code = "import sys, run_pipeline; print([m for m in ('torch', 'ray', 'onnxruntime', 'decord') if m in sys.modules])"
    shown = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert shown.stdout.strip() == "[]"


def test_media_processes_import_no_pandas() -> None:
    """It takes a gigabyte of address space, which counts against `limits.memory_gb`."""
    code = "import sys, curation.analysis.tasks; print([m for m in ('pandas', 'torch', 'ray') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_no_machine_path_and_no_registry_address_is_committed() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    for name in listed or [str(p) for p in sources()]:
        text = (ROOT / name).read_text(encoding="utf-8", errors="ignore") if (ROOT / name).is_file() else ""
        assert not re.search("/" + "work/|--index" + "-url|simple/" + "[a-z]", text), name


def test_one_package_provides_cv2() -> None:
    from importlib.metadata import packages_distributions

    assert set(packages_distributions()["cv2"]) == {"opencv-python-headless"}


UNCLEAR = {
    r"Give\b": "Return",
    r"Tell (?:whether|which|what)\b": "Return",
    r"(?:mend|mends|mending)\b(?!: bool|\b if|\b else)": "fix",
    "told of by|is told of|are told of": "reported",
    r"begun\b": "started",
    r"dearer\b": "more expensive",
    "by heart": "memorised, overfit",
    r"unasked\b": "by itself",
    r"patiently\b": "with retries",
    "goes on from here": "resumes",
}
"""Words that a colleague would not write in a code review, with those that stand for them."""


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_docstrings_use_the_words_that_a_search_finds(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    texts = [ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, kinds)]
    found = [
        f"{word}: write {better}" for word, better in UNCLEAR.items() for t in texts if re.search(rf"\b(?:{word})", t)
    ]
    assert not found


HELD_BY_RUFF = {"FBT001", "FBT002", "PLR0913"}
"""no positional booleans, and no more parameters than `max-args`"""
MOST_PARAMETERS = 7
MORE_PARAMETERS = {"integrations/comfyui/*.py", "models/transformers/blocks/*.py", "demo/drawing.py"}
"""Where parameters are counted for nothing: inputs of nodes, fields of published configs, drawing for tests."""
MOST_TUPLES = 53
"""functions that return a tuple of three and more: fewer are welcome, then this number goes down"""


def test_ruff_holds_the_bounds_on_parameters() -> None:
    lint = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["ruff"]["lint"]
    assert {*lint["select"]} >= HELD_BY_RUFF and not HELD_BY_RUFF & {*lint["ignore"]}
    assert lint["pylint"]["max-args"] == MOST_PARAMETERS
    ignored = lint["per-file-ignores"].items()
    assert {place for place, rules in ignored if "PLR0913" in rules} - {"tests/*"} == MORE_PARAMETERS
    assert [place for place, rules in ignored if any(rule.startswith("FBT") for rule in rules)] == ["tests/*"]


def test_long_tuples_become_fewer() -> None:
    rooms = [count for name, count in rooms_of(".").items() if name != "."]
    assert sum(one.long_tuples for one in rooms) <= MOST_TUPLES
