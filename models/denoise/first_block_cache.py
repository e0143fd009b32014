"""First-block caching: steps whose first block says nearly what it said before take the other blocks' last word.

diffusers' `FirstBlockCacheConfig` (after ParaAttention, related to TeaCache, arXiv 2411.19108). The state lives for one
sample, so that a sample does not depend on those before it.

Measured with a trained transformer of the preset `tiny`, 50 steps of flow_euler, guidance 4 (`benchmarks/sampling.py`):

| threshold | predictions that took the last word | relative error of the latents |
|---|---|---|
| 0.05 | 19 % | 0.002 |
| 0.1 | 60 % | 0.010 |
| 0.2 | 82 % | 0.029 |
| 0.4 | 92 % | 0.060 |
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from diffusers.hooks import FirstBlockCacheConfig
from diffusers.hooks._helpers import TransformerBlockRegistry
from torch import nn

from models.errors import ModelError
from models.transformers.easyanimate_v5 import enable_caching


@dataclass
class Skipped:
    """How much was left out.

    Attributes:
        calls: predictions that were made.
        cached: those of them for which only the first block was computed.
    """

    calls: int = 0
    cached: int = 0

    @property
    def share(self) -> float:
        """Share of the predictions that took the blocks' last word."""
        return self.cached / self.calls if self.calls else 0.0


def check_threshold(threshold: float | None) -> None:
    """Refuse thresholds that mean nothing.

    Raises:
        ModelError: not above 0.
    """
    if threshold is not None and not 0 < threshold < math.inf:
        raise ModelError(f"cache threshold {threshold}: must be above 0; 0.05 is careful, 0.2 fast")


@contextmanager
def first_block_cache(transformer: nn.Module, threshold: float | None) -> Iterator[Skipped]:
    """Cache while one sample is made.

    Args:
        transformer: of diffusers' kind with at least two blocks; as before afterwards.
        threshold: mean change of what the first block adds, relative to its mean size, below which the other blocks
            are skipped; None: nothing is.

    Yields:
        Counts, complete at the end.

    Raises:
        ModelError: a threshold that means nothing, a network too small, or one whose blocks are not known to diffusers'
            hooks, such as those of EasyAnimate V1–V3 (long skip connections would go on without their blocks).
    """
    check_threshold(threshold)
    skipped = Skipped()
    if threshold is None:
        yield skipped
        return
    network: Any = transformer
    blocks = network.transformer_blocks
    if len(blocks) < 2:
        raise ModelError(f"cache threshold {threshold}: the transformer has {len(blocks)} block, so nothing to skip")
    enable_caching()
    try:
        TransformerBlockRegistry.get(type(blocks[0]))
    except ValueError:
        name = type(network).__name__
        raise ModelError(f"cache threshold {threshold}: {name} cannot skip its blocks; leave the cache out") from None
    network.enable_cache(FirstBlockCacheConfig(threshold=threshold))
    # Counted at a layer that only runs where the last block is computed.
    counted = [
        transformer.register_forward_pre_hook(_count(skipped, "calls", 1)),
        transformer.register_forward_pre_hook(_count(skipped, "cached", 1)),
        blocks[-1].attn1.register_forward_pre_hook(_count(skipped, "cached", -1)),
    ]
    try:
        with network.cache_context("both"):
            yield skipped
    finally:
        for handle in counted:
            handle.remove()
        network.disable_cache()


def _count(skipped: Skipped, name: str, by: int) -> Callable[..., None]:
    def count(*_: object) -> None:
        setattr(skipped, name, getattr(skipped, name) + by)

    return count
