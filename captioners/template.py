"""Captions made from measurements alone: honest about light, colour, motion and shape, silent on content.

No model is needed and nothing is guessed: a measurement that is missing is not mentioned, and no object is
named, since nothing here can see one. Equal measurements give equal captions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from captioners.checks import check
from curation.types import Caption, Frames, Row, Sampling

# Mean luma, 0..1. Ordinary pictures lie between DIM and BRIGHT and are not described by their light.
VERY_DARK, DARK, DIM, BRIGHT, VERY_BRIGHT = 0.06, 0.18, 0.30, 0.62, 0.80
# Variance of the Laplacian. Pictures in ordinary focus lie from some tens to some hundreds: only what is
# far outside is worth a word, because fog and fine foliage shift the number without being soft or sharp.
SOFT, SHARP = 15.0, 1500.0
# Mean flow in percent of the diagonal per second: below STATIC is noise and breathing; at MODERATE the
# picture has passed in 20 s, at FAST in less than 7 s.
STATIC, MODERATE, FAST = 0.5, 5.0, 15.0
# The median flow says how the camera goes only when most of the motion is common to the whole picture.
CAMERA_PAN, CAMERA_SHARE = 0.5, 0.5
# The second axis is mentioned when it has at least this share of the first: about 22 degrees off the axis.
DIAGONAL_SHARE = 0.4
# Relative growth per second; 3 % moves the picture's corners by 1.5 % of the diagonal per second.
CAMERA_ZOOM = 0.03
# A zoom moves the average pixel by about a quarter of the diagonal times its rate.
PERCENT_PER_ZOOM = 25.0
# Repeated frames: a few are usual (film cadence), from 30 % on the eye notices, at 95 % it is a still.
REPEATS, STILL = 0.3, 0.95
# Text: less than 0.5 % of the frame is a sign or a logo at most, and detectors err there.
SOME_TEXT, MUCH_TEXT = 0.005, 0.15
# Bars thinner than 4 % in all are often encoder padding.
BARS = 0.04
# Shorter side in pixels.
LOW_RESOLUTION, FULL_HD, ULTRA_HD = 360, 1080, 2160
# Width / height: within 10 % of 1 nobody calls it portrait or landscape; 2.2 is wider than any monitor.
SQUARE, PANORAMIC = 1.1, 2.2
MAX_COLORS = 3

Describe = Callable[[Sequence[tuple[Row, Frames | None]]], list[Caption]]


@dataclass(frozen=True)
class Template:
    """Describes what was measured, in one to three English sentences."""

    pool: ClassVar[str | None] = None
    slots: ClassVar[int] = 1

    @property
    def sampling(self) -> Sampling | None:
        """No frames: the row says it all."""
        return None

    def load(self) -> Describe:
        """Give the captioning function; the frames may be None."""
        return lambda clips: [caption(row) for row, _ in clips]


def caption(row: Row) -> Caption:
    """Caption one clip."""
    text = describe(row)
    return Caption(text, "template", check(text))


def describe(row: Row) -> str:
    """Give the sentences for one row of the table."""
    sentences = [subject(row)]
    if row.get("type") != "image":
        sentences.append(movement(row))
    sentences.append(additions(row))
    return " ".join(sentence for sentence in sentences if sentence)


def subject(row: Row) -> str:
    """Say what it is: light, length, shape and colours."""
    noun = "still image" if row.get("type") == "image" else "video clip"
    light, focus, seconds = light_word(row), focus_word(row), row.get("duration_s")
    words = ", ".join(word for word in (light, focus) if word)
    if noun == "video clip" and seconds is not None:
        words = f"{words} {length(seconds)}-second".strip()
    colors = palette(row)
    return with_article(f"{words} {noun}".strip() + shape(row)) + (f", {colors}" if colors else "") + "."


def movement(row: Row) -> str:
    """Say how it moves, or nothing when that was not measured."""
    frozen, motion = row.get("frozen"), row.get("motion")
    if frozen is not None and frozen >= STILL:
        return "The picture stands still."
    repeats = ""
    if frozen is not None and frozen >= REPEATS:
        repeats = f"about {round(frozen * 10) * 10} % of the frames repeat the one before"
    how = "" if motion is None else camera(row, motion) or inner_motion(motion)
    parts = [part for part in (how, repeats) if part]
    return sentence("; ".join(parts)) if parts else ""


def inner_motion(speed: float) -> str:
    """Name motion that is not the camera's, by its mean speed in percent of the diagonal per second."""
    if speed < STATIC:
        return "almost nothing moves"
    return f"there is {pace(speed, 'slow', 'moderate', 'fast')} movement within the picture"


