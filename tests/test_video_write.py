"""Clips as they were asked for: copies that decode, constant rates, cropped bars, small sizes."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from curation.demo_landscapes import scene
from curation.drawing import pan, write_video
from curation.errors import MediaError
from curation.recipe import CutSettings
from curation.types import Span
from curation.video.decode import Clock, read_frames
from curation.video.probe import probe_video
from curation.video.write import copy_streams, transcode


def decoded(path: Path) -> list[tuple[float, np.ndarray]]:
    with av.open(str(path)) as container:
        return [(f.time, f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]


def draw(path: Path, **options) -> Path:
    frames = pan(scene(4, 900, 360)[:180], 10.0, 100, 25)
    write_video(path, (f[:180, :320] for f in frames), 25, **options)
    return path


def near(a: np.ndarray, b: np.ndarray) -> bool:
    return float(np.abs(a.astype(float) - b).mean()) < 4


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_copy_begins_at_a_keyframe_and_holds_just_its_span(tmp_path: Path, suffix: str) -> None:
    options = {"preset": "medium", "g": "20", "bf": "2", "x264-params": "scenecut=0"}
    source = draw(tmp_path / f"a.{suffix}", options=options)
    facts, _ = probe_video(source)
    written = copy_streams(source, facts, Span(0.48, 3.48, 12, 75), tmp_path / "copy.mp4")
    frames = decoded(tmp_path / "copy.mp4")
    kept = written.span
    assert kept.start_s == pytest.approx(0.8) and kept.end_s <= 3.48 + 1e-6
    assert len(frames) == written.num_frames == kept.num_frames
    assert kept.duration_s == pytest.approx(len(frames) / 25, abs=1e-3)
    clock = Clock.of(facts)
    read = [f.rgb(None) for f in read_frames(source, facts, clock.pts(kept.start_s), clock.pts(kept.end_s))]
    assert len(read) == len(frames)
    assert all(near(a, b) for a, (_, b) in zip(read, frames, strict=True))


def test_a_span_without_keyframe_cannot_be_copied(tmp_path: Path) -> None:
    source = draw(tmp_path / "a.mp4", options={"g": "250", "x264-params": "scenecut=0"})
    facts, _ = probe_video(source)
    with pytest.raises(MediaError, match="no keyframe"):
        copy_streams(source, facts, Span(1.0, 3.0, 25, 50), tmp_path / "copy.mp4")
    assert not list(tmp_path.glob("*copy*"))


def test_a_copy_states_the_pixels_that_it_has(tmp_path: Path) -> None:
    source = draw(tmp_path / "a.mp4", sample_aspect=Fraction(4, 3))
    facts, _ = probe_video(source)
    written = copy_streams(source, facts, Span(0.0, 4.0, 0, 100), tmp_path / "copy.mp4")
    assert (facts.width_px, written.width_px) == (427, 320)
    assert decoded(tmp_path / "copy.mp4")[0][1].shape[:2] == (written.height_px, written.width_px)


def test_a_constant_rate_shows_what_was_on_screen(tmp_path: Path) -> None:
    source = draw(tmp_path / "a.mp4")
    facts, _ = probe_video(source)
    written = transcode(source, facts, Span(1.0, 3.0, 25, 50), CutSettings(fps=10.0), None, tmp_path / "t.mp4")
    frames = decoded(tmp_path / "t.mp4")
    assert len(frames) == written.num_frames == 20 and written.fps == 10
    assert [t for t, _ in frames] == pytest.approx([i / 10 for i in range(20)], abs=1e-3)
    originals = [f.rgb(None) for f in read_frames(source, facts)]
    assert all(near(picture, originals[25 + int(i * 2.5 + 1e-6)]) for i, (_, picture) in enumerate(frames))


def test_bars_are_cut_off_and_sizes_are_even(tmp_path: Path) -> None:
    source = draw(tmp_path / "a.mp4")
    facts, _ = probe_video(source)
    box = (0.1, 0.1, 0.9, 0.9)
    cut = CutSettings(short_side_px=101)
    written = transcode(source, facts, Span(0.0, 1.0, 0, 25), cut, box, tmp_path / "t.mp4")
    picture = decoded(tmp_path / "t.mp4")[0][1]
    assert picture.shape[:2] == (written.height_px, written.width_px) == (100, 180)
