"""VAE: reconstruction and KL, optionally perceptual and adversarial (VQGAN's recipe, arXiv 2012.09841, in 3D)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from models.losses.discriminator import adaptive_weight, discriminator_loss, generator_loss
from models.vae.video_vae import TrainableVAE, channels_of, grid_of, kl_divergence, to_signed
from train_bridge.config import VaeLossSettings
from train_bridge.methods.types import Batch, Networks, draw_normal, generators_of

Perceptual = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass
class VideoVae:
    """Trains the autoencoder, and a discriminator beside it when the loss asks for one.

    Attributes:
        vae: (frames, noise) → reconstruction, mean, logvar.
        loss: weights of the terms.
        discriminator: patches of real against decoded frames.
        perceptual: distance (B,) between two videos.
    """

    vae: TrainableVAE
    loss: VaeLossSettings
    discriminator: nn.Module | None = None
    perceptual: Perceptual | None = None
    main: str = "vae"

    def networks(self) -> dict[str, nn.Module]:
        """Return the autoencoder and the discriminator."""
        both = {self.main: self.vae, "discriminator": self.discriminator}
        return {name: network for name, network in both.items() if network is not None}

    def losses(self, networks: Networks, batch: Batch, step: int) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the autoencoder's loss, then the discriminator's on what the autoencoder made."""
        assert batch.frames is not None
        frames = to_signed(batch.frames)
        made, mean, logvar = networks[self.main](frames, self._posterior_noise(batch))
        reconstruction = self._reconstruction(frames, made)
        loss = reconstruction + self.loss.kl * kl_divergence(mean, logvar)
        critic = networks.get("discriminator")
        adversarial = critic is not None and step >= self.loss.gan_start_step
        if adversarial:
            assert self.discriminator is not None
            # The wrapper waits for gradients of every weight, so the bare network judges here.
            self.discriminator.requires_grad_(False)
            fooled = generator_loss(self.discriminator(made))
            self.discriminator.requires_grad_(True)
            # By the rows that count, as in the loss itself, and without KL, as in VQGAN.
            rows = batch.weights / batch.weights.sum().clamp_min(1e-12)
            balance = adaptive_weight((rows * reconstruction).sum(), (rows * fooled).sum(), self.vae.last_layer)
            loss = loss + self.loss.gan * balance * fooled
        yield self.main, loss
        if adversarial:
            assert critic is not None
            yield "discriminator", discriminator_loss(critic(frames), critic(made.detach()))

    def validation_losses(self, networks: Networks, batch: Batch) -> dict[str, torch.Tensor]:
        """Return absolute error, KL and PSNR in dB of the posterior's mean."""
        assert batch.frames is not None
        frames = to_signed(batch.frames)
        made, mean, logvar = networks[self.main](frames, torch.zeros_like(self._posterior_noise(batch)))
        squared = (made - frames).square().flatten(1).mean(1)
        return {
            "l1": (made - frames).abs().flatten(1).mean(1),
            "kl": kl_divergence(mean, logvar),
            "psnr_db": 10 * torch.log10(4.0 / squared.clamp_min(1e-12)),
        }

    def _reconstruction(self, frames: torch.Tensor, made: torch.Tensor) -> torch.Tensor:
        loss = self.loss.l1 * (made - frames).abs().flatten(1).mean(1)
        if self.loss.l2:
            loss = loss + self.loss.l2 * (made - frames).square().flatten(1).mean(1)
        if self.perceptual is not None:
            loss = loss + self.loss.lpips * self.perceptual(frames, made)
        return loss

    def _posterior_noise(self, batch: Batch) -> torch.Tensor:
        assert batch.frames is not None
        frames, height, width = batch.frames.shape[1:4]
        shape = (channels_of(self.vae.vae), *grid_of(self.vae.vae).latent_shape(frames, height, width))
        return draw_normal(shape, generators_of(batch), batch.frames.device)
