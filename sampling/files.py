"""Where samples go, and what lies beside each."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from core.errors import UserError
from core.files import atomic_write, make_folder
from sampling.checks import Job
from sampling.pictures import contact_sheet, write_image, write_mp4
from sampling.settings_file import settings_of, without_places

MOST_WORDS = 40
"""characters of a prompt in a file's name"""
ID_DIGITS = 8
"""of the request's id in a file's name"""


@dataclass(frozen=True, eq=False)
class Sample:
    """What was made.

    Attributes:
        frames: uint8 (T, H, W, 3).
        fps: rate.
        settings: what it was made with, as it is written beside the file.
    """

    frames: np.ndarray
    fps: float
    settings: dict[str, Any]


def targets_for(jobs: Sequence[Job], ids: Sequence[str], output: Path) -> list[Path]:
    """Name the files: pictures end in `.png`, videos in `.mp4`. Nothing is written.

    In a folder a name has the prompt's first words, the seed, the mode and some digits of the request's id, as
    `a_red_disc_seed0_text_to_video_1f3a9c2e.mp4`: so the same request again replaces its own file, and no other.

    Args:
        jobs: one or more.
        ids: of each, as `OpenModel.request_id` returns it.
        output: a folder, or for one sample a file.

    Raises:
        UserError: one file for several samples, of the wrong kind, or one that another request made.
    """
    endings = [".png" if job.mode == "text_to_image" or job.length == 1 else ".mp4" for job in jobs]
    suffix = output.suffix.lower()
    if suffix in (".mp4", ".png"):
        if len(jobs) > 1:
            prompts = len({job.request.prompt for job in jobs})
            what = f"{prompts} prompts" if prompts == len(jobs) else f"{len(jobs)} samples"
            raise UserError(f"is one file for {what}", field="output", value=output, fix="name a folder")
        if suffix != endings[0]:
            kind = "a picture" if endings[0] == ".png" else "a video"
            raise UserError(
                f"{kind} is made", field="output", value=output, fix=f"name it {output.with_suffix(endings[0]).name}"
            )
        _check_own(output, ids[0])
        return [output]
    return [output / f"{_stem(job, name)}{ending}" for job, name, ending in zip(jobs, ids, endings, strict=True)]


def _stem(job: Job, request_id: str) -> str:
    words = re.sub(r"[^\w-]+", "_", job.request.prompt)[:MOST_WORDS].strip("_-") or "sample"
    return f"{words}_seed{job.request.seed}_{job.mode}_{request_id[:ID_DIGITS]}"


def _check_own(target: Path, request_id: str) -> None:
    """Refuse to replace a sample of another request, its settings or its contact sheet.

    Raises:
        UserError: one of them is there.
    """
    there = [path for path in dict.fromkeys((target, *_beside(target))) if path.exists()]
    if there and settings_of(target).get("request_id") != request_id:
        raise UserError(
            f"{there[0].name} is there already, of another request",
            field="output",
            value=target,
            fix="name another file or a folder",
        )


def sample_files(target: Path) -> tuple[Path, ...]:
    """Return the files of a sample in the order in which they are written: settings, film or picture, contact sheet."""
    settings, sheet = _beside(target)
    return tuple(dict.fromkeys((settings, target, sheet)))


def _beside(target: Path) -> tuple[Path, Path]:
    return target.with_suffix(".json"), target.with_suffix(".png")


def write_sample(sample: Sample, target: Path) -> None:
    """Write a video with its contact sheet (`.png`), or a picture; and first the settings (`.json`).

    The settings are in the video or picture as well (`settings_file.settings_within`), for files that go their
    way: there model, adapters and media have their names alone, not their places on this machine.
    """
    make_folder(target.parent)
    settings, sheet = _beside(target)
    # First, so that whatever a kill leaves is known for this request's.
    atomic_write(settings, json.dumps(sample.settings, indent=2, ensure_ascii=False) + "\n")
    comment = json.dumps(without_places(sample.settings))
    if target.suffix.lower() == ".png":
        write_image(Image.fromarray(sample.frames[0]), target, comment)
    else:
        write_image(contact_sheet([sample.frames], [sample.settings["prompt"]]), sheet)
        write_mp4(sample.frames, sample.fps, target, comment=comment)
