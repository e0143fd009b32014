"""Small T5 and BERT encoders with random weights, so that training runs without downloads."""

import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertModel, BertTokenizer, T5Config, T5EncoderModel, T5Tokenizer

from models.text.tiny_weights import draw_weights, write_encoder

TINY_WIDTH = 64
CHARACTERS = string.ascii_lowercase + string.digits + string.punctuation
"""each is a token; all else is unknown"""
UPPER = string.ascii_uppercase
SPACE = "▁"
"""what T5's tokenizer writes for the space before a word"""
# Deviations of weights, times sqrt(inputs); 1 where none is given. Large queries and keys let attention pick some
# characters out of many; a small embedding lets what was picked outweigh the character itself.
T5_GAINS: Mapping[str, float] = {
    "shared": 0.5, "embed_tokens": 0.5, "relative_attention_bias": 3.0, ".q.": 1.5, ".k.": 3.0,
}  # fmt: skip
BERT_GAINS: Mapping[str, float] = {"embeddings": 0.5, "query": 3.0, "key": 3.0}
LOOKUPS = ("embed", "shared", "bias")
"""in the names of tables, of which one row is read at a time"""


def tiny_t5_tokenizer() -> T5Tokenizer:
    """Build the tokenizer that `build_tiny_t5` writes."""
    letters = [*CHARACTERS, *UPPER]
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), (SPACE, -2.0), *((one, -3.0) for one in letters)]
    return T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=256)


def tiny_bert_tokenizer(positions: int) -> BertTokenizer:
    """Build the tokenizer that `build_tiny_bert` writes."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *CHARACTERS, *(f"##{one}" for one in CHARACTERS)]
    return BertTokenizer(vocab={word: i for i, word in enumerate(words)}, model_max_length=positions)


def build_tiny_t5(folder: Path, suffix: str, seed: int = 0) -> None:
    """Write `text_encoder<suffix>/` and `tokenizer<suffix>/`: every character is a token.

    The same seed gives the same weights; torch's global generator is not touched.
    """
    tokenizer = tiny_t5_tokenizer()
    config = T5Config(
        vocab_size=len(tokenizer), d_model=TINY_WIDTH, d_kv=16, d_ff=2 * TINY_WIDTH, num_layers=2, num_heads=4,
        feed_forward_proj="gated-gelu", relative_attention_num_buckets=16, relative_attention_max_distance=64,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        model = T5EncoderModel(config)
    _write(folder, suffix, model, tokenizer, T5_GAINS, seed)


def build_tiny_bert(folder: Path, suffix: str, positions: int, seed: int = 1) -> None:
    """Write `text_encoder<suffix>/` and `tokenizer<suffix>/`, of so many positions: every character is a token."""
    tokenizer = tiny_bert_tokenizer(positions)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=TINY_WIDTH, intermediate_size=2 * TINY_WIDTH, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=positions,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        model = BertModel(config, add_pooling_layer=False)
    _write(folder, suffix, model, tokenizer, BERT_GAINS, seed)


def _write(folder: Path, suffix: str, model: Any, tokenizer: Any, gains: Mapping[str, float], seed: int) -> None:
    draw_weights(model.float(), gains, LOOKUPS, seed)
    write_encoder(folder, suffix, model, tokenizer)
