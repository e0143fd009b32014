"""The nodes as ComfyUI's V3 interface takes them: classes with a schema, in an extension that an entry point gives."""

import importlib.util
from typing import Any

from integrations.comfyui.ports import Node, Out, Port
from integrations.comfyui.table import CATEGORY, NODES

NATIVE = {
    "INT": "Int", "FLOAT": "Float", "STRING": "String", "BOOLEAN": "Boolean", "COMBO": "Combo", "IMAGE": "Image",
    "MASK": "Mask", "VIDEO": "Video",
}  # fmt: skip
"""names in `comfy_api.latest.io` of ComfyUI's own types"""


def has_v3() -> bool:
    """Return whether this process has ComfyUI's V3 interface."""
    try:
        return importlib.util.find_spec("comfy_api.latest") is not None
    except ModuleNotFoundError:
        return False


async def comfy_entrypoint() -> Any:
    """Return the extension; ComfyUI calls this."""
    from comfy_api.latest import ComfyExtension, io

    class Selects(ComfyExtension):
        """All nodes."""

        async def get_node_list(self) -> list[type]:
            """Return their classes."""
            return [class_of(node, io) for node in NODES]

    return Selects()


def class_of(node: Node, io: Any) -> type:
    """Return the class of a node.

    Args:
        node: what it is.
        io: the module `comfy_api.latest.io`.
    """

    def define_schema(cls: type, /) -> Any:
        return io.Schema(
            node_id=node.id,
            display_name=node.title,
            category=CATEGORY,
            description=node.about,
            inputs=[_input(port, io) for port in node.inputs],
            outputs=[_output(out, io) for out in node.outputs],
            is_output_node=node.writes,
        )

    def execute(cls: type, /, **given: Any) -> Any:  # ComfyUI hands inputs over by name
        made = node.run(**given)
        if isinstance(made, dict):
            return io.NodeOutput(*made["result"], ui=made["ui"])
        return io.NodeOutput(*made)

    members: dict[str, Any] = {
        "__doc__": node.about,
        "define_schema": classmethod(define_schema),
        "execute": classmethod(execute),
    }
    changed = node.changed
    if changed is not None:

        def fingerprint(cls: type, /, **given: Any) -> str:
            return changed(**given)

        members["fingerprint_inputs"] = classmethod(fingerprint)
    return type(node.id, (io.ComfyNode,), members)


def _type(kind: str, io: Any) -> Any:
    return io.__dict__[NATIVE[kind]] if kind in NATIVE else io.Custom(kind)


def _input(port: Port, io: Any) -> Any:
    options: dict[str, Any] = {"tooltip": port.help, "optional": port.optional}
    if port.default is not None:
        options["default"] = port.default
    bounds = {"min": port.least, "max": port.most, "step": port.step}
    options |= {name: value for name, value in bounds.items() if value is not None}
    if port.choices:
        options["options"] = list(port.choices)
    if port.lines:
        options["multiline"] = True
    if port.is_seed:
        options["control_after_generate"] = True
    return _type(port.kind, io).Input(port.name, **options)


def _output(out: Out, io: Any) -> Any:
    return _type(out.kind, io).Output(display_name=out.name, tooltip=out.help, is_output_list=out.is_list)
