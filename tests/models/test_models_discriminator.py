"""The adversarial and perceptual terms of the VAE's loss: identities, published formulas, and files."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from closeness import close
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from models.errors import ModelError
from models.losses.discriminator import PatchGAN3D, adaptive_weight, discriminator_loss, generator_loss
from models.losses.perceptual import LPIPS, SCALE, SHIFT, TAPS, load_lpips

torch.set_num_threads(1)


def bars(direction: int, phase: float, num_frames: int = 5, size_px: int = 16) -> torch.Tensor:
    """Return (3, T, H, W): bars that move by 2 px a frame, left or right."""
    x = torch.arange(size_px).float()
    rows = [torch.sin(2 * math.pi * ((x - 2 * direction * t) / 16 + phase)) for t in range(num_frames)]
    return torch.stack(rows)[None, :, None, :].expand(3, num_frames, size_px, size_px)


@given(
    n=st.integers(0, 4), height=st.integers(1, 6), width=st.integers(1, 6), layers=st.integers(1, 3),
    batch=st.integers(1, 2),
)  # fmt: skip
@settings(max_examples=15, deadline=None)
def test_any_video_gets_a_logit_per_patch(n: int, height: int, width: int, layers: int, batch: int) -> None:
    critic = PatchGAN3D(base_channels=8, n_layers=layers)
    frames = 4 * n + 1
    logits = critic(torch.randn(batch, 3, frames, 8 * height, 8 * width))
    patch = 2**layers
    time = frames
    for _ in range(layers - 1):
        time = -(-time // 2)
    assert logits.shape == (batch, 1, time, 8 * height // patch, 8 * width // patch)
    assert logits.isfinite().all()


def test_rows_are_judged_alone() -> None:
    torch.manual_seed(0)
    critic = PatchGAN3D(base_channels=8)
    frames = torch.randn(2, 3, 5, 32, 32)
    torch.testing.assert_close(critic(frames)[:1], critic(frames[:1]), rtol=1e-5, atol=1e-6)
    assert not list(critic.buffers())  # nothing that workers would have to share beside gradients


def test_hinge_losses_have_their_fixed_points() -> None:
    real, fake = torch.full((2, 1, 1, 2, 2), 3.0), torch.full((2, 1, 1, 2, 2), -2.0)
    assert close(discriminator_loss(real, fake), torch.zeros(2))
    assert close(discriminator_loss(torch.zeros_like(real), torch.zeros_like(fake)), torch.ones(2))
    assert close(discriminator_loss(fake, real), torch.full((2,), 0.5 * (3.0 + 4.0)))
    assert close(generator_loss(fake), torch.full((2,), 2.0))
    rows = torch.stack([real[0], fake[0]])
    assert generator_loss(rows).tolist() == [-3.0, 2.0]


def test_direction_of_motion_is_learnt_in_a_few_steps() -> None:
    torch.manual_seed(0)
    critic = PatchGAN3D(base_channels=8, n_layers=2)
    optimizer = torch.optim.Adam(critic.parameters(), 2e-3)

    def draw(direction: int) -> torch.Tensor:  # single frames of both directions look alike
        return torch.stack([bars(direction, float(torch.rand(()))) for _ in range(8)])

    for _ in range(60):
        loss = discriminator_loss(critic(draw(1)), critic(draw(-1))).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        right, left = (critic(draw(direction)).flatten(1).mean(1) for direction in (1, -1))
    assert (right > 0).all() and (left < 0).all()


@given(a=st.floats(0.1, 10), b=st.floats(0.1, 10), seed=st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_adaptive_weight_makes_both_gradients_equally_strong(a: float, b: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(4, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    x = torch.randn(3, generator=generator, dtype=torch.float64)
    reconstruction, adversarial = a * (weights @ x).square().sum(), -b * (weights @ x).sum()
    weight = adaptive_weight(reconstruction, adversarial, weights)
    assert not weight.requires_grad
    (first,) = torch.autograd.grad(reconstruction, weights, retain_graph=True)
    (second,) = torch.autograd.grad(weight * adversarial, weights)
    torch.testing.assert_close(second.norm(), first.norm(), rtol=1e-4, atol=1e-6)


def test_adaptive_weight_is_bounded_where_the_adversary_says_nothing() -> None:
    weights = torch.ones(3, requires_grad=True)
    assert adaptive_weight(weights.sum(), 0.0 * weights.sum(), weights) == 1e4


def weights_of(seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights under the published names, heads not negative as in LPIPS."""
    torch.manual_seed(seed)
    model = LPIPS()
    weights = {f"features.{name}": value.clone() for name, value in model.features.named_parameters()}
    return weights | {f"lin{i}.model.1.weight": torch.rand_like(value) for i, value in enumerate(model.lin)}


