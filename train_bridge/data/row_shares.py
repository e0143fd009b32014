"""What expressions say of rows: weight, repeats, groups, noise levels and captions, put into each row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from core.sanitize import LONGEST_CAPTION
from curation.expressions import Expression, groups, weights
from train_bridge.data.formats import Listing
from train_bridge.data.timesteps import Timesteps, flaw
from train_bridge.types import ALL_LEVELS, TrainRow

MOST_REPEATS = 1000.0


class RefusedError(Exception):
    """A row that cannot be used: the key at fault, what is wrong with it, and what to do."""

    def __init__(self, key: str, reason: str, fix: str):
        super().__init__(reason)
        self.key, self.reason, self.fix = key, reason, fix


@dataclass(frozen=True)
class Shares:
    """What expressions say of each kept row, in their order.

    Attributes:
        weights: factors on the loss (N,).
        repeats: draws an epoch (N,).
        groups: of each quota, N names.
        timesteps: tilt, lowest and highest timestep (N, 3).
        captions: of each column that is drawn from, the texts of all records.
        caption_shares: how often each of these columns is drawn.
    """

    weights: np.ndarray
    repeats: np.ndarray
    groups: list[list[str | None]]
    timesteps: np.ndarray
    captions: Mapping[str, Sequence[str | None]] = field(default_factory=dict)
    caption_shares: Mapping[str, float] = field(default_factory=dict)


def shares_of(
    listing: Listing, kept: np.ndarray, weight: Expression | None, repeat: Expression | None, timesteps: Timesteps
) -> Shares:
    """Evaluate; ranks are those among the kept rows."""
    if repeat is None and not timesteps.expressions:
        factors = weights(listing.table, weight)[kept] if weight else np.ones(len(kept))
        return Shares(factors, np.ones(len(kept)), [], np.tile(ALL_LEVELS, (len(kept), 1)))
    table = listing.table.take(pa.array(kept))
    return Shares(
        weights(listing.table, weight)[kept] if weight else np.ones(len(kept)),
        weights(table, repeat) if repeat else np.ones(len(kept)),
        [groups(table, quota.column) for quota in repeat.quotas] if repeat else [],
        timesteps.values(table),
    )


def filled(value: Any, key: str, fix: str) -> str:
    """Return a value that has to be a text with something in it.

    Raises:
        RefusedError: it is missing, or no text.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        raise RefusedError(key, "is missing", fix)
    return checked_text(value, key)


def checked_text(value: Any, key: str) -> str:
    """Return a text that every step after this one can hold."""
    if not isinstance(value, str):
        raise RefusedError(key, "is not a text", f"write a text, not a {type(value).__name__}")
    if len(value) > LONGEST_CAPTION:
        raise RefusedError(key, f"has more than {LONGEST_CAPTION} characters", "shorten it")
    if "\0" in value:
        raise RefusedError(key, "holds a zero byte", "delete it")
    try:
        value.isascii() or value.encode()
    except UnicodeEncodeError:
        raise RefusedError(key, "holds bytes that are no UTF-8, or half a character", "write it again") from None
    return value


def texts_of(shares: Shares, record: int) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Return the captions that a record has, of those that are drawn from, and their shares.

    Raises:
        RefusedError: it has none of them, or one that is not a text.
    """
    if not shares.captions:
        return (), ()
    there = [name for name, texts in shares.captions.items() if texts[record] not in (None, "")]
    if not there:
        names = ", ".join(shares.captions)
        raise RefusedError("captions", "are all missing", f"write one of {names}, or change data.captions")
    texts = tuple(filled(shares.captions[name][record], name, "write a text") for name in there)
    return texts, tuple(float(shares.caption_shares[name]) for name in there)


def drawn(row: TrainRow, shares: Shares, place: int) -> TrainRow:
    """Tell a row how often it is drawn, and at which noise levels.

    Raises:
        RefusedError: a value is missing, or none that can be.
    """
    repeat, (tilt, low, high) = float(shares.repeats[place]), shares.timesteps[place].tolist()
    if not 0 <= repeat <= MOST_REPEATS:
        reason = "is negative" if repeat < 0 else f"is above {MOST_REPEATS:g}" if repeat > 0 else "is missing"
        raise RefusedError("repeat", reason, "change data.repeat, or leave the row out with data.where")
    if wrong := flaw(tilt, low, high):
        raise RefusedError("timesteps", *wrong)
    names = tuple(names[place] for names in shares.groups)
    if (repeat, names, (tilt, low, high)) == (row.repeat, row.groups, row.levels):
        return row
    return replace(row, repeat=repeat, groups=names, tilt=tilt, min_t=low, max_t=high)
