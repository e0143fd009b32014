"""Writing control maps: videos beside a clip's file, frame for frame with it, and stills beside an image."""

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from av.container import OutputContainer
from av.video.frame import PictureType, VideoFrame
from PIL import Image

from media.colour import BT709, LIMITED_RANGE
from media.encoder import map_options
from media.planes import BLACK_CODE, LUMA_CODES
from media.shape import TICKS
from media.written import TimedTrack, writing

STILL_QUALITY = 95


class MapFile:
    """One map's video, H.264 in MP4 with BT.709 of limited range; a map without colour has its values as luma."""

    def __init__(self, path: Path, fps: float):
        """Open the file.

        Args:
            path: it, which must not be read before `close`.
            fps: the clip's frame rate; the frames' own times are what counts.
        """
        self._output: OutputContainer = writing(path)
        self._stream = self._output.add_stream("libx264", rate=Fraction(fps).limit_denominator(60000))
        self._codec = self._stream.codec_context
        self._track = TimedTrack(self._output)
        self._is_begun = False
        self._gray: _GrayFrame | None = None
        self._last_tick = -1

    def add(self, picture: np.ndarray, tick: int) -> None:
        """Write the next frame.

        Args:
            picture: uint8 (H, W), or (H, W, 3) RGB; height and width even and the same for all frames.
            tick: its time from the clip's start in `shape.TICKS`, later than the frame's before.
        """
        if not self._is_begun:
            height, width = picture.shape[:2]
            self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
            self._codec.time_base, self._codec.options = TICKS, map_options()
            self._codec.colorspace = self._codec.color_primaries = self._codec.color_trc = BT709
            self._codec.color_range = LIMITED_RANGE
            self._gray = _GrayFrame(height, width) if picture.ndim == 2 else None
            self._is_begun = True
        frame = _from_rgb(picture) if self._gray is None else self._gray.of(picture)
        frame.pts, frame.time_base, frame.pict_type = tick, TICKS, PictureType.NONE
        self._last_tick = tick
        self._track.add(self._stream.encode(frame))

    def close(self, end_tick: int) -> None:
        """End the file; its last frame is shown until `end_tick`."""
        if self._is_begun:
            self._track.add(self._stream.encode(None))
            self._track.close(max(end_tick, self._last_tick + 1))
        self.abandon()

    def abandon(self) -> None:
        """Let go of the file as it is."""
        self._output.close()


def write_still(path: Path, picture: np.ndarray) -> None:
    """Write a map of an image, uint8 (H, W) or (H, W, 3) RGB, as JPEG."""
    Image.fromarray(np.ascontiguousarray(picture)).save(path, "JPEG", quality=STILL_QUALITY)


def _from_rgb(picture: np.ndarray) -> VideoFrame:
    frame = VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    return frame.reformat(format="yuv420p", dst_colorspace=BT709, dst_color_range=LIMITED_RANGE)


class _GrayFrame:
    """A frame whose luma is written where it is encoded from; x264 takes a copy at once, so that it can be reused."""

    def __init__(self, height: int, width: int):
        self.frame = VideoFrame(width, height, "yuv420p")
        luma, *chroma = self.frame.planes
        self._luma = np.frombuffer(memoryview(luma), np.uint8).reshape(height, luma.line_size)[:, :width]
        for plane in chroma:
            np.frombuffer(memoryview(plane), np.uint8)[:] = 128

    def of(self, picture: np.ndarray) -> VideoFrame:
        """Return the frame with values, uint8 (H, W), as its luma."""
        # Rounded as a table would be, in a third of the time: no level comes out halfway between two codes.
        cv2.convertScaleAbs(picture, self._luma, LUMA_CODES / 255, BLACK_CODE)
        return self.frame
