"""Example workflows: written by `python -m integrations.comfyui.examples` from what the nodes declare.

ComfyUI lists the files of `example_workflows` among its templates. They are in the page's own format (version 0.4).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.files import atomic_write
from integrations.comfyui.ports import WIDGETS, Node, Out, Port
from integrations.comfyui.table import NODES

FOLDER = Path(__file__).parent / "example_workflows"
WIDTH, GAP, LINE = 360, 60, 26
"""pixels of nodes on the page"""


@dataclass(frozen=True)
class Core:
    """A node of ComfyUI itself, as far as a workflow needs to know it; `after`: values of further fields."""

    inputs: tuple[Port, ...]
    outputs: tuple[Out, ...]
    after: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Step:
    """A node in a workflow.

    Attributes:
        type: id of the node.
        values: of its fields that are not as declared.
        links: inputs that are connected: to which step, by its place, and which of its outputs.
    """

    type: str
    values: Mapping[str, Any] = field(default_factory=dict)
    links: Mapping[str, tuple[int, int]] = field(default_factory=dict)


PICTURE = Port("image", "STRING", "a file in ComfyUI's input folder", "first.png")
CORE: dict[str, Core] = {
    "LoadImage": Core((PICTURE,), (Out("IMAGE", "IMAGE", ""), Out("MASK", "MASK", "")), ("image",)),
    "LoadImageMask": Core(
        (PICTURE, Port("channel", "COMBO", "", "red", choices=("alpha", "red", "green", "blue"))),
        (Out("MASK", "MASK", ""),),
        ("image",),
    ),
    "LoadVideo": Core(
        (Port("file", "STRING", "a file in ComfyUI's input folder", "video.mp4"),),
        (Out("VIDEO", "VIDEO", ""),),
        ("image",),
    ),
    "PreviewAny": Core((Port("source", "*", "anything"),), ()),  # type: ignore[arg-type]
}

MODEL = Step("SelectsLoadModel", {"model": "EasyAnimateV5.1-12b-zh-InP-diffusers"})
PROMPT = {"prompt": "A red disc rolls to the right over a white table.", "seed": 3}
WORKFLOWS: dict[str, tuple[Step, ...]] = {
    "text_to_video": (
        MODEL,
        Step("SelectsTextToVideo", PROMPT, {"model": (0, 0)}),
        Step("SelectsSave", {}, {"images": (1, 0), "settings": (1, 1)}),
    ),
    "image_to_video": (
        MODEL,
        Step("LoadImage"),
        Step("SelectsImageToVideo", PROMPT, {"model": (0, 0), "image": (1, 0)}),
        Step("SelectsSave", {}, {"images": (2, 0), "settings": (2, 1)}),
    ),
    "video_to_video": (
        MODEL,
        Step("LoadVideo"),
        Step("LoadImageMask", {"image": "mask.png"}),
        Step("SelectsVideoToVideo", PROMPT, {"model": (0, 0), "mask": (2, 0), "video": (1, 0)}),
        Step("SelectsSave", {}, {"images": (3, 0), "settings": (3, 1)}),
    ),
    "control_to_video": (
        Step("SelectsLoadModel", {"model": "EasyAnimateV5.1-12b-zh-Control-diffusers"}),
        Step("LoadVideo"),
        Step("SelectsControlToVideo", PROMPT | {"control_kind": "canny"}, {"model": (0, 0), "video": (1, 0)}),
        Step("SelectsSave", {}, {"images": (2, 0), "settings": (2, 1)}),
    ),
    "camera_to_video": (
        Step("SelectsLoadModel", {"model": "EasyAnimateV5.1-12b-zh-Control-Camera-diffusers"}),
        Step("SelectsCameraToVideo", PROMPT | {"camera": "pan_left"}, {"model": (0, 0)}),
        Step("SelectsSave", {}, {"images": (1, 0), "settings": (1, 1)}),
    ),
    "curate_and_score": (
        Step("SelectsSelectClips", {"output": "output/curated", "where": "motion > 2", "limit": 4}),
        Step("SelectsScoreVideo", {"operator": "sharpness"}, {"images": (0, 0), "fps": (0, 3)}),
        Step("PreviewAny", {}, {"source": (1, 0)}),
        Step("PreviewAny", {}, {"source": (0, 2)}),
    ),
}


def workflow(steps: tuple[Step, ...]) -> dict[str, Any]:
    """Return a workflow as the page saves it."""
    ours = {node.id: node for node in NODES}
    kinds: list[Node | Core] = [ours.get(step.type) or CORE[step.type] for step in steps]
    links: list[list[Any]] = []
    nodes: list[dict[str, Any]] = []
    for place, (step, kind) in enumerate(zip(steps, kinds, strict=True)):
        inputs: list[dict[str, Any]] = []
        for port in _ordered(kind.inputs):
            linked = step.links.get(port.name)
            if linked is None and port.kind in WIDGETS:
                continue
            number = None
            if linked is not None:
                source, slot = linked
                number = len(links) + 1
                links.append([number, source + 1, slot, place + 1, len(inputs), kinds[source].outputs[slot].kind])
            one: dict[str, Any] = {"name": port.name, "type": port.kind, "link": number}
            inputs.append(one | ({"widget": {"name": port.name}} if port.kind in WIDGETS else {}))
        height = LINE * (len(kind.inputs) + len(kind.outputs) + 3)
        nodes.append({
            "id": place + 1, "type": step.type, "pos": [GAP + place * (WIDTH + GAP), GAP], "size": [WIDTH, height],
            "flags": {}, "order": place, "mode": 0, "inputs": inputs, "outputs": [],
            "properties": {"Node name for S&R": step.type}, "widgets_values": _values(step, kind),
        })  # fmt: skip
    for place, kind in enumerate(kinds):
        for slot, out in enumerate(kind.outputs):
            leading = [link[0] for link in links if link[1:3] == [place + 1, slot]]
            nodes[place]["outputs"].append({"name": out.name, "type": out.kind, "links": leading or None})
    return {
        "last_node_id": len(nodes), "last_link_id": len(links), "nodes": nodes, "links": links, "groups": [],
        "config": {}, "extra": {}, "version": 0.4,
    }  # fmt: skip


def _ordered(ports: tuple[Port, ...]) -> list[Port]:
    """Return inputs as the page lays them out: those that must be there first."""
    return sorted(ports, key=lambda port: port.optional)


def _values(step: Step, kind: Node | Core) -> list[Any]:
    """Return the values of the fields, in the page's order; behind a seed stands what becomes of it after a run."""
    values: list[Any] = []
    for port in _ordered(kind.inputs):
        if port.kind in WIDGETS:
            values.append(step.values.get(port.name, port.default))
            values += ["fixed"] if port.is_seed else []
    return [*values, *(kind.after if isinstance(kind, Core) else ())]


def texts() -> dict[Path, str]:
    """Return the files and their contents."""
    return {FOLDER / f"{name}.json": json.dumps(workflow(steps), indent=1) + "\n" for name, steps in WORKFLOWS.items()}


if __name__ == "__main__":
    for path, text in texts().items():
        atomic_write(path, text)
