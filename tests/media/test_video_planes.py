"""Small views of decoded frames against their definitions, written out in numpy."""

import av
import cv2
import numpy as np
import pytest
from av.video.reformatter import Interpolation

from media import planes

LIMITED, FULL = 1, 2  # AVCOL_RANGE_MPEG, AVCOL_RANGE_JPEG


def frame_of(luma: np.ndarray, pixel_format: str, color_range: int) -> av.VideoFrame:
    """A frame with this luma, codes of 8 bits, and grey chroma."""
    deep = pixel_format.endswith("10le")
    height, width = luma.shape
    frame = av.VideoFrame(width, height, pixel_format)
    for index, plane in enumerate(frame.planes):
        dtype = np.uint16 if deep else np.uint8
        line = np.frombuffer(plane, dtype).reshape(plane.height, -1)
        codes = luma if index == 0 else np.full((plane.height, plane.width), 128)
        line[:, : codes.shape[1]] = codes.astype(dtype) << (2 if deep else 0)
    frame.color_range = color_range
    return frame


def area_mean(luma: np.ndarray, width: int, height: int) -> np.ndarray:
    """The mean of what each pixel covers, edges by their share: float64."""

    def weights(many: int, few: int) -> np.ndarray:
        edges = np.arange(few + 1) * many / few
        cells = np.arange(many)
        covered = np.minimum(edges[1:, None], cells + 1) - np.maximum(edges[:-1, None], cells)
        return np.clip(covered, 0, None) * few / many

    return weights(luma.shape[0], height) @ luma.astype(float) @ weights(luma.shape[1], width).T


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p", "yuv444p", "nv12", "yuv420p10le", "gray"])
@pytest.mark.parametrize(
    "size, small",
    [((640, 480), (240, 180)), ((640, 360), (320, 180)), ((852, 480), (640, 360)), ((322, 182), (180, 102))],
)
def test_gray_is_the_area_mean_at_full_range(pixel_format, size, small) -> None:
    rng = np.random.default_rng(1)
    coarse = rng.integers(16, 236, (size[1] // 6, size[0] // 6)).astype(np.uint8)
    luma = np.clip(cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC), 16, 235)
    for color_range in (LIMITED, FULL):
        shown = planes.gray(frame_of(luma, pixel_format, color_range), *small, 0, cv2.INTER_AREA)
        mean = area_mean(luma, *small)
        is_limited = color_range == LIMITED and pixel_format != "gray"  # which is always full
        wanted = (mean - 16) * 255 / 219 if is_limited else mean
        assert shown.shape == wanted.shape and shown.dtype == np.uint8
        assert np.abs(shown - wanted).mean() < 1.0, "the levels agree"
        assert np.abs(shown - wanted).max() < 4.0
        assert np.var(shown) == pytest.approx(np.var(wanted), rel=0.01), "neither sharper nor softer"


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_a_turned_frame_gives_the_turned_picture(rotation) -> None:
    luma = np.random.default_rng(2).integers(16, 236, (48, 96)).astype(np.uint8)
    frame = frame_of(luma, "yuv420p", LIMITED)
    upright = planes.gray(frame, 48, 24, 0, cv2.INTER_AREA)
    turned = planes.gray(frame, *((24, 48) if rotation % 180 else (48, 24)), rotation, cv2.INTER_AREA)
    assert np.array_equal(turned, np.rot90(upright, -rotation // 90))
    chroma = planes.chroma(frame, *((12, 24) if rotation % 180 else (24, 12)), rotation)
    assert chroma.shape == ((2, 24, 12) if rotation % 180 else (2, 12, 24))
    assert np.all(chroma == 128)


def test_frames_of_several_kinds_in_turn_do_not_disturb_each_other() -> None:
    """What converts them is kept from frame to frame, one for each kind."""
    rng = np.random.default_rng(3)
    lumas = [rng.integers(16, 236, size).astype(np.uint8) for size in ((90, 160), (120, 160), (90, 160))]
    frames = [
        frame_of(luma, name, LIMITED) for luma, name in zip(lumas, ("yuv420p", "yuv420p", "yuv422p"), strict=True)
    ]
    how = int(Interpolation.AREA | Interpolation.FULL_CHR_H_INT)
    alone = [frame.reformat(80, 60, "rgb24", interpolation=how).to_ndarray() for frame in frames]
    for _ in range(2):
        for frame, wanted in zip(frames, alone, strict=True):
            assert np.abs(planes.rgb(frame, 80, 60, 0).astype(int) - wanted).max() <= 2, "rounding alone"
