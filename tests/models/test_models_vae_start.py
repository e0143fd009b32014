"""A video VAE that starts from another one begins with what that has learnt."""

from pathlib import Path

import pytest
import torch
from vaes import NARROW, signed, stirred

from models.errors import ModelError
from models.vae.start import start_from, start_from_network
from models.vae.table import PRESETS, build_vae
from models.vae.video_vae import decode_frames, encode_moments

torch.set_num_threads(1)


def image_vae() -> torch.nn.Module:
    vae = build_vae({**PRESETS["tiny-image-vae"], **NARROW})
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in vae.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(0.3 * noise if parameter.ndim == 1 else noise / parameter[0].numel() ** 0.5)
    return vae.double().eval()


@pytest.mark.parametrize(
    ("preset", "inflation"),
    [("tiny-magvit4", "zero"), ("tiny-magvit4", "mean"), ("tiny-slice", "zero"), ("tiny-cached-slice", "zero")],
)
def test_an_inflated_vae_makes_of_an_image_exactly_what_the_image_vae_makes(preset: str, inflation: str) -> None:
    image, video = image_vae(), stirred(preset)
    start_from_network(video, image, inflation)
    frames, latents = signed(2, 3, 1, 16, 24), signed(2, 4, 1, 2, 3, seed=3)
    for ours, theirs in zip(encode_moments(video, frames), encode_moments(image, frames), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(decode_frames(video, latents), decode_frames(image, latents), rtol=1e-5, atol=1e-5)


def test_a_video_of_one_repeated_frame_becomes_repeated_latents_of_that_image() -> None:
    # Statistics and attention over nine equal frames are those of one; means of equal frames are the frame.
    image, still = image_vae(), signed(1, 3, 1, 16, 16).expand(1, 3, 9, 16, 16)
    expected, _ = encode_moments(image, still[:, :, :1])
    for inflation in ("zero", "mean"):
        video = stirred("tiny-magvit4")
        start_from_network(video, image, inflation)
        found, _ = encode_moments(video, still)
        torch.testing.assert_close(found, expected.expand(1, 4, 3, 2, 2), rtol=1e-5, atol=1e-5)
        made = decode_frames(video, found)
        torch.testing.assert_close(made, decode_frames(image, expected).expand(1, 3, 9, 16, 16), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("preset", "before"), [("tiny-slice", "tiny-magvit4"), ("tiny-cached-slice", "tiny-slice")])
def test_later_vaes_start_with_the_weights_of_the_one_before(tmp_path: Path, preset: str, before: str) -> None:
    stirred(before, torch.float32, seed=9).save_pretrained(tmp_path / "before")
    vae = stirred(preset, torch.float32)
    start_from(vae, tmp_path / "before")
    expected = stirred(before, torch.float32, seed=9).state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in vae.state_dict().items())
    assert vae.config["cache_compression_vae" if preset == "tiny-cached-slice" else "slice_compression_vae"]


def test_an_image_vae_on_disk_starts_a_slice_vae(tmp_path: Path) -> None:
    image_vae().float().save_pretrained(tmp_path / "image")
    vae = stirred("tiny-slice", torch.float32)
    start_from(vae, tmp_path / "image")
    kernel = vae.decoder.conv_in.weight.detach()
    assert float(kernel[:, :, (0, 2)].abs().max()) == 0.0
    assert float(kernel[:, :, 1].abs().max()) > 0.0


def test_what_does_not_fit_is_refused_in_one_line(tmp_path: Path) -> None:
    def refused(said: str, vae: torch.nn.Module, other: torch.nn.Module) -> None:
        with pytest.raises(ModelError, match=said) as caught:
            start_from_network(vae, other, where="start")
        assert "\n" not in str(caught.value)

    wide = build_vae(PRESETS["tiny-slice"])
    refused("start: .* of its weights are not those of the VAE to start", stirred("tiny-slice"), wide)
    plain = {"latent_channels": 4, "layers_per_block": 2, **NARROW}  # as V5's, without attention
    refused("20 of its weights .*attentions", build_vae(plain), image_vae())
    refused("of its weights", stirred("tiny-image-vae"), stirred("tiny-slice"))
    with pytest.raises(ModelError, match="no config.json"):
        start_from(stirred("tiny-slice"), tmp_path)
