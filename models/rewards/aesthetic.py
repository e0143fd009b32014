"""How much people like the frames: LAION's heads on CLIP (see `models.scorers.aesthetic`), 1..10."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from models.rewards.reward import Judge
from models.scorers.aesthetic import head_name, load_head
from models.scorers.clip import load_tower, needed_weights
from models.scorers.clip_pictures import as_pictures
from models.weights.find import find_weights


@dataclass(frozen=True)
class Aesthetic:
    """LAION's improved aesthetic predictor on ViT-L/14, for each frame."""

    model: str = "ViT-L-14"
    head: str = "mlp"
    head_file: str | None = None
    best: float = 10.0
    scale: float = 0.1
    min_frames: int = 1

    @property
    def needs(self) -> tuple[str, ...]:
        """The tower's weights and the head's."""
        return (*needed_weights(self.model), *(() if self.head_file else (head_name(self.head, self.model),)))

    def load(self, device: torch.device, weights: str | None) -> Judge:
        """Load the tower in float32, and the head."""
        tower = load_tower(self.model, weights, str(device), "float32")
        head = load_head(find_weights(self.needs[-1], weights) if self.head_file is None else Path(self.head_file))
        weight = torch.tensor(head.weight, dtype=torch.float32, device=device)

        def judge(frames: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
            likes = tower.embed(as_pictures(frames)) @ weight + head.bias
            return likes.view(frames.shape[0], frames.shape[2])

        return judge
