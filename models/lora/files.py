"""LoRA files: what they hold, and the two layouts that others read.

diffusers (`pytorch_lora_weights.safetensors`), as `diffusers.loaders.lora_base` writes it: keys
`transformer.<module>.lora_A.weight`, `.lora_B.weight` and, for DoRA, `.lora_magnitude_vector`; rank, alpha and
modules as JSON in the file's metadata, under `lora_adapter_metadata`.

kohya (`lora_kohya.safetensors`), from kohya-ss/sd-scripts, read by ComfyUI and by EasyAnimate's own tools
(`easyanimate/utils/lora_utils.py`): keys `lora_unet_<module, dots as underscores>.lora_down.weight`,
`.lora_up.weight`, `.alpha` and, for DoRA as LyCORIS stores it, `.dora_scale` of shape (out, 1). EasyAnimate's code
calls the text stream's projections `attn2.to_q` … where diffusers says `attn1.add_q_proj` …; its names are written,
both are read. Its tools ignore `.dora_scale`, and ComfyUI divides by the norm of W where DoRA (arXiv 2402.09353,
eq. 5) divides by that of W + ΔW: DoRA files give their exact result with diffusers and with `models.lora.adapters`.
"""

import json
import math
import re
import sys
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from peft.utils.other import get_pattern_key

from models.errors import ModelError
from models.transformers.easyanimate_v5_names import PUBLISHED_NAMES
from models.weights.safetensors_file import read_tensors, write_tensors

DIFFUSERS_FILE = "pytorch_lora_weights.safetensors"
KOHYA_FILE = "lora_kohya.safetensors"
METADATA_KEY = "lora_adapter_metadata"
PREFIX = "transformer."
KOHYA_PREFIX = "lora_unet_"

# What may follow a module's name; first the forms that are written.
PARTS: Mapping[str, str] = {
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
    ".lora_magnitude_vector": "magnitude",
    ".lora_down.weight": "down",
    ".lora_up.weight": "up",
    ".alpha": "alpha",
    ".dora_scale": "magnitude",
    ".lora_A.default.weight": "down",
    ".lora_B.default.weight": "up",
    ".lora_magnitude_vector.weight": "magnitude",
    ".lora_magnitude_vector.default.weight": "magnitude",
}
# What may precede it; EasyAnimate's trainer writes two underscores, since its root module's name is empty.
PREFIXES = ("base_model.model.", PREFIX, "diffusion_model.", "lora_unet__", KOHYA_PREFIX)
TEXT_PREFIXES = ("lora_te", "text_encoder.")


@dataclass(frozen=True)
class Factors:
    """One linear layer's adapter: ΔW = alpha / rank · up · down (arXiv 2106.09685).

    Attributes:
        down: A, (rank, in).
        up: B, (out, rank).
        alpha: numerator of the scale.
        magnitude: DoRA's m, (out,): W' = m / ‖W + ΔW‖ · (W + ΔW), norms over rows; None for LoRA.
    """

    down: torch.Tensor
    up: torch.Tensor
    alpha: float
    magnitude: torch.Tensor | None = None

    @property
    def rank(self) -> int:
        """Inner dimension."""
        return int(self.down.shape[0])


@dataclass(frozen=True)
class LoraWeights:
    """An adapter, apart from any model.

    Attributes:
        layers: factors by module, named as a model or as a file names it (see `resolve`).
        source: where it comes from, for messages.
    """

    layers: Mapping[str, Factors]
    source: str = "LoRA"

    @property
    def dora(self) -> bool:
        """Return whether magnitudes are adapted too."""
        return any(factors.magnitude is not None for factors in self.layers.values())


def peft_config(weights: LoraWeights) -> LoraConfig:
    """Describe an adapter as peft does: the commonest rank and alpha, and the layers that differ."""
    ranks = {module: factors.rank for module, factors in weights.layers.items()}
    alphas = {module: _plain(factors.alpha) for module, factors in weights.layers.items()}
    rank = Counter(ranks.values()).most_common(1)[0][0]
    alpha = Counter(alphas.values()).most_common(1)[0][0]
    return LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]
        rank_pattern={f"^{re.escape(module)}": r for module, r in ranks.items() if r != rank},
        alpha_pattern={f"^{re.escape(module)}": a for module, a in alphas.items() if a != alpha},
        target_modules=sorted(weights.layers),
        use_dora=weights.dora,
        inference_mode=True,
    )


