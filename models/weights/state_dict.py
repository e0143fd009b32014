"""The tensors of one network as others publish them: safetensors, or PyTorch's own files, read without running code."""

import pickle
import re
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from models.errors import ModelError, one_line
from models.weights.safetensors_file import read_tensors
from models.weights.weight_files import DIFFUSERS_STEM, find_weights

TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt")
NESTED = "state_dict"
"""the key under which trainers keep the tensors beside their own numbers"""
LOSS = "loss."
"""what the names begin with of weights that only served training, such as those of a discriminator"""
WRAPPER = "module."
"""what data parallelism puts before every name"""
DAMAGED = (
    OSError, RuntimeError, ValueError, EOFError, KeyError, IndexError, AttributeError, TypeError, AssertionError,
    ArithmeticError, pickle.UnpicklingError, struct.error, zipfile.BadZipFile,
)  # fmt: skip
"""what `torch.load` raises on files that are damaged, of another kind, or would run code"""
REMEDY = "give weights as safetensors or a state dict"


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """Read all tensors of a network, on the CPU, without those that only its training needed (`loss.*`).

    Args:
        path: a file, or a folder with safetensors as `find_weights` finds them, else with one file of PyTorch.

    Raises:
        ModelError: no such file, several of PyTorch's, or one that is not readable as tensors by name.
    """
    path = Path(path)
    files = _files(path) if path.is_dir() else (path,)
    tensors: dict[str, torch.Tensor] = {}
    for file in files:
        tensors |= _read_torch(file) if file.suffix in TORCH_SUFFIXES else read_tensors(file)[0]
    if tensors and all(name.startswith(WRAPPER) for name in tensors):
        tensors = {name.removeprefix(WRAPPER): tensor for name, tensor in tensors.items()}
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(LOSS)}


def fit_state_dict(
    given: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor], where: object, what: str
) -> None:
    """Refuse tensors that are not just those of a network.

    Args:
        given: the tensors that were read.
        wanted: the network's, maybe on the `meta` device.
        where: the file, for the message.
        what: they should fit, for the message.

    Raises:
        ModelError: some are missing, unknown or of other shapes.
    """
    wrong = [f"{name} is missing" for name in wanted if name not in given]
    wrong += [f"{name} is unknown" for name in given if name not in wanted]
    wrong += [
        f"{name} is {list(given[name].shape)}, wanted {list(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in given and given[name].shape != tensor.shape
    ]
    if wrong:
        raise ModelError(
            f"{where}: {len(wrong)} weights do not fit {what} ({repr(wrong[0])[1:-1][:200]}); give the files that were "
            "published together"
        )


def take_weights(model: nn.Module, state: dict[str, torch.Tensor], dtype: torch.dtype | None = None) -> None:
    """Load weights into a network on the `meta` device.

    Args:
        model: it is changed.
        state: tensors that fit it (`fit_state_dict`); they are brought to the type, in place.
        dtype: of the weights; None: float32.
    """
    wanted = torch.float32 if dtype is None else dtype
    for name in state:  # one after the other: in another type, both do not fit into memory at once
        state[name] = state[name].to(wanted) if state[name].is_floating_point() else state[name]
    model.load_state_dict(state, assign=True)


def _files(folder: Path) -> tuple[Path, ...]:
    """Find a folder's weights: safetensors come before PyTorch's files."""
    plain = [folder / f"{DIFFUSERS_STEM}{suffix}" for suffix in TORCH_SUFFIXES]
    there = [path for path in plain if path.is_file()]
    others = [path for path in sorted(folder.glob("*")) if path.suffix in TORCH_SUFFIXES and path.is_file()]
    others = [path for path in others if not re.search(r"-\d{5}-of-\d{5}", path.name)]
    found = there[:1] or others
    if any(folder.glob(f"{DIFFUSERS_STEM}*.safetensors*")) or not found:
        return find_weights(folder, DIFFUSERS_STEM).files  # says what there is, where nothing can be read
    if len(found) > 1:
        raise ModelError(f"{folder}: {len(found)} files with weights ({found[0].name}, …); leave the one that is meant")
    return (found[0],)


def _read_torch(file: Path) -> dict[str, torch.Tensor]:
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ModelError(f"{file}: no such file; give a file with weights") from None
    except DAMAGED as error:
        why = one_line(error)
        raise ModelError(f"{file}: not readable as weights ({why}); {REMEDY}") from None
    if isinstance(content, Mapping) and isinstance(content.get(NESTED), Mapping):
        content = content[NESTED]
    if not isinstance(content, Mapping) or not all(
        isinstance(name, str) and (isinstance(value, torch.Tensor) or name.startswith(LOSS))
        for name, value in content.items()
    ):
        raise ModelError(f"{file}: holds no state dict (expected tensors by name); {REMEDY}")
    return dict(content)
