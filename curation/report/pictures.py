"""Which clips have their pictures in the page itself, and these pictures.

Every picture lies in `previews/`; the page reads it from there when it lies beside the page. For a page that
was sent on alone, a sample of the clips travels inside it: those next to each threshold, the extremes of each
score, some of every reason, and the rest by chance, until a budget is spent.
"""

import base64
import os
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.analysis.previews import PREVIEW, preview_path
from curation.folders import PREVIEWS
from curation.report.gather import HIDDEN, Gathered

ID_LETTERS = 36
"""of a UUID, with which the name of a picture begins"""
EACH = 12
"""clips from every list: either side of a threshold, either end of a score, each reason"""
SEED = 0


def counts_of(output: Gathered) -> np.ndarray:
    """Count the pictures that lie in `previews/` for each row: int64 (N,)."""
    ids = output.table["clip_id"].combine_chunks().cast(pa.binary())
    counts = np.zeros(len(ids), np.int64)
    found = [pa.array([], pa.binary())]
    for folder in (output.out / PREVIEWS).glob("??"):
        names = pa.array(os.listdir(os.fsencode(folder)), pa.binary())
        found.append(pc.binary_slice(names.filter(pc.ends_with(names, b".jpg")), 0, ID_LETTERS))
    rows = pc.index_in(pa.chunked_array(found), ids) if len(found) > 1 else pa.chunked_array([[]], pa.int32())
    rows = rows.drop_null().to_numpy()
    return counts + np.bincount(rows, minlength=len(ids))


def embedded(
    output: Gathered, counts: np.ndarray, budget_bytes: int, first: Sequence[int] = ()
) -> dict[int, list[str]]:
    """Return the pictures of a sample of clips.

    Args:
        output: whose rows.
        counts: pictures there are of each row.
        budget_bytes: of base64 text, in all.
        first: rows that come before all others.

    Returns:
        By row: up to four JPEGs as base64, in the order of time.
    """
    ids = output.table["clip_id"]
    found: dict[int, list[str]] = {}
    if not counts.any():
        return found
    for row in chain(first, in_order_of_interest(output)):
        if not counts[row] or row in found:
            continue
        pictures = read_pictures(output.out, ids[row].as_py())
        budget_bytes -= sum(map(len, pictures))
        if budget_bytes < 0:
            break
        found[row] = pictures
    return found


def read_pictures(out: Path, clip_id: str) -> list[str]:
    """Read the previews of a clip as base64."""
    pictures = []
    for number in range(PREVIEW.count or 0):
        try:
            pictures.append(base64.b64encode(preview_path(out, clip_id, number).read_bytes()).decode("ascii"))
        except OSError:  # a short clip has fewer, an image one; or it was deleted this moment
            break
    return pictures


def in_order_of_interest(output: Gathered) -> Iterator[int]:
    """Yield every row once: the lists in turn, one of each, then the rest by chance with a fixed seed."""
    generator = np.random.default_rng(SEED)
    lists = [list(some) for some in _lists(output, generator)]
    seen = np.zeros(len(output.table), bool)
    for rank in range(max(map(len, lists), default=0)):
        for some in lists:
            if rank < len(some) and not seen[some[rank]]:
                seen[some[rank]] = True
                yield int(some[rank])
    rest = np.flatnonzero(~seen)
    generator.shuffle(rest)
    yield from map(int, rest)


def _lists(output: Gathered, generator: np.random.Generator) -> Iterator[np.ndarray]:
    table = output.table
    values = {c.name: _floats(table[c.name]) for c in output.numbers if c.name not in HIDDEN}
    for reasons in _rows_by_reason(table):
        yield generator.permutation(reasons)[:EACH]
    for name, rule in output.rules.items():
        for bound in (rule.min, rule.max):
            if bound is not None:
                over = values[name] - bound
                yield _smallest(np.where(over >= 0, over, np.nan))
                yield _smallest(np.where(over < 0, -over, np.nan))
    for column in values.values():
        yield _smallest(column)
        yield _smallest(-column)


def _rows_by_reason(table: pa.Table) -> list[np.ndarray]:
    """Return the rows of each status and first reason."""
    reasons = table["reasons"].combine_chunks()
    firsts = pa.array(reasons.offsets.to_numpy()[:-1], mask=pc.list_value_length(reasons).fill_null(0).to_numpy() == 0)
    words = pa.table({"status": table["status"], "first": reasons.values.take(firsts), "row": np.arange(len(table))})
    groups = words.group_by(["status", "first"]).aggregate([("row", "list")])
    return [rows.values.to_numpy() for rows in groups["row_list"]]


def _smallest(column: np.ndarray) -> np.ndarray:
    """Return the rows of the smallest values, in their order; NaN is none."""
    count = min(EACH, int(np.isfinite(column).sum()))
    some = np.argpartition(column, min(count, max(0, len(column) - 1)))[:count] if count else np.zeros(0, int)
    return some[np.argsort(column[some], kind="stable")]


def _floats(values: pa.ChunkedArray) -> np.ndarray:
    floats: np.ndarray = pc.cast(values, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return floats
