"""Footage for the benchmarks: short files from 360p to 1080p in H.264, HEVC and VP9, and one long film.

    python -m benchmarks.corpus [--minutes M] [--film-minutes M] [--folder DIR]

Made from the real videos of SELECTS_SHARED where they are present, else from the demo's, which are drawn. Short parts
are taken from them in turns, so that footage of any length holds the three sizes in equal numbers, each in all three
codecs. A part that is H.264 of the wanted size already is copied, packet for packet; the others are written with fast
presets, without sound and at an even frame rate. What is complete in the folder is kept. Prints seconds by size and
codec.
"""

import argparse
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.video.frame import PictureType, VideoFrame

from benchmarks.measure import ROOT
from core.errors import MediaError
from core.files import atomic_folder, atomic_path
from demo.footage import draw_demo
from media.probe import probe_video
from media.stream_copy import copy_streams
from media.stretch import Excerpt
from media.types import SourceFacts, Span

SHARED_VIDEOS = Path(os.environ.get("SELECTS_SHARED", ROOT / ".." / "shared")) / "videos"
FOLDER = ROOT / ".bench" / "footage"

SIZES = ("<= 480p", "720p", ">= 1080p")
BY_SIDE = dict(zip(("480p", "720p", "1080p"), SIZES, strict=True))
"""the classes as options name them"""
CODECS = ("h264", "hevc", "vp9")
ENCODERS = {
    "h264": ("libx264", {"preset": "veryfast", "crf": "23"}),
    "hevc": ("libx265", {"preset": "ultrafast", "crf": "26", "x265-params": "log-level=error"}),
    "vp9": ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "7", "row-mt": "1", "crf": "34", "b": "0"}),
}
LEAST_COPIED = 0.8
"""A copy begins at a keyframe and so may be shorter; below this share of the part it is encoded instead."""
PICTURES_OF_A_FILE = len(CODECS)
"""Each part is made in every codec; footage longer than that holds the same files again under other names."""


@dataclass(frozen=True)
class Part:
    """A stretch of a video, and the short side at which it is written."""

    file: str
    start_s: float
    duration_s: float
    short_side_px: int


@dataclass(frozen=True)
class Footage:
    """One file of the corpus, as probed."""

    path: Path
    size: str
    codec: str
    duration_s: float
    num_frames: int


def _pieces(file: str, duration_s: float, count: int, short_side_px: int) -> tuple[Part, ...]:
    """Divide the beginning of a video into parts of equal length."""
    step_s = duration_s / count
    return tuple(Part(file, round(k * step_s, 3), round(step_s, 3), short_side_px) for k in range(count))


REAL: tuple[tuple[Part, ...], ...] = (
    (
        *_pieces("cosmos-curate__test_video_30s.mp4", 30.0, 2, 480),
        *_pieces("data-juicer__video4.mp4", 22.5, 2, 360),
        *_pieces("data-juicer__video1.mp4", 11.75, 1, 360),
        *_pieces("data-juicer__video2.mp4", 23.0, 2, 480),
        *_pieces("moviepy__chaplin.mp4", 9.6, 1, 360),
        *_pieces("data-juicer__video3.mp4", 49.5, 3, 362),
        *_pieces("CarND-LaneLines-P1__solidWhiteRight.mp4", 8.8, 1, 480),
        *_pieces("PySceneDetect__testvideo.mp4", 24.0, 2, 360),
    ),
    (
        *_pieces("PySceneDetect__testvideo.mp4", 24.0, 2, 720),
        *_pieces("moviepy__big_buck_bunny_0_30.webm", 30.0, 2, 720),
        *_pieces("video-subtitle-remover__test2.mp4", 8.0, 1, 720),
        *_pieces("imageio-binaries__cockatoo.mp4", 14.0, 1, 720),
        *_pieces("sam2__05_default_juggle.mp4", 10.2, 1, 720),
        *_pieces("DVR-Scan__traffic_camera_vfr.mp4", 34.4, 2, 720),
        *_pieces("PySceneDetect__issue-134-rotate.mp4", 10.0, 1, 544),
        *_pieces("CarND-LaneLines-P1__solidWhiteRight.mp4", 8.8, 1, 540),
        *_pieces("video2dataset__test_video.mp4", 15.0, 1, 720),
    ),
    (
        *_pieces("DVR-Scan__traffic_camera_vfr.mp4", 34.4, 2, 1080),
        *_pieces("imageio-binaries__cockatoo.mp4", 14.0, 1, 1080),
        *_pieces("moviepy__big_buck_bunny_0_30.webm", 30.0, 2, 1080),
        *_pieces("sam2__05_default_juggle.mp4", 10.2, 1, 1080),
        *_pieces("RapidVideOCR__2.mp4", 3.0, 1, 800),
        *_pieces("androidx-media__sample_edit_list.mp4", 2.5, 1, 1080),
        *_pieces("video-subtitle-remover__test2.mp4", 8.0, 1, 1080),
        *_pieces("CarND-LaneLines-P1__solidWhiteRight.mp4", 8.8, 1, 1080),
        *_pieces("PySceneDetect__testvideo.mp4", 24.0, 2, 1080),
        *_pieces("video2dataset__test_video.mp4", 27.0, 2, 1080),
    ),
)
"""By size class. The shared videos hold little that is large and moves, so most of the largest are enlarged."""

