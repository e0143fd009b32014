"""Footage with subtitles, logos and signs whose places are known: a camera pans over a texture with signs on it."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from demo.drawing import noise

Box = tuple[int, int, int, int]
WORDS = (
    "quick",
    "river",
    "under",
    "seven",
    "bridges",
    "running",
    "past",
    "market",
    "houses",
    "nobody",
    "answers",
    "him",
)


def text_patch(text: str, height_px: int, colour: str = "white", outline: bool = True) -> np.ndarray:
    """Draw a line of text: uint8 (h, w, 4) RGBA, cut to its ink."""
    font = ImageFont.load_default(height_px)
    picture = Image.new("RGBA", (height_px * (len(text) + 2), 3 * height_px))
    stroke = max(1, height_px // 12) if outline else 0
    place = (height_px, height_px)
    ImageDraw.Draw(picture).text(place, text, colour, font, stroke_width=stroke, stroke_fill="black")
    return np.asarray(picture.crop(picture.getbbox()))


def logo_patch(side_px: int, opacity: float = 1.0) -> np.ndarray:
    """Draw a disc with a triangle on it: uint8 (side, side, 4) RGBA."""
    patch = np.zeros((side_px, side_px, 4), np.uint8)
    middle = side_px // 2
    cv2.circle(patch, (middle, middle), middle - 1, (235, 235, 245, 255), -1, cv2.LINE_AA)
    corners = np.array([[0.35, 0.25], [0.35, 0.75], [0.78, 0.5]]) * side_px
    cv2.fillPoly(patch, [corners.astype(np.int32)], (200, 30, 40, 255), cv2.LINE_AA)
    patch[..., 3] = (patch[..., 3] * opacity).astype(np.uint8)
    return patch


def paste(picture: np.ndarray, patch: np.ndarray, left: int, top: int) -> Box:
    """Lay a patch over a picture in place; return the box that it covers."""
    height, width = patch.shape[:2]
    share = patch[..., 3:].astype(np.float32) / 255
    part = picture[top : top + height, left : left + width]
    part[:] = np.round(part * (1 - share) + patch[..., :3] * share).astype(np.uint8)
    return left, top, left + width, top + height


def signboard(text: str, height_px: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a sign: a plain board with dark or light letters."""
    patch = text_patch(text, height_px, "black" if rng.random() < 0.5 else "white", outline=False)
    margin = height_px // 2
    size = (patch.shape[0] + 2 * margin, patch.shape[1] + 2 * margin, 4)
    board = np.full(size, 255, np.uint8)
    board[..., :3] = rng.integers(170, 255, 3) if patch[..., 0].max() == 0 else rng.integers(20, 110, 3)
    paste(board[..., :3], patch, margin, margin)
    return board


@dataclass(frozen=True)
class Laid:
    """An overlay: a patch with its place, seen within a time."""

    patch: np.ndarray
    left: int
    top: int
    start_s: float = 0.0
    end_s: float = 1e9

    @property
    def box(self) -> Box:
        """The pixels that it covers."""
        return self.left, self.top, self.left + self.patch.shape[1], self.top + self.patch.shape[0]


@dataclass
class Footage:
    """A pan over a texture with signs, under overlays; `bars_px` is the height of black bars above and below."""

    seed: int
    size: tuple[int, int] = (640, 360)
    speed_px_per_s: float = 40.0
    signs: int = 0
    overlays: list[Laid] = field(default_factory=list)
    bars_px: int = 0

    def __post_init__(self) -> None:
        """Paint the wall that the camera passes."""
        rng = np.random.default_rng(self.seed)
        width, height = 4 * self.size[0], self.size[1]
        cells = (int(rng.integers(6, 14)), int(rng.integers(30, 70)))
        colours = [noise(rng, (height, width), cells)[..., None] * rng.integers(120, 255, 3) for _ in range(2)]
        self.wall = np.clip(0.5 * colours[0] + 0.5 * colours[1], 0, 255).astype(np.uint8)
        unit = height / 360
        step = width // max(1, self.signs)
        for index in range(self.signs):
            words = " ".join(rng.choice(WORDS, int(rng.integers(1, 3))))
            board = signboard(words, round(rng.uniform(18, 34) * unit), rng)
            top = int(rng.integers(self.bars_px + 5, height - self.bars_px - board.shape[0] - 5))
            left = index * step + int(rng.integers(0, max(1, step - board.shape[1])))
            paste(self.wall, board, min(left, width - board.shape[1]), top)

    def picture(self, time_s: float) -> np.ndarray:
        """Draw the picture at a time."""
        width, height = self.size
        left = self.speed_px_per_s * time_s % (3 * width)
        shift = np.array([[1, 0, -(left % 1)], [0, 1, 0]], np.float32)
        part = np.ascontiguousarray(self.wall[:, int(left) : int(left) + width + 1])
        picture = cv2.warpAffine(part, shift, (width, height), borderMode=cv2.BORDER_REPLICATE)
        if self.bars_px:
            picture[: self.bars_px] = picture[-self.bars_px :] = 0
        for one in self.overlays:
            if one.start_s <= time_s < one.end_s:
                paste(picture, one.patch, one.left, one.top)
        return picture

    def pictures(self, length_s: float, fps: float) -> Iterator[np.ndarray]:
        """Draw all pictures of a clip."""
        return (self.picture(k / fps) for k in range(round(length_s * fps)))


def subtitles(rng: np.random.Generator, size: tuple[int, int], length_s: float, bottom_px: int) -> list[Laid]:
    """Lines of speech that follow each other near the bottom, each for 1.5 to 3 s, with a pause now and then."""
    width, height = size
    at_s, laid = float(rng.uniform(0, 0.5)), []
    height_px, colour = round(rng.uniform(15, 22) * height / 360), str(rng.choice(["white", "yellow"]))
    while at_s < length_s - 0.8:
        text = " ".join(rng.choice(WORDS, int(rng.integers(3, 7))))
        patch = text_patch(text, height_px, colour)
        until_s = at_s + float(rng.uniform(1.5, 3.0))
        left, top = (width - patch.shape[1]) // 2, bottom_px - patch.shape[0]
        laid.append(Laid(patch, max(0, left), top, at_s, until_s))
        at_s = until_s + float(rng.choice([0.0, 0.6]))
    return laid


def around(overlays: list[Laid]) -> Box:
    """Return the box around all overlays."""
    boxes = np.array([one.box for one in overlays])
    return tuple(int(v) for v in (*boxes[:, :2].min(axis=0), *boxes[:, 2:].max(axis=0)))  # type: ignore[return-value]
