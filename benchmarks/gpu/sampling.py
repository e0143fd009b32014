"""Checks of sampling: every memory mode, and the VAE both ways, against what the CPU computes in float32."""

import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers.hooks import apply_group_offloading
from torch import nn

from benchmarks.gpu.check import BF16, FLOAT32, Bench, Check, Finding, SkippedError, compared
from benchmarks.gpu.sizes import Sizes
from models.denoise.generate import Course, Denoiser, Prompted, generate_latents
from models.denoise.objectives import make_objective
from models.denoise.samplers import make_scheduler
from models.memory.modes import EXACT_MODES, MODES, QFLOAT8_TOLERANCE, Mode, Placement, place
from models.memory.sampling_need import Part
from models.text.qwen2_vl import Qwen2VLText, build_tiny
from models.transformers.conditioning import Conditioning
from models.transformers.easyanimate_v5 import EasyAnimate
from models.vae.video_vae import build_vae, decode_frames, encode_moments, from_latents

FAMILY = EasyAnimate()
CPU = torch.device("cpu")
STEPS, GUIDANCE, POSITIONS = 3, 2.0, 24


def network(sizes: Sizes) -> nn.Module:
    """Build the small transformer on the CPU, with the same weights each time."""
    torch.manual_seed(0)
    return FAMILY.build(sizes.small)


def vae(sizes: Sizes) -> Any:
    """Build the small VAE on the CPU, with the same weights each time."""
    network: Any = build_vae(sizes.small_vae).eval().requires_grad_(False)
    # Drawn anew: weights to begin with have zeros where frames are combined, so that much would not be looked at.
    for number, weight in enumerate(p for p in network.parameters() if p.ndim > 1):
        weight.copy_(drawn(*weight.shape, seed=number) / weight[0].numel() ** 0.5)
    return network


