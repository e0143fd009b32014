"""`json_of_internal_datasets.json`: the JSON array of EasyAnimate-style trainers."""

from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.compute as pc

from core.json_text import joined, json_lines
from curation.export.rows import Tally
from curation.schema import CONTROL, CONTROL_PATHS

NAME = "json_of_internal_datasets.json"


def write_internal(file: IO[bytes], batches: Iterator[pa.RecordBatch], tally: Tally, prefix: Path | None) -> None:
    """Write the JSON array of EasyAnimate-style trainers, one clip on each line.

    Where the table has control maps, `control_file_path` names the first of them in the order of `schema.CONTROLS`: the
    trainers' readers take one path. Of several, `control_file_paths` names each, by control. A clip has null for a map
    that was not made, as an image has for one of motion; EasyAnimate's reader passes over such a row.
    """
    file.write(b"[")
    for batch in batches:
        if prefix is not None:
            for place, name in enumerate(batch.schema.names):
                if name == "file_path" or name in CONTROL_PATHS:
                    paths = pc.binary_join_element_wise(prefix.as_posix(), batch[name], "/")
                    batch = batch.set_column(place, name, paths)
        batch = _with_controls(batch)
        if len(batch):
            file.write(b",\n" if tally.rows else b"\n")
            file.write(joined(json_lines(batch), ",\n"))
        tally.rows += len(batch)
    file.write(b"\n]\n")


def _with_controls(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return a batch with the columns of its control maps under the trainers' keys."""
    columns = [name for name in batch.schema.names if name in CONTROL_PATHS]
    if not columns:
        return batch
    paths = {name.removeprefix(CONTROL).removesuffix("_path"): batch[name] for name in columns}
    batch = batch.drop_columns(columns).append_column("control_file_path", batch[columns[0]])
    if len(columns) == 1:
        return batch
    return batch.append_column("control_file_paths", pa.StructArray.from_arrays(list(paths.values()), list(paths)))
