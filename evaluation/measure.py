"""Measuring by the steps of curation: the samples, and training clips for scores that their table lacks."""

import hashlib
import json
import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from core.errors import RunError, UserError
from core.files import atomic_write, make_folder, tidy, writing
from core.lock import locked
from curation.engine.runners import Runner
from curation.inputs.sources import find_sources
from curation.output.table import read_table
from curation.pipeline import curate
from curation.recipe import Recipe, render_recipe
from curation.types import Captioner, Source
from evaluation.population import WHERE, Population, score_columns
from evaluation.prompts import prompt_of
from evaluation.recipe import same_scores

STAMP = "made_of.json"
MOST_AGAIN = 2000
"""training clips measured for scores that their table lacks; of more, so many are drawn by their ids"""
VECTORS = {"temporal_hash": "temporal_hash", "embedding": "embedding"}
"""columns that neighbours are found by, and the operators that write them"""


def measure(
    sources: Sequence[Source], out: Path, recipe: Recipe, captioner: Captioner, runner: Runner
) -> tuple[pa.Table, list[str]]:
    """Measure every source as one clip; what a stopped run has done is kept, what is out of date is not.

    Args:
        sources: what to measure.
        out: an output of curation, made here.
        recipe: from `judging_recipe`.
        captioner: likewise.
        runner: carries it out.

    Returns:
        All rows, and the tracebacks of internal errors.

    Raises:
        UserError: `out` holds something else.
        RunError: it was stopped before the end.
    """
    _begin(out, _stamp(sources, recipe))
    outcome = curate(list(sources), out, recipe, captioner, runner)
    if not outcome.is_complete:
        raise RunError("stopped before the end; run the same command to resume")
    return read_table(out, recipe.writers), outcome.tally.problems


class TrainingClips(NamedTuple):
    """What samples are measured against; operators without scores there, and why; tracebacks of internal errors."""

    population: Population
    left_out: dict[str, str]
    problems: list[str]


def training_clips(
    reference: tuple[Path, Recipe],
    types: Collection[str],
    out: Path,
    recipe: Recipe,
    captioner: Captioner,
    runner: Runner,
    tell: Callable[[str], None],
) -> TrainingClips:
    """Return the accepted clips of an output of `curate` with the scores that samples are measured by.

    Scores are taken from its table where they were measured by the same settings, else measured on the clips' files.

    Args:
        reference: the output's folder and recipe.
        types: of the samples, `video`, `image` or both: pictures are not compared with videos.
        out: folder for what is measured here.
        recipe: that of the samples.
        captioner: likewise.
        runner: carries it out.
        tell: is called with a line about what begins.

    Returns:
        The clips; operators that they have no scores of, with the reason; the tracebacks of internal errors.

    Raises:
        UserError: no clip of these types is accepted.
        RunError: it was stopped before the end.
    """
    folder, kept = reference
    same = same_scores(recipe, kept)
    columns = [
        *WHERE,
        *(c.name for c in score_columns(same, recipe.columns)),
        *(c for c, name in VECTORS.items() if name in same),
    ]
    table = read_table(folder, kept.writers, columns)
    of_types = pc.is_in(table["type"], pa.array(sorted(types), pa.string()))
    clips = table.filter(pc.and_(pc.equal(table["status"], "accepted"), of_types))
    if not len(clips):
        kind = " or ".join(sorted(types))
        raise UserError(
            f"no {kind} of it is accepted",
            field="reference",
            value=folder,
            fix="change its rules: run_pipeline.py select",
        )
    lacking = {name: op for name, op in recipe.operators.items() if name not in same}
    left_out = {}
    if lacking.pop("caption_alignment", None) is not None:
        left_out["caption_alignment"] = "the reference has not compared its captions"
    files = [str(folder / path) for path in _drawn(clips) if (folder / path).is_file()] if lacking else []
    if not files:
        reason = "neither scores nor files in the reference"
        return TrainingClips(Population(clips), left_out | dict.fromkeys(lacking, reason), [])
    tell(f"measuring {', '.join(lacking)} of {len(files)} training clips, whose table lacks it …")
    again, problems = measure(find_sources(files), out, replace(recipe, operators=lacking), captioner, runner)
    named = [c.name for c in score_columns(list(lacking), recipe.columns)] + [
        c for c, name in VECTORS.items() if name in lacking
    ]
    population = Population(clips, _as_clips(again, clips, named), frozenset(named))
    return TrainingClips(population, left_out, problems)


def _drawn(clips: pa.Table) -> list[str]:
    """Return the files of a bounded number of clips; ids are hashes, so that the first by id are drawn at random."""
    with_file = clips.filter(pc.is_valid(clips["clip_path"]))
    paths: list[str] = with_file.take(pc.sort_indices(with_file["clip_id"])[:MOST_AGAIN])["clip_path"].to_pylist()
    return paths


def _as_clips(again: pa.Table, clips: pa.Table, named: Sequence[str]) -> pa.Table:
    """Return rows measured on files as rows of the clips whose files they are: the first row of each file."""
    ids = pa.array([path.rpartition(".")[0] for path in again["source_path"].to_pylist()], pa.string())
    first = pc.index_in(clips["clip_id"].combine_chunks(), ids)
    measured = pc.is_valid(first)
    found = clips.select(list(WHERE)).filter(measured)
    scores = again.select(list(named)).take(first.filter(measured))
    for name in named:
        found = found.append_column(name, scores[name])
    return found


def _stamp(sources: Sequence[Source], recipe: Recipe) -> str:
    """Return what is measured by what: files with their times and prompts, and the recipe."""
    files = [[s.root, s.path, s.size_bytes, s.mtime_ns, prompt_of(s.file)] for s in sources]
    text = json.dumps([sorted(files, key=str), render_recipe(recipe)])
    return json.dumps({"sha256": hashlib.sha256(text.encode()).hexdigest()}) + "\n"


def _begin(out: Path, stamp: str) -> None:
    """Make a folder for what is measured; one that was made of something else is emptied.

    Raises:
        UserError: what lies there is not ours, or in use.
    """
    file = out / STAMP
    tidy(out)  # nothing but what a killed evaluation left is named so
    if out.is_dir() and any(path.name != ".lock" for path in out.iterdir()):
        if not file.is_file():
            raise UserError("holds something else than an evaluation", field="output", value=out, fix="give another")
        with file.open("rb") as stamped:
            if stamped.read(len(stamp) + 1) == stamp.encode():
                return
        with locked(out), writing(out):
            for path in out.iterdir():  # the stamp last: a folder without it is not ours
                if path.name != STAMP:
                    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            shutil.rmtree(out)
    make_folder(out)
    atomic_write(file, stamp)
