"""What was laid over the picture (subtitles, logos, watermarks), told from text in the scene; the part free of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np

from core.settings import key
from curation.schema import BOTH
from curation.types import ClipInput, Sampling, Scorer, Scores
from operators.bars import Box
from operators.clear_box import clear_box, obstacles
from operators.followed_text import Follower, Verdict
from operators.letterbox import clip_box
from operators.standing import standing_graphics
from operators.text_area import NETWORK_STEP_PX, PpOcr, are_same, covered, load_detector

Find = Callable[[np.ndarray], tuple[list[np.ndarray], list[np.ndarray]]]
"""From uint8 (H, W, 3) RGB to the quads of text lines and of thicker things, float32 (4, 2) in its pixels."""


@dataclass(frozen=True)
class Overlay:
    """Overlays against scene text, by following the texts of several frames through the clip.

    A text is an overlay if it stands in the picture while the scene around it moves, or stands where captions do; it is
    scene text if it moves. Logos without text are found by edges that stand while the rest of the picture moves.

    Where camera and scene stand still, the two cannot be told apart, nor in a single image: text then counts as an
    overlay, and logos without text are not found. Text on a thing that the camera follows stands, and counts as an
    overlay; lines that run through the picture (tickers, rolling credits) move, and count as scene text. An overlay
    that stands for less than the time between two frames that are looked at may be missed.

    All null where the clip is dark all through, or shows nothing that was sampled.
    """

    rate_fps: float = key(2.0, "frames per second that texts are followed through")
    frames: int = key(24, "at most so many frames, at uniform times of the clip")
    every: int = key(2, "text is looked for in every so manieth of these frames, and in the last")
    glance_short_side_px: int = key(224, "short side of the detector's input at the first look")
    short_side_px: int = key(320, "short side at the second look, at what the first one found")
    long_side_px: int = key(960, "bound on the input's long side")
    min_score: float = key(0.5, "detector's mean probability that a line must have, 0..1")
    max_height: float = key(0.4, "thicker lines, as a share of the short side, count only where they stand for certain")
    graphics: bool = key(True, "look for standing logos without text, too")
    max_level: int = key(24, "luma 0..255 that a black bar does not exceed")

    writes: ClassVar[tuple[str, ...]] = ("overlay_area", "scene_text_area", "safe_box", "safe_share")
    media: ClassVar[frozenset[str]] = BOTH
    pool: ClassVar[str | None] = "text"
    picture_short_side_px: ClassVar[int] = 360

    def __post_init__(self) -> None:
        """Refuse settings that look at nothing."""
        if self.frames < 1 or self.every < 1 or self.rate_fps <= 0:
            raise ValueError("frames and every must be at least 1, rate_fps above 0")
        if not NETWORK_STEP_PX <= self.glance_short_side_px <= self.short_side_px <= self.long_side_px:
            raise ValueError("sides must be at least 32, and glance_short_side_px <= short_side_px <= long_side_px")

    @property
    def sampling(self) -> Sampling | None:
        """RGB frames over the whole clip."""
        return Sampling(self.rate_fps, self.frames, None, self.picture_short_side_px, "rgb")

    def load(self) -> Scorer:
        """Open the detector that ships with rapidocr and return the scoring function.

        Raises:
            FileNotFoundError: the installed rapidocr has no detector inside.
        """
        find = self._finder(PpOcr(load_detector(), self.long_side_px, self.min_score, self.max_height))

        def score_clip(clip: ClipInput) -> Scores:
            return self._measure(clip.frames.pixels, clip.frames.times_s, find) if len(clip.frames) else self._null

        def score(clips: Sequence[ClipInput]) -> list[Scores]:
            return [score_clip(clip) for clip in clips]

        return score

    @property
    def _null(self) -> Scores:
        return dict.fromkeys(self.writes)

    def _finder(self, detect: PpOcr) -> Find:
        def look(rgb: np.ndarray, short_side_px: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
            lines, huge, (width, height) = detect(rgb, short_side_px)
            scale = np.array([rgb.shape[1] / width, rgb.shape[0] / height], np.float32)
            return [quad * scale for quad in lines], [quad * scale for quad in huge]

        def find(rgb: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
            lines, huge = look(rgb, self.glance_short_side_px)
            return look(rgb, self.short_side_px) if lines or huge else ([], [])

        return find

    def _measure(self, rgb: np.ndarray, times_s: np.ndarray, find: Find) -> Scores:
        """Return the scores of one clip, uint8 (T, H, W, 3)."""
        count, height, width = rgb.shape[:3]
        luma = np.stack([cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in rgb])
        inside = clip_box(luma, self.max_level)
        if inside is None:
            return self._null
        over, scene_share, follower = self._texts(rgb, luma, times_s, find)
        if self.graphics:
            different = [k for k in range(count) if k == 0 or not are_same(rgb[k], rgb[k - 1])]
            for logo in standing_graphics(luma[different], inside, over):
                if not follower.moves(logo):  # where a camera sways or zooms, some of the scene nearly stands
                    over[logo[1] : logo[3], logo[0] : logo[2]] = 1
        box = clear_box(inside, obstacles(over))
        left, top, right, bottom = box or (0, 0, 0, 0)
        return {
            "overlay_area": float(over.mean()),
            "scene_text_area": scene_share,
            "safe_box": [left / width, top / height, right / width, bottom / height] if box else None,
            "safe_share": (right - left) * (bottom - top) / (width * height),
        }

    def _texts(
        self, rgb: np.ndarray, luma: np.ndarray, times_s: np.ndarray, find: Find
    ) -> tuple[np.ndarray, float, Follower]:
        """Return where overlaid text is at any time, uint8 (H, W), the largest share under scene text, the follower."""
        count, height, width = luma.shape
        found: dict[int, tuple[list[np.ndarray], list[np.ndarray]]] = {}
        for frame in sorted({*range(0, count, self.every), count - 1}):
            if not any(are_same(rgb[frame], rgb[other]) for other in list(found)[-1:]):
                found[frame] = find(rgb[frame])
        boxes = [
            [b for quads in found.get(k, ()) for quad in quads if (b := _box_of(quad, width, height))]
            for k in range(count)
        ]
        follower = Follower(luma, times_s, boxes)
        over, scene_share = np.zeros((height, width), np.uint8), 0.0
        for frame, (lines, huge) in found.items():
            in_scene = []
            for quad, is_huge in [*((q, False) for q in lines), *((q, True) for q in huge)]:
                box = _box_of(quad, width, height)
                if box is None:
                    continue
                verdict = follower.verdict(frame, box)
                if verdict is Verdict.SCENE and not is_huge:
                    in_scene.append(quad)
                elif verdict is Verdict.OVERLAY or (verdict is Verdict.DOUBTFUL and not is_huge):
                    left, top, right, bottom = follower.standing_part(frame, box)
                    over[top:bottom, left:right] |= covered([quad], width, height)[top:bottom, left:right]
            scene_share = max(scene_share, float(covered(in_scene, width, height).mean()))
        return over, scene_share, follower


def _box_of(quad: np.ndarray, width: int, height: int) -> Box | None:
    """Return the whole pixels around a quad, within the picture; None where it has none."""
    left, top = np.floor(quad.min(axis=0)).astype(int)
    right, bottom = np.ceil(quad.max(axis=0)).astype(int)
    box = (max(0, int(left)), max(0, int(top)), min(width, int(right)), min(height, int(bottom)))
    return box if box[0] < box[2] and box[1] < box[3] else None
