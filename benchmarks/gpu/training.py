"""Checks of training: a few steps in each way of keeping weights, against the same steps on the CPU in float32."""

import importlib.util
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from torch import nn

from benchmarks.gpu.check import BF16, FLOAT32, Bench, Check, Finding, SkippedError, compared, difference
from benchmarks.gpu.sampling import CPU, FAMILY, drawn, inputs, network, vae
from models.accelerator import use_device
from models.lora.adapters import add_lora
from models.lora.form import AdapterForm
from models.memory.block_offload import offload_blocks, put_on_device
from models.memory.fp8 import FP8_TOLERANCE, store_in_fp8
from models.vae.video_vae import TrainableVAE, encode_moments

STEPS, RATE, RANK = 4, 1e-3, 4
FP8_GRADIENTS = 0.1
"""difference of adapters' gradients through base weights in 8 bits, which have 3 binary digits behind the first"""
VAE_GRADIENTS = 0.15
"""difference of the VAE's gradients in bf16, whose narrow layers add up roundings; 0.05 was measured on a CPU"""
EIGHT_BIT_LOSSES = 0.02
"""difference of the losses with Adam's moments in 8 bits"""


@dataclass(frozen=True)
class Way:
    """How a network is trained.

    Attributes:
        half: bf16 by autocast, over float32 weights; a frozen base is held in bf16.
        checkpointing: activations are computed again for the backward pass.
        rank: of adapters; 0: all weights are trained.
        fp8: the frozen base takes a byte a value.
        offload: its blocks wait in main memory.
        eight_bit: Adam's moments take a byte each.
        ema: a running mean of the trained weights is kept.
    """

    half: bool = False
    checkpointing: bool = False
    rank: int = 0
    fp8: bool = False
    offload: bool = False
    eight_bit: bool = False
    ema: bool = False


@dataclass(frozen=True)
class Trained:
    """What a few steps left behind.

    Attributes:
        losses: of each step.
        gradients: of the first step, all in a row.
        averages: the running means, all in a row; empty without.
    """

    losses: torch.Tensor
    gradients: torch.Tensor
    averages: torch.Tensor


def prepared(model: nn.Module, way: Way, device: torch.device) -> nn.Module:
    """Bring a network that was built on the CPU to how it is trained on a device."""
    if way.rank:
        model = model.to(torch.bfloat16) if way.half else model
        add_lora(model, AdapterForm(way.rank, None), FAMILY.lora_targets)
    unused = set(FAMILY.unused_parameters(model))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and name not in unused)
    if way.checkpointing:
        model.enable_gradient_checkpointing()  # type: ignore[operator]
    if way.fp8:
        store_in_fp8(model)
    if way.offload:
        offload_blocks(model, device)
    return put_on_device(model.train(), device)


def make_optimizer(parameters: Sequence[nn.Parameter], *, eight_bit: bool) -> torch.optim.Optimizer:
    """Make Adam as the trainer does.

    Raises:
        SkippedError: 8-bit moments without their library.
    """
    if not eight_bit:
        return torch.optim.AdamW(parameters, lr=RATE)
    if importlib.util.find_spec("bitsandbytes") is None:
        raise SkippedError("bitsandbytes is not installed")
    import bitsandbytes

    made: torch.optim.Optimizer = bitsandbytes.optim.AdamW8bit(parameters, lr=RATE)
    return made


def train(bench: Bench, way: Way, device: torch.device, beside: Callable[[], None] = lambda: None) -> Trained:
    """Train the small network for a few steps; `beside` is called before each."""
    model = prepared(network(bench.sizes), way, device)
    # Adapters begin as zeros, with which nothing would flow through half of them.
    for number, (name, parameter) in enumerate(model.named_parameters()):
        if "lora_B" in name:
            parameter.data.copy_(0.02 * drawn(*parameter.shape, seed=number))
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = make_optimizer(parameters, eight_bit=way.eight_bit)
    # As the trainer makes it.
    ema = EMAModel(parameters, decay=0.999, use_ema_warmup=True, power=0.75) if way.ema else None
    latents, times, seen = inputs(bench.sizes, device, torch.float32)
    noise = drawn(*latents.shape, seed=3).to(device)
    losses, gradients = [], torch.empty(0)
    for step in range(STEPS):
        beside()
        with torch.autocast(device.type, torch.bfloat16, enabled=way.half):
            loss = (FAMILY.predict(model, latents + noise, times, seen).float() - noise).square().mean()
        loss.backward()
        if not step:
            gradients = torch.cat([p.grad.detach().float().flatten().cpu() for p in parameters if p.grad is not None])
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if ema is not None:
            ema.step(parameters)
        losses.append(loss.detach().cpu())
    means = [] if ema is None else [p.flatten().cpu() for p in ema.shadow_params]
    if ema is not None and any(p.device.type != device.type for p in ema.shadow_params):
        raise RuntimeError("the running means left the device")
    return Trained(torch.stack(losses), gradients, torch.cat(means) if means else torch.empty(0))


def compare(found: Trained, expected: Trained, losses: float, gradients: float) -> Finding:
    """Compare training on two devices."""
    far = {
        "losses": difference(found.losses, expected.losses),
        "gradients": difference(found.gradients, expected.gradients),
    }
    passed = far["losses"] <= losses and far["gradients"] <= gradients
    words = (
        f"losses differ by {far['losses']:.1e}, at most {losses:g}; "
        f"gradients by {far['gradients']:.1e}, at most {gradients:g}"
    )
    if len(expected.averages):
        far["averages"] = difference(found.averages, expected.averages)
        passed = passed and far["averages"] <= losses
        words += f"; running means by {far['averages']:.1e}"
    return Finding(passed, words, far)


