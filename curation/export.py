"""From the published table to what trainers read: JSON, CSV, JSON lines or tar shards.

Every format holds the accepted clips that have a file and a caption, in the table's order, and is written
in one pass over the table, so that a million clips need no more memory than a thousand.

Captions are data and come back exactly as they are from every format. Two writings keep them from doing harm
on the way:

- CSV: a cell that a spreadsheet would run as a formula (`=`, `+`, `-`, `@`, tab or carriage return first,
  blanks and quotes aside) has one apostrophe before it. Our reader takes it off; other readers see it.
- JSON: `<` and the line and control characters that JSON itself lets stand are written as escapes,
  which every JSON reader undoes: the text may be embedded in a page, shown by a terminal and split into lines.
"""

import contextlib
import csv
import io
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal, get_args

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from curation.errors import UserError, nearest
from curation.files import atomic_folder, atomic_path
from curation.json_text import joined, json_lines, to_json
from curation.outside_text import printable, safe_cell

Format = Literal["internal", "webvid", "diffusers", "webdataset"]
FORMATS: tuple[Format, ...] = get_args(Format)
INTERNAL_NAME = "json_of_internal_datasets.json"
WEBVID_NAME = "webvid.csv"
DIFFUSERS_NAME = "train/metadata.jsonl"
WEBDATASET_NAME = "webdataset"

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
SHARD_ROWS = 1000
SHARD_BYTES = 1_000_000_000  # webdataset's own advice: shards of about a gigabyte stream well
MEMBER_KEY = re.compile(r"[A-Za-z0-9_-]{1,128}")  # names a tar's members: no folder, and no dot, which ends it
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
    """

    paths: tuple[Path, ...]
    rows: int
    without_file: int = 0
    without_caption: int = 0
    not_videos: int = 0


@dataclass
class Tally:
    """Counts kept while rows pass."""

    accepted: int = 0
    rows: int = 0
    without_file: int = 0
    without_caption: int = 0
    not_videos: int = 0

    def result(self, *paths: Path) -> ExportResult:
        """Give the counts with the files written."""
        return ExportResult(paths, self.rows, self.without_file, self.without_caption, self.not_videos)


def export(
    out: Path,
    format: Format,
    absolute: bool = False,
    shard_rows: int = SHARD_ROWS,
    shard_bytes: int = SHARD_BYTES,
    refuse_without_files: bool = True,
    table: pa.Table | None = None,
) -> ExportResult:
    """Write one trainer's format from the table of an output folder.

    Args:
        out: output folder; the table is `out/clips/part-*.parquet`.
        format: `internal` (`json_of_internal_datasets.json`), `webvid` (`webvid.csv`), `diffusers`
            (`train/metadata.jsonl`) or `webdataset` (`webdataset/shard-000000.tar` and on).
        absolute: name files by absolute path; `internal` and `webvid` only.
        shard_rows: most clips in one tar of `webdataset`.
        refuse_without_files: raise when no accepted row has a file; else write an empty list.
        shard_bytes: most bytes of clip files in one tar; a single larger clip has its own tar.
        table: the folder's table, where it was read already; null: it is read.

    Raises:
        UserError: no table; accepted rows but none with a file; a row that names a file outside the output; a
            request that the format cannot meet.
    """
    out = Path(out)
    if format not in get_args(Format):
        raise UserError(f"export: no format {format!r}{nearest(str(format), list(get_args(Format)))}")
    if absolute and format in ("diffusers", "webdataset"):
        raise UserError(f"export: {format} names its files relative to itself; leave --absolute out")
    if shard_rows < 1 or shard_bytes < 1:
        raise UserError("export: a shard needs room for at least one row and one byte")
    rows = open_table(out) if table is None else ds.dataset(table.select([*RECORD.values(), "status"]))
    tally = Tally()
    if format == "webdataset":
        records = complete_records(rows, out, tally, refuse_without_files)
        return write_webdataset(out, records, tally, shard_rows, shard_bytes)
    target = out / {"internal": INTERNAL_NAME, "webvid": WEBVID_NAME, "diffusers": DIFFUSERS_NAME}[format]
    target.parent.mkdir(exist_ok=True)
    prefix = out.resolve() if absolute else None
    with atomic_path(target) as temporary:
        if format == "internal":
            with open(temporary, "wb") as file:
                write_internal(file, complete_batches(rows, out, tally, refuse_without_files), tally, prefix)
        else:
            write = write_webvid if format == "webvid" else write_diffusers
            with open(temporary, "w", encoding="utf-8", newline="") as text:
                write(text, complete_records(rows, out, tally, refuse_without_files), tally, prefix)
    return tally.result(target)


def open_table(out: Path) -> ds.Dataset:
    """Open the table of an output folder without reading a row.

    Raises:
        UserError: there is none, or it lacks a column.
    """
    parts = sorted((out / "clips").glob("part-*.parquet"))
    if not parts:
        raise UserError(f"{out}: no table (clips/part-*.parquet) here; run `curate` with this folder as --output")
    table = ds.dataset([str(part) for part in parts], format="parquet")
    lacking = [column for column in (*RECORD.values(), "status") if column not in table.schema.names]
    if lacking:
        raise UserError(f"{out}: its table has no column '{lacking[0]}'; was it written by this program?")
    return table


def complete_batches(table: ds.Dataset, out: Path, tally: Tally, refuse: bool = True) -> Iterator[pa.RecordBatch]:
    """Give the accepted rows with a file and a caption, in the table's order, under the names of `RECORD`.

    The clip's file is under `file_path`, relative to `out`, as in the table.

    Raises:
        UserError: a row names a file outside the output; or, after the last row, there are accepted rows of
            which none has a file and `refuse` is set.
    """
    batches = table.to_batches(
        columns=list(RECORD.values()),
        filter=pc.field("status") == "accepted",
        batch_size=ROWS_PER_BATCH,
        batch_readahead=1,
        fragment_readahead=1,
        use_threads=False,
    )
    for batch in batches:
        has_file, has_caption = pc.is_valid(batch["clip_path"]), pc.is_valid(batch["caption"])
        complete = pc.and_(has_file, has_caption)
        tally.accepted += len(batch)
        tally.without_file += len(batch) - pc.sum(has_file).as_py() if len(batch) else 0
        tally.without_caption += pc.sum(pc.and_not(has_file, has_caption)).as_py() or 0
        chosen = batch.filter(complete).rename_columns(list(RECORD))
        _check_inside(chosen["file_path"], out)
        yield chosen
    if refuse and tally.accepted and tally.without_file == tally.accepted:
        raise UserError(
            f"{out}: none of its {tally.accepted} accepted clips has a file, as with `cut: none`; "
            "set another cut in the recipe and run `curate` again, or train from the table itself, "
            "which reads spans of the sources"
        )


def complete_records(table: ds.Dataset, out: Path, tally: Tally, refuse: bool = True) -> Iterator[Record]:
    """Give the rows of `complete_batches` one after another; raises as it does."""
    for batch in complete_batches(table, out, tally, refuse):
        yield from batch.to_pylist()


def _check_inside(paths: pa.Array, out: Path) -> None:
    for path in paths.filter(pc.match_substring_regex(paths, OUTSIDE)).slice(0, 1).to_pylist():
        shown = printable(path, 200)
        raise UserError(f"{out}: its table names a file outside it: '{shown}'; was it written by this program?")


def write_internal(file: IO[bytes], batches: Iterator[pa.RecordBatch], tally: Tally, prefix: Path | None) -> None:
    """Write the JSON array of EasyAnimate-style trainers, one clip on each line."""
    file.write(b"[")
    for batch in batches:
        if prefix is not None:
            paths = pc.binary_join_element_wise(prefix.as_posix(), batch["file_path"], "/")
            batch = batch.set_column(0, "file_path", paths)
        if len(batch):
            file.write(b",\n" if tally.rows else b"\n")
            file.write(joined(json_lines(batch), ",\n"))
        tally.rows += len(batch)
    file.write(b"\n]\n")


def write_webvid(file: IO[str], records: Iterator[Record], tally: Tally, prefix: Path | None) -> None:
    """Write `videoid,name,page_dir`: the file is `{page_dir}/{videoid}.mp4`, so images cannot be named.

    Opened in a spreadsheet as what it is, with commas between the cells, it runs nothing.
    """
    # Every field in quotes: only then does a lone carriage return survive every reader.
    writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerow(("videoid", "name", "page_dir"))
    for record in records:
        path = PurePosixPath(placed(record["file_path"], prefix))
        if record["type"] != "video" or path.suffix != ".mp4":
            tally.not_videos += 1
            continue
        writer.writerow(map(safe_cell, (path.stem, record["text"], path.parent.as_posix())))
        tally.rows += 1


def write_diffusers(file: IO[str], records: Iterator[Record], tally: Tally, prefix: Path | None) -> None:
    """Write `metadata.jsonl` beside the files, as Hugging Face's `imagefolder` and `videofolder` read it."""
    for record in records:
        path = PurePosixPath(record["file_path"])
        if not path.is_relative_to("train"):
            raise UserError(f"{path}: not under train/, where metadata.jsonl is; export another format")
        file.write(to_json({"file_name": path.relative_to("train").as_posix(), "text": record["text"]}) + "\n")
        tally.rows += 1


