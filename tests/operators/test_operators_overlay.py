"""Overlays against scene text on drawn footage, and the largest part of the picture that is free of them."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("PIL.Image")
pytest.importorskip("onnxruntime")
pytest.importorskip("rapidocr")

from overlay_footage import Footage, Laid, logo_patch, subtitles, text_patch

from curation.types import ClipInput, Frames, Scores
from media.types import SourceFacts, Span
from operators.bars import Box
from operators.clear_box import clear_box, obstacles
from operators.overlay import Overlay
from operators.standing import standing_graphics

SIZE = (640, 360)
RATE_FPS = 2.0
NEAR = 0.02
"""Sides of a crop may be so far from the truth, as a share of the picture."""


@pytest.fixture(scope="module")
def measure():
    """What the operator says of uint8 (T, H, W, 3) pictures, two a second."""
    score = Overlay().load()

    def of(pictures: np.ndarray, rate_fps: float = RATE_FPS) -> Scores:
        frames = Frames(pictures, np.arange(len(pictures)) / rate_fps)
        span = Span(0, len(pictures) / rate_fps, 0, len(pictures))
        return score([ClipInput(SourceFacts("video", *SIZE, "h264"), span, frames)])[0]

    return of


def drawn(footage: Footage, length_s: float = 4.0) -> np.ndarray:
    """Draw the pictures that the operator looks at."""
    return np.stack(list(footage.pictures(length_s, RATE_FPS)))


def true_box(footage: Footage) -> list[float]:
    """The largest box free of what was laid over the picture, in shares."""
    width, height = footage.size
    box = clear_box((0, footage.bars_px, width, height - footage.bars_px), [one.box for one in footage.overlays])
    assert box is not None
    return [box[0] / width, box[1] / height, box[2] / width, box[3] / height]


def share_of(box: list[float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def test_a_subtitle_is_an_overlay_and_most_of_the_picture_stays(measure):
    footage = Footage(1, SIZE, 50.0)
    footage.overlays = subtitles(np.random.default_rng(1), SIZE, 4.0, 345)
    scores = measure(drawn(footage))
    assert scores["safe_box"] == pytest.approx(true_box(footage), abs=NEAR)
    assert scores["safe_share"] == pytest.approx(share_of(scores["safe_box"]), abs=1e-9)
    assert scores["safe_share"] >= 0.8
    assert scores["scene_text_area"] == 0.0 < scores["overlay_area"]


def test_signs_of_a_scene_that_moves_are_no_overlay(measure):
    scores = measure(drawn(Footage(2, SIZE, 50.0, signs=10)))
    assert scores["overlay_area"] == 0.0 < scores["scene_text_area"]
    assert scores["safe_box"] == [0.0, 0.0, 1.0, 1.0] and scores["safe_share"] == 1.0


def test_a_subtitle_over_signs_that_pass_beneath_it(measure):
    footage = Footage(4, SIZE, 40.0, signs=12)
    footage.overlays = subtitles(np.random.default_rng(4), SIZE, 4.0, 340)
    scores = measure(drawn(footage))
    assert scores["safe_box"] == pytest.approx(true_box(footage), abs=NEAR)
    assert scores["scene_text_area"] > 0.0


@pytest.mark.parametrize("opacity", [1.0, 0.6])
def test_a_standing_logo_without_text(measure, opacity):
    footage = Footage(5, SIZE, 45.0, overlays=[Laid(logo_patch(40, opacity), 585, 14)])
    scores = measure(drawn(footage))
    assert scores["safe_box"] == pytest.approx(true_box(footage), abs=NEAR)
    assert scores["overlay_area"] == pytest.approx(40 * 40 / (640 * 360), rel=0.3)


@pytest.mark.parametrize("shape", ["ring", "disc", "square"])
def test_logos_are_found_by_what_stands_alone(shape):
    """Without the text detector, which takes some logos for letters."""
    patch = np.zeros((44, 44, 4), np.uint8)
    if shape == "square":
        patch[:] = (120, 60, 160, 255)  # of about the scene's own brightness: no edge of one sign
    else:
        cv2.circle(patch, (22, 22), 18, (250, 240, 230, 255), 6 if shape == "ring" else -1, cv2.LINE_AA)
    rows, columns = np.nonzero(patch[..., 3])
    truth = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) + [580, 20, 580, 20]
    for seed in range(3):
        footage = Footage(seed, SIZE, 60.0, overlays=[Laid(patch, 580, 20)])
        luma = np.stack([cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in drawn(footage, 6.0)])
        found = np.array(standing_graphics(luma, (0, 0, *SIZE), np.zeros(SIZE[::-1], np.uint8)))
        around = np.r_[found[:, :2].min(axis=0), found[:, 2:].max(axis=0)]
        assert around == pytest.approx(truth, abs=5)
        bare = [cv2.cvtColor(p, cv2.COLOR_RGB2GRAY) for p in drawn(Footage(seed, SIZE, 60.0, signs=8), 6.0)]
        assert standing_graphics(np.stack(bare), (0, 0, *SIZE), np.zeros(SIZE[::-1], np.uint8)) == []


def test_bars_are_left_out_as_well(measure):
    footage = Footage(6, SIZE, 45.0, overlays=[Laid(text_patch("CHANNEL 5", 16), 20, 55)], bars_px=45)
    scores = measure(drawn(footage))
    assert scores["safe_box"] == pytest.approx(true_box(footage), abs=NEAR)


def test_text_of_a_scene_that_stands_still_counts_as_an_overlay(measure):
    """A camera at rest, and a single image: nothing tells the two apart, and the doubt is the overlay's."""
    pictures = drawn(Footage(2, SIZE, 0.0, signs=10))
    scores = measure(pictures)
    assert scores["scene_text_area"] == 0.0 < scores["overlay_area"]
    assert measure(pictures[:1])["overlay_area"] == pytest.approx(scores["overlay_area"], rel=0.2)


