"""Which rows are held out for the validation loss, so that no clip is trained on and held out.

Rows that belong together (clips of one source, captions of one clip, files of equal content) are held out together.
Whether they are follows from a hash of their name: adding rows moves no others, and so does another order.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from core.files import read_head
from train_bridge.cache.fingerprint import READERS, file_id
from train_bridge.config import DataSettings
from train_bridge.data.spans import span_of
from train_bridge.types import TrainRow

HEAD_BYTES = 1 << 16
"""of files of equal size; those whose first bytes are equal, too, are read whole"""


@dataclass(frozen=True)
class Split:
    """The rows of a data set on both sides.

    Attributes:
        train: rows to train on, in order.
        held_out: rows for the validation loss, in order.
        groups: how many groups of rows there are that stay together.
        groups_held_out: how many of them are held out.
        sources_known: some row names the source that it comes from.
    """

    train: tuple[TrainRow, ...]
    held_out: tuple[TrainRow, ...]
    groups: int
    groups_held_out: int
    sources_known: bool


def divide_rows(rows: Sequence[TrainRow], settings: DataSettings) -> Split:
    """Divide rows as `data.validation` and `data.validation_by` say; reads files only where two have the same size."""
    names = group_names(rows, settings) if settings.validation else [row.row_id for row in rows]
    held = [is_held_out(name, settings.validation) for name in names]
    return Split(
        train=tuple(row for row, is_out in zip(rows, held, strict=True) if not is_out),
        held_out=tuple(row for row, is_out in zip(rows, held, strict=True) if is_out),
        groups=len(set(names)),
        groups_held_out=len({name for name, is_out in zip(names, held, strict=True) if is_out}),
        sources_known=any(row.source for row in rows),
    )


def group_names(rows: Sequence[TrainRow], settings: DataSettings) -> list[str]:
    """Return the name of each row's group: the smallest of its rows' names, whatever the order of the rows."""
    if settings.validation_by == "row":
        return [row.row_id for row in rows]
    contents = same_content(row.path for row in rows)
    by_source = settings.validation_by == "source"
    sets = _Sets()
    for place, row in enumerate(rows):
        content = contents.get(row.path, str(row.path))
        sets.join(place, ("content", content) if by_source else ("clip", content, span_of(row)))
        if by_source and row.source:
            sets.join(place, ("source", row.source))
    smallest: dict[Hashable, str] = {}
    for place, row in enumerate(rows):
        name = (row.source if by_source else None) or row.row_id
        root = sets.root(place)
        smallest[root] = min(smallest.get(root, name), name)
    return [smallest[sets.root(place)] for place in range(len(rows))]


def same_content(paths: Iterable[Path]) -> dict[Path, str]:
    """Return a common name for files of equal content; files that are like no other, or unreadable, have none.

    Files of a size that no other has are not opened, and of the others most only for their first 64 KiB.
    """
    alike = [list(dict.fromkeys(paths))]
    with ThreadPoolExecutor(READERS) as pool:
        for look in (_size, _head, _whole):
            alike = [same for some in alike for same in _alike(some, list(pool.map(look, some)))]
    return {path: str(same[0]) for same in alike for path in same}


def split_notes(settings: DataSettings, split: Split, usable: int, validate_every: int) -> list[str]:
    """Write lines for people on what is held out, and on what keeps it from being of use.

    Args:
        settings: which rows were to be held out.
        split: how they were divided.
        usable: held-out rows that fit a bucket.
        validate_every: steps between validation losses, 0 for never.
    """
    rows, unit = len(split.train) + len(split.held_out), settings.validation_by
    if not settings.validation:
        return ["watch.validate_every: no rows are held out to validate with; set data.validation"] * bool(
            validate_every
        )
    of_groups = f" ({_counted(split.groups, unit)})" if unit != "row" else ""
    if not split.held_out:
        return [
            f"data.validation {settings.validation:g} of {_counted(rows, 'row')}{of_groups} holds out none; raise it"
        ]
    share = f"{len(split.held_out) / rows:.0%}"
    lines = [
        f"held out by {unit}: {split.groups_held_out} of {_counted(split.groups, unit)}, {share} of the rows "
        f"for data.validation {settings.validation:g}"
    ]
    if unit == "source" and not split.sources_known:
        lines.append(
            "no row names its source, so that each file counts as one; write source_path into the metadata, or give "
            "the output folder of `curate`"
        )
    if not usable:
        lines.append("no held-out row fits a bucket, so that there is nothing to validate with; see why above")
    elif not validate_every:
        lines.append("held-out rows are never looked at; set watch.validate_every")
    return lines


def all_held_out(settings: DataSettings, split: Split) -> str | None:
    """Return why no row is left to train on, None where validation is not the reason."""
    if split.train or not split.held_out:
        return None
    unit = settings.validation_by
    of_groups = f" of {_counted(split.groups, unit)}" if unit != "row" else ""
    fix = "lower it" if unit == "row" else "lower it, or set data.validation_by=row"
    rows = _counted(len(split.held_out), "row")
    return f"data.validation {settings.validation:g} holds out all {rows}{of_groups}; {fix}"


def _counted(count: int, unit: str) -> str:
    name = {"content": "clip"}.get(unit, unit)
    return f"{count} {name}{'s' * (count != 1)}"


def is_held_out(name: str, share: float) -> bool:
    """Return whether a group of this name is among the share that is held out; it follows from the name alone."""
    digest = hashlib.blake2b(b"held out " + name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64


def _alike(paths: Sequence[Path], looks: Sequence[Hashable | None]) -> list[list[Path]]:
    """Group paths that look equal; those that look like no other, or cannot be looked at, are left out."""
    found: dict[Hashable, list[Path]] = defaultdict(list)
    for path, look in zip(paths, looks, strict=True):
        if look is not None:
            found[look].append(path)
    return [same for same in found.values() if len(same) > 1]


def _readable(look: Callable[[Path], Hashable]) -> Callable[[Path], Hashable | None]:
    def or_none(path: Path) -> Hashable | None:
        try:
            return look(path)
        except OSError:  # whoever needs the file's pictures tells of it
            return None

    return or_none


_size = _readable(lambda path: path.stat().st_size)
_head = _readable(lambda path: hashlib.blake2b(read_head(path, HEAD_BYTES)).digest())
_whole = _readable(file_id)


class _Sets:
    """Disjoint sets of hashable things (union-find with path halving)."""

    def __init__(self) -> None:
        self._parents: dict[Hashable, Hashable] = {}

    def root(self, item: Hashable) -> Hashable:
        """Return what stands for the item's set."""
        parents = self._parents
        parents.setdefault(item, item)
        while parents[item] != item:
            parents[item] = parents[parents[item]]
            item = parents[item]
        return item

    def join(self, one: Hashable, other: Hashable) -> None:
        """Make one set of two."""
        self._parents[self.root(one)] = self.root(other)
