"""Reading one shard of the cache: a safetensors file that is mapped into memory."""

import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from core.errors import UserError

STORED_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "BOOL": torch.bool}
MOST_HEADER_BYTES = 100 << 20


def is_whole(path: Path) -> bool:
    """Return whether a shard is there to its last byte."""
    try:
        with path.open("rb") as file:
            header, begin = _read_header(file.fileno(), path)
            return os.fstat(file.fileno()).st_size == begin + _data_bytes(header)
    except (OSError, UserError, LookupError, TypeError):
        return False


def _read_header(descriptor: int, path: Path) -> tuple[dict[str, Any], int]:
    """Read a shard's header (name → dtype, shape, data_offsets) and where its data begin."""
    try:
        (length,) = struct.unpack("<Q", os.pread(descriptor, 8, 0))
        if length > MOST_HEADER_BYTES:
            raise ValueError
        header = json.loads(os.pread(descriptor, length, 8))
        header.pop("__metadata__", None)
    except (struct.error, ValueError, AttributeError, RecursionError):
        raise UserError(f"{path}: not a whole safetensors file; delete it and build the cache again") from None
    return header, 8 + length


def _data_bytes(header: Mapping[str, Any]) -> int:
    return max((tensor["data_offsets"][1] for tensor in header.values()), default=0)


class Shard:
    """A mapped shard; no file stays open."""

    def __init__(self, path: Path):
        """Map the file.

        Raises:
            UserError: it is not whole.
            FileNotFoundError: it has gone.
        """
        with path.open("rb") as file:
            self._header, self._begin = _read_header(file.fileno(), path)
            size = os.fstat(file.fileno()).st_size
        if size != self._begin + _data_bytes(self._header):  # read beyond its end, it would kill the process
            raise UserError(f"{path}: not a whole safetensors file; delete it and build the cache again")
        self._content = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8).numpy()

    def has(self, name: str) -> bool:
        """Return whether a tensor is there."""
        return name in self._header

    def view(self, name: str) -> torch.Tensor:
        """Return a tensor that lies in the mapped file: to be read, not written to."""
        tensor = self._header[name]
        begin, end = tensor["data_offsets"]
        dtype = STORED_DTYPES[tensor["dtype"]]
        count = (end - begin) // dtype.itemsize
        return torch.frombuffer(self._content, dtype=dtype, count=count, offset=self._begin + begin).view(
            tensor["shape"]
        )
