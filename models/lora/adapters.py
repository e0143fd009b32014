"""LoRA (arXiv 2106.09685) and DoRA (arXiv 2402.09353) on the linear layers of a model, by peft.

Files are read and written by `models.lora.files`. Adapters compute in float32 whatever the base has, and leave the
base's weights alone until `fuse`.
"""

import copy
import itertools
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora.layer import LoraLayer
from peft.tuners.lora.variants import DoraLinearVariant
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor

from models.errors import ModelError
from models.lora.files import (
    DIFFUSERS_FILE,
    KOHYA_FILE,
    Factors,
    LoraWeights,
    peft_config,
    read_lora,
    resolve,
    write_lora,
)
from models.lora.form import AdapterForm

ADAPTER_NAME = re.compile(r"[A-Za-z0-9_-]+")


def add_lora(
    model: nn.Module,
    form: AdapterForm,
    targets: Sequence[str],
    *,
    name: str = "default",
    seed: int = 0,
    excludes: Sequence[str] = (),
) -> list[str]:
    """Freeze a model and add a trainable adapter that changes nothing yet: A is random, B is zero.

    torch's global generators are not touched; the same seed gives the same A.

    Args:
        model: changed in place. With weights on the `meta` device DoRA's norms are unknown: see `reset_magnitudes`.
        form: rank, scale and kind.
        targets: last parts of names of linear layers, such as `to_q` or `to_out.0`; `*` stands for anything.
        name: the adapter's name.
        seed: decides A.
        excludes: layers with one of these in their names are left as they are.

    Returns:
        The adapted modules.

    Raises:
        ModelError: rank or alpha out of range, a target that is no linear layer, or a name in use.
    """
    rank, alpha, dora = form.rank, form.alpha, form.dora
    if rank < 1 or (alpha is not None and not 0 < alpha < math.inf):
        raise ModelError(f"LoRA: rank {rank}, alpha {alpha}; the rank must be at least 1 and alpha above 0")
    layers = _linear_layers(model)
    named = [module for module in layers if any(_is_target(module, target) for target in targets)]
    modules = [module for module in named if not any(part in module for part in excludes)]
    for target in targets:
        if not any(_is_target(module, target) for module in named):
            known = ", ".join(sorted({_short(module) for module in layers}))
            raise ModelError(f"LoRA: target '{target}' is no linear layer of this model; there are {known}")
    if not modules:
        raise ModelError("LoRA: no targets; name linear layers such as to_q")
    scaled = float(rank if alpha is None else alpha)
    config = LoraConfig(r=rank, lora_alpha=scaled, target_modules=modules, use_dora=dora)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(seed)
    initial = {}
    for module in modules:
        weight = _whole(layers[module].weight)
        down = torch.empty(rank, layers[module].in_features, device="cpu")
        nn.init.kaiming_uniform_(down, a=math.sqrt(5), generator=generator)  # as peft and kohya begin
        up = torch.zeros(layers[module].out_features, rank, device="cpu")
        norms = torch.ones(len(weight), device="cpu") if weight.is_meta else _row_norms(weight)
        initial[module] = Factors(down, up, scaled, norms if dora else None)
    _inject(model, config, name, initial)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for layer in _adapted(model, name).values():
        for parameter in _parts(layer, name).values():
            parameter.requires_grad_(True)
    return modules


@torch.no_grad()
def reset_magnitudes(model: nn.Module, name: str = "default") -> None:
    """Set DoRA's magnitudes to the row norms of the base's weights, which came after the adapter.

    With divided parameters (FSDP2) every rank must call it, since weights are gathered, one at a time.
    """
    for layer in _adapted(model, name).values():
        if (magnitude := _parts(layer, name).get("magnitude")) is not None:
            norms = _row_norms(_whole(layer.get_base_layer().weight))
            if isinstance(magnitude, DTensor):
                placed = distribute_tensor(norms, magnitude.device_mesh, magnitude.placements)
                magnitude.to_local().copy_(placed.to_local())
            else:
                magnitude.copy_(norms)


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that an optimizer should change."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def lora_weights(model: nn.Module, name: str = "default") -> LoraWeights:
    """Take an adapter out of a model, on the CPU.

    With divided parameters (FSDP2) every rank must call it, since they are gathered.

    Raises:
        ModelError: no such adapter.
    """
    layers = {}
    for module, layer in _adapted(model, name).items():
        parts = {key: _whole(parameter).to("cpu", copy=True) for key, parameter in _parts(layer, name).items()}
        layers[module] = Factors(parts["down"], parts["up"], float(layer.lora_alpha[name]), parts.get("magnitude"))
    return LoraWeights(layers)


def export_lora(model: nn.Module, name: str, folder: Path) -> tuple[Path, Path]:
    """Write an adapter in both layouts; see `models.lora.files`.

    Returns:
        The diffusers file and the kohya file.
    """
    return write_lora(lora_weights(model, name), folder)