@pytest.fixture(scope="module")
def lpips_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lpips") / "lpips.safetensors"
    save_file(weights_of(), path)
    return path


def test_distance_is_the_published_formula(lpips_file: Path) -> None:
    model, weights = load_lpips(lpips_file), weights_of()
    generator = torch.Generator().manual_seed(1)
    a, b = (torch.rand(2, 3, 3, 32, 32, generator=generator) * 2 - 1 for _ in range(2))
    expected = torch.zeros(2, 3)
    for row in range(2):
        for t in range(3):
            x, y = (
                (v[row, :, t][None] - torch.tensor(SHIFT).view(1, 3, 1, 1)) / torch.tensor(SCALE).view(1, 3, 1, 1)
                for v in (a, b)
            )
            for layer in range(TAPS[-1] + 1):
                if f"features.{layer}.weight" in weights:
                    kernel, bias = weights[f"features.{layer}.weight"], weights[f"features.{layer}.bias"]
                    x, y = (F.conv2d(v, kernel, bias, padding=1) for v in (x, y))
                elif f"features.{layer - 1}.weight" in weights:
                    x, y = x.relu(), y.relu()
                else:
                    x, y = F.max_pool2d(x, 2), F.max_pool2d(y, 2)
                if layer in TAPS:
                    unit = [v / (v.square().sum(1, keepdim=True).sqrt() + 1e-10) for v in (x, y)]
                    head = weights[f"lin{TAPS.index(layer)}.model.1.weight"]
                    expected[row, t] += F.conv2d((unit[0] - unit[1]) ** 2, head).mean()
    torch.testing.assert_close(model(a, b), expected.mean(1), rtol=1e-4, atol=1e-6)
    assert (model(a, b) > 0).all()
    assert close(model(a, a), torch.zeros(2))
    torch.testing.assert_close(model(a, b), model(b, a))


def test_distance_is_frozen_but_passes_gradients_even_from_nothing(lpips_file: Path) -> None:
    model = load_lpips(lpips_file)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not model.training
    frames = torch.zeros(1, 3, 1, 16, 16, requires_grad=True)
    model(frames, torch.rand(1, 3, 1, 16, 16)).sum().backward()
    assert frames.grad is not None and frames.grad.isfinite().all() and frames.grad.abs().max() > 0
    for parameter in model.features.parameters():
        parameter.data.zero_()  # every feature is then zero
    frames.grad = None
    model(frames, torch.rand(1, 3, 1, 16, 16)).sum().backward()
    assert frames.grad.isfinite().all()


def test_files_of_both_kinds_are_read_and_others_refused(lpips_file: Path, tmp_path: Path) -> None:
    weights = weights_of()
    torch.save({**weights, "classifier.0.weight": torch.zeros(1)}, tmp_path / "both.pth")
    frames = torch.rand(2, 1, 3, 1, 32, 32)
    assert close(load_lpips(tmp_path / "both.pth")(*frames), load_lpips(lpips_file)(*frames))

    def refused(path: Path, said: str) -> None:
        with pytest.raises(ModelError, match=said) as caught:
            load_lpips(path)
        assert "\n" not in str(caught.value)
        assert "vgg16-397923af.pth" in str(caught.value) and "weights/v0.1/vgg.pth" in str(caught.value)

    refused(tmp_path / "none.pth", "none.pth: no such file")
    torch.save({k: v for k, v in weights.items() if "lin" not in k}, tmp_path / "vgg.pth")
    refused(tmp_path / "vgg.pth", "no LPIPS weights 'lin0.model.1.weight'")
    torch.save({**weights, "features.0.weight": torch.zeros(3)}, tmp_path / "shape.pth")
    refused(tmp_path / "shape.pth", "'features.0.weight' are \\(3,\\), not \\(64, 3, 3, 3\\)")
    torch.save([1, 2], tmp_path / "list.pth")
    refused(tmp_path / "list.pth", "not a state dict")
    torch.save({"code": Path}, tmp_path / "code.pth")  # would run code: refused
    refused(tmp_path / "code.pth", "unreadable")
    for name in ("text.pth", "text.safetensors"):
        (tmp_path / name).write_text("weights")
        refused(tmp_path / name, "unreadable")
    (tmp_path / "empty.pth").write_bytes(b"")
    refused(tmp_path / "empty.pth", "unreadable")
