"""Prompts of a long video's stretches: which segment follows which, and that each reaches its own."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pipelines import write_pipeline

import run_pipeline
from core.errors import UserError
from sampling.checks import Job
from sampling.model import OpenModel, open_model
from sampling.request import DEFAULTS, Options, Request, SegmentPrompt
from sampling.settings_file import settings_within

torch.set_num_threads(1)
A, B, C = "a red disc", "a blue square falls", "grey rain over the sea"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pipeline(tmp_path_factory.mktemp("windows") / "tiny")


@pytest.fixture(scope="module")
def model(folder: Path) -> OpenModel:
    return open_model(folder, Options(keep_text_encoder=True))


def asked(*prompts: str, **values: object) -> Request:
    values = {"num_frames": 9, "overlap": 1, "steps": 2, "width_px": 48, "height_px": 48, "seed": 3} | values
    return Request("", prompts=tuple(map(SegmentPrompt.parse, prompts)), **values)


def planned(model: OpenModel, *prompts: str, **values: object) -> Job:
    return model.check(asked(*prompts, **values))


def test_each_prompt_reaches_its_own_segment_and_no_frame_before_it(model: OpenModel) -> None:
    frames = {prompts: model.sample(asked(*prompts)).frames for prompts in ((A, B), (A, C), (A, A), (B, A))}
    assert all(len(one) == 17 for one in frames.values())
    ab, ac, aa = (frames[prompts] for prompts in ((A, B), (A, C), (A, A)))
    assert np.array_equal(ab[:8], ac[:8]) and np.array_equal(ab[:8], aa[:8]), "the first segment follows the first"
    assert not np.array_equal(ab[9:], ac[9:]) and not np.array_equal(ab[9:], aa[9:])
    assert not np.array_equal(ab[:8], frames[B, A][:8])
    plain = model.sample(Request(A, num_frames=9, overlap=1, segments=2, steps=2, width_px=48, height_px=48, seed=3))
    assert np.array_equal(aa, plain.frames), "one prompt for all is the same as none for each"


@pytest.mark.parametrize(
    ("prompts", "values", "texts", "length"),
    [
        ((A, B), {}, (A, B), 17),
        ((A, B), {"segments": 5}, (A, A, A, B, B), 41),
        ((A, B), {"length": 30}, (A, A, B, B), 30),
        # Segments add frames 0 to 8, 9 to 16, 17 to 24 and 25 to 32: 13 is the middle of the second.
        ((f"13 | {A}", f"20 | {B}"), {}, (A, B, B, B), 33),
        ((f"14 | {A}", f"19 | {B}"), {}, (A, A, B, B), 33),
        ((f"9|{A}", f"8|{B}", f"5|{C}"), {}, (A, B, C), 22),
        ((f"5 | {A}",), {}, (A,), 5),
    ],
    ids=str,
)  # fmt: skip
def test_borders_fall_between_segments(
    model: OpenModel, prompts: tuple[str, ...], values: dict, texts: tuple[str, ...], length: int
) -> None:
    job = planned(model, *prompts, **values)
    assert (job.prompts, job.length) == (texts, length)
    assert job.request.prompt == A, "the first names the whole"


@pytest.mark.parametrize(
    ("prompts", "values", "field", "words"),
    [
        ((f"9 | {A}", f"2 | {B}", f"9 | {C}"), {}, "prompts", "number 2"),
        ((A, B, C), {"segments": 2}, "prompts", "number 3"),
        ((f"9 | {A}", B), {}, "prompts", "give all of them one, or none"),
        ((f"9 | {A}", f"9 | {B}"), {"length": 20}, "length", "18 frames in all"),
        ((f"9 | {A}", f"9 | {B}"), {"segments": 2}, "segments", "give one"),
        ((f"0 | {A}",), {}, "prompts", "at least 1 frame"),
        ((A, " | "), {}, "prompts", "empty"),
        ((A, B), {"num_frames": 1, "overlap": None}, None, "more than one of `num_frames`"),
    ],
    ids=str,
)
def test_what_cannot_be_is_told(
    model: OpenModel, prompts: tuple[str, ...], values: dict, field: str | None, words: str
) -> None:
    with pytest.raises(UserError) as refused:
        planned(model, *prompts, **values)
    assert refused.value.field == field
    assert words in str(refused.value)


def test_a_prompt_is_read_as_it_is_written() -> None:
    for one in (SegmentPrompt(A), SegmentPrompt(A, 12), SegmentPrompt("3 | 4"), SegmentPrompt("a | b", 5)):
        assert SegmentPrompt.parse(str(one)) == one
    assert SegmentPrompt("two\nlines") == SegmentPrompt("two lines")


def test_the_command_takes_parts_and_tells_them_by_its_own_words(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sample", folder, "--steps", "2", "--frames", "5", "--size", "48x48", "--output", tmp_path / "a.mp4"]
    parts = ["--part", f"5 | {A}", "--part", f"4 | {B}", "--overlap", "1"]
    assert run_pipeline.main(list(map(str, [*words, *parts]))) == 0
    made = settings_within(tmp_path / "a.mp4")
    assert made["prompts"] == [{"prompt": A, "num_frames": 5}, {"prompt": B, "num_frames": 4}]
    assert (made["prompt"], made["num_frames"], made["segments"]) == (A, 9, 2)
    assert made["model"] == "tiny", "the file goes its way: it does not say where the model lies"
    beside = json.loads((tmp_path / "a.json").read_text())
    assert beside["model"] == str(folder), "what lies beside it says so"
    capsys.readouterr()
    assert run_pipeline.main(list(map(str, [*words, *parts, "--segments", "3"]))) == 2
    assert capsys.readouterr().err.startswith("error: --segments 3: the lengths of --part say")


def test_requests_without_prompts_are_the_same_as_ever(folder: Path) -> None:
    model = open_model(folder, DEFAULTS)
    job = model.check(Request(A, num_frames=9, steps=2))
    assert (job.prompts, job.texts) == ((), (A,))
    assert "prompts" not in model._asked(job)