def write_lora(weights: LoraWeights, folder: Path) -> tuple[Path, Path]:
    """Write an adapter in both layouts; the module's docstring describes them.

    Args:
        weights: modules named as in the model.
        folder: gets the two files; must exist.

    Returns:
        The diffusers file and the kohya file.

    Raises:
        ModelError: two modules would get the same kohya name.
    """
    config = peft_config(weights).to_dict()
    described = {f"{PREFIX}{key}": list(v) if isinstance(v, set) else v for key, v in config.items()}
    # As diffusers writes it (`LoraBaseMixin.write_lora_layers`).
    metadata = {METADATA_KEY: json.dumps(described, indent=2, sort_keys=True)}
    diffusers_file = Path(folder) / DIFFUSERS_FILE
    write_tensors(diffusers_file, _diffusers_tensors(weights), metadata)
    kohya_file = Path(folder) / KOHYA_FILE
    write_tensors(
        kohya_file,
        _kohya_tensors(weights),
        {"ss_network_dim": str(config["r"]), "ss_network_alpha": str(config["lora_alpha"])},
    )
    return diffusers_file, kohya_file


def read_lora(path: Path, *, check_finite: bool = True) -> LoraWeights:
    """Read an adapter in either layout, told by its keys.

    Alpha comes from the metadata or the `.alpha` tensors; where there is none, alpha = rank. What adapts a text encoder
    beside the transformer, as EasyAnimate V1's published LoRA adapts T5, is skipped, and told in a line.

    Args:
        path: a file, or a folder that `write_lora` wrote to.
        check_finite: refuse infinite values and NaN.

    Returns:
        Modules as the file names them, without prefix.

    Raises:
        ModelError: not a LoRA of a transformer, halves of it are missing, or values are not finite.
    """
    path = Path(path) / DIFFUSERS_FILE if Path(path).is_dir() else Path(path)
    tensors, metadata = read_tensors(path)
    if text := [key for key in tensors if key.startswith(TEXT_PREFIXES)]:
        tensors = {key: tensor for key, tensor in tensors.items() if not key.startswith(TEXT_PREFIXES)}
        if not tensors:
            raise ModelError(f"{path}: {_some(text)} adapt a text encoder alone; give a LoRA of a transformer")
        _say_skipped(str(path), len(text))
    parts: dict[str, dict[str, torch.Tensor]] = {}
    unknown = []
    for key, tensor in tensors.items():
        suffix = next((suffix for suffix in PARTS if key.endswith(suffix)), None)
        if suffix is None:
            unknown.append(key)
            continue
        module = key.removesuffix(suffix)
        prefix = next((prefix for prefix in PREFIXES if module.startswith(prefix)), "")
        parts.setdefault(module.removeprefix(prefix), {})[PARTS[suffix]] = tensor
    if unknown or not parts:
        raise ModelError(
            f"{path}: no LoRA: {_some(unknown)} are none of its keys; give a LoRA in diffusers or kohya layout"
        )
    if halves := [module for module, found in parts.items() if not {"down", "up"} <= found.keys()]:
        raise ModelError(f"{path}: one factor is missing at {_some(halves)}; the file is not whole, fetch it again")
    described = _described(metadata, path)
    finite = {module: all(part.float().isfinite().all() for part in found.values()) for module, found in parts.items()}
    if check_finite and (broken := [module for module in finite if not finite[module]]):
        raise ModelError(f"{path}: values are not finite at {_some(broken)}; the adapter is broken, train it again")
    layers = {module: _factors(module, found, described, path) for module, found in parts.items()}
    return LoraWeights(layers, f"LoRA {path}")


def resolve(weights: LoraWeights, modules: Collection[str]) -> tuple[LoraWeights, list[str]]:
    """Replace a file's module names by a model's.

    Args:
        weights: as read.
        modules: the model's linear layers.

    Returns:
        The adapter by the model's names, and the names that the model does not have.

    Raises:
        ModelError: a name stands for several modules of the model, or several for one.
    """
    known: dict[str, set[str]] = {}
    for module in modules:
        for name in (module, easyanimate_name(module)):
            known.setdefault(name, set()).add(module)
            known.setdefault(name.replace(".", "_"), set()).add(module)
    layers: dict[str, Factors] = {}
    strangers = []
    for name, factors in weights.layers.items():
        found = {name} if name in modules else known.get(name, set())
        if len(found) > 1:
            several = ", ".join(sorted(found))
            raise ModelError(f"{weights.source}: '{name}' may be any of {several}; export it in diffusers layout")
        if not found:
            strangers.append(name)
            continue
        module = next(iter(found))
        if module in layers:
            raise ModelError(f"{weights.source}: '{name}' and another key both adapt {module}; export it in one layout")
        layers[module] = factors
    return replace(weights, layers=layers), strangers


