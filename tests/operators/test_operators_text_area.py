"""Text area: drawn text at every angle, pictures with and without text."""

import os
from pathlib import Path

import numpy as np
import pytest

from curation.types import ClipInput, Frames
from media.types import SourceFacts, Span
from operators.text_area import TextArea, network_size, union_share

image_module = pytest.importorskip("PIL.Image")
pytest.importorskip("onnxruntime")
pytest.importorskip("rapidocr")

SHARED = Path(os.environ.get("SELECTS_SHARED", Path(__file__).parents[2] / "../shared"))


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


def test_the_largest_frame_counts_and_nothing_is_on_a_flat_frame(text_area):
    flat, words = np.full((640, 640, 3), 70, np.uint8), drawn("words")
    assert text_area(flat) == 0.0
    assert text_area(flat, words) == pytest.approx(text_area(words), rel=0.2)


@pytest.mark.parametrize("height_px", [60, 100, 180, 260, 300])
@pytest.mark.parametrize("word", ["WOW", "NO"])
def test_huge_letters_are_text(text_area, word, height_px):
    least = 0.1 if height_px > 100 else 0.02
    assert text_area(drawn(word, (640, 360), height_px)) > least
    assert text_area(*[drawn(word, (640, 360), height_px)] * 3) > least


def moving(count, shown=(), height_px=40, size=(1280, 720)):
    """Frames of a camera that moves over blobs; some of them bear a line of speech."""
    import cv2
    from PIL import Image, ImageDraw, ImageFont

    blobs = np.random.default_rng(1).integers(40, 200, (9, 40, 3), dtype=np.uint8)
    wide = cv2.resize(blobs, (3 * size[0], size[1]), interpolation=cv2.INTER_CUBIC)
    frames = []
    for k in range(count):
        picture = Image.fromarray(wide[:, 90 * k : 90 * k + size[0]].copy())
        if k in shown:
            draw, font = ImageDraw.Draw(picture), ImageFont.load_default(height_px)
            place = (size[0] / 2, 0.88 * size[1])
            draw.text(place, "a line that someone says aloud", "white", font, "mm", stroke_width=3, stroke_fill="black")
        frames.append(np.asarray(picture))
    return frames


@pytest.mark.parametrize("shown", [(0, 2), (0,), (2,), (1,), (0, 1, 2)])
def test_a_line_of_speech_that_stands_for_a_part_of_the_clip_is_seen(text_area, shown):
    assert text_area(*moving(3, shown)) > 0.02
    assert text_area(*moving(3)) == 0.0


def test_a_subtitle_away_from_the_middle_is_among_the_frames_that_are_taken():
    """A line that stands for 5.5 of 7.5 s, but not in the middle."""
    from curation.analysis.samples import SampleStore
    from media.frame import RgbFrame

    sampling = TextArea().sampling
    store = SampleStore([sampling])
    bare, lined = moving(1)[0], moving(1, (0,))[0]
    for index in range(75):
        frame = RgbFrame(bare if 2.5 <= index / 10 < 4.5 else lined, index, index / 10, 0.1)
        store.offer(frame, frame.coarse())
    span = Span(0.0, 7.5, 0, 75)
    clip = ClipInput(SourceFacts("video", 1280, 720, "h264"), span, store.take(sampling, span))
    assert TextArea().load()([clip])[0]["text_area"] > 0.02


def pixels_looked_at(monkeypatch, operator, frames):
    """How many pixels the network sees of a clip."""
    from operators import text_area as module

    seen = []
    inputs = module.network_input
    monkeypatch.setattr(module, "network_input", lambda rgb, size: seen.append(size[0] * size[1]) or inputs(rgb, size))
    times_s = np.arange(len(frames), dtype=np.float64)
    clip = ClipInput(SourceFacts("video", 1, 1, "h264"), Span(0, 1, 0, 1), Frames(np.stack(frames), times_s))
    operator.load()([clip])
    return sum(seen)


def test_three_frames_cost_as_much_as_one(monkeypatch):
    three, still = moving(3), moving(1) * 3
    one = pixels_looked_at(monkeypatch, TextArea(frames=1), three[:1])
    assert pixels_looked_at(monkeypatch, TextArea(), three) <= 1.02 * one
    assert pixels_looked_at(monkeypatch, TextArea(), still) <= 0.6 * one  # frames that show the same are looked at once


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
