"""Tiny image and video models of EasyAnimate V1–V3, and what is put into them."""

from pathlib import Path
from typing import Any

import torch
from diffusers import PixArtTransformer2DModel
from torch import nn

from models.transformers.blocks.pixart_family import TINY, PixArtFamily
from models.transformers.conditioning import Conditioning
from models.transformers.easyanimate_v1 import V1
from models.transformers.easyanimate_v2 import V2
from models.transformers.easyanimate_v3 import V3

FAMILIES = {"tiny-v1": V1, "tiny-v2": V2, "tiny-v3": V3}


def build(preset: str, **fields: Any) -> nn.Module:
    """Build a preset with random weights, new layers being zero."""
    torch.manual_seed(0)
    return FAMILIES[preset].build(FAMILIES[preset].presets[preset] | fields).eval()


def trained(model: nn.Module) -> nn.Module:
    """Give all weights random values, so that nothing is zero any more."""
    draw = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=draw))
    return model


def image_model(layers: int, **fields: Any) -> PixArtTransformer2DModel:
    """Build diffusers' image model of the tiny width."""
    torch.manual_seed(1)
    return PixArtTransformer2DModel(**TINY | {"num_layers": layers} | fields).eval()


def image_folder(folder: Path, layers: int, **fields: Any) -> PixArtTransformer2DModel:
    """Write such a model to a folder, and return it."""
    model = image_model(layers, **fields)
    model.save_pretrained(folder)
    return model


def noise(frames: int = 3, height: int = 8, width: int = 8, batch: int = 2, channels: int = 4) -> torch.Tensor:
    """Draw latents (B, C, F, H, W), the same at each call."""
    return torch.randn(batch, channels, frames, height, width, generator=torch.Generator().manual_seed(2))


TIMES = torch.tensor([100.0, 900.0])


def caption(length: int = 7, real: tuple[int, int] = (7, 3)) -> Conditioning:
    """Draw two captions and their mask: so many tokens each, the rest padding."""
    text = torch.randn(2, length, 64, generator=torch.Generator().manual_seed(3))
    mask = torch.arange(length)[None] < torch.tensor(real)[:, None]
    return Conditioning(text, mask)


def predicted(family: PixArtFamily, model: nn.Module, latents: torch.Tensor, given: Conditioning) -> torch.Tensor:
    """Predict without gradients."""
    with torch.no_grad():
        return family.predict(model, latents, TIMES[: len(latents)], given)


def frame_by_frame(image: PixArtTransformer2DModel, latents: torch.Tensor, given: Conditioning) -> torch.Tensor:
    """Predict each frame of a video by diffusers' image model, in its own call."""
    with torch.no_grad():
        frames = [
            image(
                latents[:, :, frame], encoder_hidden_states=given.text, encoder_attention_mask=given.text_mask.long(),
                timestep=TIMES, return_dict=False,
            )[0]
            for frame in range(latents.shape[2])
        ]  # fmt: skip
    return torch.stack(frames, dim=2)
