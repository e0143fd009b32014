"""What sampling needs of a device's memory, predicted from shapes before anything is loaded.

The model: weights by their count and type; the transformer's activations by a number of values per token and channel;
the VAE's by walking its shapes on the meta device. What libraries take for themselves is not in it (see
`models.memory.modes.MARGIN`).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from models.geometry import Bucket
from models.memory.live_memory import peak_bytes
from models.text.encoder import TextEncoder
from models.text.table import TEXT_ENCODERS
from models.transformers.architecture import Shape
from models.vae.video_vae import channels_of, decode_frames, encode_moments, grid_of, tile_px_of

Mode = Literal["none", "model_cpu_offload", "model_cpu_offload_and_qfloat8", "sequential_cpu_offload"]
Part = Literal["text_encoder", "transformer", "vae"]

# Modes in which a part's layers come to the device one after the other, not the part as a whole.
BY_LAYERS: Mapping[Part, tuple[Mode, ...]] = {
    "text_encoder": ("model_cpu_offload_and_qfloat8", "sequential_cpu_offload"),
    "transformer": ("sequential_cpu_offload",),
    "vae": (),
}
# What a block holds at once while it computes, in values of the compute type per token and channel
# (tests/models/test_models_memory_need.py counts it), for tokens of video and of text.
VIDEO_VALUES = 12.0
TEXT_VALUES = 8.0
PROBED_LATENTS = 3
"""latent frames for which the VAE is walked; more add nothing but their pixels"""


@dataclass(frozen=True)
class PartNeed:
    """One part's bytes.

    Attributes:
        weights: all of them.
        weights_8_bits: with those in 8 bits that `models.memory.modes` keeps so.
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
        image_bytes: of encoding a start image; its encoder is loaded for that alone, beside the parts that stay.
    """

    parts: Mapping[Part, PartNeed]
    encoder_stays: bool = False
    image_bytes: int = 0

    def peak(self, mode: Mode, *, vae_tiling: bool) -> int:
        """Return the bytes on the device at the worst moment.

        Args:
            mode: see `models.memory.modes`.
            vae_tiling: whether the VAE works in tiles.
        """
        working = {name: part.working_tiled if vae_tiling else part.working for name, part in self.parts.items()}
        if mode == "none":
            together, alone = self._together()
            return max(
                sum(self.parts[name].weights for name in together)
                + max((*(working[name] for name in together), self.image_bytes)),
                *(self.parts[name].weights + working[name] for name in alone),
                0,
            )
        return max((*(self._alone(name, mode) + working[name] for name in self.parts), self.image_bytes))

    def held(self, mode: Mode) -> int:
        """Return the bytes of weights that wait in main memory, at most at once, while the device has others."""
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
        """Return the weights on the device while a part computes and the others are away."""
        part = self.parts[name]
        if mode in BY_LAYERS[name]:
            return min(part.weights, 2 * part.largest_layer)  # the layer that computes, and the one fetched meanwhile
        if mode == "model_cpu_offload_and_qfloat8" and part.weights_8_bits < part.weights:
            return part.weights_8_bits + part.largest_layer
        return part.weights


@dataclass(frozen=True, eq=False)
class SampledParts:
    """The networks that a sample needs.

    Attributes:
        shape: the transformer's numbers.
        transformer: on the meta device or loaded; likewise the other two networks.
        vae: on the meta device.
        text_encoder: None where texts are encoded elsewhere.
        text_kind: of the text encoder.
        image_bytes: of encoding a start image, see `Need`; 0 where no image is seen.
    """

    shape: Shape
    transformer: nn.Module
    vae: Any
    text_encoder: nn.Module | None = None
    text_kind: TextEncoder = TEXT_ENCODERS["qwen2_vl"]
    image_bytes: int = 0


def sampling_need(
    networks: SampledParts,
    video: Bucket,
    text_tokens: int,
    *,
    half: bool,
    guided: bool = True,
    encodes: bool = False,
    encoder_stays: bool = False,
) -> Need:
    """Predict what one sample needs.

    Args:
        networks: the networks.
        video: frames as the VAE's grid takes them, and the picture's size.
        text_tokens: positions of an embedding.
        half: bf16, as on a GPU; else float32.
        guided: two predictions at once, with the text and without.
        encodes: a video or picture is encoded, too.
        encoder_stays: see `Need`.
    """
    size = 2 if half else 4
    shape, vae, height_px, width_px = networks.shape, networks.vae, video.height_px, video.width_px
    grid = grid_of(vae)
    stride = grid.pixels_per_latent * shape.patch
    tokens = grid.latent_frames(video.num_frames) * (height_px // stride) * (width_px // stride)
    rows = 2 if guided else 1
    activations = int((VIDEO_VALUES * tokens + TEXT_VALUES * text_tokens) * shape.width * size * rows)
    parts: dict[Part, PartNeed] = {
        "transformer": _part(
            networks.transformer, size, activations, activations, _in_8_bits(networks.transformer, size)
        )
    }
    largest = tile_px_of(vae) or (height_px, width_px)
    tile = min(height_px, largest[0]), min(width_px, largest[1])
    whole = _vae_working(vae, video.num_frames, (height_px, width_px), (height_px, width_px), size, encodes=encodes)
    tiled = _vae_working(vae, video.num_frames, (height_px, width_px), tile, size, encodes=encodes)
    parts["vae"] = _part(vae, size, whole, min(whole, tiled))
    if networks.text_encoder is not None:
        working = networks.text_kind.working_bytes(networks.text_encoder, text_tokens, size)
        parts["text_encoder"] = _part(networks.text_encoder, size, working, working)
    return Need(parts, encoder_stays, networks.image_bytes)


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


def _part(module: nn.Module, size: int, working: int, tiled: int, weights_8_bits: int | None = None) -> PartNeed:
    weights = size * sum(p.numel() for p in module.parameters())
    largest = max(size * sum(p.numel() for p in layer.parameters(recurse=False)) for layer in module.modules())
    return PartNeed(weights, weights if weights_8_bits is None else weights_8_bits, largest, working, tiled)


def _in_8_bits(transformer: nn.Module, size: int) -> int:
    total = sum(p.numel() for p in transformer.parameters())
    small = sum(p.numel() for layer in in_8_bits(transformer) for p in layer.parameters())
    return size * (total - small) + small


def _vae_working(
    vae: Any, num_frames: int, picture: tuple[int, int], tile: tuple[int, int], size: int, *, encodes: bool
) -> int:
    """Predict activations of decoding, and of encoding where that happens, tile by tile."""
    grid = grid_of(vae)
    frames = min(num_frames, grid.shortest_with(PROBED_LATENTS))
    pixels, tile_pixels = 3 * picture[0] * picture[1], 3 * tile[0] * tile[1]
    rest = (num_frames - frames) * tile_pixels
    # Beside a tile's own there is the whole picture that tiles are put into.
    put_into = num_frames * pixels if tile != picture else 0
    tiles = tile_px_of(vae) is not None
    was_tiled = bool(vae.use_tiling) if tiles else False
    if tiles:
        vae.use_tiling = False
    with torch.no_grad(), torch.device("meta"):
        z = torch.zeros(1, channels_of(vae), *grid.latent_shape(frames, *tile), dtype=vae.dtype)
        decoding = peak_bytes(lambda: decode_frames(vae, z)) * size // vae.dtype.itemsize
        x = torch.zeros(1, 3, frames, *tile, dtype=vae.dtype)
        encoding = peak_bytes(lambda: encode_moments(vae, x)) * size // vae.dtype.itemsize if encodes else 0
    if tiles:
        vae.use_tiling = was_tiled
    decoding += (rest + put_into) * size
    encoding += num_frames * pixels * size
    # Frames become 8-bit pixels by way of float32 (`decode_pixels`).
    to_pixels = num_frames * pixels * (size + 2 * 4)
    return max(decoding, encoding if encodes else 0, to_pixels)
