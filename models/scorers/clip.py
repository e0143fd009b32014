"""CLIP towers (Radford et al. 2021, arXiv 2103.00020) through open_clip: pictures and texts to unit vectors."""

import hashlib
import pickle
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.errors import ModelError, one_line
from models.scorers.clip_text import chunks
from models.weights.find import find_weights
from models.weights.json_file import read_json

CONFIG_FILE = "open_clip_config.json"
WEIGHTS_FILE = "open_clip_model.safetensors"
DTYPES = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
TEXT_BATCH = 256
REMEMBERED = 4096
"""embeddings of pictures kept, so that operators that look at the same frames encode them once"""


@dataclass(frozen=True)
class Published:
    """A tower of OpenAI: open_clip's name of its architecture, its weights in `WEIGHTS`, its embeddings' length."""

    architecture: str
    weights: str
    dim: int


# "quickgelu": OpenAI trained with x·sigmoid(1.702x); the plain architectures would take the same weights silently.
TOWERS: dict[str, Published] = {
    "ViT-L-14": Published("ViT-L-14-quickgelu", "clip-vit-l-14", 768),
    "ViT-L-14-336": Published("ViT-L-14-336-quickgelu", "clip-vit-l-336", 768),
    "ViT-B-16": Published("ViT-B-16-quickgelu", "clip-vit-b-16", 512),
    "ViT-B-32": Published("ViT-B-32-quickgelu", "clip-vit-b-32", 512),
}

_LOADED: dict[tuple[str, str | None, str, str], "ClipTower"] = {}
_LOADING = threading.Lock()


