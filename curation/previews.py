"""Four small pictures of every clip, kept or not, for those who look at the result."""

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from curation.files import atomic_write
from curation.shots.types import CoarseFrame
from curation.types import Frames, Sampling, Span

PREVIEW = Sampling(rate_fps=2.0, count=4, short_side_px=144, color="rgb")


def write_previews(out: Path, clip_id: str, frames: Frames) -> None:
    """Write up to four small JPEGs of a clip: `previews/<first two hex digits>/<clip_id>-<n>.jpg`."""
    for number, picture in enumerate(frames.pixels):
        jpeg = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()
        path = preview_path(out, clip_id, number)
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, jpeg)


def preview_path(out: Path, clip_id: str, number: int) -> Path:
    """Give where a clip's preview lies."""
    return out / "previews" / clip_id[:2] / f"{clip_id}-{number}.jpg"


def coarse_preview(held: Iterable[CoarseFrame], span: Span) -> Frames | None:
    """Give a preview of a clip too short for the sampling grid, from its coarse frames."""
    inside = [c for c in held if span.start_s - 1e-6 <= c.time_s < span.end_s - 1e-6]
    chosen = inside[:: max(1, len(inside) // 4)][:4]
    if not chosen:
        return None
    pictures = []
    for coarse in chosen:
        height, width = coarse.luma.shape
        u, v = (cv2.resize(plane, (width, height)) for plane in coarse.chroma)
        pictures.append(cv2.cvtColor(np.dstack([coarse.luma, v, u]), cv2.COLOR_YCrCb2RGB))
    return Frames(np.stack(pictures), np.array([c.time_s for c in chosen]))
