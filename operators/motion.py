"""How fast the picture moves, in percent of the frame diagonal per second, and how the camera pans and zooms.

The unit makes one pan score the same at every resolution and frame rate. The default engine is DIS (Kroeger
et al., "Fast Optical Flow using Dense Inverse Search", ECCV 2016) on small pictures a fixed time apart; the
other is Farnebäck's polynomial expansion (SCIA 2003), as many published motion filters use it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal

import cv2
import numpy as np

from core.settings import key
from curation.schema import VIDEO
from curation.types import ClipInput, Frames, Sampling, Scorer, Scores

Flow = Callable[[np.ndarray, np.ndarray], np.ndarray]

MIN_SIDE_PX = 32
"""DIS refuses pictures of less than two 8 px patches, also after a shift.

Smaller ones are enlarged, which keeps the unit."""
SHIFT_STEP_PX = 2
"""The shift of the whole picture is found to such steps; at steps of 4 a few clips got a chance value."""
MIN_SHIFT_PX = 8
"""Smaller shifts of the whole picture are left to the flow itself."""
TEXTURE_LEVELS2 = 4.0
"""Texture at which a vector counts half: 2 grey levels per pixel in its weaker direction, above coding noise."""
NEIGHBOURHOOD = 0.25
"""How far flat areas look around, as a share of the longer side."""
MOST_SMALL_PX = 1024
"""Longest side at which they do: the cost grows with its square, and a file may claim 32767x48."""
FIT_GRID = 24
"""The camera model is fitted to at most this many flow vectors along each axis."""


def pair_indices(count: int, *, paired: bool) -> list[tuple[int, int]]:
    """Return the frame pairs: `(2k, 2k + 1)` when each grid frame has a partner, else neighbours."""
    if paired:
        return [(i, i + 1) for i in range(0, count - 1, 2)]
    return [(i, i + 1) for i in range(count - 1)]


def enlarge_tiny(gray: np.ndarray) -> np.ndarray:
    """Enlarge uint8 (H, W) so that both sides have at least `MIN_SIDE_PX`; others pass as they are."""
    height, width = gray.shape
    factor = MIN_SIDE_PX / min(height, width)
    if factor <= 1:
        return np.ascontiguousarray(gray)
    size = (max(MIN_SIDE_PX, round(width * factor)), max(MIN_SIDE_PX, round(height * factor)))
    return cv2.resize(gray, size, interpolation=cv2.INTER_LINEAR)


def fit_camera(flow: np.ndarray, step_px: float = 1.0) -> tuple[float, float, float]:
    """Fit pan and zoom to a flow field: `flow(p) = t + s * (p - centre)`.

    All on a subsampled grid. The pan is the median vector. The zoom is a least-squares slope, fitted twice: the
    second time without the worse half of the vectors, which belong to things that move by themselves.

    Args:
        flow: float32 (H, W, 2), pixels, x then y.
        step_px: from one vector to the next.

    Returns:
        Pan to the right and downwards in pixels, and the relative growth `s`.
    """
    rows, cols, places = _fit_places(*flow.shape[:2])
    vectors = flow[rows, cols].T.astype(np.float64)
    pan = np.sort(vectors, axis=1)[:, [(len(rows) - 1) // 2, len(rows) // 2]].mean(axis=1)

    growth, away = _slope(places, vectors)
    error = (away * away).sum(axis=0)
    keep = error <= np.partition(error, (len(error) - 1) // 2)[(len(error) - 1) // 2]
    growth, _ = _slope(places[:, keep], vectors[:, keep])
    return float(pan[0]), float(pan[1]), growth / step_px


@lru_cache(maxsize=16)
def _fit_places(height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the rows and columns of the vectors looked at, and their places from the centre: float64 (2, N)."""
    rows = np.linspace(0, height - 1, min(height, FIT_GRID)).astype(int)
    cols = np.linspace(0, width - 1, min(width, FIT_GRID)).astype(int)
    y, x = (axis.ravel() for axis in np.meshgrid(rows, cols, indexing="ij"))
    return y, x, np.stack([x - (width - 1) / 2, y - (height - 1) / 2])


def _slope(places: np.ndarray, vectors: np.ndarray) -> tuple[float, np.ndarray]:
    """Fit `vector = mean + s * (place - mean)`, (2, N) each; return the slope, and what it leaves of the vectors."""
    p = places - places.mean(axis=1, keepdims=True)
    v = vectors - vectors.mean(axis=1, keepdims=True)
    spread = float(np.vdot(p, p))
    growth = float(np.vdot(p, v)) / spread if spread > 0 else 0.0
    return growth, v - growth * p


