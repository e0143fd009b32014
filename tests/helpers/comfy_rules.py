"""ComfyUI's rules, written down anew: how it loads a folder of nodes, checks a workflow, and runs it.

Facts are those of its loader (`nodes.py`), validation and executor (`execution.py`): modules are loaded by path under
a name made of it; a `NODE_CLASS_MAPPINGS` that is there hides `comfy_entrypoint`; inputs are handed over by name; a
node runs once for each value of the lists that it is given, a shorter list repeats its last value.
"""

import asyncio
import importlib.util
import inspect
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

STAND_IN = Path(__file__).parent / "comfyui"
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
Prompt = dict[str, dict[str, Any]]
Classes = Mapping[str, type]


@contextmanager
def stand_in(base: Path) -> Iterator[None]:
    """Let this process have ComfyUI's modules meanwhile, with its folders in `base`."""
    sys.path.insert(0, str(STAND_IN))
    try:
        import folder_paths

        folder_paths.base, folder_paths.models_dir = base, str(base / "models")
        yield
    finally:
        sys.path.remove(str(STAND_IN))
        for name in [name for name in sys.modules if name.split(".")[0] in ("comfy", "comfy_api", "folder_paths")]:
            del sys.modules[name]
        importlib.invalidate_caches()


def load_custom_node(folder: Path) -> tuple[ModuleType, dict[str, type]]:
    """Load a folder of `custom_nodes` as ComfyUI does; return its module and classes by id."""
    name = str(folder).replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, folder / "__init__.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    if getattr(module, "NODE_CLASS_MAPPINGS", None) is not None:
        return module, dict(module.NODE_CLASS_MAPPINGS)
    entry = module.comfy_entrypoint
    extension = asyncio.run(entry()) if inspect.iscoroutinefunction(entry) else entry()

    async def listed() -> list[type]:
        await extension.on_load()
        return await extension.get_node_list()

    return module, {one.GET_SCHEMA().node_id: one for one in asyncio.run(listed())}


def kind_of(declared: tuple[Any, ...]) -> tuple[str, list[Any]]:
    """Return the type of a declared input, and its choices."""
    if isinstance(declared[0], list):
        return "COMBO", declared[0]
    return declared[0], declared[1].get("options", []) if len(declared) > 1 else []


def as_prompt(workflow: dict[str, Any], classes: Classes) -> Prompt:
    """Turn a workflow of the page into what the page sends: fields by name, links as [node, slot]."""
    links = {link[0]: link for link in workflow["links"]}
    prompt: Prompt = {}
    for node in workflow["nodes"]:
        declared = classes[node["type"]].INPUT_TYPES()
        ports = {**declared.get("required", {}), **declared.get("optional", {})}
        values = list(node["widgets_values"])
        inputs: dict[str, Any] = {}
        for name, port in ports.items():
            if kind_of(port)[0] in WIDGETS:
                inputs[name] = values.pop(0)
                if port[1].get("control_after_generate"):
                    assert values.pop(0) in ("fixed", "increment", "decrement", "randomize")
                if port[1].get("image_upload") or port[1].get("video_upload"):
                    assert values[-1] == "image"
        assert values in ([], ["image"]), f"{node['type']}: more values than fields: {values}"
        for place, port in enumerate(node["inputs"]):
            assert port["name"] in ports, f"{node['type']}: no input '{port['name']}'"
            if port["link"] is not None:
                _, source, slot, target, target_slot, kind = links[port["link"]]
                assert (target, target_slot, kind) == (node["id"], place, links[port["link"]][5])
                inputs[port["name"]] = [str(source), slot]
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return prompt


def problems(prompt: Prompt, classes: Classes) -> list[str]:
    """Return what ComfyUI's validation would refuse of a prompt."""
    found = []
    for number, node in prompt.items():
        if node["class_type"] not in classes:
            found.append(f"{number}: no node {node['class_type']}")
            continue
        declared = classes[node["class_type"]].INPUT_TYPES()
        for name in declared.get("required", {}):
            if name not in node["inputs"]:
                found.append(f"{number}: {name} is missing")
        for name, value in node["inputs"].items():
            port = {**declared.get("required", {}), **declared.get("optional", {})}.get(name)
            if port is None:
                found.append(f"{number}: no input {name}")
            elif isinstance(value, list):
                returned = classes[prompt[value[0]]["class_type"]].RETURN_TYPES
                if value[1] >= len(returned) or kind_of(port)[0] not in ("*", returned[value[1]]):
                    found.append(f"{number}: {name} is linked to another type")
            else:
                found += [f"{number}: {name}: {fault}" for fault in _faults(value, port)]
    if not any(classes[node["class_type"]].OUTPUT_NODE for node in prompt.values() if node["class_type"] in classes):
        found.append("nothing is shown or saved")
    return found


