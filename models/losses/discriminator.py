"""A discriminator of video patches with hinge losses, for training the video VAE as VQGAN is (arXiv 2012.09841)."""

import torch
import torch.nn.functional as F
from torch import nn


class PatchGAN3D(nn.Module):
    """PatchGAN (Isola et al. 2017, arXiv 1611.07004) over space and time: one logit per patch.

    Convolutions halve height and width `n_layers` times, and time in all but the first of them, so that a
    logit sees motion; an image passes as a video of one frame. Normalisation is by groups: batch statistics
    would couple rows, differ between data-parallel workers and mean nothing at batch 1, and spectral norm keeps a
    power iteration in buffers that every forward pass changes.
    """

    def __init__(self, in_channels: int = 3, base_channels: int = 64, n_layers: int = 3, groups: int = 8):
        """Build with random weights, N(0, 0.02) as in the paper.

        Args:
            in_channels: of the frames.
            base_channels: after the first convolution; doubled by each further one, up to eight times. A multiple
                of `groups`.
            n_layers: halvings of the picture; 3 gives patches of 54 px, one logit per 8×8 px.
            groups: of the normalisation.
        """
        super().__init__()
        widths = [base_channels * min(2**i, 8) for i in range(n_layers + 1)]
        # Kernels of 4 halve evenly in space; 3 in time keeps 4n+1 frames centred on their own.
        layers: list[nn.Module] = [nn.Conv3d(in_channels, widths[0], (3, 4, 4), (1, 2, 2), 1), nn.LeakyReLU(0.2)]
        for i in range(1, n_layers + 1):
            halve = i < n_layers
            kernel, stride = ((3, 4, 4), 2) if halve else ((3, 3, 3), 1)
            layers += [
                nn.Conv3d(widths[i - 1], widths[i], kernel, stride, 1, bias=False),
                nn.GroupNorm(groups, widths[i]),
                nn.LeakyReLU(0.2),
            ]
        layers.append(nn.Conv3d(widths[-1], 1, 3, 1, 1))
        self.layers = nn.Sequential(*layers)
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.normal_(module.weight, 0.0, 0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Judge frames (B, 3, T, H, W) in −1..1.

        Returns:
            Logits (B, 1, t, H/2ⁿ, W/2ⁿ), high for real; n is `n_layers`, t is T halved n−1 times, rounded up.
        """
        logits: torch.Tensor = self.layers(frames)
        return logits


def discriminator_loss(real_logits: torch.Tensor, fake_logits: torch.Tensor) -> torch.Tensor:
    """Return the hinge loss (Lim & Ye 2017, arXiv 1705.02894, eq. 11), halved as in VQGAN: 1 for an undecided network.

    Returns:
        (B,), the mean over a row's patches.
    """
    real, fake = F.relu(1.0 - real_logits), F.relu(1.0 + fake_logits)
    return 0.5 * (real.flatten(1).mean(1) + fake.flatten(1).mean(1))


def generator_loss(fake_logits: torch.Tensor) -> torch.Tensor:
    """Return the hinge GAN's loss for what made the frames (arXiv 1705.02894, eq. 12).

    Returns:
        (B,), the mean over a row's patches; may be negative.
    """
    return -fake_logits.flatten(1).mean(1)


def adaptive_weight(
    reconstruction_loss: torch.Tensor, generator_loss: torch.Tensor, last_layer: torch.Tensor
) -> torch.Tensor:
    """Weigh the adversarial loss so that its gradient at the last layer is as strong as the reconstruction's.

    Esser et al. 2021 (arXiv 2012.09841), eq. 7: ‖∇ L_rec‖ / (‖∇ L_gan‖ + 10⁻⁶), bounded by 10⁴. In data parallelism
    each worker weighs by its own rows.

    Args:
        reconstruction_loss: scalar; its graph is kept.
        generator_loss: scalar; its graph is kept.
        last_layer: weights of the decoder's last layer.

    Returns:
        A scalar without gradient.
    """
    (reconstruction,) = torch.autograd.grad(reconstruction_loss, last_layer, retain_graph=True)
    (adversarial,) = torch.autograd.grad(generator_loss, last_layer, retain_graph=True)
    return (reconstruction.float().norm() / (adversarial.float().norm() + 1e-6)).clamp(max=1e4).detach()
