"""Four small pictures of every clip, kept or not, for those who look at the result."""

from pathlib import Path

import cv2

from core.files import atomic_write, make_folder
from curation.folders import PREVIEWS
from curation.types import Frames, Sampling

PREVIEW = Sampling(rate_fps=2.0, count=4, short_side_px=144, color="rgb")


def write_previews(out: Path, clip_id: str, frames: Frames) -> None:
    """Write up to four small JPEGs of a clip: `previews/<first two hex digits>/<clip_id>-<n>.jpg`."""
    for number, picture in enumerate(frames.pixels):
        jpeg = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()
        path = preview_path(out, clip_id, number)
        make_folder(path.parent)
        atomic_write(path, jpeg, to_disk=False)  # they are only looked at, and there are several to a clip


def preview_path(out: Path, clip_id: str, number: int) -> Path:
    """Return where a clip's preview lies."""
    return out / f"{PREVIEWS}/{clip_id[:2]}/{clip_id}-{number}.jpg"
