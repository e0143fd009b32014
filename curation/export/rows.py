"""The rows that every format holds: accepted clips with a file and a caption, in the table's order."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from core.errors import UserError
from core.json_text import joined, json_lines, to_json
from core.sanitize import printable
from curation.folders import TABLE
from curation.reviews import BY_HAND, with_captions
from curation.schema import CAPTION_COLUMNS, CONTROL_PATHS

# Key of the exported record: column of the table it comes from.
RECORD = {
    "file_path": "clip_path",
    "text": "caption",
    "type": "type",
    "width": "clip_width_px",
    "height": "clip_height_px",
    "fps": "clip_fps",
    "num_frames": "clip_num_frames",
    "clip_id": "clip_id",
}
ROWS_PER_BATCH = 8192
# In RE2's words: paths that leave the folder they are in.
OUTSIDE = r"^/|(^|/)\.\.(/|$)|\x00"

Record = dict[str, Any]


@dataclass(frozen=True)
class ExportResult:
    """What an export wrote, and which accepted rows it had to leave out.

    Attributes:
        paths: files written.
        rows: rows in them.
        without_file: accepted rows left out because they have not been cut yet.
        without_caption: accepted rows left out because they have a file but no caption.
        not_videos: complete rows left out because the format names `.mp4` files only.
        images: of the rows, where a reader takes one kind at a time.
    """

    paths: tuple[Path, ...]
    rows: int
    without_file: int = 0
    without_caption: int = 0
    not_videos: int = 0
    images: int = 0


@dataclass
class Tally:
    """Counts kept while rows pass."""

    accepted: int = 0
    rows: int = 0
    without_file: int = 0
    without_caption: int = 0
    not_videos: int = 0
    images: int = 0

    def result(self, *paths: Path) -> ExportResult:
        """Return the counts with the files written."""
        return ExportResult(paths, self.rows, self.without_file, self.without_caption, self.not_videos, self.images)


def open_table(out: Path) -> ds.Dataset:
    """Open the table of an output folder without reading a row.

    Raises:
        UserError: there is none, or it lacks a column.
    """
    parts = sorted((out / TABLE).glob("part-*.parquet"))
    if not parts:
        raise UserError(f"{out}: no table (clips/part-*.parquet) here; run `curate` with this folder as `output`")
    table = ds.dataset([str(part) for part in parts], format="parquet")
    lacking = [column for column in (*RECORD.values(), "status") if column not in table.schema.names]
    if lacking:
        raise UserError(f"{out}: its table has no column '{lacking[0]}'; was it written by this program?")
    return table


def other_captions(table: ds.Dataset) -> list[str]:
    """Return the columns of a table's captions beside `caption`; none where there is but one, which equals it."""
    found = [name for name in CAPTION_COLUMNS if name in table.schema.names]
    return found if len(found) > 1 or any(name.count("_") > 1 for name in found) else []


def other_captions_of(record: Record) -> tuple[str, ...]:
    """Return the keys of a record's captions beside `text`."""
    return tuple(name for name in CAPTION_COLUMNS if name in record)


def complete_batches(
    table: ds.Dataset, out: Path, tally: Tally, more: Sequence[str] = (), *, refuse: bool = True
) -> Iterator[pa.RecordBatch]:
    """Yield the accepted rows with a file and a caption, in the table's order, under the names of `RECORD`.

    The clip's file is under `file_path`, relative to `out`, as in the table; the columns `more`, which name its
    control maps or hold its other captions, follow under their own names.

    Raises:
        UserError: a row names a file outside the output; or, after the last row, there are accepted rows of
            which none has a file and `refuse` is set.
    """
    by_hand = [name for name in (BY_HAND,) if name in table.schema.names]
    batches = table.to_batches(
        columns=[*RECORD.values(), *more, *by_hand],
        filter=pc.field("status") == "accepted",
        batch_size=ROWS_PER_BATCH,
        batch_readahead=1,
        fragment_readahead=1,
        use_threads=False,
    )
    for batch in batches:
        batch = with_captions(batch).select([*RECORD.values(), *more])
        has_file, has_caption = pc.is_valid(batch["clip_path"]), pc.is_valid(batch["caption"])
        complete = pc.and_(has_file, has_caption)
        tally.accepted += len(batch)
        tally.without_file += len(batch) - pc.sum(has_file).as_py() if len(batch) else 0
        tally.without_caption += pc.sum(pc.and_not(has_file, has_caption)).as_py() or 0
        chosen = batch.filter(complete).rename_columns([*RECORD, *more])
        for name in ("file_path", *(column for column in more if column in CONTROL_PATHS)):
            _check_inside(chosen[name], out)
        yield chosen
    if refuse and tally.accepted and tally.without_file == tally.accepted:
        raise UserError(
            f"{out}: none of its {tally.accepted} accepted clips has a file, as with `cut: none`; "
            "set another cut in the recipe and run `curate` again, or train from the table itself, "
            "which reads spans of the sources"
        )


def digest_of(batches: Iterator[pa.RecordBatch]) -> str:
    """Return a digest of complete rows: that of their lines of JSON, as `recorded` takes it of rows that pass."""
    digest = hashlib.sha256()
    for batch in batches:
        if len(batch):
            digest.update(joined(json_lines(batch), "\n"))
            digest.update(b"\n")
    return digest.hexdigest()


def recorded(records: Iterator[Record], digest: "hashlib._Hash") -> Iterator[Record]:
    """Yield records and take each into a digest; equal to `digest_of` of the same rows."""
    for record in records:
        digest.update(f"{to_json(record)}\n".encode())
        yield record


def complete_records(batches: Iterator[pa.RecordBatch]) -> Iterator[Record]:
    """Yield the rows of `complete_batches` one after another; raises as it does."""
    for batch in batches:
        yield from batch.to_pylist()


def _check_inside(paths: pa.Array, out: Path) -> None:
    for path in paths.filter(pc.match_substring_regex(paths, OUTSIDE)).slice(0, 1).to_pylist():
        shown = printable(path, 200)
        raise UserError(f"{out}: its table names a file outside it: '{shown}'; was it written by this program?")


def placed(path: str, prefix: Path | None) -> str:
    """Return a table's path as the trainer shall see it: unchanged, or under an absolute folder."""
    return path if prefix is None else (prefix / path).as_posix()
