"""What sampling needs of a device's memory, predicted from shapes before anything is loaded.

The model: weights by their count and type; the transformer's activations by a number of values per token and channel;
the VAE's by walking its shapes on the meta device. What libraries take for themselves is not in it (see
`models.memory.MARGIN`).
"""

import inspect
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import AutoencoderKLMagvit
from torch import nn
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

from models.architecture import Shape
from models.errors import ModelError, one_line
from models.live_memory import peak_bytes
from models.text_encoder import find_encoder
from models.video_vae import SPATIAL_STRIDE, TEMPORAL_STRIDE, build_vae, decode_frames, encode_moments

Mode = Literal["none", "model_cpu_offload", "model_cpu_offload_and_qfloat8", "sequential_cpu_offload"]
Part = Literal["text_encoder", "transformer", "vae"]

# Modes in which a part's layers come to the device one after the other, not the part as a whole.
BY_LAYERS: Mapping[Part, tuple[Mode, ...]] = {
    "text_encoder": ("model_cpu_offload_and_qfloat8", "sequential_cpu_offload"),
    "transformer": ("sequential_cpu_offload",),
    "vae": (),
}
# What a block holds at once while it computes, in values of the compute type per token and channel
# (tests/test_models_memory_need.py counts it), for tokens of video and of text.
VIDEO_VALUES = 12.0
TEXT_VALUES = 8.0
PROBED_LATENTS = 3
"""latent frames for which the VAE is walked; more add nothing but their pixels"""


@dataclass(frozen=True)
class PartNeed:
    """One part's bytes.

    Attributes:
        weights: all of them.
        weights_8_bits: with those in 8 bits that `models.memory` keeps so.
        largest_layer: of one layer, as it computes.
        working: activations at their peak.
        working_tiled: likewise, in tiles.
    """

    weights: int
    weights_8_bits: int
    largest_layer: int
    working: int
    working_tiled: int


@dataclass(frozen=True)
class Need:
    """What sampling needs.

    Attributes:
        parts: each part's.
        encoder_stays: the text encoder is kept beside the other parts, not dropped once all texts are encoded.
    """

    parts: Mapping[Part, PartNeed]
    encoder_stays: bool = False

    def peak(self, mode: Mode, vae_tiling: bool) -> int:
        """Give the bytes on the device at the worst moment.

        Args:
            mode: see `models.memory`.
            vae_tiling: whether the VAE works in tiles.
        """
        working = {name: part.working_tiled if vae_tiling else part.working for name, part in self.parts.items()}
        if mode == "none":
            together, alone = self._together()
            return max(
                sum(self.parts[name].weights for name in together)
                + max((working[name] for name in together), default=0),
                *(self.parts[name].weights + working[name] for name in alone),
                0,
            )
        return max((self._alone(name, mode) + working[name] for name in self.parts), default=0)

    def held(self, mode: Mode) -> int:
        """Give the bytes of weights that wait in main memory, at most at once, while the device has others."""
        if mode == "none":
            return 0
        small = mode == "model_cpu_offload_and_qfloat8"
        weights = {name: part.weights_8_bits if small else part.weights for name, part in self.parts.items()}
        together, alone = self._together()
        return max(sum(weights[name] for name in together), *(weights[name] for name in alone), 0)

    def _together(self) -> tuple[list[Part], list[Part]]:
        """Divide the parts into those that are there at the same time, and one that comes before them."""
        together: list[Part] = [name for name in self.parts if name != "text_encoder" or self.encoder_stays]
        return together, [name for name in self.parts if name not in together]

    def _alone(self, name: Part, mode: Mode) -> int:
        """Give the weights on the device while a part computes and the others are away."""
        part = self.parts[name]
        if mode in BY_LAYERS[name]:
            return min(part.weights, 2 * part.largest_layer)  # the layer that computes, and the one fetched meanwhile
        if mode == "model_cpu_offload_and_qfloat8" and part.weights_8_bits < part.weights:
            return part.weights_8_bits + part.largest_layer
        return part.weights