def drawn(*shape: int, seed: int = 1) -> torch.Tensor:
    """Draw normal numbers on the CPU, the same each time."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def sample(encoder: Qwen2VLText, placement: Placement, sizes: Sizes) -> torch.Tensor:
    """Encode a text, sample and decode: frames (1, 3, T, H, W)."""
    with placement.computing("text_encoder"):
        texts = encoder.encode(["", "a red disc"])
    with placement.computing("transformer") as transformer:
        latents = generate_latents(
            Denoiser(FAMILY, transformer, make_scheduler(make_objective("flow").scheduler_config(), STEPS)),
            Prompted(Conditioning(texts[1:]), Conditioning(texts[:1]), GUIDANCE),
            (16, *sizes.small_grid),
            Course(STEPS),
            torch.Generator().manual_seed(7),
        )
    with placement.computing("vae") as decoder:
        return from_latents(decoder, latents).float().cpu()  # type: ignore[arg-type]


def sampled(sizes: Sizes, mode: Mode, device: torch.device, dtype: torch.dtype, times: int, *, caching: bool) -> Any:
    """Sample so many times in a memory mode: parts come to the device and go again."""
    with tempfile.TemporaryDirectory() as folder:
        build_tiny(Path(folder))
        encoder = Qwen2VLText.load(Path(folder), POSITIONS, dtype)
        parts: Mapping[Part, nn.Module] = {
            "text_encoder": encoder.model,
            "transformer": network(sizes).to(dtype).eval(),
            "vae": vae(sizes).to(dtype),
        }
        placement = place(parts, mode, device, caching=caching)
        return torch.cat([sample(encoder, placement, sizes) for _ in range(times)])


def check_mode(mode: Mode, dtype: torch.dtype, bench: Bench, *, caching: bool) -> Finding:
    """Sample twice in a memory mode."""
    tolerance = FLOAT32 if dtype == torch.float32 else BF16
    if mode not in EXACT_MODES:
        tolerance += QFLOAT8_TOLERANCE
    expected = sampled(bench.sizes, "none", CPU, torch.float32, caching=False, times=1)
    found = sampled(bench.sizes, mode, bench.device, dtype, caching=caching, times=2)
    return compared(found, torch.cat([expected, expected]), tolerance)


def inputs(sizes: Sizes, device: torch.device, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, Conditioning]:
    """Draw latents, noise levels and text of two rows."""
    latents, text = drawn(2, 16, *sizes.small_grid), drawn(2, POSITIONS, sizes.small["text_embed_dim"], seed=2)
    levels = torch.tensor([200.0, 700.0]).to(device, dtype)
    return latents.to(device, dtype), levels, Conditioning(text.to(device, dtype))


@torch.no_grad()
def check_prediction(dtype: torch.dtype, bench: Bench) -> Finding:
    """Run the transformer once."""
    expected = FAMILY.predict(network(bench.sizes).eval(), *inputs(bench.sizes, CPU, torch.float32))
    there = network(bench.sizes).eval().to(bench.device, dtype)
    found = FAMILY.predict(there, *inputs(bench.sizes, bench.device, dtype))
    return compared(found, expected, FLOAT32 if dtype == torch.float32 else BF16)


@torch.no_grad()
def check_pinned_one_at_a_time(bench: Bench) -> Finding:
    """Fetch layers on a stream from copies that are page-locked one at a time, as where main memory is short."""
    if not bench.on_gpu:
        raise SkippedError("there is no page-locked memory without a GPU")
    expected = FAMILY.predict(network(bench.sizes).eval(), *inputs(bench.sizes, CPU, torch.float32))
    there = network(bench.sizes).eval()
    apply_group_offloading(
        there, bench.device, CPU, offload_type="leaf_level", use_stream=True, low_cpu_mem_usage=True
    )  # fmt: skip
    moved = inputs(bench.sizes, bench.device, torch.float32)
    found = [FAMILY.predict(there, *moved) for _ in range(3)][-1]  # the order of layers is known from the second on
    return compared(found, expected, FLOAT32)


@torch.no_grad()
def check_vae(dtype: torch.dtype, way: str, bench: Bench, *, decodes: bool) -> Finding:
    """Encode or decode: the whole video at once, in slices of frames, or in tiles."""
    sizes, side = bench.sizes, bench.sizes.small_px
    given = drawn(1, 16, 3, side // 8, side // 8) if decodes else drawn(1, 3, 9, side, side).clamp(-1, 1)

    def run(network: Any, values: torch.Tensor, way: str) -> torch.Tensor:
        if way == "tiles":
            network.enable_tiling(side // 2, side // 2, None, side // 2 - 8, side // 2 - 8)
        if decodes:
            return decode_frames(network, values, latents_at_once=3 if way == "whole" else 1)
        return encode_moments(network, values, frames_at_once=12 if way == "whole" else 4)[0]

    expected = run(vae(sizes), given, "tiles" if way == "tiles" else "whole")
    found = run(vae(sizes).to(bench.device, dtype), given.to(bench.device, dtype), way)
    return compared(found, expected, FLOAT32 if dtype == torch.float32 else BF16)


F32, HALF = torch.float32, torch.bfloat16
CHECKS = (
    Check("sampling: one prediction, float32", 60, partial(check_prediction, F32)),
    Check("sampling: one prediction, bf16", 30, partial(check_prediction, HALF)),
    *(Check(f"sampling: {mode}, float32", 40, partial(check_mode, mode, F32, caching=False)) for mode in MODES),
    *(Check(f"sampling: {mode}, bf16", 40, partial(check_mode, mode, HALF, caching=False)) for mode in MODES),
    Check(
        "sampling: sequential_cpu_offload, nothing fetched ahead",
        40,
        partial(check_mode, "sequential_cpu_offload", F32, caching=True),
    ),  # fmt: skip
    Check("sampling: layers page-locked one at a time", 30, check_pinned_one_at_a_time),
    *(
        Check(
            f"VAE: {'decode' if decodes else 'encode'}, {words}, {way}",
            30,
            partial(check_vae, dtype, way, decodes=decodes),
        )
        for decodes in (False, True)
        for words, dtype, ways in (("float32", F32, ("whole", "slices", "tiles")), ("bf16", HALF, ("slices",)))
        for way in ways
    ),
)
"""of sampling, in the order they run"""