def test_a_horizon_that_a_pan_leaves_in_place_is_no_logo(measure):
    footage = Footage(8, SIZE, 45.0)
    footage.wall[:150] = footage.wall[:150] // 8 + 200
    footage.wall[240:244] = 250
    assert measure(drawn(footage))["overlay_area"] == 0.0


def test_a_clip_that_is_dark_all_through_is_not_measured(measure):
    assert set(measure(np.full((4, 360, 640, 3), 5, np.uint8)).values()) == {None}


@pytest.mark.slow
def test_nineteen_of_twenty_items_are_told_apart(measure):
    """Sixty clips whose seeds no threshold was chosen on; every kind alone, and signs under subtitles."""
    right: dict[str, list[bool]] = {}
    for seed in range(500, 515):
        rng = np.random.default_rng(seed)
        speed, length_s = float(rng.uniform(6, 90)), float(rng.choice([4, 6, 8, 10]))
        line = subtitles(rng, SIZE, length_s, int(rng.integers(320, 352)))
        logo = logo_patch(int(rng.integers(24, 48)), float(rng.choice([1.0, 0.6])))
        place = int(rng.choice([12, 580])), int(rng.choice([10, 300]))
        signs = int(rng.integers(6, 14))
        for kind, footage in {
            "subtitle": Footage(seed, SIZE, speed, overlays=line),
            "logo": Footage(seed, SIZE, speed, overlays=[Laid(logo, *place)]),
            "signs": Footage(seed, SIZE, speed, signs=signs),
            "both": Footage(seed, SIZE, speed, signs=signs, overlays=line),
        }.items():
            scores = measure(drawn(footage, length_s))
            is_near = np.allclose(scores["safe_box"] or [0.0] * 4, true_box(footage), rtol=0, atol=NEAR)
            has_signs = scores["scene_text_area"] > 0
            right.setdefault(kind, []).append(is_near and has_signs == (footage.signs > 0))
            if kind == "subtitle":
                assert scores["safe_share"] >= 0.8
    assert sum(map(sum, right.values())) >= 0.95 * sum(map(len, right.values())), right


# -- the largest free rectangle

SIDES = st.tuples(st.integers(0, 12), st.integers(0, 9), st.integers(1, 6), st.integers(1, 5))


@given(st.lists(SIDES, max_size=6))
def test_the_largest_rectangle_is_the_one_that_trying_all_would_find(given_boxes):
    blocked = [(x, y, min(x + w, 13), min(y + h, 10)) for x, y, w, h in given_boxes]
    box = clear_box((0, 0, 13, 10), blocked)
    best = max((area_of(b) for b in all_boxes(13, 10) if not any(overlap(b, o) for o in blocked)), default=0)
    assert (area_of(box) if box else 0) == best
    assert box is None or not any(overlap(box, o) for o in blocked)


def test_every_marked_pixel_lies_within_an_obstacle():
    marked = (np.random.default_rng(0).random((90, 160)) < 0.02).astype(np.uint8)
    found = obstacles(marked)
    assert 0 < len(found) <= 40
    for left, top, right, bottom in found:
        marked[top:bottom, left:right] = 0
    assert not marked.any() and obstacles(marked) == []


def all_boxes(width: int, height: int) -> list[Box]:
    xs, ys = ([(a, b) for a in range(n) for b in range(a + 1, n + 1)] for n in (width, height))
    return [(a, c, b, d) for a, b in xs for c, d in ys]


def area_of(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
