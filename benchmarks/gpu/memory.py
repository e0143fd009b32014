"""Peak memory against what is predicted before anything is loaded.

On a GPU the allocator's peak; on a CPU the weights and the tensors that a computation makes, counted.
"""

import gc
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

from benchmarks.gpu.check import Bench, Check, Finding, SkippedError
from benchmarks.gpu.rates import a_batch, large, layers_that_fit, shape_of, timed, training_step
from benchmarks.gpu.sampling import CPU, FAMILY
from benchmarks.gpu.sizes import tokens_of
from benchmarks.gpu.training import RANK, Way, make_optimizer, prepared
from models.denoise.generate import Course, Denoiser, Prompted, generate_latents
from models.denoise.objectives import make_objective
from models.denoise.samplers import make_scheduler
from models.geometry import MAGVIT, Bucket
from models.memory.block_offload import offload_of
from models.memory.cost import RowsAtOnce, TrainedHow, training_memory
from models.memory.live_memory import peak_bytes
from models.memory.modes import EXACT_MODES, MARGIN, MODES, Mode, Placement, free_bytes, place
from models.memory.sampling_need import Need, Part, SampledParts, sampling_need
from models.memory.training_need import BASE_MODES, CARD_MARGIN, BaseMode, card_rows
from models.transformers.architecture import Shape
from models.transformers.conditioning import Conditioning
from models.vae import magvit
from models.vae.video_vae import build_vae, decode_pixels

LEAST = 0.5
"""of a prediction that is used; one that is twice too high would refuse what fits"""


def peak_of(
    bench: Bench, prepare: Callable[[], object], run: Callable[[], object], networks: Sequence[nn.Module]
) -> int:
    """Return the device's memory at its peak, beyond what was there.

    Args:
        bench: with the device.
        prepare: brings weights to the device.
        run: computes.
        networks: whose weights count, too, where the CPU computes.
    """
    if not bench.on_gpu:
        prepare()
        before = _weights(networks)
        counted = peak_bytes(run)
        # What a network has cast anew meanwhile has been counted.
        return counted + sum(storage.nbytes() for key, storage in before.items() if key in _weights(networks))
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(bench.device)
    before = torch.cuda.memory_allocated(bench.device)
    prepare()
    run()
    bench.wait()
    return torch.cuda.max_memory_allocated(bench.device) - before


def judged(found: int, predicted: int, margin: float, more: str = "", **figures: float) -> Finding:
    """Compare a peak with its prediction."""
    share = found / predicted
    words = (
        f"{found / 1e9:.3f} GB, {100 * share:.0f} % of the {predicted / 1e9:.3f} predicted; "
        f"{100 * LEAST:.0f} to {100 * margin:.0f} % are well{more}"
    )
    numbers = {"peak_gb": found / 1e9, "predicted_gb": predicted / 1e9, "share": share, **figures}
    return Finding(LEAST <= share <= margin, words, numbers)


def _weights(networks: Sequence[nn.Module]) -> dict[int, torch.UntypedStorage]:
    """Return the memory of weights that do not wait for being fetched."""
    found = {}
    for network in networks:
        offload = offload_of(network)
        waiting = set(offload.names) if offload is not None else set()
        parameters = [p for name, p in network.named_parameters() if name not in waiting]
        found |= {p.untyped_storage()._cdata: p.untyped_storage() for p in parameters}
    return found


def _need(bench: Bench, shape: Shape, part: Part, *, tiling: bool = False) -> Need:
    """Predict what sampling the bench's video takes of one part."""
    with torch.device("meta"):
        vae: Any = build_vae(bench.sizes.large_vae)
    if tiling:
        vae.enable_tiling(*_tiles(bench))
    empty = large(bench, shape.layers, torch.device("meta"))
    text, half = bench.sizes.text_tokens, _dtype(bench) == torch.bfloat16
    need = sampling_need(SampledParts(shape, empty, vae), Bucket(*bench.sizes.video), text, half=half)
    return Need({part: need.parts[part]})


def _dtype(bench: Bench) -> torch.dtype:
    return torch.bfloat16 if bench.on_gpu else torch.float32


def _tiles(bench: Bench) -> tuple[int, int, None, int, int]:
    tile = bench.sizes.tile_px
    return tile, tile, None, tile * 3 // 4, tile * 3 // 4


def _grid(bench: Bench) -> tuple[int, int, int]:
    frames, height, width = bench.sizes.video
    return MAGVIT.latent_shape(frames, height, width)


def check_transformer(mode: Mode, bench: Bench) -> Finding:
    """Sample a step with guidance in a memory mode."""
    layers = layers_that_fit(bench, lambda shape: _need(bench, shape, "transformer").peak(mode, vae_tiling=False))
    need = _need(bench, shape_of(bench, layers), "transformer")
    predicted = need.peak(mode, vae_tiling=False)
    if not bench.on_gpu:  # where weights that wait for being fetched are in the same memory
        part = need.parts["transformer"]
        predicted = part.working + (part.weights if mode in EXACT_MODES else part.weights_8_bits + part.largest_layer)
    model = large(bench, layers, CPU, _dtype(bench)).eval()
    texts = torch.randn(2, bench.sizes.text_tokens, bench.sizes.large["text_embed_dim"])
    placed: list[Placement] = []

    def run() -> None:
        scheduler = make_scheduler(make_objective("flow").scheduler_config(), 1)
        text = texts.to(bench.device, _dtype(bench))
        with placed[0].computing("transformer") as network:
            generate_latents(
                Denoiser(FAMILY, network, scheduler),
                Prompted(Conditioning(text[1:]), Conditioning(text[:1]), 5.0),
                (16, *_grid(bench)),
                Course(1),
                torch.Generator(),
            )

    def prepare() -> None:
        placed.append(place({"transformer": model}, mode, bench.device))

    return judged(peak_of(bench, prepare, run, [model]), predicted, MARGIN)


