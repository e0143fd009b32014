"""Parquet files of ours, as written by this version or an earlier one."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def read_as(file: Path, schema: pa.Schema) -> pa.Table:
    """Read a file's columns in the order and types of a schema; those that the file does not have yet are null."""
    present = set(pq.read_schema(file).names)
    table = pq.read_table(file, columns=[name for name in schema.names if name in present])
    columns = [
        table[field.name].cast(field.type) if field.name in present else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)