_DRAWN_S = {"travel": 24.0, "evening": 17.0, "rushes": 17.5, "flyover": 7.5, "subtitled": 8.0, "widescreen": 7.0}
DRAWN: tuple[tuple[Part, ...], ...] = tuple(
    tuple(Part(f"{name}.mp4", 0.0, seconds, side) for name, seconds in _DRAWN_S.items()) for side in (360, 720, 1080)
)


def size_class(width_px: int, height_px: int) -> str:
    """Return the size class of a picture: by its short side, whichever way it is held."""
    side = min(width_px, height_px)
    return SIZES[0] if side <= 480 else SIZES[1] if side <= 720 else SIZES[2]


def corpus(folder: Path, minutes: float = 10.0, size: str | None = None) -> list[Footage]:
    """Return at least so many minutes of footage, with as many files of each size: sizes and codecs take turns.

    Args:
        folder: where it is kept; made when missing.
        minutes: longer footage begins with the files of shorter footage.
        size: take files of this class alone, one of `SIZES`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found: list[Footage] = []
    for path, part, codec in _order(folder, *_parts(folder)):
        if size is not None and size_class(part.short_side_px, part.short_side_px) != size:
            continue
        is_round = size is not None or len(found) % len(SIZES) == 0
        if found and is_round and sum(one.duration_s for one in found) >= 60 * minutes:
            break
        if not path.exists():
            first = path.with_name(path.name.replace(_again(path), "", 1))
            if first.exists() and first != path:
                os.link(first, path)
            else:
                _write(part, codec, path)
        found.append(_described(path))
    return found


def long_film(folder: Path, minutes: float = 20.0) -> Path:
    """Return one file of at least so many minutes: H.264 parts of one shape in a row, again and again, not re-encoded.

    Args:
        folder: where it is kept; made when missing.
        minutes: a folder may hold films of several lengths.
    """
    path = folder / f"film_{minutes:g}min.mp4"
    if path.exists():
        return path
    shapes: dict[bytes, list[Footage]] = {}
    for one in corpus(folder):
        if one.codec == "h264" and one.size == SIZES[1]:
            with av.open(str(one.path)) as container:
                shapes.setdefault(bytes(container.streams.video[0].codec_context.extradata or b""), []).append(one)
    scenes = max(shapes.values(), key=lambda same: sum(one.duration_s for one in same))
    with atomic_path(path) as temporary, av.open(str(temporary), "w") as output:
        with av.open(str(scenes[0].path)) as first:
            stream = output.add_stream_from_template(first.streams.video[0])
        told_s, number = Fraction(0), 0
        while told_s < 60 * minutes:
            told_s = _append(output, stream, scenes[number % len(scenes)].path, told_s)
            number += 1
    return path


def _append(output: av.container.OutputContainer, stream: av.VideoStream, path: Path, told_s: Fraction) -> Fraction:
    """Copy the packets of a file behind what is there; return where its last one ends."""
    end_s = told_s
    with av.open(str(path)) as container:
        source = container.streams.video[0]
        base = source.time_base or Fraction(1, 90000)
        start = source.start_time or 0
        shift = round(told_s / base) - start
        for packet in container.demux(source):
            if packet.dts is None:
                continue
            packet.pts, packet.dts, packet.stream = (packet.pts or 0) + shift, packet.dts + shift, stream
            end_s = max(end_s, (packet.pts + (packet.duration or 0)) * base)
            output.mux(packet)
    return end_s


def _parts(folder: Path) -> tuple[Path, tuple[tuple[Part, ...], ...]]:
    """Return where the videos are, and the parts by size class of those that are there."""
    real = tuple(tuple(part for part in parts if (SHARED_VIDEOS / part.file).is_file()) for parts in REAL)
    if all(real):
        return SHARED_VIDEOS, real
    drawn = folder / "drawn"
    if not drawn.is_dir():
        with atomic_folder(drawn) as temporary:
            draw_demo(temporary)
    return drawn, DRAWN


def _order(folder: Path, videos: Path, by_size: tuple[tuple[Part, ...], ...]) -> Iterator[tuple[Path, Part, str]]:
    """Yield file, part and codec, without end: sizes in turns, the codecs shifted against each other."""
    number = 0
    while True:
        for size, parts in enumerate(by_size):
            turn, index = divmod(number, len(parts))
            part = parts[index]
            codec = CODECS[(index + size + turn) % len(CODECS)]
            again = turn // PICTURES_OF_A_FILE
            name = f"{Path(part.file).stem}_{part.start_s:05.1f}s_{part.short_side_px}p_{codec}"
            path = folder / f"{name}{f'_again{again}' if again else ''}.mp4"
            yield path, Part(str(videos / part.file), part.start_s, part.duration_s, part.short_side_px), codec
        number += 1


def _again(path: Path) -> str:
    """Return what tells a file that is repeated from the first of its kind."""
    _, found, number = path.stem.rpartition("_again")
    return f"{found}{number}" if found else "\0"


def _write(part: Part, codec: str, path: Path) -> None:
    """Write a part: by copying where it is what is wanted already."""
    facts, _ = probe_video(Path(part.file))
    fps = facts.fps or 25.0
    if codec == facts.codec == "h264" and facts.pixel_format == "yuv420p" and not facts.is_vfr:
        span = Span(part.start_s, part.start_s + part.duration_s, 0, round(part.duration_s * fps))
        if min(facts.coded_width_px, facts.coded_height_px) == part.short_side_px and facts.rotation_deg == 0:
            with suppress(MediaError):
                if (
                    copy_streams(Excerpt(Path(part.file), facts, span), path).span.duration_s
                    >= LEAST_COPIED * part.duration_s
                ):
                    return
    _encode(part, facts, codec, path)


def _encode(part: Part, facts: SourceFacts, codec: str, path: Path) -> None:
    """Encode a part's frames, one after another at the source's mean rate."""
    rate = Fraction(facts.fps or 25.0).limit_denominator(1001)
    factor = part.short_side_px / min(facts.coded_width_px, facts.coded_height_px)
    width, height = (round(side * factor / 2) * 2 for side in (facts.coded_width_px, facts.coded_height_px))
    encoder, options = ENCODERS[codec]
    with atomic_path(path) as temporary, av.open(str(temporary), "w") as output:
        stream = output.add_stream(encoder, rate=rate, options=dict(options))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = 1 / rate
        if codec == "hevc":
            stream.codec_context.codec_tag = "hvc1"
        for number, frame in enumerate(_frames(part)):
            ready = frame.reformat(width=width, height=height, format="yuv420p")
            ready.pts, ready.time_base, ready.pict_type = number, 1 / rate, PictureType.NONE
            output.mux(stream.encode(ready))
        output.mux(stream.encode(None))


def _frames(part: Part) -> Iterator[VideoFrame]:
    """Decode a part."""
    with av.open(part.file) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        base = stream.time_base or Fraction(1, 90000)
        first_s = float((stream.start_time or 0) * base)
        container.seek(round((first_s + part.start_s) / base), stream=stream)
        for frame in container.decode(stream):
            time_s = (frame.time or 0.0) - first_s
            if time_s >= part.start_s + part.duration_s - 1e-6:
                return
            if time_s >= part.start_s - 1e-6:
                yield frame


def _described(path: Path) -> Footage:
    facts, scan = probe_video(path)
    duration_s = facts.declared_duration_s or 0.0
    return Footage(path, size_class(facts.width_px, facts.height_px), facts.codec, duration_s, len(scan.pts))


def main() -> None:
    """Make the footage and print what there is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--film-minutes", type=float, default=0.0, help="make the long film too, of this length")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    options = parser.parse_args()
    footage = corpus(options.folder, options.minutes)
    seconds = Counter[tuple[str, str]]()
    for one in footage:
        seconds[one.size, one.codec] += one.duration_s  # type: ignore[assignment]
    for size in SIZES:
        print(f"{size:8}  " + ", ".join(f"{codec} {seconds[size, codec]:.0f} s" for codec in CODECS))
    print(f"{len(footage)} files, {sum(one.duration_s for one in footage) / 60:.1f} minutes in {options.folder}")
    if options.film_minutes:
        print(long_film(options.folder, options.film_minutes))


if __name__ == "__main__":
    main()
