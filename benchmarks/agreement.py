"""Do the quick scores agree with slow exact ones? Rank correlation over the clips of the footage.

    python -m benchmarks.agreement [--minutes N] [--folder DIR] [VIDEO …]

The quick way is curation's own: luma scaled by halvings or by swscale, byte arithmetic, coarse frames in stacks, flow
at the fast preset without refinement. The slow way takes the same clips and times, and does what the definitions say:
exact means of areas in float64 from full-range luma, float arithmetic, frames one by one, flow at OpenCV's medium
preset with its refinement, flat areas filled in at full size. (`frozen` is defined on the coarse frames, and its bound
is measured on them: they are the same in both.) Ends with an error where a correlation (Spearman's) is
below 0.98.
"""

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from scipy.stats import spearmanr

from benchmarks.corpus import FOLDER, corpus
from benchmarks.floor import without_text
from benchmarks.measure import write_results
from core.cpu_time import StepClock
from curation.analysis.analyse import analyse, probe_source
from curation.analysis.samples import SampleStore
from curation.inputs.sources import find_sources
from curation.types import Frames, Row, Sampling
from curation.work import Plan
from media import planes
from media.decode import whole_frames
from media.frame import PlanarFrame
from media.stretch import Stretch
from media.types import Span, no_heartbeat
from operators.motion import NEIGHBOURHOOD, TEXTURE_LEVELS2, Motion, global_shift, overlap, score_motion
from operators.visual_quality import FLOOR, WEIGHTS, ramp

LEAST = 0.98
SCORES = ("motion", "sharpness", "brightness", "clipped", "frozen", "visual_quality")
GRID = Sampling(2.0, None, None, 360, "gray")
PICTURES = Sampling(2.0, 4, None, 360, "rgb")
COARSE = Sampling(None, None, None, 72, "gray")
PAIRS = Motion().sampling


@lru_cache(64)
def shares(many: int, few: int) -> np.ndarray:
    """Return by how much each of `few` equal parts covers each of `many` cells, rows of sum 1: float64 (few, many)."""
    edges, cells = np.arange(few + 1) * many / few, np.arange(many)
    covered = np.minimum(edges[1:, None], cells + 1) - np.maximum(edges[:-1, None], cells)
    return np.asarray(np.clip(covered, 0, None) * few / many)


