"""The text encoder of EasyAnimate V5.1: the penultimate layer of Qwen2-VL, as diffusers' pipeline computes it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from tokenizers import pre_tokenizers
from torch import nn
from transformers import Qwen2Tokenizer, Qwen2VLConfig, Qwen2VLForConditionalGeneration

from models.errors import ModelError, check_complete, one_line
from models.memory.devices import execution_device
from models.text.tiny_weights import draw_weights, write_encoder
from models.weights.json_file import read_json
from models.weights.published_config import warn_of_unknown
from models.weights.weight_files import TRANSFORMERS_STEM, find_weights

CLASS_NAME = "Qwen2VLForConditionalGeneration"
POSITIONS = 256
# What transformers raises on files that are damaged, of another kind, or quantised by a library that is not there.
UNREADABLE = (OSError, ValueError, TypeError, RuntimeError, ImportError, SafetensorError, StrictDataclassError)
# Of published configs: older names of fields that are read under new ones, or that no network reads.
OLDER_FIELDS = frozenset({"torch_dtype", "rope_scaling", "rope_theta", "vision_token_id", "auto_map"})

SPECIAL_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
    "<|video_pad|>",
)  # fmt: skip
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{{ part['text'] }}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TINY_WIDTH = 64
# Deviations of the tiny encoder's weights, times sqrt(inputs); 1 where none is given. Large queries and keys let
# attention pick some bytes out of many, a small embedding lets what was picked outweigh the byte itself: so one
# changed word shows at most of the positions after it.
TINY_GAINS = {"q_proj": 3.0, "k_proj": 3.0, "o_proj": 1.2, "down_proj": 0.8, "embed_tokens": 0.25}
TINY_LOOKUPS = ("embed_tokens",)


class Qwen2VLText:
    """Captions to embeddings.

    Attributes:
        model: the network, in evaluation mode.
        tokenizer: with a chat template.
        positions: length of an embedding; shorter captions are padded, longer ones cut.
    """

    def __init__(self, model: Qwen2VLForConditionalGeneration, tokenizer: Qwen2Tokenizer, positions: int = POSITIONS):
        """Take a loaded network and its tokenizer."""
        if positions < 1:
            raise ModelError(f"text encoder: {positions} positions; at least 1, and 256 for V5.1 weights")
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.positions = positions

    @classmethod
    def load(
        cls,
        folder: Path,
        positions: int = POSITIONS,
        dtype: torch.dtype | None = None,
        device: str | torch.device = "cpu",
    ) -> "Qwen2VLText":
        """Load an encoder and its tokenizer from disk.

        Args:
            folder: a pipeline folder with `text_encoder/` and `tokenizer/`, the encoder's folder with `tokenizer/`
                beside it, or one folder with the files of both.
            positions: length of an embedding in tokens; V5.1 weights were trained with 256.
            dtype: None keeps the one that the files have.
            device: where it computes.

        Raises:
            ModelError: not a Qwen2-VL, or files that are missing or do not fit each other.
        """
        encoder, tokens = find_encoder(folder)
        _warn_of_unknown(encoder / "config.json")
        variant = find_weights(encoder, TRANSFORMERS_STEM).variant
        try:
            loaded: Any = Qwen2VLForConditionalGeneration.from_pretrained(
                encoder,
                dtype="auto" if dtype is None else dtype,
                variant=variant,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
            )
            model, report = loaded
        except UNREADABLE as error:
            why = one_line(error)
            raise ModelError(f"{encoder}: no text encoder can be loaded ({why}); fetch the folder again") from None
        check_complete(report, encoder)
        tokenizer = load_tokenizer(tokens)
        if len(tokenizer) > model.config.text_config.vocab_size:
            raise ModelError(
                f"{tokens}: {len(tokenizer)} tokens, but {encoder} knows {model.config.text_config.vocab_size}; "
                "give the tokenizer that belongs to this encoder"
            )
        return cls(model.to(device), tokenizer, positions)

    @property
    def dim(self) -> int:
        """Channels of an embedding."""
        return int(self.model.config.text_config.hidden_size)

    @torch.no_grad()
    def encode(self, captions: Sequence[str]) -> torch.Tensor:
        """Compute what `diffusers.EasyAnimatePipeline.encode_prompt` computes.

        Args:
            captions: at least one.

        Returns:
            Embeddings (B, positions, dim), in the network's dtype and on its device; padding is included, since
            the transformer sees it unmasked.
        """
        tokens = self.tokenizer(
            text=chat_prompts(self.tokenizer, captions),
            padding="max_length",
            max_length=self.positions,
            truncation=True,
            return_attention_mask=True,
            padding_side="right",
            return_tensors="pt",
        ).to(execution_device(self.model))
        # The network without its head over the vocabulary, which costs memory and changes no hidden state.
        states = self.model.model(
            input_ids=tokens.input_ids, attention_mask=tokens.attention_mask, output_hidden_states=True, use_cache=False
        ).hidden_states
        embeddings: torch.Tensor = states[-2]
        return embeddings

    def encode_parts(self, captions: Sequence[str]) -> dict[str, torch.Tensor]:
        """Return `text`; there is no mask, since the transformer sees padding, too."""
        return {"text": self.encode(captions)}

    def truncated(self, captions: Sequence[str]) -> list[bool]:
        """Return which captions have more tokens, with the chat template's, than there are positions."""
        if not captions:
            return []
        prompts = chat_prompts(self.tokenizer, captions)
        return [len(tokens) > self.positions for tokens in self.tokenizer(text=prompts).input_ids]


