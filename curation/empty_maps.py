"""Control maps with next to nothing in them, which would teach a model to pass over its control."""

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from curation.schema import CONTROL, CONTROLS

EMPTY_BELOW = 0.001
"""the amount below which a map holds next to nothing, whichever it is; see `schema.CONTROLS` for what is counted"""


@dataclass(frozen=True)
class EmptyMaps:
    """How many clips have an empty map of one control, or none that could be made.

    Attributes:
        clips: so many.
        of: clips that were written and should have one.
        share: `clips` of `of`.
    """

    clips: int
    of: int
    share: float


def is_empty(amount: float | None) -> bool:
    """Return whether a map of this amount holds next to nothing; False where the amount is not known."""
    return amount is not None and amount < EMPTY_BELOW


def count_empty(table: pa.Table) -> dict[str, EmptyMaps]:
    """Return, by control, how many accepted clips have an empty map; controls without any are left out.

    Args:
        table: with `status`, `type`, `clip_path`, and the paths and amounts of its controls, if it has any.
    """
    found = {}
    written = pc.and_(pc.equal(table["status"], "accepted"), pc.is_valid(table["clip_path"]))
    for name, _, media in CONTROLS:
        path, amount = f"{CONTROL}{name}_path", f"{CONTROL}{name}_amount"
        if path not in table.column_names or amount not in table.column_names:
            continue
        rows = table.filter(pc.and_(written, pc.is_in(table["type"], pa.array(sorted(media)))))
        is_bare = pc.or_(pc.is_null(rows[path]), pc.fill_null(pc.less(rows[amount], EMPTY_BELOW), False))
        clips = pc.sum(is_bare).as_py() or 0
        if clips:
            found[name] = EmptyMaps(clips, len(rows), clips / len(rows))
    return found


def count_motionless(table: pa.Table) -> dict[str, int]:
    """Return, by control that needs motion, how many accepted images have no such map; none where there are none."""
    images = pc.and_(pc.equal(table["status"], "accepted"), pc.equal(table["type"], "image"))
    count = pc.sum(images).as_py() or 0
    asked = [
        name for name, _, media in CONTROLS if "image" not in media and f"{CONTROL}{name}_path" in table.column_names
    ]
    return dict.fromkeys(asked, count) if count else {}


def motionless_lines(found: Mapping[str, int]) -> list[str]:
    """Return a line for each control that needs motion and was asked for where there are images."""
    return [f"note: {count} images have no {name} map, which needs motion" for name, count in found.items()]


def empty_lines(found: Mapping[str, EmptyMaps]) -> list[str]:
    """Return a warning for each control, with the rule that rejects such clips."""
    return [
        f"warning: the {name} map of {one.clips} of {one.of} clips ({one.share:.0%}) is empty; "
        f"rules.{CONTROL}{name}_amount.min={0.9 if name == 'camera' else EMPTY_BELOW:g} rejects them"
        for name, one in found.items()
    ]
