"""What a cache entry is called: digests of the file's content, the model's weights, the shape and our own code.

A key changes when what it stands for would come out otherwise, and with nothing else: names, folders and
times of change are no part of it.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterable, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from core.digest import DIGEST_BYTES, digest
from core.errors import OutputError
from core.files import atomic_path
from models.geometry import Bucket
from train_bridge.data.spans import Span, taken_span
from train_bridge.types import TrainRow

CODE_VERSION = 1
"""of latents; raise it when frames are sampled, resized or encoded in another way"""
TEXT_CODE_VERSION = 1
"""of texts; raise it when captions are encoded in another way"""
PIECE_BYTES = 1 << 20
WHOLE_BELOW_BYTES = 64 << 20
SAMPLES = 64
SAMPLE_BYTES = 1 << 20
CONFIG_SUFFIXES = frozenset({".json", ".txt", ".model", ".jinja", ".tiktoken", ".vocab"})
WEIGHT_SUFFIXES = frozenset({".safetensors", ".bin", ".pt", ".pth", ".ckpt"})
UNUSED_FILES = frozenset({
    "generation_config.json", "preprocessor_config.json", "video_preprocessor_config.json", "model_index.json",
    "scheduler_config.json",
})  # fmt: skip
"""which may lie beside an encoder's files, and which encoding does not read"""
UNUSED_VAE_KEYS = frozenset({"scaling_factor", "cache_mag_vae", "_diffusers_version", "_name_or_path"})
"""of its `config.json`: what is kept are unscaled moments, and the others are notes"""
READERS = 8
SAVE_EVERY_S = 60.0


def latent_key(content_id: str, span: Span | None, bucket: Bucket, vae_id: str, *, letterbox: bool = False) -> str:
    """Name the latents of a clip.

    Args:
        content_id: of the file (`file_id`).
        span: the stretch of the file, null for all of it.
        bucket: the shape it is brought to.
        vae_id: of the encoder's weights and configuration.
        letterbox: the picture is fitted in whole, not cropped.
    """
    times = None if span is None else [None if value is None else round(float(value), 6) for value in span]
    shape = [bucket.num_frames, bucket.height_px, bucket.width_px]
    return digest("latent", CODE_VERSION, content_id, times, shape, vae_id, *(["letterbox"] if letterbox else []))


def text_key(caption: str, text_id: str) -> str:
    """Name the embedding of a caption; `text_id` is of the text encoder and its number of positions."""
    return digest("text", TEXT_CODE_VERSION, caption, text_id)


def row_key(content_id: str, row: TrainRow, bucket: Bucket, vae_id: str) -> str:
    """Name the latents of a row in a bucket; `content_id` is of its file."""
    return latent_key(content_id, taken_span(row, bucket), bucket, vae_id, letterbox=row.letterbox)


def file_id(path: Path) -> str:
    """Return 128 bits in hex of a file's content (BLAKE2b).

    Raises:
        OSError: it cannot be read.
    """
    content = hashlib.blake2b(digest_size=DIGEST_BYTES)
    with path.open("rb", buffering=0) as file:
        left = os.fstat(file.fileno()).st_size  # it may grow for ever
        while piece := file.read(min(PIECE_BYTES, left)):
            content.update(piece)
            left -= len(piece)
    return content.hexdigest()


def vae_weights_id(folder: Path) -> str:
    """Return 128 bits in hex of what encoding frames reads: the VAE's weights and configuration.

    Its `scaling_factor` does not count, since latents are kept unscaled.

    Args:
        folder: the VAE's own, or one with a folder `vae`.

    Raises:
        OSError: it cannot be read, or nothing is there.
    """
    home = folder if (folder / "config.json").is_file() else folder / "vae"
    return _used_id((home,), UNUSED_VAE_KEYS)


def text_weights_id(*folders: Path) -> str:
    """Return 128 bits in hex of what encoding text reads: the own files of each encoder and tokenizer.

    What lies beside them in a pipeline, such as its scheduler or transformer, does not count.

    Raises:
        OSError: they cannot be read, or nothing is there.
    """
    return _used_id(folders, frozenset())


def _used_id(folders: Sequence[Path], unused_keys: Set[str]) -> str:
    """Return an id of the files right in these folders; libraries read none below."""
    ids: list[object] = []
    for number, folder in enumerate(dict.fromkeys(folder.resolve() for folder in folders)):
        files = [path for path in sorted(folder.iterdir()) if _counts(path) and path.name not in UNUSED_FILES]
        if not files:
            raise FileNotFoundError(2, "no configuration and no weights", str(folder))
        for path in files:
            config = json.loads(path.read_bytes()) if unused_keys and path.name == "config.json" else None
            if isinstance(config, dict):
                content: object = sorted((k, v) for k, v in config.items() if k not in unused_keys)
            else:
                content = _content_id(path)
            ids.append([number, path.name, content])
    return digest("used", ids)


def weights_id(folder: Path) -> str:
    """Return 128 bits in hex of a model folder: its configuration, tokenizer and weights.

    Caches of versions before 0.9 are named by it; what is encoded now by `vae_weights_id` and `text_weights_id`.

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
        if _counts(path) and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not files:
        raise FileNotFoundError(2, "no configuration and no weights", str(folder))
    return digest("weights", [[path.relative_to(folder).as_posix(), _content_id(path)] for path in files])


def _counts(path: Path) -> bool:
    is_kind = path.suffix.lower() in CONFIG_SUFFIXES | WEIGHT_SUFFIXES
    return is_kind and not path.name.startswith(".") and path.is_file()


def _content_id(path: Path) -> str:
    return _sampled_id(path) if path.suffix in WEIGHT_SUFFIXES else file_id(path)


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
    """Return the content ids of files; those whose size and time of change are known are not read again.

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
                    _keep_memo(memo, known)
                    saved = time.monotonic()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            _keep_memo(memo, known)
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


def _keep_memo(memo: Path, known: dict[tuple[str, int, int], str]) -> None:
    with suppress(OutputError):  # a finished cache may be read-only; then the files are read again next time
        _write_memo(memo, known)


def _write_memo(memo: Path, known: dict[tuple[str, int, int], str]) -> None:
    newest = {path: (size, mtime, content_id) for (path, size, mtime), content_id in known.items()}
    rows = [(path, *values) for path, values in newest.items()]
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(_MEMO)
    arrays = [pa.array(column, type=field.type) for column, field in zip(columns, _MEMO, strict=True)]
    with atomic_path(memo) as temporary:
        pq.write_table(pa.Table.from_arrays(arrays, schema=_MEMO), temporary, compression="zstd")
