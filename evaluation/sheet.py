"""Samples and their nearest training clips as one picture: a copy is seen at a glance."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from core.files import atomic_path
from core.sanitize import printable
from curation.analysis.previews import PREVIEW, preview_path
from evaluation.nearest import PICTURE_BITS, Nearest, Neighbour
from media.fonts import fonts_of

NAME = "nearest.jpg"
MOST_ROWS = 40
CELL_PX = (128, 96)
TEXT_PX = 13
GAP_PX = 6
COUNT = PREVIEW.count or 1


def write_sheet(nearest: Sequence[Nearest], samples: Path, reference: Path, path: Path) -> bool:
    """Draw the nearest pairs, a row each: four pictures of the sample, four of the training clip.

    Args:
        nearest: from `find_nearest`, the nearest pair first; so many are drawn as fit.
        samples: output with the samples' previews.
        reference: output with the training clips' previews.
        path: the picture to be.

    Returns:
        False where there is no pair to draw.
    """
    pairs = [(one, clip) for one in nearest if (clip := one.by_pictures or one.by_embedding) is not None][:MOST_ROWS]
    if not pairs:
        return False
    half_px = COUNT * (CELL_PX[0] + 2)
    row_px = CELL_PX[1] + TEXT_PX + 2 * GAP_PX
    sheet = Image.new("RGB", (2 * half_px + 3 * GAP_PX, row_px * len(pairs) + GAP_PX), "white")
    for place, (one, clip) in enumerate(pairs):
        top = GAP_PX + place * row_px
        _write(sheet, GAP_PX, top, half_px, f"{one.sample}: {one.prompt or 'no prompt'}", is_marked=False)
        _write(sheet, half_px + 2 * GAP_PX, top, half_px, _told(one, clip), is_marked=one.is_likely_copy)
        _show(sheet, GAP_PX, top + TEXT_PX + GAP_PX, samples, one.sample_id)
        _show(sheet, half_px + 2 * GAP_PX, top + TEXT_PX + GAP_PX, reference, clip.clip_id)
    with atomic_path(path) as temporary:
        sheet.save(temporary, quality=88)
    return True


def _told(one: Nearest, clip: Neighbour) -> str:
    bits = None if clip.picture_bits is None else f"{clip.picture_bits} of {PICTURE_BITS} bits"
    likeness = bits or f"cosine {clip.cosine:.3f}"
    return f"{'likely copy, ' if one.is_likely_copy else ''}{likeness}: {clip.source_path}"


def _write(sheet: Image.Image, left: int, top: int, width: int, text: str, *, is_marked: bool) -> None:
    fonts = fonts_of(TEXT_PX)
    text = printable(text, 200)
    while fonts.length(text) > width:
        text = text[: max(1, len(text) - 4)] + "…"
    fonts.draw(sheet, (left, top), text, "#b00020" if is_marked else "black")


def _show(sheet: Image.Image, left: int, top: int, out: Path, clip_id: str) -> None:
    """Put a clip's previews side by side; one that is not there, or no picture, stays grey."""
    for number in range(COUNT):
        place = (left + number * (CELL_PX[0] + 2), top)
        sheet.paste((224, 224, 224), (*place, place[0] + CELL_PX[0], place[1] + CELL_PX[1]))
        try:
            with Image.open(preview_path(out, clip_id, number)) as picture:
                small = picture.convert("RGB")
        except OSError:  # a short clip has fewer; a file from outside may be damaged
            continue
        factor = min(CELL_PX[0] / small.width, CELL_PX[1] / small.height)
        small = small.resize((max(1, round(small.width * factor)), max(1, round(small.height * factor))))
        inside = ((CELL_PX[0] - small.width) // 2, (CELL_PX[1] - small.height) // 2)
        sheet.paste(small, (place[0] + inside[0], place[1] + inside[1]))
