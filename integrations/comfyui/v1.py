"""The nodes as ComfyUI took them before V3: classes with `INPUT_TYPES`, `RETURN_TYPES` and `FUNCTION`.

It knows no VIDEO: the outputs and inputs of that type are left out.
"""

from typing import Any

from integrations.comfyui.ports import Node, Port
from integrations.comfyui.table import CATEGORY, NODES


def declared(port: Port) -> tuple[Any, dict[str, Any]]:
    """Return an input's type and options as `INPUT_TYPES` has them."""
    options: dict[str, Any] = {"tooltip": port.help}
    if port.default is not None:
        options["default"] = port.default
    bounds = {"min": port.least, "max": port.most, "step": port.step}
    options |= {name: value for name, value in bounds.items() if value is not None}
    if port.lines:
        options["multiline"] = True
    if port.is_seed:
        options["control_after_generate"] = True
    return (list(port.choices) if port.kind == "COMBO" else port.kind), options


def class_of(node: Node) -> type:
    """Return the class of a node."""
    inputs = [port for port in node.inputs if port.kind != "VIDEO"]
    outputs = [out for out in node.outputs if out.kind != "VIDEO"]
    required = {port.name: declared(port) for port in inputs if not port.optional}
    optional = {port.name: declared(port) for port in inputs if port.optional}

    def input_types(cls: type, /) -> dict[str, Any]:
        return {"required": dict(required), "optional": dict(optional)}

    def run(**given: Any) -> Any:  # ComfyUI hands inputs over by name
        made = node.run(**given)
        return made if isinstance(made, dict) else made[: len(outputs)]

    members = {
        "__doc__": node.about,
        "INPUT_TYPES": classmethod(input_types),
        "RETURN_TYPES": tuple(out.kind for out in outputs),
        "RETURN_NAMES": tuple(out.name for out in outputs),
        "OUTPUT_TOOLTIPS": tuple(out.help for out in outputs),
        "OUTPUT_IS_LIST": tuple(out.is_list for out in outputs),
        "FUNCTION": "run",
        "CATEGORY": CATEGORY,
        "DESCRIPTION": node.about,
        "OUTPUT_NODE": node.writes,
        "run": staticmethod(run),
    }
    if node.changed is not None:
        members["IS_CHANGED"] = staticmethod(node.changed)
    return type(node.id, (), members)


NODE_CLASS_MAPPINGS = {node.id: class_of(node) for node in NODES}
NODE_DISPLAY_NAME_MAPPINGS = {node.id: node.title for node in NODES}
