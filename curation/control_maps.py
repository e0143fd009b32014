"""Control maps of accepted clips, drawn from the frames that are encoded for the clip's file. Runs in the media child.

OUT/control/<name>/<clip_id>.mp4    frame for frame with the clip's file; `.jpg` of an image, `.txt` of a camera path
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from av.video.frame import VideoFrame

from core.errors import MediaError, UserError
from core.files import atomic_path, atomic_write, make_folder
from curation.folders import CONTROLS
from curation.schema import CONTROL
from curation.types import Control, MapDrawer, Row
from curation.work import Plan
from media import planes
from media.frame import luma_of
from media.image import read_image
from media.map_file import MapFile, write_still
from media.shape import TICKS


class ClipMaps:
    """The maps of one clip while its file is written."""

    def __init__(self, out: Path, clip_id: str, controls: Mapping[str, Control]):
        self._out, self._clip_id, self._controls = out, clip_id, controls
        self._drawers = {name: _started(name, control) for name, control in controls.items()}
        self._files: dict[str, MapFile] = {}
        self._luma: np.ndarray | None = None
        self._last_tick = -1

    @property
    def videos(self) -> dict[str, Path]:
        """Where the maps that are videos come to lie."""
        return {n: self._out / self._place(n, c.suffix) for n, c in self._controls.items() if c.suffix == "mp4"}

    def write_to(self, files: Mapping[str, MapFile]) -> None:
        """Take the open files of `videos`."""
        self._files.update(files)

    def look(self, frame: VideoFrame, tick: int) -> None:
        """Draw every map of the next frame, given as it is encoded, with its time in `shape.TICKS`."""
        pictures: dict[str, np.ndarray] = {}
        for name, drawer in self._drawers.items():
            takes = self._controls[name].takes
            if takes not in pictures:
                pictures[takes] = self._luma_of(frame) if takes == "gray" else _rgb(frame)
            drawn = drawer.draw(pictures[takes], tick * float(TICKS))
            if drawn is not None:
                self._files[name].add(drawn, tick)
        self._last_tick = tick

    def _luma_of(self, frame: VideoFrame) -> np.ndarray:
        """Return full-range luma, uint8 (H, W), in memory that the next frame's takes again."""
        if self._luma is None:
            self._luma = np.empty((frame.height, frame.width), np.uint8)
        planes.gray_into(frame, self._luma)
        return self._luma

    def end(self, duration_s: float) -> Row:
        """End the files of a clip of this length, and return the columns of its maps."""
        end_tick = max(round(duration_s / TICKS), self._last_tick + 1)
        columns: Row = {}
        for name, drawer in self._drawers.items():
            facts, place = drawer.finish(), self._place(name, self._controls[name].suffix)
            if name in self._files:
                self._files[name].close(end_tick)
            elif facts.text is None:
                (self._out / place).unlink(missing_ok=True)
            else:
                make_folder((self._out / place).parent)
                atomic_write(self._out / place, facts.text)
            has_file = name in self._files or facts.text is not None
            columns |= _columns(name, place if has_file else None, facts.amount)
        return columns

    def _place(self, name: str, suffix: str) -> str:
        return f"{CONTROLS}/{name}/{self._clip_id}.{suffix}"


@contextmanager
def video_maps(plan: Plan, row: Row, fps: float) -> Iterator[ClipMaps]:
    """Lend the maps of a video clip; their files appear, each of them whole, when the block ends well.

    Args:
        plan: the run.
        row: the clip.
        fps: frame rate of its file.

    Raises:
        OutputError: the storage refuses to be written.
    """
    controls = {name: c for name, c in plan.recipe.controls.items() if "video" in c.media}
    maps = ClipMaps(Path(plan.out), row["clip_id"], controls)
    with ExitStack() as stack:
        files = {}
        for name, path in maps.videos.items():
            make_folder(path.parent)
            files[name] = MapFile(stack.enter_context(atomic_path(path)), fps)
            stack.callback(files[name].abandon)
        maps.write_to(files)
        yield maps


def image_maps(plan: Plan, row: Row, written: Path) -> Row:
    """Make the maps of an image from its written file, and return their columns.

    Raises:
        MediaError: the file cannot be read.
        OutputError: the storage refuses to be written.
    """
    controls = {name: c for name, c in plan.recipe.controls.items() if "image" in c.media}
    columns: Row = {}
    pixels = read_image(written, plan.recipe.limits.max_pixels) if controls else None
    for name, control in controls.items():
        assert pixels is not None
        drawer = _started(name, control)
        drawn = drawer.draw(luma_of(pixels) if control.takes == "gray" else pixels, 0.0)
        assert drawn is not None, "a control of images draws pictures"
        place = f"{CONTROLS}/{name}/{row['clip_id']}.jpg"
        path = Path(plan.out) / place
        make_folder(path.parent)
        with atomic_path(path) as temporary:
            write_still(temporary, drawn)
        columns |= _columns(name, place, drawer.finish().amount)
    return columns


def _started(name: str, control: Control) -> MapDrawer:
    """Return a drawer for one clip.

    Raises:
        MediaError: the control's network cannot be loaded here.
    """
    try:
        return control.start()
    except UserError as error:
        raise MediaError(f"control {name}: {error}") from None


def _columns(name: str, place: str | None, amount: float) -> Row:
    return {f"{CONTROL}{name}_path": place, f"{CONTROL}{name}_amount": amount}


def _rgb(frame: VideoFrame) -> np.ndarray:
    return planes.rgb(frame, frame.width, frame.height, 0)
