"""How fast the device trains, samples, encodes and decodes, against what its FLOP/s would allow."""

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from benchmarks.gpu.check import Bench, Check, Finding, SkippedError
from benchmarks.gpu.sampling import FAMILY
from benchmarks.gpu.sizes import Grid, tokens_of
from benchmarks.gpu.training import Way, prepared
from models.denoise.generate import Course, Denoiser, Prompted, generate_latents
from models.denoise.objectives import make_objective
from models.denoise.samplers import make_scheduler
from models.geometry import MAGVIT
from models.memory.cost import (
    RowsAtOnce,
    TrainedHow,
    forward_flops,
    measured_flops,
    peak_flops,
    training_flops,
    training_memory,
)
from models.memory.modes import MARGIN, free_bytes
from models.memory.vae_need import VaeNeed
from models.transformers.architecture import Shape
from models.transformers.conditioning import Conditioning
from models.vae.video_vae import build_vae, decode_frames, encode_moments

SAMPLED_STEPS = 4
COPIED_BYTES = 1 << 29
WAYS = ("whole", "slices", "tiles")
"""how the VAE walks a video: all frames at once, four frames at a time, or that in tiles of the picture"""


def large(bench: Bench, layers: int, device: torch.device | None = None, dtype: torch.dtype | None = None) -> nn.Module:
    """Build the network for rates, and leave it on the bench's device unless told otherwise."""
    device = device or bench.device
    torch.manual_seed(0)
    # Drawn by the bench's device: a CPU would take long.
    with device if device.type == "meta" else bench.device:
        model = FAMILY.build({**bench.sizes.large, "num_layers": layers, "mmdit_layers": layers})
    return model.to(device, dtype)


def shape_of(bench: Bench, layers: int) -> Shape:
    """Return the numbers of the network for rates."""
    return FAMILY.shape(large(bench, layers, torch.device("meta")))


def layers_that_fit(bench: Bench, needed: Callable[[Shape], int]) -> int:
    """Return how many layers the network may have, so that what is predicted fits into what is free.

    Raises:
        SkippedError: none of the numbers that are tried.
    """
    free = free_bytes(bench.device)
    for layers in bench.sizes.fewer_layers:
        if needed(shape_of(bench, layers)) * MARGIN <= free:
            return layers
    raise SkippedError(f"memory: {needed(shape_of(bench, layers)) / 1e9:.0f} GB of {free / 1e9:.0f} GB free")


def timed(bench: Bench, run: Callable[[], object], repeats: int) -> list[float]:
    """Return the seconds of each run, the device having finished; one more warms up."""
    run()
    seconds = []
    for _ in range(repeats):
        bench.wait()
        began = time.perf_counter()
        run()
        bench.wait()
        seconds.append(time.perf_counter() - began)
    return seconds


