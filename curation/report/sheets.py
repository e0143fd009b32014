"""Contact sheets of the accepted videos, for people who want to see that each is one shot.

DIR/sheet-0001.jpg …    a dozen clips each, in the order of sources and times: a line of text, and frames from the first
                        to the last in a row
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from core.errors import MediaError, UserError
from core.files import atomic_path
from core.limits import Limits
from curation.types import Row
from media.fonts import fonts_of
from media.sandbox import InternalError, MediaProcess, Sandbox
from media.types import no_heartbeat

MODULE = "curation.report.strips"
CLIPS_A_SHEET = 12
FRAME_HEIGHT_PX, TEXT_PX, GAP_PX = 108, 14, 2
WIDEST_PX = 1920
"""of a sheet; what is wider is made smaller, row by row"""
OURS = re.compile(r"sheet-\d{4,}\.jpg")

Look = Callable[[Path], Sequence[np.ndarray]]
"""From a clip's file to its frames, uint8 (H, W, 3), the first and the last among them"""


@dataclass(frozen=True)
class Sheets:
    """What was written.

    Attributes:
        paths: of the sheets, in order.
        clips: how many clips are on them.
        unread: of these, how many could not be read; the sheet says why.
    """

    paths: list[Path]
    clips: int
    unread: int


def write_sheets(out: Path, folder: Path, table: pa.Table, frames: int, limits: Limits) -> Sheets:
    """Write contact sheets of the accepted videos of an output that have files.

    Args:
        out: the output.
        folder: where they go; sheets of an earlier call that are not written anew are removed.
        table: columns `clip_id`, `type`, `status`, `source_path`, `start_s`, `end_s`, `clip_path`.
        frames: of each clip.
        limits: what reading a clip may cost.

    Raises:
        UserError: the folder cannot be made.
    """
    rows = [row for row in table.to_pylist() if row["status"] == "accepted" and row["clip_path"]]
    rows = sorted((r for r in rows if r["type"] == "video"), key=lambda r: (r["source_path"], r["start_s"]))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot be made ({error.strerror})", field="sheets", value=folder) from None
    unread = 0
    paths: list[Path] = []
    process = MediaProcess(Sandbox(MODULE, limits, limits))

    def look(path: Path) -> Sequence[np.ndarray]:
        (found,) = process.run(no_heartbeat, "strip", path, frames, FRAME_HEIGHT_PX)
        return list(found)

    with closing(process):
        for some in _batches(rows, CLIPS_A_SHEET):
            first = CLIPS_A_SHEET * len(paths) + 1
            strips = [_strip(out, row, first + place, look) for place, row in enumerate(some)]
            unread += sum(not is_read for _, is_read in strips)
            paths.append(folder / f"sheet-{len(paths) + 1:04}.jpg")
            with atomic_path(paths[-1]) as temporary:
                stacked([picture for picture, _ in strips]).save(temporary, format="JPEG", quality=85)
    for path in folder.iterdir():
        if OURS.fullmatch(path.name) and path not in paths:
            path.unlink()
    return Sheets(paths, len(rows), unread)


def _batches(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    rest = iter(rows)
    while some := list(islice(rest, size)):
        yield some


def _strip(out: Path, row: Row, number: int, look: Look) -> tuple[Image.Image, bool]:
    """Return the picture of one clip, and whether it could be read."""
    text = f"{number}   {row['clip_id'][:8]}   {row['source_path']}   {row['start_s']:.2f} to {row['end_s']:.2f} s"
    try:
        return drawn_strip(text, look(out / row["clip_path"])), True
    except (MediaError, InternalError) as error:
        return drawn_strip(f"{text}   cannot be read: {str(error).strip().splitlines()[-1]}", []), False


def drawn_strip(text: str, frames: Sequence[np.ndarray]) -> Image.Image:
    """Return a line of text above frames in a row, at most `WIDEST_PX` wide.

    Args:
        text: one line; what does not fit is left out.
        frames: uint8 (H, W, 3) each, of one height.
    """
    width = sum(frame.shape[1] + GAP_PX for frame in frames) if frames else WIDEST_PX
    scale = min(1.0, WIDEST_PX / width)
    sizes = [(max(1, int(f.shape[1] * scale)), max(1, round(f.shape[0] * scale))) for f in frames]
    height = max((size[1] for size in sizes), default=0)
    picture = Image.new("RGB", (WIDEST_PX, TEXT_PX + 6 + height + GAP_PX), "white")
    fonts = fonts_of(TEXT_PX)
    for line in fonts.wrap(text, WIDEST_PX - 4, 1):
        fonts.draw(picture, (2, 1), line)
    left = 0
    for frame, size in zip(frames, sizes, strict=True):
        small = Image.fromarray(frame) if size == frame.shape[1::-1] else Image.fromarray(frame).resize(size)
        picture.paste(small, (left, TEXT_PX + 6))
        left += size[0] + GAP_PX
    return picture


def stacked(pictures: Sequence[Image.Image]) -> Image.Image:
    """Return pictures of one width below each other."""
    sheet = Image.new("RGB", (WIDEST_PX, sum(picture.height for picture in pictures)), "white")
    top = 0
    for picture in pictures:
        sheet.paste(picture, (0, top))
        top += picture.height
    return sheet
