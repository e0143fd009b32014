"""What a frozen VAE takes while it encodes or decodes, found by walking its shapes on the meta device."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from models.memory.live_memory import peak_bytes
from models.vae.video_vae import channels_of, decode_frames, encode_moments, grid_of

PROBED_LATENTS = 3
"""latent frames for which it is walked; more add nothing but their pixels, since it walks a few frames at a time"""


@dataclass(frozen=True, eq=False)
class VaeNeed:
    """Bytes by shape.

    Attributes:
        vae: on the meta device, in float32.
        size: bytes of a value as it computes.
    """

    vae: Any
    size: int

    @property
    def weights(self) -> int:
        """Bytes of its weights."""
        return self.size * sum(p.numel() for p in self.vae.parameters())

    def encoding(self, num_frames: int, height_px: int, width_px: int, rows: int = 1) -> int:
        """Return the activations' peak of encoding rows at once, with their frames."""
        probed = min(num_frames, grid_of(self.vae).shortest_with(PROBED_LATENTS))
        walked = self._walked(probed, height_px, width_px, decodes=False) * self.size // 4
        # The frames as they came (a byte), as the network takes them, and once more while they are brought into -1..1.
        frames = num_frames * 3 * height_px * width_px * (1 + 2 * self.size)
        return rows * (walked + frames)

    def decoding(self, num_frames: int, height_px: int, width_px: int, rows: int = 1) -> int:
        """Return the activations' peak of decoding rows at once to 8-bit pixels."""
        probed = min(num_frames, grid_of(self.vae).shortest_with(PROBED_LATENTS))
        pixels = num_frames * 3 * height_px * width_px
        walked = self._walked(probed, height_px, width_px, decodes=True) * self.size // 4
        # Frames become pixels by way of float32 (`video_vae.decode_pixels`).
        return rows * max(walked + pixels * self.size, pixels * (self.size + 8))

    @lru_cache(maxsize=256)  # noqa: B019 - one need lives as long as the plan
    def _walked(self, num_frames: int, height_px: int, width_px: int, *, decodes: bool) -> int:
        frames, height, width = grid_of(self.vae).latent_shape(num_frames, height_px, width_px)
        with torch.no_grad(), torch.device("meta"):
            if decodes:
                z = torch.zeros(1, channels_of(self.vae), frames, height, width)
                return peak_bytes(lambda: decode_frames(self.vae, z))
            x = torch.zeros(1, 3, num_frames, height_px, width_px)
            return peak_bytes(lambda: encode_moments(self.vae, x))
