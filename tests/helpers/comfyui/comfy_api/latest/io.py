"""What `comfy_api.latest.io` offers: types, schemas and the base class of nodes, strict about what they are given."""

from dataclasses import dataclass, field
from typing import Any

OPTIONS = {
    "INT": {"default", "min", "max", "step", "control_after_generate"},
    "FLOAT": {"default", "min", "max", "step", "round"},
    "STRING": {"default", "multiline", "placeholder"},
    "BOOLEAN": {"default", "label_on", "label_off"},
    "COMBO": {"default", "options", "control_after_generate"},
}


class _Input:
    io_type = ""

    def __init__(
        self,
        id: str,
        display_name: str | None = None,
        optional: bool = False,
        tooltip: str | None = None,
        **options: Any,
    ):
        unknown = options.keys() - OPTIONS.get(self.io_type, set())
        if unknown:
            raise TypeError(f"{self.io_type}.Input takes no {sorted(unknown)}")
        self.id, self.optional, self.options = id, optional, options | ({"tooltip": tooltip} if tooltip else {})


class _Output:
    io_type = ""

    def __init__(
        self,
        id: str | None = None,
        display_name: str | None = None,
        tooltip: str | None = None,
        is_output_list: bool = False,
    ):
        self.display_name, self.tooltip, self.is_output_list = display_name, tooltip, is_output_list


def Custom(name: str) -> Any:  # noqa: N802 - as ComfyUI spells it
    sides = {side: type(side, (base,), {"io_type": name}) for side, base in (("Input", _Input), ("Output", _Output))}
    return type(name, (), sides)


Int, Float, String, Boolean, Combo = map(Custom, ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"))
Image, Mask, Video = map(Custom, ("IMAGE", "MASK", "VIDEO"))


@dataclass
class Schema:
    """The declaration of a node."""

    node_id: str
    display_name: str | None = None
    category: str = "sd"
    inputs: list[Any] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)
    description: str = ""
    is_output_node: bool = False


class NodeOutput:
    """What a node returns."""

    def __init__(self, *args: Any, ui: Any = None):
        self.args, self.ui = args, ui


class ComfyNode:
    """The base of nodes; classes show the attributes of V1."""

    FUNCTION = "EXECUTE_NORMALIZED"

    @classmethod
    def GET_SCHEMA(cls) -> Schema:  # noqa: N802
        schema = cls.define_schema()
        ids = [one.id for one in schema.inputs]
        if len(set(ids)) != len(ids):
            raise ValueError(f"{schema.node_id}: input ids must be unique")
        cls.RETURN_TYPES = [one.io_type for one in schema.outputs]
        cls.OUTPUT_IS_LIST = [one.is_output_list for one in schema.outputs]
        cls.OUTPUT_NODE = schema.is_output_node
        return schema

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, dict[str, Any]]:  # noqa: N802
        inputs = cls.define_schema().inputs
        return {
            "required": {one.id: (one.io_type, one.options) for one in inputs if not one.optional},
            "optional": {one.id: (one.io_type, one.options) for one in inputs if one.optional},
        }

    @classmethod
    def EXECUTE_NORMALIZED(cls, *args: Any, **given: Any) -> NodeOutput:  # noqa: N802
        made = cls.execute(*args, **given)
        if isinstance(made, NodeOutput):
            return made
        if isinstance(made, tuple):
            return NodeOutput(*made)
        raise TypeError(f"invalid return type of a node: {type(made)}")