def exact(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """Scale (H, W) by exact means of areas: float64 (height, width)."""
    return np.asarray(shares(picture.shape[0], height) @ picture.astype(float) @ shares(picture.shape[1], width).T)


def levels(picture: np.ndarray) -> np.ndarray:
    """Round to uint8, as frames are handed to operators."""
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class ExactFrame(PlanarFrame):
    """A frame that takes its time."""

    def gray(self, short_side_px: int | None) -> np.ndarray:
        """Scale full-range luma by exact means of areas: uint8 (H, W)."""
        full = planes.gray(
            self.frame, self.facts.width_px, self.facts.height_px, self.facts.rotation_deg, cv2.INTER_LINEAR
        )
        return levels(exact(full, *planes.scaled_size(self.facts.width_px, self.facts.height_px, short_side_px)))

    def rgb(self, short_side_px: int | None) -> np.ndarray:
        """Convert at full size and scale by exact means of areas: uint8 (H, W, 3)."""
        full = super().rgb(None)
        size = planes.scaled_size(self.facts.width_px, self.facts.height_px, short_side_px)
        return levels(np.stack([exact(full[..., channel], *size) for channel in range(3)], axis=2))

    def held(self) -> "ExactFrame":
        """Keep it as it is."""
        return self


def slow_flow(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return flow at the medium preset with refinement, flat areas filled in at full size: float32 (H, W, 2)."""
    dx, dy = global_shift(first, second)
    before, after = overlap(first, second, dx, dy)
    engine = cv2.DISOpticalFlow.create(cv2.DISOpticalFlow_PRESET_MEDIUM)
    flow = engine.calc(before, after, None) + np.array([dx, dy], np.float32)  # type: ignore[call-overload]
    gray = before.astype(np.float32)
    gx, gy = (cv2.Sobel(gray, cv2.CV_32F, *axes, ksize=3, scale=1 / 8) for axes in ((1, 0), (0, 1)))
    xx, yy, xy = (cv2.boxFilter(a * b, -1, (12, 12)) for a, b in ((gx, gx), (gy, gy), (gx, gy)))
    seen = (xx + yy - np.sqrt((xx - yy) ** 2 + 4 * xy * xy)) / 2
    weight = (seen / (seen + TEXTURE_LEVELS2))[..., None]
    spread = cv2.GaussianBlur(np.dstack([flow * weight, weight]), (0, 0), NEIGHBOURHOOD * max(gray.shape))
    return np.asarray(flow * weight + (1 - weight) * spread[..., :2] / (spread[..., 2:] + 1e-4), np.float32)


def laplacian_variance(gray: np.ndarray) -> float:
    """Return the variance of the 3x3 Laplacian at a short side of at least 360 px."""
    factor = max(1.0, 360 / min(gray.shape))
    size = (round(gray.shape[1] * factor), round(gray.shape[0] * factor))
    return float(cv2.Laplacian(cv2.resize(gray.astype(float), size), cv2.CV_64F).var())


def slow_quality(rgb: np.ndarray) -> float:
    """Return the weighted geometric mean of the parts of `operators.visual_quality`, in float64."""
    red, green, blue = np.moveaxis(rgb.astype(float), 2, 0)
    gray = 0.299 * red + 0.587 * green + 0.114 * blue
    low, high = np.percentile(gray, [5, 95])
    mean, clipped = gray.mean() / 255, np.mean((gray < 2.5) | (gray >= 252.5))
    rg, yb = red - green, (red + green) / 2 - blue
    colourfulness = np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean())
    steps = np.outer([1, -2, 1], [1, -2, 1]).astype(float)
    noise = np.sqrt(np.pi / 2) / 6 * np.abs(cv2.filter2D(gray, cv2.CV_64F, steps)).mean()
    ratios = []
    for axis in (0, 1):
        change = np.abs(np.diff(gray, axis=axis)).mean(axis=1 - axis)
        on_grid = np.arange(1, len(change) + 1) % 8 == 0
        ratios.append((change[on_grid].mean() + 0.5) / (change[~on_grid].mean() + 0.5))
    parts = {
        "exposure": min(ramp(mean, 0.02, 0.3), ramp(mean, 0.98, 0.7)) * (1 - 0.5 * clipped),
        "contrast": ramp(float(high - low), 0, 160),
        "colour": 0.5 + 0.5 * ramp(float(colourfulness), 0, 40),
        "sharpness": ramp(float(np.log10(laplacian_variance(gray) + 1)), 0.5, 3.5),
        "clean": ramp(float(noise), 25, 5) * ramp(float(np.mean(ratios)), 3, 1.1),
    }
    return float(np.exp(sum(weight * np.log(max(parts[name], FLOOR)) for name, weight in WEIGHTS.items())))


def slow_frozen(frames: Frames, span: Span) -> float | None:
    """Return the share of the time after the first frame without a block of 8 px that changed by half a level."""
    ends_s = [*frames.times_s[1:], span.end_s]
    shown, frozen_s = frames.pixels[0], 0.0
    for frame, start_s, end_s in zip(frames.pixels[1:], frames.times_s[1:], ends_s[1:], strict=True):
        height, width = frame.shape
        if exact(np.abs(frame.astype(float) - shown), max(1, round(width / 8)), max(1, round(height / 8))).max() < 0.5:
            frozen_s += end_s - start_s
        else:
            shown = frame
    counted_s = span.end_s - float(ends_s[0])
    return frozen_s / counted_s if counted_s > 0 else None


def slow_scores(store: SampleStore, span: Span) -> dict[str, float | None]:
    """Score a clip the slow way; null where it has no frames."""
    assert PAIRS is not None
    grid, pictures, pairs, coarse = (store.take(s, span) for s in (GRID, PICTURES, PAIRS, COARSE))
    if grid is None or pictures is None or coarse is None:
        return {}
    motion = None
    if pairs is not None:
        motion = score_motion(pairs, slow_flow, paired=True)["motion"]
    return {
        "motion": motion,
        "sharpness": float(np.mean([laplacian_variance(gray) for gray in grid.pixels])),
        "brightness": float(grid.pixels.mean() / 255),
        "clipped": float(np.mean((grid.pixels < 2.5) | (grid.pixels >= 252.5))),
        "frozen": slow_frozen(coarse, span),
        "visual_quality": float(np.mean([slow_quality(rgb) for rgb in pictures.pixels])),
    }


def pairs_of(plan: Plan, path: Path) -> Iterator[tuple[Row, dict[str, float | None]]]:
    """Yield the quick row and the slow scores of each clip of a file."""
    (source,) = find_sources([str(path)])
    for task in probe_source(plan, source, no_heartbeat):
        rows = [row for row in analyse(plan, task, no_heartbeat, StepClock()) if row["status"] != "failed"]
        assert PAIRS is not None
        store = SampleStore([GRID, PICTURES, PAIRS, COARSE])
        waiting = sorted(rows, key=lambda row: float(row["start_s"]))
        for frame in whole_frames(Stretch(source.file, task.facts, task.segment.start_pts, task.segment.end_pts)):
            assert isinstance(frame, PlanarFrame)
            slow = ExactFrame(frame.frame, frame.facts, frame.index, frame.time_s, frame.duration_s)
            store.offer(slow, slow.coarse())
            while waiting and frame.time_s + frame.duration_s >= waiting[0]["end_s"] - 1e-6:
                row = waiting.pop(0)
                span = Span(row["start_s"], row["end_s"], row["start_frame"], row["num_frames"])
                yield row, slow_scores(store, span)
                store.drop_before(span.end_s)


def main() -> None:
    """Print the correlations."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="*", type=Path)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        plan = Plan(without_text(), str(Path(folder) / "out"))
        Path(plan.out).mkdir()
        for path in options.videos or [footage.path for footage in corpus(options.folder, options.minutes)]:
            for row, slow in pairs_of(plan, path):
                for name in SCORES:
                    if row[name] is not None and slow.get(name) is not None:
                        found[name].append((float(row[name]), float(slow[name] or 0.0)))
    ranks = {name: float(spearmanr(*zip(*found[name], strict=True)).statistic) for name in SCORES}
    for name in SCORES:
        clips, means = len(found[name]), np.mean(found[name], axis=0)
        print(f"{name:16} {clips:4} clips  rank {ranks[name]:.4f}  mean {means[0]:8.3f}, slow {means[1]:8.3f}")
    write_results("agreement", ranks)
    low = [name for name in SCORES if not ranks[name] >= LEAST]
    assert not low, f"{', '.join(low)}: below a rank correlation of {LEAST}"


if __name__ == "__main__":
    main()
