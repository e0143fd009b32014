"""Compare shot detectors on videos whose cuts were marked by eye.

    python -m benchmarks.cuts [--videos DIR] [--truth FILE] [--errors]

Prints precision, recall, F1 and processor time per frame of each detector, without decoding.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from curation.shots.fused import Fused
from curation.shots.pyscenedetect import Adaptive, Cascade, Content, Hash, Histogram, Threshold
from curation.shots.split import BLOCK_FRAMES
from curation.shots.types import Boundary, ShotDetector
from media.coarse import CoarseFrame
from media.container import open_video
from media.decode import whole_frames
from media.probe import probe_video, scan_packets
from media.stretch import Stretch

TOLERANCE_FRAMES = 2
"""Marks made by eye and decoders' first frames differ by this much at most."""

LEAST_F1 = 0.92
"""asked of the default detector on the marks in SELECTS_SHARED, which gave 0.937"""

DETECTORS: dict[str, ShotDetector] = {
    "Fused": Fused(),
    "Content 27": Content(),
    "Adaptive 3.5": Adaptive(),
    "Threshold": Threshold(),
    "Histogram": Histogram(),
    "Hash": Hash(),
    "Cascade 10/20/30": Cascade(),
}


@dataclass(frozen=True)
class CutTruth:
    """What was marked in one video.

    Attributes:
        hard: first frames of new shots after hard cuts.
        ignore: half-open ranges of frames in which nothing counts.
        ambiguous: frames near which nothing counts.
    """

    hard: tuple[int, ...]
    ignore: tuple[tuple[int, int], ...] = ()
    ambiguous: tuple[int, ...] = ()


@dataclass(frozen=True)
class CutScore:
    """Counts of one or more videos.

    Attributes:
        hits: marked cuts that were found.
        false: boundaries (middles of ranges) that match nothing.
        missed: marked cuts that were not found.
    """

    hits: int = 0
    false: tuple[int, ...] = ()
    missed: tuple[int, ...] = ()

    @property
    def precision(self) -> float:
        """Share of the found boundaries that are right; 1 when none was found."""
        return self.hits / (self.hits + len(self.false)) if self.hits or self.false else 1.0

    @property
    def recall(self) -> float:
        """Share of the marked cuts that were found; 1 when there is none."""
        return self.hits / (self.hits + len(self.missed)) if self.hits or self.missed else 1.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0

    def __add__(self, other: "CutScore") -> "CutScore":
        """Pool the counts of two sets of videos."""
        return CutScore(self.hits + other.hits, self.false + other.false, self.missed + other.missed)


def score_cuts(found: Iterable[Boundary], truth: CutTruth, tolerance: int = TOLERANCE_FRAMES) -> CutScore:
    """Match boundaries with marked hard cuts one to one.

    A boundary matches a cut within `tolerance` frames of its range. One that matches none is false, unless it
    overlaps an ignored range or comes near an ambiguous frame. A marked cut inside an ignored range may be
    found but cannot be missed.

    Args:
        found: boundaries of one video, in frames.
        truth: the marks of the same video.
        tolerance: frames.

    Returns:
        The counts.
    """
    open_cuts = sorted(truth.hard)
    hits, false = 0, []
    # Exact boundaries choose first: a range may match any of several cuts.
    for boundary in sorted(found, key=lambda b: (b.end - b.start, b.start)):
        near = [cut for cut in open_cuts if boundary.start - tolerance <= cut <= boundary.end + tolerance]
        middle = (boundary.start + boundary.end) // 2
        if near:
            open_cuts.remove(min(near, key=lambda cut: abs(cut - middle)))
            hits += 1
        elif not _counts_neither_way(boundary, truth, tolerance):
            false.append(middle)
    missed = [cut for cut in open_cuts if not any(start <= cut < end for start, end in truth.ignore)]
    return CutScore(hits, tuple(sorted(false)), tuple(missed))


def _counts_neither_way(boundary: Boundary, truth: CutTruth, tolerance: int) -> bool:
    """Return whether a boundary touches frames at which nothing counts."""
    end = max(boundary.end, boundary.start + 1)
    if any(boundary.start < stop and end > start for start, stop in truth.ignore):
        return True
    return any(boundary.start - tolerance <= at <= boundary.end + tolerance for at in truth.ambiguous)


