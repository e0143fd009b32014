"""The two texts of EasyAnimate V4 and V5: HunyuanDiT's bilingual CLIP (a BERT) and mT5 (arXiv 2010.11934)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.text.masked_text import (
    BERT_NETWORKS,
    T5_NETWORKS,
    MaskedText,
    empty_masked,
    find_parts,
    load_masked,
    load_tokenizer,
    width_of,
    working_bytes,
)
from models.text.tiny_masked import TINY_WIDTH, build_tiny_bert, build_tiny_t5, tiny_bert_tokenizer

POSITIONS = 77
"""tokens of the first text, which CLIP was trained with"""
SECOND_POSITIONS = 256
FIRST, SECOND = "text_encoder", "text_encoder_2"


@dataclass(frozen=True, eq=False)
class LoadedPair:
    """Both encoders, loaded.

    Attributes:
        first: CLIP.
        second: mT5.
        model: both networks as one module.
    """

    first: MaskedText
    second: MaskedText
    model: nn.Module

    @property
    def positions(self) -> int:
        """Length of the first text's embedding."""
        return self.first.positions

    def encode_parts(self, captions: Sequence[str]) -> dict[str, torch.Tensor]:
        """Encode captions; see `models.text.encoder.LoadedText`."""
        (text, mask), (second, second_mask) = self.first.encode(captions), self.second.encode(captions)
        return {"text": text, "text_mask": mask, "second_text": second, "second_text_mask": second_mask}

    def truncated(self, captions: Sequence[str]) -> list[bool]:
        """Return which captions are cut for one of the encoders."""
        pairs = zip(self.first.truncated(captions), self.second.truncated(captions), strict=True)
        return [first or second for first, second in pairs]


@dataclass(frozen=True)
class ClipAndMt5:
    """The kind as everybody outside uses it; see `models.text.encoder.TextEncoder`.

    Attributes:
        name: what families call it.
        cut_at: see `MaskedText`; V4's pipeline cuts texts to 140 tokens before mT5 reads them.
        parts: what it yields.
    """

    name: str
    cut_at: int | None = None
    parts: tuple[str, ...] = ("text", "text_mask", "second_text", "second_text_mask")

    @property
    def classes(self) -> Mapping[str, tuple[str, str]]:
        """Name encoders and tokenizers."""
        return {
            "text_encoder": ("transformers", "BertModel"),
            "tokenizer": ("transformers", "BertTokenizer"),
            "text_encoder_2": ("transformers", "T5EncoderModel"),
            "tokenizer_2": ("transformers", "T5Tokenizer"),
        }

    def find(self, folder: Path) -> Mapping[str, Path]:
        """Find encoders and tokenizers in a pipeline folder."""
        encoder, tokenizer = find_parts(folder, "", BERT_NETWORKS)
        encoder_2, tokenizer_2 = find_parts(folder, "_2", T5_NETWORKS)
        return {
            "text_encoder": encoder,
            "tokenizer": tokenizer,
            "text_encoder_2": encoder_2,
            "tokenizer_2": tokenizer_2,
        }

    def tokenizer(self, folder: Path | None) -> Any:
        """Load CLIP's tokenizer."""
        return tiny_bert_tokenizer(POSITIONS) if folder is None else load_tokenizer(self.find(folder)["tokenizer"])

    def prompts(self, tokenizer: Any, captions: Sequence[str]) -> list[str]:
        """Return the captions as they are."""
        return list(captions)

    def load(
        self, folder: Path, positions: int = POSITIONS, dtype: torch.dtype | None = None,
        device: str | torch.device = "cpu",
    ) -> LoadedPair:  # fmt: skip
        """Load both; see `models.text.masked_text.load_masked`.

        Raises:
            ModelError: as there, or more positions than CLIP has.
        """
        found = self.find(folder)
        first = load_masked((found["text_encoder"], found["tokenizer"]), BERT_NETWORKS, positions, dtype, device)
        second = load_masked(
            (found["text_encoder_2"], found["tokenizer_2"]), T5_NETWORKS, SECOND_POSITIONS, dtype, device, self.cut_at
        )
        return LoadedPair(first, second, _both(first.model, second.model).eval())

    def empty(self, folder: Path) -> nn.Module:
        """Build both networks on the meta device."""
        found = self.find(folder)
        return _both(
            empty_masked(found["text_encoder"], BERT_NETWORKS), empty_masked(found["text_encoder_2"], T5_NETWORKS)
        )

    def widths(self, folder: Path) -> Mapping[str, int]:
        """Read the channels of both embeddings."""
        found = self.find(folder)
        return {"text": width_of(found["text_encoder"]), "second_text": width_of(found["text_encoder_2"])}

    def working_bytes(self, network: nn.Module, tokens: int, size: int) -> int:
        """Predict what encoding a caption takes: one after the other."""
        both: Any = network
        return max(working_bytes(both[FIRST], tokens, size), working_bytes(both[SECOND], SECOND_POSITIONS, size))

    def build_tiny(self, folder: Path) -> None:
        """Write small encoders with random weights; `tokenizer/` comes last."""
        build_tiny_t5(folder, "_2")
        build_tiny_bert(folder, "", POSITIONS)

    @property
    def tiny_widths(self) -> Mapping[str, int]:
        """Return the small encoders' channels."""
        return {"text": TINY_WIDTH, "second_text": TINY_WIDTH}


V4_TEXT = ClipAndMt5("clip_and_mt5_140", cut_at=140)
V5_TEXT = ClipAndMt5("clip_and_mt5")


def _both(first: nn.Module, second: nn.Module) -> nn.ModuleDict:
    return nn.ModuleDict({FIRST: first, SECOND: second})