def camera(row: Row, motion: float) -> str:
    """Say where the camera goes, when most of the motion is the camera's.

    The columns tell how the picture's content moves; when content moves right, the camera pans left.
    """
    if motion < STATIC:
        return ""
    right, down = -(row.get("camera_pan_x") or 0.0), -(row.get("camera_pan_y") or 0.0)
    zoom = row.get("camera_zoom") or 0.0
    sideways, upright = abs(right), abs(down)
    turns = []
    if max(sideways, upright) >= max(CAMERA_PAN, CAMERA_SHARE * motion):
        if sideways >= DIAGONAL_SHARE * upright:
            turns.append(f"pans {'right' if right > 0 else 'left'}")
        if upright >= DIAGONAL_SHARE * sideways:
            turns.append(f"tilts {'down' if down > 0 else 'up'}")
    if abs(zoom) >= CAMERA_ZOOM and abs(zoom) * PERCENT_PER_ZOOM >= CAMERA_SHARE * motion:
        turns.append("zooms in" if zoom > 0 else "zooms out")
    if not turns:
        return ""
    return f"the camera {pace(motion, 'slowly ', '', 'quickly ')}{listed(turns)}"


def additions(row: Row) -> str:
    """Name text and bars, when there are any."""
    text, bars = row.get("text_area"), row.get("letterbox")
    parts = []
    if text is not None and text >= SOME_TEXT:
        parts.append("text covers much of the picture" if text >= MUCH_TEXT else "some text is visible")
    if bars is not None and bars >= BARS:
        parts.append("plain bars border the picture")
    return sentence(listed(parts)) if parts else ""


def light_word(row: Row) -> str:
    """Give the word for an unusual brightness."""
    value = row.get("brightness")
    if value is None or DIM <= value < BRIGHT:
        return ""
    if value < DIM:
        return "very dark" if value < VERY_DARK else "dark" if value < DARK else "dim"
    return "bright" if value < VERY_BRIGHT else "very bright"


def focus_word(row: Row) -> str:
    """Give the word for a picture that is clearly soft or clearly sharp; darkness hides either."""
    value, light = row.get("sharpness"), row.get("brightness")
    if value is None or (light is not None and light < DARK):
        return ""
    return "soft" if value < SOFT else "sharp" if value > SHARP else ""


def shape(row: Row) -> str:
    """Give the format and the size class, as a phrase that follows the noun."""
    width, height = row.get("width_px"), row.get("height_px")
    if not width or not height:
        return ""
    short, ratio = min(width, height), width / height
    size = (
        "4K " if short >= ULTRA_HD else "full-HD " if short >= FULL_HD else "small " if short < LOW_RESOLUTION else ""
    )
    if ratio >= PANORAMIC:
        form = "panoramic"
    elif 1 / SQUARE <= ratio <= SQUARE:
        form = "square"
    else:
        form = "landscape" if ratio > 1 else "portrait"
    return f" in {size}{form} format"


def palette(row: Row) -> str:
    """Give the dominant colours as a phrase, the commonest first."""
    colors = list(dict.fromkeys(row.get("colors") or ()))[:MAX_COLORS]
    if not colors:
        return ""
    return f"mostly {colors[0]}" if len(colors) == 1 else f"in {listed(colors)}"


def pace(speed: float, slow: str, moderate: str, fast: str) -> str:
    """Choose a word by speed in percent of the diagonal per second."""
    return slow if speed < MODERATE else moderate if speed < FAST else fast


def length(seconds: float) -> str:
    """Give a length as people say it: halves below ten seconds, whole seconds from there on."""
    if seconds >= 9.75:
        return str(round(seconds))
    halves = max(1, round(seconds * 2))
    return str(halves // 2) if halves % 2 == 0 else f"{halves / 2:.1f}"


def listed(words: list[str]) -> str:
    """Join words as in `a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def sentence(words: str) -> str:
    """Begin with a capital and end with a full stop."""
    return words[0].upper() + words[1:] + "."


def with_article(words: str) -> str:
    """Put `A` or `An` before, by the sound of the first word (an 8-second, an 11-second, an 18-second)."""
    number = words.split("-")[0]
    vowel = words[0] in "aeiou" or number.startswith("8") or number in ("11", "18")
    return f"{'An' if vowel else 'A'} {words}"
