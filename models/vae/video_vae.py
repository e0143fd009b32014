"""Frames to latents and back with any video autoencoder of the table, and what pixels and latents need on the way."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from models.errors import ModelError
from models.geometry import LatentGrid
from models.vae.table import PRESETS as PRESETS
from models.vae.table import build_vae as build_vae
from models.vae.table import kind_of
from models.vae.table import load_vae as load_vae


def grid_of(vae: Any) -> LatentGrid:
    """Return the compression of a network, and with it the numbers of frames that it takes."""
    return kind_of(vae).grid(vae.config)


def channels_of(vae: Any) -> int:
    """Return the channels of a network's latents."""
    return kind_of(vae).channels(vae.config)


def scaling_factor_of(vae: Any) -> float:
    """Return the factor that a network's latents are multiplied by for the transformer."""
    return kind_of(vae).scaling(vae.config).factor


def tile_px_of(vae: Any) -> tuple[int, int] | None:
    """Return height and width of a network's tiles in pixels; None where it has none."""
    return kind_of(vae).tile_px(vae)


def encode_moments(
    vae: Any, frames: torch.Tensor, frames_at_once: int | None = None, *, checkpointing: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Encode frames to the posterior's mean and log variance, unscaled.

    Args:
        vae: the autoencoder; it is not changed. With `enable_tiling` called, pictures larger than a tile are walked
            in tiles.
        frames: (B, 3, T, H, W) in −1..1, floating point; T and sides as its grid takes them.
        checkpointing: recompute activations in the backward pass: less memory, a third slower.
        frames_at_once: bound on memory, a multiple of what it encodes together; the result does not depend on it.
            None: the whole sequence where gradients are wanted, else as few as can be.

    Returns:
        Mean and log variance, each (B, C, t, h, w).

    Raises:
        ModelError: a shape or type that cannot be encoded.
    """
    check_frames(vae, frames)
    return _encoded(vae, frames, frames_at_once, checkpointing=checkpointing)


def encode_pixels(vae: Any, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Encode uint8 (B, T, H, W, 3), on the VAE's device, as `encode_moments` does what `to_signed` makes of them.

    The pixels of one piece at a time become numbers of the VAE's type, so that memory beside the pixels does not grow
    with the video's length.

    Raises:
        ModelError: a shape or type that cannot be encoded.
    """
    frames = pixels.permute(0, 4, 1, 2, 3)
    if frames.dtype != torch.uint8:
        raise ModelError(f"pixels of type {frames.dtype}: give uint8")
    check_shape(vae, frames)
    return _encoded(vae, frames, None, checkpointing=False)


def decode_frames(
    vae: Any, latents: torch.Tensor, latents_at_once: int | None = None, *, checkpointing: bool = False
) -> torch.Tensor:
    """Decode unscaled latents to frames.

    Args:
        vae: the autoencoder; it is not changed. With `enable_tiling` called, pictures larger than a tile are walked
            in tiles.
        latents: (B, C, t, h, w).
        checkpointing: recompute activations in the backward pass: less memory, a third slower.
        latents_at_once: bound on memory; the result does not depend on it. None: the whole sequence where
            gradients are wanted, else 1.

    Returns:
        (B, 3, T, H, W), about −1..1 but not clamped.

    Raises:
        ModelError: not five dimensions, or another number of channels.
    """
    pieces = list(frame_pieces(vae, latents, latents_at_once, checkpointing=checkpointing))
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=2)


def frame_pieces(
    vae: Any, latents: torch.Tensor, latents_at_once: int | None = None, *, checkpointing: bool = False
) -> Iterator[torch.Tensor]:
    """Yield what `decode_frames` returns piece by piece (B, 3, n, H, W), in order; memory is that of one piece.

    Raises:
        ModelError: as `decode_frames`.
    """
    channels = channels_of(vae)
    if latents.ndim != 5 or latents.shape[1] != channels:
        raise ModelError(f"latents {tuple(latents.shape)}: the VAE decodes (batch, {channels}, frames, height, width)")
    return kind_of(vae).decode(vae, latents, latents_at_once, checkpointing=checkpointing)


def check_frames(vae: Any, frames: torch.Tensor) -> None:
    """Refuse what cannot be encoded.

    Raises:
        ModelError: not (B, 3, T, H, W) in floating point, or a T or a side that its grid does not take.
    """
    check_shape(vae, frames)
    if not frames.is_floating_point():
        raise ModelError(f"frames of type {frames.dtype}: scale pixels to -1..1 in floating point first")


def check_shape(vae: Any, frames: torch.Tensor) -> None:
    """Refuse a shape that cannot be encoded.

    Raises:
        ModelError: not (B, 3, T, H, W), or a T or a side that its grid does not take.
    """
    if frames.ndim != 5 or frames.shape[1] != 3:
        raise ModelError(f"frames {tuple(frames.shape)}: the VAE encodes (batch, 3, frames, height, width)")
    count, height, width = frames.shape[2:]
    grid = grid_of(vae)
    if not grid.takes_frames(count):
        low, high = grid.nearest_frames(count)
        raise ModelError(f"{count} frames are not {grid.rule}; take {low} or {high}")
    side = grid.pixels_per_latent
    if height < side or width < side or height % side or width % side:
        raise ModelError(f"frames of {width}x{height} px: both sides must be multiples of {side}")


