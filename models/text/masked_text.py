"""Text encoders whose last states are an embedding with a mask: T5, mT5 and BERT, with their tokenizers.

How texts are cut and padded follows EasyAnimate V1–V5's pipelines, which follow those of PixArt-α and HunyuanDiT.
"""

import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import nn
from transformers import AutoTokenizer, BertConfig, BertModel, MT5Config, MT5EncoderModel, T5Config, T5EncoderModel

from models.errors import ModelError, check_complete, one_line
from models.memory.devices import execution_device
from models.weights.json_file import read_json
from models.weights.weight_files import TRANSFORMERS_STEM, find_weights

UNREADABLE = (
    OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, ImportError, SafetensorError,
    StrictDataclassError,
)  # fmt: skip
TOKENIZER_FILES = ("tokenizer.json", "spiece.model", "vocab.txt")
PICKLES = "pytorch_model*.bin"


@dataclass(frozen=True)
class Network:
    """A network that can encode texts.

    Attributes:
        config: its configuration's class.
        model: the network's class.
        options: of the class.
    """

    config: Any
    model: Any
    options: Mapping[str, Any]


# By `model_type` in config.json. What a published file has beyond these (a decoder, a pooled output) is not read.
T5_NETWORKS: Mapping[str, Network] = {
    "t5": Network(T5Config, T5EncoderModel, {}),
    "mt5": Network(MT5Config, MT5EncoderModel, {}),
}
BERT_NETWORKS: Mapping[str, Network] = {"bert": Network(BertConfig, BertModel, {"add_pooling_layer": False})}


