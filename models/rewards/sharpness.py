"""How sharp the frames are: the variance of the Laplacian of luma, squashed.

The operator `sharpness` of curation measures it at a short side of 360 px in squared grey levels (Pech-Pacheco et al.,
ICPR 2000). Here it is that of the frames as they are decoded, as v / (v + REFERENCE), which cannot grow without end.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from models.rewards.reward import Judge, luma

REFERENCE = 500.0
"""variance in squared grey levels that gives 0.5; pictures in ordinary focus lie from some tens to some hundreds"""


@dataclass(frozen=True)
class Sharpness:
    """Variance v of the 3×3 Laplacian of each frame's luma in grey levels, as v / (v + 500): 0..1."""

    best: float = 1.0
    scale: float = 1.0
    needs: tuple[str, ...] = ()
    min_frames: int = 1

    def load(self, device: torch.device, weights: str | None) -> Judge:
        """Return the judge, which needs nothing."""
        kernel = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]], device=device)

        def judge(frames: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
            gray = 255 * luma(frames)
            edges = F.pad(gray.flatten(0, 1)[:, None], (1, 1, 1, 1), mode="reflect")
            response = F.conv2d(edges, kernel[None, None].to(gray))
            variance = response.flatten(1).var(1, correction=0).view(gray.shape[:2])
            return variance / (variance + REFERENCE)

        return judge
