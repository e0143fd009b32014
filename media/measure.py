"""Size and length of a file, from its header and its packets alone: no picture is decoded."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from core.errors import MediaError
from media.image import DECODE_ERRORS, FORMATS
from media.probe import PacketScan, probe_video
from media.types import MediaType, SourceFacts

ORIENTATION = 0x0112
"""EXIF tag; 5 to 8 lay the picture on its side"""
SLACK_S = 1e-6  # spans are written to the microsecond


@dataclass(frozen=True, slots=True)
class Extent:
    """How large a file's pictures are as displayed, and how long it, or a span of it, is; an image has one frame."""

    width_px: int
    height_px: int
    num_frames: int
    duration_s: float


def measure(path: Path, kind: MediaType, start_s: float | None = None, end_s: float | None = None) -> Extent:
    """Return size and length of a file, or of the span of a video between two times.

    Raises:
        MediaError: it cannot be read, or does not tell.
    """
    if kind == "image":
        return Extent(*_image_size(path), 1, 0.0)
    facts, scan = probe_video(path)
    return Extent(facts.width_px, facts.height_px, *_length(facts, scan, start_s, end_s))


def _image_size(path: Path) -> tuple[int, int]:
    """Return an image's width and height as displayed, from its header.

    Raises:
        MediaError: not a readable image.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            on_its_side = image.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
            width, height = image.size[::-1] if on_its_side else image.size
    except FileNotFoundError:
        raise MediaError("the file is gone") from None
    except UnidentifiedImageError:
        raise MediaError("not a readable image") from None
    except (*DECODE_ERRORS, Image.DecompressionBombError) as error:
        raise MediaError(f"image cannot be read ({error})") from None
    if width < 1 or height < 1:
        raise MediaError(f"an image of {width}x{height} pixels")
    return width, height


def _length(facts: SourceFacts, scan: PacketScan, start_s: float | None, end_s: float | None) -> tuple[int, float]:
    """Return the frames and seconds of a span, or of the whole file.

    The file's packets tell both, so that a file cut short counts as what is left of it.

    Raises:
        MediaError: nothing tells.
    """
    times_s = (scan.pts - facts.zero_pts) * facts.time_base
    if start_s is not None and end_s is not None:
        inside = np.count_nonzero((times_s > start_s - SLACK_S) & (times_s < end_s - SLACK_S))
        if not inside:
            raise MediaError(f"no frame between {start_s} s and {end_s} s")
        return int(inside), end_s - start_s
    count = facts.declared_frames
    if count is not None and facts.fps:
        return count, count / facts.fps
    if count is not None and facts.declared_duration_s:
        return count, facts.declared_duration_s
    if count == 1:
        return 1, 0.0
    raise MediaError("its packets tell neither frames nor seconds: write it into another container, such as MP4")
