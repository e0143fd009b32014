"""How many workers each step of a run gets: a part of the recipe that decides nothing of what an output holds."""

from dataclasses import dataclass

from core.settings import key


@dataclass(frozen=True)
class Workers:
    """How many processes each step gets; null: as many as fit the machine."""

    analyse: int | None = key(None, "decoding and pixel scores")
    score: int | None = key(None, "each pool of pooled operators")
    caption: int | None = key(None, "captioner's workers, where it has its own: engines of vLLM, say")
    cut: int | None = key(None, "second read and encoding")
    score_max: int | None = key(None, "as many may a pool have when a cluster grows; null: on GPUs what finds room")
    caption_max: int | None = key(None, "likewise, captioner's workers")

    def __post_init__(self) -> None:
        """Refuse pools without workers."""
        if any(n is not None and n < 1 for n in vars(self).values()):
            raise ValueError("a step needs at least 1 worker")
