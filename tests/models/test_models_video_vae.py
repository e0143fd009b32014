"""The stateless walk gives what diffusers gives, is causal, and files stay diffusers' own."""

import json
from pathlib import Path

import pytest
import torch
from closeness import close, close_pixels
from diffusers import AutoencoderKLMagvit
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from models.errors import ModelError
from models.vae import magvit
from models.vae.magvit import Stretch
from models.vae.video_vae import (
    PRESETS,
    TrainableVAE,
    build_vae,
    decode_frames,
    decode_pixels,
    encode,
    encode_moments,
    from_latents,
    kl_divergence,
    load_vae,
    to_latents,
    to_signed,
)

torch.set_num_threads(1)

SMALL = {"latent_channels": 4, "block_out_channels": (4, 8, 8, 8), "layers_per_block": 1, "norm_num_groups": 2}


def mixed(spatial_group_norm: bool = True, dtype: torch.dtype = torch.float64) -> AutoencoderKLMagvit:
    """A VAE in which every weight matters, the taps of the past and the norms' scales among them."""
    generator = torch.Generator().manual_seed(1)
    vae = AutoencoderKLMagvit(**SMALL, spatial_group_norm=spatial_group_norm)
    with torch.no_grad():
        for parameter in vae.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
            else:
                parameter.add_(0.3 * noise)
    return vae.to(dtype).eval()