class ClipTower:
    """A loaded CLIP with its own preprocessing and tokenizer; its methods may be called from several threads.

    Attributes:
        dim: length of an embedding.
        device: where it computes.
    """

    def __init__(self, model: Any, tokenizer: Any, dim: int, device: str, dtype: str):
        """Take a model of open_clip, in evaluation mode, and its tokenizer."""
        import torch
        from open_clip.transform import PreprocessCfg, image_transform_v2

        self.dim, self.device = dim, device
        self._model, self._tokenizer = model, tokenizer
        self._dtype = getattr(torch, dtype)
        self._prepare = image_transform_v2(PreprocessCfg(**model.visual.preprocess_cfg), is_train=False)
        self._threads = ThreadPoolExecutor(max(1, torch.get_num_threads()), "clip-pictures")
        self._known: OrderedDict[bytes, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def encode_images(self, pictures: Sequence[np.ndarray], batch: int = 32) -> np.ndarray:
        """Encode pictures, each content once: equal ones, and ones seen lately, share an embedding.

        Args:
            pictures: uint8 (H, W, 3) RGB, of any sizes; scaled and cropped as the model's preprocessing says.
            batch: pictures that go through the network at once.

        Returns:
            float32 (N, dim) of unit length.
        """
        keys = [_content(picture) for picture in pictures]
        with self._lock:
            new = {key: picture for key, picture in zip(keys, pictures, strict=True) if key not in self._known}
            found = {key: self._known[key] for key in keys if key in self._known}
            found |= zip(new, self._encode(list(new.values()), batch), strict=True)
            for key in keys:
                self._known[key] = found[key]
                self._known.move_to_end(key)
            while len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        return np.stack([found[key] for key in keys]) if keys else np.zeros((0, self.dim), np.float32)

    def embed(self, pictures: Any) -> Any:
        """Encode pictures in torch, so that a gradient reaches them; nothing is remembered.

        Args:
            pictures: tensor (N, 3, H, W) in 0..1, scaled bicubically on its device, cut in the middle and normalised
                as CLIP's preprocessing does, but not rounded to 8 bits.

        Returns:
            Tensor (N, dim) of unit length, float32.
        """
        import torch.nn.functional as F

        from models.scorers.clip_pictures import prepared

        side_px = self._model.visual.preprocess_cfg["size"]
        side_px = side_px if isinstance(side_px, int) else side_px[0]
        features = self._model.encode_image(prepared(pictures, side_px).to(self._dtype), normalize=False)
        return F.normalize(features.float(), dim=-1)

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Encode texts; what does not fit the window is cut off (see `split_text`).

        Args:
            texts: any number.

        Returns:
            float32 (N, dim) of unit length.
        """
        import torch

        parts = [np.zeros((0, self.dim), np.float32)]
        with self._lock, torch.inference_mode():
            for start in range(0, len(texts), TEXT_BATCH):
                tokens = self._tokenizer(list(texts[start : start + TEXT_BATCH])).to(self.device)
                parts.append(_plain(self._model.encode_text(tokens, normalize=False)))
        return np.concatenate(parts)

    def split_text(self, text: str) -> list[str]:
        """Cut a text into chunks of whole sentences that each fit the window, 77 tokens with their two ends."""
        with self._lock:
            return chunks(text, self._tokenizer.context_length - 2, self._count)

    def _count(self, text: str) -> int:
        if hasattr(self._tokenizer, "encode"):
            return len(self._tokenizer.encode(text))
        return len(self._tokenizer.tokenizer(text).input_ids)  # open_clip's wrapper of transformers' tokenizers

    def _encode(self, pictures: list[np.ndarray], batch: int) -> list[np.ndarray]:
        import torch

        vectors: list[np.ndarray] = []
        # The threads prepare the next batches while the network works on this one.
        prepared = self._threads.map(self._pixels, pictures)
        with torch.inference_mode():
            for start in range(0, len(pictures), batch):
                pixels = torch.stack([next(prepared) for _ in pictures[start : start + batch]])
                features = self._model.encode_image(pixels.to(self.device, self._dtype), normalize=False)
                vectors.extend(_plain(features))
        return vectors

    def _pixels(self, picture: np.ndarray) -> Any:
        from PIL import Image

        return self._prepare(Image.fromarray(picture))


def load_tower(model: str, weights: str | None = None, device: str = "auto", dtype: str = "auto") -> ClipTower:
    """Load a tower; within one process the same one is loaded once, for all who ask.

    Args:
        model: a name of `TOWERS`, or a folder in open_clip's layout (`open_clip_config.json` and
            `open_clip_model.safetensors`).
        weights: the weights folder; None: the one of `SELECTS_WEIGHTS`, if any.
        device: as torch names it; `auto`: the GPU if there is one.
        dtype: float32, float16 or bfloat16; `auto`: float16 on a GPU, else float32.

    Raises:
        ModelError: no such model, weights that cannot be had or do not fit, a device that is not there, or
            open_clip is not installed.
    """
    try:
        import open_clip  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModelError(f"CLIP needs {error.name}: pip install 'selects-video[scores]'") from None
    device = pick_device(device)
    dtype = ("float16" if device.startswith("cuda") else "float32") if dtype == "auto" else dtype
    if dtype not in DTYPES:
        raise ModelError(f"CLIP: no dtype '{dtype}'; choose auto, {', '.join(DTYPES)}")
    key = (model, weights, device, dtype)
    with _LOADING:
        if key not in _LOADED:
            _LOADED[key] = _load(*key)
        return _LOADED[key]


def pick_device(device: str) -> str:
    """Return the device that `auto` stands for on this machine; others are checked.

    Raises:
        ModelError: it asks for a GPU and there is none.
    """
    from models.accelerator import own_device

    if device == "auto":
        return str(own_device())
    if device.startswith("cuda") and own_device().type != "cuda":
        raise ModelError(f"device '{device}': no GPU here that torch can use; take device=cpu or auto")
    return device


def embedding_dim(model: str) -> int:
    """Return the length of a model's embeddings without loading it.

    Raises:
        ModelError: no such model.
    """
    return TOWERS[model].dim if model in TOWERS else int(_read_config(model)["embed_dim"])


def needed_weights(model: str) -> tuple[str, ...]:
    """Return the names of `WEIGHTS` that a model needs; none for a folder."""
    return (TOWERS[model].weights,) if model in TOWERS else ()


def _load(model: str, weights: str | None, device: str, dtype: str) -> ClipTower:
    import open_clip
    from safetensors import SafetensorError

    if model in TOWERS:
        name, file = TOWERS[model].architecture, find_weights(TOWERS[model].weights, weights)
        given: dict[str, Any] = {"pretrained": str(file)}
    else:
        _read_config(model)
        name, file, given = f"local-dir:{model}", Path(model) / WEIGHTS_FILE, {}
        if not file.is_file():
            raise ModelError(f"{file}: no such file; a CLIP folder holds {CONFIG_FILE} and {WEIGHTS_FILE}")
    try:
        network = open_clip.create_model(
            name, precision=DTYPES[dtype], device=device, require_pretrained=True, weights_only=True, **given
        )
        tokenizer = open_clip.get_tokenizer(name)
    except (OSError, RuntimeError, ValueError, TypeError, KeyError, SafetensorError, pickle.UnpicklingError) as error:
        raise ModelError(f"{file}: not loadable as CLIP {model} ({one_line(error)[:200]})") from None
    return ClipTower(network.eval().requires_grad_(False), tokenizer, embedding_dim(model), device, dtype)


def _read_config(model: str) -> dict[str, Any]:
    """Read the architecture in a folder of open_clip's layout.

    Raises:
        ModelError: no such folder, or not in that layout.
    """
    path = Path(model) / CONFIG_FILE
    try:
        config = read_json(path)["model_cfg"]
        if all(part in config for part in ("embed_dim", "vision_cfg", "text_cfg")):
            return dict(config)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise ModelError(f"CLIP '{model}': neither one of {', '.join(TOWERS)} nor a folder with {CONFIG_FILE}")


def _content(picture: np.ndarray) -> bytes:
    digest = hashlib.blake2b(str(picture.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(picture).data)
    return digest.digest()


def _plain(features: Any) -> np.ndarray:
    """Return float32 rows of unit length; the length is taken in float32, whatever the network computed in."""
    import torch.nn.functional as F

    rows: np.ndarray = F.normalize(features.float(), dim=-1).cpu().numpy()
    return rows
