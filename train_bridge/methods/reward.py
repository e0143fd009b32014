"""Reward: the transformer learns to sample what rewards like, by their gradient through sampler and decoder.

Videos are sampled from prompts alone, along the whole trajectory; the gradient is kept at some steps
(`models.denoise.gradient_sampling`); the first latents are decoded; the loss is the mean over frames of
|reward − best| · scale, summed over rewards with their weights (after EasyAnimate's reward LoRA).
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from models.denoise.gradient_sampling import kept_steps, predictor, sample_with_gradient
from models.denoise.samplers import make_scheduler
from models.rewards.reward import Judge
from models.transformers.architecture import Architecture
from models.transformers.conditioning import Conditioning, moved
from models.vae.video_vae import from_latents
from train_bridge.method_settings import RewardSettings
from train_bridge.methods.types import Batch, Networks, draw_normal, generators_of

SaveFrames = Callable[[int, np.ndarray, Sequence[str]], None]
"""(step, uint8 (B, T, H, W, 3), prompts): keeps samples that a reward could not judge, for people to look at"""


@dataclass(frozen=True)
class Term:
    """One reward of a weighted sum.

    Attributes:
        judge: scores frames.
        weight: factor on its loss; 0 for one that is only watched.
        best: the value that it is pulled towards.
        scale: factor that brings it to the size of others.
        low: rewards below count as this, and are pulled no further.
        high: likewise above.
    """

    judge: Judge
    weight: float
    best: float
    scale: float
    low: float = -math.inf
    high: float = math.inf

    def loss(self, rewards: torch.Tensor) -> torch.Tensor:
        """Return the loss (B,) of rewards (B, N)."""
        clamped = rewards.clamp(self.low, self.high)
        return self.weight * self.scale * (clamped - self.best).abs().mean(1)


@dataclass
class Reward:
    """Trains the transformer (or adapters inside it).

    Attributes:
        family: how to call it.
        transformer: the network.
        scheduler_config: its noise levels.
        settings: steps, guidance, which steps have a gradient.
        sampler: name in `models.denoise.samplers.SAMPLERS`.
        terms: the rewards, by name; those of weight 0 are only watched.
        empty_text: what guidance leads away from, one row.
        vae: frozen; decodes.
        shape: of a sample's latents.
        seed: decides which steps have a gradient.
        condition: latents (1, C, F, H, W) of a model with condition channels, which say that nothing is known.
        without_adapters: takes adapters out of the network for a while; None: all weights are trained.
        save: keeps samples that a reward could not judge.
    """

    family: Architecture
    transformer: nn.Module
    scheduler_config: dict[str, Any]
    settings: RewardSettings
    sampler: str
    terms: Mapping[str, Term]
    empty_text: Conditioning
    vae: Any
    shape: tuple[int, int, int, int]
    seed: int
    condition: torch.Tensor | None = None
    without_adapters: Callable[[nn.Module], AbstractContextManager[None]] | None = None
    save: SaveFrames | None = None
    main: str = "transformer"
    _base: dict[tuple[int, str], torch.Tensor] = field(default_factory=dict, repr=False)
    _base_judged: dict[tuple[int, str], torch.Tensor] = field(default_factory=dict, repr=False)

    def networks(self) -> dict[str, nn.Module]:
        """Return the transformer."""
        return {self.main: self.transformer}

    def losses(self, networks: Networks, batch: Batch, step: int) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the weighted sum of the rewards' losses by row."""
        asked = self.settings
        kept = kept_steps(asked.gradient, asked.gradient_steps, asked.steps, f"{self.seed} reward {step}")
        network = networks[self.main]
        # Recomputed in the backward pass, a wrapper for several workers would count its gradients twice.
        alone = not isinstance(network, nn.parallel.DistributedDataParallel)
        latents = self._sample(network, batch, kept, checkpointing=asked.checkpointing and alone)
        frames = self.decoded(latents, checkpointing=asked.checkpointing)
        total = torch.zeros(len(frames), device=frames.device)
        for term in self.terms.values():
            if term.weight:
                total = total + term.loss(term.judge(frames, batch.prompts).float())
        if self.save is not None and not bool(total.isfinite().all()):
            broken = (~total.isfinite()).nonzero().flatten().tolist()
            self.save(step, _pixels(frames[broken]), [batch.prompts[row] for row in broken])
        yield self.main, total

    @torch.no_grad()
    def validation_losses(self, networks: Networks, batch: Batch) -> dict[str, torch.Tensor]:
        """Return every reward of samples from the rows' seeds, that of the base's, and how far both are apart.

        `distance` is the mean squared difference of the latents from those that the base makes of equal noise;
        `<reward>_base` are the rewards of the base's samples, `reward_loss` is what training brings down.
        """
        latents = self._sample(networks[self.main], batch, (), checkpointing=False)
        base = self._base_latents(networks[self.main], batch).to(latents)
        frames, base_rewards = self.decoded(latents, checkpointing=False), self._base_rewards(base, batch)
        found: dict[str, torch.Tensor] = {"reward_loss": torch.zeros(len(frames), device=frames.device)}
        for name, term in self.terms.items():
            rewards = term.judge(frames, batch.prompts).float()
            found["reward_loss"] = found["reward_loss"] + term.loss(rewards)
            found[name] = rewards.mean(1)
            found[f"{name}_base"] = base_rewards[name]
        found["distance"] = (latents.float() - base.float()).square().flatten(1).mean(1)
        return found

    @torch.no_grad()
    def remember_base(self, batch: Batch) -> None:
        """Sample held-out prompts with the weights that there are now, as the base's."""
        for seed, prompt, latents in zip(
            batch.seeds, batch.prompts, self._sample(self.transformer, batch, (), checkpointing=False), strict=True
        ):
            self._base[seed, prompt] = latents.cpu()

    def decoded(self, latents: torch.Tensor, *, checkpointing: bool) -> torch.Tensor:
        """Decode the first latents to frames (B, 3, T, H, W) in 0..1."""
        first = latents[:, :, : self.settings.decoded_latents]
        return (from_latents(self.vae, first, checkpointing=checkpointing).float() / 2 + 0.5).clamp(0, 1)

    def _sample(self, network: nn.Module, batch: Batch, kept: Sequence[int], *, checkpointing: bool) -> torch.Tensor:
        assert batch.conditioning is not None
        device = batch.weights.device
        noise = draw_normal(self.shape, generators_of(batch), device)
        conditioning = moved(batch.conditioning, dtype=noise.dtype)
        if self.condition is not None:
            known = self.condition.to(noise).expand(len(noise), -1, -1, -1, -1)
            conditioning = replace(conditioning, latents=known)
        channels = self.shape[0]
        predict = predictor(
            self.family, network, conditioning, moved(self.empty_text, device), self.settings.guidance, channels
        )
        scheduler = make_scheduler(self.scheduler_config, self.settings.steps, self.sampler)
        return sample_with_gradient(
            predict,
            scheduler,
            noise,
            self.settings.steps,
            kept,
            stop_input=self.settings.stop_input,
            checkpointing=checkpointing,
        )

    def _base_latents(self, network: nn.Module, batch: Batch) -> torch.Tensor:
        """Return the base's latents of the batch's noise; they are sampled once."""
        keys = _keys(batch)
        if any(key not in self._base for key in keys):
            assert self.without_adapters is not None, "all weights are trained: the base is remembered before"
            bare = network.module if isinstance(network, nn.parallel.DistributedDataParallel) else network
            with self.without_adapters(bare):
                latents = self._sample(bare, batch, (), checkpointing=False)
            self._base |= {key: one.cpu() for key, one in zip(keys, latents, strict=True)}
        return torch.stack([self._base[key] for key in keys])

    def _base_rewards(self, latents: torch.Tensor, batch: Batch) -> dict[str, torch.Tensor]:
        """Return every reward (B,) of the base's latents, by name; they are decoded and judged once."""
        keys = _keys(batch)
        if any(key not in self._base_judged for key in keys):
            frames = self.decoded(latents, checkpointing=False)
            judged = torch.stack([term.judge(frames, batch.prompts).float().mean(1) for term in self.terms.values()])
            self._base_judged |= zip(keys, judged.unbind(1), strict=True)
        rewards = torch.stack([self._base_judged[key] for key in keys], dim=1)
        return dict(zip(self.terms, rewards, strict=True))


def _keys(batch: Batch) -> list[tuple[int, str]]:
    """Return what the noise and the text of each row follow from."""
    return list(zip(batch.seeds, batch.prompts, strict=True))


def _pixels(frames: torch.Tensor) -> np.ndarray:
    """Return uint8 (B, T, H, W, 3); what is no number is black."""
    shown = (frames.detach().nan_to_num(0.0).clamp(0, 1) * 255).round().to(torch.uint8)
    return shown.permute(0, 2, 3, 4, 1).cpu().numpy()
