"""The video autoencoders there are, by the class name in their published `config.json`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.errors import ModelError, one_line
from models.vae.autoencoder import VideoAutoencoder
from models.vae.cached_slice_vae import CACHED_SLICE
from models.vae.image_vae import IMAGE
from models.vae.magvit4 import MAGVIT4
from models.vae.magvit16 import CausalMagvit
from models.vae.slice_vae import SLICE
from models.weights.json_file import read_json
from models.weights.published_config import known_fields

MAGVIT16 = CausalMagvit()
# Where kinds share a class name, the first whose `reads` says so is taken; the last takes what is left.
AUTOENCODERS: Mapping[str, Sequence[VideoAutoencoder]] = {
    MAGVIT16.class_name: (CACHED_SLICE, SLICE, MAGVIT4, MAGVIT16),
    # Some of the VAEs of slices are published under the class name of the image VAE that they were started from.
    IMAGE.class_name: (CACHED_SLICE, SLICE, MAGVIT4, IMAGE),
}
KINDS: Sequence[VideoAutoencoder] = (MAGVIT16, IMAGE, MAGVIT4, SLICE, CACHED_SLICE)
PRESETS: Mapping[str, Mapping[str, Any]] = {
    name: {"_class_name": kind.class_name, **config} for kind in KINDS for name, config in kind.presets.items()
}


def kind_of_config(config: Mapping[str, Any], where: str = "VAE config") -> VideoAutoencoder:
    """Find the kind that a `config.json` is of; one without a class name is MagViT's, as older presets are.

    Args:
        config: its content.
        where: what an error names.

    Raises:
        ModelError: a class that is not there.
    """
    class_name = config.get("_class_name", MAGVIT16.class_name)
    for kind in AUTOENCODERS.get(class_name, ()):
        if kind.reads(config):
            return kind
    raise ModelError(
        f"{where}: holds {class_name}, not {' or '.join(AUTOENCODERS)}; give the folder of a VAE of EasyAnimate"
    )


def kind_named(name: str) -> VideoAutoencoder:
    """Find a kind by the name that families call it.

    Raises:
        ModelError: there is none.
    """
    named = {kind.name: kind for kinds in AUTOENCODERS.values() for kind in kinds}
    if name not in named:
        raise ModelError(f"VAE kind '{name}': there is none; known: {', '.join(named)}")
    return named[name]


def check_fit(config: Mapping[str, Any], name: str, latent_channels: int, where: str) -> None:
    """Refuse a VAE whose latents are others than a transformer was made for.

    Args:
        config: content of its `config.json`.
        name: of the kind that the transformer's family has.
        latent_channels: that the transformer makes.
        where: what an error names.

    Raises:
        ModelError: another number of channels, another compression, or another way to walk slices.
    """
    kind, wanted = kind_of_config(config, where), kind_named(name)
    channels, grid, expected = kind.channels(config), kind.grid(config), wanted.grid({})
    if channels != latent_channels:
        raise ModelError(
            f"{where}: gives {channels} latent channels, the transformer wants {latent_channels}; take the VAE that it "
            "was trained with"
        )
    # Of the slices of V3 and V4 the shapes are the same, but not what a decoder makes of them.
    if kind.name != name or grid != expected:
        raise ModelError(
            f"{where}: a VAE of kind {kind.name} ({grid.rule} frames), the transformer's latents are of {name} "
            f"({expected.rule}); take the VAE that it was trained with"
        )


def kind_of(vae: Any) -> VideoAutoencoder:
    """Find the kind of a network that is there.

    Raises:
        ModelError: its class is not there.
    """
    return kind_of_config({**vae.config, "_class_name": type(vae).__name__})


def build_vae(config: Mapping[str, Any]) -> Any:
    """Build an autoencoder with random weights (from torch's global generator).

    Args:
        config: a preset, or the content of a `config.json`.

    Raises:
        ModelError: unknown keys, values that do not fit together, or a compression that its kind does not have.
    """
    return kind_of_config(config).build(config)


def read_vae_config(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Read the `config.json` of an autoencoder's folder.

    Args:
        folder: holds `config.json`, or has a folder `vae` that does.

    Returns:
        The folder that holds it, and its content.

    Raises:
        ModelError: no such file, not readable, or of another class.
    """
    folder = Path(folder)
    home = folder if (folder / "config.json").is_file() else folder / "vae"
    try:
        config: dict[str, Any] = read_json(home / "config.json")
        class_name = config.get("_class_name")
    except (FileNotFoundError, NotADirectoryError):
        raise ModelError(
            f"{folder}: no config.json, nor vae/config.json; give a folder in diffusers layout, or for a new VAE one "
            f"of the presets {', '.join(PRESETS)}"
        ) from None
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"{home / 'config.json'}: {one_line(error)}; copy the file again") from error
    kind_of_config({**config, "_class_name": class_name}, str(home))
    return home, config


def load_vae(folder: Path, dtype: torch.dtype | None = None) -> Any:
    """Load an autoencoder from a folder in diffusers layout.

    Fields of its config that are not known are named in a line and passed over.

    Args:
        folder: holds `config.json` and safetensors (plain or of a variant), or has a folder `vae` that does.
        dtype: of the weights; None: float32.

    Raises:
        ModelError: no such files, another class, or weights that do not fit the config.
    """
    home, config = read_vae_config(folder)
    kind = kind_of_config(config, str(home))
    known_fields(config, kind.fields, home / "config.json")
    return kind.load(home, config, dtype or torch.float32)


def empty_vae(folder: Path) -> Any:
    """Build a folder's VAE on the meta device: shapes without memory for weights.

    Raises:
        ModelError: no such folder, or a config that does not fit.
    """
    home, config = read_vae_config(folder)
    kind = kind_of_config(config, str(home))
    known = known_fields(config, kind.fields, home / "config.json")
    try:
        with torch.device("meta"):
            network: nn.Module = kind.build({"_class_name": kind.class_name, **known})
            return network.eval()
    except ModelError as error:
        raise ModelError(f"{home / 'config.json'}: {error}") from None