@dataclass(frozen=True)
class Qwen2VL:
    """The kind as everybody outside uses it; see `models.text.encoder.TextEncoder`."""

    name: str = "qwen2_vl"
    parts: tuple[str, ...] = ("text",)

    @property
    def classes(self) -> Mapping[str, tuple[str, str]]:
        """Name encoder and tokenizer."""
        return {"text_encoder": ("transformers", CLASS_NAME), "tokenizer": ("transformers", "Qwen2Tokenizer")}

    def find(self, folder: Path) -> Mapping[str, Path]:
        """Find encoder and tokenizer."""
        encoder, tokenizer = find_encoder(folder)
        return {"text_encoder": encoder, "tokenizer": tokenizer}

    def tokenizer(self, folder: Path | None) -> Qwen2Tokenizer:
        """Load the tokenizer."""
        return tiny_tokenizer() if folder is None else load_tokenizer(find_encoder(folder)[1])

    def prompts(self, tokenizer: Qwen2Tokenizer, captions: Sequence[str]) -> list[str]:
        """Return messages with the chat template around them."""
        return chat_prompts(tokenizer, captions)

    def load(
        self, folder: Path, positions: int, dtype: torch.dtype | None = None, device: str | torch.device = "cpu"
    ) -> Qwen2VLText:
        """Load; see `Qwen2VLText.load`."""
        return Qwen2VLText.load(folder, positions, dtype, device)

    def empty(self, folder: Path) -> nn.Module:
        """Build the network on the meta device."""
        return empty_text_encoder(folder)

    def widths(self, folder: Path) -> Mapping[str, int]:
        """Read the channels of an embedding; 0 where the config has none."""
        file = find_encoder(folder)[0] / "config.json"
        config = read_json(file)
        return {"text": int(config.get("hidden_size") or config.get("text_config", {}).get("hidden_size") or 0)}

    def working_bytes(self, network: nn.Module, tokens: int, size: int) -> int:
        """Count the states of all layers, which are kept, and one layer's own."""
        return text_working(network, tokens, size)

    def build_tiny(self, folder: Path) -> None:
        """Write the small encoder; see `build_tiny`."""
        build_tiny(folder)

    @property
    def tiny_widths(self) -> Mapping[str, int]:
        """Return the small encoder's channels."""
        return {"text": TINY_WIDTH}


def empty_text_encoder(folder: Path) -> nn.Module:
    """Build a pipeline's text encoder on the meta device.

    Args:
        folder: as `Qwen2VLText.load` takes it.

    Raises:
        ModelError: no text encoder there.
    """
    file = find_encoder(folder)[0] / "config.json"
    try:
        with torch.device("meta"):
            network: nn.Module = Qwen2VLForConditionalGeneration(Qwen2VLConfig.from_dict(read_json(file)))
    except (OSError, ValueError, TypeError, StrictDataclassError) as error:
        raise ModelError(f"{file}: {one_line(error)}; fetch the file again") from None
    return network


def text_working(text_encoder: nn.Module, tokens: int, size: int) -> int:
    """Predict what encoding a caption takes: the states of all layers, which are kept, and one layer's own."""
    config: Any = text_encoder.config.text_config  # type: ignore[union-attr]
    kept = (config.num_hidden_layers + 1) * config.hidden_size
    return int(tokens * (kept + 8 * config.hidden_size + 3 * config.intermediate_size) * size)


def load_tokenizer(folder: Path) -> Qwen2Tokenizer:
    """Load a tokenizer from its folder (`find_encoder`).

    Raises:
        ModelError: it cannot be loaded, or has no chat template.
    """
    try:
        tokenizer = Qwen2Tokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        why = one_line(error)
        raise ModelError(f"{folder}: no tokenizer can be loaded ({why}); copy it from the pipeline") from None
    if tokenizer.chat_template is None:
        raise ModelError(f"{folder}: the tokenizer has no chat template; copy chat_template.jinja from the pipeline")
    return tokenizer


