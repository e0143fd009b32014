"""Where a pipeline's parts lie while one of them computes: the memory modes of sampling.

| mode | on the device | result |
|---|---|---|
| none | all parts, always | |
| model_cpu_offload | the part that computes | the same |
| model_cpu_offload_and_qfloat8 | likewise; the transformer in 8 bits, the text encoder by layers | near |
| sequential_cpu_offload | the layer that computes, and the next one | the same |

`auto` measures what is free, predicts what is needed (`sampling_need`) and takes the first mode that fits, only
among those with the same result; tiles (`models.vae.tiling`) come where none does. Without a GPU the modes have
nothing to move; `Placement.notes` says what they do.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import get_args

import psutil
import torch
from diffusers.hooks import apply_group_offloading, apply_layerwise_casting
from peft.tuners.lora.layer import LoraLayer
from torch import nn

from models.errors import ModelError
from models.lora.adapters import fuse
from models.memory.devices import offloads_layers
from models.memory.sampling_need import BY_LAYERS, Need, Part, in_8_bits
from models.memory.sampling_need import Mode as Mode

MODES: tuple[Mode, ...] = get_args(Mode)
AUTO = "auto"
MIB = 2**20
EXACT_MODES: tuple[Mode, ...] = ("none", "model_cpu_offload", "sequential_cpu_offload")
"""modes with identical results, the fastest first: what `auto` chooses among"""
QFLOAT8 = torch.float8_e4m3fn
QFLOAT8_LARGEST = torch.finfo(QFLOAT8).max
QFLOAT8_TOLERANCE = 0.03
"""relative error (norm of the difference over norm) of a prediction with weights in 8 bits, and of sampled latents;
0.4 to 1.3 % were measured with random and trained weights of the preset `tiny`"""
MARGIN = 1.15
"""free memory asked for, over the predicted need: for fragmentation and the workspaces of cuDNN, which the model of
the need does not know"""


@dataclass(frozen=True)
class Choice:
    """What to do about memory.

    Attributes:
        mode: one of `MODES`.
        vae_tiling: whether the VAE works in tiles.
        why: for the user.
    """

    mode: Mode
    vae_tiling: bool
    why: str


def choose(free_bytes: int, need: Need) -> Choice:
    """Take the fastest mode that fits among those with the same result; tiles, which change it faintly, come last.

    Args:
        free_bytes: on the device.
        need: predicted; see `models.memory.sampling_need.sampling_need`.
    """
    passed = ""
    for tiling in (False, True):
        for mode in EXACT_MODES:
            peak, name = need.peak(mode, vae_tiling=tiling), f"{mode} with VAE tiling" if tiling else mode
            if peak * MARGIN <= free_bytes:
                return Choice(mode, tiling, f"{name}: needs {_gb(peak)} of {_gb(free_bytes)} free{passed}")
            passed = f"; {name} would need {_gb(peak)}"
    why = f"{name}: needs least, but {_gb(peak)} of {_gb(free_bytes)} free; a smaller size or fewer frames would fit"
    return Choice(mode, True, why)


def decide(asked: str, device: torch.device, need: Need, *, vae_tiling: bool = False) -> Choice:
    """Turn what was asked for into a choice, measuring the device where that matters.

    Args:
        asked: one of `MODES`, or `auto`.
        device: where parts compute.
        need: predicted.
        vae_tiling: asked for; `auto` may add it.

    Raises:
        ModelError: there is no such mode.
    """
    check_mode(asked)
    free = free_bytes(device)
    if asked == AUTO and device.type == "cpu":
        small = need.peak("none", vae_tiling=False) * MARGIN <= free
        words = (
            f"none, there is no GPU: needs {_gb(need.peak('none', vae_tiling=False))} of {_gb(free)} free main memory"
        )
        return Choice("none", vae_tiling or not small, words if small else f"{words}; the VAE works in tiles")
    if asked == AUTO:
        choice = choose(free, need)
        mode, tiling, why = choice.mode, choice.vae_tiling or vae_tiling, choice.why
    else:
        mode, tiling = next(mode for mode in MODES if mode == asked), vae_tiling
        why = f"{mode}: needs {_gb(need.peak(mode, vae_tiling=tiling))} of {_gb(free)} free"
    held, main = need.held(mode), free_bytes(torch.device("cpu"))
    if device.type != "cpu" and held > main:
        why = f"{why}; its weights wait in main memory, {_gb(held)} where {_gb(main)} are free: that may not do"
    return Choice(mode, tiling, why)


def check_mode(asked: str) -> None:
    """Refuse what is no mode.

    Raises:
        ModelError: it is neither `auto` nor one of `MODES`.
    """
    if asked not in (AUTO, *MODES):
        raise ModelError(f"memory mode '{asked}': there is none; known: {', '.join((AUTO, *MODES))}")


def free_bytes(device: torch.device) -> int:
    """Measure what a device has free; for the CPU main memory."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


