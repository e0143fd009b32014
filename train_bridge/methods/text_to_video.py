"""Text to video: the transformer learns the objective on cached or freshly encoded latents.

Inpainting is the same with a condition in the batch, which no dropout touches.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from models.denoise.densities import draw_shaped
from models.denoise.objectives import Density, Objective, draw_quantile
from models.transformers.architecture import Architecture
from models.transformers.conditioning import Conditioning, moved, with_text_where
from models.vae.video_vae import draw_posterior
from train_bridge.methods.types import Batch, Networks, draw_normal, generators_of

VALIDATION_QUANTILES = (0.1, 0.35, 0.65, 0.9)
"""noise levels of the validation loss: one in each bin, fixed, so that runs can be compared"""


@dataclass(frozen=True)
class TextToVideo:
    """Trains the transformer (or adapters inside it).

    Attributes:
        family: how to call it.
        transformer: the network.
        objective: what it learns.
        density: of noise levels.
        text_dropout: share of rows that see the empty caption.
        empty_text: its embedding, one row.
        scaling_factor: of the VAE's latents.
    """

    family: Architecture
    transformer: nn.Module
    objective: Objective
    density: Density
    text_dropout: float
    empty_text: Conditioning
    scaling_factor: float
    main: str = "transformer"

    def networks(self) -> dict[str, nn.Module]:
        """Return the transformer."""
        return {self.main: self.transformer}

    def losses(self, networks: Networks, batch: Batch, step: int) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the squared error by row, at one random noise level each."""
        generators = generators_of(batch)
        quantiles = torch.cat(self._quantiles(batch, generators))
        dropped = torch.cat([torch.rand(1, generator=g) for g in generators]) < self.text_dropout
        yield self.main, self._error(networks, batch, generators, quantiles, dropped)

    def _quantiles(self, batch: Batch, generators: list[torch.Generator]) -> list[torch.Tensor]:
        if batch.levels is None:
            return [draw_quantile(self.density, g) for g in generators]
        level = self.objective.quantile_of
        return [
            draw_shaped(self.density, tilt, level(low), level(high), g)
            for (tilt, low, high), g in zip(batch.levels.tolist(), generators, strict=True)
        ]

    def validation_losses(self, networks: Networks, batch: Batch) -> dict[str, torch.Tensor]:
        """Return the squared error at fixed noise levels, with every row's own text."""
        kept = torch.zeros(len(batch.seeds), dtype=torch.bool)
        return {
            f"noise_{quantile:.2f}": self._error(
                networks, batch, generators_of(batch), torch.full((len(batch.seeds),), quantile), kept
            )
            for quantile in VALIDATION_QUANTILES
        }

    def _error(
        self,
        networks: Networks,
        batch: Batch,
        generators: list[torch.Generator],
        quantiles: torch.Tensor,
        dropped: torch.Tensor,
    ) -> torch.Tensor:
        assert batch.mean is not None and batch.logvar is not None and batch.conditioning is not None
        device, shape = batch.mean.device, batch.mean.shape[1:]
        posterior = draw_normal(shape, generators, device)
        latents = draw_posterior(batch.mean.float(), batch.logvar.float(), posterior) * self.scaling_factor
        noise = draw_normal(shape, generators, device)
        timesteps = self.objective.timesteps(quantiles.to(device))
        conditioning = with_text_where(dropped, self.empty_text, batch.conditioning)
        noisy = self.objective.corrupt(latents, noise, timesteps)
        prediction = self.family.predict(
            networks[self.main], noisy, timesteps.to(noisy.dtype), moved(conditioning, dtype=noisy.dtype)
        )
        return self.objective.losses(prediction, latents, noise, noisy, timesteps)