def score_motion(frames: Frames, flow_of: Flow, *, paired: bool) -> Scores:
    """Return the motion columns of one clip; all None when it has no pair of frames.

    Args:
        frames: luma (T, H, W) with times.
        flow_of: gives the flow from one picture to a later one, float32 (h, w, 2) in pixels of the pictures.
        paired: frames come as pairs `(2k, 2k + 1)`.
    """
    values = []
    for first, second in pair_indices(len(frames), paired=paired):
        elapsed_s = float(frames.times_s[second] - frames.times_s[first])
        if elapsed_s <= 0:
            continue
        before, after = enlarge_tiny(frames.pixels[first]), enlarge_tiny(frames.pixels[second])
        flow = flow_of(before, after)
        if not np.isfinite(flow).all():
            continue
        to_percent = 100 / float(np.hypot(*before.shape)) / elapsed_s
        speed = float(cv2.magnitude(flow[..., 0], flow[..., 1]).mean())
        pan_x, pan_y, growth = fit_camera(flow, before.shape[0] / flow.shape[0])
        values.append((speed * to_percent, pan_x * to_percent, pan_y * to_percent, growth / elapsed_s))
    if not values:
        return dict.fromkeys(Motion.writes)
    return dict(zip(Motion.writes, np.mean(values, axis=0).tolist(), strict=True))


@dataclass(frozen=True)
class Motion:
    """Mean optical-flow speed over frame pairs, and the camera's pan and zoom.

    The defaults follow drawn pans at 360, 720 and 1080 lines, 24 and 60 fps, x264 crf 23: the picture is
    small enough to average noise away, the gap long enough that a slow pan moves more than the flow's own
    error and that animation drawn on twos at 24 fps is met at whole steps, and short enough that a pan of
    100 % of the diagonal per second is still followed. `engine: farneback, gap_s: null, short_side_px: null`
    gives Data-Juicer's motion score in our unit: `score_px / diagonal_px / 0.5 s * 100`.
    """

    engine: Literal["dis", "farneback"] = key("dis", "dense optical flow: dis (fast), farneback (as Data-Juicer)")
    rate_fps: float = key(2.0, "frame pairs per second")
    gap_s: float | None = key(0.15, "seconds between the frames of a pair; null: neighbours on the rate's grid")
    short_side_px: int | None = key(180, "flow is computed at this short side; null: full size")

    writes: ClassVar[tuple[str, ...]] = ("motion", "camera_pan_x", "camera_pan_y", "camera_zoom")
    media: ClassVar[frozenset[str]] = VIDEO
    pool: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        """Refuse settings that give no pairs."""
        if self.rate_fps <= 0 or (self.gap_s is not None and self.gap_s <= 0):
            raise ValueError("rate_fps and gap_s must be above 0")

    @property
    def sampling(self) -> Sampling | None:
        """Gray frames on the grid, each with its partner."""
        return Sampling(self.rate_fps, None, self.gap_s, self.short_side_px, "gray")

    def load(self) -> Scorer:
        """Make the flow engine and give the scoring function."""
        flow_of = dis_flow if self.engine == "dis" else farneback_flow
        paired = self.gap_s is not None

        def score(clips: Sequence[ClipInput]) -> list[Scores]:
            return [score_motion(clip.frames, flow_of, paired=paired) for clip in clips]

        return score


@lru_cache(maxsize=16)
def taper(width: int, height: int) -> np.ndarray:
    """Return the window that fades a picture out towards its edges: float32 (H, W)."""
    return cv2.createHanningWindow((width, height), cv2.CV_32F)


