"""What every tab of the page works with."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from core.files import atomic_path, make_folder
from sampling.pictures import first_of_sheet, write_image
from serving.engine import Engine
from serving.intake import Intake
from serving.ledger import Job
from serving.studio.runs import Runs

THUMBNAIL_PX = 192


@dataclass(frozen=True)
class Commands:
    """What the tabs Curate and Train may do.

    Attributes:
        runs: the one run that goes on at a time.
        roots: folders whose files may be read.
        folder: where outputs and runs are written.
        recipes: files by name; the first is the default.
        configs: training configs by name.
        schema: JSON Schema of recipes, which explains the keys.
        training: that of training configs.
    """

    runs: Runs
    roots: tuple[Path, ...]
    folder: Path
    recipes: Mapping[str, Path]
    configs: Mapping[str, Path]
    schema: Mapping[str, Any]
    training: Mapping[str, Any]


@dataclass(frozen=True)
class Opened:
    """What is asked when a tab is opened.

    Attributes:
        ask: the function, which takes at most the HTTP request.
        outputs: the components that its result goes to.
    """

    ask: Callable[..., Any]
    outputs: Sequence[Any]


@dataclass(frozen=True)
class Desk:
    """What every tab works with.

    Attributes:
        intake: takes requests.
        engine: samples.
        shown: the folder of files that the page may send to browsers; nothing else lies there.
        commands: for the tabs Curate and Train; None: they are not there.
    """

    intake: Intake
    engine: Engine
    shown: Path
    commands: Commands | None

    def show(self, path: Path) -> str:
        """Return a file's path within the folder that the page may send from; it is copied there.

        Args:
            path: a result, or a file that a job was made from, within a job's folder.
        """
        place = self.shown / "-".join(path.parts[-3:-1]) / path.name
        if place.exists() and place.stat().st_mtime_ns == path.stat().st_mtime_ns:
            return str(place)
        make_folder(place.parent)
        with atomic_path(place, to_disk=False) as temporary:
            shutil.copy2(path, temporary)
        return str(place)

    def result(self, job: Job) -> str | None:
        """Return a job's file where the page may send it from; None where there is none."""
        path = self.intake.ledger.result(job)
        return self.show(path) if path else None

    def thumbnail(self, job: Job) -> str | None:
        """Return a small picture of a job's result where the page may send it from; None where there is none."""
        path = self.intake.ledger.result(job)
        drawn = path.with_suffix(".png") if path else None  # beside a video its contact sheet, else the picture itself
        if path is None or drawn is None or not drawn.is_file():
            return None
        place = self.shown / f"jobs-{job.job_id}" / "thumbnail.png"
        if not place.is_file():
            with Image.open(drawn, formats=("PNG",)) as image:
                small = first_of_sheet(image) if path != drawn else image.copy()
            small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
            make_folder(place.parent)
            write_image(small, place)
        return str(place)

    def forget(self, job_id: str) -> None:
        """Remove a job and what of it is shown."""
        self.intake.jobs.remove(job_id)
        shutil.rmtree(self.shown / f"jobs-{job_id}", ignore_errors=True)