@dataclass(frozen=True, eq=False)
class MaskedText:
    """One encoder with its tokenizer.

    Attributes:
        model: the network, in evaluation mode.
        tokenizer: that belongs to it.
        positions: length of an embedding in tokens; shorter texts are padded, longer ones cut.
        cut_at: where it is less than the positions, texts are first tokenized, cut to so many tokens and written out
            again, and the result is encoded; None: they are not.
        prepare: is applied to a caption first.
    """

    model: nn.Module
    tokenizer: Any
    positions: int
    cut_at: int | None = None
    prepare: Callable[[str], str] = str

    @torch.no_grad()
    def encode(self, captions: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode captions.

        Returns:
            Embeddings (B, positions, D) in the network's type, and the mask (B, positions), bool, True for a token;
            both on its device. The network saw the mask, too.
        """
        tokens = self._tokenize([self.prepare(caption) for caption in captions])
        if self._is_cut:
            texts = self.tokenizer.batch_decode(tokens.input_ids[:, : self.cut_at], skip_special_tokens=True)
            tokens = self._tokenize(texts)
        device = execution_device(self.model)
        mask = tokens.attention_mask.to(device)
        embeddings: torch.Tensor = self.model(input_ids=tokens.input_ids.to(device), attention_mask=mask)[0]
        return embeddings, mask.bool()

    def truncated(self, captions: Sequence[str]) -> list[bool]:
        """Return which captions have more tokens, with the closing one, than are encoded."""
        if not captions:
            return []
        # The cut keeps all of the first `cut_at` tokens, and the closing one follows them.
        most = min(self.positions, (self.cut_at or 0) + 1) if self._is_cut else self.positions
        found = self.tokenizer([self.prepare(caption) for caption in captions]).input_ids
        return [len(tokens) > most for tokens in found]

    @property
    def _is_cut(self) -> bool:
        return self.cut_at is not None and self.cut_at < self.positions

    def _tokenize(self, texts: Sequence[str]) -> Any:
        return self.tokenizer(
            list(texts),
            padding="max_length",
            max_length=self.positions,
            truncation=True,
            return_attention_mask=True,
            padding_side="right",
            return_tensors="pt",
        )


def find_parts(folder: Path, suffix: str, networks: Mapping[str, Network]) -> tuple[Path, Path]:
    """Find an encoder's folder and its tokenizer's.

    Args:
        folder: a pipeline folder with `text_encoder<suffix>/` and `tokenizer<suffix>/`, the encoder's folder with its
            tokenizer's beside it, or one folder with the files of both.
        suffix: empty, or `_2` for the second encoder.
        networks: that may be there.

    Raises:
        ModelError: one of them is not there, or the encoder is another network.
    """
    folder = Path(folder)
    name, tokens_name = f"text_encoder{suffix}", f"tokenizer{suffix}"
    encoder = folder / name if (folder / name).is_dir() else folder
    try:
        found = read_json(encoder / "config.json").get("model_type")
    except (OSError, ValueError, AttributeError):
        raise ModelError(f"{folder}: no {name} here; give a pipeline folder with {name}/ and {tokens_name}/") from None
    if found not in networks:
        raise ModelError(f"{encoder}: a text encoder of type {found}; this family's {name} is {' or '.join(networks)}")
    for place in (folder / tokens_name, encoder, encoder.parent / tokens_name):
        if any((place / file).is_file() for file in TOKENIZER_FILES):
            return encoder, place
    beside = encoder.parent / tokens_name
    raise ModelError(f"{folder}: no {tokens_name}; it belongs beside the text encoder, as {beside}")


def load_masked(
    folders: tuple[Path, Path],
    networks: Mapping[str, Network],
    positions: int,
    dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
    cut_at: int | None = None,
    prepare: Callable[[str], str] = str,
) -> MaskedText:
    """Load an encoder and its tokenizer.

    Args:
        folders: as `find_parts` finds them.
        networks: that may be there.
        positions: length of an embedding in tokens.
        dtype: None keeps the one that the files have.
        device: where it computes.
        cut_at: see `MaskedText`.
        prepare: see `MaskedText`.

    Raises:
        ModelError: files that are missing or do not fit each other.
    """
    home, tokens = folders
    if positions < 1:
        raise ModelError(f"text encoder: {positions} positions; at least 1")
    network = networks[read_json(home / "config.json")["model_type"]]
    safe = not any(home.glob(PICKLES)) or any(home.glob("*.safetensors"))
    variant = find_weights(home, TRANSFORMERS_STEM).variant if safe else None
    try:
        model, report = network.model.from_pretrained(
            home,
            dtype="auto" if dtype is None else dtype,
            variant=variant,
            local_files_only=True,
            use_safetensors=safe,
            weights_only=True,
            output_loading_info=True,
            **network.options,
        )
    except pickle.UnpicklingError:
        raise ModelError(f"{home}: {PICKLES} holds more than tensors; give safetensors") from None
    except UNREADABLE as error:
        why = one_line(error)
        raise ModelError(f"{home}: no text encoder can be loaded ({why}); fetch the folder again") from None
    check_complete(report, home)
    tokenizer = load_tokenizer(tokens)
    if len(tokenizer) > model.config.vocab_size:
        raise ModelError(
            f"{tokens}: {len(tokenizer)} tokens, but {home} knows {model.config.vocab_size}; give the tokenizer that "
            "belongs to this encoder"
        )
    longest = getattr(model.config, "max_position_embeddings", None)  # T5 has no such number
    if longest is not None and positions > longest:
        raise ModelError(f"text encoder: {positions} positions; this encoder has {longest}")
    return MaskedText(model.to(device).eval().requires_grad_(False), tokenizer, positions, cut_at, prepare)


def load_tokenizer(folder: Path) -> Any:
    """Load a tokenizer that needs no code from outside.

    Raises:
        ModelError: it cannot be loaded, or pads with no token.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except UNREADABLE as error:
        why = one_line(error)
        raise ModelError(f"{folder}: no tokenizer can be loaded ({why}); copy it from the pipeline") from None
    if tokenizer.pad_token_id is None:
        raise ModelError(f"{folder}: the tokenizer has no token for padding; copy it from the pipeline")
    return tokenizer


def empty_masked(folder: Path, networks: Mapping[str, Network]) -> nn.Module:
    """Build an encoder on the `meta` device from its folder's configuration.

    Raises:
        ModelError: it does not fit.
    """
    file = folder / "config.json"
    try:
        values = read_json(file)
        network = networks[values["model_type"]]
        with torch.device("meta"):
            model: nn.Module = network.model(network.config.from_dict(values), **network.options)
    except UNREADABLE as error:
        raise ModelError(f"{file}: {one_line(error)}; fetch the file again") from None
    return model


def width_of(folder: Path) -> int:
    """Read the channels of an embedding from an encoder's configuration; 0 where it has none."""
    values = read_json(folder / "config.json")
    return int(values.get("d_model") or values.get("hidden_size") or 0)


def working_bytes(network: nn.Module, tokens: int, size: int) -> int:
    """Predict what encoding a caption, or a picture, takes: one layer's states and its scores.

    Args:
        network: a transformer whose config names its widths and heads.
        tokens: of the caption or picture.
        size: bytes of a value.
    """
    config: Any = network.config
    hidden = config.d_ff if hasattr(config, "d_ff") else config.intermediate_size
    per_token = 8 * config.hidden_size + 3 * hidden + 3 * config.num_attention_heads * tokens
    return int(tokens * per_token * size)
