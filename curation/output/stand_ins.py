"""Stand-ins for files that lie in the bucket alone: a few bytes with the digest of what they stand for.

A run that goes on from a bucket needs to know which clips there are, not what is in them. A stand-in has a clip's name,
is moved and deleted as the clip itself would be, and is never uploaded: its digest tells which object is meant.
"""

import re
from pathlib import Path

from core.files import atomic_write
from curation.folders import CLIPS, CONTROLS, RETIRED, SHARDS

MOST_BYTES = 128
_TEXT = re.compile(rb"selects: this file lies in the bucket, sha256 ([0-9a-f]{64})\n")
_WHOLE_FOLDERS = tuple(f"{name}/" for name in (CLIPS, CONTROLS, SHARDS, RETIRED))


def may_stand_in(path: str) -> bool:
    """Return whether a file of an output is one that no run reads again: clips, control maps and shards."""
    return path.startswith(_WHOLE_FOLDERS) and not path.endswith((".parquet", ".json", ".jsonl", ".csv", ".md"))


def write_stand_in(file: Path, digest: str) -> None:
    """Let a small file stand for content with a SHA-256."""
    atomic_write(file, f"selects: this file lies in the bucket, sha256 {digest}\n", to_disk=False)


def stands_for(file: Path, size_bytes: int) -> str | None:
    """Return the SHA-256 of what a file stands for; null where it is a usual file."""
    if size_bytes > MOST_BYTES:
        return None
    found = _TEXT.fullmatch(file.read_bytes())
    return found[1].decode() if found else None