def chat_prompts(tokenizer: Qwen2Tokenizer, captions: Sequence[str]) -> list[str]:
    """Return each caption as the encoder reads it: a user's message, and the beginning of an answer."""
    messages: list[Any] = [[{"role": "user", "content": [{"type": "text", "text": text}]}] for text in captions]
    return [
        str(tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)) for message in messages
    ]


def find_encoder(folder: Path) -> tuple[Path, Path]:
    """Find the folders of a text encoder and its tokenizer; see `Qwen2VLText.load`.

    Raises:
        ModelError: one of them is not there, or the encoder is of another class.
    """
    folder = Path(folder)
    encoder = folder / "text_encoder" if (folder / "text_encoder").is_dir() else folder
    try:
        config = read_json(encoder / "config.json")
        found = config.get("architectures") or [config.get("model_type")]
    except (OSError, ValueError, AttributeError):
        raise ModelError(
            f"{folder}: no text encoder here; give a pipeline folder or a Qwen2-VL folder with its tokenizer"
        ) from None
    if found not in ([CLASS_NAME], ["qwen2_vl"]):
        raise ModelError(f"{encoder}: a text encoder of class {found}; V5.1 reads text with {CLASS_NAME}")
    for tokens in (folder / "tokenizer", encoder, encoder.parent / "tokenizer"):
        if any((tokens / name).is_file() for name in ("tokenizer.json", "vocab.json")):
            return encoder, tokens
    raise ModelError(f"{folder}: no tokenizer; it belongs beside the text encoder, as {encoder.parent / 'tokenizer'}")


def build_tiny(folder: Path, seed: int = 0) -> None:
    """Write a small Qwen2-VL with random weights and a tokenizer of bytes, so that training runs without downloads.

    Each byte of UTF-8 is a token, so every language has tokens and none is unknown. The weights are drawn so that
    embeddings are of order 1 and differ clearly between captions (see `draw_weights`). torch's global generator is not
    touched, and the same seed gives the same weights.

    Args:
        folder: gets `text_encoder/` and `tokenizer/`.
        seed: decides the weights.
    """
    vocabulary = _tiny_vocabulary()
    tokenizer = tiny_tokenizer()
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": len(vocabulary),
            "hidden_size": TINY_WIDTH,
            "intermediate_size": 2 * TINY_WIDTH,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "max_position_embeddings": 32768,
            "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
            "bos_token_id": None,
            "eos_token_id": vocabulary["<|im_end|>"],
            "pad_token_id": vocabulary["<|endoftext|>"],
        },
        vision_config={"depth": 1, "embed_dim": 16, "num_heads": 2, "mlp_ratio": 2, "hidden_size": TINY_WIDTH},
        image_token_id=vocabulary["<|image_pad|>"],
        video_token_id=vocabulary["<|video_pad|>"],
        vision_start_token_id=vocabulary["<|vision_start|>"],
        vision_end_token_id=vocabulary["<|vision_end|>"],
    )
    with torch.random.fork_rng(devices=[]):
        model = Qwen2VLForConditionalGeneration(config)
    draw_weights(model.float(), TINY_GAINS, TINY_LOOKUPS, seed)
    write_encoder(folder, "", model, tokenizer)


def tiny_tokenizer() -> Qwen2Tokenizer:
    """Build the tokenizer of bytes that `build_tiny` writes."""
    return Qwen2Tokenizer(
        vocab=_tiny_vocabulary(),
        merges=[],
        eos_token="<|im_end|>",  # noqa: S106
        pad_token="<|endoftext|>",  # noqa: S106
        additional_special_tokens=list(SPECIAL_TOKENS[1:]),
        chat_template=CHAT_TEMPLATE,
        model_max_length=32768,
    )


def _tiny_vocabulary() -> dict[str, int]:
    return {token: i for i, token in enumerate([*sorted(pre_tokenizers.ByteLevel.alphabet()), *SPECIAL_TOKENS])}


def _warn_of_unknown(file: Path) -> None:
    """Name fields that transformers keeps and nothing reads; those of the part that sees are no use here anyway."""
    config, known = read_json(file), Qwen2VLConfig()
    text = known.text_config
    nested = config.get("text_config")
    unknown = [key for key in config if not (hasattr(known, key) or hasattr(text, key) or key in OLDER_FIELDS)]
    if isinstance(nested, dict):
        unknown += [f"text_config.{key}" for key in nested if not (hasattr(text, key) or key in OLDER_FIELDS)]
    warn_of_unknown([key for key in unknown if not key.startswith("_")], file)
