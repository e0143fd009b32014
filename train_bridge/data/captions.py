"""What the text encoder does not read of captions: those longer than `model.text_tokens` are cut there."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.sanitize import printable
from models.errors import ModelError
from models.text.encoder import TextEncoder
from models.text.table import TEXT_ENCODERS
from train_bridge.config import TrainConfig
from train_bridge.parts import TINY_TEXT, Parts

MOST_COUNTED = 10_000
"""different captions whose tokens are counted, some seconds' worth; of more, a sample of so many"""
MOST_CHARS = 8_000_000
"""of them together"""
AT_ONCE = 256
SHOWN_CHARS = 60


@dataclass(frozen=True)
class CaptionLengths:
    """How long captions are for a text encoder, whose chat template counts.

    Attributes:
        rows: rows with a caption.
        counted: rows whose captions' tokens were counted.
        truncated: of these, rows whose captions are cut.
        alike: different captions that are cut to the same tokens as another.
        longest_tokens: of the longest one.
        longest: that caption.
        unread: its end, which is cut off.
    """

    rows: int
    counted: int
    truncated: int
    alike: int
    longest_tokens: int
    longest: str
    unread: str


def caption_lengths(
    captions: Iterable[str], tokenizer: Any, positions: int, kind: TextEncoder = TEXT_ENCODERS["qwen2_vl"]
) -> CaptionLengths:
    """Count the tokens of captions, of which there is at least one.

    Args:
        captions: of all rows.
        tokenizer: of the text encoder.
        positions: tokens that it reads.
        kind: of the text encoder.
    """
    rows = Counter(captions)
    counted = truncated = longest_tokens = 0
    longest, cut_at = "", 0
    beginnings: Counter[bytes] = Counter()
    for some in _batches(_sample(rows)):
        prompts = kind.prompts(tokenizer, some)
        tokens = tokenizer(text=prompts, return_offsets_mapping=True)
        for caption, prompt, ids, places in zip(
            some, prompts, tokens["input_ids"], tokens["offset_mapping"], strict=True
        ):
            counted += rows[caption]
            is_cut = len(ids) > positions
            if is_cut:
                truncated += rows[caption]
                beginnings[hashlib.blake2b(repr(ids[:positions]).encode(), digest_size=16).digest()] += 1
            if len(ids) > longest_tokens:
                longest_tokens, longest = len(ids), caption
                cut_at = places[positions][0] - prompt.find(caption) if is_cut else len(caption)
    alike = sum(count for count in beginnings.values() if count > 1)
    return CaptionLengths(rows.total(), counted, truncated, alike, longest_tokens, longest, longest[max(0, cut_at) :])


def caption_notes(config: TrainConfig, parts: Parts, captions: Sequence[str]) -> list[str]:
    """Write the lines of a plan; none for a VAE, which reads no text."""
    if config.kind.trains_vae or parts.text_encoder is None or not captions:
        return []
    positions = config.model.text_tokens
    try:
        kind = TEXT_ENCODERS[parts.text_kind]
        tokenizer = kind.tokenizer(None if parts.text_encoder == TINY_TEXT else Path(parts.text_encoder))
    except (ModelError, UserError) as error:
        return [f"captions: not counted, since the tokenizer cannot be used ({error})"]
    found = caption_lengths(captions, tokenizer, positions, kind)
    shown = f"'{printable(found.longest, SHOWN_CHARS)}'"
    of_rows = f"{found.truncated} of {found.rows} rows"
    if found.counted < found.rows:
        of_rows = f"{found.truncated} of {found.counted} rows that were looked at, of {found.rows},"
    if not found.truncated:
        return [f"captions: {of_rows} are cut; the longest has {found.longest_tokens} of {positions} tokens ({shown})"]
    alike = f"; {found.alike} of the different ones are equal after that" if found.alike else ""
    return [
        f"captions: {of_rows} have more than {positions} tokens and are cut there{alike}; shorten them, or raise "
        "model.text_tokens where the transformer was trained with more",
        f"  the longest has {found.longest_tokens} tokens: {shown}"
        + (f", of which '{printable(found.unread.strip(), SHOWN_CHARS)}' is not read" if found.unread.strip() else ""),
    ]


def _sample(rows: Mapping[str, int]) -> list[str]:
    """Return the captions to count: all, or some that a hash picks, after the longest of all."""
    if len(rows) <= MOST_COUNTED and sum(map(len, rows)) <= MOST_CHARS:
        return list(rows)
    picked = sorted(rows, key=lambda caption: hashlib.blake2b(caption.encode(), digest_size=8).digest())
    chosen, chars = [max(rows, key=len)], 0
    for caption in picked[: MOST_COUNTED - 1]:
        chars += len(caption)
        if chars > MOST_CHARS:
            break
        if caption != chosen[0]:
            chosen.append(caption)
    return chosen


def _batches(captions: Sequence[str]) -> Iterator[list[str]]:
    for begin in range(0, len(captions), AT_ONCE):
        yield list(captions[begin : begin + AT_ONCE])