def check_vae(bench: Bench, *, tiling: bool) -> Finding:
    """Decode a video to pixels."""
    need = _need(bench, shape_of(bench, bench.sizes.fewer_layers[-1]), "vae", tiling=tiling)
    predicted = need.peak("none", vae_tiling=tiling)
    if predicted * MARGIN > (free := free_bytes(bench.device)):
        raise SkippedError(f"memory: {predicted / 1e9:.0f} GB of {free / 1e9:.0f} GB free")
    torch.manual_seed(0)
    vae: Any = build_vae(bench.sizes.large_vae).to(_dtype(bench)).eval().requires_grad_(False)
    if tiling:
        vae.enable_tiling(*_tiles(bench))

    def run() -> None:
        decode_pixels(vae, torch.randn(1, 16, *_grid(bench)).to(bench.device, _dtype(bench)))

    # A CPU takes copies for small convolutions that a GPU does not take.
    with patch.object(magvit, "SLOW_CONV3D", 0):
        found = peak_of(bench, lambda: vae.to(bench.device), run, [vae])
    return judged(found, predicted, MARGIN)


def check_training(way: Way, bench: Bench) -> Finding:
    """Train all weights for two steps."""
    grid, text = bench.sizes.grids[0], bench.sizes.text_tokens
    tokens, half = tokens_of(grid), bench.on_gpu

    def needed(shape: Shape) -> int:
        parameters = shape.parameters
        return training_memory(
            shape,
            RowsAtOnce(tokens, text),
            parameters,
            TrainedHow(checkpointing=way.checkpointing, half=half, eight_bit=way.eight_bit),
        ).total

    layers = layers_that_fit(bench, needed)
    found, _ = _trained_peak(bench, large(bench, layers, CPU), way, half=half, repeats=1)
    return judged(found, needed(shape_of(bench, layers)), CARD_MARGIN)


def _trained_peak(bench: Bench, model: nn.Module, way: Way, repeats: int, *, half: bool) -> tuple[int, float]:
    """Train for a few steps; return the peak and the seconds of the fastest step but the first."""
    seconds: list[float] = []

    def prepare() -> None:
        prepared(model, way, bench.device)

    def run() -> None:
        optimizer = make_optimizer([p for p in model.parameters() if p.requires_grad], eight_bit=way.eight_bit)
        batch = a_batch(bench, bench.sizes.grids[0], bench.device)
        seconds.extend(timed(bench, lambda: training_step(model, optimizer, batch, half=half), repeats))

    return peak_of(bench, prepare, run, [model]), min(seconds)


def check_adapters(base: BaseMode, bench: Bench) -> Finding:
    """Train adapters for a few steps, the frozen base being kept in one of the ways; measure a step's time, too."""
    grid, text, half = bench.sizes.grids[0], bench.sizes.text_tokens, bench.on_gpu
    way = Way(half=half, checkpointing=True, rank=RANK, fp8=base.fp8, offload=base.offload)

    def row(shape: Shape) -> Any:
        with torch.device("meta"):
            empty = prepared(large(bench, shape.layers, CPU), Way(rank=RANK), torch.device("meta"))
        rows = card_rows(empty, shape, RowsAtOnce(tokens_of(grid), text), TrainedHow(checkpointing=True, half=half))
        return next(one for one in rows if one.mode == base)

    layers = layers_that_fit(bench, lambda shape: row(shape).device_bytes)
    predicted = row(shape_of(bench, layers))
    if bench.on_gpu and predicted.host_bytes * MARGIN > free_bytes(CPU):
        raise SkippedError(f"main memory: {predicted.host_bytes / 1e9:.0f} GB have to wait there")
    found, step_s = _trained_peak(bench, large(bench, layers, CPU), way, bench.sizes.repeats, half=half)
    return judged(found, predicted.device_bytes, CARD_MARGIN, f"; {step_s:.3f} s a step", step_s=step_s)


CHECKS = (
    *(Check(f"memory: sampling, {mode}", 60, partial(check_transformer, mode)) for mode in MODES),
    Check("memory: VAE decode", 60, partial(check_vae, tiling=False)),
    Check("memory: VAE decode, tiles", 60, partial(check_vae, tiling=True)),
    Check("memory: training all weights", 60, partial(check_training, Way(half=True))),
    Check(
        "memory: training all weights, checkpointing", 60, partial(check_training, Way(half=True, checkpointing=True))
    ),
    Check(
        "memory: training all weights, 8-bit Adam", 60,
        partial(check_training, Way(half=True, checkpointing=True, eight_bit=True)),
    ),
    *(Check(f"memory: adapters on {base.name}", 60, partial(check_adapters, base)) for base in BASE_MODES),
)  # fmt: skip
"""of memory, in the order they run"""
