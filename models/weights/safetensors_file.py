"""Safetensors files: read with one-line errors, written whole or not at all."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from core.files import atomic_path
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
    """Write a safetensors file whole or not at all; tensors may lie on any device and share memory."""
    separate = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        save_file(separate, temporary, metadata={"format": "pt", **metadata})
