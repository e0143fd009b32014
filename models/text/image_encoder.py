"""Tokens of a condition image beside the text: EasyAnimate V3 takes CLIP's embedding of it, V4 CLIP's patch tokens."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import nn
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from core.files import atomic_folder
from models.errors import ModelError, check_complete, one_line
from models.memory.devices import execution_device
from models.text.masked_text import working_bytes
from models.weights.json_file import read_json
from models.weights.weight_files import TRANSFORMERS_STEM, find_weights

CLASS_NAME = "CLIPVisionModelWithProjection"
TINY_SIDE = 32


class LoadedImage(Protocol):
    """An image encoder, loaded."""

    @property
    def model(self) -> nn.Module:
        """The network, in evaluation mode."""
        ...

    def encode_parts(self, pictures: np.ndarray) -> dict[str, torch.Tensor]:
        """Encode pictures.

        Args:
            pictures: uint8 (B, H, W, 3).

        Returns:
            `image` (B, K, D) in the network's type, and `image_mask` (B, K) bool, all true.
        """
        ...

    def no_parts(self, rows: int) -> dict[str, torch.Tensor]:
        """Return what stands for no image: zeros in the network's type, with a mask of 0, on the CPU."""
        ...


class ImageEncoder(Protocol):
    """One way to make tokens of an image: another one is such an object and an entry in IMAGE_ENCODERS."""

    @property
    def name(self) -> str:
        """What families call it."""
        ...

    @property
    def classes(self) -> Mapping[str, tuple[str, str]]:
        """Library and class of each component of a pipeline, as `model_index.json` names them."""
        ...

    def load(self, folder: Path, dtype: torch.dtype | None = None, device: str | torch.device = "cpu") -> LoadedImage:
        """Load from a pipeline folder with `image_encoder/`, or from that folder itself.

        Raises:
            ModelError: there is none, or files that do not fit each other.
        """
        ...

    def width(self, folder: Path) -> int:
        """Return the channels of a token.

        Raises:
            ModelError: as `load`.
        """
        ...

    def need(self, folder: Path, size: int) -> "ImageNeed":
        """Predict the memory of encoding one picture at a time; `size` is the bytes of a value.

        Raises:
            ModelError: there is no configuration that can be read.
        """
        ...

    def build_tiny(self, folder: Path, width: int) -> None:
        """Write a small encoder with random weights and tokens of this width, as `image_encoder/`."""
        ...


@dataclass(frozen=True)
class ImageNeed:
    """Bytes that an image encoder takes.

    Attributes:
        weights: all of them.
        working: activations of one picture, at their peak.
    """

    weights: int
    working: int

    @property
    def total(self) -> int:
        """Bytes while a picture is encoded."""
        return self.weights + self.working


