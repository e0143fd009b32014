"""Small text encoders with random weights are drawn and written alike, whatever their network."""

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from core.files import atomic_folder


@torch.no_grad()
def draw_weights(model: Any, gains: Mapping[str, float], lookups: Collection[str], seed: int) -> None:
    """Fill weights so that embeddings get a deviation of about 1: normal with gain / sqrt(inputs).

    Args:
        model: in float32; it is changed. torch's global generator is not touched.
        gains: by a part of a weight's name; the first that fits, else 1.
        lookups: parts of the names of tables, of which one row is read at a time.
        seed: decides the weights.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, weight in sorted(model.named_parameters()):
        if weight.ndim == 1:
            weight.fill_(1.0 if name.endswith("weight") else 0.0)
            continue
        gain = next((gain for part, gain in gains.items() if part in name), 1.0)
        inputs = 1 if any(part in name for part in lookups) else weight[0].numel()
        weight.normal_(0.0, gain / math.sqrt(inputs), generator=generator)


def write_encoder(folder: Path, suffix: str, model: Any, tokenizer: Any) -> None:
    """Write `text_encoder<suffix>/` and then `tokenizer<suffix>/` into a folder, which is made."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    with atomic_folder(Path(folder) / f"text_encoder{suffix}") as temporary:
        model.save_pretrained(temporary)
    with atomic_folder(Path(folder) / f"tokenizer{suffix}") as temporary:
        tokenizer.save_pretrained(temporary)
