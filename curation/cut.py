"""Accepted clips become files, from the same second read as the captioner's frames. Runs in the media child."""

from dataclasses import dataclass
from pathlib import Path

from curation.analyse import sample_again
from curation.errors import MediaError
from curation.files import make_folder
from curation.samples import encode_samples
from curation.types import Beat, Row, Sampling
from curation.video.write import Box, Written, copy_streams, transcode, write_image
from curation.work import Plan, Task, span_of

FOLDER = "train"


@dataclass(frozen=True)
class Cut:
    """What cutting a clip gave: columns for its row, and the captioner's frames as packed samples."""

    columns: Row
    samples: bytes | None


def cut_clip(plan: Plan, row: Row, task: Task, sampling: Sampling | None, beat: Beat) -> Cut:
    """Write an accepted clip's file and take the captioner's frames.

    Raises:
        MediaError: the span cannot be read or written.
    """
    samples = _caption_frames(plan, row, task, sampling, beat) if sampling else None
    beat(0.0)
    if plan.recipe.cut.mode == "none":
        return Cut({}, samples)
    suffix = "jpg" if task.facts.type == "image" else "mp4"
    place = f"{FOLDER}/{row['clip_id']}.{suffix}"
    make_folder(Path(plan.out) / FOLDER)
    written = _write(plan, row, task, Path(plan.out) / place, beat)
    columns: Row = {
        "clip_path": place,
        "clip_width_px": written.width_px,
        "clip_height_px": written.height_px,
        "clip_fps": written.fps,
        "clip_num_frames": written.num_frames,
    }
    if plan.recipe.cut.mode == "copy" and task.facts.type == "video":
        kept = written.span
        columns |= {
            "start_s": kept.start_s,
            "end_s": kept.end_s,
            "duration_s": kept.duration_s,
            "start_frame": kept.start_frame,
            "num_frames": kept.num_frames,
        }
    return Cut(columns, samples)


def _write(plan: Plan, row: Row, task: Task, to: Path, beat: Beat) -> Written:
    cut, file = plan.recipe.cut, task.source.file
    box = _box(row) if cut.crop_bars else None
    if task.facts.type == "image":
        return write_image(file, task.facts, cut, box, plan.recipe.limits.max_pixels, to)
    span = span_of(row)
    if cut.mode == "copy":
        return copy_streams(file, task.facts, span, to, beat, plan.recipe.limits)
    return transcode(file, task.facts, span, cut, box, to, beat, plan.recipe.limits)


def _box(row: Row) -> Box | None:
    """Give the picture inside the bars, None where there are none."""
    box = row.get("content_box")
    return tuple(box) if box and row.get("letterbox") else None  # type: ignore[return-value]


def _caption_frames(plan: Plan, row: Row, task: Task, sampling: Sampling, beat: Beat) -> bytes:
    taken = sample_again(plan, row, task, {"caption": sampling}, beat)
    if not taken:
        raise MediaError("no frame for the captioner", row["start_s"])
    return encode_samples(taken)
