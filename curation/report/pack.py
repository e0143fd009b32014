"""Columns as the page reads them: exact, all rows, compressed.

A column of N numbers is N float64 (missing: NaN), its bytes regrouped by significance (so that they compress),
gzip, base64. A column of texts with few values is a dictionary and N int32. Texts are a JSON list, gzip, base64.
"""

import base64
import json
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.json_text import joined, json_values

LEVEL = 1
"""of gzip: measured on a million rows, 4 saves 1 % more and takes half as long again"""
SAMPLE = 1 << 13
"""bytes at four places of a run of bytes that tell whether it compresses"""
WORTH = 7 / 8
"""of its size, or less: what a run must come to; the last digits of a measured score never do"""
GZIP_HEAD = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
LAST_BLOCK = b"\x03\0"


def pack_numbers(values: pa.ChunkedArray) -> str:
    """Pack numbers as float64, nulls as NaN."""
    floats = pc.cast(values, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return _packed(np.asarray(floats, dtype="<f8"))


def pack_codes(words: pa.DictionaryArray) -> str:
    """Pack texts with few values: int32 positions among them; null is -1."""
    codes = pc.fill_null(words.indices, -1).to_numpy(zero_copy_only=False)
    return _packed(np.asarray(codes, dtype="<i4"))


def pack_ids(values: pa.ChunkedArray) -> str:
    """Pack UUIDs: 16 bytes each."""
    digits = joined(pc.replace_substring(values.combine_chunks(), "-", ""), "")
    return _packed(np.frombuffer(bytes.fromhex(digits.to_pybytes().decode()), dtype=np.uint8))


def pack_texts(values: Sequence[Any]) -> str:
    """Pack a list of texts and nulls."""
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
    return _base64(gzipped([text.encode("utf-8", "replace")]))


def pack_text_column(values: pa.ChunkedArray) -> str:
    """Pack a column of texts and nulls as `pack_texts` does a list."""
    parts = [b"["]
    for chunk in values.chunks:
        if len(chunk):
            parts += [b"," if len(parts) > 1 else b"", joined(json_values(chunk), ",").to_pybytes()]
    return _base64(gzipped([b"".join([*parts, b"]"])]))


def gzipped(runs: Iterable[bytes]) -> bytes:
    """Return runs of bytes, one after another, as one gzip file; runs that hardly compress are stored as they are."""
    checksum, size, found = 0, 0, [GZIP_HEAD]
    for run in runs:
        data = memoryview(run)
        packer = zlib.compressobj(LEVEL if _compresses(data) else 0, zlib.DEFLATED, -zlib.MAX_WBITS)
        found += [packer.compress(data), packer.flush(zlib.Z_FULL_FLUSH)]
        checksum, size = zlib.crc32(data, checksum), size + len(data)
    return b"".join([*found, LAST_BLOCK, checksum.to_bytes(4, "little"), (size % 2**32).to_bytes(4, "little")])


def _compresses(data: memoryview) -> bool:
    if len(data) <= 4 * SAMPLE:
        return True
    begins = [len(data) * place // 8 for place in (1, 3, 5, 7)]
    sample = b"".join(data[begin : begin + SAMPLE] for begin in begins)
    return len(zlib.compress(sample, 1)) <= WORTH * len(sample)


def _packed(array: np.ndarray) -> str:
    digits = array.view(np.uint8).reshape(len(array), array.itemsize)
    return _base64(gzipped(digits[:, place].tobytes() for place in range(array.itemsize)))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
