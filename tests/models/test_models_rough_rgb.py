"""Previews: the clean latents that a prediction implies, and colours for latents without decoding."""

from typing import Any

import numpy as np
import pytest
import torch

from models.denoise.expected import expected_clean
from models.denoise.objectives import DDPM
from models.denoise.samplers import SAMPLERS, make_scheduler
from models.vae.rough_rgb import fit_rough_rgb
from models.vae.video_vae import PRESETS, build_vae, channels_of, decode_pixels

CONFIGS: dict[str, dict[str, Any]] = {
    "flow": {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0},
    "epsilon": {"_class_name": "DDPMScheduler", "prediction_type": "epsilon", **DDPM},
    "v_prediction": {"_class_name": "DDPMScheduler", "prediction_type": "v_prediction", **DDPM},
}
PAIRS = [(kind, name) for kind in CONFIGS for name, sampler in SAMPLERS.items() if kind in sampler.objectives]


@pytest.mark.parametrize(("kind", "name"), PAIRS)
def test_a_true_prediction_implies_the_clean_latents(kind: str, name: str) -> None:
    scheduler = make_scheduler(CONFIGS[kind], 12, name)
    scheduler.set_timesteps(12)
    draw = torch.Generator().manual_seed(1)
    clean, noise = torch.randn((2, 1, 4, 3, 4, 4), generator=draw)
    for timestep in scheduler.timesteps[1:]:
        if kind == "flow":
            sigma = float(timestep) / 1000
            seen, prediction = (1 - sigma) * clean + sigma * noise, noise - clean
        else:
            share = float(scheduler.alphas_cumprod[round(float(timestep))])
            data, rest = share**0.5, (1 - share) ** 0.5
            seen = data * clean + rest * noise
            prediction = noise if kind == "epsilon" else data * noise - rest * clean
        found = expected_clean(scheduler, seen, prediction, timestep)
        torch.testing.assert_close(found, clean, atol=2e-3, rtol=2e-3)


def test_colours_of_constant_latents_are_near_what_the_vae_decodes() -> None:
    torch.manual_seed(0)
    vae = build_vae(PRESETS["tiny"]).eval()
    rough = fit_rough_rgb(vae, torch.device("cpu"))
    drawn = torch.randn((6, channels_of(vae), 1, 1, 1), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        decoded = decode_pixels(vae, drawn.expand(-1, -1, 1, 2, 2)).astype(float).mean(axis=(1, 2, 3))
    guessed = np.stack([rough.frames(one)[0, 0, 0] for one in drawn]).astype(float)
    assert np.abs(guessed - decoded).mean() < np.abs(decoded - decoded.mean(axis=0)).mean() + 2


def test_frames_have_the_shape_of_the_latents_and_survive_what_is_not_finite() -> None:
    vae = build_vae(PRESETS["tiny"]).eval()
    state = torch.get_rng_state()
    rough = fit_rough_rgb(vae, torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), state), "previews must not touch the noise of samples"
    pictures = rough.frames(torch.full((channels_of(vae), 3, 4, 5), torch.nan))
    assert pictures.shape == (3, 4, 5, 3) and pictures.dtype == np.uint8
