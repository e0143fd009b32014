"""Speech: its share by drawn probabilities and by a tiny network, and what the published network makes of sound."""

from pathlib import Path

import numpy as np
import pytest
import tiny_onnx
from clicks import write_clicks
from hypothesis import given
from hypothesis import strategies as st

from cli.common import TABLES
from core.cpu_time import StepClock
from curation.analysis.analyse import analyse, probe_source
from curation.inputs.sources import find_sources
from curation.judge import rules_of, verdict
from curation.recipe import load_recipe
from curation.types import ClipInput, Frames, Hears, Operator
from curation.work import Plan
from media.types import SourceFacts, Span, no_heartbeat
from models.weights.wheels import SILERO, WheelWeights, is_installed, read_wheel
from operators.speech import CONTEXT, MOST_WINDOWS, RATE_HZ, WINDOW, Speech, probabilities, spoken, windows_of

FACTS = SourceFacts("video", 320, 240, "h264", 24.0, has_audio=True)


def clip(sound: np.ndarray | None) -> ClipInput:
    return ClipInput(FACTS, Span(0.0, 4.0, 0, 96), Frames(np.zeros((0, 2, 2), np.uint8), np.zeros(0)), sound)


def loud_between(begin_s: float, end_s: float, length_s: float = 4.0) -> np.ndarray:
    sound = np.zeros(round(length_s * RATE_HZ), np.float32)
    sound[round(begin_s * RATE_HZ) : round(end_s * RATE_HZ)] = 0.1
    return sound


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tiny_onnx.install(tmp_path, monkeypatch)
    return tmp_path


def test_the_share_is_of_the_clip_and_null_without_sound(packages):
    score = Speech().load()
    found = score([clip(loud_between(1.0, 2.0)), clip(None), clip(loud_between(0.0, 4.0)), clip(loud_between(0, 0))])
    assert found[0]["speech"] == pytest.approx(0.25, abs=0.02)
    assert [scores["speech"] for scores in found[1:]] == [None, 1.0, 0.0]
    assert score([clip(np.zeros(0, np.float32))]) == [{"speech": None}]
    assert score([clip(np.full(RATE_HZ, np.nan, np.float32))]) == [{"speech": None}]
    assert isinstance(Speech(), Hears) and isinstance(Speech(), Operator)


@given(st.lists(st.floats(0, 1), max_size=80), st.floats(0.05, 0.95))
def test_stretches_are_in_order_apart_and_begin_with_speech(likely, threshold):
    found = spoken(np.array(likely, np.float64), threshold)
    for begin, end in found:
        assert end - begin >= 8 and likely[begin] >= threshold
    assert all(one[1] < other[0] for one, other in zip(found, found[1:], strict=False))
    assert all(end <= len(likely) for _, end in found)


@pytest.mark.parametrize(
    ("likely", "expected"),
    [
        ([0.9] * 7 + [0] * 9, []),  # 224 ms are too short
        ([0.9] * 8 + [0] * 9, [(0, 8)]),
        ([0.9] * 8 + [0] * 3 + [0.9] * 8, [(0, 19)]),  # a pause of 96 ms is none
        ([0.9] * 8 + [0] * 9 + [0.9] * 8, [(0, 8), (17, 25)]),
        ([0.9] * 8 + [0.4] * 9, [(0, 17)]),  # calmer, but not calm
        ([0.4] * 9, []),
    ],
)
def test_short_speech_is_none_and_short_pauses_are_speech(likely, expected):
    assert spoken(np.array(likely, np.float32), 0.5) == expected


def test_windows_follow_each_other_with_what_was_heard_before():
    sound = np.arange(1, 2 * WINDOW + 11, dtype=np.float32)
    first, second, last = windows_of(sound)
    assert not first[:CONTEXT].any() and (first[CONTEXT:] == sound[:WINDOW]).all()
    assert (second == sound[WINDOW - CONTEXT : 2 * WINDOW]).all()
    assert (last[CONTEXT : CONTEXT + 10] == sound[-10:]).all() and not last[CONTEXT + 10 :].any()
    assert windows_of(sound[:0]).shape == (0, CONTEXT + WINDOW)


def test_a_source_is_heard_along_with_its_frames_and_judged_by_it(packages, tmp_path):
    """The tiny network hears dense clicks; a clip without sound, though others of its source have some, is out."""
    dense = [k * 0.004 for k in range(500)]  # the first two seconds
    paths = [
        write_clicks(tmp_path / "whole.mp4", "aac", times_s=dense),
        write_clicks(tmp_path / "half.mkv", "flac", times_s=dense, sound_s=[(0.0, 1.9)]),
    ]
    settings = ["shots.min_s=1.0", "shots.max_s=2.0", "operators.speech=true", "rules.speech.min=0.5"]
    recipe, _ = load_recipe(None, settings, TABLES)
    plan = Plan(recipe, str(tmp_path / "out"))
    rows = [
        row
        for source in find_sources([str(path) for path in paths])
        for task in probe_source(plan, source, no_heartbeat)
        for row in analyse(plan, task, no_heartbeat, StepClock())
    ]
    found = {(row["source_path"], row["start_s"]): (row["speech"], verdict(row, rules_of(recipe))) for row in rows}
    assert len(found) == 4
    (loud, none), (silent, low) = found["whole.mp4", 0.0], found["whole.mp4", 2.0]
    assert loud > 0.9 and none == [] and silent < 0.1 and low == ["speech:low"]
    assert found["half.mkv", 2.0] == (None, ["speech:missing"])


@pytest.mark.skipif(not is_installed(SILERO), reason="silero-vad is not installed (extra sound)")
def test_one_call_equals_the_packages_network_window_by_window():
    """The streaming network of the package, which keeps its own state, gives the same for every window."""
    from models.scorers.onnx_session import open_session

    rng = np.random.default_rng(2)
    time_s = np.arange((MOST_WINDOWS + 40) * WINDOW) / RATE_HZ
    voiced = sum(np.sin(2 * np.pi * 140 * k * time_s) / k for k in range(1, 12)) * np.abs(np.sin(9 * time_s)) * 0.1
    sound = (voiced + 0.01 * rng.standard_normal(len(time_s))).astype(np.float32)
    ours = probabilities(open_session(read_wheel(SILERO), "cpu"), sound)
    file = "data/silero_vad_16k_op15.onnx"
    digest = "7ed98ddbad84ccac4cd0aeb3099049280713df825c610a8ed34543318f1b2c49"
    stream = open_session(read_wheel(WheelWeights("silero_vad", file, digest, "MIT", "")), "cpu")
    state = np.zeros((2, 1, 128), np.float32)
    own = []
    for window in windows_of(sound):
        value, state = stream.run(None, {"input": window[None], "state": state, "sr": np.array(RATE_HZ)})
        own.append(value.item())
    assert ours == pytest.approx(own, abs=1e-4)
