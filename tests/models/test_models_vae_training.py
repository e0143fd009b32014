"""The VAEs of V1 to V4 learn a clip in seconds, whole or their decoders alone."""

import pytest
import torch
from torch import nn

from models.vae.table import PRESETS, build_vae, kind_of
from models.vae.video_vae import TrainableVAE, channels_of, kl_divergence
from train_bridge.config import VaeLossSettings
from train_bridge.methods.types import Batch
from train_bridge.methods.vae import VideoVae

torch.set_num_threads(1)

PRESETS_OF = {"tiny-image-vae": 3, "tiny-magvit4": 9, "tiny-slice": 8, "tiny-cached-slice": 8}
"""with the frames of one slice"""


def waves(num_frames: int) -> torch.Tensor:
    """Three colours of waves that turn; (1, 3, T, 32, 32) in −1..1."""
    across = torch.linspace(-1, 1, 32)
    time = torch.arange(num_frames)[:, None, None] / num_frames
    video = (across[None, :, None] + across[None, None, :] * (4 * time - 2)).mul(2).tanh()
    return torch.stack([video, -video, 0.5 * video])[None]


def fit(network: TrainableVAE, num_frames: int, steps: int) -> list[float]:
    frames, vae = waves(num_frames), network.vae
    shape = channels_of(vae), *kind_of(vae).grid(vae.config).latent_shape(num_frames, 32, 32)
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], 3e-3)
    generator, losses = torch.Generator().manual_seed(0), []
    for _ in range(steps):
        made, mean, logvar = network(frames, torch.randn(1, *shape, generator=generator))
        loss = (made - frames).square().mean() + 1e-6 * kl_divergence(mean, logvar).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.slow  # seconds on a machine of its own
@pytest.mark.parametrize("preset", PRESETS_OF)
def test_a_tiny_vae_learns_a_clip(preset: str) -> None:
    torch.manual_seed(0)
    losses = fit(TrainableVAE(build_vae(PRESETS[preset]), checkpointing=preset == "tiny-slice"), PRESETS_OF[preset], 50)
    assert min(losses[-5:]) < 0.3 * losses[0]


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS_OF)
def test_the_decoder_alone_is_trained_beneath_latents_that_stay(preset: str) -> None:
    torch.manual_seed(0)
    vae = build_vae(PRESETS[preset])
    network = TrainableVAE(vae, checkpointing=True, decoder_only=True)
    before = {name: tensor.clone() for name, tensor in vae.state_dict().items()}
    losses = fit(network, PRESETS_OF[preset], 4)
    assert losses[-1] < losses[0]
    encodes = ("encoder.", "quant_conv.")
    for name, tensor in vae.state_dict().items():
        if name.startswith(encodes):
            assert torch.equal(tensor, before[name]), name
    assert any(not torch.equal(vae.state_dict()[name], before[name]) for name in before if name.startswith("decoder."))
    assert all(p.grad is None for name, p in vae.named_parameters() if name.startswith(encodes))


@pytest.mark.parametrize("preset", PRESETS_OF)
def test_the_method_takes_every_kind_with_l2_alone(preset: str) -> None:
    torch.manual_seed(0)
    network = TrainableVAE(build_vae(PRESETS[preset]), decoder_only=True)
    method = VideoVae(network, VaeLossSettings(l1=0.0, l2=1.0, kl=0.0))
    pixels = ((waves(PRESETS_OF[preset]) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 4, 1)
    batch = Batch((7,), torch.ones(1), frames=pixels)
    ((name, loss),) = method.losses(method.networks(), batch, 0)
    assert name == "vae"
    loss.sum().backward()
    assert network.last_layer.grad is not None
    with torch.no_grad():
        found = method.validation_losses(method.networks(), batch)
    # Without the posterior's noise the error is about that of the loss, which is its square.
    assert 10 * torch.log10(4 / loss.detach()) == pytest.approx(found["psnr_db"], abs=1.0)
