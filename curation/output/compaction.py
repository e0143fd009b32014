"""Parts put together while a run goes on, so that there are hundreds of files and not one for every eight rows.

Some hundred parts become one of the first level, some dozens of these one of the second; rows are copied in the order
of the parts, which stays what `folding` needs: a later row of a clip takes the place of an earlier one. The merged part
is whole on disk before those that it was made of are deleted. A run that is killed between leaves rows twice, which
folding sees as one.
"""

import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import groupby, takewhile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from core.errors import OutputError
from core.files import atomic_path
from curation.output.parquet_files import read_as
from curation.output.table import RULES_KEY, about_file, part_files
from curation.schema import Writer, part_schema

LOOK_S = 1.0
PARTS_TOGETHER = (256, 32)
"""of workers, which hold a few rows each; of the first level"""
GROUP_ROWS = 16_384
"""in memory at a time"""
SETTLED_S = 10.0
"""age from which no older part is still to appear: a worker names a part by the time at which it begins to write it"""
_moving = threading.Lock()


@contextmanager
def parts_at_rest() -> Iterator[None]:
    """Let no part of this process's outputs be merged meanwhile, so that a list of parts holds every row."""
    with _moving:
        yield


@contextmanager
def compacting(out: Path, writers: Sequence[Writer]) -> Iterator[None]:
    """Merge parts of an output again and again while a block runs, in which nothing is folded."""
    end = threading.Event()

    def keep_merging() -> None:
        while not end.wait(LOOK_S):
            with suppress(OutputError, OSError):  # a full disk: the run itself says so, if it stays so
                compact(out, writers, time.time() - SETTLED_S)

    thread = threading.Thread(target=keep_merging, name="compacting", daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


def compact(out: Path, writers: Sequence[Writer], before_s: float) -> None:
    """Merge parts whose writing started before a time, as long as there are enough of a level.

    Raises:
        OutputError: the storage refuses.
    """
    for level, most in enumerate(PARTS_TOGETHER):
        files = [file for file in part_files(out) if level_of(file) == level]
        files = list(takewhile(lambda file: _started_s(file) < before_s, files))
        while len(files) >= most:
            _merge_all(files[:most], writers, level + 1)
            files = files[most:]


def level_of(part: Path) -> int:
    """Return the level of a part, 0 for one that a worker wrote."""
    words = part.stem.split("-")
    return int(words[2]) if len(words) > 2 and words[2].isdigit() else 0


def _started_s(part: Path) -> float:
    word = part.stem.split("-")[0]
    return int(word) / 1e9 if word.isdigit() else 0.0


def _merge_all(files: Sequence[Path], writers: Sequence[Writer], level: int) -> None:
    """Merge parts into one for each stretch of them that follows the same rules."""
    about = {file: about_file(file) for file in files}
    for rules, some in groupby(files, key=lambda file: about[file].rules):
        _merge(list(some), part_schema(writers).with_metadata({RULES_KEY: rules.encode()}), level)


def _merge(files: Sequence[Path], schema: pa.Schema, level: int) -> None:
    # The name of the last: what comes after that comes after the merged part, too.
    target = files[-1].with_name(f"{files[-1].stem.split('-')[0]}-{uuid.uuid4().hex[:8]}-{level}.parquet")
    held: list[pa.Table] = []
    with atomic_path(target) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for number, file in enumerate(files, 1):
            held.append(read_as(file, schema))
            if number == len(files) or sum(map(len, held)) >= GROUP_ROWS:
                writer.write_table(pa.concat_tables(held).combine_chunks())
                held = []
    with _moving:
        for file in files:
            file.unlink(missing_ok=True)
