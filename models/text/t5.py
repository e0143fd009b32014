"""The text of EasyAnimate V1–V3: T5-XXL (arXiv 1910.10683), 120 tokens with their mask, as PixArt-α reads it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.text.masked_text import (
    T5_NETWORKS,
    MaskedText,
    empty_masked,
    find_parts,
    load_masked,
    load_tokenizer,
    width_of,
    working_bytes,
)
from models.text.tiny_masked import TINY_WIDTH, build_tiny_t5, tiny_t5_tokenizer

POSITIONS = 120
"""tokens that the published weights were trained with"""


def plain(caption: str) -> str:
    """Return a caption as PixArt-α's pipeline reads it: in small letters, without space around it."""
    return caption.lower().strip()


@dataclass(frozen=True, eq=False)
class LoadedT5:
    """The encoder, loaded."""

    text: MaskedText

    @property
    def model(self) -> nn.Module:
        """The network."""
        return self.text.model

    @property
    def positions(self) -> int:
        """Length of an embedding."""
        return self.text.positions

    def encode_parts(self, captions: Sequence[str]) -> dict[str, torch.Tensor]:
        """Encode captions; see `models.text.encoder.LoadedText`."""
        embeddings, mask = self.text.encode(captions)
        return {"text": embeddings, "text_mask": mask}

    def truncated(self, captions: Sequence[str]) -> list[bool]:
        """Return which captions are longer than an embedding."""
        return self.text.truncated(captions)


@dataclass(frozen=True)
class T5:
    """The kind as everybody outside uses it; see `models.text.encoder.TextEncoder`."""

    name: str = "t5"
    parts: tuple[str, ...] = ("text", "text_mask")

    @property
    def classes(self) -> Mapping[str, tuple[str, str]]:
        """Name encoder and tokenizer."""
        return {"text_encoder": ("transformers", "T5EncoderModel"), "tokenizer": ("transformers", "T5Tokenizer")}

    def find(self, folder: Path) -> Mapping[str, Path]:
        """Find encoder and tokenizer."""
        encoder, tokenizer = find_parts(folder, "", T5_NETWORKS)
        return {"text_encoder": encoder, "tokenizer": tokenizer}

    def tokenizer(self, folder: Path | None) -> Any:
        """Load the tokenizer."""
        return tiny_t5_tokenizer() if folder is None else load_tokenizer(self.find(folder)["tokenizer"])

    def prompts(self, tokenizer: Any, captions: Sequence[str]) -> list[str]:
        """Return the captions in small letters, without space around them."""
        return [plain(caption) for caption in captions]

    def load(
        self, folder: Path, positions: int = POSITIONS, dtype: torch.dtype | None = None,
        device: str | torch.device = "cpu",
    ) -> LoadedT5:  # fmt: skip
        """Load; see `models.text.masked_text.load_masked`."""
        folders = find_parts(folder, "", T5_NETWORKS)
        return LoadedT5(load_masked(folders, T5_NETWORKS, positions, dtype, device, prepare=plain))

    def empty(self, folder: Path) -> nn.Module:
        """Build the network on the meta device."""
        return empty_masked(self.find(folder)["text_encoder"], T5_NETWORKS)

    def widths(self, folder: Path) -> Mapping[str, int]:
        """Read the channels of an embedding."""
        return {"text": width_of(self.find(folder)["text_encoder"])}

    def working_bytes(self, network: nn.Module, tokens: int, size: int) -> int:
        """Predict what encoding a caption takes."""
        return working_bytes(network, tokens, size)

    def build_tiny(self, folder: Path) -> None:
        """Write a small encoder with random weights."""
        build_tiny_t5(folder, "")

    @property
    def tiny_widths(self) -> Mapping[str, int]:
        """Return the small encoder's channels."""
        return {"text": TINY_WIDTH}
