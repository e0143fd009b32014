"""What a cache entry is called: digests of the file's content, the model's weights, the shape and our own code.

A key changes when what it stands for would come out otherwise, and with nothing else: names, folders and
times of change are no part of it.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from curation.files import atomic_path
from train_bridge.types import Bucket, TrainRow

CODE_VERSION = 1
"""of latents; raise it when frames are sampled, resized or encoded in another way"""
TEXT_CODE_VERSION = 1
"""of texts; raise it when captions are encoded in another way"""
DIGEST_BYTES = 16
WHOLE_BELOW_BYTES = 64 << 20
SAMPLES = 64
SAMPLE_BYTES = 1 << 20
CONFIG_SUFFIXES = frozenset({".json", ".txt", ".model", ".jinja", ".tiktoken", ".vocab"})
WEIGHT_SUFFIXES = frozenset({".safetensors", ".bin", ".pt", ".pth", ".ckpt"})
READERS = 8
SAVE_EVERY_S = 60.0

Span = tuple[float, float | None]
"""begin and end in seconds; a null end is the file's"""


def digest(*parts: object) -> str:
    """Give 128 bits in hex of plain values (numbers, text, null, lists of them)."""
    text = json.dumps(parts, ensure_ascii=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).hexdigest()


def latent_key(content_id: str, span: Span | None, bucket: Bucket, vae_id: str) -> str:
    """Name the latents of a clip.

    Args:
        content_id: of the file (`file_id`).
        span: the stretch of the file, null for all of it.
        bucket: the shape it is brought to.
        vae_id: of the encoder's weights and configuration.
    """
    times = None if span is None else [None if value is None else round(float(value), 6) for value in span]
    shape = [bucket.num_frames, bucket.height_px, bucket.width_px]
    return digest("latent", CODE_VERSION, content_id, times, shape, vae_id)


def text_key(caption: str, text_id: str) -> str:
    """Name the embedding of a caption; `text_id` is of the text encoder and its number of positions."""
    return digest("text", TEXT_CODE_VERSION, caption, text_id)


def span_of(row: TrainRow) -> Span | None:
    """Give the stretch of the file that a row is; null for a whole file."""
    if row.start_s is None and row.end_s is None:
        return None
    return (row.start_s or 0.0, row.end_s)


def file_id(path: Path) -> str:
    """Give 128 bits in hex of a file's content (BLAKE2b).

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=DIGEST_BYTES)).hexdigest()


def weights_id(folder: Path) -> str:
    """Give 128 bits in hex of a model folder: its configuration, tokenizer and weights.

    Configuration and tokenizer files (`.json`, `.txt`, `.model` and the like), and weights up to 64 MB, are
    read whole. Of larger weight files the size and 64 evenly spaced blocks of 1 MB are read, the first and
    the last among them: training changes every tensor, and the first block holds their names and shapes.
    Hidden files and others, such as a README, do not count.

    Args:
        folder: with its files in it or in folders below; a single weight file may be given, too.

    Raises:
        OSError: it cannot be read.
        FileNotFoundError: no weights or configuration lie there.
    """
    if folder.is_file():
        return digest("weights", [[folder.suffix, _sampled_id(folder)]])
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in CONFIG_SUFFIXES | WEIGHT_SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )
    if not files:
        raise FileNotFoundError(2, "no configuration and no weights", str(folder))
    ids = [
        [path.relative_to(folder).as_posix(), _sampled_id(path) if path.suffix in WEIGHT_SUFFIXES else file_id(path)]
        for path in files
    ]
    return digest("weights", ids)


def _sampled_id(path: Path) -> str:
    size = path.stat().st_size
    if size <= WHOLE_BELOW_BYTES:
        return file_id(path)
    content = hashlib.blake2b(size.to_bytes(8, "little"), digest_size=DIGEST_BYTES)
    with path.open("rb", buffering=0) as file:
        for number in range(SAMPLES):
            file.seek(number * (size - SAMPLE_BYTES) // (SAMPLES - 1))
            content.update(file.read(SAMPLE_BYTES))
    return content.hexdigest()


@dataclass(frozen=True)
class ContentIds:
    """Content ids of files.

    Attributes:
        ids: id of each path that could be read.
        errors: why the others could not.
    """

    ids: dict[Path, str]
    errors: dict[Path, str]


_MEMO = pa.schema([
    pa.field("path", pa.string(), nullable=False),
    pa.field("size_bytes", pa.int64(), nullable=False),
    pa.field("mtime_ns", pa.int64(), nullable=False),
    pa.field("content_id", pa.string(), nullable=False),
])


def content_ids(paths: Iterable[Path], memo: Path) -> ContentIds:
    """Give the content ids of files; those whose size and time of change are known are not read again.

    Args:
        paths: the files.
        memo: Parquet file with what is known (path, size, time of change, id); it is written when files were
            read, now and then and at the end, also when interrupted. Its folder must exist.
    """
    wanted = list(dict.fromkeys(paths))
    known = _read_memo(memo)
    found = ContentIds({}, {})
    unread: list[tuple[Path, tuple[str, int, int]]] = []
    for path in wanted:
        try:
            state = path.stat()
        except OSError as error:
            found.errors[path] = f"the file cannot be opened ({error.strerror})"
            continue
        key = (os.path.abspath(path), state.st_size, state.st_mtime_ns)
        if key in known:
            found.ids[path] = known[key]
        else:
            unread.append((path, key))
    if not unread:
        return found
    saved = time.monotonic()
    with ThreadPoolExecutor(READERS) as pool:
        try:
            for (path, key), (content_id, why) in zip(
                unread, pool.map(_id_or_why, (p for p, _ in unread)), strict=True
            ):
                if content_id is None:
                    found.errors[path] = why
                    continue
                found.ids[path] = known[key] = content_id
                if time.monotonic() - saved > SAVE_EVERY_S:
                    _write_memo(memo, known)
                    saved = time.monotonic()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            _write_memo(memo, known)
    return found


def _id_or_why(path: Path) -> tuple[str | None, str]:
    try:
        return file_id(path), ""
    except OSError as error:
        return None, f"the file cannot be read ({error.strerror})"


def _read_memo(memo: Path) -> dict[tuple[str, int, int], str]:
    try:
        table = pq.read_table(memo, schema=_MEMO)
    except (OSError, pa.ArrowException):  # none yet, or damaged: the files are read again
        return {}
    columns = [table[name].to_pylist() for name in _MEMO.names]
    return {(path, size, mtime): content_id for path, size, mtime, content_id in zip(*columns, strict=True)}


def _write_memo(memo: Path, known: dict[tuple[str, int, int], str]) -> None:
    newest = {path: (size, mtime, content_id) for (path, size, mtime), content_id in known.items()}
    rows = [(path, *values) for path, values in newest.items()]
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(_MEMO)
    arrays = [pa.array(column, type=field.type) for column, field in zip(columns, _MEMO, strict=True)]
    with atomic_path(memo) as temporary:
        pq.write_table(pa.Table.from_arrays(arrays, schema=_MEMO), temporary, compression="zstd")
