"""Whether the frames fit the prompt: cosine in CLIP, as the operator `caption_alignment` measures it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from models.rewards.reward import Judge
from models.scorers.clip import ClipTower, load_tower, needed_weights
from models.scorers.clip_pictures import as_pictures


@dataclass(frozen=True)
class CaptionAlignment:
    """Mean cosine of the prompt's chunks with each frame; a long prompt is cut at its sentences, as in curation."""

    model: str = "ViT-L-14"
    best: float = 1.0
    scale: float = 1.0
    min_frames: int = 1

    @property
    def needs(self) -> tuple[str, ...]:
        """The tower's weights."""
        return needed_weights(self.model)

    def load(self, device: torch.device, weights: str | None) -> Judge:
        """Load the tower in float32."""
        tower = load_tower(self.model, weights, str(device), "float32")

        def judge(frames: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
            shown = tower.embed(as_pictures(frames)).view(frames.shape[0], frames.shape[2], -1)
            said = torch.stack([_meaning(tower, prompt) for prompt in prompts]).to(shown)
            return torch.einsum("btd,bd->bt", shown, said)

        return judge


def _meaning(tower: ClipTower, prompt: str) -> torch.Tensor:
    """Return the mean of the chunks' unit vectors (D,), so that its product with a frame is the mean cosine."""
    return torch.from_numpy(tower.encode_texts(tower.split_text(prompt) or [""])).mean(0)