def write_webdataset(
    out: Path, records: Iterator[Record], tally: Tally, shard_rows: int, shard_bytes: int
) -> ExportResult:
    """Write tar shards with `<clip_id>.mp4|.jpg`, `.txt` and `.json`; the set of shards appears whole.

    The same rows and files give the same bytes.
    """
    with atomic_folder(out / WEBDATASET_NAME) as folder, contextlib.ExitStack() as open_shard:
        names: list[str] = []
        rows = size_bytes = 0
        for record in records:
            media = out / record["file_path"]
            if not media.is_file():
                raise UserError(f"{media}: the table names this file, but it is gone; run `curate` again")
            media_bytes = media.stat().st_size
            if not names or rows == shard_rows or size_bytes + media_bytes > shard_bytes:
                open_shard.close()
                names.append(f"shard-{len(names):06d}.tar")
                shard = open_shard.enter_context(tarfile.open(folder / names[-1], "w", format=tarfile.PAX_FORMAT))
                rows = size_bytes = 0
            add_sample(shard, record, media)
            rows, size_bytes = rows + 1, size_bytes + media_bytes
            tally.rows += 1
    return tally.result(*(out / WEBDATASET_NAME / name for name in names))


def add_sample(shard: tarfile.TarFile, record: Record, media: Path) -> None:
    """Add the three members of one clip to a tar."""
    key = record["clip_id"]
    if not MEMBER_KEY.fullmatch(key):
        shown = printable(key, 200)
        raise UserError(f"clip_id '{shown}' cannot name a file of a shard; was the table written by this program?")
    facts = {name: value for name, value in record.items() if name != "file_path"}
    with open(media, "rb") as file:
        add_member(shard, key + media.suffix, file, media.stat().st_size)
    for suffix, text in ((".txt", record["text"]), (".json", to_json(facts))):
        content = text.encode()
        add_member(shard, key + suffix, io.BytesIO(content), len(content))


def add_member(shard: tarfile.TarFile, name: str, content: IO[bytes], size_bytes: int) -> None:
    """Add one file without owner or time, so that equal content gives equal shards."""
    member = tarfile.TarInfo(name)  # mtime, uid and gid are 0, the owner's names empty
    member.size = size_bytes
    member.mode = 0o644
    shard.addfile(member, content)


def placed(path: str, prefix: Path | None) -> str:
    """Give a table's path as the trainer shall see it: unchanged, or under an absolute folder."""
    return path if prefix is None else (prefix / path).as_posix()