def pixels(*shape: int, seed: int = 2, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 2 - 1


def gradients(vae: AutoencoderKLMagvit, frames: torch.Tensor, checkpointing: bool) -> list[torch.Tensor]:
    made, mean, logvar = TrainableVAE(vae, checkpointing=checkpointing)(frames, torch.ones(()))
    loss = made.square().mean() + mean.square().mean() + logvar.mean()
    return list(torch.autograd.grad(loss, list(vae.parameters())))


@pytest.mark.parametrize("spatial_group_norm", [True, False])
@pytest.mark.parametrize("num_frames", [1, 5, 9, 17])
def test_moments_and_frames_are_diffusers_own(num_frames: int, spatial_group_norm: bool) -> None:
    vae = mixed(spatial_group_norm)
    frames = pixels(2, 3, num_frames, 16, 24)
    posterior = vae.encode(frames).latent_dist
    mean, logvar = encode_moments(vae, frames)
    assert mean.shape == (2, 4, (num_frames - 1) // 4 + 1, 2, 3)
    torch.testing.assert_close(mean, posterior.mean, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(logvar, posterior.logvar, rtol=1e-10, atol=1e-10)
    latents = pixels(*mean.shape, seed=3) * 2
    made = decode_frames(vae, latents)
    assert made.shape == frames.shape
    torch.testing.assert_close(made, vae.decode(latents).sample, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("batch", [1, 2])
def test_single_precision_differs_by_rounding_only(batch: int) -> None:
    vae = mixed(dtype=torch.float32)  # a single short row takes the 2D form of the convolution
    frames = pixels(batch, 3, 9, 32, 32, dtype=torch.float32)
    mean, _ = encode_moments(vae, frames)
    torch.testing.assert_close(mean, vae.encode(frames).latent_dist.mean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(decode_frames(vae, mean), vae.decode(mean).sample, rtol=1e-5, atol=1e-5)


@given(latents=st.integers(1, 5), at_once=st.integers(1, 3), spatial_group_norm=st.booleans())
@settings(max_examples=12, deadline=None)
def test_stretches_give_what_the_whole_sequence_gives(latents: int, at_once: int, spatial_group_norm: bool) -> None:
    vae = mixed(spatial_group_norm)
    frames = pixels(1, 3, 4 * latents - 3, 16, 16)
    whole, _ = encode_moments(vae, frames)
    parts, _ = encode_moments(vae, frames, frames_at_once=4 * at_once)
    torch.testing.assert_close(parts, whole, rtol=1e-10, atol=1e-10)
    made = decode_frames(vae, whole)
    torch.testing.assert_close(decode_frames(vae, whole, latents_at_once=at_once), made, rtol=1e-10, atol=1e-10)
    with torch.no_grad():  # then stretches are the default
        torch.testing.assert_close(encode_moments(vae, frames)[0], whole, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(decode_frames(vae, whole), made, rtol=1e-10, atol=1e-10)


def test_the_model_keeps_no_state() -> None:
    vae = mixed()
    frames = pixels(1, 3, 9, 16, 16)
    before = encode_moments(vae, frames)[0]
    decode_frames(vae, pixels(1, 4, 2, 2, 2))
    assert close(encode_moments(vae, frames)[0], before)
    assert all(getattr(module, "prev_features", None) is None for module in vae.modules())


@pytest.mark.parametrize("spatial_group_norm", [True, False])
@given(latents=st.integers(2, 4), kept=st.integers(1, 3))
@settings(max_examples=6, deadline=None)
def test_the_future_changes_nothing(latents: int, kept: int, spatial_group_norm: bool) -> None:
    vae, kept = mixed(spatial_group_norm), min(kept, latents - 1)
    window = 4 * kept - 3  # frames of the first `kept` latents
    frames, other = (pixels(1, 3, 4 * latents - 3, 16, 16, seed=seed) for seed in (4, 5))
    other[:, :, :window] = frames[:, :, :window]
    mean, changed = encode_moments(vae, frames)[0], encode_moments(vae, other)[0]
    torch.testing.assert_close(changed[:, :, :kept], mean[:, :, :kept], rtol=1e-12, atol=1e-12)
    assert (changed[:, :, kept:] - mean[:, :, kept:]).abs().max() > 1e-3
    image = encode_moments(vae, frames[:, :, :1])[0]
    torch.testing.assert_close(image, mean[:, :, :1], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        decode_frames(vae, mean[:, :, :kept]), decode_frames(vae, mean)[:, :, :window], rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("spatial_group_norm", [True, False])
def test_checkpointing_changes_memory_and_not_gradients(spatial_group_norm: bool) -> None:
    vae = mixed(spatial_group_norm)
    frames = pixels(2, 3, 9, 16, 16)
    kept: dict[bool, int] = {}
    found = {}
    for checkpointing in (False, True):
        seen: dict[int, int] = {}

        def keep(tensor: torch.Tensor, seen: dict[int, int] = seen) -> torch.Tensor:
            seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            made, mean, _ = TrainableVAE(vae, checkpointing=checkpointing)(frames, None)
            kept[checkpointing] = sum(seen.values())
        found[checkpointing] = gradients(vae, frames, checkpointing)
    for plain, recomputed in zip(found[False], found[True], strict=True):
        torch.testing.assert_close(recomputed, plain, rtol=1e-10, atol=1e-12)
    assert kept[True] < 0.5 * kept[False]


def test_checkpointing_refuses_stretches_that_it_would_recompute_wrongly() -> None:
    with pytest.raises(ValueError, match="whole sequence"):
        Stretch(ends={}, checkpointing=True)
    vae = mixed()
    frames = pixels(1, 3, 9, 16, 16)
    whole = encode_moments(vae, frames)[0]
    assert close(encode_moments(vae, frames, checkpointing=True, frames_at_once=4)[0], whole)


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((1, 3, 8, 16, 16), "8 frames are not 4n\\+1; take 5 or 9"),
        ((1, 3, 0, 16, 16), "0 frames are not 4n\\+1; take 1 or 5"),
        ((1, 3, 5, 16, 20), "20x16 px: both sides must be multiples of 8"),
        ((1, 4, 5, 16, 16), "the VAE encodes \\(batch, 3, frames, height, width\\)"),
        ((3, 5, 16, 16), "the VAE encodes"),
    ],
)
def test_shapes_that_cannot_be_encoded_are_refused(shape: tuple[int, ...], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        encode_moments(mixed(), torch.zeros(shape, dtype=torch.float64))


def test_other_requests_are_refused_in_one_line() -> None:
    vae = mixed()
    with pytest.raises(ModelError, match="uint8: scale pixels to -1..1"):
        encode_moments(vae, torch.zeros(1, 3, 1, 16, 16, dtype=torch.uint8))
    with pytest.raises(ModelError, match="frames_at_once 3: must be a multiple of 4"):
        encode_moments(vae, pixels(1, 3, 9, 16, 16), frames_at_once=3)
    with pytest.raises(ModelError, match="the VAE decodes \\(batch, 4, frames"):
        decode_frames(vae, torch.zeros(1, 16, 1, 2, 2))
    with pytest.raises(ModelError, match="knows no key 'latent_chanels'"):
        build_vae({**SMALL, "latent_chanels": 4})
    with pytest.raises(ModelError, match="VAE config: .*divisible"):
        build_vae({**SMALL, "norm_num_groups": 3})
    with pytest.raises(ModelError, match="compression 2x4x4 is not supported"):
        build_vae({**SMALL, "block_out_channels": (8, 8, 8), **{
            f"{way}_block_types": [f"Spatial{way.title()}Block3D", *[f"SpatialTemporal{way.title()}Block3D"] * 2]
            for way in ("down", "up")
        }})  # fmt: skip


def test_files_are_diffusers_own_both_ways(tmp_path: Path) -> None:
    ours = build_vae(SMALL)
    ours.save_pretrained(tmp_path / "ours")
    theirs = AutoencoderKLMagvit.from_pretrained(tmp_path / "ours")
    assert theirs.config.latent_channels == 4
    assert all(torch.equal(a, b) for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True))
    theirs.save_pretrained(tmp_path / "run" / "vae")
    again = load_vae(tmp_path / "run")  # a run or pipeline that holds it
    again.save_pretrained(tmp_path / "again")
    weights = "diffusion_pytorch_model.safetensors"
    assert (tmp_path / "run" / "vae" / weights).read_bytes() == (tmp_path / "again" / weights).read_bytes()
    configs = [json.loads((tmp_path / name / "config.json").read_text()) for name in ("run/vae", "again")]
    assert all(config.pop("_name_or_path") for config in configs)  # says where from
    assert configs[0] == configs[1]
    assert build_vae(json.loads((tmp_path / "ours" / "config.json").read_text())).config.latent_channels == 4
    assert load_vae(tmp_path / "ours", torch.bfloat16).dtype == torch.bfloat16


def test_half_precision_files_are_loaded_as_asked(tmp_path: Path) -> None:
    mixed(dtype=torch.bfloat16).save_pretrained(tmp_path / "half")
    assert load_vae(tmp_path / "half").dtype == torch.float32
    assert load_vae(tmp_path / "half", torch.bfloat16).dtype == torch.bfloat16


def test_folders_that_are_no_vae_are_refused_in_one_line(tmp_path: Path) -> None:
    def refused(folder: Path, said: str) -> None:
        with pytest.raises(ModelError, match=said) as caught:
            load_vae(folder)
        assert "\n" not in str(caught.value)

    refused(tmp_path / "nowhere", "no config.json, nor vae/config.json")
    build_vae(SMALL).save_pretrained(tmp_path / "vae")
    home, weights = tmp_path / "vae", tmp_path / "vae" / "diffusion_pytorch_model.safetensors"
    whole, config = weights.read_bytes(), (home / "config.json").read_text()

    (home / "config.json").write_text(config.replace("AutoencoderKLMagvit", "AutoencoderKL"))
    refused(home, "holds AutoencoderKL, not AutoencoderKLMagvit")
    (home / "config.json").write_text("{")
    refused(home, "config.json: .*copy the file again")
    (home / "config.json").write_text(config.replace('"latent_channels": 4', '"latent_channels": 8'))
    refused(home, "vae: ")
    (home / "config.json").write_text(config)

    tensors = load_file(weights)
    save_file({k: v for k, v in tensors.items() if k != "quant_conv.bias"}, weights)
    refused(home, "1 weights do not fit config.json \\(quant_conv.bias\\)")
    save_file({**tensors, "mid.attention": torch.zeros(1)}, weights)
    refused(home, "1 weights do not fit config.json \\(mid.attention\\)")
    weights.write_bytes(whole[: len(whole) // 2])
    refused(home, "copy config.json and weights again")
    weights.unlink()
    refused(home, "no .safetensors beside config.json")


def test_latents_are_drawn_scaled_and_brought_back() -> None:
    vae = mixed()
    frames = pixels(2, 3, 5, 16, 16)
    mean, logvar = encode_moments(vae, frames)
    noise = pixels(*mean.shape, seed=6)
    factor = vae.config.scaling_factor
    assert close(to_latents(vae, mean, logvar, noise), (mean + (0.5 * logvar).exp() * noise) * factor)
    assert close(encode(vae, frames), mean * factor)
    drawn = [encode(vae, frames, torch.Generator().manual_seed(seed)) for seed in (7, 7, 8)]
    assert close(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    torch.testing.assert_close(from_latents(vae, mean * factor), decode_frames(vae, mean), rtol=1e-9, atol=1e-9)
    shown = ((decode_frames(vae, mean).clamp(-1, 1) + 1) * 127.5).round()
    assert close_pixels(decode_pixels(vae, mean * factor), shown.permute(0, 2, 3, 4, 1).detach().numpy())
    wide = torch.full_like(logvar, 99.0)
    assert close(to_latents(vae, mean, wide, noise), to_latents(vae, mean, wide.clamp(max=20.0), noise))


def test_all_levels_of_a_pixel_lie_evenly_in_minus_one_to_one() -> None:
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16, 1).expand(1, 1, 16, 16, 3)
    signed = to_signed(levels)
    assert signed.shape == (1, 3, 1, 16, 16)
    torch.testing.assert_close(signed[0, 1, 0].flatten(), torch.linspace(-1, 1, 256))


@given(mean=st.floats(-3, 3), logvar=st.floats(-5, 3))
@settings(max_examples=20, deadline=None)
def test_kl_is_that_of_two_gaussians(mean: float, logvar: float) -> None:
    means, logvars = torch.full((2, 3, 4), mean), torch.full((2, 3, 4), logvar)
    exact = torch.distributions.kl_divergence(
        torch.distributions.Normal(means, (0.5 * logvars).exp()), torch.distributions.Normal(0.0, 1.0)
    )
    torch.testing.assert_close(kl_divergence(means, logvars), exact.flatten(1).mean(1), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_the_wrapper_trains() -> None:
    torch.manual_seed(0)
    network = TrainableVAE(build_vae({**SMALL, "block_out_channels": (8, 8, 16, 16)}), checkpointing=True)
    across = torch.linspace(-1, 1, 32)
    frames = torch.stack([(across[None, :, None] + across[None, None, :] * (t + 1) / 5).tanh() for t in range(5)], 1)
    frames = frames.expand(3, 5, 32, 32)[None] * torch.tensor([1.0, -1.0, 0.5]).view(1, 3, 1, 1, 1)
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    losses = []
    for _ in range(40):
        made, mean, logvar = network(frames, torch.randn(1, 4, 2, 4, 4))
        loss = (made - frames).abs().mean() + 1e-6 * kl_divergence(mean, logvar).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert network.last_layer.grad is not None and network.last_layer.grad.abs().max() > 0
    assert min(losses[-5:]) < 0.4 * losses[0]


def test_new_weights_begin_as_a_network_of_images() -> None:
    vae = build_vae({**SMALL, "spatial_group_norm": True})
    frames = pixels(1, 3, 9, 16, 16, dtype=torch.float32)
    mean, _ = encode_moments(vae, frames)
    assert mean.std() > 0.1
    for k in range(3):
        image, _ = encode_moments(vae, frames[:, :, 4 * k : 4 * k + 1])
        torch.testing.assert_close(mean[:, :, k : k + 1], image, rtol=1e-4, atol=1e-5)


def test_presets_are_what_they_say() -> None:
    with torch.device("meta"):
        magvit_vae, default = build_vae(PRESETS["magvit"]), AutoencoderKLMagvit()
    for key, value in default.config.items():
        same = magvit_vae.config[key]
        assert key.startswith("_") or (list(same) == list(value) if isinstance(value, list) else same == value)
    tiny = build_vae(PRESETS["tiny"])
    assert tiny.config.spatial_group_norm
    assert encode(tiny, pixels(1, 3, 5, 16, 16, dtype=torch.float32)).shape[2:] == (2, 2, 2)
    assert (default.num_sample_frames_batch_size, default.num_latent_frames_batch_size) == (
        magvit.ENCODER_CHUNK, magvit.DECODER_CHUNK
    )  # fmt: skip


def test_the_first_weights_of_a_seed_are_those_of_earlier_versions() -> None:
    """So that the training of a preset can be repeated."""
    torch.manual_seed(0)
    vae = build_vae(PRESETS["tiny"])
    assert sum(p.double().sum().item() for p in vae.parameters()) == pytest.approx(899.96477, abs=1e-3)