def a_batch(bench: Bench, grid: Grid, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Draw one row on the device: latents, noise level and text."""
    with device:
        text = torch.randn(1, bench.sizes.text_tokens, bench.sizes.large["text_embed_dim"])
        return torch.randn(1, 16, *grid), torch.tensor([500.0]), text


def training_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, batch: Sequence[torch.Tensor], *, half: bool = True
) -> None:
    """Train for a step as the trainer does, with bf16 by autocast."""
    latents, times, text = batch
    with torch.autocast(latents.device.type, torch.bfloat16, enabled=half):
        loss = (FAMILY.predict(model, latents, times, Conditioning(text)).float() - latents).square().mean()
    loss.backward()
    torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.grad is not None], 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def check_mfu(grid_number: int, bench: Bench) -> Finding:
    """Measure the share of the peak FLOP/s that training all weights reaches, with checkpointing."""
    grid = bench.sizes.grids[grid_number]
    tokens, text = tokens_of(grid), bench.sizes.text_tokens

    def needed(shape: Shape) -> int:
        return training_memory(
            shape, RowsAtOnce(tokens, text), shape.parameters, TrainedHow(checkpointing=True, half=True)
        ).total

    layers = layers_that_fit(bench, needed)
    shape = shape_of(bench, layers)
    model = prepared(large(bench, layers), Way(half=True, checkpointing=True), bench.device)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    batch = a_batch(bench, grid, bench.device)
    seconds = timed(bench, lambda: training_step(model, optimizer, batch), bench.sizes.repeats)
    peak, middle = peak_flops(bench.device), statistics.median(seconds)
    mfu = training_flops(shape, tokens, text, checkpointing=False) / middle / peak
    hfu = training_flops(shape, tokens, text, checkpointing=True) / middle / peak
    words = (
        f"{middle:.3f} s a step ({min(seconds):.3f} to {max(seconds):.3f}), {tokens} tokens, "
        f"{shape.parameters / 1e9:.2f} B parameters: MFU {100 * mfu:.0f} %, {100 * hfu:.0f} % with what is "
        f"computed again, at least {100 * bench.sizes.least_share:.0f} %; peak {peak / 1e12:.1f} TFLOP/s"
    )
    figures = {
        "mfu": mfu, "with_recomputation": hfu, "step_s": middle, "fastest_s": min(seconds), "slowest_s": max(seconds),
        "tokens": tokens, "parameters": shape.parameters, "layers": layers, "peak_tflops": peak / 1e12,
    }  # fmt: skip
    return Finding(hfu >= bench.sizes.least_share, words, figures)


def check_sampling(bench: Bench) -> Finding:
    """Measure seconds a denoising step with guidance, against the FLOPs of its two predictions."""
    grid, text = bench.sizes.grids[-1], bench.sizes.text_tokens
    tokens = tokens_of(grid)
    layers = layers_that_fit(bench, lambda shape: 2 * shape.parameters + 2 * 2 * 24 * shape.width * tokens)
    dtype = torch.bfloat16 if bench.on_gpu else torch.float32
    shape, model = shape_of(bench, layers), large(bench, layers, dtype=dtype).eval()
    texts = torch.randn(2, text, shape.text_dim).to(bench.device, dtype)
    times: list[float] = []

    def note(done: int, steps: int) -> None:
        bench.wait()
        times.append(time.perf_counter())

    generate_latents(
        Denoiser(FAMILY, model, make_scheduler(make_objective("flow").scheduler_config(), SAMPLED_STEPS)),
        Prompted(Conditioning(texts[1:]), Conditioning(texts[:1]), 5.0),
        (16, *grid),
        Course(SAMPLED_STEPS),
        torch.Generator().manual_seed(0),
        progress=note,
    )
    seconds = [after - before for before, after in zip(times, times[1:], strict=False)]  # the first step warms up
    middle, limit = statistics.median(seconds), 2 * forward_flops(shape, tokens, text) / peak_flops(bench.device)
    share = limit / middle
    words = (
        f"{middle:.3f} s a step ({min(seconds):.3f} to {max(seconds):.3f}), {tokens} tokens twice, "
        f"{shape.parameters / 1e9:.2f} B parameters; the FLOP/s allow {limit:.3f} s: {100 * share:.0f} %, "
        f"at least {100 * bench.sizes.least_share:.0f} %"
    )
    figures = {"step_s": middle, "limit_s": limit, "share": share, "tokens": tokens, "parameters": shape.parameters}
    return Finding(share >= bench.sizes.least_share, words, figures)


@torch.no_grad()
def check_vae_rate(way: str, bench: Bench, *, decodes: bool) -> Finding:
    """Measure frames a second through the VAE, in bf16 on a GPU."""
    frames, height, width = bench.sizes.video
    dtype = torch.bfloat16 if bench.on_gpu else torch.float32
    with torch.device("meta"):
        need = VaeNeed(build_vae(bench.sizes.large_vae), dtype.itemsize)
    needed = need.decoding(frames, height, width) if decodes else need.encoding(frames, height, width)
    at_once = frames - 1 if way == "whole" else MAGVIT.frames_per_latent
    wanted = needed * (at_once // MAGVIT.frames_per_latent) * MARGIN
    if wanted > (free := free_bytes(bench.device)):
        raise SkippedError(f"memory: about {wanted / 1e9:.0f} GB of {free / 1e9:.0f} GB free")
    latents = MAGVIT.latent_shape(frames, height, width)
    with bench.device:
        network: Any = build_vae(bench.sizes.large_vae).to(dtype).eval()
        given = torch.randn(1, *((16, *latents) if decodes else (3, frames, height, width)), dtype=dtype)
    if way == "tiles":
        tile, stride = bench.sizes.tile_px, bench.sizes.tile_px * 3 // 4
        network.enable_tiling(tile, tile, None, stride, stride)

    def run() -> object:
        if decodes:
            return decode_frames(network, given, latents_at_once=at_once // MAGVIT.frames_per_latent)
        return encode_moments(network, given, frames_at_once=at_once)

    seconds = timed(bench, run, bench.sizes.repeats)
    rates = [frames / one for one in seconds]
    words = (
        f"{statistics.median(rates):.1f} frames/s ({min(rates):.1f} to {max(rates):.1f}) of {width} x {height} px, "
        f"{str(dtype).removeprefix('torch.')}"
    )
    figures = {"frames_per_s": statistics.median(rates), "slowest": min(rates), "fastest": max(rates)}
    return Finding(True, words, figures)


def check_product(bench: Bench) -> Finding:
    """Measure a matrix product against the peak that shares are reported."""
    dtype = torch.bfloat16 if bench.on_gpu else torch.float32
    found, peak = measured_flops(bench.device, dtype), peak_flops(bench.device)
    words = f"{found / 1e12:.2f} TFLOP/s, {100 * found / peak:.0f} % of the {peak / 1e12:.2f} that shares are reported"
    return Finding(found > 0, words, {"tflops": found / 1e12, "peak_tflops": peak / 1e12})


def check_copies(bench: Bench) -> Finding:
    """Measure copies to the device, from page-locked memory and from other."""
    if not bench.on_gpu:
        raise SkippedError("there is nothing to copy to without a GPU")
    rates = {}
    for words, pin in (("page-locked", True), ("pageable", False)):
        there = torch.zeros(COPIED_BYTES, dtype=torch.uint8, pin_memory=pin)
        copy = partial(there.to, bench.device, non_blocking=True)
        rates[words] = COPIED_BYTES / statistics.median(timed(bench, copy, 5)) / 1e9
    told = ", ".join(f"{rate:.1f} GB/s from {words} memory" for words, rate in rates.items())
    return Finding(rates["page-locked"] >= rates["pageable"], f"{told}; page-locked is to be no slower", rates)


CHECKS = (
    Check("rate: matrix product", 30, check_product),
    Check("rate: copies from main memory", 30, check_copies),
    *(
        Check(f"rate: training, {name} tokens", limit_s, partial(check_mfu, number))
        for number, (name, limit_s) in enumerate((("fewer", 90), ("more", 120)))
    ),
    Check("rate: sampling, more tokens", 90, check_sampling),
    *(
        Check(
            f"rate: VAE {'decode' if decodes else 'encode'}, {way}", 60, partial(check_vae_rate, way, decodes=decodes)
        )
        for decodes in (False, True)
        for way in WAYS
    ),
)
"""of rates, in the order they run"""
