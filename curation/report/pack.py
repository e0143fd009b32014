"""Columns as the page reads them: exact, all rows, compressed.

A column of N numbers is N float64 (missing: NaN), its bytes regrouped by significance (so that they compress),
gzip, base64. A column of texts with few values is a dictionary and N int32. Texts are a JSON list, gzip, base64.
"""

import base64
import gzip
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

LEVEL = 4
"""of gzip: measured on real scores, 9 saves 2 % more and takes four times as long"""


def pack_numbers(values: pa.ChunkedArray) -> str:
    """Pack numbers as float64, nulls as NaN."""
    floats = pc.cast(values, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return _packed(np.asarray(floats, dtype="<f8"))


def pack_codes(values: pa.ChunkedArray) -> tuple[list[str], str]:
    """Pack texts with few values: the values, and int32 positions among them; null is -1."""
    encoded = values.combine_chunks().dictionary_encode()
    codes = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)
    return encoded.dictionary.to_pylist(), _packed(np.asarray(codes, dtype="<i4"))


def pack_ids(values: pa.ChunkedArray) -> str:
    """Pack UUIDs: 16 bytes each."""
    digits = pc.replace_substring(values, "-", "")
    return _packed(np.frombuffer(bytes.fromhex("".join(digits.to_pylist())), dtype=np.uint8))


def pack_texts(values: Sequence[Any]) -> str:
    """Pack a list of texts and nulls."""
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode("utf-8", "replace"), LEVEL, mtime=0)).decode("ascii")


def _packed(array: np.ndarray) -> str:
    by_significance = np.ascontiguousarray(array.view(np.uint8).reshape(len(array), array.itemsize).T)
    return base64.b64encode(gzip.compress(by_significance.tobytes(), LEVEL, mtime=0)).decode("ascii")
