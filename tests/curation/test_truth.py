"""What others published, or was counted by eye, about real footage."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from runs import curate, rows_of

from benchmarks.cuts import compare, read_truth
from curation.types import ClipInput, Frames
from media.types import SourceFacts, Span
from operators.text_area import TextArea

pytestmark = pytest.mark.slow


def test_hard_cuts_by_eye(shared: Path) -> None:
    """The default detector combines evidence and beats every single one."""
    scores = compare(shared / "videos", read_truth(shared / "truth" / "cuts_by_eye.json"), show_errors=False)
    assert scores["Fused"].f1 >= 0.90
    assert scores["Fused"].f1 == max(score.f1 for score in scores.values())


def test_farneback_motion_as_published(shared: Path, tmp_path: Path) -> None:
    """Data-Juicer's scores, px per half second at full size, in our unit: within 5 %."""
    published = json.loads((shared / "truth" / "data_juicer.json").read_text())
    names = [name for name in published["motion_score_farneback"] if name.endswith(".mp4")]
    settings = "engine: farneback, gap_s: null, short_side_px: null"
    (tmp_path / "recipe.yaml").write_text(
        "shots: {detector: stride, settings: {every_s: 100}, max_s: 60, segment_s: 120}\n"
        f"operators: {{motion: {{{settings}}}}}\ncut: {{mode: none}}\n"
    )
    files = [shared / "videos" / name for name in names]
    curate(*files, "--config", tmp_path / "recipe.yaml", out=tmp_path / "out")
    rows = {row["source_path"]: row for row in rows_of(tmp_path / "out").values()}
    assert len(rows) == len(names) == 3
    for name in names:
        width, height = published["resolution"][name]
        expected = published["motion_score_farneback"][name] / np.hypot(width, height) / 0.5 * 100
        assert rows[name]["motion"] == pytest.approx(expected, rel=0.05), name


def test_text_is_told_from_no_text(shared: Path) -> None:
    score = TextArea().load()

    def area(name: str) -> float:
        with Image.open(shared / "videos" / "images" / name) as image:
            pixels = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))[None]
        facts = SourceFacts("image", pixels.shape[2], pixels.shape[1], "png")
        return score([ClipInput(facts, Span(0.0, 1.0, 0, 1), Frames(np.ascontiguousarray(pixels), np.zeros(1)))])[0][
            "text_area"
        ]

    with_text = ["easyocr_chinese.jpg", "rapidocr_ch_en_num.jpg", "tesseract_phototest.tif", "easyocr_english.png"]
    without = ["rapidocr_empty_black.jpg", "imageio_chelsea.png", "imageio_kodim03.png", "datajuicer_cat.jpg"]
    assert min(area(n) for n in [*with_text, "rapidocr_img_exif_orientation.jpg"]) > 0.05
    assert max(area(n) for n in without) < 0.005
