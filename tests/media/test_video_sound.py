"""The sound of clips: clicks at known times stay where they are, through every container, codec and way of writing."""

import struct
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest
from clicks import TIMES_S, click_track, frame_of, heard, write_clicks
from hypothesis import given, settings
from hypothesis import strategies as st

from media import sound_reader
from media.decode import read_frames
from media.edit_list import skip_first_samples
from media.probe import probe_video
from media.settings import CutSettings
from media.sound_encoder import AAC_RATES_HZ, encoded_layout, encoded_rate_hz, named_layout
from media.sound_reader import SoundReader, Timed, placed
from media.stream_copy import copy_streams
from media.stretch import Excerpt, Stretch
from media.types import Span
from media.write import transcode
from media.written import Written

FAST = CutSettings(preset="ultrafast")
SOURCES = {
    "aac.mp4": ("aac", {}),
    "opus.mp4": ("libopus", {}),
    "mp3.mp4": ("libmp3lame", {"rate_hz": 44100, "layout": "stereo"}),
    "pcm24.mov": ("pcm_s24le", {"layout": "stereo"}),
    "pcm16.mov": ("pcm_s16be", {"rate_hz": 22050}),
    "eight.mov": ("pcm_s16le", {"layout": "7.1"}),
    "aac.mkv": ("aac", {"rate_hz": 44100}),
    "flac.mkv": ("flac", {"rate_hz": 96000, "layout": "5.1"}),
    "float.mkv": ("pcm_f32le", {"rate_hz": 192000}),
    "opus.webm": ("libopus", {"layout": "stereo"}),
    "aac.ts": ("aac", {"layout": "5.1"}),
    "mp3.ts": ("libmp3lame", {}),
    "ac3.ts": ("ac3", {"layout": "5.1"}),
    "pcm.avi": ("pcm_s16le", {}),
    "mp3.avi": ("libmp3lame", {}),
    "phone.mp4": ("aac", {"rate_hz": 8000}),
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which sources are drawn once."""
    return tmp_path_factory.mktemp("sound")


def drawn(folder: Path, name: str) -> Path:
    codec, options = SOURCES[name]
    return folder / name if (folder / name).exists() else write_clicks(folder / name, codec, **options)


def span(start_s: float, end_s: float, fps: float = 25.0) -> Span:
    return Span(start_s, end_s, round(start_s * fps), round((end_s - start_s) * fps))


def cut(source: Path, to: Path, start_s: float = 0.0, end_s: float = 4.0, settings: CutSettings = FAST) -> Written:
    facts, _ = probe_video(source)
    return transcode(Excerpt(source, facts, span(start_s, end_s)), settings, None, to)


def copied(source: Path, to: Path, start_s: float = 0.0, end_s: float = 4.0) -> Written:
    facts, _ = probe_video(source)
    return copy_streams(Excerpt(source, facts, span(start_s, end_s)), to)


def expect_clicks(clip: Path, source: Path, start_s: float, end_s: float, within_s: float) -> None:
    wanted = [t - start_s for t in heard(source).clicks_s if start_s <= t < end_s]
    assert heard(clip).clicks_s == pytest.approx(wanted, abs=within_s) and wanted


@pytest.mark.parametrize("name", SOURCES)
def test_clicks_stay_in_place_when_a_clip_is_transcoded(sources: Path, tmp_path: Path, name: str) -> None:
    source, clip = drawn(sources, name), tmp_path / "t.mp4"
    written = cut(source, clip, 1.2, 3.4)
    expect_clicks(clip, source, 1.2, 3.4, 1e-3)
    expected = av.AudioLayout(SOURCES[name][1].get("layout", "mono")).nb_channels
    assert (written.sound.codec, written.sound.channels, written.sound.status) == ("aac", expected, "ok")
    found = heard(clip)
    assert found.start_s == pytest.approx(0, abs=1e-3) and found.rate_hz == written.sound.rate_hz
    assert found.end_s == pytest.approx(2.2, abs=1024 / found.rate_hz)


@pytest.mark.parametrize("name", SOURCES)
def test_clicks_stay_exactly_in_place_when_a_clip_is_copied(sources: Path, tmp_path: Path, name: str) -> None:
    source, clip = drawn(sources, name), tmp_path / "c.mp4"
    if name.endswith((".webm", ".avi")):
        pytest.skip("VP8 is copied into WebM, and H.264 in AVI, which states no times of presentation, transcoded")
    written = copied(source, clip, 0.4, 4.0)
    kept = written.span
    assert kept.start_s == pytest.approx(1.0, abs=0.1)
    # Where packets are copied and the source's ticks are samples, to the sample; Matroska rounds to a millisecond.
    is_copy = written.sound.codec == sources_codec(source)
    exact_s = 3 / written.sound.rate_hz if is_copy and not name.endswith(".mkv") else 1e-3
    expect_clicks(clip, source, kept.start_s, kept.end_s, exact_s)
    assert heard(clip).start_s == pytest.approx(0, abs=1e-3) and written.sound.status == "ok"


def sources_codec(path: Path) -> str | None:
    return probe_video(path)[0].audio_codec


def test_pictures_are_the_same_with_and_without_sound(sources: Path, tmp_path: Path) -> None:
    source = drawn(sources, "aac.mp4")
    with_sound = cut(source, tmp_path / "a.mp4", 1.2, 3.4)
    without = cut(source, tmp_path / "b.mp4", 1.2, 3.4, CutSettings(preset="ultrafast", audio="drop"))
    assert without.sound.codec is None and without.sound.status == "dropped: cut.audio is drop"
    assert with_sound.num_frames == without.num_frames == 55
    pictures = [pictures_of(tmp_path / name) for name in ("a.mp4", "b.mp4")]
    assert [t for t, _ in pictures[0]] == [t for t, _ in pictures[1]]
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(*pictures, strict=True))
    with av.open(str(tmp_path / "b.mp4")) as container:
        assert not container.streams.audio


def pictures_of(path: Path) -> list[tuple[float, np.ndarray]]:
    with av.open(str(path)) as container:
        return [(f.time, f.to_ndarray(format="gray")) for f in container.decode(video=0)]


@pytest.mark.parametrize("way", [cut, copied])
def test_equal_input_gives_equal_files(sources: Path, tmp_path: Path, way) -> None:
    for name in ("a.mp4", "b.mp4"):
        way(drawn(sources, "aac.mp4"), tmp_path / name, 1.0, 3.4)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


@pytest.mark.parametrize("way", [cut, copied])
@pytest.mark.parametrize("name, codec", [("a.mov", "pcm_s16le"), ("a.mp4", "aac"), ("a.mkv", "libopus")])
def test_sound_that_begins_late_and_ends_early_does_so_in_the_clip(tmp_path: Path, way, name: str, codec: str) -> None:
    source = write_clicks(tmp_path / name, codec, sound_s=[(1.5, 3.3)])
    there = heard(source)
    written = way(source, tmp_path / "t.mp4", 1.0, 4.0)
    found = heard(tmp_path / "t.mp4")
    grain_s = 1e-3 if name == "a.mkv" or way is cut else 2 / 48000
    assert found.clicks_s == pytest.approx([t - 1.0 for t in there.clicks_s], abs=grain_s) and found.clicks_s
    assert found.start_s == pytest.approx(there.start_s - 1.0, abs=1e-3), "silence was invented"
    assert found.end_s == pytest.approx(there.end_s - 1.0, abs=0.025) and written.sound.status == "ok"
    with av.open(str(tmp_path / "t.mp4")) as container:
        assert container.duration / 1e6 == pytest.approx(3.0, abs=0.045)


def test_a_late_track_skips_the_encoders_priming_by_its_edit_list(tmp_path: Path) -> None:
    source = write_clicks(tmp_path / "a.mov", "pcm_s16le", sound_s=[(1.5, 4.0)])
    cut(source, tmp_path / "t.mp4")
    (delay, nothing), (length, begin) = sound_edits(tmp_path / "t.mp4")
    assert (delay / 90000, nothing) == (pytest.approx(1.5), -1)
    assert (begin, length / 90000) == (1024, pytest.approx(2.5, abs=1e-3))
    before = (tmp_path / "t.mp4").read_bytes()
    skip_first_samples(tmp_path / "t.mp4", 5)
    assert (tmp_path / "t.mp4").read_bytes() == before, "what skips already is left alone"


def test_a_track_from_the_start_declares_its_priming(sources: Path, tmp_path: Path) -> None:
    cut(drawn(sources, "aac.mp4"), tmp_path / "t.mp4", 1.0, 3.0)
    [(length, begin)] = sound_edits(tmp_path / "t.mp4")
    assert (begin, length / 90000) == (1024, pytest.approx(2.0, abs=1e-4))


def sound_edits(path: Path) -> list[tuple[int, int]]:
    """Return duration and media time of each entry in the edit list of an MP4's last track."""
    data = path.read_bytes()
    place = data.rindex(b"elst") + 4
    (count,) = struct.unpack_from(">I", data, place + 4)
    return [struct.unpack_from(">Ii", data, place + 8 + 12 * i) for i in range(count)]


@pytest.mark.parametrize("way", [cut, copied])
@pytest.mark.parametrize("name, codec", [("a.mp4", "aac"), ("a.mkv", "flac"), ("a.mkv", "pcm_s16le")])
def test_time_is_kept_over_a_gap_in_the_sound(tmp_path: Path, way, name: str, codec: str) -> None:
    source = with_hole(write_clicks(tmp_path / f"whole-{name}", codec), tmp_path / name, 1.5, 2.8)
    written = way(source, tmp_path / "t.mp4")
    assert heard(tmp_path / "t.mp4").clicks_s == pytest.approx([0.5, 1.25, 3.123], abs=1.1e-3)
    assert written.sound.status == "ok"


def with_hole(source: Path, to: Path, begin_s: float, end_s: float) -> Path:
    """Copy a file without its sound packets between two times."""
    with av.open(str(source)) as read, av.open(str(to), "w") as output:
        streams = {s.index: output.add_stream_from_template(s) for s in read.streams}
        for packet in read.demux():
            is_sound = packet.stream.type == "audio"
            if packet.dts is None or (is_sound and begin_s < float(packet.pts * packet.time_base) < end_s):
                continue
            packet.stream = streams[packet.stream_index]
            output.mux(packet)
    return to


@pytest.mark.parametrize("starts_s", [0.3, 1.0])
@pytest.mark.parametrize("name, codec", [("a.mkv", "aac"), ("a.ts", "aac"), ("a.mp4", "aac")])
def test_pictures_may_begin_after_the_sound(tmp_path: Path, name: str, codec: str, starts_s: float) -> None:
    source = write_clicks(tmp_path / name, codec, picture_starts_s=starts_s, length_s=3.0)
    for way, to in ((cut, "t.mp4"), (copied, "c.mp4")):
        way(source, tmp_path / to, 0.0, 3.0)
        wanted = [t - starts_s for t in TIMES_S if starts_s <= t < starts_s + 3]
        assert heard(tmp_path / to).clicks_s == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize("fps", [None, 10.0, 60.0])
def test_sound_follows_time_where_frames_are_uneven_or_of_another_rate(tmp_path: Path, fps: float | None) -> None:
    times_s = [i / 25 for i in range(30)] + [1.2 + i / 10 for i in range(29)]
    source = write_clicks(tmp_path / "a.mp4", "aac", picture_times_s=times_s)
    facts, _ = probe_video(source)
    settings = CutSettings(preset="ultrafast", fps=fps)
    transcode(Excerpt(source, facts, Span(0.4, 3.5, 10, 43)), settings, None, tmp_path / "t.mp4")
    assert heard(tmp_path / "t.mp4").clicks_s == pytest.approx([t - 0.4 for t in TIMES_S], abs=1e-3)


def test_a_missing_track_is_null_and_never_silence(sources: Path, tmp_path: Path) -> None:
    source = tmp_path / "a.mp4"
    cut(drawn(sources, "aac.mp4"), source, settings=CutSettings(preset="ultrafast", audio="drop"))
    facts, _ = probe_video(source)
    assert not facts.has_audio and facts.audio_index is facts.audio_codec is facts.audio_rate_hz is None
    written = cut(source, tmp_path / "t.mp4")
    assert written.sound.codec is written.sound.rate_hz is written.sound.channels is written.sound.status is None
    with av.open(str(tmp_path / "t.mp4")) as container:
        assert not container.streams.audio


@pytest.mark.parametrize("way", [cut, copied])
def test_a_span_without_sound_has_no_track(tmp_path: Path, way) -> None:
    source = write_clicks(tmp_path / "a.mp4", "aac", sound_s=[(0.0, 0.9)])
    written = way(source, tmp_path / "t.mp4", 2.0, 4.0)
    assert (written.sound.codec, written.sound.status) == (None, "none in this span")


@pytest.mark.parametrize("way", [cut, copied])
@pytest.mark.parametrize("codec", ["aac", "flac", "libopus"])
def test_sound_that_cannot_be_decoded_is_left_out_and_told(tmp_path: Path, way, codec: str) -> None:
    source = garbled(write_clicks(tmp_path / "whole.mp4", codec), tmp_path / "a.mp4", lambda number: True)
    written = way(source, tmp_path / "t.mp4")
    assert written.num_frames == 100 and len(pictures_of(tmp_path / "t.mp4")) == 100
    if written.sound.codec is None:
        assert written.sound.status is not None and written.sound.status.startswith("cannot be decoded")
    else:
        assert written.sound.status != "ok"


def test_a_damaged_stretch_of_sound_is_silent_and_told(sources: Path, tmp_path: Path) -> None:
    source = garbled(drawn(sources, "flac.mkv"), tmp_path / "a.mkv", lambda number: number in (20, 21))
    written = cut(source, tmp_path / "t.mp4")
    assert written.sound.status is not None and written.sound.status.startswith("damaged, 0.1")
    assert heard(tmp_path / "t.mp4").clicks_s == pytest.approx(TIMES_S, abs=1e-3)


def garbled(source: Path, to: Path, is_hit) -> Path:
    """Copy a file with noise in place of some of its sound packets, counted from 0."""
    noise = np.random.default_rng(3)
    number = -1
    with av.open(str(source)) as read, av.open(str(to), "w") as output:
        streams = {s.index: output.add_stream_from_template(s) for s in read.streams}
        for packet in read.demux():
            if packet.dts is None:
                continue
            stream = streams[packet.stream_index]
            number += packet.stream.type == "audio"
            if packet.stream.type == "audio" and is_hit(number):
                bad = av.Packet(noise.integers(0, 256, max(8, packet.size), np.uint8).tobytes())
                bad.pts, bad.dts, bad.time_base, bad.duration = (
                    packet.pts,
                    packet.dts,
                    packet.time_base,
                    packet.duration,
                )
                packet = bad
            packet.stream = stream
            output.mux(packet)
    return to


@pytest.mark.parametrize("field, value", [("channels", 65), ("channels", 0), ("rate", 0), ("rate", 0xFFFF)])
def test_absurd_numbers_in_a_sound_track_cost_nothing_but_the_sound(
    sources: Path, tmp_path: Path, field: str, value: int
) -> None:
    """`mp4a` and `sowt` boxes state channels and rate as 16-bit numbers."""
    data = bytearray(drawn(sources, "pcm24.mov").read_bytes())
    place = data.index(b"in24") + 4
    at = place + (16 if field == "channels" else 24)
    data[at : at + 2] = struct.pack(">H", value)
    (tmp_path / "a.mov").write_bytes(data)
    written = cut(tmp_path / "a.mov", tmp_path / "t.mp4")
    assert written.num_frames == 100
    assert written.sound.status is not None


def test_the_stream_that_players_choose_is_kept(tmp_path: Path) -> None:
    """Of two streams the default one, and neither a commentary nor one for the blind before the plain one."""
    from av.stream import Disposition

    for number, (first, second, chosen) in enumerate([
        (Disposition(0), Disposition.default, 2),
        (Disposition.default, Disposition(0), 1),
        (Disposition.default | Disposition.comment, Disposition(0), 2),
        (Disposition.visual_impaired, Disposition(0), 2),
    ]):
        source = tmp_path / f"{number}.mkv"
        two_tracks(source, first, second)
        assert probe_video(source)[0].audio_index == chosen, number
        cut(source, tmp_path / "t.mp4", 0.0, 2.0)
        assert heard(tmp_path / "t.mp4").clicks_s == pytest.approx([0.25 * chosen], abs=1e-3)


def two_tracks(path: Path, *dispositions) -> None:
    with av.open(str(path), "w") as output:
        picture = output.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        sounds = [output.add_stream("flac", rate=48000, layout="mono") for _ in dispositions]
        for sound, disposition in zip(sounds, dispositions, strict=True):
            sound.disposition = disposition
        for _ in range(50):
            output.mux(picture.encode(av.VideoFrame(64, 48, "yuv420p")))
        output.mux(picture.encode(None))
        for number, sound in enumerate(sounds, 1):
            track = click_track(48000, 2.0, [0.25 * number])
            output.mux(sound.encode(frame_of(track, 48000, 0, "mono")))
            output.mux(sound.encode(None))


@pytest.mark.parametrize("name", ["long.mkv", "long.mp4", "long.ts"])
def test_a_clip_of_a_long_film_reads_only_what_lies_near_it(tmp_path: Path, name: str, monkeypatch) -> None:
    source = write_clicks(tmp_path / name, "aac", rate_hz=16000, length_s=90.0, times_s=[80.5])
    facts, _ = probe_video(source)
    decoded = 0
    usual = SoundReader._decoded

    def counted(self, stream, packet, *, is_run_up):
        nonlocal decoded
        decoded += 1
        return usual(self, stream, packet, is_run_up=is_run_up)

    monkeypatch.setattr(SoundReader, "_decoded", counted)
    beats = 0

    def beat(seconds: float) -> None:
        nonlocal beats
        beats += 1

    blocks = list(SoundReader(Excerpt(source, facts, span(80.0, 82.0), beat=beat)).blocks())
    assert sum(b.samples.shape[1] for b in blocks) == 2 * 16000 and blocks[0].start == 0
    assert decoded < 60 and decoded <= beats + 1 < 400, "of 1,400 packets"


@given(
    counts=st.lists(st.integers(480, 4096), min_size=1, max_size=60),
    rate_hz=st.sampled_from([8000, 44100, 48000, 96000]),
    start=st.integers(-5000, 5000),
)
@settings(deadline=None)
def test_rounded_stamps_do_not_move_samples(counts: list[int], rate_hz: int, start: int) -> None:
    places = (start + np.concatenate([[0], np.cumsum(counts)[:-1]])).tolist()
    rounded = [Timed(round(p / rate_hz, 3), c, None) for p, c in zip(places, counts, strict=True)]
    found = [place for place, _, _ in placed(rounded, rate_hz, 1e-3)]
    assert np.diff(found).tolist() == np.diff(places).tolist()
    assert abs(found[0] - start) <= 0.5e-3 * rate_hz + 1
    exact = [Timed(p / rate_hz, c, None) for p, c in zip(places, counts, strict=True)]
    assert [place for place, _, _ in placed(exact, rate_hz, 1 / rate_hz)] == places


@given(hole_s=st.floats(0.025, 5.0), before=st.integers(1, 40), tick_s=st.sampled_from([1e-3, 1 / 48000]))
@settings(deadline=None)
def test_what_stamps_leave_out_is_left_out(hole_s: float, before: int, tick_s: float) -> None:
    hole = round(hole_s * 48000)
    places = [1024 * i + (hole if i >= before else 0) for i in range(before + 20)]
    stamped = [Timed(round(p / 48000 / tick_s) * tick_s, 1024, None) for p in places]
    found = [place for place, _, _ in placed(stamped, 48000, tick_s)]
    assert max(abs(a - b) for a, b in zip(found, places, strict=True)) <= tick_s * 48000 / 2 + 1


def test_a_small_but_lasting_shift_of_the_stamps_is_followed() -> None:
    places = [1024 * i + (400 if i >= 20 else 0) for i in range(80)]
    found = [place for place, _, _ in placed([Timed(p / 48000, 1024, None) for p in places], 48000, 1 / 90000)]
    assert found[:20] == places[:20] and abs(found[-1] - places[-1]) <= 48


@given(rate_hz=st.integers(1000, 400_000))
def test_the_nearest_rate_is_taken(rate_hz: int) -> None:
    found = encoded_rate_hz(rate_hz, AAC_RATES_HZ)
    assert all(abs(np.log(found / rate_hz)) <= abs(np.log(r / rate_hz)) + 1e-12 for r in AAC_RATES_HZ)
    assert found == rate_hz or rate_hz not in AAC_RATES_HZ


@pytest.mark.parametrize("layout", ["stereo", "2.1", "quad", "5.0(side)", "5.1", "5.1(side)", "7.1"])
def test_every_channel_stays_its_own(tmp_path: Path, layout: str) -> None:
    source = tmp_path / "a.mov"
    channels = av.AudioLayout(layout).nb_channels
    tones = tone_track(source, layout, channels)
    written = cut(source, tmp_path / "t.mp4", 0.0, 2.0)
    assert written.sound.channels == channels
    assert loudest_hz(tmp_path / "t.mp4")[:channels] == pytest.approx(tones, abs=6)


def tone_track(path: Path, layout: str, channels: int) -> list[float]:
    tones = [40.0 + 20 * number for number in range(channels)]  # a woofer's channel holds no more than 120 Hz
    seconds = np.arange(2 * 48000) / 48000
    track = np.stack([0.4 * np.sin(2 * np.pi * hz * seconds) for hz in tones]).astype(np.float32)
    with av.open(str(path), "w") as output:
        picture = output.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        sound = output.add_stream("pcm_s24le", rate=48000, layout=layout)
        for _ in range(50):
            output.mux(picture.encode(av.VideoFrame(64, 48, "yuv420p")))
        output.mux(picture.encode(None))
        output.mux(sound.encode(frame_of(track, 48000, 0, layout)))
        output.mux(sound.encode(None))
    return tones


def loudest_hz(path: Path) -> list[float]:
    parts = []
    with av.open(str(path)) as container:
        resampler = av.AudioResampler(format="flt")
        for frame in container.decode(audio=0):
            parts += [f.to_ndarray().reshape(-1, f.layout.nb_channels) for f in resampler.resample(frame)]
    track = np.concatenate(parts)[24000:72000]
    return np.abs(np.fft.rfft(track, axis=0)).argmax(0).tolist()


def test_unusual_layouts_have_a_declared_form() -> None:
    assert named_layout("6 channels", 6) == ("5.1", 6) and named_layout("16 channels", 16) == ("stereo", 2)
    assert encoded_layout("6.1") == encoded_layout("hexagonal") == "7.1"
    assert encoded_layout("22.2") == "stereo" and encoded_layout("3.1") == "5.1"


REAL_FILES = (
    *("PySceneDetect__issue-134-rotate.mp4", "decord__flipping_a_pancake.mkv", "moviepy__chaplin.mp4"),
    *("moviepy__big_buck_bunny_0_30.webm", "torchcodec__nasa_13013.mp4", "data-juicer__video4.mp4"),
    pytest.param("androidx-media__sample_edit_list.mp4", marks=pytest.mark.slow),
)


@pytest.mark.parametrize("name", REAL_FILES)
def test_the_sound_of_real_footage_stays_with_its_pictures(shared_videos: Path, tmp_path: Path, name: str) -> None:
    source = shared_videos / name
    facts, _ = probe_video(source)
    times_s = [f.time_s for f in islice(read_frames(Stretch(source, facts)), 62)]
    clip = Span(times_s[20], times_s[-1], 20, len(times_s) - 21)
    written = transcode(
        Excerpt(source, facts, clip), CutSettings(preset="ultrafast", short_side_px=64), None, tmp_path / "t.mp4"
    )
    assert written.sound.status == "ok" and written.sound.channels == facts.audio_channels
    original = wave(source, facts.audio_index, clip.start_s + facts.zero_pts * facts.time_base, clip.duration_s)
    clipped = wave(tmp_path / "t.mp4", 1, 0.0, clip.duration_s)
    assert lag_s(original, clipped) == pytest.approx(0, abs=1e-3)


def wave(path: Path, index: int | None, start_s: float, length_s: float) -> np.ndarray:
    """Decode from the beginning, and return a stretch of the first channel at 48 kHz by time stamps."""
    track = np.zeros(round(length_s * 48000))
    with av.open(str(path)) as container:
        resampler = av.AudioResampler(format="flt", rate=48000)
        for frame in container.decode(container.streams[index or 0]):
            for f in resampler.resample(frame):
                samples = f.to_ndarray().reshape(-1, f.layout.nb_channels)[:, 0]
                begin = round((f.time - start_s) * 48000)
                low, high = max(0, begin), min(len(track), begin + len(samples))
                if low < high:
                    track[low:high] = samples[low - begin : high - begin]
    return track


def lag_s(a: np.ndarray, b: np.ndarray) -> float:
    assert a.std() > 1e-4, "nothing is heard"
    size = 2 * len(a)
    likeness = np.fft.irfft(np.fft.rfft(a, size).conj() * np.fft.rfft(b, size), size)
    place = int(likeness.argmax())
    return (place if place < len(a) else place - size) / 48000


def test_one_small_function_says_when_a_stamp_is(sources: Path) -> None:
    facts, _ = probe_video(drawn(sources, "pcm.avi"))
    with av.open(str(sources / "pcm.avi")) as container:
        time_of = sound_reader.time_after_first_frame(facts)
        assert time_of(0, container.streams.audio[0]) == pytest.approx(-facts.zero_pts * facts.time_base)
    source = drawn(sources, "aac.ts")
    facts, _ = probe_video(source)
    with av.open(str(source)) as container:
        time_of = sound_reader.time_after_first_frame(facts)
        assert time_of(facts.zero_pts - 900 + 2**33, container.streams.audio[0]) == pytest.approx(-0.01)


@pytest.mark.parametrize("way", [cut, copied])
def test_sound_of_joined_pieces_stays_with_their_pictures(tmp_path: Path, way) -> None:
    """`cat a.ts b.ts`: the clock starts anew, and so does the sound's."""
    pieces = [
        write_clicks(tmp_path / "a.ts", "aac", length_s=2.0, times_s=[0.5]),
        write_clicks(tmp_path / "b.ts", "aac", length_s=3.0, times_s=[0.75, 2.2]),
    ]
    source = tmp_path / "joined.ts"
    source.write_bytes(b"".join(piece.read_bytes() for piece in pieces))
    facts, _ = probe_video(source)
    assert facts.is_joined
    second_s = next(f.time_s for f in read_frames(Stretch(source, facts)) if f.index == 50)
    wanted = [second_s + 0.75, second_s + 2.2]
    written = way(source, tmp_path / "t.mp4", 2.0, 5.0)
    assert heard(tmp_path / "t.mp4").clicks_s == pytest.approx([t - written.span.start_s for t in wanted], abs=1e-3)
    written = way(source, tmp_path / "t.mp4", 0.0, 4.0)
    wanted = [0.5, second_s + 0.75]
    assert heard(tmp_path / "t.mp4").clicks_s == pytest.approx([t - written.span.start_s for t in wanted], abs=1e-3)


@pytest.mark.parametrize("suffix, codec, sound", [("webm", "libopus", "opus"), ("webm", "libvorbis", "vorbis")])
def test_sound_is_copied_into_the_container_that_holds_the_pictures(
    tmp_path: Path, suffix: str, codec: str, sound: str
) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"no {codec}")
    source = write_clicks(tmp_path / f"a.{suffix}", codec)
    facts, _ = probe_video(source)
    written = copy_streams(Excerpt(source, facts, span(0.4, 4.0)), tmp_path / "t.webm")
    assert (written.sound.codec, written.sound.status) == (sound, "ok")
    wanted = [t - written.span.start_s for t in heard(source).clicks_s if t >= written.span.start_s]
    assert heard(tmp_path / "t.webm").clicks_s == pytest.approx(wanted, abs=1.1e-3)


def test_sound_that_webm_cannot_hold_becomes_opus(tmp_path: Path) -> None:
    source = tmp_path / "a.mkv"
    with av.open(str(write_clicks(tmp_path / "a.webm", "libopus"))) as pictures, av.open(str(source), "w") as output:
        picture = output.add_stream_from_template(pictures.streams.video[0])
        sound = output.add_stream("pcm_s16le", rate=48000, layout="stereo")
        for packet in pictures.demux(video=0):
            if packet.dts is not None:
                packet.stream = picture
                output.mux(packet)
        output.mux(sound.encode(frame_of(click_track(48000, 4.0, TIMES_S, 2), 48000, 0, "stereo")))
        output.mux(sound.encode(None))
    facts, _ = probe_video(source)
    written = copy_streams(Excerpt(source, facts, span(0.4, 4.0)), tmp_path / "t.webm")
    assert (written.sound.codec, written.sound.channels, written.sound.status) == ("opus", 2, "ok")
    wanted = [t - written.span.start_s for t in TIMES_S if t >= written.span.start_s]
    assert heard(tmp_path / "t.webm").clicks_s == pytest.approx(wanted, abs=1.1e-3)
