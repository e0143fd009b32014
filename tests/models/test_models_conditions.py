"""The condition channels are those that diffusers' inpaint pipeline makes, and mean what they say."""

import pytest
import torch
from closeness import close
from diffusers import AutoencoderKLMagvit, EasyAnimateInpaintPipeline, FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.easyanimate import pipeline_easyanimate_inpaint as theirs
from hypothesis import given, settings
from hypothesis import strategies as st

from models.conditions.inpaint import Known, condition_latents, resize_mask
from models.errors import ModelError
from models.transformers.conditioning import Conditioning
from models.transformers.easyanimate_v5 import EasyAnimate, EasyAnimateTransformer3DModel
from models.vae.video_vae import build_vae, encode

torch.set_num_threads(1)

SMALL_VAE = {"latent_channels": 4, "block_out_channels": (4, 4, 8, 8), "layers_per_block": 1, "norm_num_groups": 2}
SMALL = {
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "in_channels": 9,
    "out_channels": 4,
    "patch_size": 2,
    "num_layers": 2,
    "mmdit_layers": 2,
    "time_embed_dim": 8,
    "text_embed_dim": 16,
}
FRAMES, HEIGHT, WIDTH = 9, 16, 32


def small_vae() -> AutoencoderKLMagvit:
    torch.manual_seed(0)
    vae = build_vae(SMALL_VAE).eval()
    vae.register_to_config(cache_mag_vae=True, scaling_factor=0.7125)  # the pipeline reads a key that the class lacks
    return vae


def small_transformer(noisy: bool = False) -> EasyAnimateTransformer3DModel:
    torch.manual_seed(1)
    model = EasyAnimateTransformer3DModel(**SMALL, add_noise_in_inpaint_model=noisy).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def video(rows: int = 1, frames: int = FRAMES, seed: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(rows, 3, frames, HEIGHT, WIDTH, generator=generator) * 2 - 1


def hidden_after(frames: int, count: int = FRAMES) -> torch.Tensor:
    mask = torch.ones(1, 1, count, HEIGHT, WIDTH)
    mask[:, :, :frames] = 0
    return mask


def their_condition(pixels: torch.Tensor, mask: torch.Tensor | None, noisy: bool) -> torch.Tensor:
    """What diffusers' pipeline hands its transformer."""
    transformer, vae = small_transformer(noisy), small_vae()
    scheduler = FlowMatchEulerDiscreteScheduler()
    pipeline = EasyAnimateInpaintPipeline(
        vae=vae, text_encoder=None, tokenizer=None, transformer=transformer, scheduler=scheduler
    )
    pipeline.set_progress_bar_config(disable=True)
    seen: list[torch.Tensor] = []
    transformer.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["inpaint_latents"]), with_kwargs=True
    )
    text, positions = torch.zeros(1, 4, 16), torch.ones(1, 4, dtype=torch.long)
    pipeline(
        video=None if mask is None else (pixels + 1) / 2,
        mask_video=None if mask is None else mask * 255,
        prompt_embeds=text,
        prompt_attention_mask=positions,
        guidance_scale=1.0,
        num_frames=FRAMES,
        height=HEIGHT,
        width=WIDTH,
        num_inference_steps=1,
        generator=torch.Generator().manual_seed(7),
        output_type="latent",
    )
    return seen[0]


@pytest.mark.parametrize("kept", [1, 4])
def test_first_frames_kept_make_the_channels_that_diffusers_makes(kept: int) -> None:
    ours = condition_latents(small_vae(), Known(video(), hidden_after(kept)))
    torch.testing.assert_close(ours, their_condition(video(), hidden_after(kept), False), rtol=0, atol=2e-5)


def test_a_box_makes_the_channels_that_diffusers_makes() -> None:
    mask = torch.zeros(1, 1, FRAMES, HEIGHT, WIDTH)
    mask[:, :, 2:7, 3:11, 5:25] = 1
    ours = condition_latents(small_vae(), Known(video(), mask))
    torch.testing.assert_close(ours, their_condition(video(), mask, False), rtol=0, atol=2e-5)


