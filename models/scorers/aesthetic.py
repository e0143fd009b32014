"""LAION's aesthetic heads: how much people like a picture, about 1..10, from its CLIP embedding.

- `mlp`: `sac+logos+ava1-l14-linearMSE` (github.com/christophschuhmann/improved-aesthetic-predictor), ViT-L/14;
- `linear`: version 1 (github.com/LAION-AI/aesthetic-predictor), ViT-L/14, B/16 and B/32.

The "MLP" was trained with dropout and has no activations, so each head is one affine map; its layers are multiplied
together once, in float64.
"""

import pickle
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.errors import ModelError, one_line

HEADS: dict[tuple[str, str], str] = {
    ("mlp", "ViT-L-14"): "laion-mlp-l-14",
    ("linear", "ViT-L-14"): "laion-v1-l-14",
    ("linear", "ViT-B-16"): "laion-v1-b-16",
    ("linear", "ViT-B-32"): "laion-v1-b-32",
}
"""(head, CLIP tower that it was trained on) → weights"""


@dataclass(frozen=True, eq=False)
class AestheticHead:
    """An affine map from embeddings to scores.

    Attributes:
        weight: float64 (D,).
        bias: added to every score.
    """

    weight: np.ndarray
    bias: float

    def score(self, embeddings: np.ndarray) -> np.ndarray:
        """Score embeddings.

        Args:
            embeddings: (N, D), of unit length.

        Returns:
            float64 (N,).
        """
        return embeddings.astype(np.float64) @ self.weight + self.bias


def head_name(head: str, model: str) -> str:
    """Return the weights' name of a head for a CLIP tower.

    Raises:
        ModelError: the tower has no such head.
    """
    if (head, model) in HEADS:
        return HEADS[head, model]
    known = ", ".join(f"{h} with {m}" for h, m in HEADS)
    raise ModelError(f"aesthetic: no head '{head}' for {model}; there are {known}, or give a head's file")


def load_head(path: Path) -> AestheticHead:
    """Read a head: a state dict of linear layers, to be applied one after another (.pth or .safetensors).

    Raises:
        ModelError: unreadable without running code, or not linear layers that end in one score.
    """
    layers = _linear_layers(Path(path), _read(Path(path)))
    weight, bias = np.eye(layers[0][0].shape[1]), np.zeros(layers[0][0].shape[1])
    for matrix, offset in layers:
        if matrix.shape[1] != len(bias):
            raise ModelError(f"{path}: no aesthetic head: its layers do not fit each other; fetch the file again")
        weight, bias = matrix @ weight, matrix @ bias + offset
    if weight.shape[0] != 1:
        raise ModelError(f"{path}: no aesthetic head: it ends in {weight.shape[0]} numbers, not one score")
    return AestheticHead(weight[0], float(bias[0]))


def _linear_layers(path: Path, state: dict[str, np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (out, in) matrices and (out,) offsets in the order of the numbers in their names."""
    names = [name.removesuffix("weight") for name in state if name.endswith("weight")]
    names.sort(key=lambda name: [int(number) for number in re.findall(r"\d+", name)])
    layers = [(state[f"{name}weight"], state.get(f"{name}bias")) for name in names]
    whole = [(w, b) for w, b in layers if b is not None and w.ndim == 2 and b.shape == w.shape[:1]]
    if not whole or len(whole) < len(layers) or 2 * len(whole) != len(state):
        raise ModelError(f"{path}: no aesthetic head: it holds more or less than linear layers; fetch the file again")
    return whole


def _read(path: Path) -> dict[str, np.ndarray]:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, SafetensorError, pickle.UnpicklingError) as error:
        raise ModelError(
            f"{path}: not readable as an aesthetic head ({one_line(error)[:120]}); fetch it again"
        ) from None
    if not isinstance(state, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise ModelError(f"{path}: no aesthetic head: not a state dict; fetch the file again")
    return {name: tensor.to(torch.float64).numpy() for name, tensor in state.items()}
