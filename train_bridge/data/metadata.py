"""From metadata to rows to train on; every row that cannot be used is refused with its place, reason and fix."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from core.errors import UserError
from core.sanitize import clean_text
from curation.expressions import keep_mask, parse
from curation.find.selection import read_selection
from media.names import VIDEO_SUFFIXES
from train_bridge.config import DataSettings
from train_bridge.data.controls import OF_MOTION, chosen_controls, control_shares
from train_bridge.data.drawn_captions import captions_of, parse_captions
from train_bridge.data.formats import Listing, Record, read_listing
from train_bridge.data.row_shares import RefusedError, Shares, checked_text, drawn, filled, shares_of, texts_of
from train_bridge.data.timesteps import Timesteps, parse_timesteps
from train_bridge.types import Refusal, TrainRow

ABSOLUTE = "is an absolute path"
OUTSIDE = "leads out of the root"
MISSING = "no such file"
NO_FILE = "is not a file"
CLOSED = "its folder cannot be read"
FIXES = {
    ABSOLUTE: "set data.absolute=true to allow it, or write it relative to the root",
    OUTSIDE: "set data.absolute=true to allow it, or data.root to a folder that holds all files",
    MISSING: "correct the path, or set data.root to the folder that paths start from",
    NO_FILE: "name a video or an image",
    CLOSED: "grant access to it",
}
LARGEST = 2**31  # no frame count, side or rate comes near
REPEAT = "data.repeat"
MISSING_CLIP = "run `curate` again, which writes what is missing"
NO_MOTION = "an image has none, for it needs motion: leave images out with data.where=\"type == 'video'\""
NO_MAP = "name it in the recipe's controls and run `curate`, or write control_file_path; or leave the row out"
MISSING_SOURCE = "set data.root to the folder that holds the sources"


@dataclass(frozen=True)
class Metadata:
    """What metadata gives to train on.

    Attributes:
        rows: in the metadata's order.
        refused: rows that cannot be used.
        source: the file or folder that was read.
        left_out: rows that `where` and `clips` left out; of them nothing else was looked at. Clips that curation has
            not accepted are no rows of a training set and not counted.
        empty_maps: ids of rows and names of those of their control maps in which there is next to nothing, as far as
            the metadata says it.
    """

    rows: tuple[TrainRow, ...]
    refused: tuple[Refusal, ...]
    source: Path
    left_out: int
    empty_maps: frozenset[tuple[str, str]] = frozenset()


def read_metadata(settings: DataSettings, *, captions: bool = True, controls: bool = False) -> Metadata:
    """Read the rows to train on; opens no media file.

    Args:
        settings: which metadata, and which rows of it.
        captions: refuse rows without a caption; else theirs is empty, as the VAE needs none.
        controls: refuse rows without a control map of those that `data.control` names; else maps are passed over.

    Raises:
        UserError: the metadata as a whole cannot be read, or an expression does not fit it.
    """
    if not settings.metadata:
        raise UserError("is empty", field="data.metadata", fix="name an output of `curate` or a metadata file")
    source = Path(os.path.abspath(os.path.expanduser(settings.metadata)))
    root = None if settings.root is None else os.path.abspath(os.path.expanduser(settings.root))
    if root is not None and not os.path.isdir(root):
        raise UserError("no such folder", field="data.root", value=settings.root)
    shown = os.fsencode(source).decode("utf-8", "backslashreplace")
    if shown != str(source):  # neither a config nor a table can hold it
        raise UserError("its name holds bytes that are no UTF-8", field="data.metadata", value=shown, fix="rename it")
    where = None if settings.where is None else parse(settings.where, "data.where")
    weight = None if settings.weight is None else parse(settings.weight, "data.weight")
    repeat = None if settings.repeat is None else parse(settings.repeat, REPEAT, quotas=True)
    timesteps = Timesteps() if settings.timesteps is None else parse_timesteps(settings.timesteps)
    drawn = parse_captions(settings.captions if captions else {})
    read = [*(e for e in (where, weight, repeat) if e is not None), *timesteps.expressions]
    read += [column for column in drawn.values() if column is not None]
    listing = read_listing(source, root, read, settings.unpacked)
    count = len(listing.records)
    kept = np.flatnonzero(keep_mask(listing.table, where)) if where else np.arange(count)
    if settings.clips is not None:
        kept = _selected(listing, kept, Path(settings.clips).expanduser())
    if listing.unpack is not None:
        listing.unpack(kept.tolist())
    shares = shares_of(listing, kept, weight, repeat, timesteps)
    shares = replace(shares, captions=captions_of(listing, drawn), caption_shares=settings.captions)
    wanted = list(control_shares(settings.control)) if controls else None
    rows, refused = _check_rows(listing, kept, shares, _Files(settings.absolute), wanted, captions=captions)
    empty = _empty_maps(listing, rows) if controls else frozenset()
    return Metadata(tuple(rows), (*listing.refused, *refused), source, count - len(kept), empty)


def _empty_maps(listing: Listing, rows: Sequence[TrainRow]) -> frozenset[tuple[str, str]]:
    bare = {str(record.clip_id): record.empty for record in listing.records if record.empty}
    return frozenset(
        (row.row_id, name) for row in rows for name, _ in row.controls if name in bare.get(row.row_id, frozenset())
    )


def _selected(listing: Listing, kept: np.ndarray, file: Path) -> np.ndarray:
    """Return those of some rows that a selection names by their clip ids.

    Raises:
        UserError: it cannot be read, or names none of the rows.
    """
    ids = frozenset(read_selection(file, "data.clips"))
    named = [listing.records[i].clip_id for i in kept]
    chosen = np.array([isinstance(clip_id, str) and clip_id in ids for clip_id in named], bool)
    if not chosen.any():
        raise UserError(
            f"none of its {len(ids)} ids is of a row to train on",
            field="data.clips",
            value=file,
            fix="select clips of this metadata that are accepted; rows need a clip_id, as an output of curate has it",
        )
    return kept[chosen]


def _check_rows(
    listing: Listing,
    kept: np.ndarray,
    shares: Shares,
    files: "_Files",
    wanted: Sequence[str] | None,
    *,
    captions: bool,
) -> tuple[list[TrainRow], list[Refusal]]:
    rows: dict[str, TrainRow] = {}
    places: dict[str, str] = {}
    refused = []
    for place, i in enumerate(kept):
        record = listing.records[i]
        row_id = None
        try:
            row_id = _row_id(record)
            if row_id in rows:
                fix = f"first in {places[row_id]}; delete one, or give each its own clip_id"
                raise RefusedError("clip_id" if record.clip_id else record.key, "is there twice", fix)
            texts, of_texts = texts_of(shares, int(i))
            if texts:
                record = replace(record, caption=texts[0])
            row = _row(record, row_id, listing, float(shares.weights[place]), files, wanted, captions=captions)
            if texts:
                row = replace(row, captions=texts, caption_shares=of_texts)
            rows[row_id] = drawn(row, shares, place)
            places[row_id] = record.place
        except RefusedError as error:
            refused.append(Refusal(record.place, error.key, error.reason, error.fix, row_id))
    return list(rows.values()), refused


def _row(
    record: Record,
    row_id: str,
    listing: Listing,
    factor: float,
    files: "_Files",
    wanted: Sequence[str] | None,
    *,
    captions: bool,
) -> TrainRow:
    """Check one record.

    Raises:
        RefusedError: it cannot be used.
    """
    file = row_id if row_id is record.file else filled(record.file, record.key, "write the path of the file")
    kind = _kind(record, file)
    caption = record.caption or ""
    if captions:
        filled(caption, listing.caption_key, "write one; for an output: run `curate` again with a captioner")
    checked_text(caption, listing.caption_key)
    width, height = (_amount(record, key, whole=True) for key in ("width", "height"))
    num_frames, duration_s = (1, 0.0) if kind == "image" else _length(record)
    if record.is_span and (record.start_s is None or record.end_s is None):
        raise RefusedError("start_s", "has neither a file nor a span", MISSING_CLIP)
    if not factor >= 0:
        reason = "is negative" if factor < 0 else "is missing"
        raise RefusedError("weight", reason, "change data.weight, or leave the row out with data.where")
    root = listing.root if record.root is None else record.root
    if not root:
        raise RefusedError("source_root", "is missing", MISSING_SOURCE)
    if problem := files.problem(root, file):
        fixes = {"clip_path": MISSING_CLIP, "source_path": MISSING_SOURCE} if problem == MISSING else {}
        raise RefusedError(record.key, problem, fixes.get(record.key, FIXES[problem]))
    path = Path(root, file)
    return TrainRow(
        row_id, path, caption, kind, width, height, num_frames, duration_s, record.start_s, record.end_s, factor,
        source=_source(record), controls=_controls(record, kind, listing, files, wanted),
    )  # fmt: skip


def _controls(
    record: Record, kind: str, listing: Listing, files: "_Files", wanted: Sequence[str] | None
) -> tuple[tuple[str, Path], ...]:
    """Return the names and files of the control maps that are wanted.

    Raises:
        RefusedError: there is none of them, or one cannot be used.
    """
    if wanted is None:
        return ()
    chosen, shown = chosen_controls(record.controls, wanted), " or ".join(wanted) or "control"
    if not chosen:
        needs_motion = kind == "image" and wanted and all(name in OF_MOTION for name in wanted)
        raise RefusedError("control", f"has no {shown} map", NO_MOTION if needs_motion else NO_MAP)
    for name, file in chosen:
        key = f"control {name}".rstrip()
        if problem := files.problem(listing.root, filled(file, key, NO_MAP)):
            raise RefusedError(key, problem, FIXES[problem])
    return tuple((name, Path(listing.root, file)) for name, file in chosen)


def _length(record: Record) -> tuple[int | None, float | None]:
    """Return a video's frames and seconds, as far as the metadata knows them."""
    num_frames, fps = _amount(record, "num_frames", whole=True), _amount(record, "fps", whole=False)
    duration_s = _amount(record, "duration_s", whole=False)
    if duration_s is None and num_frames and fps:
        duration_s = num_frames / fps
    return num_frames, duration_s


