"""Which files of a folder of samples are samples."""

import os
from collections.abc import Container, Sequence
from pathlib import Path

from core.errors import UserError
from core.sanitize import printable
from curation.inputs.sources import find_sources
from curation.output.folder import recipe_file
from curation.types import Source
from media.names import looks_like_image
from sampling.settings_file import settings_of


def find_samples(inputs: Sequence[str], own: Sequence[Path]) -> list[Source]:
    """Find the generated clips and pictures that the inputs name.

    A picture beside a video of the same name, or beside settings of more than one frame, is a contact sheet and is
    left out; so is what lies in `own`.

    Args:
        inputs: files, folders, globs or lists, as `curate` takes them.
        own: folders of the evaluation itself, which may be inside a folder of samples.

    Raises:
        UserError: an input that cannot be read, holds no sample, or is an output of `curate`.
    """
    for text in inputs:
        if recipe_file(Path(text)).is_file():
            raise UserError(
                f"{printable(text, 300)}: an output of curate, no folder of samples; give its train/, "
                "or set two outputs side by side: run_pipeline.py report A B"
            )
    inside = tuple(f"{os.path.abspath(folder)}{os.sep}" for folder in own)
    found = [source for source in find_sources(inputs, with_outputs=True) if not str(source.file).startswith(inside)]
    films = {source.file.with_suffix("") for source in found if not looks_like_image(source.file)}
    samples = [s for s in found if not (looks_like_image(s.file) and _is_contact_sheet(s.file, films))]
    if not samples:
        raise UserError(f"{printable(inputs[0], 300)}: no generated clip in it besides the evaluation's own files")
    return samples


def _is_contact_sheet(picture: Path, films: Container[Path]) -> bool:
    frames = settings_of(picture).get("num_frames")
    return picture.with_suffix("") in films or (isinstance(frames, int) and frames > 1)