@dataclass(frozen=True, eq=False)
class Placement:
    """Parts that lie where a mode wants them.

    Attributes:
        parts: the networks; their VAE is tiled or not.
        mode: what was applied.
        device: where parts compute.
        notes: what was done and is not to be seen in the mode's name, a line each.
    """

    parts: Mapping[Part, nn.Module]
    mode: Mode
    device: torch.device
    notes: tuple[str, ...] = ()

    @contextmanager
    def computing(self, part: Part) -> Iterator[nn.Module]:
        """Have a part on the device while it computes; it stays there until another one needs the place.

        Args:
            part: its name.

        Yields:
            The part.

        Raises:
            ModelError: memory has run out; the message names what to try next.
        """
        tiling = bool(getattr(self.parts[part], "use_tiling", False))
        with memory_advice(self.mode, part, self.device, vae_tiling=tiling):
            if self.mode != "none":
                for name, module in self.parts.items():
                    if name != part and not offloads_layers(module):
                        module.to("cpu")
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()
            if not offloads_layers(self.parts[part]):
                self.parts[part].to(self.device)
            yield self.parts[part]


def place(
    parts: Mapping[Part, nn.Module],
    mode: Mode,
    device: torch.device,
    *,
    vae_tiling: bool = False,
    caching: bool = False,
) -> Placement:
    """Bring a pipeline's parts where a mode wants them; LoRAs must be in the transformer already.

    Args:
        parts: on the CPU, in evaluation mode; changed in place. Any of them may be missing, such as a text encoder
            that is dropped once all texts are encoded.
        mode: one of `MODES`.
        device: where parts compute. On the CPU nothing moves; no mode fails there.
        vae_tiling: let the VAE work in tiles.
        caching: whether `first_block_cache` will skip blocks, which layers that are fetched ahead do not expect.

    Raises:
        ModelError: memory has run out; the message names what to try next.
    """
    notes = []
    if vae_tiling and "vae" in parts:
        parts["vae"].enable_tiling()  # type: ignore[operator]
    if device.type == "cpu" and mode != "none":
        notes.append(_WITHOUT_GPU[mode])
    if mode == "none":
        for name, part in parts.items():
            with memory_advice(mode, name, device, vae_tiling=vae_tiling):
                part.to(device)
        return Placement(parts, mode, device)
    transformer = parts.get("transformer")
    # DoRA reads the base's weights from outside their layer, where they are in 8 bits or elsewhere.
    if transformer is not None and mode != "model_cpu_offload" and _has_dora(transformer):
        fuse(transformer)
        notes.append(f"{mode}: the adapters were fused, since DoRA reads the weights that this mode keeps away")
    if transformer is not None and mode == "model_cpu_offload_and_qfloat8":
        left = _store_in_8_bits(transformer)
        if left:
            notes.append(f"{mode}: {left} layers keep their weights, which 8 bits cannot hold (over {QFLOAT8_LARGEST})")
    # Texts are encoded once, so the encoder may be slow. The VAE stays whole: it is walked by `vae.magvit`, past its
    # layers' own forward, where hooks would wait.
    if "text_encoder" in parts and mode in BY_LAYERS["text_encoder"]:
        _offload_layers(parts["text_encoder"], device, ahead=False)
    if transformer is not None and mode in BY_LAYERS["transformer"]:
        _offload_layers(transformer, device, ahead=not caching)
        if caching and device.type == "cuda":
            notes.append(f"{mode}: layers are not fetched ahead, since caching skips some; slower than without caching")
    return Placement(parts, mode, device, tuple(notes))


