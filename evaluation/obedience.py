"""How well samples obey what they were steered by, as columns beside the scores of operators."""

from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa

from curation.schema import BOTH, Column
from curation.types import Source
from sampling.obeyed import COLUMNS, Measure, Obedience

WRITER = "control"


def measured(sources: Sequence[Source], obeys: Measure, tell: Callable[[str], None]) -> dict[str, Obedience]:
    """Measure the samples that were steered; by the paths that tables have of them.

    Args:
        sources: the samples.
        obeys: measures one, None where it was not steered.
        tell: is called with a line once there is one that was.
    """
    found: dict[str, Obedience] = {}
    for source in sources:
        one = obeys(source.file)
        if one is not None:
            if not found:
                tell("measuring how well samples obey what they were steered by …")
            found[source.path] = one
    return found


def obedience_columns(found: Mapping[str, Obedience]) -> list[Column]:
    """Return the columns that some sample has."""
    names = {name for one in found.values() for name in one.scores}
    return [
        Column(name, pa.float64(), unit, meaning, WRITER, BOTH)
        for name, (unit, meaning) in COLUMNS.items()
        if name in names
    ]


def with_obedience(table: pa.Table, found: Mapping[str, Obedience]) -> pa.Table:
    """Return the samples' table with these columns; a sample that was not steered, or cannot be measured, has none."""
    paths = table["source_path"].to_pylist()
    for column in obedience_columns(found):
        values = [found[path].scores.get(column.name) if path in found else None for path in paths]
        table = table.append_column(column.name, pa.array(values, pa.float64()))
    return table
