"""`webvid.csv`: the columns of WebVid's own lists."""

import csv
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from core.sanitize import safe_cell
from curation.export.rows import Record, Tally, other_captions_of, placed

NAME = "webvid.csv"


def write_webvid(file: IO[str], records: Iterator[Record], tally: Tally, prefix: Path | None) -> None:
    """Write `videoid,name,page_dir`: the file is `{page_dir}/{videoid}.mp4`, so images cannot be named.

    Other captions of a clip follow in columns of their own.

    Opened in a spreadsheet as what it is, with commas between the cells, it runs nothing.
    """
    # Every field in quotes: only then does a lone carriage return survive every reader.
    writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")
    names: tuple[str, ...] | None = None
    for record in records:
        if names is None:
            names = other_captions_of(record)
            writer.writerow(("videoid", "name", "page_dir", *names))
        path = PurePosixPath(placed(record["file_path"], prefix))
        if record["type"] != "video" or path.suffix != ".mp4":
            tally.not_videos += 1
            continue
        texts = (record[name] or "" for name in names)
        writer.writerow(map(safe_cell, (path.stem, record["text"], path.parent.as_posix(), *texts)))
        tally.rows += 1
    if names is None:
        writer.writerow(("videoid", "name", "page_dir"))
