"""What was found, for people on a terminal and for programs."""

import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.files import atomic_write
from core.sanitize import printable
from core.storage.place import called
from evaluation.distances import QUANTILES, Distribution, ScoreDistance
from evaluation.nearest import PICTURE_BITS, Nearest, Neighbour, likely_copies
from evaluation.request import Request
from evaluation.run import Evaluation

FILE = "evaluate.json"
SHOWN = 10
"""neighbours on the terminal; all are in the file"""
OTHER_SIZE = 1.5
"""Samples and training clips whose short sides differ by this factor are reported."""


def render_evaluation(found: Evaluation) -> str:
    """Return an evaluation as a screen of text."""
    blocks = [_counts(found), _scores(found), _neighbours(found), _hints(found)]
    return "\n\n".join(block for block in blocks if block)


def write_evaluation(request: Request, found: Evaluation) -> Path:
    """Write `evaluate.json`; return its path."""
    reference = None if request.reference is None else called(request.reference[0])
    values = {
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "samples": {
            "files": [called(source.file) for source in request.sources],
            "count": found.samples,
            "failed": dict(found.failed),
            "without_prompt": found.without_prompt,
            "short_side_px": found.short_sides_px[0],
        },
        "reference": reference
        and {"path": reference, "clips": found.training_clips, "short_side_px": found.short_sides_px[1]},
        "overall": found.overall and dataclasses.asdict(found.overall),
        "scores": {score.column.name: _score_values(score) for score in found.scores},
        "nearest_of": found.nearest_of,
        "likely_copies": likely_copies(found.nearest),
        "nearest": [dataclasses.asdict(one) | {"is_likely_copy": one.is_likely_copy} for one in found.nearest],
        "left_out": found.left_out,
        "obedience": {path: {**one.scores, "why_not": one.why_not} for path, one in found.obedience.items()},
    }
    path = request.out / FILE
    atomic_write(path, json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return path


def _score_values(score: ScoreDistance) -> dict[str, Any]:
    values = {f.name: getattr(score, f.name) for f in dataclasses.fields(score) if f.name != "column"}
    sides = {name: _distribution_values(getattr(score, name)) for name in ("samples", "reference")}
    column = {"operator": score.column.writer, "unit": score.column.unit, "meaning": score.column.meaning}
    return column | values | sides


def _distribution_values(one: Distribution | None) -> dict[str, Any] | None:
    if one is None:
        return None
    return dataclasses.asdict(one) | {"quantiles": dict(zip(map(str, QUANTILES), one.quantiles, strict=False)) or None}


def _counts(found: Evaluation) -> str:
    words = f"{found.samples} samples"
    parts = [(len(found.failed), "cannot be read"), (found.without_prompt, "without prompt")]
    words += "".join(f", {count} {what}" for count, what in parts if count)
    lines = [words if found.training_clips is None else f"{words}, beside {found.training_clips} training clips"]
    lines += [f"  failed: {printable(path, 60)}: {printable(error, 120)}" for path, error in found.failed[:3]]
    return "\n".join(lines)


def _scores(found: Evaluation) -> str:
    heads = f"{'':<18}{'samples':>30}"
    names = f"{'score':<18}{'5 %':>10}{'median':>10}{'95 %':>10}"
    is_compared = found.training_clips is not None
    if is_compared:
        heads += f"{'training clips':>30}"
        names += f"{'5 %':>10}{'median':>10}{'95 %':>10}{'distance':>11}{'by chance':>11}{'KS':>7}"
    lines = [heads.rstrip(), f"{names}{'missing':>9}"]
    for score in sorted(found.scores, key=lambda s: -(s.farness or 0.0)):
        line = f"{score.column.name:<18}{_quantiles(score.samples)}"
        if is_compared:
            line += f"{_quantiles(score.reference)}{_number(score.wasserstein):>11}{_number(score.by_chance):>11}"
            line += f"{_number(score.kolmogorov_smirnov):>7}"
        lines.append(f"{line}{score.samples.missing or '':>9}".rstrip())
    if found.overall is not None:
        overall = found.overall
        lines += [
            "",
            f"distance from the training clips: {overall.distance:.3f} of 1; as many training clips drawn at random: "
            f"{overall.by_chance:.3f}, 95 % of draws below {overall.by_chance_95:.3f}",
            "(of scores: the mean way, in standard deviations of the training clips; KS: Kolmogorov-Smirnov, 0 to 1)",
        ]
    return "\n".join(lines)


def _neighbours(found: Evaluation) -> str:
    if not found.nearest or not found.nearest_of:
        return ""
    copies = likely_copies(found.nearest)
    alone = sum(one.by_pictures is None and one.by_embedding is None for one in found.nearest)
    words = f"{copies} of {len(found.nearest)} samples are likely copies" + (
        f", {alone} cannot be told" if alone else ""
    )
    lines = [
        f"nearest of {found.nearest_of} (of {found.training_clips}) training clips: {words}",
        f"{'sample':<34}{f'bits of {PICTURE_BITS}':>12}{'cosine':>8}  training clip",
    ]
    lines += [_neighbour_line(one) for one in found.nearest[:SHOWN]]
    if len(found.nearest) > SHOWN:
        lines.append(f"… and {len(found.nearest) - SHOWN} more in {FILE}")
    return "\n".join(lines)


def _neighbour_line(one: Nearest) -> str:
    pictures, embedding = one.by_pictures, one.by_embedding
    bits = "–" if pictures is None else str(pictures.picture_bits)
    cosine = "–" if embedding is None else _number(embedding.cosine)
    clips = {n.clip_id: n for n in (pictures, embedding) if n is not None}
    where = " and ".join(map(_where, clips.values())) or "its pictures show too little to compare"
    mark = "  likely copy" if one.is_likely_copy else ""
    return f"{printable(one.sample, 33):<34}{bits:>12}{cosine:>8}  {where}{mark}"


def _where(clip: Neighbour) -> str:
    span = "" if clip.start_s is None or clip.end_s is None else f" {clip.start_s:.1f}-{clip.end_s:.1f} s"
    return printable(clip.clip_path or clip.source_path, 60) + (f" ({printable(clip.source_path, 40)}{span})")


def _hints(found: Evaluation) -> str:
    own, theirs = found.short_sides_px
    unmeasured = [(path, one.why_not) for path, one in found.obedience.items() if one.why_not]
    told = [f"control not measured: {printable(path, 60)}: {printable(why, 160)}" for path, why in unmeasured[:3]]
    lines = [f"left out: {name} ({printable(why, 160)})" for name, why in found.left_out.items()]
    if own and theirs and max(own / theirs, theirs / own) >= OTHER_SIZE:
        lines.append(
            f"samples have a short side of {own:g} px, training clips {theirs:g} px: sharpness, visual quality and "
            "text depend on it"
        )
    return "\n".join([*lines, *told])


def _quantiles(one: Distribution | None) -> str:
    chosen: Sequence[float | None] = [None] * 3 if one is None or not one.quantiles else one.quantiles[::2]
    return "".join(f"{_number(value):>10}" for value in chosen)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
