"""Captions from a model in this process: a tiny one, saved and loaded as a published one is."""

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_vlm import LETTERS, save_tiny_vlm

from captioners.ask import AskFailed, Request, video_metadata
from captioners.asking import Asking
from captioners.checks import STATUSES
from captioners.transformers import Transformers, load_ask, model_inputs
from core.settings import build, plain
from curation.types import Frames
from models.errors import ModelError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_vlm(tmp_path_factory.mktemp("tiny") / "tiny-vl")


@pytest.fixture(scope="module")
def ask(folder: Path):
    return load_ask(folder)


@pytest.fixture(scope="module")
def processor(folder: Path) -> Any:
    from transformers import AutoProcessor

    return AutoProcessor.from_pretrained(folder)


def noise(seed: int, count: int = 4, height: int = 56, width: int = 84, start_s: float = 0.0) -> Frames:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    return Frames(pixels, start_s + np.arange(count) + 0.5)


def request(frames: Frames | None, prompt: str = "Describe.", tokens: int = 24, temperature: float = 0.0) -> Request:
    return Request("a", prompt, frames, tokens, temperature)


def plain_text(folder: Path, frames: Frames, tokens: int, prompt: str = "Describe.") -> str:
    """The greedy text, computed step by step without a cache, as the papers' formula is."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    text = (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        f"<|vision_start|><|video_pad|><|vision_end|>{prompt}<|im_end|>\n<|im_start|>assistant\n"
    )
    inputs = processor(
        text=[text],
        videos=[frames.pixels],
        video_metadata=[video_metadata(frames)],
        do_sample_frames=False,
        return_tensors="pt",
    )
    begin = inputs["input_ids"].shape[1]
    for _ in range(tokens):
        with torch.no_grad():
            chosen = model(**inputs, use_cache=False).logits[:, -1].argmax(-1, keepdim=True)
        inputs["input_ids"] = torch.cat([inputs["input_ids"], chosen], 1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        inputs["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], torch.zeros_like(chosen)], 1)
        if chosen.item() == processor.tokenizer.eos_token_id:
            break
    return processor.tokenizer.decode(inputs["input_ids"][0, begin:], skip_special_tokens=True)


def test_the_text_is_the_models_likeliest_for_these_frames_and_their_times(folder: Path, ask) -> None:
    frames = noise(1)
    assert ask(request(frames, tokens=12)).text == plain_text(folder, frames, 12)


def test_the_text_depends_on_frames_prompt_and_pace_and_on_nothing_else(ask) -> None:
    told = ask(request(noise(1))).text
    assert set(told) <= set(LETTERS) and told
    assert ask(request(noise(1))).text == told
    assert ask(request(noise(1, start_s=1000.0))).text == told, "where in the source a clip lies is not the model's"
    assert ask(request(noise(2))).text != told
    assert ask(request(noise(1), prompt="Describe it.")).text != told
    swift = Frames(noise(1).pixels, np.arange(4) * 0.1)
    assert ask(request(swift)).text != told


def test_an_image_is_asked_about_as_an_image(processor: Any) -> None:
    inputs = model_inputs(processor, request(noise(1, count=1)), takes_video=True)
    assert "pixel_values" in inputs and "pixel_values_videos" not in inputs


def test_a_video_keeps_its_frames_and_their_pace(processor: Any) -> None:
    inputs = model_inputs(processor, request(noise(1, count=6)), takes_video=True)
    assert inputs["video_grid_thw"].tolist() == [[3, 4, 6]]  # pairs of frames; patches of 14 px
    assert inputs["second_per_grid_ts"].item() == pytest.approx(2.0, rel=0.02)


def test_where_the_processor_takes_no_videos_frames_are_pictures_after_their_times(processor: Any) -> None:
    inputs = model_inputs(processor, request(noise(1, count=3)), takes_video=False)
    assert inputs["image_grid_thw"].shape == (3, 3)
    text = processor.tokenizer.decode(inputs["input_ids"][0])
    places = [
        text.index(part) for part in ("0.5 s:<|vision_start|>", "1.5 s:<|vision_start|>", "2.5 s:<|vision_start|>")
    ]
    assert places == sorted(places) and text.rstrip().endswith("Describe.<|im_end|>\n<|im_start|>assistant")


def test_a_question_without_frames_is_answered(ask) -> None:
    assert ask(request(None, tokens=5)).text


def test_a_reply_that_the_bound_stops_is_truncated_and_one_that_ends_is_not(ask) -> None:
    replies = {seed: ask(request(noise(seed), tokens=40)) for seed in range(8)}
    ended = [seed for seed, reply in replies.items() if not reply.is_truncated]
    assert ended and len(ended) < len(replies)
    assert all(len(reply.text) < 40 for reply in replies.values() if not reply.is_truncated)
    shorter = ask(request(noise(ended[0]), tokens=3))
    assert shorter.is_truncated and replies[ended[0]].text.startswith(shorter.text)
    whole = len(replies[ended[0]].text) + 1  # and the end itself
    assert not ask(request(noise(ended[0]), tokens=whole)).is_truncated


def test_chance_comes_with_temperature_alike_for_the_same_clip(ask) -> None:
    greedy, warm = ask(request(noise(1))).text, ask(request(noise(1), temperature=3.0)).text
    assert warm != greedy and ask(request(noise(1), temperature=3.0)).text == warm


def test_threads_get_the_text_of_their_own_clip(ask) -> None:
    alone = [ask(request(noise(seed), tokens=8)).text for seed in range(6)]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda seed: ask(request(noise(seed), tokens=8)).text, range(6)))
    assert together == alone and len(set(alone)) == 6


def test_a_clip_that_the_processor_refuses_fails_alone(ask) -> None:
    with pytest.raises(AskFailed, match="aspect ratio"):
        ask(request(noise(1, height=2, width=600)))


def test_the_captioner_writes_captions_under_the_models_name(folder: Path) -> None:
    captioner = Transformers(str(folder), asking=Asking(max_tokens=16, retries=0, unchecked=STATUSES[1:]))
    rows = [{"clip_id": name, "type": "video"} for name in "ab"]
    captions = captioner.load()([(row, noise(seed)) for seed, row in enumerate(rows)])
    assert [caption.model for caption in captions] == ["tiny-vl (detailed.v1)"] * 2
    assert [caption.status for caption in captions] == ["ok"] * 2
    assert captions[0].text != captions[1].text


def test_settings_come_back_from_the_recipe() -> None:
    captioner = Transformers(asking=Asking(frames=3))
    assert build(Transformers, plain(captioner), "caption.settings") == captioner
    assert captioner.slots == 1 and captioner.sampling == Asking(frames=3).sampling


def break_(how: Callable[[Path], None]) -> Callable[[Path, Path], Path]:
    def copy(folder: Path, to: Path) -> Path:
        shutil.copytree(folder, to)
        how(to)
        return to

    return copy


def cut_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def lose_a_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights.pop(sorted(weights)[5])
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def pickle_weights(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def other_kind(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))


def own_code(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config", "AutoModelForImageTextToText": "mine.M"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "mine.py").write_text("raise SystemExit('run')")


def no_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()


@pytest.mark.parametrize(
    "how",
    [
        cut_weights, lose_a_weight, pickle_weights, other_kind, own_code, no_template,
        lambda folder: (folder / "config.json").write_text("{"),
        lambda folder: (folder / "tokenizer.json").unlink(),
        lambda folder: (folder / "model.safetensors").unlink(),
    ],
    ids=lambda how: how.__name__,
)  # fmt: skip
def test_a_folder_that_is_no_whole_model_is_refused_in_one_line(folder: Path, tmp_path: Path, how) -> None:
    broken = break_(how)(folder, tmp_path / "broken")
    with pytest.raises(ModelError) as caught:
        load_ask(broken)
    assert str(broken) in str(caught.value) and "\n" not in str(caught.value)
