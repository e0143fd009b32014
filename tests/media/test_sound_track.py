"""The sound of clips, read once: each clip hears what lies in its span, and what is doubtful is none."""

from pathlib import Path

import numpy as np
import pytest
from clicks import TIMES_S, write_clicks

from media.probe import probe_video
from media.sound_reader import SoundReader
from media.sound_track import SoundTrack
from media.types import SourceFacts, Span, no_heartbeat

RATE_HZ = 16_000


def span(start_s: float, end_s: float) -> Span:
    return Span(start_s, end_s, 0, 1)


def track_of(path: Path, **how) -> SoundTrack:
    return SoundTrack(path, probe_video(path, no_heartbeat)[0], RATE_HZ, **how)


def clicks_in(sound: np.ndarray) -> list[float]:
    loud = np.flatnonzero(np.abs(sound) > 0.05) / RATE_HZ
    return [time_s for k, time_s in enumerate(loud) if k == 0 or time_s - loud[k - 1] > 0.02]


@pytest.fixture(
    scope="module", params=[("a.mp4", "aac", "stereo"), ("b.mkv", "flac", "5.1"), ("c.mkv", "libopus", "mono")]
)
def clicking(request, tmp_path_factory) -> Path:
    name, codec, layout = request.param
    return write_clicks(tmp_path_factory.mktemp("clicks") / name, codec, layout=layout)


def test_clicks_are_heard_where_they_are_whatever_the_clips(clicking):
    track = track_of(clicking)
    borders = (0.0, 0.4, 1.8, 2.6, 3.5, 4.0)
    for begin_s, end_s in zip(borders, borders[1:], strict=False):
        sound = track.take(span(begin_s, end_s))
        assert sound.dtype == np.float32 and len(sound) == round((end_s - begin_s) * RATE_HZ)
        expected = [time_s - begin_s for time_s in TIMES_S if begin_s <= time_s < end_s]
        assert clicks_in(sound) == pytest.approx(expected, abs=2e-3)


def test_clips_give_what_the_whole_gives_and_none_is_read_twice(clicking, monkeypatch):
    whole = track_of(clicking).take(span(0.0, 4.0))
    opened = []
    read = SoundReader.blocks
    monkeypatch.setattr(SoundReader, "blocks", lambda self: opened.append(1) or read(self))
    track = track_of(clicking)
    parts = [track.take(span(k * 0.8, (k + 1) * 0.8)) for k in range(5)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert opened == [1]


def test_what_is_behind_is_forgotten_and_a_segment_begins_where_it_does(clicking):
    track = track_of(clicking, stretch_s=(1.0, 3.0))
    assert clicks_in(track.take(span(1.0, 2.2))) == pytest.approx([0.25, 1.0], abs=2e-3)
    assert track.take(span(2.5, 3.0)) is not None
    assert sum(len(piece.samples) for piece in track._pieces) < 1.0 * RATE_HZ
    assert track.take(span(1.0, 1.5)) is None


def test_gaps_are_silence_and_a_clip_without_any_sound_has_none(tmp_path):
    path = write_clicks(tmp_path / "gaps.mkv", "flac", sound_s=[(0.0, 0.7), (1.9, 2.3)])
    track = track_of(path)
    first, none, last = (track.take(span(*each)) for each in ((0.0, 1.0), (1.0, 1.8), (1.8, 4.0)))
    assert clicks_in(first) == pytest.approx([0.5], abs=2e-3) and not first[round(0.75 * RATE_HZ) :].any()
    assert none is None
    assert clicks_in(last) == pytest.approx([0.2], abs=2e-3)


def test_a_source_without_sound_is_not_opened(tmp_path):
    assert SoundTrack(tmp_path / "no.mp4", SourceFacts("video", 8, 8, "h264"), RATE_HZ).take(span(0, 1)) is None


def test_damage_makes_the_clips_around_it_doubtful_and_no_others(tmp_path, monkeypatch):
    path = write_clicks(tmp_path / "damaged.mkv", "flac", length_s=8.0)
    read = SoundReader._decoded

    def broken(self, stream, packet, *, is_run_up):
        if packet is not None and 3.5 < float(packet.pts * packet.time_base) < 3.7:
            self.problem = self.problem or "drawn damage"
            return []
        return read(self, stream, packet, is_run_up=is_run_up)

    monkeypatch.setattr(SoundReader, "_decoded", broken)
    track = track_of(path)
    found = [track.take(span(k, k + 1.0)) is None for k in range(8)]
    assert found[3] and not any(found[:2]) and not any(found[5:])
