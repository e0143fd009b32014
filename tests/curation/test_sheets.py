"""Contact sheets: which clips are on them, which frames of each, and what is said where one cannot be read."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from footage import write
from PIL import Image

import run_pipeline
from core.errors import MediaError
from core.limits import Limits
from curation.report.sheets import CLIPS_A_SHEET, GAP_PX, TEXT_PX, WIDEST_PX, drawn_strip, write_sheets
from curation.report.strips import strip
from media.types import no_heartbeat

COUNT = 30


def shades(path: Path, size: tuple[int, int] = (96, 64)) -> Path:
    """A film that grows brighter by 7 of 255 with each frame."""
    return write(path, [np.full((size[1], size[0], 3), 20 + 7 * k, np.uint8) for k in range(COUNT)])


def table_of(*clips: dict) -> pa.Table:
    usual = {"type": "video", "status": "accepted", "start_s": 0.0, "end_s": 1.25}
    return pa.Table.from_pylist([usual | clip for clip in clips])


def pictures(sheet: Path) -> np.ndarray:
    return np.asarray(Image.open(sheet).convert("L"), int)


def test_a_strip_goes_from_the_first_frame_to_the_last(tmp_path):
    frames = strip(shades(tmp_path / "a.mp4"), 4, 48, no_heartbeat, Limits())
    assert [frame.shape for frame in frames] == [(48, 72, 3)] * 4
    assert [frame.mean() for frame in frames] == pytest.approx([20, 20 + 70, 20 + 133, 20 + 203], abs=4)
    assert len(strip(shades(tmp_path / "b.mp4"), 64, 48, no_heartbeat, Limits())) == COUNT
    (tmp_path / "c.mp4").write_bytes((tmp_path / "b.mp4").read_bytes()[:-900])
    with pytest.raises(MediaError):
        strip(tmp_path / "c.mp4", 4, 48, no_heartbeat, Limits())


def test_a_row_is_as_wide_as_the_sheet_whatever_the_frames():
    for count, width in ((2, 100), (8, 400), (64, 100), (0, 0)):
        picture = drawn_strip("a name " * 90, [np.full((50, width, 3), 200, np.uint8)] * count)
        assert picture.width == WIDEST_PX and picture.height <= TEXT_PX + 6 + 50 + GAP_PX
        assert np.asarray(picture)[: TEXT_PX + 4].min() < 90, "text is drawn"


def test_sheets_hold_accepted_videos_in_order_and_say_what_is_damaged(tmp_path):
    out, folder = tmp_path / "out", tmp_path / "sheets"
    (out / "train").mkdir(parents=True)
    shades(out / "train" / "a.mp4")
    (out / "train" / "b.mp4").write_bytes(b"no film")
    clips = [
        {"clip_id": "b" * 8, "source_path": "b.mp4", "clip_path": "train/b.mp4"},
        {"clip_id": "a" * 8, "source_path": "a.mp4", "clip_path": "train/a.mp4"},
        {"clip_id": "c" * 8, "source_path": "a.mp4", "clip_path": "train/a.mp4", "status": "rejected"},
        {"clip_id": "d" * 8, "source_path": "a.mp4", "clip_path": None},
        {"clip_id": "e" * 8, "source_path": "e.jpg", "clip_path": "train/e.jpg", "type": "image", "start_s": None},
    ]
    folder.mkdir()
    (folder / "sheet-0007.jpg").write_bytes(b"of an earlier call")
    (folder / "mine.jpg").write_bytes(b"not ours")
    found = write_sheets(out, folder, table_of(*clips), 3, Limits())
    assert (found.clips, found.unread) == (2, 1) and found.paths == [folder / "sheet-0001.jpg"]
    assert sorted(path.name for path in folder.iterdir()) == ["mine.jpg", "sheet-0001.jpg"]
    sheet = pictures(found.paths[0])
    height = 64 + TEXT_PX + 6 + GAP_PX
    assert sheet.shape == (height + TEXT_PX + 6 + GAP_PX, WIDEST_PX), "a comes first, with pictures; b is a line"
    middle = sheet[TEXT_PX + 6 + 32]
    assert [middle[48 + k * (96 + GAP_PX)] for k in range(3)] == pytest.approx([20, 118, 223], abs=10)


def test_a_dozen_clips_make_a_sheet(tmp_path, monkeypatch):
    names = [
        {"clip_id": f"{k:08}", "source_path": "a.mp4", "clip_path": "train/no.mp4"} for k in range(CLIPS_A_SHEET + 1)
    ]
    monkeypatch.setattr("curation.report.sheets._strip", lambda *_: (drawn_strip("one", []), True))
    found = write_sheets(tmp_path, tmp_path / "sheets", table_of(*names), 2, Limits())
    assert [path.name for path in found.paths] == ["sheet-0001.jpg", "sheet-0002.jpg"] and found.clips == len(names)


@pytest.mark.parametrize("count", ["1", "65", "many"])
def test_a_strange_number_of_frames_is_refused(count, capsys):
    with pytest.raises(SystemExit):
        run_pipeline.main(["report", "no", "--sheets", "x", "--sheet-frames", count])
    assert "--sheet-frames" in capsys.readouterr().err
