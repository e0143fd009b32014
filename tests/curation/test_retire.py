"""What changed rules stashed comes back: by column as by row, and through the file it is kept in."""

import numpy as np
import pyarrow as pa
from browser import an_id, default_recipe
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.output.stash import read_stashed, restored, stash_values, stashed_columns, sync_clip_files, write_stashed
from curation.schema import table_schema

COLUMNS = ("caption", "text_area", "clip_num_frames")
VALUES = {
    "caption": st.sampled_from(["", "a", "b"]),
    "text_area": st.floats(0, 1),
    "clip_num_frames": st.integers(1, 9),
}


@st.composite
def outputs(draw):
    """Rows, what is stashed of them, and which of them may not hold values: rows of the same clips."""
    ids = [an_id(i) for i in range(draw(st.integers(0, 6)))]

    def rows():
        return [{"clip_id": i, **{c: draw(st.none() | VALUES[c]) for c in COLUMNS}} for i in ids]

    return rows(), rows(), [draw(st.booleans()) for _ in ids], draw(st.integers(1, 3))


def retired(row, kept, is_gone, columns):
    """The rule, for one row: its values, and what is stashed of it."""
    row, kept = dict(row), dict(kept)
    for name in columns:
        if is_gone and row[name] is not None:
            kept[name] = row[name]
        if is_gone:
            row[name] = None
        elif row[name] is None:
            row[name] = kept[name]
    return row, kept


def table_of(rows, chunks=1):
    schema = pa.schema([table_schema(default_recipe().writers).field(name) for name in ("clip_id", *COLUMNS)])
    parts = np.array_split(np.arange(len(rows)), chunks)
    return pa.concat_tables([pa.Table.from_pylist([rows[i] for i in part], schema=schema) for part in parts])


def columns_of(rows):
    return {name: [row[name] for row in rows] for name in COLUMNS}


@settings(deadline=None)
@given(outputs(), st.sets(st.sampled_from(COLUMNS)))
def test_columns_are_retired_as_rows_are(output, names):
    rows, kept, gone, chunks = output
    stashed = {name: table_of(kept, chunks)[name] for name in COLUMNS if any(row[name] is not None for row in kept)}
    table, now = stash_values(table_of(rows, chunks), stashed, names, np.array(gone, bool))
    truth = [retired(row, own, is_gone, names) for row, own, is_gone in zip(rows, kept, gone, strict=True)]
    assert table.schema.equals(table_of([]).schema)
    assert table.select(COLUMNS).to_pydict() == columns_of([row for row, _ in truth])
    held = {name: now[name].to_pylist() if name in now else [None] * len(rows) for name in COLUMNS}
    assert held == columns_of([own for _, own in truth])
    whole = [{n: own[n] if row[n] is None else row[n] for n in COLUMNS} for row, own in truth]
    assert restored(table, now).select(COLUMNS).to_pydict() == columns_of(whole)


def test_what_is_set_aside_is_read_as_it_was_written(tmp_path):
    recipe = default_recipe()
    schema, columns = table_schema(recipe.writers), stashed_columns(recipe)
    assert {"text_area", "caption", "clip_path"} <= set(columns)
    rows = [dict.fromkeys(schema.names) | {"clip_id": an_id(i), "caption": "a", "text_area": None} for i in range(4)]
    table = pa.Table.from_pylist(rows, schema=schema)
    assert read_stashed(tmp_path, table, columns) == {}
    changed, stashed = stash_values(table, {}, columns, np.array([True, False, True, False]))
    assert changed["caption"].to_pylist() == [None, "a", None, "a"]
    write_stashed(tmp_path, changed, stashed, columns)
    again = read_stashed(tmp_path, changed, columns)
    assert {name: values.to_pylist() for name, values in again.items()} == {"caption": ["a", None, "a", None]}
    fewer = read_stashed(tmp_path, changed.slice(1), columns)
    assert fewer["caption"].to_pylist() == [None, "a", None], "clips that are gone are in nobody's way"
    back, _ = stash_values(changed, again, columns, np.zeros(4, bool))
    assert back.equals(table)


def test_files_lie_where_the_table_has_them(tmp_path):
    train, stashed = tmp_path / "train", tmp_path / "_retired"
    for folder, numbers in ((train, (0, 1, 2, 5)), (stashed, (2, 3, 4))):
        folder.mkdir()
        for number in numbers:
            (folder / f"{an_id(number)}.mp4").write_bytes(folder.name.encode())
    (train / "notes.txt").write_text("no clip")
    paths = [f"train/{an_id(number)}.mp4" for number in (0, 2, 3, 6)]
    sync_clip_files(tmp_path, pa.table({"clip_path": pa.array([*paths, None])}))
    names = {folder: sorted(path.stem for path in folder.glob("*.mp4")) for folder in (train, stashed)}
    assert names[train] == sorted(map(an_id, (0, 2, 3)))
    assert names[stashed] == sorted(map(an_id, (1, 2, 4, 5)))
    assert (train / f"{an_id(2)}.mp4").read_bytes() == b"train", "what is there is not written over"
    assert (train / "notes.txt").exists()
