"""Accepted clips become files, from the same second read as the captioner's frames. Runs in the media child."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.errors import MediaError
from core.files import make_folder
from curation.analysis.analyse import sample_again
from curation.analysis.samples import encode_samples
from curation.control_maps import image_maps, video_maps
from curation.folders import CLIPS, CONTROLS
from curation.judge import judge
from curation.recipe import Rule
from curation.schema import CONTROL, FILE_COLUMNS, FINISH_COLUMNS
from curation.types import Frames, Row, Sampling
from curation.work import Plan, Task, span_of
from media.settings import CutSettings
from media.shape import Box, even_box, pixel_box
from media.stream_copy import copy_streams, copy_suffix
from media.stretch import Excerpt
from media.types import Heartbeat, SourceFacts
from media.write import transcode, write_image
from media.written import Written


def folder_of(column: str) -> str:
    """Return the folder, relative to the output, of the files that a column of `schema.FILE_COLUMNS` names."""
    return CLIPS if column == "clip_path" else f"{CONTROLS}/{column.removeprefix(CONTROL).removesuffix('_path')}"


def remove_files(out: Path, row: Row) -> None:
    """Delete the files of a clip that loses its place after they were written."""
    for name in FILE_COLUMNS:
        if row.get(name) is not None:
            (out / row[name]).unlink(missing_ok=True)


@dataclass(frozen=True)
class Cut:
    """What cutting a clip gave: columns for its row, and the captioner's frames as packed samples."""

    columns: Row
    samples: bytes | None


def cut_clip(plan: Plan, row: Row, task: Task, sampling: Sampling | None, beat: Heartbeat) -> Cut:
    """Write an accepted clip's file and take the captioner's frames.

    Raises:
        MediaError: the span cannot be read or written.
    """
    samples = _caption_frames(plan, row, task, sampling, beat) if sampling else None
    beat(0.0)
    if plan.recipe.cut.mode == "none":
        return Cut({}, samples)
    make_folder(Path(plan.out) / CLIPS)
    return Cut(_written_columns(plan, row, task, beat), samples)


def judged_by_maps(plan: Plan, row: Row, rules: dict[str, Rule]) -> Row:
    """Judge a clip once more, now that it is known what its control maps hold; a rejected one loses its files."""
    if not plan.recipe.controls:
        return row
    row = judge(row, rules)
    if row["status"] == "accepted":
        return row
    remove_files(Path(plan.out), row)
    return row | {name: None for name in (*FINISH_COLUMNS, "_samples") if name in row}


def _written_columns(plan: Plan, row: Row, task: Task, beat: Heartbeat) -> Row:
    """Write the file as the recipe asks; a clip that cannot be copied is transcoded, and its row says why."""
    cut, file, limits = plan.recipe.cut, task.source.file, plan.recipe.limits
    box = _box(row, cut, task.facts)
    if task.facts.type == "image":
        to = _place(plan, row, "jpg")
        written = write_image(file, task.facts, cut, box, limits.max_pixels, to)
        return _columns(to, written, "image") | image_maps(plan, row, to)
    excerpt, why = Excerpt(file, task.facts, span_of(row), beat, limits), None
    if cut.mode == "copy":
        to = _place(plan, row, copy_suffix(task.facts.codec))
        try:
            written = copy_streams(excerpt, to, cut.audio)
        except MediaError as error:
            if error.is_transient:
                raise
            why = str(error)
        else:
            kept = written.span
            return _columns(to, written, "copy") | {
                "start_s": kept.start_s,
                "end_s": kept.end_s,
                "duration_s": kept.duration_s,
                "start_frame": kept.start_frame,
                "num_frames": kept.num_frames,
            }
    to = _place(plan, row, "mp4")
    with video_maps(plan, row, cut.fps or task.facts.fps or 25.0) as maps:
        watcher = maps.look if plan.recipe.controls else None
        written = transcode(excerpt, cut, box, to, watcher)
        told = maps.end(excerpt.span.duration_s)
    return _columns(to, written, "transcode", why) | told


def _place(plan: Plan, row: Row, suffix: str) -> Path:
    return Path(plan.out) / CLIPS / f"{row['clip_id']}.{suffix}"


def _columns(to: Path, written: Written, mode: str, why: str | None = None) -> Row:
    return {
        "clip_path": f"{CLIPS}/{to.name}",
        "clip_width_px": written.width_px,
        "clip_height_px": written.height_px,
        "clip_fps": written.fps,
        "clip_num_frames": written.num_frames,
        "clip_audio_codec": written.sound.codec,
        "clip_audio_rate_hz": written.sound.rate_hz,
        "clip_audio_channels": written.sound.channels,
        "clip_audio_status": written.sound.status,
        "clip_cut": mode,
        "clip_cut_fallback": why,
    }


def _box(row: Row, cut: CutSettings, facts: SourceFacts) -> Box | None:
    """Return the part of the picture that is written; None where all of it is."""
    if cut.crops == "bars" and row.get("letterbox") and row["content_box"]:
        return tuple(row["content_box"])  # type: ignore[return-value]
    if cut.crops == "safe":
        if not row["safe_box"]:  # an accepted clip has one, unless a rule of the recipe's own lets everything pass
            raise MediaError("no part of the picture is free of overlays; set rules.safe_share.min above 0")
        box = even_box(tuple(row["safe_box"]), facts.width_px, facts.height_px)
        return None if _is_whole(box, facts.width_px, facts.height_px) else box
    return None


def _is_whole(box: Box, width: int, height: int) -> bool:
    """Return whether a box leaves out nothing but an odd last line."""
    return pixel_box(box, width, height) == (0, 0, width - width % 2, height - height % 2)


def _caption_frames(plan: Plan, row: Row, task: Task, sampling: Sampling, beat: Heartbeat) -> bytes:
    taken = sample_again(plan, row, task, {"caption": sampling}, beat)
    if not taken:
        raise MediaError("no frame for the captioner", row["start_s"])
    cut = plan.recipe.cut
    if cut.crops == "safe" and cut.mode != "none" and (box := _box(row, cut, task.facts)):
        taken = {name: _cropped(frames, box) for name, frames in taken.items()}  # no caption of what is cut off
    return encode_samples(taken)


def _cropped(frames: Frames, box: Box) -> Frames:
    height, width = frames.pixels.shape[1:3]
    left, top, right, bottom = pixel_box(box, width, height)
    return Frames(np.ascontiguousarray(frames.pixels[:, top:bottom, left:right]), frames.times_s)
