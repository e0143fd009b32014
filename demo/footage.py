"""The demo's own footage: drawn, not filmed, so that everything about it is known.

`draw_demo` writes a dozen sources that show what the pipeline tells apart: cuts, a fade and a dissolve,
good shots and frozen, dark, blurred, subtitled and letterboxed ones, a turned phone video, high frame rate,
a still image, a second of film, and a file that cannot be read.
"""

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from demo.actors import balloons, birds, boats, cars, fish, snowfall
from demo.drawing import Layer, Scene, Take, crossfade, fade, to_pixels, write_video
from demo.landscapes import LOOKS, landscape
from demo.places import city, fields, forest, reef

FPS = 24
SIZE = (640, 360)
FLYOVER_SPEED = 12.0  # percent of the diagonal per second
LETTERBOX_BAR_PX = 46  # at top and bottom: the picture between is 2.39 times as wide as high
SUBTITLES = (
    "We left the harbour before dawn,",
    "and nobody on the pier looked up.",
    "The wind had turned overnight.",
    "By noon the coast was out of sight.",
)
LOW = 60  # px; the landscapes are this much higher than the view, whose lower edge shows the foreground


class Shot(NamedTuple):
    """Frames `[start_frame, end_frame)` between transitions, and what they show (`good` or the fault)."""

    start_frame: int
    end_frame: int
    kind: str


@dataclass(frozen=True)
class Truth:
    """What is known about one source of the demo.

    Attributes:
        file: name in the demo's folder.
        shots: in order; between the end of one and the start of the next lies a fade or a dissolve.
        fps: frame rate; null for an image and for the unreadable file.
        width_px: as displayed, upright; null when unreadable.
        height_px: likewise.
        rotation_deg: clockwise turn said in the container.
        speed_percent_per_s: exact speed of the camera where all moves alike, in percent of the diagonal.
        notes: what the source is there for.
    """

    file: str
    shots: tuple[Shot, ...]
    fps: float | None
    width_px: int | None
    height_px: int | None
    notes: str
    rotation_deg: int = 0
    speed_percent_per_s: float | None = None

    @property
    def num_frames(self) -> int:
        """Frames of the source; 0 for what is not a video."""
        return self.shots[-1].end_frame if self.shots else 0

    @property
    def cut_frames(self) -> tuple[int, ...]:
        """First frames of the shots that begin at a hard cut."""
        return tuple(b.start_frame for a, b in zip(self.shots, self.shots[1:], strict=False) if a[1] == b[0])


