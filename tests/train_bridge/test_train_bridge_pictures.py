"""Files of pictures: the same frames give the same bytes, and come back as they were."""

from pathlib import Path

import av
import numpy as np
import pytest

from sampling.pictures import contact_sheet, write_image, write_mp4


@pytest.mark.parametrize(("width", "height"), [(320, 180), (64, 64), (480, 272)])
def test_equal_frames_give_equal_files_whatever_lay_in_memory(tmp_path: Path, width: int, height: int) -> None:
    draw = np.random.default_rng(0)
    x = np.arange(width)[None, :, None] + np.arange(height)[:, None, None]
    frames = [(x + 7 * t + draw.integers(0, 12, (height, width, 3))) % 256 for t in range(10)]
    video = np.stack(frames).astype(np.uint8)
    files = set()
    for _ in range(8):
        junk = [np.full(int(size), draw.integers(255), np.uint8) for size in draw.integers(100, 3_000_000, 6)]
        del junk  # what the encoder finds in memory that it does not initialise
        write_mp4(video, 12.0, tmp_path / "a.mp4")
        files.add((tmp_path / "a.mp4").read_bytes())
    assert len(files) == 1
    with av.open(str(tmp_path / "a.mp4")) as container:
        back = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    assert back.shape == video.shape


def test_a_contact_sheet_shows_frames_in_order_under_their_caption(tmp_path: Path) -> None:
    video = np.zeros((17, 32, 48, 3), np.uint8)
    video[:, :, :, 0] = np.linspace(0, 255, 17).astype(np.uint8)[:, None, None]
    sheet = contact_sheet([video, video[:1]], ["grows red", "日本 " * 60], frame_width_px=48)
    pixels = np.asarray(sheet)
    reds = [int(pixels[60, 24 + 50 * i, 0]) for i in range(8)]
    assert reds[0] == 0 and reds[-1] == 255 and reds == sorted(reds)
    write_image(sheet, tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")