def apply_lora(model: nn.Module, weights: LoraWeights, name: str, scale: float = 1.0) -> None:
    """Add a read adapter, frozen; all adapters of the model are active together, in the order they came.

    Args:
        model: changed in place; whether its own parameters are trained stays as it is.
        weights: as `read_lora` gives them.
        name: the adapter's name.
        scale: strength, see `set_scale`.

    Raises:
        ModelError: the adapter belongs to another model, or the name is in use.
    """
    layers = _linear_layers(model)
    fitting = _fit(weights, layers)
    trained = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    _inject(model, peft_config(fitting), name, fitting.layers)
    for layer in _adapted(model, name).values():
        for parameter in _parts(layer, name).values():
            parameter.requires_grad_(False)
    for parameter, was_trained in trained:
        parameter.requires_grad_(was_trained)
    set_scale(model, name, scale)


def set_scale(model: nn.Module, name: str, scale: float) -> None:
    """Set an adapter's strength s.

    LoRA: W + s · ΔW. DoRA: W + s · (W' − W), as ComfyUI does; peft alone would scale ΔW and keep the trained norms.

    Raises:
        ModelError: no such adapter, or a strength that is no number.
    """
    if not math.isfinite(scale):
        raise ModelError(f"LoRA '{name}': scale {scale} must be a finite number")
    for layer in _adapted(model, name).values():
        if name in layer.lora_variant:
            layer.lora_variant[name] = ScaledDora(scale)
        else:
            layer.set_scale(name, scale)


@torch.no_grad()
def fuse(model: nn.Module) -> None:
    """Put all adapters into the weights, and take the adapters' layers away.

    Sums are formed in float32 and rounded once to the base's dtype.

    Raises:
        ModelError: a fused weight would not be finite; the model is then as before.
    """
    layers = _lora_layers(model)
    for module, layer in layers.items():
        if not torch.isfinite(_fused_weight(layer)).all():
            raise ModelError(f"LoRA: fused weights of {module} are not finite; the adapter is broken, train it again")
    for layer in layers.values():
        base = layer.get_base_layer()
        base.weight.data = _fused_weight(layer).to(base.weight.dtype)
    remove(model)


def remove(model: nn.Module) -> None:
    """Take all adapters away; the base's weights are untouched."""
    for module, layer in _lora_layers(model).items():
        parent, _, child = module.rpartition(".")
        setattr(model.get_submodule(parent), child, layer.get_base_layer())
    if hasattr(model, "peft_config"):
        del model.peft_config
    _mark_loaded(model, loaded=False)


def verify_exports(model: nn.Module, name: str, folder: Path) -> float:
    """Load both exported files into a model without adapters and compare them with the adapter they came from.

    The model must be whole (not divided by FSDP). Its weights are shared with the one that is loaded into, so
    only the adapter's size is needed.

    Returns:
        The largest absolute difference of any value; 0.0 is right, infinite if layers differ or are not finite.
    """
    expected = lora_weights(model, name)
    differences = []
    for file in (DIFFUSERS_FILE, KOHYA_FILE):
        # Deep copies take what the memo holds for copied: the tensors stay, modules around them are new.
        tensors = itertools.chain(model.parameters(), model.buffers())
        bare = copy.deepcopy(model, memo={id(tensor): tensor for tensor in tensors})
        remove(bare)
        apply_lora(bare, read_lora(Path(folder) / file, check_finite=False), name)
        differences.append(_difference(expected, lora_weights(bare, name)))
    return max(differences)


class ScaledDora(DoraLinearVariant):
    """DoRA at a strength: the layer's output moves by that share of the way."""

    def __init__(self, strength: float):
        """Keep the strength."""
        self.strength = strength

    def forward(  # type: ignore[override]
        self, module: Any, active_adapter: str, x: torch.Tensor, result: torch.Tensor, **kwargs: object
    ) -> torch.Tensor:
        """Compute as peft's variant does, then go `strength` of the way from `result`."""
        moved: torch.Tensor = DoraLinearVariant.forward(module, active_adapter, x, result, **kwargs)
        return moved if self.strength == 1.0 else result + self.strength * (moved - result)


def _inject(model: nn.Module, config: LoraConfig, name: str, layers: Mapping[str, Factors]) -> None:
    """Add peft's layers, all active, with these values in float32."""
    if not ADAPTER_NAME.fullmatch(name):
        raise ModelError(f"LoRA: adapter name '{name}'; use letters, digits, - and _")
    present = list(getattr(model, "peft_config", {}))
    if name in present:
        raise ModelError(f"LoRA: the model has an adapter '{name}' already; choose another name")
    # As a pattern: names in a list would also stand for whatever ends with them, within other modules.
    config.target_modules = "|".join(map(re.escape, layers))
    # peft fills the layers from the global generator, and warns of things that are meant here: a second adapter,
    # tied weights.
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inject_adapter_in_model(config, model, name)
    for module, layer in _adapted(model, name).items():
        factors, device = layers[module], layer.get_base_layer().weight.device
        # A base without memory (`meta`), whose weights come later or not at all, has adapters with values.
        device = torch.get_default_device() if device.type == "meta" else device
        layer.lora_A[name].weight = nn.Parameter(factors.down.to(device, torch.float32, copy=True))
        layer.lora_B[name].weight = nn.Parameter(factors.up.to(device, torch.float32, copy=True))
        if factors.magnitude is not None:
            magnitude = factors.magnitude.to(device, torch.float32, copy=True)
            layer.lora_magnitude_vector[name].weight = nn.Parameter(magnitude)
    for layer in _lora_layers(model).values():
        layer.set_adapter([*present, name])
    _mark_loaded(model, loaded=True)


