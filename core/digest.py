"""Short names of values and of the content of files: the same on every machine."""

import hashlib
import json
from pathlib import Path

DIGEST_BYTES = 16


def digest(*parts: object) -> str:
    """Return 128 bits in hex of plain values (numbers, text, null, lists of them)."""
    text = json.dumps(parts, ensure_ascii=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hex.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
