"""What of an output is exported, and how the files are laid out."""

from dataclasses import dataclass

from curation.export.chosen import EVERYTHING, Chosen
from curation.export.webdataset import SHARD_BYTES, SHARD_ROWS
from media.types import MediaType


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """What may be asked for beside a format.

    Attributes:
        absolute: name files by absolute path; `internal` and `webvid` only.
        shard_rows: most clips in one tar of `webdataset`.
        shard_bytes: most bytes of clip files in one tar; a single larger clip has its own tar.
        kind: of the rows to write; null: both.
        chosen: which rows.
    """

    absolute: bool = False
    shard_rows: int = SHARD_ROWS
    shard_bytes: int = SHARD_BYTES
    kind: MediaType | None = None
    chosen: Chosen = EVERYTHING


USUAL = ExportSettings()