def sampling_need(
    shape: Shape,
    transformer: nn.Module,
    vae: AutoencoderKLMagvit,
    text_encoder: nn.Module | None,
    num_frames: int,
    height_px: int,
    width_px: int,
    text_tokens: int,
    half: bool,
    guided: bool = True,
    encodes: bool = False,
    encoder_stays: bool = False,
) -> Need:
    """Predict what one sample needs.

    Args:
        shape: the transformer's numbers.
        transformer: on the meta device or loaded; likewise the other two networks.
        vae: on the meta device.
        text_encoder: None where texts are encoded elsewhere.
        num_frames: 4n+1.
        height_px: multiple of 16.
        width_px: multiple of 16.
        text_tokens: positions of an embedding.
        half: bf16, as on a GPU; else float32.
        guided: two predictions at once, with the text and without.
        encodes: a video or picture is encoded, too.
        encoder_stays: see `Need`.
    """
    size = 2 if half else 4
    frames = (num_frames - 1) // TEMPORAL_STRIDE + 1
    stride = SPATIAL_STRIDE * shape.patch
    tokens = frames * (height_px // stride) * (width_px // stride)
    rows = 2 if guided else 1
    activations = int((VIDEO_VALUES * tokens + TEXT_VALUES * text_tokens) * shape.width * size * rows)
    parts: dict[Part, PartNeed] = {
        "transformer": _part(transformer, size, activations, activations, _in_8_bits(transformer, size))
    }
    tile = min(height_px, vae.tile_sample_min_height), min(width_px, vae.tile_sample_min_width)
    whole = _vae_working(vae, num_frames, (height_px, width_px), (height_px, width_px), size, encodes)
    tiled = _vae_working(vae, num_frames, (height_px, width_px), tile, size, encodes)
    parts["vae"] = _part(vae, size, whole, min(whole, tiled))
    if text_encoder is not None:
        working = _text_working(text_encoder, text_tokens, size)
        parts["text_encoder"] = _part(text_encoder, size, working, working)
    return Need(parts, encoder_stays)


def empty_vae(folder: Path) -> AutoencoderKLMagvit:
    """Build a folder's VAE on the meta device: shapes without memory for weights.

    Raises:
        ModelError: no such folder, or a config that does not fit.
    """
    config = _config(Path(folder) / "config.json")
    # Loading passes over keys that the class does not know, such as `cache_mag_vae`, which a pipeline of theirs reads.
    known = inspect.signature(AutoencoderKLMagvit.__init__).parameters.keys()
    with torch.device("meta"):
        return build_vae({key: value for key, value in config.items() if key in known}).eval()


def empty_text_encoder(folder: Path) -> nn.Module:
    """Build a pipeline's text encoder on the meta device.

    Args:
        folder: as `models.text_encoder.TextEncoder.load` takes it.

    Raises:
        ModelError: no text encoder there.
    """
    config = Qwen2VLConfig.from_dict(_config(find_encoder(folder)[0] / "config.json"))
    with torch.device("meta"):
        network: nn.Module = Qwen2VLForConditionalGeneration(config)
    return network


def in_8_bits(transformer: nn.Module) -> list[nn.Module]:
    """Name the layers whose weights may be kept in 8 bits: all but those that the model says are too delicate.

    Adapters keep their digits: they are small, and their updates are smaller than a step of 8 bits.
    """
    delicate = re.compile("|".join([*(getattr(transformer, "_skip_layerwise_casting_patterns", None) or ()), "lora_"]))
    return [
        layer
        for name, layer in transformer.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.Conv3d) and not delicate.search(name)
    ]


def _config(file: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file}: {one_line(error)}; give a folder in diffusers layout") from None
    return values


def _part(module: nn.Module, size: int, working: int, tiled: int, weights_8_bits: int | None = None) -> PartNeed:
    weights = size * sum(p.numel() for p in module.parameters())
    largest = max(size * sum(p.numel() for p in layer.parameters(recurse=False)) for layer in module.modules())
    return PartNeed(weights, weights if weights_8_bits is None else weights_8_bits, largest, working, tiled)


def _in_8_bits(transformer: nn.Module, size: int) -> int:
    total = sum(p.numel() for p in transformer.parameters())
    small = sum(p.numel() for layer in in_8_bits(transformer) for p in layer.parameters())
    return size * (total - small) + small


def _vae_working(
    vae: AutoencoderKLMagvit, num_frames: int, picture: tuple[int, int], tile: tuple[int, int], size: int, encodes: bool
) -> int:
    """Predict activations of decoding, and of encoding where that happens, tile by tile."""
    latents = (num_frames - 1) // TEMPORAL_STRIDE + 1
    probed = min(latents, PROBED_LATENTS)
    frames = TEMPORAL_STRIDE * (probed - 1) + 1
    pixels, tile_pixels = 3 * picture[0] * picture[1], 3 * tile[0] * tile[1]
    rest = (num_frames - frames) * tile_pixels
    # Beside a tile's own there is the whole picture that tiles are put into.
    put_into = num_frames * pixels if tile != picture else 0
    height, width = tile[0] // SPATIAL_STRIDE, tile[1] // SPATIAL_STRIDE
    was_tiled, vae.use_tiling = vae.use_tiling, False
    with torch.no_grad(), torch.device("meta"):
        z = torch.zeros(1, vae.config.latent_channels, probed, height, width, dtype=vae.dtype)
        decoding = peak_bytes(lambda: decode_frames(vae, z)) * size // vae.dtype.itemsize
        x = torch.zeros(1, 3, frames, *tile, dtype=vae.dtype)
        encoding = peak_bytes(lambda: encode_moments(vae, x)) * size // vae.dtype.itemsize if encodes else 0
    vae.use_tiling = was_tiled
    decoding += (rest + put_into) * size
    encoding += num_frames * pixels * size
    # Frames become 8-bit pixels by way of float32 (`decode_pixels`).
    to_pixels = num_frames * pixels * (size + 2 * 4)
    return max(decoding, encoding if encodes else 0, to_pixels)


def _text_working(text_encoder: nn.Module, tokens: int, size: int) -> int:
    """Predict what a caption takes: the states of all layers, which are kept, and one layer's own."""
    config: Any = text_encoder.config.text_config  # type: ignore[union-attr]
    kept = (config.num_hidden_layers + 1) * config.hidden_size
    return int(tokens * (kept + 8 * config.hidden_size + 3 * config.intermediate_size) * size)
