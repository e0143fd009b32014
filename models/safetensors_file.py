"""Files and folders that appear whole or not at all, and safetensors read with plain errors."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from models.errors import ModelError, one_line


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read all tensors of a safetensors file, on the CPU, and its metadata.

    Raises:
        ModelError: no such file, or not readable as safetensors.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file; give a .safetensors file") from None
    except (OSError, SafetensorError) as error:
        why = one_line(error)
        raise ModelError(f"{path}: not readable as safetensors ({why}); only .safetensors weights are read") from None


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file at once; tensors may lie on any device and share memory."""
    separate = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()}
    with whole_file(path) as temporary:
        save_file(separate, temporary, metadata={"format": "pt", **metadata})


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Lend a temporary name beside `path` that takes its place when the block ends well.

    Yields:
        A name in the same folder, which must exist. The block must create it and close it.
    """
    temporary = temporary_name(path)
    try:
        yield temporary
        descriptor = os.open(temporary, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Lend a folder that becomes `path` when the block ends well; an older one is set aside until then.

    Yields:
        An existing, empty folder beside it; the parent must exist.
    """
    temporary, aside = temporary_name(path), temporary_name(path)
    temporary.mkdir()
    try:
        yield temporary
        if path.exists():
            os.rename(path, aside)
        try:
            os.rename(temporary, path)
        except BaseException:
            if aside.exists():
                os.rename(aside, path)
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(aside, ignore_errors=True)


def temporary_name(path: Path) -> Path:
    """Give an unused hidden name beside `path`: `.<stem>.tmp-<pid>-<random><extension>`."""
    return path.with_name(f".{path.stem}.tmp-{os.getpid()}-{secrets.token_hex(4)}{path.suffix}")