def _row_id(record: Record) -> str:
    if isinstance(record.clip_id, int) and not isinstance(record.clip_id, bool):
        return str(record.clip_id)
    if record.clip_id is None or record.clip_id == "":
        return filled(record.file, record.key, "write the path of the file")
    return filled(record.clip_id, "clip_id", "write a text, or leave it out")


def _source(record: Record) -> str | None:
    """Return the name of what the clip was cut from, None where the metadata has none that can be told apart."""
    value = record.source
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return clean_text(value) if isinstance(value, str) and value.strip() else None


def _kind(record: Record, file: str) -> Literal["video", "image"]:
    """Return the type; where none is said it is an image, as EasyAnimate reads it, but for a known video's name."""
    if record.type is None or record.type == "":
        return "video" if os.path.splitext(file)[1].lower() in VIDEO_SUFFIXES else "image"
    if record.type in ("video", "image"):
        return record.type
    raise RefusedError("type", "is neither video nor image", "write one of them")


def _amount(record: Record, key: str, *, whole: bool) -> Any:
    """Return a positive number, or None where the metadata has none; digits in a text count, as in EasyAnimate's."""
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
    raise RefusedError(key, f"is not a positive {kind}", "correct it, or delete it so that the file is asked")


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
        """Return what is wrong with a path, None where it names a file that may be read."""
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
