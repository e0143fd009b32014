"""Captions made from measurements alone: honest about light, colour, motion and shape, silent on content.

No model is needed and nothing is guessed: a measurement that is missing is not mentioned, and no object is
named, since nothing here can see one. Equal measurements give equal captions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from captioners.checks import check
from core.errors import nearest
from core.settings import key
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
# A roll moves it by a quarter of the diagonal times its rate in radian: 0.45 % for each degree.
PERCENT_PER_DEGREE = 0.45
# What the operator `camera` names with less than this may be something else.
CAMERA_SURE = 0.5
# Root mean square shake in percent of the diagonal, from which on a camera is held by hand.
HANDHELD = 0.1
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
SENTENCES: dict[str, int | None] = {"short": 1, "medium": 2, "long": None}
"""of each length, at most"""

Describe = Callable[[Sequence[tuple[Row, Frames | None]]], list[Caption]]


@dataclass(frozen=True)
class Template:
    """Describes what was measured, in one to three English sentences."""

    lengths: tuple[str, ...] = key(
        (), "short, medium, long: captions of one, two and all sentences besides, in `caption_en_<length>`"
    )

    pool: ClassVar[str | None] = None
    slots: ClassVar[int] = 1

    def __post_init__(self) -> None:
        """Refuse lengths that there are not."""
        for length in self.lengths:
            if length not in SENTENCES:
                raise ValueError(f"lengths: there is no '{length}'{nearest(length, list(SENTENCES))}")

    @property
    def sampling(self) -> Sampling | None:
        """No frames: the row says it all."""
        return None

    def load(self) -> Describe:
        """Return the captioning function; the frames may be None."""
        return lambda clips: [caption(row, self.lengths) for row, _ in clips]


def caption(row: Row, lengths: Sequence[str] = ()) -> Caption:
    """Caption one clip, in several lengths besides where they are asked for."""
    text = describe(row)
    texts = {f"caption_en_{length}": describe(row, SENTENCES[length]) for length in lengths}
    return Caption(text, "template", check(text), texts=texts)


def describe(row: Row, most: int | None = None) -> str:
    """Return the sentences for one row of the table, `most` of them at most."""
    sentences = [subject(row)]
    if row.get("type") != "image":
        sentences.append(movement(row))
    sentences.append(additions(row))
    return " ".join([sentence for sentence in sentences if sentence][:most])


def subject(row: Row) -> str:
    """Return what it is: light, length, shape and colours."""
    noun = "still image" if row.get("type") == "image" else "video clip"
    light, focus, seconds = light_word(row), focus_word(row), row.get("duration_s")
    words = ", ".join(word for word in (light, focus) if word)
    if noun == "video clip" and seconds is not None:
        words = f"{words} {length(seconds)}-second".strip()
    colors = palette(row)
    return with_article(f"{words} {noun}".strip() + shape(row)) + (f", {colors}" if colors else "") + "."


def movement(row: Row) -> str:
    """Return how it moves, or nothing when that was not measured."""
    frozen, motion = row.get("frozen"), row.get("motion")
    if frozen is not None and frozen >= STILL:
        return "The picture stands still."
    repeats = ""
    if frozen is not None and frozen >= REPEATS:
        repeats = f"about {round(frozen * 10) * 10} % of the frames repeat the one before"
    how = named_camera(row) or ("" if motion is None else camera(row, motion) or inner_motion(motion))
    parts = [part for part in (how, repeats) if part]
    return sentence("; ".join(parts)) if parts else ""


def inner_motion(speed: float) -> str:
    """Name motion that is not the camera's, by its mean speed in percent of the diagonal per second."""
    if speed < STATIC:
        return "almost nothing moves"
    return f"there is {pace(speed, 'slow', 'moderate', 'fast')} movement within the picture"


def named_camera(row: Row) -> str:
    """Return what the camera does as the operator `camera` named it; nothing where it did not, or is not sure."""
    move, sure, motion = row.get("camera_move"), row.get("camera_confidence") or 0.0, row.get("motion")
    if move is None or move == "mixed" or sure < CAMERA_SURE:
        return ""
    if move == "static":
        if motion is not None and motion < STATIC:
            return ""  # said of the whole picture
        return listed(["the camera stands still", *([inner_motion(motion)] if motion is not None else [])])
    if move == "handheld":
        return "the camera is held by hand"
    right, up = row.get("pan") or 0.0, row.get("tilt") or 0.0
    zoom, roll = row.get("zoom") or 0.0, row.get("roll") or 0.0
    if move in ("zoom_in", "zoom_out"):
        speed, turns = abs(zoom) / 100 * PERCENT_PER_ZOOM, [f"zooms {move.removeprefix('zoom_')}"]
    elif move == "roll":
        speed, turns = abs(roll) * PERCENT_PER_DEGREE, [f"rolls {'clockwise' if roll > 0 else 'anticlockwise'}"]
    else:
        speed, turns = max(abs(right), abs(up)), directions(right, -up)
    who = "the handheld camera" if (row.get("shake") or 0.0) >= HANDHELD else "the camera"
    return f"{who} {pace(speed, 'slowly ', '', 'quickly ')}{listed(turns)}"


def directions(right: float, down: float) -> list[str]:
    """Return the words for a camera that turns right and down; a second one where its part is large enough."""
    turns = []
    if abs(right) >= DIAGONAL_SHARE * abs(down):
        turns.append(f"pans {'right' if right > 0 else 'left'}")
    if abs(down) >= DIAGONAL_SHARE * abs(right):
        turns.append(f"tilts {'down' if down > 0 else 'up'}")
    return turns


def camera(row: Row, motion: float) -> str:
    """Return where the camera goes, when most of the motion is the camera's.

    The columns tell how the picture's content moves; when content moves right, the camera pans left.
    """
    if motion < STATIC:
        return ""
    right, down = -(row.get("camera_pan_x") or 0.0), -(row.get("camera_pan_y") or 0.0)
    zoom = row.get("camera_zoom") or 0.0
    turns = []
    if max(abs(right), abs(down)) >= max(CAMERA_PAN, CAMERA_SHARE * motion):
        turns += directions(right, down)
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
    """Return the word for an unusual brightness."""
    value = row.get("brightness")
    if value is None or DIM <= value < BRIGHT:
        return ""
    if value < DIM:
        return "very dark" if value < VERY_DARK else "dark" if value < DARK else "dim"
    return "bright" if value < VERY_BRIGHT else "very bright"


def focus_word(row: Row) -> str:
    """Return the word for a picture that is clearly soft or clearly sharp; darkness hides either."""
    value, light = row.get("sharpness"), row.get("brightness")
    if value is None or (light is not None and light < DARK):
        return ""
    return "soft" if value < SOFT else "sharp" if value > SHARP else ""


def shape(row: Row) -> str:
    """Return the format and the size class, as a phrase that follows the noun."""
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
    """Return the dominant colours as a phrase, the commonest first."""
    colors = list(dict.fromkeys(row.get("colors") or ()))[:MAX_COLORS]
    if not colors:
        return ""
    return f"mostly {colors[0]}" if len(colors) == 1 else f"in {listed(colors)}"


def pace(speed: float, slow: str, moderate: str, fast: str) -> str:
    """Choose a word by speed in percent of the diagonal per second."""
    return slow if speed < MODERATE else moderate if speed < FAST else fast


def length(seconds: float) -> str:
    """Return a length as people say it: halves below ten seconds, whole seconds from there on."""
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
