"""Rows with several captions: which there are, and which one an epoch trains on."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from core.errors import UserError
from curation.expressions import Expression, parse
from train_bridge.data.formats import Listing
from train_bridge.types import TrainRow

WHAT = "data.captions"
MAIN = "caption"
"""stands for the text of any metadata, whatever its key is"""


def parse_captions(shares: Mapping[str, float]) -> dict[str, Expression | None]:
    """Return what reads each column with a share above 0; None for the main caption.

    Raises:
        UserError: no share is above 0, or a name is no column's.
    """
    if not shares:
        return {}
    if not any(shares.values()):
        raise UserError(f"{WHAT}: all shares are 0; give at least one caption a share above 0")
    found: dict[str, Expression | None] = {}
    for name, share in shares.items():
        if share:
            found[name] = None if name == MAIN else parse(name, WHAT)
            if (expression := found[name]) is not None and expression.columns != {name}:
                raise UserError(f"{WHAT}: '{name}' is not the name of a column")
    return found


def captions_of(listing: Listing, columns: Mapping[str, Expression | None]) -> dict[str, list[str | None]]:
    """Return the texts of each column that is drawn from, one for each record.

    Raises:
        UserError: a column holds something else than texts.
    """
    return {
        name: [record.caption for record in listing.records] if column is None else _texts(listing.table, column)
        for name, column in columns.items()
    }


def drawn_caption(row: TrainRow, epoch: int, seed: int) -> str:
    """Return the caption that a row has in an epoch: drawn by its shares, always the same for (row, epoch, seed)."""
    if len(row.captions) < 2:
        return row.caption
    digest = hashlib.blake2b(f"caption {seed} {epoch} {row.row_id}".encode("utf-8", "surrogatepass"), digest_size=8)
    place = int.from_bytes(digest.digest(), "big") / 2**64
    ends = np.cumsum(row.caption_shares)
    chosen = int(np.searchsorted(ends, place * ends[-1], side="right"))
    return row.captions[min(chosen, len(row.captions) - 1)]


def all_captions(rows: Sequence[TrainRow]) -> list[str]:
    """Return every caption that rows may be trained with."""
    return [text for row in rows for text in (row.captions or (row.caption,))]


def caption_share_notes(rows: Sequence[TrainRow]) -> list[str]:
    """Write how many rows have how many captions; nothing where each has one."""
    several = [row for row in rows if len(row.captions) > 1]
    if not several:
        return []
    texts = sum(len(row.captions) for row in several)
    return [f"captions: {len(several)} of {len(rows)} rows have several, {texts} in all; one is drawn each epoch"]


def _texts(table: pa.Table, column: Expression) -> list[str | None]:
    data = column.evaluate(table)
    if data.type not in (pa.string(), pa.null()):
        raise UserError(f"{WHAT}: column '{column.text}' holds {data.type}; captions are texts")
    values: list[str | None] = data.to_pylist()
    return values