def detect(detector: ShotDetector, frames: Sequence[CoarseFrame], fps: float) -> tuple[list[Boundary], float]:
    """Run a detector over frames.

    Returns:
        Its boundaries, and the processor seconds it took.
    """
    started_s = time.process_time()
    state = detector.start(fps)
    found = []
    for first in range(0, len(frames), BLOCK_FRAMES):
        found += [boundary for each in state.push(frames[first : first + BLOCK_FRAMES]) for boundary in each]
    found += state.finish()
    return found, time.process_time() - started_s


def coarse_frames(path: Path) -> tuple[list[CoarseFrame], float]:
    """Decode the coarse frames of the stream that curation chooses, and give its frame rate."""
    facts, _ = probe_video(path)
    return [frame.coarse() for frame in whole_frames(Stretch(path, facts))], facts.fps or 25.0


def on_frames(marks: CutTruth, path: Path, frames: Sequence[CoarseFrame]) -> CutTruth:
    """Carry marks, which count frames of the first video stream, over to decoded frames by presentation time."""
    place = carried(path, [frame.time_s for frame in frames])
    ignore = tuple((place(start), place(end)) for start, end in marks.ignore)
    return CutTruth(tuple(map(place, marks.hard)), ignore, tuple(map(place, marks.ambiguous)))


def carried(path: Path, times_s: Sequence[float]) -> Callable[[int], int]:
    """Return what gives, for a frame of a video's first stream, the index of the nearest of some times."""
    with open_video(path) as container:
        stream = container.streams.video[0]
        pts = scan_packets(container, stream).pts
        marked_s = (pts - pts[0]) * float(stream.time_base or 0)
    shown_s = np.array(times_s)

    def place(frame: int) -> int:
        step_s = marked_s[-1] / max(1, len(marked_s) - 1)
        time_s = marked_s[frame] if frame < len(marked_s) else marked_s[-1] + (frame - len(marked_s) + 1) * step_s
        return int(np.abs(shown_s - time_s).argmin())

    return place


def read_truth(path: Path) -> dict[str, CutTruth]:
    """Read the marks of the videos that have hard cuts marked, by file name."""
    videos = json.loads(path.read_text(encoding="utf-8"))["videos"]
    return {
        name: CutTruth(
            tuple(marks["hard"]),
            tuple((start, end) for start, end in marks.get("ignore", ())),
            tuple(marks.get("ambiguous", ())),
        )
        for name, marks in videos.items()
        if "hard" in marks
    }


def compare(videos: Path, truth: dict[str, CutTruth], *, show_errors: bool) -> dict[str, CutScore]:
    """Print the table; return the scores by detector."""
    totals = dict.fromkeys(DETECTORS, CutScore())
    spent_s = dict.fromkeys(DETECTORS, 0.0)
    count = 0
    for name, marks in sorted(truth.items()):
        frames, fps = coarse_frames(videos / name)
        marks = on_frames(marks, videos / name, frames)
        count += len(frames)
        for label, detector in DETECTORS.items():
            found, took_s = detect(detector, frames, fps)
            score = score_cuts(found, marks)
            totals[label] += score
            spent_s[label] += took_s
            if show_errors and (score.false or score.missed):
                print(f"{label:18} {name}: false {list(score.false)} missed {list(score.missed)}")
    cuts = sum(len(marks.hard) for marks in truth.values())
    print(f"{len(truth)} videos, {count} frames, {cuts} hard cuts")
    print(f"{'detector':18} {'precision':>9} {'recall':>7} {'F1':>6} {'ms/frame':>9}")
    for label, score in totals.items():
        per_frame_ms = 1000 * spent_s[label] / max(1, count)
        print(f"{label:18} {score.precision:9.3f} {score.recall:7.3f} {score.f1:6.3f} {per_frame_ms:9.3f}")
    return totals


def main() -> None:
    """Read the command line and compare."""
    shared = Path(os.environ.get("SELECTS_SHARED", Path(__file__).parents[1] / ".." / "shared"))
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cuts", description="Compare shot detectors.")
    parser.add_argument("--videos", type=Path, default=shared / "videos", help="folder of the videos")
    marks = shared / "truth" / "cuts_by_eye.json"
    parser.add_argument("--truth", type=Path, default=marks, help="file of the marks")
    parser.add_argument("--errors", action="store_true", help="list what each detector got wrong")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    totals = compare(args.videos, read_truth(args.truth), show_errors=args.errors)
    if args.truth == marks and totals["Fused"].f1 < LEAST_F1:
        raise SystemExit(f"Fused: F1 {totals['Fused'].f1:.3f}, target {LEAST_F1}")


if __name__ == "__main__":
    main()
