"""From metadata to rows to train on; every row that cannot be used is refused with its place, reason and mend."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from curation.errors import UserError
from curation.sources import VIDEO_SUFFIXES
from train_bridge.config import DataSettings
from train_bridge.expressions import keep_mask, parse, weights
from train_bridge.formats import Listing, Record, read_listing
from train_bridge.types import Refusal, TrainRow

ABSOLUTE = "is an absolute path"
OUTSIDE = "leads out of the root"
MISSING = "no such file"
NO_FILE = "is not a file"
CLOSED = "its folder cannot be read"
MENDS = {
    ABSOLUTE: "set data.absolute=true to allow it, or write it relative to the root",
    OUTSIDE: "set data.absolute=true to allow it, or data.root to a folder that holds all files",
    MISSING: "correct the path, or set data.root to the folder that paths start from",
    NO_FILE: "name a video or an image",
    CLOSED: "grant access to it",
}
LARGEST = 2**31  # no frame count, side or rate comes near
MISSING_CLIP = "run `curate` again, which writes what is missing"
MISSING_SOURCE = "set data.root to the folder that holds the sources"


@dataclass(frozen=True)
class Metadata:
    """What metadata gives to train on.

    Attributes:
        rows: in the metadata's order.
        refused: rows that cannot be used.
        source: the file or folder that was read.
        left_out: rows that `where` left out; of them nothing else was looked at. Clips that curation has not
            accepted are no rows of a training set and not counted.
    """

    rows: tuple[TrainRow, ...]
    refused: tuple[Refusal, ...]
    source: Path
    left_out: int


class _RefusedError(Exception):
    def __init__(self, key: str, reason: str, mend: str):
        super().__init__(reason)
        self.key, self.reason, self.mend = key, reason, mend


def read_metadata(settings: DataSettings, captions: bool = True) -> Metadata:
    """Read the rows to train on; opens no media file.

    Args:
        settings: which metadata, and which rows of it.
        captions: refuse rows without a caption; else theirs is empty, as the VAE needs none.

    Raises:
        UserError: the metadata as a whole cannot be read, or an expression does not fit it.
    """
    if not settings.metadata:
        raise UserError("data.metadata is empty; name an output of `curate` or a metadata file (--data)")
    source = Path(os.path.abspath(os.path.expanduser(settings.metadata)))
    root = None if settings.root is None else os.path.abspath(os.path.expanduser(settings.root))
    if root is not None and not os.path.isdir(root):
        raise UserError(f"data.root {settings.root}: no such folder")
    shown = os.fsencode(source).decode("utf-8", "backslashreplace")
    if shown != str(source):  # neither a config nor a table can hold it
        raise UserError(f"data.metadata {shown}: its name holds bytes that are no UTF-8; rename it")
    where = None if settings.where is None else parse(settings.where, "data.where (--where)")
    weight = None if settings.weight is None else parse(settings.weight, "data.weight (--weight)")
    listing = read_listing(source, root, [e for e in (where, weight) if e is not None])
    count = len(listing.records)
    kept = np.flatnonzero(keep_mask(listing.table, where)) if where else np.arange(count)
    factors = weights(listing.table, weight) if weight else np.ones(count)
    rows, refused = _check_rows(listing, kept, factors, _Files(settings.absolute), captions)
    return Metadata(tuple(rows), (*listing.refused, *refused), source, count - len(kept))


def _check_rows(
    listing: Listing, kept: np.ndarray, factors: np.ndarray, files: "_Files", captions: bool
) -> tuple[list[TrainRow], list[Refusal]]:
    rows: dict[str, TrainRow] = {}
    places: dict[str, str] = {}
    refused = []
    for i in kept:
        record = listing.records[i]
        row_id = None
        try:
            row_id = _row_id(record)
            if row_id in rows:
                mend = f"first in {places[row_id]}; delete one, or give each its own clip_id"
                raise _RefusedError("clip_id" if record.clip_id else record.key, "is there twice", mend)
            rows[row_id] = _row(record, row_id, listing, float(factors[i]), files, captions)
            places[row_id] = record.place
        except _RefusedError as error:
            refused.append(Refusal(record.place, error.key, error.reason, error.mend, row_id))
    return list(rows.values()), refused


def _row(record: Record, row_id: str, listing: Listing, factor: float, files: "_Files", captions: bool) -> TrainRow:
    """Check one record.

    Raises:
        _RefusedError: it cannot be used.
    """
    file = row_id if row_id is record.file else _filled(record.file, record.key, "write the path of the file")
    kind = _kind(record, file)
    caption = record.caption or ""
    if captions:
        _filled(caption, listing.caption_key, "write one; for an output: run `curate` again with a captioner")
    _checked(caption, listing.caption_key)
    width, height = (_amount(record, key, whole=True) for key in ("width", "height"))
    num_frames, duration_s = (1, 0.0) if kind == "image" else _length(record)
    if record.is_span and (record.start_s is None or record.end_s is None):
        raise _RefusedError("start_s", "has neither a file nor a span", MISSING_CLIP)
    if not factor >= 0:
        reason = "is negative" if factor < 0 else "is missing"
        raise _RefusedError("weight", reason, "change data.weight, or leave the row out with data.where")
    root = listing.root if record.root is None else record.root
    if not root:
        raise _RefusedError("source_root", "is missing", MISSING_SOURCE)
    if problem := files.problem(root, file):
        mends = {"clip_path": MISSING_CLIP, "source_path": MISSING_SOURCE} if problem == MISSING else {}
        raise _RefusedError(record.key, problem, mends.get(record.key, MENDS[problem]))
    path = Path(root, file)
    return TrainRow(
        row_id, path, caption, kind, width, height, num_frames, duration_s, record.start_s, record.end_s, factor
    )  # fmt: skip


def _length(record: Record) -> tuple[int | None, float | None]:
    """Give a video's frames and seconds, as far as the metadata knows them."""
    num_frames, fps = _amount(record, "num_frames", whole=True), _amount(record, "fps", whole=False)
    duration_s = _amount(record, "duration_s", whole=False)
    if duration_s is None and num_frames and fps:
        duration_s = num_frames / fps
    return num_frames, duration_s


