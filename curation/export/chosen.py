"""Which rows of an output are exported: those for which an expression holds, those of a selection, or both."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from core.errors import UserError
from curation.expressions import keep_mask, parse
from curation.find.selection import read_selection


@dataclass(frozen=True)
class Chosen:
    """What is asked for; rows that are not accepted and complete are left out besides.

    Attributes:
        where: an expression over the table's columns; None: every row.
        clips: a file of clip ids, as `find --write` writes it; None: every row.
    """

    where: str | None = None
    clips: Path | None = None

    @property
    def remembered(self) -> dict[str, Any]:
        """What the memory of exports holds of it."""
        clips = None if self.clips is None else str(self.clips.absolute())
        return {name: value for name, value in (("where", self.where), ("clips", clips)) if value is not None}

    def filter(self, rows: ds.Dataset, out: Path) -> ds.Expression | None:
        """Return the condition on an output's rows; None where all are asked for.

        Raises:
            UserError: an expression that cannot be, or a selection that cannot be read or names clips of others only.
        """
        found: ds.Expression | None = None
        if self.clips is not None:
            ids = pa.array(read_selection(self.clips, "clips"), pa.string())
            found = pc.field("clip_id").isin(ids)
            if not rows.count_rows(filter=found):
                raise UserError(f"none of its {len(ids)} ids is of a clip in {out}", field="clips", value=self.clips)
        if self.where is not None:
            condition = parse(self.where, "where")
            condition.check(rows.schema.names)
            table = rows.to_table(columns=["clip_id", *sorted(condition.columns - {"clip_id"})])
            holds = pc.field("clip_id").isin(table["clip_id"].filter(pa.array(keep_mask(table, condition))))
            found = holds if found is None else found & holds
        return found


EVERYTHING = Chosen()


def chosen_of(held: dict[str, Any]) -> Chosen:
    """Return what an export was asked for, as the memory of exports holds it; values that are none count as absent."""
    where, clips = held.get("where"), held.get("clips")
    return Chosen(where if isinstance(where, str) else None, Path(clips) if isinstance(clips, str) else None)
