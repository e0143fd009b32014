"""Beginning an adapter from another one, as training on new data does."""

import torch
from torch import nn

from models.errors import ModelError
from models.lora.files import LoraWeights, resolve

DOWN, UP, MAGNITUDE = "lora_A", "lora_B", "lora_magnitude_vector"


@torch.no_grad()
def begin_from(model: nn.Module, weights: LoraWeights, name: str = "default") -> None:
    """Load the values of a read adapter into one that `add_lora` added.

    Args:
        model: changed in place; its adapter's weights are whole. On the `meta` device it is only compared.
        weights: as `read_lora` gives them.
        name: the adapter's name.

    Raises:
        ModelError: they have other layers, or another rank, alpha or kind.
    """
    parameters = dict(model.named_parameters())
    ending = f".{DOWN}.{name}.weight"
    modules = [key.removesuffix(ending) for key in parameters if key.endswith(ending)]
    fitting, strangers = resolve(weights, modules)
    if strangers or (lacking := sorted(set(modules) - fitting.layers.keys())):
        which = f"adapts {strangers[0]}" if strangers else f"does not adapt {lacking[0]}"
        raise ModelError(f"{weights.source}: {which}, other than lora.targets says; set lora.targets to its layers")
    for module, factors in fitting.layers.items():
        layer = model.get_submodule(module)
        rank, alpha = len(parameters[module + ending]), float(layer.lora_alpha[name])  # type: ignore[index, arg-type, union-attr]
        is_dora = f"{module}.{MAGNITUDE}.{name}.weight" in parameters
        if factors.rank != rank:
            raise ModelError(f"{weights.source}: {module} has rank {factors.rank}; set lora.rank={factors.rank}")
        if factors.alpha != alpha:
            raise ModelError(
                f"{weights.source}: {module} has alpha {factors.alpha:g}; set lora.alpha={factors.alpha:g}"
            )
        if (factors.magnitude is not None) != is_dora:
            kind = "no DoRA" if is_dora else "DoRA"
            raise ModelError(f"{weights.source}: {kind}; set lora.dora={str(not is_dora).lower()}")
        values = {DOWN: factors.down, UP: factors.up}
        if factors.magnitude is not None:
            values[MAGNITUDE] = factors.magnitude
        for part, value in values.items():
            parameter = parameters[f"{module}.{part}.{name}.weight"]
            if parameter.shape != value.shape:
                raise ModelError(
                    f"{weights.source}: {module} is {tuple(value.shape)}, the model wants {tuple(parameter.shape)}; "
                    "give a LoRA that was trained on it"
                )
            if not parameter.is_meta:
                parameter.copy_(value)
