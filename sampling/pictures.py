"""Pictures for people: contact sheets with captions, and video files."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from core.files import atomic_path
from media.encoder import x264_options
from media.fonts import fonts_of

COMMENT = "comment"
"""the field of files that holds a text"""
CAPTION_PX = 14
LINES = 2
MOST_FRAMES = 8
BAND_PX = (CAPTION_PX + 4) * LINES + 4
"""height of the caption above a row"""
FRAME_PX = 192
"""width of a frame in a sheet"""


def contact_sheet(videos: Sequence[np.ndarray], captions: Sequence[str], frame_width_px: int = FRAME_PX) -> Image.Image:
    """Lay out some frames of each video in a row, with its caption above.

    Args:
        videos: uint8 (T, H, W, 3) each, of any sizes.
        captions: one for each.
        frame_width_px: width that frames are drawn with.
    """
    rows = [_row(video, caption, frame_width_px) for video, caption in zip(videos, captions, strict=True)]
    sheet = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)), "white")
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    return sheet


def _row(video: np.ndarray, caption: str, width: int) -> Image.Image:
    shown = video[np.unique(np.linspace(0, len(video) - 1, min(len(video), MOST_FRAMES)).round().astype(int))]
    height = max(1, round(width * video.shape[1] / video.shape[2]))
    row = Image.new("RGB", (width * len(shown) + 2 * (len(shown) - 1), height + BAND_PX), "white")
    fonts = fonts_of(CAPTION_PX)
    for number, line in enumerate(fonts.wrap(caption, row.width - 4, LINES)):
        fonts.draw(row, (2, 1 + number * (CAPTION_PX + 4)), line)
    kind = Image.Resampling.NEAREST if width >= 2 * video.shape[2] else Image.Resampling.LANCZOS
    for position, frame in enumerate(shown):
        row.paste(Image.fromarray(frame).resize((width, height), kind), (position * (width + 2), BAND_PX))
    return row


def first_of_sheet(sheet: Image.Image) -> Image.Image:
    """Return the first frame of a contact sheet of one video, as wide as `contact_sheet` draws it by default."""
    return sheet.crop((0, BAND_PX, min(FRAME_PX, sheet.width), sheet.height))


def write_image(image: Image.Image, path: Path, comment: str | None = None) -> None:
    """Write a picture, atomically, in the format of the path's extension.

    Args:
        image: the picture.
        path: the file to be.
        comment: text that a PNG carries in it.
    """
    info = None
    if comment is not None:
        info = PngInfo()
        info.add_itxt(COMMENT, comment)
    with atomic_path(path) as temporary:
        image.save(temporary, pnginfo=info)


def write_lossless(frames: np.ndarray, fps: float, path: Path) -> None:
    """Write H.264 of RGB pixels in MP4 without loss, atomically: what is read is what was written.

    Args:
        frames: uint8 (T, H, W, 3).
        fps: frame rate.
        path: the file to be.
    """
    with atomic_path(path) as temporary, av.open(str(temporary), "w") as output:
        stream = output.add_stream("libx264rgb", rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "rgb24"
        stream.codec_context.options = x264_options(0, "ultrafast")
        for frame in frames:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        output.mux(stream.encode(None))


def write_mp4(frames: np.ndarray, fps: float, path: Path, crf: int = 14, comment: str | None = None) -> None:
    """Write H.264 in MP4, atomically; the same frames give the same bytes.

    Args:
        frames: uint8 (T, H, W, 3), even sides.
        fps: frame rate.
        path: the file to be.
        crf: x264 quality; 14 shows no artefacts of its own.
        comment: text that the file carries in it.
    """
    with atomic_path(path) as temporary, av.open(str(temporary), "w") as output:
        if comment is not None:
            output.metadata[COMMENT] = comment
        stream = output.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.options = x264_options(crf, "medium")
        for frame in frames:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        output.mux(stream.encode(None))
