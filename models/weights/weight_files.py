"""Which safetensors of a folder are a network's weights: plain or of a variant such as fp16, whole or in shards."""

import re
from dataclasses import dataclass
from pathlib import Path

from models.errors import ModelError, one_line
from models.weights.json_file import read_json

DIFFUSERS_STEM = "diffusion_pytorch_model"
TRANSFORMERS_STEM = "model"
FIRST_VARIANTS = ("fp32", "bf16", "fp16")
"""taken in this order where several lie in a folder, before others by name"""


@dataclass(frozen=True)
class WeightFiles:
    """The weights of one network.

    Attributes:
        variant: None for the plain ones; else what `from_pretrained` of diffusers and transformers takes.
        files: one, or the shards that an index names, sorted.
    """

    variant: str | None
    files: tuple[Path, ...]


def find_weights(folder: Path, stem: str) -> WeightFiles:
    """Find the weights that a folder holds; plain ones come before those of a variant.

    Args:
        folder: the network's.
        stem: how the library calls its files: DIFFUSERS_STEM or TRANSFORMERS_STEM.

    Raises:
        ModelError: none, or an index that cannot be read or names files that are not there.
    """
    folder = Path(folder)
    named = re.compile(rf"{stem}(?:\.(?P<whole>[\w-]+))?\.safetensors(?P<index>\.index(?:\.(?P<of>[\w-]+))?\.json)?")
    found: dict[str | None, list[Path]] = {}
    for path in sorted(folder.glob(f"{stem}*")):
        # Shards are found by their index: `model.fp16-00001-of-00002.safetensors` is no variant of that name.
        match = named.fullmatch(path.name)
        if match is None or not path.is_file() or re.search(r"-\d{5}-of-\d{5}", path.name):
            continue
        if match["index"] and match["whole"]:
            continue  # no library reads an index of that name
        found.setdefault(match["of"] or match["whole"], []).append(path)
    if not found:
        raise ModelError(_lacking(folder, stem))
    variant = min(found, key=_rank)
    index = next((path for path in found[variant] if path.suffix == ".json"), None)
    return WeightFiles(variant, (found[variant][0],) if index is None else _shards(index))


def _rank(variant: str | None) -> tuple[int, str]:
    if variant is None:
        return -1, ""
    order = FIRST_VARIANTS.index(variant) if variant in FIRST_VARIANTS else len(FIRST_VARIANTS)
    return order, variant


def _shards(index: Path) -> tuple[Path, ...]:
    try:
        content = read_json(index)
        names = sorted(set(content["weight_map"].values()))
        if not isinstance(content["metadata"], dict) or not names or any(Path(name).name != name for name in names):
            raise ValueError("no metadata, or no plain names of files")
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        why = f"no {error}" if isinstance(error, KeyError) else one_line(error)
        raise ModelError(f"{index}: not an index of weights ({why}); copy the file again") from None
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise ModelError(
            f"{index}: {len(missing)} of its {len(names)} files are missing ({missing[0]}); copy them, too"
        )
    return tuple(index.parent / name for name in names)


def _lacking(folder: Path, stem: str) -> str:
    others = sorted(path.name for path in folder.glob("*.safetensors*"))
    if not others:
        return f"{folder}: no .safetensors beside config.json; copy or convert the weights"
    return (
        f"{folder}: none of its {len(others)} files ({others[0]}) has a name that is read: {stem}.safetensors, "
        f"{stem}.fp16.safetensors, or {stem}.safetensors.index.json with its shards; rename or copy them"
    )
