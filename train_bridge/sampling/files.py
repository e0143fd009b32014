"""Where samples go, and what lies beside each."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from curation.errors import UserError
from curation.files import atomic_write, make_folder
from train_bridge.pictures import contact_sheet, write_image, write_mp4
from train_bridge.sampling.checks import Job


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


def targets_for(jobs: Sequence[Job], output: Path) -> list[Path]:
    """Name the files: pictures end in `.png`, videos in `.mp4`. Nothing is written.

    Args:
        jobs: one or more.
        output: a folder, or for one sample a file.

    Raises:
        UserError: one file for several samples, or of the wrong kind.
    """
    endings = [".png" if job.mode == "text_to_image" or job.length == 1 else ".mp4" for job in jobs]
    suffix = output.suffix.lower()
    if suffix in (".mp4", ".png"):
        if len(jobs) > 1:
            prompts = len({job.request.prompt for job in jobs})
            what = f"{prompts} prompts" if prompts == len(jobs) else f"{len(jobs)} samples"
            raise UserError(f"--output {output}: is one file for {what}; name a folder")
        if suffix != endings[0]:
            kind = "a picture" if endings[0] == ".png" else "a video"
            raise UserError(f"--output {output}: {kind} is made; name it {output.with_suffix(endings[0]).name}")
        return [output]
    seeds = {job.request.prompt: set[int]() for job in jobs}
    for job in jobs:
        seeds[job.request.prompt].add(job.request.seed)
    names = []
    for place, (job, ending) in enumerate(zip(jobs, endings, strict=True)):
        name = re.sub(r"[^\w-]+", "_", job.request.prompt).strip("_")[:40] or "sample"
        seed = f"_{job.request.seed}" if len(seeds[job.request.prompt]) > 1 else ""
        names.append(f"{place:03d}_{name}{seed}{ending}")
    return [output / name for name in names]


def write_sample(sample: Sample, target: Path) -> None:
    """Write a video with its contact sheet (`.png`), or a picture; and the settings (`.json`)."""
    make_folder(target.parent)
    if target.suffix == ".png":
        write_image(Image.fromarray(sample.frames[0]), target)
    else:
        write_image(contact_sheet([sample.frames], [sample.settings["prompt"]]), target.with_suffix(".png"))
        write_mp4(sample.frames, sample.fps, target)
    text = json.dumps(sample.settings, indent=2, ensure_ascii=False) + "\n"
    atomic_write(target.with_suffix(".json"), text)
