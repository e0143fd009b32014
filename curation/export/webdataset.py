"""`webdataset/`: tar shards."""

import contextlib
import io
import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from core.errors import UserError
from core.files import atomic_folder
from core.json_text import to_json
from core.sanitize import printable
from curation.export.rows import ExportResult, Record, Tally
from curation.folders import SHARDS

SHARD_NAMES = {".mp4": "shard", ".jpg": "images"}
"""How the shards of each kind of file are called; any other kind by its suffix."""
CARD_NAME = "README.md"
SHARD_ROWS = 1000
SHARD_BYTES = 1_000_000_000  # webdataset's own advice: shards of about a gigabyte stream well
MEMBER_KEY = re.compile(r"[A-Za-z0-9_-]{1,128}")  # names a tar's members: no folder, and no dot, which ends it


def write_webdataset(
    out: Path, records: Iterator[Record], tally: Tally, shard_rows: int, shard_bytes: int
) -> ExportResult:
    """Write tar shards with `<clip_id>.mp4|.jpg`, `.txt` and `.json`; the set of shards appears whole.

    A shard holds one kind of file: `shard-000000.tar` and on `.mp4`, `images-000000.tar` and on `.jpg`, and clips that
    were copied into another container the like of `webm-000000.tar`. Readers take what the first sample has for what
    all have. The same rows and files give the same bytes.
    """
    with atomic_folder(out / SHARDS) as folder, contextlib.ExitStack() as stack:
        shards: dict[str, _Shards] = {}
        for record in records:
            media = out / record["file_path"]
            if not media.is_file():
                raise UserError(f"{media}: the table names this file, but it is gone; run `curate` again")
            kind = SHARD_NAMES.get(media.suffix, media.suffix[1:])
            if kind not in shards:
                shards[kind] = _Shards(folder, kind, stack, shard_rows, shard_bytes)
            shards[kind].add(record, media)
            tally.rows += 1
        stack.close()
        kinds = sorted(shards, key=lambda kind: (kind != "shard", kind))
        if len(kinds) > 1:
            (folder / CARD_NAME).write_text(card(kinds), encoding="utf-8")
    return tally.result(*(out / SHARDS / name for kind in kinds for name in shards[kind].names))


def card(kinds: Sequence[str]) -> str:
    """Return what tells Hugging Face's `load_dataset` of a folder which shards belong together; default first."""
    lines = ["---", "configs:"]
    for number, kind in enumerate(kinds):
        name = {"shard": "video", "images": "image"}.get(kind, kind)
        lines += [f"- config_name: {name}", *(["  default: true"] if not number else [])]
        lines.append(f'  data_files: "{kind}-*.tar"')
    return "\n".join([*lines, "---", ""])


class _Shards:
    """Writes samples of one kind into one shard after another."""

    def __init__(self, folder: Path, name: str, stack: contextlib.ExitStack, most_rows: int, most_bytes: int):
        self.names: list[str] = []
        self._folder, self._name, self._most_rows, self._most_bytes = folder, name, most_rows, most_bytes
        self._open = stack.enter_context(contextlib.ExitStack())
        self._rows = self._bytes = 0

    def add(self, record: Record, media: Path) -> None:
        """Add a sample, in a new shard where the open one is full."""
        media_bytes = media.stat().st_size
        if not self.names or self._rows == self._most_rows or self._bytes + media_bytes > self._most_bytes:
            self._open.close()
            self.names.append(f"{self._name}-{len(self.names):06d}.tar")
            tar = tarfile.open(self._folder / self.names[-1], "w", format=tarfile.PAX_FORMAT)  # noqa: SIM115
            self._tar = self._open.enter_context(tar)
            self._rows = self._bytes = 0
        add_sample(self._tar, record, media)
        self._rows, self._bytes = self._rows + 1, self._bytes + media_bytes


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