@contextmanager
def memory_advice(mode: Mode, part: Part, device: torch.device, *, vae_tiling: bool) -> Iterator[None]:
    """Turn running out of memory into one line that says what to try next.

    Args:
        mode: in force.
        part: that computes.
        device: where.
        vae_tiling: in force.

    Raises:
        ModelError: memory has run out.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _exhausted(mode, part, device, vae_tiling=vae_tiling) from error
    except RuntimeError as error:
        if not _EXHAUSTED.search(str(error)):
            raise
        raise _exhausted(mode, part, device, vae_tiling=vae_tiling) from error


# What torch says where it raises no class of its own: the CPU's allocator, cuBLAS, cuDNN.
_EXHAUSTED = re.compile(r"can't allocate memory|out of memory|ALLOC_FAILED")
_WITHOUT_GPU: Mapping[Mode, str] = {
    "model_cpu_offload": "model_cpu_offload: there is no GPU, so all parts stay in main memory; as with none",
    "model_cpu_offload_and_qfloat8": "model_cpu_offload_and_qfloat8: there is no GPU, so all parts stay in main "
    "memory; the transformer's weights take 8 bits each",
    "sequential_cpu_offload": "sequential_cpu_offload: there is no GPU, so all parts stay in main memory; as with none",
}
_NEXT: Mapping[Mode, str] = {
    "none": "`memory` model_cpu_offload",
    "model_cpu_offload": "`memory` sequential_cpu_offload (same result), or model_cpu_offload_and_qfloat8",
    "model_cpu_offload_and_qfloat8": "`memory` sequential_cpu_offload",
    "sequential_cpu_offload": "a smaller size or fewer frames",
}
_NEXT_WITHOUT_GPU: Mapping[Mode, str] = {
    mode: "a smaller size or fewer frames"
    if mode == "model_cpu_offload_and_qfloat8"
    else "`memory` model_cpu_offload_and_qfloat8"
    for mode in MODES
}


def _exhausted(mode: Mode, part: Part, device: torch.device, *, vae_tiling: bool) -> ModelError:
    fix = (_NEXT_WITHOUT_GPU if device.type == "cpu" else _NEXT)[mode]
    if part == "vae" and not vae_tiling:
        fix = f"`vae_tiling` (it helps above 512 px), or {fix}"
    where = "main memory" if device.type == "cpu" else f"{device}'s memory"
    return ModelError(f"out of {where} at the {part.replace('_', ' ')}, memory mode {mode}; next, try {fix}")


def _has_dora(module: nn.Module) -> bool:
    return any(layer.lora_variant for layer in module.modules() if isinstance(layer, LoraLayer))


def _store_in_8_bits(transformer: nn.Module) -> int:
    """Keep weights in 8 bits and compute in the type they had.

    Returns:
        How many layers were left as they are, since a weight would overflow.
    """
    left = 0
    for layer in in_8_bits(transformer):
        if any(parameter.abs().max() > QFLOAT8_LARGEST for parameter in layer.parameters()):
            left += 1
            continue
        dtype = next(layer.parameters()).dtype
        # One layer at a time: given the whole model, diffusers would also cast what goes into the adapters.
        apply_layerwise_casting(layer, QFLOAT8, dtype, skip_modules_pattern=None)  # type: ignore[arg-type]
    return left


def _offload_layers(part: nn.Module, device: torch.device, *, ahead: bool) -> None:
    """Fetch each layer when it computes, and with a GPU the next one meanwhile."""
    streams = ahead and device.type == "cuda"
    # Streams read from page-locked copies of the weights: of all at once, or where main memory is short one at a time.
    weights = sum(parameter.numel() * parameter.element_size() for parameter in part.parameters())
    short = streams and weights * MARGIN > free_bytes(torch.device("cpu"))
    apply_group_offloading(
        part,
        onload_device=device,
        offload_device=torch.device("cpu"),
        offload_type="leaf_level",
        use_stream=streams,
        low_cpu_mem_usage=short,
    )


def offload_layers_where_short(part: nn.Module, device: torch.device) -> bool:
    """Move a network to a device; where it has less free than the weights take, let layers be fetched one by one.

    Returns:
        Whether its layers are fetched.
    """
    weights = sum(parameter.numel() * parameter.element_size() for parameter in part.parameters())
    if device.type == "cpu" or weights * MARGIN <= free_bytes(device):
        part.to(device)
        return False
    _offload_layers(part, device, ahead=False)
    return True


def _gb(count: int) -> str:
    return f"{count / MIB / 1024:.1f} GiB" if count >= 1024 * MIB else f"{count / MIB:.0f} MiB"
