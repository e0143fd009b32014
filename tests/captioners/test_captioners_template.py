"""The template captioner says what was measured, in sentences, and nothing else."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioners import CAPTIONERS
from captioners.checks import check
from captioners.template import Template, describe
from curation.types import Caption

FULL = {
    "type": "video",
    "width_px": 1920,
    "height_px": 1080,
    "duration_s": 4.5,
    "brightness": 0.7,
    "sharpness": 300.0,
    "motion": 8.0,
    "camera_pan_x": -7.0,
    "camera_pan_y": 0.2,
    "camera_zoom": 0.0,
    "frozen": 0.0,
    "text_area": 0.02,
    "letterbox": 0.2,
    "colors": ["blue", "green"],
}


def test_everything_measured():
    assert describe(FULL) == (
        "A bright 4.5-second video clip in full-HD landscape format, in blue and green. "
        "The camera pans right. Some text is visible and plain bars border the picture."
    )


def test_captions_come_in_order_and_know_their_origin():
    captions = Template().load()([({"type": "image"}, None), (FULL, None)])
    assert captions[0] == Caption("A still image.", "template", "ok")
    assert captions[1].text.startswith("A bright")


def test_names():
    assert CAPTIONERS["template"] is Template
    assert Template.pool is None and Template().sampling is None


@pytest.mark.parametrize(
    ("changes", "phrase"),
    [
        ({"camera_pan_x": 7.0}, "The camera pans left."),
        ({"camera_pan_x": 0.0, "camera_pan_y": 7.0}, "The camera tilts up."),
        ({"camera_pan_x": 0.0, "camera_pan_y": -7.0}, "The camera tilts down."),
        ({"camera_pan_x": -5.0, "camera_pan_y": -5.0}, "The camera pans right and tilts down."),
        ({"camera_pan_x": 0.0, "camera_zoom": 0.2}, "The camera zooms in."),
        ({"camera_pan_x": 0.0, "camera_zoom": -0.2, "motion": 2.0}, "The camera slowly zooms out."),
        ({"camera_pan_x": -25.0, "motion": 25.0}, "The camera quickly pans right."),
        ({"camera_pan_x": -1.0, "motion": 1.2}, "The camera slowly pans right."),
        ({"camera_pan_x": 0.1, "motion": 8.0}, "There is moderate movement within the picture."),
        ({"camera_pan_x": None, "camera_pan_y": None, "camera_zoom": None}, "There is moderate movement"),
        ({"camera_pan_x": 0.0, "motion": 20.0}, "There is fast movement within the picture."),
        ({"camera_pan_x": 0.0, "motion": 0.1}, "Almost nothing moves."),
        ({"frozen": 1.0, "motion": 0.0}, "The picture stands still."),
        ({"frozen": 0.52}, "The camera pans right; about 50 % of the frames repeat the one before."),
        ({"frozen": 0.4, "motion": None}, ". About 40 % of the frames repeat the one before."),
        ({"brightness": 0.03}, "A very dark 4.5-second"),
        ({"brightness": 0.25, "sharpness": 5.0}, "A dim, soft 4.5-second"),
        ({"brightness": 0.45, "duration_s": 8.1}, "An 8-second"),
        ({"brightness": 0.45, "duration_s": 11.2}, "An 11-second"),
        ({"brightness": 0.45, "duration_s": 0.2}, "A 0.5-second"),
        ({"brightness": 0.45, "duration_s": 80}, "An 80-second"),
        ({"width_px": 720, "height_px": 1280}, "in portrait format"),
        ({"width_px": 500, "height_px": 500}, "in square format"),
        ({"width_px": 320, "height_px": 180}, "in small landscape format"),
        ({"width_px": 5120, "height_px": 2160}, "in 4K panoramic format"),
        ({"colors": ["grey"]}, "format, mostly grey."),
        ({"colors": ["grey", "red", "blue", "pink"]}, "in grey, red and blue."),
        ({"text_area": 0.4}, "Text covers much of the picture and"),
    ],
)
def test_one_measurement_changes_its_own_words(changes, phrase):
    assert phrase in describe({**FULL, **changes})


@pytest.mark.parametrize("gone", sorted(set(FULL) - {"type"}))
def test_a_missing_measurement_is_not_mentioned(gone):
    text = describe({**FULL, gone: None})
    assert "None" not in text and "nan" not in text
    assert text == describe({k: v for k, v in FULL.items() if k != gone})


def test_an_image_neither_lasts_nor_moves():
    text = describe({**FULL, "type": "image"})
    assert text == (
        "A bright still image in full-HD landscape format, in blue and green. "
        "Some text is visible and plain bars border the picture."
    )


MAYBE = st.none() | st.floats(-50, 50, allow_nan=False)
SHARE = st.none() | st.floats(0, 1)
ROWS = st.fixed_dictionaries(
    {"type": st.sampled_from(["video", "image"])},
    optional={
        "width_px": st.none() | st.integers(2, 8000),
        "height_px": st.none() | st.integers(2, 8000),
        "duration_s": st.none() | st.floats(0, 500),
        "brightness": SHARE,
        "frozen": SHARE,
        "text_area": SHARE,
        "letterbox": SHARE,
        "sharpness": st.none() | st.floats(0, 1e5),
        "motion": st.none() | st.floats(0, 200),
        "camera_pan_x": MAYBE,
        "camera_pan_y": MAYBE,
        "camera_zoom": MAYBE,
        "colors": st.none() | st.lists(st.sampled_from(["red", "dark blue", "grey", "orange"])),
    },
)


@given(ROWS)
def test_any_row_gives_clean_sentences(row):
    text = describe(row)
    assert check(text) == "ok" and text == describe(dict(row))
    assert re.fullmatch(r"([A-Z][^.]*(\d\.5[^.]*)?\.)( [A-Z][^.]*\.)*", text), text
    assert "  " not in text and " ," not in text and " ." not in text


def test_checks():
    assert (check(None), check(" \n"), check("a")) == ("empty", "empty", "ok")


NAMED = {"camera_move": "pan_left", "camera_confidence": 0.9, "pan": -8.0, "tilt": 0.3, "zoom": 0.0, "shake": 0.02}


@pytest.mark.parametrize(
    ("changes", "phrase"),
    [
        ({}, "The camera pans left."),
        ({"tilt": 4.0}, "The camera pans left and tilts up."),
        ({"pan": -2.0, "shake": 0.3}, "The handheld camera slowly pans left."),
        ({"camera_move": "tilt_down", "pan": 1.0, "tilt": -20.0}, "The camera quickly tilts down."),
        ({"camera_move": "zoom_in", "zoom": 30.0}, "The camera zooms in."),
        ({"camera_move": "zoom_out", "zoom": -8.0}, "The camera slowly zooms out."),
        ({"camera_move": "roll", "roll": -15.0}, "The camera rolls anticlockwise."),
        ({"camera_move": "handheld", "shake": 0.4}, "The camera is held by hand."),
        ({"camera_move": "static"}, "The camera stands still and there is moderate movement within the picture."),
        ({"camera_move": "static", "motion": None}, "The camera stands still."),
    ],
)
def test_a_camera_that_was_named_is_named(changes, phrase):
    assert phrase in describe(FULL | NAMED | changes)


@pytest.mark.parametrize("changes", [{"camera_move": None}, {"camera_move": "mixed"}, {"camera_confidence": 0.3}])
def test_a_camera_that_is_in_doubt_is_told_by_the_flow_as_before(changes):
    assert describe(FULL | NAMED | changes) == describe(FULL)
