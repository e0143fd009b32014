"""Starting a video VAE from the weights of another one: of images, or of videos walked by other rules of time.

EasyAnimate's MagViT was started from Stable Diffusion's VAE, its Slice VAE from the MagViT of V2, and the cached one
from that: the weights of the last three have the same names and shapes.
"""

import re
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import AutoencoderKL
from torch import nn

from models.errors import ModelError
from models.vae.cached_slice_vae import CACHED_SLICE
from models.vae.first_weights import LAST, MIDDLE, Taps
from models.vae.slice_vae import SLICE
from models.vae.table import kind_of, load_vae

Inflation = Literal["zero", "mean"]
"""how a convolution of images becomes one of videos: as it is on a frame's own tap, with zeros on those of other
frames; or a third of it on each"""
MEAN: Taps = (1 / 3, 1 / 3, 1 / 3)
RENAMED = (
    (r"\.resnets\.", ".convs."),
    (r"\.(down|up)samplers\.0\.", r".\1sampler."),
    (r"\.conv_shortcut\.", ".shortcut."),
    (r"\.to_out\.0\.", ".to_out."),
)
"""names of the image VAE's weights, and what the video VAE calls them"""


def start_from(vae: Any, folder: Path, inflation: Inflation = "zero") -> None:
    """Load the weights of another VAE into a video VAE.

    Args:
        vae: the network; it is changed.
        folder: of an image VAE, whose weights are inflated, or of a video VAE with the same weights by name and shape.
        inflation: of an image VAE.

    Raises:
        ModelError: no VAE there, or weights that do not fit.
    """
    start_from_network(vae, load_vae(folder), inflation, str(folder))


@torch.no_grad()
def start_from_network(vae: Any, other: Any, inflation: Inflation = "zero", where: str = "the other VAE") -> None:
    """Load the weights of another network, and the scale of its latents (see `start_from`)."""
    state = other.state_dict()
    if isinstance(other, AutoencoderKL) and not isinstance(vae, AutoencoderKL):
        state = inflated(other, vae, inflation)
    mine = vae.state_dict()
    wrong = sorted(state.keys() ^ mine.keys())
    wrong += sorted(name for name in state.keys() & mine.keys() if state[name].shape != mine[name].shape)
    if wrong:
        raise ModelError(
            f"{where}: {len(wrong)} of its weights are not those of the VAE to start ({wrong[0]}); take one of the "
            "same widths and latent channels, with attention where it has it"
        )
    vae.load_state_dict(state)
    vae.register_to_config(scaling_factor=kind_of(other).scaling(other.config).factor)


def inflated(image: AutoencoderKL, video: nn.Module, inflation: Inflation) -> dict[str, torch.Tensor]:
    """Return an image VAE's weights as those of a video VAE.

    With `zero` the video VAE then makes of an image exactly what the image VAE did, and one of causal slices the same
    of each frame of a video, as far as its normalisation and attention over slices, and time compression, let it.

    Args:
        image: the image VAE.
        video: says by which names weights are three-dimensional, and where a frame's own tap lies.
        inflation: how.
    """
    # V4's decoder is causal for videos, but an image, and its own start from V3's, have the frame in the middle.
    own = MIDDLE if kind_of(video) in (SLICE, CACHED_SLICE) else LAST
    taps = MEAN if inflation == "mean" else own
    depths = {name: tensor.shape[2] for name, tensor in video.state_dict().items() if tensor.ndim == 5}
    found = {}
    for name, tensor in image.state_dict().items():
        for old, new in RENAMED:
            name = re.sub(old, new, name)
        if tensor.ndim == 4 and depths.get(name) == len(taps):
            tensor = torch.stack([tensor * share for share in taps], dim=2)
        elif tensor.ndim == 4:
            tensor = tensor.unsqueeze(2)
        found[name] = tensor
    return found
