"""Sources and rows as columns: the same as objects, and made one after another."""

import tracemalloc
from pathlib import Path

import pyarrow as pa
import pytest

from benchmarks.simulated import SimulatedMedia, made_up_sources, recipe_for
from curation.analysis.media_calls import MediaCalls
from curation.inputs.many import PlannedSources, Sources, keys_of
from curation.judge import rules_of
from curation.output.folding import Unfinished
from curation.output.planning import plan_work
from curation.output.table import rules_text, write_table
from curation.schema import table_schema
from curation.types import Source

SOME = [Source("/in", "a.mp4", 10, 20), Source("s3://b/c", "d/e.mp4", 5, -1), Source("/in", "ö\n.mp4", 0, 2**62)]


def test_columns_hold_just_the_sources():
    sources = Sources.of(SOME)
    assert list(sources) == SOME and len(sources) == 3 and sources[1] == SOME[1] and sources[-1] == SOME[2]
    assert list(sources[1:]) == SOME[1:] and list(sources[::-1]) == SOME[::-1]
    assert Sources.of(sources) is sources and not Sources.of([]) and list(Sources.of(iter(SOME))) == SOME
    assert sources.size_bytes == 15 and sources.remote_bytes == 5 and Sources.of([]).size_bytes == 0
    with pytest.raises(IndexError):
        sources[3]


def test_many_sources_take_little_memory():
    tracemalloc.start()
    sources = made_up_sources(20_000)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(sources) == 20_000 and sources.table.nbytes < 100 * 20_000
    assert held < 1_000_000, "no object is held of each"


def test_planned_sources_know_what_an_earlier_run_began():
    key = ("a.mp4", 10, 20)
    planned = PlannedSources(Sources.of(SOME), {key: [0, 2], ("gone.mp4", 1, 1): [0]})
    assert list(planned) == [(SOME[0], [0, 2]), (SOME[1], ()), (SOME[2], ())]
    assert planned.started() == {key}
    assert len(set(keys_of(Sources.of(SOME).table).to_pylist())) == 3


@pytest.fixture
def curated(tmp_path: Path):
    """An output with a clip of each of six sources: whole, without caption, failed, and of an earlier state."""
    recipe, captioner = recipe_for(tmp_path)
    sources = made_up_sources(6)
    (tmp_path / "out" / "train").mkdir(parents=True)
    rows = []
    for number, source in enumerate(sources):
        row = {
            "clip_id": f"clip-{number}", "type": "video", "kind": "clip", "source_root": "/before", "reasons": [],
            "source_path": source.path, "source_size_bytes": source.size_bytes, "source_mtime_ns": source.mtime_ns,
            "status": "failed" if number == 2 else "accepted", "caption": None if number == 1 else "said",
            "clip_path": None if number == 2 else f"train/clip-{number}.mp4",
        }  # fmt: skip
        rows.append(row | ({"source_mtime_ns": 1} if number == 4 else {}))
        if number not in (2, 5):
            (tmp_path / "out" / "train" / f"clip-{number}.mp4").touch()
    schema = table_schema(recipe.writers)
    table = pa.Table.from_pylist([dict.fromkeys(schema.names) | row for row in rows], schema=schema)
    write_table(tmp_path / "out", table, rules_text(rules_of(recipe)))
    return tmp_path / "out", recipe, captioner, sources


def test_a_plan_names_what_is_new_or_changed_and_clips_that_lack_something(curated):
    out, recipe, captioner, sources = curated
    work = plan_work(out, recipe, captioner, sources, Unfinished({}), retry_failed=False)
    assert [source for source, _ in work.sources] == [sources[4]] and work.known == 5
    rows = list(work.clips)
    assert [row["clip_id"] for row in rows] == ["clip-1", "clip-5"] == work.clips.ids.to_pylist()
    assert [row["source_root"] for row in rows] == ["/footage"] * 2, "where they lie now"
    assert [row["clip_path"] for row in rows] == ["train/clip-1.mp4", None], "a file that is gone is made again"
    assert [row["clip_id"] for row in work.clips.without(work.clips.ids.slice(0, 1))] == ["clip-5"]
    again = plan_work(out, recipe, captioner, sources, Unfinished({}), retry_failed=True)
    assert [source for source, _ in again.sources] == [sources[2], sources[4]]


def test_clips_of_sources_that_are_gone_keep_their_root(curated):
    out, recipe, captioner, sources = curated
    work = plan_work(out, recipe, captioner, sources[:1], Unfinished({}), retry_failed=False)
    assert len(work.sources) == 0
    assert {row["clip_id"]: row["source_root"] for row in work.clips} == {"clip-1": "/before", "clip-5": "/before"}


def test_simulated_media_answers_to_all_that_steps_ask():
    asked = {name for name in vars(MediaCalls) if not name.startswith("_")}
    assert asked <= vars(SimulatedMedia).keys()