def global_shift(first: np.ndarray, second: np.ndarray) -> tuple[int, int]:
    """Return by how many pixels the whole picture moved, right and down; (0, 0) when it did not clearly.

    Phase correlation proposes the shift; it stands only if the pictures then agree better than unmoved, so
    that fades, flashes and flat pictures do not give a chance value.

    Args:
        first: uint8 (H, W).
        second: uint8 (H, W), later.
    """
    height, width = first.shape
    size = (width // SHIFT_STEP_PX, height // SHIFT_STEP_PX)
    small = [cv2.resize(g, size, interpolation=cv2.INTER_AREA).astype(np.float32) for g in (first, second)]
    (right, down), _ = cv2.phaseCorrelate(small[0], small[1], taper(*size))
    dx, dy = SHIFT_STEP_PX * round(right), SHIFT_STEP_PX * round(down)
    if max(abs(dx), abs(dy)) < MIN_SHIFT_PX or abs(dx) > width // 2 or abs(dy) > height // 2:
        return 0, 0
    before, after = overlap(first, second, dx, dy)
    moved, unmoved = cv2.absdiff(before, after).mean(), cv2.absdiff(first, second).mean()
    return (dx, dy) if moved < unmoved else (0, 0)


def overlap(first: np.ndarray, second: np.ndarray, dx: int, dy: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the parts of two pictures that show the same things when all moved by (dx, dy) pixels."""
    height, width = first.shape
    before = first[max(0, -dy) : height - max(0, dy), max(0, -dx) : width - max(0, dx)]
    after = second[max(0, dy) : height + min(0, dy), max(0, dx) : width + min(0, dx)]
    return np.ascontiguousarray(before), np.ascontiguousarray(after)


def texture(gray: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return where motion can be seen: the smaller eigenvalue of the structure tensor (Shi & Tomasi 1994).

    Args:
        gray: uint8 (H, W).
        size: width and height of the answer, which each pixel there is an average of, with its neighbours.

    Returns:
        float32 (height, width), squared grey levels per pixel; 0 on flat areas and along straight edges.
    """
    dx = cv2.Sobel(gray, cv2.CV_32F, 1, 0, ksize=3, scale=1 / 8)
    dy = cv2.Sobel(gray, cv2.CV_32F, 0, 1, ksize=3, scale=1 / 8)
    products = (
        cv2.resize(cv2.multiply(a, b), size, interpolation=cv2.INTER_AREA) for a, b in ((dx, dx), (dy, dy), (dx, dy))
    )
    xx, yy, xy = (cv2.boxFilter(product, -1, (3, 3)) for product in products)
    return ((xx + yy) - np.sqrt((xx - yy) ** 2 + 4 * xy * xy)) / 2


def fill_flat(flow: np.ndarray, gray: np.ndarray) -> np.ndarray:
    """Let areas without texture move as what is around them does.

    There the flow is a guess, and mostly zero: an encoder freezes a sky while the camera pans, the more so
    the lower the bit rate, so that one pan would score by how it was compressed. Normalised convolution
    (Knutsson & Westin 1993): each vector counts by its texture, and gives way to its neighbours' mean.

    Args:
        flow: float32 (H, W, 2), pixels.
        gray: uint8 (H, W), the earlier picture.

    Returns:
        float32 (h, w, 2) at a quarter of the size; still pixels of the whole size.
    """
    height, width = gray.shape
    small = (min(MOST_SMALL_PX, max(1, width // 4)), min(MOST_SMALL_PX, max(1, height // 4)))
    seen = texture(gray, small)
    weight = (seen / (seen + TEXTURE_LEVELS2))[..., None]
    voted = cv2.resize(flow, small, interpolation=cv2.INTER_AREA) * weight
    # The wide mean needs no more than a vector for every 16 pixels.
    coarse = (max(1, small[0] // 4), max(1, small[1] // 4))
    mixed = cv2.resize(np.dstack([voted, weight]), coarse, interpolation=cv2.INTER_AREA)
    spread = cv2.GaussianBlur(mixed, (0, 0), NEIGHBOURHOOD * max(coarse))
    around = cv2.resize(spread[..., :2] / (spread[..., 2:] + 1e-4), small)
    return np.asarray(voted + (1 - weight) * around, np.float32)


def dis_flow(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return DIS flow with the `fast` preset, over the part that both pictures show, flat areas filled in.

    The shift of the whole picture is taken out first, so that pans beyond the reach of the coarsest scale (a
    tenth of the diagonal) are followed. `fast` takes a fifth of `medium`'s time and measures pans as well.
    """
    dx, dy = global_shift(first, second)
    # A new engine each time: one that has seen a smaller picture gives another flow for the next.
    engine = cv2.DISOpticalFlow.create(cv2.DISOpticalFlow_PRESET_FAST)
    # Refinement smears what the patches found over the plain areas, and takes half of the time.
    engine.setVariationalRefinementIterations(0)
    before, after = overlap(first, second, dx, dy)
    flow = engine.calc(before, after, None)  # type: ignore[call-overload]
    if dx or dy:
        flow += np.array([dx, dy], dtype=np.float32)
    return fill_flat(flow, before)


def farneback_flow(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return Farnebäck flow with the parameters that published motion filters use."""
    return cv2.calcOpticalFlowFarneback(first, second, None, 0.5, 3, 15, 3, 5, 1.2, 0)  # type: ignore[call-overload]