@dataclass(frozen=True, eq=False)
class Clip:
    """CLIP's vision tower with what prepares pictures for it.

    Attributes:
        model: the network.
        processor: resizes, crops and normalises.
        pooled: the projected embedding is the one token; else the states of the patches, without the class token.
    """

    model: CLIPVisionModelWithProjection
    processor: CLIPImageProcessor
    pooled: bool

    @torch.no_grad()
    def encode_parts(self, pictures: np.ndarray) -> dict[str, torch.Tensor]:
        """Encode pictures; see `LoadedImage.encode_parts`."""
        found = self.processor(images=list(pictures), return_tensors="pt").pixel_values
        network: Any = self.model
        output = network(found.to(execution_device(network), network.dtype))
        tokens: torch.Tensor = output.image_embeds[:, None] if self.pooled else output.last_hidden_state[:, 1:]
        return {"image": tokens, "image_mask": torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)}

    def no_parts(self, rows: int) -> dict[str, torch.Tensor]:
        """Return zeros with a mask of 0."""
        config: Any = self.model.config
        patches = (config.image_size // config.patch_size) ** 2
        shape = (rows, 1, config.projection_dim) if self.pooled else (rows, patches, config.hidden_size)
        network: Any = self.model
        return {
            "image": torch.zeros(shape, dtype=network.dtype),
            "image_mask": torch.zeros(shape[:2], dtype=torch.bool),
        }


@dataclass(frozen=True)
class ClipEmbedding:
    """V3: one token, the projected embedding (768 channels of ViT-L/14)."""

    name: str = "clip_embedding"

    @property
    def classes(self) -> Mapping[str, tuple[str, str]]:
        """Name the vision tower."""
        return {"image_encoder": ("transformers", CLASS_NAME)}

    def load(self, folder: Path, dtype: torch.dtype | None = None, device: str | torch.device = "cpu") -> Clip:
        """Load; see `ImageEncoder.load`."""
        return load_clip(folder, True, dtype, device)

    def width(self, folder: Path) -> int:
        """Return the channels of the projection."""
        return config_of_clip(folder).projection_dim

    def need(self, folder: Path, size: int) -> ImageNeed:
        """Predict memory; see `ImageEncoder.need`."""
        return need_of_clip(folder, size)

    def build_tiny(self, folder: Path, width: int) -> None:
        """Write a small encoder."""
        build_tiny_clip(folder, hidden=32, projection=width)


@dataclass(frozen=True)
class ClipTokens:
    """V4: the last states of the patches (256 tokens of 1024 channels of ViT-L/14)."""

    name: str = "clip_tokens"

    @property
    def classes(self) -> Mapping[str, tuple[str, str]]:
        """Name the vision tower."""
        return {"image_encoder": ("transformers", CLASS_NAME)}

    def load(self, folder: Path, dtype: torch.dtype | None = None, device: str | torch.device = "cpu") -> Clip:
        """Load; see `ImageEncoder.load`."""
        return load_clip(folder, False, dtype, device)

    def width(self, folder: Path) -> int:
        """Return the channels of the states."""
        return config_of_clip(folder).hidden_size

    def need(self, folder: Path, size: int) -> ImageNeed:
        """Predict memory; see `ImageEncoder.need`."""
        return need_of_clip(folder, size)

    def build_tiny(self, folder: Path, width: int) -> None:
        """Write a small encoder."""
        build_tiny_clip(folder, hidden=width, projection=32)


def image_folder(folder: Path) -> Path:
    """Return `image_encoder/` inside a pipeline folder, else the folder itself."""
    return folder / "image_encoder" if (folder / "image_encoder").is_dir() else folder


def config_of_clip(folder: Path) -> CLIPVisionConfig:
    """Read the configuration of CLIP's vision tower, from a file of its own or of the whole of CLIP.

    Raises:
        ModelError: there is none that can be read.
    """
    try:
        return CLIPVisionConfig.from_pretrained(image_folder(folder), local_files_only=True)
    except (OSError, ValueError, TypeError, StrictDataclassError) as error:
        raise ModelError(f"{folder}: no image encoder here ({one_line(error)}); give a folder of CLIP's") from None


def need_of_clip(folder: Path, size: int) -> ImageNeed:
    """Count the weights of CLIP's vision tower by its configuration, and predict one picture's activations.

    Raises:
        ModelError: there is no configuration that can be read.
    """
    config: Any = config_of_clip(folder)
    with torch.device("meta"):
        network = CLIPVisionModelWithProjection(config)
    tokens = (config.image_size // config.patch_size) ** 2 + 1
    return ImageNeed(size * sum(p.numel() for p in network.parameters()), working_bytes(network, tokens, size))


def build_tiny_clip(folder: Path, hidden: int, projection: int, seed: int = 2) -> None:
    """Write a vision tower of 16 patches with random weights; torch's global generator is not touched."""
    config = CLIPVisionConfig(
        hidden_size=hidden, intermediate_size=2 * hidden, projection_dim=projection, num_hidden_layers=2,
        num_attention_heads=2, image_size=TINY_SIDE, patch_size=TINY_SIDE // 4,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = CLIPVisionModelWithProjection(config)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_folder(folder / "image_encoder") as temporary:
        model.save_pretrained(temporary)


def load_clip(folder: Path, pooled: bool, dtype: torch.dtype | None, device: str | torch.device) -> Clip:
    """Load CLIP's vision tower; pictures are prepared by the folder's own settings, else by CLIP's.

    Raises:
        ModelError: there is none, it is of another class, or weights that do not fit it.
    """
    home = image_folder(folder)
    try:
        classes = read_json(home / "config.json").get("architectures")
    except (OSError, ValueError, AttributeError):
        raise ModelError(f"{folder}: no image encoder here; give a folder with image_encoder/ of CLIP") from None
    if classes not in ([CLASS_NAME], ["CLIPModel"]):
        raise ModelError(f"{home}: an image encoder of class {classes}; images are read with {CLASS_NAME}")
    variant = find_weights(home, TRANSFORMERS_STEM).variant
    try:
        loaded: Any = CLIPVisionModelWithProjection.from_pretrained(
            home,
            dtype="auto" if dtype is None else dtype,
            variant=variant,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
        )
        model, report = loaded
        side = model.config.image_size
        settings = home / "preprocessor_config.json"
        processor = (
            CLIPImageProcessor.from_pretrained(home, local_files_only=True)
            if settings.is_file()
            else CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
        )
    except (OSError, ValueError, TypeError, RuntimeError, ImportError, SafetensorError) as error:
        why = one_line(error)
        raise ModelError(f"{home}: no image encoder can be loaded ({why}); fetch the folder again") from None
    check_complete(report, home)
    return Clip(model.to(device).eval().requires_grad_(False), processor, pooled)
