"""The frozen networks that turn frames into latents and captions into embeddings, loaded where they are used."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from core.digest import digest
from models.accelerator import own_device, use_device
from models.memory.modes import offload_layers_where_short
from models.quiet import quiet_libraries
from models.text.table import TEXT_ENCODERS
from models.vae.video_vae import encode_pixels, load_vae
from train_bridge.cache.build import EncodeFrames, EncodeTexts
from train_bridge.cache.fingerprint import text_weights_id, vae_weights_id, weights_id


@dataclass(frozen=True)
class FolderEncoders:
    """Encoders in folders; small enough to be sent to any worker.

    Attributes:
        vae: folder of the VAE.
        text: folder of the text encoder, as its kind's `load` takes it.
        positions: of a text embedding.
        vae_id: names the VAE's weights and configuration, as far as encoding reads them.
        text_id: names the text encoder's and its tokenizer's, with the number of positions.
        half: bf16 where there is a GPU.
        kind: of the text encoder, a name in `models.text.table`.
    """

    vae: str
    text: str
    positions: int
    vae_id: str
    text_id: str
    half: bool
    kind: str = "qwen2_vl"

    @staticmethod
    def of(vae: Path, text: Path, positions: int, kind: str = "qwen2_vl", *, half: bool) -> "FolderEncoders":
        """Name the weights by their content."""
        return FolderEncoders(
            str(vae.resolve()),
            str(text.resolve()),
            positions,
            vae_weights_id(vae),
            digest(text_weights_id(*TEXT_ENCODERS[kind].find(text).values()), positions),
            half,
            kind,
        )

    def earlier_ids(self) -> tuple[str | None, str | None]:
        """Return the names that versions before 0.9 gave: of whole folders, a pipeline's scheduler among them."""
        vae, text = _whole_id(Path(self.vae)), _whole_id(Path(self.text))
        return vae, text and digest(text, self.positions)

    def load_vae(self, device: torch.device | None = None) -> EncodeFrames:
        """Load the VAE; its function takes uint8 (B, T, H, W, 3) and gives unscaled mean and logvar (B, C, f, h, w).

        Args:
            device: where it computes, in whatever thread it is called; None: this process's own.
        """
        quiet_libraries()
        device = device or own_device()
        dtype = self.dtype_on(device)
        return frames_encoder(load_vae(Path(self.vae), dtype).to(device).eval().requires_grad_(False), device)

    def load_text(self, device: torch.device | None = None) -> EncodeTexts:
        """Load the text encoder; its function gives the parts that its kind yields, each (B, …).

        Args:
            device: as for `load_vae`.
        """
        quiet_libraries()
        device = device or own_device()
        encoder = TEXT_ENCODERS[self.kind].load(Path(self.text), self.positions, self.dtype_on(device))
        offload_layers_where_short(encoder.model, device)  # a card that trains a large base may be too small for it

        def encode(captions: Sequence[str]) -> dict[str, torch.Tensor]:
            use_device(device)
            parts = encoder.encode_parts(captions)
            return {
                name: part.float().cpu() if part.is_floating_point() else part.cpu() for name, part in parts.items()
            }

        return encode

    def dtype_on(self, device: torch.device) -> torch.dtype:
        """Return the type that they compute in on a device."""
        return torch.bfloat16 if self.half and device.type != "cpu" else torch.float32


def frames_encoder(vae: Any, device: torch.device) -> EncodeFrames:
    """Return what encodes with a loaded VAE, which is on a device: as `FolderEncoders.load_vae` says."""

    def encode(frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        use_device(device)
        with torch.no_grad():
            mean, logvar = encode_pixels(vae, frames.to(device))
        return mean.float().cpu(), logvar.float().cpu()

    return encode


def _whole_id(folder: Path) -> str | None:
    try:
        return weights_id(folder)
    except OSError:  # something beside what is used cannot be read; then there is nothing to take over
        return None
