"""`train/metadata.jsonl`: what `imagefolder` and `videofolder` of Hugging Face read, and diffusers' scripts by them."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from core.errors import UserError
from core.json_text import to_json
from curation.export.rows import Record, Tally, other_captions_of

NAME = "train/metadata.jsonl"


def write_diffusers(file: IO[str], records: Iterator[Record], tally: Tally, prefix: Path | None) -> None:
    """Write `metadata.jsonl` beside the files, as Hugging Face's `imagefolder` and `videofolder` read it.

    It names videos and images alike, of which a folder loader decodes one kind: a table with both is exported by
    kind for those.
    """
    for record in records:
        path = PurePosixPath(record["file_path"])
        if not path.is_relative_to("train"):
            raise UserError(f"{path}: not under train/, where metadata.jsonl is; export another format")
        others = {name: record[name] for name in other_captions_of(record)}
        file.write(to_json({"file_name": path.relative_to("train").as_posix(), "text": record["text"]} | others) + "\n")
        tally.rows += 1
        tally.images += record["type"] == "image"
