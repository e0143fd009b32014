"""Clusters: what hangs together, whatever the order, named by the smallest clip_id, and stable when rows come."""

import cv2
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import curate, rows_of
from test_curation_duplicates import flipped, words

import run_pipeline
from cli.common import TABLES
from core.errors import UserError
from curation.dedup import clusters
from curation.dedup.clusters import Clusters, find_clusters, joined
from curation.output.table import read_table, write_table
from curation.recipe import load_recipe, resolve
from demo.drawing import write_video

SCHEMA = pa.schema([
    ("clip_id", pa.string()),
    ("kind", pa.string()),
    ("temporal_hash", pa.list_(pa.int64())),
    ("embedding", pa.list_(pa.float16(), 4)),
])


def clusters_of(rows, **how):
    """Return {clip_id: cluster} of rows (clip_id, hash or None, embedding or None, kind)."""
    filled = [
        dict(zip(("clip_id", "temporal_hash", "embedding", "kind"), [*row, None, None, None][:4], strict=True))
        for row in rows
    ]
    found = find_clusters(pa.Table.from_pylist(filled, schema=SCHEMA), Clusters(**how)).to_pylist()
    return dict(zip([row[0] for row in rows], found, strict=True))


def chain(seed, steps, bits=60):
    """Hashes of which each differs from the one before in so many picture bits."""
    found = [words(seed)]
    for k in range(steps):
        found.append(flipped(found[-1], range(k * bits % 448, k * bits % 448 + bits)))
    return found


def test_a_chain_of_likeness_is_one_cluster_named_by_the_smallest_id():
    a, b, c, _ = chain(1, 3)
    rows = [("m", a), ("d", b), ("x", c), ("b", words(2)), ("n", None)]
    assert clusters_of(rows) == {"m": "d", "d": "d", "x": "d", "b": "b", "n": None}


def test_equal_hashes_and_what_moves_otherwise_are_one():
    one = words(3)
    assert set(clusters_of([("b", one), ("a", one), ("c", flipped(one, range(512, 700)))]).values()) == {"a"}


def test_the_bound_holds_to_the_bit():
    one = words(4)
    assert clusters_of([("a", one), ("b", flipped(one, range(40)))], picture_bits=40)["b"] == "a"
    assert clusters_of([("a", one), ("b", flipped(one, range(41)))], picture_bits=40)["b"] == "b"


def test_a_transition_joins_nothing_and_has_no_cluster():
    a, b, c, _ = chain(5, 3)
    found = clusters_of([("a", a), ("b", b, None, "transition"), ("c", c)])
    assert found == {"a": "a", "b": None, "c": "c"}


def test_embeddings_by_angle():
    rows = [("c", None, [1, 0, 0, 0]), ("b", None, [0.95, 0.3, 0, 0]), ("a", None, [0, 0, 1, 0]), ("d", None, None)]
    assert clusters_of(rows, by="embedding") == {"c": "b", "b": "b", "a": "a", "d": None}
    assert clusters_of(rows, by="embedding", cosine=0.99) == {"c": "c", "b": "b", "a": "a", "d": None}


def test_an_empty_table_and_one_without_hashes():
    assert clusters_of([]) == {}
    assert clusters_of([("a", None)]) == {"a": None}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6)), min_size=1, max_size=12, unique=True), st.randoms())
def test_the_order_does_not_matter_and_a_new_row_only_joins(places, random):
    rows = [(f"{seed}{step}", chain(seed, step)[step]) for seed, step in places]
    found = clusters_of(rows)
    shuffled = list(rows)
    random.shuffle(shuffled)
    assert clusters_of(shuffled) == found
    before = clusters_of(rows[:-1])
    for one in before:
        for other in before:
            if before[one] == before[other]:
                assert found[one] == found[other]
    assert all(found[name] <= name and found[found[name]] == found[name] for name in found)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 20), st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=25))
def test_joining_is_what_a_walk_over_the_pairs_finds(count, pairs):
    pairs = [(a % count, b % count) for a, b in pairs]
    near = {i: {i} for i in range(count)}
    for _ in range(count):
        for a, b in pairs:
            near[a] = near[b] = near[a] | near[b]
        for members in list(near.values()):
            for member in members:
                near[member] = near[member] | members
    one, other = (np.array([pair[k] for pair in pairs], np.int64) for k in (0, 1))
    assert joined(np.arange(count), one, other).tolist() == [min(near[i]) for i in range(count)]


def test_among_very_many_a_crowd_is_still_one_and_the_others_stay_alone(monkeypatch):
    monkeypatch.setattr(clusters, "SMALL", 64)
    rng = np.random.default_rng(7)
    scene = words(8)
    crowd = [(f"c{k:04}", flipped(scene, rng.choice(512, 24, replace=False))) for k in range(300)]
    others = [(f"o{k:04}", words(1000 + k)) for k in range(300)]
    found = clusters_of(crowd + others)
    assert {found[name] for name, _ in crowd} == {"c0000"}
    assert all(found[name] == name for name, _ in others)


@pytest.mark.parametrize(("by", "word"), [("temporal_hash", "temporal_hash"), ("embedding", "embedding")])
def test_a_recipe_must_measure_what_clusters_go_by(by, word):
    with pytest.raises(UserError, match=f"add operators.{word}"):
        resolve({"operators": {"clusters": {"by": by}}}, TABLES)
    with pytest.raises(ValueError, match="163"):
        Clusters(picture_bits=200)


@pytest.mark.slow
def test_a_run_names_clusters_of_all_rows_and_other_rules_leave_them(tmp_path):
    (tmp_path / "in").mkdir()
    for name, seed, shift in (("a", 1, 0), ("b", 1, 6), ("c", 2, 0)):
        texture = np.random.default_rng(seed).integers(20, 230, (30, 60, 3), dtype=np.uint8)
        picture = cv2.resize(texture, (320, 160), interpolation=cv2.INTER_CUBIC)
        frames = [np.ascontiguousarray(picture[:96, shift + k // 12 :][:, :160]) for k in range(48)]
        write_video(tmp_path / "in" / f"{name}.mp4", frames)
    out = tmp_path / "out"
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("operators: {facts: , temporal_hash: , clusters: {picture_bits: 128}}\nshots: {min_s: 1.0}\n")
    curate(tmp_path / "in" / "a.mp4", "--config", recipe, "cut.mode=none", out=out)
    curate(tmp_path / "in", "--config", recipe, "cut.mode=none", out=out)
    rows = {row["source_path"]: row for row in rows_of(out).values()}
    by_name = {path: row["cluster"] for path, row in rows.items()}
    assert by_name["a.mp4"] == by_name["b.mp4"] == min(rows["a.mp4"]["clip_id"], rows["b.mp4"]["clip_id"])
    assert by_name["c.mp4"] == rows["c.mp4"]["clip_id"]
    # A run that was killed before the whole table was looked at leaves it without a stamp.
    writers = load_recipe(out / "recipe.yaml", [], TABLES)[0].writers
    table = read_table(out, writers)
    place = table.schema.get_field_index("cluster")
    write_table(out, table.set_column(place, "cluster", pa.nulls(len(table), pa.string())), "")
    curate(tmp_path / "in", "--config", recipe, "cut.mode=none", out=out)
    assert {row["source_path"]: row["cluster"] for row in rows_of(out).values()} == by_name
    assert run_pipeline.main(["select", str(out), "rules.short_side_px.min=500"]) == 0
    after = rows_of(out).values()
    assert {row["source_path"]: row["cluster"] for row in after} == by_name
    assert {row["status"] for row in after} == {"rejected"}