def _fit(weights: LoraWeights, layers: Mapping[str, nn.Linear]) -> LoraWeights:
    """Name an adapter's modules as the model does, and check that all of it fits."""
    fitting, strangers = resolve(weights, layers.keys())
    problems = [f"{module}: no such linear layer" for module in strangers]
    for module, factors in fitting.layers.items():
        expected = (layers[module].out_features, layers[module].in_features)
        found = (int(factors.up.shape[0]), int(factors.down.shape[1]))
        if found != expected:
            problems.append(f"{module}: for a weight of {found}, expected {expected}")
    if problems:
        shown = "; ".join(problems[:3]) + ("; …" if len(problems) > 3 else "")
        raise ModelError(
            f"{weights.source}: {len(problems)} of {len(weights.layers)} layers do not fit this model ({shown}); "
            "give a LoRA that was trained on it"
        )
    plain = [module for module, factors in fitting.layers.items() if factors.magnitude is None]
    if weights.dora and plain:
        where = f"{len(plain)} layers ({plain[0]})"
        raise ModelError(f"{weights.source}: DoRA magnitudes are missing at {where}; export it again")
    return fitting


def _mark_loaded(model: nn.Module, *, loaded: bool) -> None:
    """Set the flag that diffusers' and transformers' own adapter methods ask for."""
    if hasattr(model, "_hf_peft_config_loaded"):
        setattr(model, "_hf_peft_config_loaded", loaded)  # noqa: B010 (unknown to nn.Module's type)


def _lora_layers(model: nn.Module) -> dict[str, Any]:
    """Return peft's layers; untyped, since what they hold comes through `nn.Module.__getattr__`."""
    return {module: layer for module, layer in model.named_modules() if isinstance(layer, LoraLayer)}


def _adapted(model: nn.Module, name: str) -> dict[str, Any]:
    """Return the layers that have this adapter."""
    layers = {module: layer for module, layer in _lora_layers(model).items() if name in layer.lora_A}
    if not layers:
        raise ModelError(f"LoRA: the model has no adapter '{name}'")
    return layers


def _linear_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """Return the model's own linear layers, under the names they have without adapters."""
    adapted = _lora_layers(model)
    inside = tuple(f"{module}." for module in adapted)
    layers = {}
    for module, layer in model.named_modules():
        base = adapted[module].get_base_layer() if module in adapted else layer
        if isinstance(base, nn.Linear) and not module.startswith(inside):
            layers[module] = base
    return layers


def _is_target(module: str, target: str) -> bool:
    return fnmatchcase(f".{module}", f"*.{target}")


def _short(module: str) -> str:
    """Return the last part of a name, with the one before where it is a number: `to_q`, `to_out.0`."""
    parts = module.split(".")
    return ".".join(parts[-2:] if parts[-1].isdigit() else parts[-1:])


def _parts(layer: Any, name: str) -> dict[str, nn.Parameter]:
    parts = {"down": layer.lora_A[name].weight, "up": layer.lora_B[name].weight}
    if name in layer.lora_magnitude_vector:
        parts["magnitude"] = layer.lora_magnitude_vector[name].weight
    return parts


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    """Detach a tensor and gather its parts, where it is divided."""
    tensor = tensor.detach()
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _row_norms(weight: torch.Tensor) -> torch.Tensor:
    return torch.linalg.norm(weight.float(), dim=1)


def _fused_weight(layer: Any) -> torch.Tensor:
    """Compute W with the layer's adapters one after another, as its `forward` applies them, in float32."""
    base = layer.get_base_layer().weight.detach().float()
    weight = base
    for name in layer.active_adapters:
        if name not in layer.lora_A:
            continue
        update = layer.get_delta_weight(name).detach().float()
        if name in layer.lora_variant:
            factor = layer.lora_magnitude_vector[name].weight.detach() / _row_norms(base + update)
            strength = getattr(layer.lora_variant[name], "strength", 1.0)
            weight = weight + strength * (factor[:, None] * (weight + update) - weight)
        else:
            weight = weight + update
    return weight


def _difference(a: LoraWeights, b: LoraWeights) -> float:
    if a.layers.keys() != b.layers.keys():
        return math.inf
    largest = 0.0
    for module, one in a.layers.items():
        other = b.layers[module]
        pairs = [(one.down, other.down), (one.up, other.up)]
        largest = max(largest, abs(one.alpha - other.alpha))
        if (one.magnitude is None) != (other.magnitude is None):
            return math.inf
        if one.magnitude is not None and other.magnitude is not None:
            pairs.append((one.magnitude, other.magnitude))
        for x, y in pairs:
            difference = float((x.double() - y.double()).abs().max()) if x.shape == y.shape else math.inf
            if not math.isfinite(difference):
                return math.inf
            largest = max(largest, difference)
    return largest
