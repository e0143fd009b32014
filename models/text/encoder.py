"""What the cache and the sampler need to know of text encoders."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn


class LoadedText(Protocol):
    """Encoders of a text with their tokenizers, loaded."""

    @property
    def model(self) -> nn.Module:
        """The network, or all networks as one module, in evaluation mode."""
        ...

    @property
    def positions(self) -> int:
        """Length of the first text's embedding."""
        ...

    def encode_parts(self, captions: Sequence[str]) -> dict[str, torch.Tensor]:
        """Encode captions, none of which depends on the others.

        Args:
            captions: at least one.

        Returns:
            By the names of `models.transformers.conditioning.TEXT_PARTS`, those that the kind yields: embeddings
            (B, L, D) in the network's type, masks (B, L) bool, on its device.
        """
        ...

    def truncated(self, captions: Sequence[str]) -> list[bool]:
        """Return which captions have more tokens than there are positions, in any of the encoders."""
        ...


class TextEncoder(Protocol):
    """One kind of text encoding: another one is a file with such an object and an entry in TEXT_ENCODERS.

    A kind with two encoders (`text_encoder/` and `text_encoder_2/`) is one such object that yields both texts.
    """

    @property
    def name(self) -> str:
        """What families call it."""
        ...

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts of `models.transformers.conditioning.Conditioning` that it yields."""
        ...

    @property
    def classes(self) -> Mapping[str, tuple[str, str]]:
        """Library and class of each component of a pipeline, as `model_index.json` names them."""
        ...

    def find(self, folder: Path) -> Mapping[str, Path]:
        """Find the folders of encoders and tokenizers, by component.

        Args:
            folder: a pipeline folder, an encoder's with its tokenizer beside it, or one with the files of both.

        Raises:
            ModelError: one of them is not there, or an encoder is of another class.
        """
        ...

    def tokenizer(self, folder: Path | None) -> Any:
        """Load the first text's tokenizer alone; None: that of `build_tiny`.

        Raises:
            ModelError: as `find`, or it cannot be loaded.
        """
        ...

    def prompts(self, tokenizer: Any, captions: Sequence[str]) -> list[str]:
        """Return each caption as that tokenizer is given it."""
        ...

    def load(
        self, folder: Path, positions: int, dtype: torch.dtype | None = None, device: str | torch.device = "cpu"
    ) -> LoadedText:
        """Load encoders and tokenizers; None keeps the type that the files have.

        Raises:
            ModelError: as `find`, or files that do not fit each other.
        """
        ...

    def empty(self, folder: Path) -> nn.Module:
        """Build the networks on the meta device: shapes without memory for weights.

        Raises:
            ModelError: as `find`.
        """
        ...

    def widths(self, folder: Path) -> Mapping[str, int]:
        """Return the channels of the embeddings `text` and, where there is one, `second_text`.

        Raises:
            ModelError: as `find`.
        """
        ...

    def working_bytes(self, network: nn.Module, tokens: int, size: int) -> int:
        """Predict what encoding a caption takes beside weights; `size` is the bytes of a value."""
        ...

    def build_tiny(self, folder: Path) -> None:
        """Write small encoders with random weights, so that training runs without downloads."""
        ...

    @property
    def tiny_widths(self) -> Mapping[str, int]:
        """As `widths`, of what `build_tiny` writes."""
        ...