def check_way(way: Way, losses: float, gradients: float, bench: Bench) -> Finding:
    """Train in a way on the device, and plainly on the CPU."""
    found = train(bench, way, bench.device)
    return compare(found, train(bench, Way(rank=way.rank, ema=way.ema), CPU), losses, gradients)


def check_two_threads(bench: Bench) -> Finding:
    """Train in one thread while another one encodes on the same device, as uncached training does."""
    sizes, side = bench.sizes, bench.sizes.small_px
    frames = drawn(1, 3, 9, side, side).clamp(-1, 1)
    expected = encode_moments(vae(sizes), frames)[0]
    encoder, given = vae(sizes).to(bench.device), frames.to(bench.device)
    found: list[torch.Tensor] = []
    errors: list[BaseException] = []
    stop, turns = threading.Event(), threading.Semaphore(0)

    def encode() -> None:
        try:
            use_device(bench.device)
            while not stop.is_set():
                with torch.no_grad():
                    found.append(encode_moments(encoder, given)[0].cpu())
                turns.release()
        except BaseException as error:  # noqa: BLE001 - raised by the check's own thread
            errors.append(error)
            turns.release()

    def one_more() -> None:
        if not errors:
            turns.acquire()  # each step begins behind a whole encoding, and beside the next one
        if errors:
            raise errors[0]

    thread = threading.Thread(target=encode, daemon=True)
    thread.start()
    try:
        trained = train(bench, Way(), bench.device, one_more)
    finally:
        stop.set()
        thread.join()
    if errors:
        raise errors[0]
    finding = compare(trained, train(bench, Way(), CPU), FLOAT32, FLOAT32)
    far = max(difference(one, expected) for one in found)
    return Finding(
        finding.passed and far <= FLOAT32,
        f"{len(found)} encodings beside {STEPS} steps differ by {far:.1e}; {finding.words}",
        {**finding.figures, "encodings": far},
    )


def check_vae(bench: Bench, *, half: bool, checkpointing: bool) -> Finding:
    """Train the VAE for a step: the gradients of a reconstruction."""
    side = bench.sizes.small_px
    frames, noise = drawn(1, 3, 5, side, side).clamp(-1, 1), drawn(1, 16, 2, side // 8, side // 8, seed=2)

    def gradients(device: torch.device, *, half: bool, checkpointing: bool) -> torch.Tensor:
        model: Any = TrainableVAE(vae(bench.sizes).requires_grad_(True).train(), checkpointing=checkpointing).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            made, mean, _ = model(frames.to(device), noise.to(device))
            loss = (made.float() - frames.to(device)).square().mean() + 0.1 * mean.float().square().mean()
        loss.backward()
        return torch.cat([p.grad.flatten().cpu() for p in model.parameters() if p.grad is not None])

    found = gradients(bench.device, half=half, checkpointing=checkpointing)
    return compared(found, gradients(CPU, half=False, checkpointing=False), VAE_GRADIENTS if half else FLOAT32)


LORA = Way(rank=RANK, checkpointing=True)
CHECKS = (
    Check("training: float32", 30, partial(check_way, Way(), FLOAT32, FLOAT32)),
    Check("training: bf16", 30, partial(check_way, Way(half=True), BF16, BF16)),
    Check("training: checkpointing", 30, partial(check_way, Way(checkpointing=True), FLOAT32, FLOAT32)),
    Check(
        "training: bf16, checkpointing", 30, partial(check_way, Way(half=True, checkpointing=True), BF16, BF16)
    ),
    Check("training: running mean on the device", 30, partial(check_way, Way(ema=True), FLOAT32, FLOAT32)),
    Check("training: 8-bit Adam", 40, partial(check_way, Way(eight_bit=True), EIGHT_BIT_LOSSES, FLOAT32)),
    Check("training: adapters", 30, partial(check_way, LORA, FLOAT32, FLOAT32)),
    Check(
        "training: adapters, bf16 base", 30,
        partial(check_way, Way(half=True, rank=RANK, checkpointing=True), BF16, BF16),
    ),
    Check(
        "training: adapters, fp8 base", 30,
        partial(check_way, Way(rank=RANK, checkpointing=True, fp8=True), FP8_TOLERANCE, FP8_GRADIENTS),
    ),
    Check(
        "training: adapters, blocks offloaded", 40,
        partial(check_way, Way(rank=RANK, checkpointing=True, offload=True), FLOAT32, FLOAT32),
    ),
    Check(
        "training: adapters, bf16 and fp8 base, blocks offloaded", 40,
        partial(
            check_way, Way(half=True, rank=RANK, checkpointing=True, fp8=True, offload=True),
            FP8_TOLERANCE + BF16, FP8_GRADIENTS + BF16,
        ),
    ),
    Check("training: a second thread encodes", 40, check_two_threads),
    Check("training: the VAE, float32", 40, partial(check_vae, half=False, checkpointing=False)),
    Check("training: the VAE, bf16, checkpointing", 40, partial(check_vae, half=True, checkpointing=True)),
)  # fmt: skip
"""of training, in the order they run"""