def to_signed(pixels: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Bring uint8 (B, T, H, W, 3) to what is encoded: (B, 3, T, H, W) in −1..1."""
    return pixels.permute(0, 4, 1, 2, 3).to(dtype) / 127.5 - 1.0


def to_pixels(frames: torch.Tensor) -> torch.Tensor:
    """Bring (3, T, H, W), about −1..1, to uint8 (T, H, W, 3)."""
    return ((frames.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 3, 0)


def to_unscaled(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """Bring latents from the transformer's scale to the VAE's own, in the VAE's type."""
    return kind_of(vae).scaling(vae.config).unscaled(latents).to(vae.dtype)


@torch.no_grad()
def decode_pixels(vae: Any, latents: torch.Tensor) -> np.ndarray:
    """Decode scaled latents (B, C, t, h, w), one video after the other, to uint8 (B, T, H, W, 3)."""
    return np.stack([_decoded(vae, one[None]) for one in latents])


def _decoded(vae: Any, latents: torch.Tensor) -> np.ndarray:
    """Decode one video; each piece becomes bytes before the next is decoded."""
    pieces = [to_pixels(piece[0]).cpu() for piece in frame_pieces(vae, to_unscaled(vae, latents))]
    return torch.cat(pieces).numpy()


def draw_posterior(mean: torch.Tensor, logvar: torch.Tensor, noise: torch.Tensor | None) -> torch.Tensor:
    """Draw unscaled latents.

    Args:
        mean: of the posterior.
        logvar: its log variance; clamped to −30..20.
        noise: standard normal, of the same shape; None: the mean itself.
    """
    return mean if noise is None else mean + torch.exp(0.5 * logvar.clamp(-30.0, 20.0)) * noise


def to_latents(vae: Any, mean: torch.Tensor, logvar: torch.Tensor, noise: torch.Tensor | None) -> torch.Tensor:
    """Draw from the posterior (see `draw_posterior`) and scale, as the transformer expects latents."""
    return kind_of(vae).scaling(vae.config).scaled(draw_posterior(mean, logvar, noise))


def from_latents(vae: Any, latents: torch.Tensor, *, checkpointing: bool = False) -> torch.Tensor:
    """Decode scaled latents of any type, the inverse of `encode` (see `decode_frames`)."""
    return decode_frames(vae, to_unscaled(vae, latents), checkpointing=checkpointing)


def encode(vae: Any, frames: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    """Encode frames to scaled latents (see `encode_moments`).

    Args:
        vae: the autoencoder.
        frames: (B, 3, T, H, W) in −1..1.
        generator: on a CPU, the same draw on every device; None: the posterior's mean.
    """
    mean, logvar = encode_moments(vae, frames)
    if generator is None:
        return to_latents(vae, mean, logvar, None)
    noise = torch.randn(mean.shape, generator=generator, device=generator.device, dtype=torch.float32)
    return to_latents(vae, mean, logvar, noise.to(mean))


def kl_divergence(mean: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
    """Return KL(N(mean, exp(logvar)) ‖ N(0, 1)) (Kingma & Welling 2014, appendix B).

    Returns:
        (B,), the mean over a row's latent elements.
    """
    return 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).flatten(1).mean(1)


class TrainableVAE(nn.Module):
    """The autoencoder as one module call, which data parallelism needs.

    Attributes:
        vae: the autoencoder, whose weights these are.
        checkpointing: recompute activations in the backward pass.
    """

    def __init__(self, vae: Any, *, checkpointing: bool = False, decoder_only: bool = False):
        """Wrap the model; nothing is copied.

        Args:
            vae: the autoencoder.
            checkpointing: recompute activations in the backward pass.
            decoder_only: freeze what encodes, so that latents stay as they are.
        """
        super().__init__()
        if decoder_only:
            for part in (vae.encoder, vae.quant_conv):
                if part is not None:
                    part.requires_grad_(False)
        self.vae = vae
        self.checkpointing = checkpointing

    @property
    def last_layer(self) -> nn.Parameter:
        """Weights of the decoder's last convolution, for `models.losses.discriminator.adaptive_weight`."""
        return kind_of(self.vae).last_layer(self.vae)

    def forward(
        self, frames: torch.Tensor, noise: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Encode, draw and decode.

        Args:
            frames: (B, 3, T, H, W) in −1..1.
            noise: standard normal in the shape of the latents; None: decode the mean.

        Returns:
            Reconstruction (B, 3, T, H, W), mean and log variance (B, C, t, h, w).
        """
        encodes = any(parameter.requires_grad for parameter in self.vae.encoder.parameters())
        with torch.set_grad_enabled(torch.is_grad_enabled() and encodes):
            mean, logvar = encode_moments(self.vae, frames, checkpointing=self.checkpointing and encodes)
        return (
            decode_frames(self.vae, draw_posterior(mean, logvar, noise), checkpointing=self.checkpointing),
            mean,
            logvar,
        )


def _encoded(
    vae: Any, frames: torch.Tensor, frames_at_once: int | None, *, checkpointing: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    mean, logvar = kind_of(vae).encode(vae, frames, frames_at_once, checkpointing=checkpointing)
    return mean, logvar.clamp(-30.0, 20.0)
