"""The VAE's loss: what the adversary's weight is measured against, and that rows of weight 0 change nothing."""

from typing import Any

import pytest
import torch

from models.losses.discriminator import PatchGAN3D, adaptive_weight
from models.vae.video_vae import PRESETS, TrainableVAE, build_vae, to_signed
from train_bridge.config import VaeLossSettings
from train_bridge.methods import vae as vae_method
from train_bridge.methods.types import Batch
from train_bridge.methods.vae import VideoVae

torch.set_num_threads(1)


def make_method(**loss: float) -> VideoVae:
    torch.manual_seed(0)
    vae = TrainableVAE(build_vae(PRESETS["tiny"]))
    return VideoVae(vae, VaeLossSettings(gan=0.5, gan_start_step=0, **loss), PatchGAN3D(base_channels=8))


def batch_of(rows: int, weights: tuple[float, ...]) -> Batch:
    pixels = torch.randint(0, 256, (rows, 5, 32, 32, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    pixels[1:] //= 9  # dark, so that they would change a mean
    return Batch(tuple(range(rows)), torch.tensor(weights), frames=pixels)


def loss_of(method: VideoVae, batch: Batch) -> torch.Tensor:
    return next(method.losses(method.networks(), batch, step=0))[1].detach()


def test_rows_of_weight_0_do_not_change_the_adversarys_weight() -> None:
    method = make_method()
    alone = loss_of(method, batch_of(1, (1.0,)))
    assert loss_of(method, batch_of(3, (1.0, 0.0, 0.0)))[0].item() == pytest.approx(alone.item(), rel=1e-4)
    # Rows that do count change it.
    assert loss_of(method, batch_of(3, (1.0, 1.0, 1.0)))[0].item() != pytest.approx(alone.item(), rel=1e-3)


def test_a_micro_batch_of_fillers_alone_has_a_finite_loss() -> None:
    assert torch.isfinite(loss_of(make_method(), batch_of(2, (0.0, 0.0)))).all()


def test_the_adversary_is_weighed_against_the_reconstruction_without_kl(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []

    def noting(reconstruction: torch.Tensor, *others: Any) -> torch.Tensor:
        seen.append(reconstruction.item())
        return adaptive_weight(reconstruction, *others)

    monkeypatch.setattr(vae_method, "adaptive_weight", noting)
    method, batch = make_method(kl=100.0), batch_of(3, (1.0, 3.0, 0.0))
    loss_of(method, batch)
    assert batch.frames is not None
    frames = to_signed(batch.frames)
    made, _, _ = method.vae(frames, method._posterior_noise(batch))
    errors = (made - frames).abs().flatten(1).mean(1)
    assert seen == [pytest.approx(((errors[0] + 3 * errors[1]) / 4).item(), rel=1e-4)]