def _faults(value: Any, port: tuple[Any, ...]) -> list[str]:
    kind, choices = kind_of(port)
    types = {"INT": int, "FLOAT": (int, float), "STRING": str, "BOOLEAN": bool, "COMBO": str}
    if kind not in types:
        return ["must be linked"]
    if not isinstance(value, types[kind]) or (isinstance(value, bool) and kind != "BOOLEAN"):
        return [f"{value!r} is no {kind}"]
    if kind == "COMBO" and value not in choices:
        return [f"{value!r} is not in the list"]
    options = port[1]
    below = "min" in options and value < options["min"]
    return ["is out of bounds"] if below or ("max" in options and value > options["max"]) else []


def run_prompt(prompt: Prompt, classes: Classes) -> dict[str, list[list[Any]]]:
    """Run a prompt; return by node the lists of values of each of its outputs.

    As in ComfyUI all runs without gradients, in inference mode.
    """
    assert not problems(prompt, classes), problems(prompt, classes)
    done: dict[str, list[list[Any]]] = {}
    with torch.inference_mode():
        for number, node in prompt.items():
            if classes[node["class_type"]].OUTPUT_NODE:
                _run(number, prompt, classes, done)
    return done


def _run(number: str, prompt: Prompt, classes: Classes, done: dict[str, list[list[Any]]]) -> None:
    if number in done:
        return
    node = prompt[number]
    node_class: Any = classes[node["class_type"]]
    lists: dict[str, list[Any]] = {}
    for name, value in node["inputs"].items():
        if isinstance(value, list):
            _run(value[0], prompt, classes, done)
            lists[name] = done[value[0]][value[1]]
        else:
            lists[name] = [value]
    is_list = getattr(node_class, "OUTPUT_IS_LIST", None) or [False] * len(node_class.RETURN_TYPES)
    found: list[list[Any]] = [[] for _ in node_class.RETURN_TYPES]
    for turn in range(max((len(values) for values in lists.values()), default=1)):
        given = {name: values[min(turn, len(values) - 1)] for name, values in lists.items()}
        made = getattr(
            node_class if node_class.FUNCTION == "EXECUTE_NORMALIZED" else node_class(), node_class.FUNCTION
        )(**given)
        made = made["result"] if isinstance(made, dict) else getattr(made, "args", made)
        assert len(made) == len(found), f"{node['class_type']} returns {len(made)} values, not {len(found)}"
        for values, value, many in zip(found, made, is_list, strict=True):
            values.extend(value if many else [value])
    done[number] = found


def read_workflow(path: Path) -> dict[str, Any]:
    """Return a saved workflow."""
    workflow: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return workflow


# -- nodes of ComfyUI itself, as they declare themselves


class LoadImage:
    """A picture of the input folder as IMAGE, and MASK."""

    RETURN_TYPES, FUNCTION, OUTPUT_NODE = ("IMAGE", "MASK"), "load", False

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        return {"required": {"image": (_input_files(), {"image_upload": True})}}

    def load(self, image: str) -> tuple[Any, Any]:
        pixels = _pixels(image)
        return pixels, torch.zeros(1, 64, 64)


class LoadImageMask:
    """One channel of a picture as MASK."""

    RETURN_TYPES, FUNCTION, OUTPUT_NODE = ("MASK",), "load", False

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        channels = ["alpha", "red", "green", "blue"]
        return {"required": {"image": (_input_files(), {"image_upload": True}), "channel": (channels, {})}}

    def load(self, image: str, channel: str) -> tuple[Any]:
        return (_pixels(image)[..., ["red", "green", "blue"].index(channel)],)


class LoadVideo:
    """A video of the input folder as VIDEO."""

    RETURN_TYPES, FUNCTION, OUTPUT_NODE = ("VIDEO",), "load", False

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        return {"required": {"file": (_input_files(), {"video_upload": True})}}

    def load(self, file: str) -> tuple[Any]:
        from comfy_api.latest import InputImpl, Types

        path = _input_folder() / file
        images, rate = read_video(path)
        return (InputImpl.VideoFromFile(str(path), Types.VideoComponents(images, None, rate)),)


class PreviewAny:
    """Anything as text."""

    RETURN_TYPES, FUNCTION, OUTPUT_NODE = (), "show", True
    SHOWN: list[Any] = []

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        return {"required": {"source": ("*", {})}}

    def show(self, source: Any) -> dict[str, Any]:
        PreviewAny.SHOWN.append(source)
        return {"ui": {"text": (str(source),)}, "result": ()}


CORE_NODES = {one.__name__: one for one in (LoadImage, LoadImageMask, LoadVideo, PreviewAny)}


def read_video(path: Path) -> tuple[Any, Any]:
    """Return the frames of a video as IMAGE, and its rate."""
    import av

    with av.open(str(path)) as container:
        rate = container.streams.video[0].average_rate
        frames = [torch.from_numpy(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    return torch.stack(frames).float() / 255, rate


def _input_folder() -> Path:
    import folder_paths

    return Path(folder_paths.get_input_directory())


def _input_files() -> list[str]:
    return sorted(path.name for path in _input_folder().glob("*"))


def _pixels(name: str) -> Any:
    import numpy as np
    from PIL import Image

    return torch.from_numpy(np.array(Image.open(_input_folder() / name).convert("RGB")))[None].float() / 255
