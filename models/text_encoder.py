"""The text encoder of EasyAnimate V5.1: the penultimate layer of Qwen2-VL, as diffusers' pipeline computes it."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from tokenizers import pre_tokenizers
from torch import nn
from transformers import Qwen2Tokenizer, Qwen2VLConfig, Qwen2VLForConditionalGeneration

from models.devices import execution_device
from models.errors import ModelError, one_line
from models.safetensors_file import whole_folder

CLASS_NAME = "Qwen2VLForConditionalGeneration"
POSITIONS = 256

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


class TextEncoder:
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
    ) -> "TextEncoder":
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
        try:
            loaded: Any = Qwen2VLForConditionalGeneration.from_pretrained(
                encoder,
                dtype="auto" if dtype is None else dtype,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
            )
            model, report = loaded
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            why = one_line(error)
            raise ModelError(f"{encoder}: no text encoder can be loaded ({why}); fetch the folder again") from None
        if lacking := sorted(report["missing_keys"]):
            raise ModelError(f"{encoder}: {len(lacking)} weights are missing ({lacking[0]}, …); fetch the folder again")
        try:
            tokenizer = Qwen2Tokenizer.from_pretrained(tokens, local_files_only=True)
        except (OSError, ValueError) as error:
            why = one_line(error)
            raise ModelError(f"{tokens}: no tokenizer can be loaded ({why}); copy it from the pipeline") from None
        if tokenizer.chat_template is None:
            raise ModelError(
                f"{tokens}: the tokenizer has no chat template; copy chat_template.jinja from the pipeline"
            )
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
            text=self._prompts(captions),
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

    def truncated(self, captions: Sequence[str]) -> list[bool]:
        """Tell which captions have more tokens, with the chat template's, than there are positions."""
        if not captions:
            return []
        return [len(tokens) > self.positions for tokens in self.tokenizer(text=self._prompts(captions)).input_ids]

    def _prompts(self, captions: Sequence[str]) -> list[str]:
        messages: list[Any] = [[{"role": "user", "content": [{"type": "text", "text": text}]}] for text in captions]
        return [
            str(self.tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True))
            for message in messages
        ]


def find_encoder(folder: Path) -> tuple[Path, Path]:
    """Find the folders of a text encoder and its tokenizer; see `TextEncoder.load`.

    Raises:
        ModelError: one of them is not there, or the encoder is of another class.
    """
    folder = Path(folder)
    encoder = folder / "text_encoder" if (folder / "text_encoder").is_dir() else folder
    try:
        config = json.loads((encoder / "config.json").read_text(encoding="utf-8"))
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
    embeddings are of order 1 and differ clearly between captions (see `_draw`). torch's global generator is not
    touched, and the same seed gives the same weights.

    Args:
        folder: gets `text_encoder/` and `tokenizer/`.
        seed: decides the weights.
    """
    vocabulary = {token: i for i, token in enumerate([*sorted(pre_tokenizers.ByteLevel.alphabet()), *SPECIAL_TOKENS])}
    tokenizer = Qwen2Tokenizer(
        vocab=vocabulary,
        merges=[],
        eos_token="<|im_end|>",  # noqa: S106
        pad_token="<|endoftext|>",  # noqa: S106
        additional_special_tokens=list(SPECIAL_TOKENS[1:]),
        chat_template=CHAT_TEMPLATE,
        model_max_length=32768,
    )
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
    model.float()
    _draw(model, torch.Generator().manual_seed(seed))
    Path(folder).mkdir(parents=True, exist_ok=True)
    with whole_folder(Path(folder) / "text_encoder") as temporary:
        model.save_pretrained(temporary)
    with whole_folder(Path(folder) / "tokenizer") as temporary:
        tokenizer.save_pretrained(temporary)


@torch.no_grad()
def _draw(model: nn.Module, generator: torch.Generator) -> None:
    """Fill weights so that embeddings get a deviation of about 1: normal with gain / sqrt(inputs)."""
    for name, weight in sorted(model.named_parameters()):
        if weight.ndim == 1:
            weight.fill_(1.0 if name.endswith("weight") else 0.0)
            continue
        gain = next((gain for part, gain in TINY_GAINS.items() if part in name), 1.0)
        inputs = 1 if "embed_tokens" in name else weight[0].numel()
        weight.normal_(0.0, gain / math.sqrt(inputs), generator=generator)
