"""Hostile media opens nothing else, costs seconds, and fails with its reason; flaky storage is told from damage."""

import errno
import os
import struct
import threading
import zlib
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import av
import numpy as np
import psutil
import pytest
from bombs import (
    HUGE,
    avi,
    bmp,
    deep_atoms,
    deep_ebml,
    ebml,
    edit_list,
    gif,
    mkv,
    mp4,
    png,
    png_chunk,
    tiff,
    u32,
    webp,
    y4m,
)
from PIL import Image

from core.errors import MediaError
from curation.analysis.analyse import content_id, expect_unchanged, probe_source
from curation.analysis.media_calls import sandbox_of
from curation.recipe import Limits, Recipe, ShotSettings
from curation.types import Source
from curation.work import Plan
from demo.drawing import write_video
from media import container
from media.container import FORMATS, OpenFile, open_file
from media.decode import read_frames
from media.image import read_image
from media.names import VIDEO_SUFFIXES
from media.probe import probe_video
from media.sandbox import MediaProcess
from media.segments import divide_source
from media.settings import CutSettings
from media.stretch import Stretch
from media.types import Lost

BRIGHT = 200


def draw(path: Path, count: int = 20, brightness: int = BRIGHT, size=(64, 48), fps=10, **how) -> Path:
    """Write a video of plain pictures, told apart by their brightness."""
    write_video(path, [np.full((size[1], size[0], 3), brightness, np.uint8)] * count, fps, **how)
    return path


def draw_noise(path: Path, count: int = 30) -> Path:
    """Write a video too large for one read."""
    rng = np.random.default_rng(1)
    write_video(path, [rng.integers(0, 256, (96, 128, 3), np.uint8) for _ in range(count)], 10)
    assert path.stat().st_size > 200_000
    return path


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def source_of(path: Path) -> Source:
    state = path.stat()
    return Source(str(path.parent), path.name, state.st_size, state.st_mtime_ns)


def brightness_of(path: Path) -> list[int]:
    facts, _ = probe_video(path)
    return [round(float(frame.rgb(None).mean()), -1) for frame in read_frames(Stretch(path, facts))]


# -- nothing else is opened

HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n"
DASH = '<?xml version="1.0"?><MPD profiles="urn:mpeg:dash:profile:isoff-main:2011"><BaseURL>{}</BaseURL></MPD>'
SDP = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\nc=IN IP4 127.0.0.1\r\nm=video 9 RTP/AVP 96\r\na=control:{}\r\n"
CONCAT = "ffconcat version 1.0\nfile '{}'\n"


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    """An HTTP server of this machine that keeps the paths it was asked for in `asked`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *words: object) -> None:
            pass

    asked: list[str] = []
    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        http.asked = asked  # type: ignore[attr-defined]
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        yield http
        http.shutdown()
        thread.join()


TEXTS = {"an HLS playlist": HLS, "a list of files": CONCAT, "an XML document": DASH, "SDP": SDP}


@pytest.mark.parametrize("suffix", [".mp4", ".ts", ".m3u8", ".gif"])
@pytest.mark.parametrize("what", TEXTS)
def test_a_text_that_names_a_neighbouring_video_is_refused_as_what_it_is(tmp_path, what, suffix):
    draw(tmp_path / "neighbour.mp4")
    path = written(tmp_path / f"a{suffix}", TEXTS[what].format("neighbour.mp4").encode())
    with pytest.raises(MediaError, match=f"not a video file .*{what}"):
        probe_video(path)


def test_a_playlist_in_front_of_a_real_video_is_refused_too(tmp_path):
    video = draw(tmp_path / "neighbour.ts").read_bytes()
    path = written(tmp_path / "a.ts", HLS.format("neighbour.ts").encode() + video)
    with pytest.raises(MediaError, match="an HLS playlist"):
        probe_video(path)


def test_no_text_makes_a_request_over_the_network(tmp_path, server):
    url = f"http://127.0.0.1:{server.server_port}/a.ts"
    for text in (HLS, DASH, SDP, CONCAT):
        for suffix in (".m3u8", ".mp4", ".ts", ".mpd", ".sdp"):
            path = written(tmp_path / f"a{suffix}", text.format(url).encode())
            with pytest.raises(MediaError):
                probe_video(path)
    subtitles = written(tmp_path / "a.avi", avi(subtitle=HLS.format(url).encode()))
    with pytest.raises(MediaError):
        probe_video(subtitles)
    assert server.asked == []
    with pytest.raises(av.FFmpegError):  # without the precautions it would
        path = written(tmp_path / "b.m3u8", HLS.format(url).encode())
        av.open(str(path), options={"protocol_whitelist": "file,http,tcp"}).close()
    assert server.asked


def test_every_format_we_take_has_its_demuxer_and_none_leads_elsewhere(tmp_path):
    assert set(FORMATS) <= set(av.formats_available)
    elsewhere = {"hls", "dash", "concat", "image2", "image2pipe", "sdp", "rtsp", "rtp", "imf", "vobsub", "lavfi"}
    assert not elsewhere & set(FORMATS)
    drawable = {".mp4", ".mov", ".m4v", ".3gp", ".mkv", ".avi", ".flv", ".ts", ".m2ts", ".asf", ".h264"}
    for suffix in sorted(drawable):
        assert suffix in VIDEO_SUFFIXES
        facts, _ = probe_video(draw(tmp_path / f"a{suffix}"))
        assert (facts.width_px, facts.height_px) == (64, 48)
    others = ((".mpg", "mpeg2video", "yuv420p"), (".gif", "gif", "rgb8"), (".dv", "dvvideo", "yuv420p"))
    for suffix, codec, pixels in others:
        size = (720, 576) if suffix == ".dv" else (64, 48)
        path = draw(tmp_path / f"a{suffix}", 5, size=size, fps=25, codec=codec, pixel_format=pixels)
        assert probe_video(path)[0].coded_width_px == size[0]


@pytest.mark.parametrize(
    "name",
    [
        "-i.mp4",
        "concat:good.mp4|good.mp4",
        "file:good.mp4",
        "%03d.mp4",
        "subfile,,start,0,end,9,,:good.mp4",
        "a\nb.mp4",
    ],
)
def test_a_file_named_like_a_url_or_a_pattern_is_read_as_itself(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for other in ("good.mp4", "001.mp4"):
        draw(tmp_path / other, brightness=40)
    os.rename(draw(tmp_path / "drawn.mp4", 7), tmp_path / name)
    assert brightness_of(Path(name)) == [BRIGHT] * 7
    (tmp_path / name).unlink()
    with pytest.raises(MediaError, match="No such file"):
        probe_video(Path(name))


def test_a_data_reference_to_a_neighbour_is_not_followed(tmp_path):
    """A QuickTime alias in the place of `url `, as FFmpeg reads it when asked to."""
    neighbour = written(tmp_path / "n.bin", bytes([BRIGHT]) * 5000)
    where = str(neighbour).encode()
    alias = bytes(10) + b"\1v".ljust(28, b"\0") + bytes(12) + b"\5n.bin".ljust(64, b"\0") + bytes(16)
    alias += struct.pack(">hh", 1, 1) + bytes(16) + struct.pack(">HH", 2, len(where)) + where
    alias += bytes(len(where) % 2) + struct.pack(">hH", -1, 0)
    inside = mp4()
    url = u32(12) + b"url " + bytes(4)
    assert inside.count(url) == 1
    grown = 12 + len(alias)
    data = inside.replace(url, u32(grown) + b"alis" + bytes(4) + alias)
    for kind in (b"dref", b"dinf", b"minf", b"mdia", b"trak", b"moov"):
        place = data.index(kind) - 4
        data = data[:place] + u32(int.from_bytes(data[place : place + 4], "big") + grown - 12) + data[place + 4 :]
    path = written(tmp_path / "a.mov", data)
    with av.open(str(path), options={"enable_drefs": "1", "use_absolute_path": "1"}) as asked_for:
        (frame,) = asked_for.decode(video=0)
        assert frame.to_ndarray(format="rgb24").mean() == BRIGHT, "the alias would be followed"
    with pytest.raises(MediaError, match="frame"):
        probe_video(path)


def test_a_pipe_or_a_folder_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "a.mp4")
    (tmp_path / "b.mp4").mkdir()
    for name, why in {"a.mp4": "not a regular file", "b.mp4": "Is a directory"}.items():
        with pytest.raises(MediaError, match=why):
            probe_video(tmp_path / name)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
def test_postscript_is_no_image(tmp_path, name, monkeypatch):
    monkeypatch.setattr("subprocess.check_call", lambda *a, **k: pytest.fail("Ghostscript was started"))
    path = written(tmp_path / name, b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n")
    with pytest.raises(MediaError, match="not a readable image"):
        read_image(path, 1000)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".avif", ".tif", ".bmp"])
def test_the_formats_of_images_are_read(tmp_path, suffix):
    Image.new("RGB", (40, 30), (BRIGHT,) * 3).save(tmp_path / f"a{suffix}")
    pixels = read_image(tmp_path / f"a{suffix}", 1200)
    assert pixels.shape == (30, 40, 3)
    assert abs(int(pixels.mean()) - BRIGHT) < 3
    with pytest.raises(MediaError, match="40x30 is more than the 1199 pixels of limits.max_pixels"):
        read_image(tmp_path / f"a{suffix}", 1199)


# -- bombs

WHOLE = u32(10_000, 0, 0x10000)
FEW = mp4()[:20]  # `ftyp` alone


def timed(count: int, times: tuple[tuple[int, int], ...], timescale: int, **how) -> bytes:
    """Return an MP4 of grey pictures with these times."""
    return mp4(samples=(768, count), times=times, timescale=timescale, data=bytes(768 * count), **how)


BOMBS: dict[str, bytes] = {
    **{f"huge_{codec}.mp4": mp4((HUGE, HUGE), codec.encode()) for codec in ("raw ", "png ", "jpeg", "avc1", "av01")},
    **{f"huge_{codec}.mkv": mkv((HUGE, HUGE), codec.encode()) for codec in ("V_MJPEG", "V_VP9", "V_UNCOMPRESSED")},
    "widest.mkv": mkv((2**31 - 1, 2**31 - 1)),
    "huge.avi": avi(size=(HUGE, HUGE)),
    "upside_down.avi": avi(size=(2**31 - 1, 1 - 2**31)),
    "huge.y4m": y4m((100_000, 100_000)),
    "huge.png": png(),
    "huge.gif": gif(),
    "huge_frame.gif": gif((16, 16), 1, (HUGE, HUGE)),
    "huge.bmp": bmp(),
    "negative.bmp": bmp((2**31 - 1, -(2**31))),
    "huge.tiff": tiff(),
    "huge.webp": webp(),
    "just_allowed.png": png((11_000, 11_000)),
    "just_allowed.tiff": tiff((11_000, 11_000)),
    "just_allowed.mp4": mp4((11_000, 11_000)),
    "rate.y4m": y4m((64, 64), "1000000000:1"),
    "slow.y4m": y4m((8, 8), "1:1000000000"),
    "no_rate.y4m": y4m((8, 8), "0:0"),
    "billion.mp4": mp4(samples=(1, 10**9), times=((10**9, 1),)),
    "billion_empty.mp4": mp4(samples=(0, 10**9), times=((10**9, 1),)),
    "four_billion.mp4": mp4(samples=(768, 2**32 - 1), times=((2**32 - 1, 1),)),
    "millions.mp4": mp4(samples=(1, 2 * 10**7), times=((2 * 10**7, 1),)),
    "edits.mp4": mp4(edits=edit_list(2**32 - 1, WHOLE, 1)),
    "edits_repeat.mp4": mp4(
        samples=(1, 10_000), times=((10_000, 1),), edits=edit_list(10**4, WHOLE, 10**4), data=bytes(10_000)
    ),
    "edits_negative.mp4": mp4(edits=edit_list(2, u32(2**31, 2**32 - 2, 0x10000), 2)),
    "duration.mp4": mp4(duration=2**32 - 1),
    "long_frame.mp4": mp4(timescale=1, times=((1, 2**32 - 1),)),
    "no_timescale.mp4": mp4(timescale=0),
    "fine_timescale.mp4": mp4(timescale=2**32 - 1),
    "gap.mp4": timed(40, ((20, 1), (1, 2**31 - 1), (19, 1)), 1),
    "gaps.mp4": timed(40, ((1, 1), (1, 2**31 - 1)) * 20, 1),
    "half_days.mp4": timed(100, ((100, 400),), 1),
    "fast.mp4": timed(40, ((40, 1),), 2**31 - 1),
    "still.mp4": timed(40, ((40, 0),), 10),
    "deep_moov.mp4": mp4() + deep_atoms(b"moov", 100_000),
    "deep_trak.mp4": FEW + deep_atoms(b"moov", 1) + deep_atoms(b"trak", 300_000),
    "deep_tags.mkv": mkv(tags=ebml("1254C367", ebml("7373", deep_ebml("67C8", 100_000)))),
    "deep_clusters.mkv": mkv(inside=deep_ebml("1F43B675", 100_000)),
    "deep_chapters.mkv": mkv(inside=deep_ebml("B6", 100_000)),
    "exif_in_itself.tiff": tiff((8, 8), 0, (34665, 8)),
    "directory_in_itself.tiff": tiff((8, 8), 8, (330, 8)),
    "exif_in_itself.png": png((8, 8), png_chunk(b"eXIf", tiff((8, 8), 0, (34665, 8)))),
    "text.png": png((8, 8), png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**8), 9))),
    "profile.png": png((8, 8), png_chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(10**8), 9))),
    "size_0.mp4": FEW + u32(0) + b"moov",
    "size_1.mp4": FEW + u32(1) + b"moov",
    "size_7.mp4": FEW + u32(7) + b"free" + mp4()[20:],
    "size_8.mp4": FEW + u32(8) + b"moov",
    "size_2_63.mp4": FEW + u32(1) + b"moov" + struct.pack(">Q", 2**63),
    "size_2_64.mp4": FEW + u32(1) + b"mdat" + struct.pack(">Q", 2**64 - 1) + mp4()[20:],
    "many_atoms.mp4": FEW + (u32(8) + b"free") * 300_000,
    "streams.mp4": mp4(tracks=5000),
    "streams.mkv": mkv(tracks=5000),
    "streams.avi": avi(5000),
    "frames.gif": gif((1, 1), 2000),
}
MEMORY_GB = 1.0


@pytest.fixture(scope="module")
def process(tmp_path_factory) -> Iterator[MediaProcess]:
    limits = Limits(memory_gb=MEMORY_GB, tries=1)
    recipe = Recipe(shots=ShotSettings(), cut=CutSettings(mode="none"), limits=limits)
    process = MediaProcess(sandbox_of(Plan(recipe, str(tmp_path_factory.mktemp("out")), "test")))
    yield process
    process.close()


def silent(seconds: float) -> None:
    """Take no notice."""


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_costs_seconds_and_ends_in_rows_or_a_reason(tmp_path, process, name):
    source = source_of(written(tmp_path / name, BOMBS[name]))
    assert source.size_bytes < 5_000_000
    list(process.run(silent, "probe", source_of(draw(tmp_path / "harmless.mp4"))))
    child = psutil.Process(process._process.pid)
    begin_s = sum(child.cpu_times()[:2])
    rows: list[dict] = []
    try:
        for task in list(process.run(silent, "probe", source)):
            rows += process.run(silent, "analyse", task)
        assert rows
    except MediaError as error:
        assert not error.is_transient
        assert len(str(error)) < 200
        assert "sign of life" not in str(error) and "crashed" not in str(error)
    assert process._process.pid == child.pid, "no new process was needed"
    assert sum(child.cpu_times()[:2]) - begin_s < 10
    peak = next(line for line in Path(f"/proc/{child.pid}/status").read_text().splitlines() if "VmHWM" in line)
    assert int(peak.split()[1]) * 1024 < (MEMORY_GB + 0.5) * 1e9


# -- limits, each before the cost


def refuse(path: Path, **limits) -> str:
    """Probe under these limits and give the reason of the refusal."""
    with pytest.raises(MediaError) as caught:
        probe_video(path, limits=Limits(**limits))
    return str(caught.value)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".avi", ".flv"])
def test_a_picture_above_the_limit_is_refused_before_it_is_decoded(tmp_path, suffix, monkeypatch):
    path = draw(tmp_path / f"a{suffix}")
    assert probe_video(path, limits=Limits(max_pixels=64 * 48))[0].width_px == 64
    monkeypatch.setattr("av.codec.context.CodecContext.decode", None, raising=False)
    assert refuse(path, max_pixels=64 * 48 - 1) == "64x48 is more than the 3071 pixels of limits.max_pixels"


def test_a_picture_that_narrow_pixels_make_large_is_refused(tmp_path):
    path = draw(tmp_path / "a.mp4", sample_aspect=Fraction(8))
    assert "512x48" in refuse(path, max_pixels=64 * 48 * 2)


@pytest.mark.parametrize(("codec", "suffix"), [("mpeg4", "avi"), ("libvpx-vp9", "webm"), ("libvpx", "webm")])
def test_a_picture_that_grows_in_mid_stream_is_refused_where_it_does(tmp_path, codec, suffix):
    packets = []
    for width, height in ((64, 48), (640, 480)):
        encoder = av.CodecContext.create(codec, "w")
        encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
        encoder.time_base, encoder.framerate = Fraction(1, 10), Fraction(10)
        encoder.options = {"cpu-used": "8", "deadline": "realtime", "lag-in-frames": "0"} if "vp" in codec else {}
        for i in range(5):
            frame = av.VideoFrame.from_ndarray(np.full((height, width, 3), 40 * i, np.uint8)).reformat(format="yuv420p")
            frame.pts, frame.time_base = i, Fraction(1, 10)
            packets += encoder.encode(frame)
        packets += encoder.encode(None)
    path = tmp_path / f"a.{suffix}"
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i, packet in enumerate(packets):
            same = av.Packet(bytes(packet))
            same.stream, same.time_base, same.pts, same.dts = stream, Fraction(1, 10), i, i
            same.is_keyframe = packet.is_keyframe
            output.mux(same)
    limits = Limits(max_pixels=100_000)
    facts, _ = probe_video(path, limits=limits)
    *seen, lost = read_frames(Stretch(path, facts, limits=limits))
    assert len(seen) == 5 and not any(isinstance(item, Lost) for item in seen)
    assert isinstance(lost, Lost) and "limits.max_pixels" in lost.what
    assert (lost.start_s, lost.end_s) == pytest.approx((0.5, 1.0), abs=0.01)
    assert len(list(read_frames(Stretch(path, facts)))) == 10


def test_more_streams_than_the_limit_are_refused(tmp_path):
    path = written(tmp_path / "a.mp4", mp4(tracks=4))
    assert probe_video(path, limits=Limits(max_streams=4))[0].width_px == 16
    assert "more than the 3 streams of limits.max_streams" in refuse(path, max_streams=3)
    assert "limits.max_streams" in refuse(path, max_streams=1)


@pytest.mark.parametrize("suffix", [".mp4", ".h264", ".ts"])
def test_more_frames_than_the_limit_are_refused(tmp_path, suffix):
    path = draw(tmp_path / f"a{suffix}", 20)
    facts, _ = probe_video(path, limits=Limits(max_frames=20))
    assert "more than the 18 frames of limits.max_frames" in refuse(path, max_frames=18)
    seen = []
    with pytest.raises(MediaError, match=r"limits\.max_frames"):
        for frame in read_frames(Stretch(path, facts, limits=Limits(max_frames=7))):
            seen.append(frame)
    assert len(seen) == 7


def test_a_longer_source_than_the_limit_is_refused_and_so_is_one_that_turns_out_longer(tmp_path):
    path = draw(tmp_path / "a.mp4", 20)
    facts, _ = probe_video(path, limits=Limits(max_duration_s=2))
    assert refuse(path, max_duration_s=1.5) == "longer than the 1.5 s of limits.max_duration_s"
    with pytest.raises(MediaError, match=r"limits\.max_duration_s") as caught:
        list(read_frames(Stretch(path, facts, limits=Limits(max_duration_s=1))))
    assert caught.value.time_s == pytest.approx(1.1)


def test_borders_are_found_however_coarse_the_clock(tmp_path):
    facts, scan = probe_video(written(tmp_path / "a.mp4", timed(100, ((100, 1),), 1)))
    slow = replace(facts, time_base=1e9)
    assert 1 <= len(divide_source(slow, scan, 60.0)) <= 100


def test_a_frame_that_is_held_for_a_day_lengthens_no_clip_but_its_own(tmp_path, process):
    path = written(tmp_path / "a.mp4", timed(400, ((199, 1), (1, 800_000), (200, 1)), 10))
    (task,) = process.run(silent, "probe", source_of(path))
    rows = list(process.run(silent, "analyse", task))
    assert {r["status"] for r in rows} == {None}
    (held,) = [r for r in rows if r["duration_s"] > 10.01]
    assert held["num_frames"] == 1 and held["start_s"] == pytest.approx(19.9)


# -- the content that was planned


def test_a_large_file_is_refused_unread(tmp_path):
    source = source_of(draw(tmp_path / "a.mp4"))
    beats: list[float] = []
    with pytest.raises(MediaError, match=r"limits\.max_file_gb"):
        content_id(source, beats.append, source.size_bytes / 1e9 / 2)
    assert not beats
    assert len(content_id(source, beats.append, source.size_bytes / 1e9)) == 64


CHANGED = "the source changed while it was read; curate again"


def test_a_source_must_be_what_was_planned(tmp_path):
    path = draw(tmp_path / "a.mp4")
    source, plan = source_of(path), Plan(Recipe(), str(tmp_path), "test")
    probe_source(plan, source, silent)
    expect_unchanged(source)
    for other in (replace(source, size_bytes=source.size_bytes + 1), replace(source, mtime_ns=source.mtime_ns - 1)):
        for look in (lambda s=other: probe_source(plan, s, silent), lambda s=other: expect_unchanged(s)):
            with pytest.raises(MediaError, match=CHANGED) as caught:
                look()
            assert not caught.value.is_transient
    path.unlink()
    with pytest.raises(MediaError, match="the file is gone"):
        expect_unchanged(source)


def test_a_source_that_changes_while_it_is_hashed_is_refused(tmp_path):
    path = draw_noise(tmp_path / "a.mp4")
    source = source_of(path)

    def grow(seconds: float) -> None:
        with path.open("ab") as file:
            file.write(b"more")

    with pytest.raises(MediaError, match=CHANGED):
        content_id(source, grow, 1.0)


def test_hashing_gives_a_sign_of_life_for_every_mebibyte(tmp_path):
    source, beats = source_of(written(tmp_path / "a.mp4", bytes(5 << 20))), []
    content_id(source, beats.append, 1.0)
    assert len(beats) == 5


# -- flaky storage


def flaky(monkeypatch, good_reads: int, code: int) -> None:
    """Let every file fail after so many reads."""

    class Flaky(OpenFile):
        reads = 0

        def _watched(self, read, argument, nothing):
            def fail(argument):
                raise OSError(code, os.strerror(code))

            self.reads += 1
            return super()._watched(fail if self.reads > good_reads else read, argument, nothing)

    monkeypatch.setattr(container, "OpenFile", Flaky)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".avi"])
@pytest.mark.parametrize("good_reads", [0, 1, 2, 4, 7])
def test_what_the_storage_refuses_now_may_be_tried_again(tmp_path, monkeypatch, suffix, good_reads):
    path = draw_noise(tmp_path / f"a{suffix}")
    facts, scan = probe_video(path)
    whole = [f.time_s for f in read_frames(Stretch(path, facts))]
    for code in (errno.EIO, errno.ESTALE, errno.ETIMEDOUT):
        flaky(monkeypatch, good_reads, code)
        for start_pts in (None, int(scan.pts[10])):
            with pytest.raises(MediaError) as caught:
                seen = []
                for frame in read_frames(Stretch(path, facts, start_pts)):
                    seen.append(frame.time_s)
            assert caught.value.is_transient
            assert str(caught.value) == os.strerror(code)
            if start_pts is None:
                assert seen == whole[: len(seen)]
        with pytest.raises(MediaError) as caught:
            probe_video(path)
        assert caught.value.is_transient
        monkeypatch.undo()
    assert [f.time_s for f in read_frames(Stretch(path, facts))] == whole


def test_hashing_and_images_tell_of_the_storage_too(tmp_path, monkeypatch):
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (300, 300, 3), np.uint8)).save(tmp_path / "a.png")
    source = source_of(tmp_path / "a.png")
    flaky(monkeypatch, 2, errno.EIO)
    with pytest.raises(MediaError, match="Input/output error") as caught:
        read_image(tmp_path / "a.png", 10**6)
    assert caught.value.is_transient
    flaky(monkeypatch, 0, errno.EHOSTUNREACH)
    with pytest.raises(MediaError, match="No route to host") as caught:
        content_id(source, silent, 1.0)
    assert caught.value.is_transient
    flaky(monkeypatch, 0, errno.EACCES)
    with pytest.raises(MediaError) as caught:
        content_id(source, silent, 1.0)
    assert not caught.value.is_transient


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".avi", ".flv", ".asf"])
def test_damage_is_never_taken_for_flaky_storage(tmp_path, suffix):
    whole = draw_noise(tmp_path / f"a{suffix}").read_bytes()
    for share in (0.02, 0.3, 0.7, 0.99):
        path = written(tmp_path / f"b{suffix}", whole[: int(share * len(whole))])
        with pytest.raises(MediaError) as caught:
            facts, _ = probe_video(path)
            list(read_frames(Stretch(path, facts)))
            raise MediaError("whole as far as it goes")
        assert not caught.value.is_transient


def test_a_real_refusal_of_the_system_is_seen():
    """The kernel gives no page at address 0."""
    with pytest.raises(MediaError, match="Input/output error") as caught, open_file(Path("/proc/self/mem")) as file:
        file.read(10)
    assert caught.value.is_transient


def test_files_are_closed(tmp_path):
    path = draw(tmp_path / "a.mp4")
    broken = written(tmp_path / "b.mp4", b"nothing")
    facts, _ = probe_video(path)
    before = psutil.Process().num_fds()
    for _ in range(20):
        next(iter(read_frames(Stretch(path, facts))))
        with pytest.raises(MediaError):
            probe_video(broken)
    assert psutil.Process().num_fds() == before