def draw_demo(folder: Path) -> dict[str, Truth]:
    """Draw all sources of the demo; equal calls write equal bytes.

    Args:
        folder: where to; made when missing.

    Returns:
        The truth about every source by its file name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    truths = [draw(folder) for draw in SOURCES]
    return {truth.file: truth for truth in truths}


# -- the sources, one function each ----------------------------------------------------------------------


def travel(folder: Path) -> Truth:
    """Draw five good shots joined by hard cuts."""
    takes = (
        Take(place("coast", 10), pan=(4, 0), start=(0, LOW), actors=(boats,)),
        Take(place("mountains", 11), pan=(-7, 0), start=(300, LOW), actors=(birds,)),
        Take(place("meadow", 12), pan=(1.5, 0), zoom_per_s=0.12, start=(120, LOW), actors=(balloons,)),
        Take(place("desert", 13), pan=(9, 0), start=(0, LOW)),
        Take(forest(4), pan=(8, 0), start=(60, LOW)),
    )
    lengths = (120, 108, 126, 102, 120)
    frames = chain.from_iterable(take.frames(0, n) for take, n in zip(takes, lengths, strict=True))
    return film(folder, "travel.mp4", frames, Known(in_a_row(lengths), "five shots, hard cuts"))


def evening(folder: Path) -> Truth:
    """Draw three good shots joined by a fade through black and a dissolve, each of one second."""
    sea = Take(place("coast", 21), pan=(-5, 0), start=(260, LOW), actors=(birds,))
    town = Take(city(3, 1000, 420), pan=(7, 0), start=(0, LOW), actors=(cars,))
    snow = Take(place("snow", 14), pan=(5, 0), start=(0, LOW), actors=(snowfall,))
    black = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    frames = chain(
        sea.frames(0, 120),
        fade(sea.frames(120, 130), 10, out=True),
        repeat(black, 4),
        fade(town.frames(0, 10), 10, out=False),
        town.frames(10, 130),
        crossfade(town.frames(130, 154), snow.frames(0, 24), 24),
        snow.frames(24, 144),
    )
    shots = (Shot(0, 120, "good"), Shot(144, 264, "good"), Shot(288, 408, "good"))
    return film(folder, "evening.mp4", frames, Known(shots, "fade through black at 120..144, dissolve at 264..288"))


def flyover(folder: Path) -> Truth:
    """Draw a flight over fields at an exactly known speed."""
    frames = Take(fields(6), pan=(FLYOVER_SPEED, 0), start=(40, 120)).frames(0, 180)
    return film(folder, "flyover.mp4", frames, Known(in_a_row((180,)), "known speed", speed=FLYOVER_SPEED))


def rushes(folder: Path) -> Truth:
    """Draw what an editor throws away, after one good shot: frozen, dark and blurred ones."""
    good = Take(place("mountains", 31), pan=(6, 0), start=(0, LOW), actors=(birds,))
    still = Take(place("meadow", 32), start=(200, LOW), actors=(balloons,))
    night = Take(darkened(place("snow", 33), 0.06), pan=(6, 0), start=(0, LOW))
    blurred = Take(blurred_back(place("desert", 34), 9.0), pan=(-6, 0), start=(300, LOW))
    lengths = (108, 108, 96, 108)
    frames = chain(good.frames(0, 108), repeat(still.frame(24), 108), night.frames(0, 96), blurred.frames(0, 108))
    shots = in_a_row(lengths, ("good", "frozen", "dark", "blurred"))
    return film(folder, "rushes.mp4", frames, Known(shots, "one good shot and three faulty ones"))


def subtitled(folder: Path) -> Truth:
    """Draw a shot with subtitles burned in; the text changes every two seconds."""
    take = Take(place("coast", 41), pan=(3, 0), zoom_per_s=0.02, start=(80, LOW), actors=(boats,))
    titles = [text_mask(line) for line in SUBTITLES]
    frames = (with_text(take.frame(i), titles[i // 48]) for i in range(192))
    return film(folder, "subtitled.mp4", frames, Known(in_a_row((192,), ("subtitles",)), "text near the lower edge"))


def widescreen(folder: Path) -> Truth:
    """Draw a shot between black bars."""
    take = Take(place("desert", 51), pan=(6, 0), start=(0, LOW), actors=(birds,))
    frames = (letterboxed(take.frame(i)) for i in range(168))
    notes = f"black bars of {LETTERBOX_BAR_PX} px at top and bottom"
    return film(folder, "widescreen.mp4", frames, Known(in_a_row((168,), ("letterbox",)), notes))


def phone(folder: Path) -> Truth:
    """Draw an upright shot that is stored lying down, as phones do."""
    scene = landscape(LOOKS["mountains"], 61, 800, 700)
    take = Take(scene, pan=(6, 0), start=(0, LOW), actors=(birds,), size=(360, 640))
    frames = (np.rot90(take.frame(i)) for i in range(132))
    return film(
        folder,
        "phone.mp4",
        frames,
        Known(in_a_row((132,)), "turned by its container"),
        size=(360, 640),
        rotation_deg=90,
    )


def downtown(folder: Path) -> Truth:
    """Draw a larger picture."""
    take = Take(city(71, 1800, 820), pan=(5, 0), start=(0, 100), actors=(cars,), size=(1280, 720))
    return film(folder, "downtown_720p.mp4", take.frames(0, 108), Known(in_a_row((108,)), "1280x720"), size=(1280, 720))


def reef_60fps(folder: Path) -> Truth:
    """Draw a shot of high frame rate."""
    take = Take(reef(5), pan=(5, 0), start=(0, LOW), actors=(fish,), fps=60)
    return film(folder, "reef_60fps.mp4", take.frames(0, 270), Known(in_a_row((270,)), "60 frames per second"), fps=60)


def glimpse(folder: Path) -> Truth:
    """Draw a source too short to use."""
    take = Take(place("snow", 81), pan=(6, 0), start=(0, LOW))
    return film(folder, "glimpse.mp4", take.frames(0, 24), Known(in_a_row((24,), ("short",)), "one second"))


def postcard(folder: Path) -> Truth:
    """Draw a still image."""
    picture = Take(landscape(LOOKS["meadow"], 91, 1280, 720), actors=(balloons,), size=(1280, 720)).frame(0)
    Image.fromarray(picture).save(folder / "postcard.jpg", quality=92)
    return Truth("postcard.jpg", (), None, 1280, 720, "a still image")


def broken(folder: Path) -> Truth:
    """Write a file that begins like a video and was cut off in its first frame."""
    whole = folder / ".whole.mp4"
    write_video(whole, Take(place("coast", 10)).frames(0, 12), FPS)
    content = whole.read_bytes()
    whole.unlink()
    (folder / "broken.mp4").write_bytes(content[: len(content) // 3])  # the index is at the end, so it is gone
    return Truth("broken.mp4", (), None, None, None, "cut off: no index, unreadable")


SOURCES: tuple[Callable[[Path], Truth], ...] = (
    travel,
    evening,
    flyover,
    rushes,
    subtitled,
    widescreen,
    phone,
    downtown,
    reef_60fps,
    glimpse,
    postcard,
    broken,
)


# -- helpers ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Known:
    """What is known of a film beside its pictures; fields as those of `Truth`."""

    shots: tuple[Shot, ...]
    notes: str
    speed: float | None = None


def film(
    folder: Path,
    name: str,
    frames: Iterable[np.ndarray],
    known: Known,
    *,
    fps: float = FPS,
    size: tuple[int, int] = SIZE,
    rotation_deg: int = 0,
) -> Truth:
    """Encode one source and give its truth; `size` is as displayed."""
    write_video(folder / name, frames, fps, rotation_deg=rotation_deg)
    return Truth(name, known.shots, fps, *size, known.notes, rotation_deg, known.speed)


def in_a_row(lengths: tuple[int, ...], kinds: tuple[str, ...] | None = None) -> tuple[Shot, ...]:
    """Return shots that follow each other without a gap; all good unless said."""
    ends = np.cumsum(lengths).tolist()
    kinds = kinds or ("good",) * len(lengths)
    return tuple(Shot(end - n, end, kind) for end, n, kind in zip(ends, lengths, kinds, strict=True))


def place(name: str, seed: int) -> Scene:
    """Paint one of the landscapes, wide enough for a shot of five seconds."""
    return landscape(LOOKS[name], seed)


def darkened(scene: Scene, light: float) -> Scene:
    """Dim the paint, which is cheaper than dimming every frame."""
    return tuple(dataclasses.replace(a, pixels=cv2.convertScaleAbs(a.pixels, alpha=light)) for a in scene)


def blurred_back(scene: Scene, sigma_px: float) -> Scene:
    """Return the backmost layer alone, out of focus (a blurred layer before it would keep a sharp outline)."""
    return (Layer(cv2.GaussianBlur(scene[0].pixels, (0, 0), sigma_px)),)


def letterboxed(frame: np.ndarray) -> np.ndarray:
    """Blacken the bars."""
    frame[:LETTERBOX_BAR_PX] = frame[-LETTERBOX_BAR_PX:] = 0
    return frame


def text_mask(text: str, height_px: int = 26) -> np.ndarray:
    """Draw one line of text: float32 (2, H, W), shares of letter and of letter with outline, 0..1."""
    font = ImageFont.load_default(height_px)
    mask = Image.new("L", (SIZE[0], height_px * 2))
    ImageDraw.Draw(mask).text((SIZE[0] / 2, height_px), text, fill=255, font=font, anchor="mm")
    letters = np.asarray(mask, np.float32) / 255
    return np.stack([letters, cv2.dilate(letters, np.ones((5, 5)))])


def with_text(frame: np.ndarray, mask: np.ndarray, bottom_px: int = 18) -> np.ndarray:
    """Burn white letters with a dark outline in, above the lower edge."""
    part = slice(frame.shape[0] - bottom_px - mask.shape[1], frame.shape[0] - bottom_px)
    frame[part] = to_pixels(frame[part] * (1 - mask[1])[..., None] + 250 * mask[0][..., None])
    return frame
