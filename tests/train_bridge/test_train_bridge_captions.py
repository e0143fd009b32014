"""Captions that are longer than the text encoder reads: counted, with what is lost of the longest."""

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.text.qwen2_vl import Qwen2VLText, build_tiny, chat_prompts, tiny_tokenizer
from train_bridge.config import TrainConfig
from train_bridge.data import captions
from train_bridge.data.captions import caption_lengths, caption_notes
from train_bridge.parts import Parts

TOKENIZER = tiny_tokenizer()
OVERHEAD = len(TOKENIZER(text=chat_prompts(TOKENIZER, [""])).input_ids[0])
PARTS = Parts("vae", "tiny", "tiny")


def notes(texts: list[str], positions: int, parts: Parts = PARTS) -> list[str]:
    config = TrainConfig()
    return caption_notes(
        dataclasses.replace(config, model=dataclasses.replace(config.model, text_tokens=positions)), parts, texts
    )


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(st.sampled_from("ab é日\n"), max_size=20), min_size=1, max_size=8), st.integers(30, 60))
def test_lengths_are_those_of_the_tokens(texts: list[str], positions: int) -> None:
    found = caption_lengths(texts, TOKENIZER, positions)
    tokens = {text: TOKENIZER(text=chat_prompts(TOKENIZER, [text])).input_ids[0] for text in texts}
    assert found.rows == found.counted == len(texts)
    assert found.truncated == sum(len(tokens[text]) > positions for text in texts)
    assert found.longest_tokens == max(map(len, tokens.values())) == len(tokens[found.longest])
    cut = {text: tuple(ids[:positions]) for text, ids in tokens.items() if len(ids) > positions}
    assert found.alike == sum(list(cut.values()).count(ids) > 1 for ids in cut.values())
    assert found.longest.endswith(found.unread)
    assert bool(found.unread) <= (found.longest_tokens > positions)


def test_the_count_is_what_the_encoder_cuts(tmp_path: Path) -> None:
    build_tiny(tmp_path)
    texts = ["short", "a" * 30, "a" * 31, "é" * 16]
    positions = OVERHEAD + 30
    encoder = Qwen2VLText.load(tmp_path, positions)
    assert encoder.truncated(texts) == [False, False, True, True]
    assert caption_lengths(texts, TOKENIZER, positions).truncated == 2


def test_what_is_cut_is_said_with_an_example() -> None:
    prefix = chat_prompts(TOKENIZER, ["x"])[0].index("x")
    begin = len(TOKENIZER(text=[chat_prompts(TOKENIZER, ["x"])[0][:prefix]]).input_ids[0])
    same = "a red disc rolls "
    texts = [same + "to the left", same + "to the very right", same + "to the left", "a disc"]
    count, example = notes(texts, begin + len(same) + 7)
    assert "3 of 4 rows have more than" in count and "2 of the different ones are equal after that" in count
    assert "model.text_tokens" in count
    tokens = OVERHEAD + len(texts[1])
    assert example == f"  the longest has {tokens} tokens: '{texts[1]}', of which 'very right' is not read"


def test_captions_that_fit_are_said_to_fit() -> None:
    (line,) = notes(["a disc", "a red disc"], 256)
    assert line == f"captions: 0 of 2 rows are cut; the longest has {OVERHEAD + 10} of 256 tokens ('a red disc')"


def test_text_from_outside_obeys_no_terminal() -> None:
    lines = notes(["a\x1b[2J\nb" * 20], 40)
    assert len(lines) == 2 and all(line.isprintable() for line in lines)


def test_of_very_many_captions_a_sample_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captions, "MOST_COUNTED", 50)
    texts = [f"caption {i} " + "long " * 40 * (i % 2) for i in range(400)] + ["the longest" * 50]
    found = caption_lengths(texts, TOKENIZER, 100)
    assert found.rows == 401 and found.counted <= 50
    assert found.longest == texts[-1], "which the sample always holds"
    assert 0.25 < found.truncated / found.counted < 0.75
    assert f"{found.truncated} of {found.counted} rows that were looked at, of 401," in notes(texts, 100)[0]


def test_a_broken_tokenizer_is_said_in_the_plan_and_a_vae_reads_no_text(tmp_path: Path) -> None:
    (line,) = notes(["a disc"], 256, Parts("vae", "tiny", str(tmp_path)))
    assert line.startswith("captions: not counted") and "no text encoder here" in line
    assert caption_notes(TrainConfig(method="vae"), Parts("tiny"), ["a disc"]) == []
