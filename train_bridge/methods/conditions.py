"""What an inpaint model sees in training: videos behind drawn masks, the same for a row's seed on every machine."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from models.conditions.inpaint import Known, condition_latents
from models.conditions.masks import V5_PROBABILITIES, draw_mask
from models.conditions.spec import INPAINT, ConditionSpec
from models.text.image_encoder import LoadedImage
from models.vae.video_vae import channels_of, from_latents, grid_of, scaling_factor_of, to_signed
from train_bridge.method_settings import InpaintSettings

START_FIRST = 0.5
"""share of rows whose start image is their first frame, as published for V3 and V4"""
START_SEEN = 0.5
"""share of rows that see it"""
GREY = 0.0
"""what a hidden pixel is shown as to people, in −1..1; the network sees black"""


def mask_probabilities(settings: InpaintSettings) -> dict[str, float]:
    """Return the share of each kind of mask: as named, else V5's."""
    return dict(settings.masks or V5_PROBABILITIES)


def draw_known(
    settings: InpaintSettings, frames: torch.Tensor, generators: Sequence[torch.Generator]
) -> tuple[Known, list[bool]]:
    """Draw a mask for each row.

    Args:
        settings: which masks.
        frames: uint8 (B, T, H, W, 3).
        generators: one for each row.

    Returns:
        What is known, and for each row whether its condition is all zeros if it is masked wholly.
    """
    probabilities, size = mask_probabilities(settings), (frames.shape[1], frames.shape[2], frames.shape[3])
    masks = [draw_mask(probabilities, size, generator)[1] for generator in generators]
    zeroed = [float(torch.rand(1, generator=generator)) < settings.zeroed for generator in generators]
    return Known(to_signed(frames), torch.stack(masks)[:, None].float()), zeroed


@torch.no_grad()
def encode_condition(
    vae: Any, settings: InpaintSettings, frames: torch.Tensor, seeds: tuple[int, ...], spec: ConditionSpec = INPAINT
) -> torch.Tensor:
    """Mask and encode, row by row: no row depends on the others of its batch.

    Args:
        vae: frozen.
        settings: which masks, and whether with noise.
        frames: uint8 (B, T, H, W, 3).
        seeds: one for each row.
        spec: the condition channels that the model has.

    Returns:
        (B, channels of the spec, f, h, w) on the CPU, float32.
    """
    generators = [condition_generator(seed) for seed in seeds]
    known, zeroed = draw_known(settings, frames, generators)
    noise = generators if settings.reference_noise else None
    return condition_latents(vae, known, noise, zero_full=zeroed, spec=spec).float().cpu()


@torch.no_grad()
def encode_start_image(encoder: LoadedImage, frames: torch.Tensor, seeds: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """Encode a frame of each row to tokens, as V3 and V4 see a start image in training.

    Half of the rows take their first frame, the others any; half of all rows do not see the tokens (their mask is 0).

    Args:
        encoder: frozen.
        frames: uint8 (B, T, H, W, 3).
        seeds: one for each row, whose draws are its own.

    Returns:
        `image` (B, K, D) and `image_mask` (B, K) on the CPU.
    """
    rows: dict[str, list[torch.Tensor]] = {}
    for video, seed in zip(frames, seeds, strict=True):
        generator = condition_generator(seed, "image")
        first, seen, place = torch.rand(3, generator=generator).tolist()
        number = 0 if first < START_FIRST else int(place * len(video))
        if seen < START_SEEN:
            found = encoder.encode_parts(video[number : number + 1].cpu().numpy())
        else:
            found = encoder.no_parts(1)
        for name, part in found.items():
            rows.setdefault(name, []).append(part.cpu())
    return {name: torch.cat(parts) for name, parts in rows.items()}


@torch.no_grad()
def show_condition(vae: Any, condition: torch.Tensor, spec: ConditionSpec = INPAINT) -> np.ndarray:
    """Show people what the network sees: the masked video decoded, with grey where the mask hides it.

    Args:
        vae: decodes.
        condition: (B, channels of the spec, f, h, w).
        spec: what they are.

    Returns:
        uint8 (B, T, H, W, 3).
    """
    condition = condition.to(vae.device, torch.float32)
    places = spec.places(channels_of(vae))
    seen = _decoded(vae, condition[:, places["masked_video"]])
    if "encoded_mask" in places:
        hidden = _decoded(vae, condition[:, places["encoded_mask"]]).mean(1, keepdim=True)
        nothing = (condition == 0).flatten(1).all(1)  # of text-to-video
        kept = (1 - hidden).clamp(0, 1) * ~nothing[:, None, None, None, None]
    else:
        kept = _spread(vae, (condition[:, places["mask"]] / scaling_factor_of(vae)).clamp(0, 1))
    pixels = ((kept * seen + (1 - kept) * GREY + 1) * 127.5).round().to(torch.uint8)
    return pixels.permute(0, 2, 3, 4, 1).cpu().numpy()


def _decoded(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    return torch.cat([from_latents(vae, one[None]) for one in latents]).float().clamp(-1, 1)


def _spread(vae: Any, kept: torch.Tensor) -> torch.Tensor:
    """Bring a mask of latents to the size of pixels."""
    grid = grid_of(vae)
    lengths = torch.tensor(grid.frames_of_latents(grid.num_frames(kept.shape[2])), device=kept.device)
    kept = kept.repeat_interleave(lengths, dim=2)
    for axis in (3, 4):
        kept = kept.repeat_interleave(grid.pixels_per_latent, dim=axis)
    return kept


def condition_generator(seed: int, use: str = "condition") -> torch.Generator:
    """Yield a generator of its own beside the one that noise is drawn from; torch reads 32 bits of a seed."""
    digest = hashlib.blake2b(f"{use} {seed}".encode(), digest_size=4).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big"))