def test_noise_on_the_reference_is_that_of_diffusers_for_the_same_generator() -> None:
    generator = torch.Generator().manual_seed(7)
    torch.randn(1, 4, 3, HEIGHT // 8, WIDTH // 8, generator=generator)  # the pipeline draws the first latents before
    ours = condition_latents(small_vae(), Known(video(), hidden_after(1)), [generator], sigma=0.0563)
    torch.testing.assert_close(ours, their_condition(video(), hidden_after(1), True), rtol=0, atol=2e-5)


def test_a_fully_masked_row_is_what_diffusers_gives_for_text_to_video() -> None:
    ours = condition_latents(small_vae(), Known(video(), hidden_after(0)))
    assert close(ours, their_condition(video(), None, False))
    assert torch.equal(ours, torch.zeros(1, 5, 3, HEIGHT // 8, WIDTH // 8))


def test_a_fully_masked_row_that_is_not_to_be_zeroed_is_a_black_video_without_mask() -> None:
    vae = small_vae()
    ours = condition_latents(vae, Known(video(), hidden_after(0)), zero_full=[False])
    assert torch.equal(ours[:, :1], torch.zeros_like(ours[:, :1]))
    with torch.no_grad():
        black = encode(vae, -torch.ones(1, 3, FRAMES, HEIGHT, WIDTH))
    assert close(ours[:, 1:], black)


def test_a_wholly_kept_row_is_the_video_itself() -> None:
    vae = small_vae()
    ours = condition_latents(vae, Known(video(), torch.zeros(1, 1, FRAMES, HEIGHT, WIDTH)))
    with torch.no_grad():
        assert close(ours[:, 1:], encode(vae, video()))
    assert close(ours[:, :1], torch.full_like(ours[:, :1], vae.config.scaling_factor))


@given(kept=st.integers(0, FRAMES), seed=st.integers(0, 1000))
@settings(max_examples=8, deadline=None)
def test_hidden_pixels_never_matter(kept: int, seed: int) -> None:
    vae, mask = small_vae(), hidden_after(kept)
    other = torch.where(mask == 1, video(seed=seed), video())
    noise = [[torch.Generator().manual_seed(seed)] for _ in range(2)]
    first, second = (condition_latents(vae, Known(p, mask), n) for p, n in zip((video(), other), noise, strict=True))
    assert close(first, second)


def test_rows_do_not_depend_on_their_neighbours() -> None:
    vae, pixels = small_vae(), video(rows=3)
    mask = torch.cat([hidden_after(kept) for kept in (0, 1, FRAMES)])

    def noise(*seeds: int) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    together = condition_latents(vae, Known(pixels, mask), noise(1, 2, 3))
    for row in range(3):
        alone = condition_latents(vae, Known(pixels[row : row + 1], mask[row : row + 1]), noise(row + 1))
        assert close(together[row : row + 1], alone)


def test_noise_spares_hidden_pixels_and_has_the_deviation_asked_for() -> None:
    from models.conditions.inpaint import _with_noise

    pixels = torch.full((1, 3, 9, 32, 32), -1.0)
    pixels[:, :, 0] = 0.5
    noisy = _with_noise(pixels, torch.Generator().manual_seed(0), 0.1)
    assert torch.equal(noisy[:, :, 1:], pixels[:, :, 1:])
    assert float((noisy - pixels)[:, :, 0].std()) == pytest.approx(0.1, rel=0.05)


def test_noise_of_training_has_the_deviations_of_v5() -> None:
    from models.conditions.inpaint import _with_noise

    pixels = torch.zeros(1, 3, 1, 16, 16)
    logs = torch.tensor([
        float(_with_noise(pixels, torch.Generator().manual_seed(seed), None).std().log()) for seed in range(300)
    ])
    assert float(logs.mean()) == pytest.approx(-3.0, abs=0.1)
    assert float(logs.std()) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("frames", [1, 5, 9, 49])
def test_masks_are_resized_as_diffusers_resizes_them(frames: int) -> None:
    mask = (torch.rand(2, 1, frames, 32, 48, generator=torch.Generator().manual_seed(frames)) > 0.5).float()
    latents = torch.zeros(2, 4, (frames - 1) // 4 + 1, 4, 6)
    assert close(resize_mask(mask, latents.shape[2:]), theirs.resize_mask(mask, latents))


def test_the_condition_follows_the_latents_on_the_channel_axis_and_matters() -> None:
    model, family = small_transformer(), EasyAnimate()
    generator = torch.Generator().manual_seed(2)
    latents = torch.randn(2, 4, 3, 2, 4, generator=generator)
    text, levels = torch.randn(2, 6, 16, generator=generator), torch.tensor([100.0, 700.0])
    condition = torch.randn(2, 5, 3, 2, 4, generator=generator)
    seen: list[torch.Tensor] = []
    model.proj.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.no_grad():
        ours = family.predict(model, latents, levels, Conditioning(text, latents=condition))
        without = family.predict(model, latents, levels, Conditioning(text, latents=torch.zeros_like(condition)))
    joined = torch.cat([latents, condition], dim=1)
    assert torch.equal(seen[0], joined.permute(0, 2, 1, 3, 4).flatten(0, 1))
    assert ours.shape == latents.shape
    assert not torch.allclose(ours, without)


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(ModelError, match=r"mask \(1, 1, 5, 16, 32\) for pixels \(1, 3, 9, 16, 32\)"):
        Known(video(), hidden_after(1, count=5))


def test_frames_that_cannot_be_encoded_are_refused_when_all_is_masked() -> None:
    with pytest.raises(ModelError, match="6 frames are not 4n\\+1; take 5 or 9"):
        condition_latents(small_vae(), Known(video(frames=6), hidden_after(0, count=6)))
