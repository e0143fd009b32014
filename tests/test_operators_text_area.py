"""Text area: drawn text at every angle, pictures with and without text."""

import os
from pathlib import Path

import numpy as np
import pytest

from curation.types import ClipInput, Frames, SourceFacts, Span
from operators.text_area import TextArea, network_size, union_share

image_module = pytest.importorskip("PIL.Image")
pytest.importorskip("onnxruntime")
pytest.importorskip("rapidocr")

SHARED = Path(os.environ.get("SELECTS_SHARED", Path(__file__).parents[1] / "../shared"))


@pytest.fixture(scope="module")
def text_area():
    """The share of text of one or more RGB frames."""
    score = TextArea().load()

    def of(*pixels):
        frames = Frames(np.stack(pixels), np.arange(len(pixels), dtype=np.float64))
        clip = ClipInput(SourceFacts("image", 1, 1, "png"), Span(0, 1, 0, 1), frames)
        return score([clip])[0]["text_area"]

    return of


def drawn(text, size=(640, 640), height_px=40, angle_deg=0.0):
    """White text in the middle of a gray picture, turned by an angle."""
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.new("RGB", size, (60, 80, 100))
    font = ImageFont.load_default(height_px)
    ImageDraw.Draw(picture).text((size[0] / 2, size[1] / 2), text, (255, 255, 255), font, anchor="mm")
    return np.asarray(picture.rotate(angle_deg, resample=Image.Resampling.BICUBIC, fillcolor=(60, 80, 100)))


def upright(name):
    from PIL import Image, ImageOps

    path = SHARED / "videos" / "images" / name
    if not path.exists():
        pytest.skip(f"{path} is absent (set SELECTS_SHARED)")
    return np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))


def test_text_counts_the_same_at_every_angle(text_area):
    level, *turned = (text_area(drawn("some words to read", angle_deg=a)) for a in (0, 30, 45, 90))
    assert 0.03 < level < 0.2
    assert turned == pytest.approx([level] * 3, rel=0.35)


def test_a_small_subtitle_is_seen(text_area):
    assert text_area(drawn("a line that someone says", (1920, 1080), 32)) > 0.003


def test_mean_over_frames_and_nothing_on_a_flat_frame(text_area):
    flat, words = np.full((640, 640, 3), 70, np.uint8), drawn("words")
    assert text_area(flat) == 0.0
    assert text_area(flat, words) == pytest.approx(text_area(words) / 2)


def test_overlapping_quads_count_once():
    quad = np.array([[10, 10], [49, 10], [49, 29], [10, 29]], np.float32)
    assert union_share([quad, quad], 100, 100) == union_share([quad], 100, 100) == pytest.approx(0.08)


def test_input_size_is_bounded():
    assert network_size(1920, 1080, 320, 960) == (576, 320)
    assert network_size(8, 8, 320, 960) == (320, 320)
    assert network_size(5000, 200, 320, 960) == (960, 32)


@pytest.mark.parametrize(
    ("name", "at_least"),
    [
        ("easyocr_chinese.jpg", 0.1),
        ("easyocr_english.png", 0.1),
        ("rapidocr_ch_en_num.jpg", 0.3),
        ("tesseract_phototest.tif", 0.3),
        ("rapidocr_img_exif_orientation.jpg", 0.05),
    ],
)
def test_pictures_with_text(text_area, name, at_least):
    assert text_area(upright(name)) > at_least


@pytest.mark.parametrize(
    "name",
    [
        "rapidocr_empty_black.jpg",
        "imageio_chelsea.png",
        "imageio_kodim03.png",
        "datajuicer_cat.jpg",
        "datajuicer_blip.jpg",
    ],
)
def test_pictures_without_text(text_area, name):
    assert text_area(upright(name)) < 0.01


@pytest.mark.parametrize(
    ("name", "frame", "low", "high"),
    [
        ("RapidVideOCR__2.mp4", 5, 0.005, 0.05),
        ("data-juicer__video1.mp4", 20, 0.04, 0.2),
        ("sam2__05_default_juggle.mp4", 20, 0.0, 0.005),
        ("CarND-LaneLines-P1__solidWhiteRight.mp4", 20, 0.0, 0.005),
    ],
)
def test_videos_with_and_without_subtitles(text_area, name, frame, low, high):
    path = SHARED / "videos" / name
    if not path.exists():
        pytest.skip(f"{path} is absent (set SELECTS_SHARED)")
    av = pytest.importorskip("av")
    with av.open(str(path)) as container:
        pixels = next(f for i, f in enumerate(container.decode(video=0)) if i == frame).to_ndarray(format="rgb24")
    assert low <= text_area(pixels) <= high