def easyanimate_name(module: str) -> str:
    """Return the name that EasyAnimate's own code has for a module of diffusers' class."""
    for ours, theirs in PUBLISHED_NAMES.items():
        if f".{module}".endswith(f".{ours}"):
            return module.removesuffix(ours) + theirs
    return module


def _diffusers_tensors(weights: LoraWeights) -> dict[str, torch.Tensor]:
    tensors = {}
    for module, factors in weights.layers.items():
        tensors[f"{PREFIX}{module}.lora_A.weight"] = factors.down
        tensors[f"{PREFIX}{module}.lora_B.weight"] = factors.up
        if factors.magnitude is not None:
            tensors[f"{PREFIX}{module}.lora_magnitude_vector"] = factors.magnitude
    return tensors


def _kohya_tensors(weights: LoraWeights) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for module, factors in weights.layers.items():
        name = KOHYA_PREFIX + easyanimate_name(module).replace(".", "_")
        if f"{name}.alpha" in tensors:
            raise ModelError(f"LoRA: two modules are called {name} in kohya layout; leave one of them out")
        tensors[f"{name}.lora_down.weight"] = factors.down
        tensors[f"{name}.lora_up.weight"] = factors.up
        alpha = torch.tensor(factors.alpha, dtype=torch.float64)
        tensors[f"{name}.alpha"] = alpha.float() if alpha.float().item() == factors.alpha else alpha
        if factors.magnitude is not None:
            tensors[f"{name}.dora_scale"] = factors.magnitude[:, None]
    return tensors


def _described(metadata: Mapping[str, str], path: Path) -> dict[str, Any]:
    """Read peft's configuration out of a file's metadata."""
    if METADATA_KEY not in metadata:
        return {}
    try:
        values = json.loads(metadata[METADATA_KEY])
        return {key.removeprefix(PREFIX): value for key, value in values.items()}
    except (ValueError, AttributeError, RecursionError):
        raise ModelError(f"{path}: metadata {METADATA_KEY} is not readable; export the LoRA again") from None


def _factors(module: str, parts: Mapping[str, torch.Tensor], described: Mapping[str, Any], path: Path) -> Factors:
    down, up, magnitude = parts["down"], parts["up"], parts.get("magnitude")
    if down.ndim != 2 or up.ndim != 2 or up.shape[1] != down.shape[0] or not down.shape[0]:
        shapes = f"{tuple(down.shape)} and {tuple(up.shape)}"
        raise ModelError(f"{path}: {module}: factors {shapes} do not multiply; expected (r, in) and (out, r)")
    if magnitude is not None:
        if magnitude.shape not in ((up.shape[0],), (up.shape[0], 1)):
            raise ModelError(
                f"{path}: {module}: DoRA magnitude {tuple(magnitude.shape)}, expected ({up.shape[0]}, 1); "
                "only DoRA over output rows is supported"
            )
        magnitude = magnitude.reshape(-1)
    return Factors(down, up, _alpha(module, parts.get("alpha"), described, int(down.shape[0]), path), magnitude)


def _alpha(module: str, stored: torch.Tensor | None, described: Mapping[str, Any], rank: int, path: Path) -> float:
    if stored is not None:
        return float(stored.reshape(-1)[0])
    if "lora_alpha" not in described:
        return float(rank)
    pattern = described.get("alpha_pattern") or {}
    try:
        alpha = float(pattern.get(get_pattern_key(list(pattern), module), described["lora_alpha"]))
    except (TypeError, ValueError, AttributeError):
        raise ModelError(f"{path}: metadata {METADATA_KEY} has no usable alpha; export the LoRA again") from None
    # Rank-stabilised LoRA (arXiv 2312.03732) scales by alpha / sqrt(rank).
    return alpha * math.sqrt(rank) if described.get("use_rslora") else alpha


def _plain(number: float) -> float | int:
    """Return whole numbers as such, as peft's own configurations do."""
    return int(number) if float(number).is_integer() else number


@lru_cache(maxsize=1024)
def _say_skipped(file: str, count: int) -> None:
    """Write one line on the parts that are passed over, once a process for each file."""
    print(
        f"warning: {repr(file)[1:-1]}: {count} keys adapt the text encoder and are skipped; the transformer's are used",
        file=sys.stderr,
    )


def _some(names: list[str]) -> str:
    """Name how many there are and the first three."""
    return f"{len(names)} keys ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
