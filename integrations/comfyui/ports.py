"""What a node is, apart from how ComfyUI wants to be told: inputs, outputs and a function."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal[
    "INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "IMAGE", "MASK", "VIDEO", "SELECTS_MODEL", "SELECTS_SETTINGS"
]
"""ComfyUI's types; IMAGE is float32 (B, H, W, C) of 0..1, a video B frames; MASK float32 (B, H, W) of 0..1"""
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
"""types that a node has fields for"""
MODEL: Kind = "SELECTS_MODEL"
SETTINGS: Kind = "SELECTS_SETTINGS"
MOST_SEED = 2**53 - 1
"""the largest that a page's numbers hold exactly"""


@dataclass(frozen=True)
class Port:
    """An input.

    Attributes:
        name: of the function's argument.
        kind: its type.
        help: one line.
        default: of a field; the function's default where the input is optional and has no field.
        least: of a number.
        most: of a number.
        step: of a number.
        choices: of a COMBO.
        lines: a STRING of several lines.
        optional: it may be left unconnected.
        is_seed: the page may draw it anew for every run.
    """

    name: str
    kind: Kind
    help: str
    default: Any = None
    least: float | None = None
    most: float | None = None
    step: float | None = None
    choices: Sequence[str] = ()
    lines: bool = False
    optional: bool = False
    is_seed: bool = False


@dataclass(frozen=True)
class Out:
    """An output; `is_list`: the nodes that follow run once for each of its values."""

    name: str
    kind: Kind
    help: str
    is_list: bool = False


@dataclass(frozen=True)
class Node:
    """A node.

    Attributes:
        id: its name in workflows; never changed.
        title: its name on the page.
        about: one or two lines.
        inputs: in the page's order, those that may be left out last.
        outputs: in the order of the function's tuple; VIDEO, which V1 lacks, last.
        run: takes inputs by name, returns a tuple of outputs, or ComfyUI's dictionary of `ui` and `result`.
        writes: it does something by itself, so that a workflow may end with it.
        changed: takes the same inputs and returns what changes when the node has to run again; None: inputs alone.
    """

    id: str
    title: str
    about: str
    inputs: tuple[Port, ...]
    outputs: tuple[Out, ...]
    run: Callable[..., Any]
    writes: bool = False
    changed: Callable[..., str] | None = None
