"""An evaluation from samples to `evaluate.json`: measure, compare, find neighbours, write."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from curation.engine.runners import Runner
from curation.output.folder import prepare_folder
from curation.report.compare import write_comparison
from curation.report.write import Budget
from evaluation.distances import Overall, ScoreDistance, compare
from evaluation.measure import measure, training_clips
from evaluation.nearest import Nearest, compared_with, find_nearest
from evaluation.obedience import measured, obedience_columns, with_obedience
from evaluation.population import Population, numbers, score_columns
from evaluation.request import REFERENCE, SAMPLES, Request
from evaluation.sheet import NAME, write_sheet
from media.names import looks_like_image
from sampling.obeyed import Measure, Obedience


@dataclass(frozen=True)
class Evaluation:
    """What was found.

    Attributes:
        samples: samples, also those that could not be read.
        failed: those, as (path, error).
        without_prompt: samples beside which no prompt lies.
        training_clips: clips of the reference that the samples' scores are compared with; null without one.
        scores: one by one.
        overall: in one number; null where there is nothing to compare with.
        nearest: neighbours of each sample, the nearest pair first.
        nearest_of: training clips among which they were looked for.
        short_sides_px: medians of samples and training clips.
        left_out: operators that did not run, or have nothing to be compared with, and why.
        sheet: picture of the nearest pairs; null: there are none.
        page: the comparison, or the samples' own report where there is nothing to compare them with.
        problems: tracebacks of internal errors.
        obedience: what was found of samples that were steered, by path.
    """

    samples: int
    failed: list[tuple[str, str]]
    without_prompt: int
    training_clips: int | None
    scores: list[ScoreDistance]
    overall: Overall | None
    nearest: list[Nearest]
    nearest_of: int
    short_sides_px: tuple[float | None, float | None]
    left_out: dict[str, str]
    sheet: Path | None
    page: Path
    problems: list[str]
    obedience: dict[str, Obedience]


def evaluate(request: Request, runner: Runner, tell: Callable[[str], None], obeys: Measure | None = None) -> Evaluation:
    """Measure samples and set them beside the training clips.

    Args:
        request: what to evaluate.
        runner: carries out the measuring.
        tell: is called with a line about what begins.
        obeys: measures how well a sample obeys its control; None: it is not measured.

    Raises:
        UserError: the output cannot be written, or no clip of the reference can be compared with the samples.
        RunError: it was stopped before the end; the same command resumes it.
    """
    prepare_folder(request.out)
    recipe, own_out = request.recipe, request.out / SAMPLES
    left_out = dict(request.left_out)
    reference: Population | None = None
    problems: list[str] = []
    if request.reference is not None:  # first, since what is wrong with it is known at once
        types = {"image" if looks_like_image(source.file) else "video" for source in request.sources}
        reference, unmeasured, problems = training_clips(
            request.reference, types, request.out / REFERENCE, recipe, request.captioner, runner, tell
        )
        left_out |= unmeasured
    tell(f"measuring {len(request.sources)} samples …")
    table, more = measure(request.sources, own_out, recipe, request.captioner, runner)
    obedience = {} if obeys is None else measured(request.sources, obeys, tell)
    samples = Population(with_obedience(table, obedience))
    columns = [*score_columns(list(recipe.operators), recipe.columns), *obedience_columns(obedience)]
    scores, overall = compare(samples, reference, columns)
    nearest = [] if reference is None else find_nearest(samples, reference)
    page, sheet = own_out / "report.html", None
    if request.reference is not None:
        page, sheet = request.out / "compare.html", own_out / NAME  # in there nobody takes it for a sample
        if not write_sheet(nearest, own_out, request.reference[0], sheet):
            sheet = None
        write_comparison(request.reference, (own_out, recipe), page, Budget())
    failed = table.filter(pc.equal(table["status"], "failed"))
    prompts = table.filter(pc.and_(pc.not_equal(table["status"], "failed"), pc.is_null(table["caption"])))
    sides = [
        float(np.nanmedian(values)) if np.isfinite(values).any() else None
        for values in (numbers(p.clips, "short_side_px") for p in (samples, reference) if p is not None)
    ]
    return Evaluation(
        samples=len(request.sources),
        failed=list(zip(failed["source_path"].to_pylist(), failed["error"].to_pylist(), strict=True)),
        without_prompt=len(prompts),
        training_clips=None if reference is None else len(reference.clips),
        scores=scores,
        overall=overall,
        nearest=nearest,
        nearest_of=0 if reference is None else compared_with(reference),
        short_sides_px=(sides[0], sides[1] if len(sides) > 1 else None),
        left_out=left_out,
        sheet=sheet,
        page=page,
        problems=[*problems, *more],
        obedience=obedience,
    )
