"""What a folder of files consists of, written last: names, sizes and SHA-256."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from core.digest import file_sha256
from core.files import read_bounded

MANIFEST = "manifest.json"
READERS = 4
"""files that are hashed at once; hashing lets other threads run"""
MOST_BYTES = 16 << 20
"""of a manifest"""
READ_BY_KIND = frozenset({".safetensors", ".pt", ".distcp"})
"""endings of files that are read whatever they are called"""


def write_manifest(folder: Path) -> None:
    """Write the names, sizes and SHA-256 of all files of a folder into it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    with ThreadPoolExecutor(READERS) as pool:
        hashes = list(pool.map(file_sha256, files))
    rows = [
        {"file": path.relative_to(folder).as_posix(), "size_bytes": path.stat().st_size, "sha256": sha256}
        for path, sha256 in zip(files, hashes, strict=True)
    ]
    (folder / MANIFEST).write_text(json.dumps({"files": rows}, indent=2) + "\n", encoding="utf-8")


def against_manifest(folder: Path) -> str | None:
    """Return what is missing or other than the manifest says, in a few words; None where all is as written.

    Raises:
        OSError: a file is there and cannot be read.
    """
    try:
        rows: list[Any] = json.loads(read_bounded(folder / MANIFEST, MOST_BYTES))["files"]
        expected = {str(row["file"]): (int(row["size_bytes"]), str(row["sha256"])) for row in rows}
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError):
        return f"{MANIFEST} cannot be read"
    for name, (size, _) in expected.items():
        file = folder / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != size:
            return f"{name} has {file.stat().st_size} bytes instead of {size}"
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix in READ_BY_KIND}
    if strangers := sorted(there - expected.keys()):
        return f"{strangers[0]} is not among the files that were written"
    with ThreadPoolExecutor(READERS) as pool:
        hashes = pool.map(file_sha256, (folder / name for name in expected))
        for (name, (_, sha256)), found in zip(expected.items(), hashes, strict=True):
            if found != sha256:
                return f"{name} has other content than was written"
    return None
