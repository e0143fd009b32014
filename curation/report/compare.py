"""Two outputs side by side: two recipes on one footage, or training data and what a model made of it."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.recipe import Recipe
from curation.report.gather import Gathered, gather
from curation.report.pack import pack_numbers
from curation.report.write import Budget, Packed, pack_output, write_page

SCRIPTS = ("unpack", "verdicts", "charts", "cards", "galleries", "compare")


def write_comparison(one: tuple[Path, Recipe], other: tuple[Path, Recipe], page: Path, budget: Budget) -> None:
    """Write a page that sets two outputs side by side; their tables must be folded.

    Clips are the same where source content, input-relative path and span are: where they have one `clip_id`.

    Args:
        one: the first output's folder and recipe.
        other: the second's.
        page: the file to write.
        budget: for both together.
    """
    a, b = gather(*one), gather(*other)
    same = pc.index_in(a.table["clip_id"], b.table["clip_id"].combine_chunks()).combine_chunks()
    changed_a = _changed(a.table, b.table, same)
    changed_b = same.take(pa.array(changed_a)).to_numpy()
    half = replace(budget, pictures_mb=budget.pictures_mb / 2, texts_mb=budget.texts_mb / 2)
    outputs: dict[str, Packed] = {}
    for name, output, first in (("a", a, changed_a), ("b", b, changed_b)):
        packed = pack_output(output, half, [int(row) for row in first])
        outputs[name] = replace(packed, facts=packed.facts | {"base": _address(output, page)})
    outputs["a"].blobs["same"] = pack_numbers(pa.chunked_array([same]))
    title = f"{a.out.resolve().name} and {b.out.resolve().name}"
    facts: dict[str, Any] = {name: packed.facts for name, packed in outputs.items()}
    write_page(page, "compare.html.j2", SCRIPTS, outputs, title=title, facts=facts)


def _changed(one: pa.Table, other: pa.Table, same: pa.Array) -> np.ndarray:
    """Return the rows of the first table whose clip has another verdict in the second."""
    theirs = other["status"].combine_chunks().take(same)
    differs = pc.fill_null(pc.not_equal(one["status"].combine_chunks(), theirs), False)
    return np.flatnonzero(differs.to_numpy(zero_copy_only=False))


def _address(output: Gathered, page: Path) -> str:
    """Return where an output's folder lies as seen from the page, as the start of addresses."""
    relative = os.path.relpath(output.out.resolve(), page.resolve().parent)
    return "" if relative == "." else f"{quote(Path(relative).as_posix())}/"
