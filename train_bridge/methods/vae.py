"""VAE: reconstruction and KL, optionally perceptual and adversarial (VQGAN's recipe, arXiv 2012.09841, in 3D)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import nn

from models.discriminator import adaptive_weight, discriminator_loss, generator_loss
from models.video_vae import TrainableVAE, kl_divergence, to_signed
from train_bridge.config import VaeLossSettings
from train_bridge.methods.types import Batch, Networks, draw_normal, generators_of
from train_bridge.types import Bucket

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
    _made: torch.Tensor | None = field(default=None, init=False, repr=False)

    def networks(self) -> dict[str, nn.Module]:
        """Give the autoencoder and the discriminator."""
        both = {self.main: self.vae, "discriminator": self.discriminator}
        return {name: network for name, network in both.items() if network is not None}

    def losses(self, networks: Networks, batch: Batch, step: int) -> Iterator[tuple[str, torch.Tensor]]:
        """Give the autoencoder's loss, then the discriminator's on what the autoencoder made."""
        assert batch.frames is not None
        frames = to_signed(batch.frames)
        made, mean, logvar = networks[self.main](frames, self._posterior_noise(batch))
        loss = self._reconstruction(frames, made) + self.loss.kl * kl_divergence(mean, logvar)
        critic = networks.get("discriminator")
        adversarial = critic is not None and step >= self.loss.gan_start_step
        if adversarial:
            assert self.discriminator is not None
            # The wrapper waits for gradients of every weight, so the bare network judges here.
            self.discriminator.requires_grad_(False)
            fooled = generator_loss(self.discriminator(made))
            self.discriminator.requires_grad_(True)
            share = self.loss.gan * adaptive_weight(loss.mean(), fooled.mean(), self.vae.last_layer)
            loss = loss + share * fooled
        yield self.main, loss
        if adversarial:
            assert critic is not None
            yield "discriminator", discriminator_loss(critic(frames), critic(made.detach()))

    def validation_losses(self, networks: Networks, batch: Batch) -> dict[str, torch.Tensor]:
        """Give absolute error, KL and PSNR in dB of the posterior's mean."""
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
        shape = (self.vae.vae.config.latent_channels, *Bucket(*batch.frames.shape[1:4]).latent_shape)
        return draw_normal(shape, generators_of(batch), batch.frames.device)
