"""The frozen networks that turn frames into latents and captions into embeddings, loaded where they are used."""

from dataclasses import dataclass
from pathlib import Path

import torch

from models.quiet import quiet_libraries
from models.text_encoder import TextEncoder
from models.video_vae import encode_moments, load_vae, to_signed
from train_bridge.cache_build import EncodeFrames, EncodeTexts
from train_bridge.fingerprint import digest, weights_id
from train_bridge.parallel import own_device


@dataclass(frozen=True)
class FolderEncoders:
    """Encoders in folders; small enough to be sent to any worker.

    Attributes:
        vae: folder of the VAE.
        text: folder of the text encoder, as `TextEncoder.load` takes it.
        positions: of a text embedding.
        vae_id: names the VAE's weights and configuration.
        text_id: names the text encoder's, with the number of positions.
        half: bf16 where there is a GPU.
    """

    vae: str
    text: str
    positions: int
    vae_id: str
    text_id: str
    half: bool

    @staticmethod
    def of(vae: Path, text: Path, positions: int, half: bool) -> "FolderEncoders":
        """Name the weights by their content."""
        return FolderEncoders(
            str(vae.resolve()),
            str(text.resolve()),
            positions,
            weights_id(vae),
            digest(weights_id(text), positions),
            half,
        )

    def load_vae(self) -> EncodeFrames:
        """Load the VAE; its function takes uint8 (B, T, H, W, 3) and gives unscaled mean and logvar (B, C, f, h, w)."""
        quiet_libraries()
        device, dtype = own_device(), self.dtype
        vae = load_vae(Path(self.vae), dtype).to(device).eval().requires_grad_(False)

        def encode(frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            with torch.no_grad():
                mean, logvar = encode_moments(vae, to_signed(frames.to(device), dtype))
            return mean.float().cpu(), logvar.float().cpu()

        return encode

    def load_text(self) -> EncodeTexts:
        """Load the text encoder; its function gives (B, positions, D)."""
        quiet_libraries()
        encoder = TextEncoder.load(Path(self.text), self.positions, self.dtype, own_device())
        return lambda captions: encoder.encode(captions).float().cpu()

    @property
    def dtype(self) -> torch.dtype:
        """Give the type that they compute in here."""
        return torch.bfloat16 if self.half and own_device().type == "cuda" else torch.float32