def _row_id(record: Record) -> str:
    if isinstance(record.clip_id, int) and not isinstance(record.clip_id, bool):
        return str(record.clip_id)
    if record.clip_id is None or record.clip_id == "":
        return _filled(record.file, record.key, "write the path of the file")
    return _filled(record.clip_id, "clip_id", "write a text, or leave it out")


def _kind(record: Record, file: str) -> Literal["video", "image"]:
    """Give the type; where none is said it is an image, as EasyAnimate reads it, but for a known video's name."""
    if record.type is None or record.type == "":
        return "video" if os.path.splitext(file)[1].lower() in VIDEO_SUFFIXES else "image"
    if record.type in ("video", "image"):
        return record.type
    raise _RefusedError("type", "is neither video nor image", "write one of them")


def _filled(value: Any, key: str, mend: str) -> str:
    if value is None or (isinstance(value, str) and not value.strip()):
        raise _RefusedError(key, "is missing", mend)
    return _checked(value, key)


def _checked(value: Any, key: str) -> str:
    """Give a text that every step after this one can hold."""
    if not isinstance(value, str):
        raise _RefusedError(key, "is not a text", f"write a text, not a {type(value).__name__}")
    if "\0" in value:
        raise _RefusedError(key, "holds a zero byte", "delete it")
    try:
        value.isascii() or value.encode()
    except UnicodeEncodeError:
        raise _RefusedError(key, "holds bytes that are no UTF-8, or half a character", "write it again") from None
    return value


def _amount(record: Record, key: str, whole: bool) -> Any:
    """Give a positive number, or None where the metadata has none; digits in a text count, as in EasyAnimate's."""
    value = getattr(record, key)
    if value is None or value == "":
        return None
    if type(value) is int and 0 < value < LARGEST:
        return value if whole else float(value)
    try:
        number = float(value)
        if not isinstance(value, bool) and 0 < number < LARGEST and (not whole or number == int(number)):
            return int(number) if whole else number
    except (TypeError, ValueError, OverflowError):
        pass
    kind = "whole number" if whole else "number"
    raise _RefusedError(key, f"is not a positive {kind}", "correct it, or delete it so that the file is asked")


# -- files -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Folder:
    files: frozenset[str] = frozenset()
    links: frozenset[str] = frozenset()
    others: frozenset[str] = frozenset()
    problem: str = MISSING
    """what to say of a name that is not there"""


@dataclass(frozen=True)
class _Files:
    """Looks files up: each folder is listed once, which on network disks is far cheaper than asking file by file.

    Attributes:
        anywhere: allow absolute paths and paths that leave the root.
    """

    anywhere: bool
    _folders: dict[tuple[str, str], _Folder] = field(default_factory=dict)
    _roots: dict[str, str] = field(default_factory=dict)

    def problem(self, root: str, path: str) -> str | None:
        """Tell what is wrong with a path, None where it names a file that may be read."""
        if os.path.isabs(path) and not self.anywhere:
            return ABSOLUTE
        place, name = os.path.split(os.path.join(root, path))
        folder = self._folders.get((root, place))
        if folder is None:
            folder = self._folders[root, place] = self._list(root, place)
        if name in folder.files:
            return None
        if name in folder.links:
            target = os.path.realpath(os.path.join(place, name))
            return (None if os.path.isfile(target) else MISSING) if self._may_read(root, target) else OUTSIDE
        return NO_FILE if name in folder.others or name in ("", ".", "..") else folder.problem

    def _list(self, root: str, place: str) -> _Folder:
        if not self._may_read(root, os.path.realpath(place)):
            return _Folder(problem=OUTSIDE)
        files: set[str] = set()
        links: set[str] = set()
        others: set[str] = set()
        try:
            with os.scandir(place) as entries:
                for entry in entries:
                    (links if entry.is_symlink() else files if entry.is_file() else others).add(entry.name)
        except PermissionError:
            return _Folder(problem=CLOSED)
        except OSError:  # not there, no folder, or a name that is too long for one
            return _Folder()
        return _Folder(frozenset(files), frozenset(links), frozenset(others))

    def _may_read(self, root: str, real: str) -> bool:
        if self.anywhere:
            return True
        top = self._roots.get(root)
        if top is None:
            top = self._roots[root] = os.path.realpath(root)
        return real == top or real.startswith(top.rstrip(os.sep) + os.sep)
