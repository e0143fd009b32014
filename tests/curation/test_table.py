"""Parts and the table: sources enter whole, once, and in any order; a crash at any instant loses nothing."""

import contextlib
import itertools
import math
import os
import random
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import files
from curation.inputs.sources import find_sources
from curation.judge import TRANSITION
from curation.output import folding
from curation.output.folding import Unfinished, drop_parts, fold
from curation.output.table import (
    clips_folder,
    in_order,
    parts_folder,
    read_table,
    rules_text,
    write_part,
    write_table,
    written_rules,
)
from curation.recipe import Rule
from curation.schema import FINISH_COLUMNS, PART_COLUMNS, blank_row, part_schema
from curation.shots.border import Border

WRITERS = ("motion",)
TEXT = rules_text({"duration_s": Rule(min=3.0)})
OTHER = rules_text({"duration_s": Rule(min=4.0)})


CONTINUES = Border(is_cut=False).to_column()


def row(clip: str, source: str = "a.mp4", **values):
    base = {
        "clip_id": clip,
        "type": "video",
        "source_path": source,
        "source_root": "/in",
        "source_size_bytes": 10,
        "source_mtime_ns": 20,
        "kind": "clip",
        "status": "accepted",
        "reasons": [],
    }
    return blank_row(part_schema(WRITERS)) | base | values


def segment(
    index: int, count: int, clips, source: str = "a.mp4", frames: int = 0, end_s: float = 0.0, border=0, **more
):
    """Rows of one segment; `clips` are (start_s, end_s, shot, start_frame, shot_start_s, shot_end_s)."""
    rows = [
        row(
            f"{source}:{index}:{start_s}",
            source,
            start_s=start_s,
            end_s=end,
            shot_index=shot,
            start_frame=frame,
            shot_start_s=shot_start,
            shot_end_s=shot_end,
            _segment=index,
            _segments=count,
            **more,
        )
        for start_s, end, shot, frame, shot_start, shot_end in clips
    ]
    rows[-1] |= {"_segment_rows": len(rows), "_segment_frames": frames, "_segment_end_s": end_s, "_border": border}
    return rows


def two_segments(source: str = "a.mp4", **more):
    """10 s at 10 fps, border at 6 s; shots 0-2, 2-4 and 4-10, the last one across the border."""
    first = [(0.0, 2.0, 0, 0, 0.0, 2.0), (2.0, 4.0, 1, 20, 2.0, 4.0), (4.0, 6.0, 2, 40, 4.0, 6.0)]
    second = [(6.0, 8.0, 0, 0, 6.0, None), (8.0, 10.0, 0, 20, 6.0, 10.0)]
    return [
        segment(0, 2, first, source, 60, 6.0, border=CONTINUES, **more),
        segment(1, 2, second, source, 40, 10.0, **more),
    ]


def table(out):
    return read_table(out, WRITERS).to_pylist()


def put(out, *groups, rules: str = TEXT):
    for rows in groups:
        write_part(out, WRITERS, rows, rules)


def parts(out):
    return sorted((out / "_parts").glob("*.parquet"))


# -- what folding does


def test_no_parts_no_table(tmp_path):
    assert fold(tmp_path, WRITERS) == Unfinished({})
    assert table(tmp_path) == []
    assert written_rules(tmp_path) is None


def test_a_source_enters_only_when_every_row_of_every_segment_is_there(tmp_path):
    first, second = two_segments()
    key = ("a.mp4", 10, 20)
    put(tmp_path, second[:1])
    assert fold(tmp_path, WRITERS) == Unfinished({})
    assert table(tmp_path) == []
    put(tmp_path, first[:2], first[2:])
    assert fold(tmp_path, WRITERS) == Unfinished({key: [0]})
    assert table(tmp_path) == []
    assert fold(tmp_path, WRITERS) == Unfinished({key: [0]}), "what is finished stays so"
    put(tmp_path, second[1:])
    assert fold(tmp_path, WRITERS) == Unfinished({key: [0]}), "the last row alone is not its segment"
    put(tmp_path, second)
    assert fold(tmp_path, WRITERS) == Unfinished({})
    assert len(table(tmp_path)) == 5
    assert parts(tmp_path) == []


def test_a_segment_whose_last_row_is_not_there_yet_is_not_finished(tmp_path):
    first, second = two_segments()
    put(tmp_path, first, second[:1])
    assert fold(tmp_path, WRITERS) == Unfinished({("a.mp4", 10, 20): [0]})


def test_frames_shots_and_ends_go_on_across_the_border(tmp_path):
    put(tmp_path, *two_segments())
    fold(tmp_path, WRITERS)
    rows = table(tmp_path)
    assert [r["start_frame"] for r in rows] == [0, 20, 40, 60, 80]
    assert [r["shot_index"] for r in rows] == [0, 1, 2, 2, 2]
    assert [(r["shot_start_s"], r["shot_end_s"]) for r in rows] == [(0, 2), (2, 4), (4, 10), (4, 10), (4, 10)]
    assert {(r["source_clips"], r["source_num_frames"], r["source_duration_s"]) for r in rows} == {(5, 100, 10.0)}
    assert not set(PART_COLUMNS) & set(rows[0])


def test_rows_before_a_dead_decoder_keep_their_frame_numbers_to_themselves(tmp_path):
    first, second = two_segments()
    first[-1] |= {"_segment_frames": 0, "_segment_end_s": None}
    put(tmp_path, first, second)
    fold(tmp_path, WRITERS)
    starts = [r["start_frame"] for r in table(tmp_path)]
    assert starts == sorted(set(starts))


def test_a_cut_on_the_border_begins_a_new_shot(tmp_path):
    first, second = two_segments()
    first[-1]["_border"] = 0
    put(tmp_path, first, second)
    fold(tmp_path, WRITERS)
    rows = table(tmp_path)
    assert [r["shot_index"] for r in rows] == [0, 1, 2, 3, 3]
    assert [(r["shot_start_s"], r["shot_end_s"]) for r in rows][2:] == [(4, 6), (6, 10), (6, 10)]


def test_what_ends_a_shot_is_told_to_all_of_its_clips_and_transitions_keep_their_own(tmp_path):
    first, second = two_segments()
    for one, kind in zip([*first, *second], ["hard", "dissolve", None, None, "jump"], strict=True):
        one |= {"transition_kind": kind, "transition_score": None if kind is None else 0.75}
    first[1]["kind"] = "transition"
    put(tmp_path, first, second)
    fold(tmp_path, WRITERS)
    rows = table(tmp_path)
    assert [r["transition_kind"] for r in rows] == ["hard", "dissolve", "jump", "jump", "jump"]
    assert {r["transition_score"] for r in rows} == {0.75}


def test_a_shot_over_three_segments_is_one_shot(tmp_path):
    groups = [
        segment(0, 3, [(0.0, 5.0, 0, 0, 0.0, 5.0)], frames=50, end_s=5.0, border=CONTINUES),
        segment(1, 3, [(5.0, 10.0, 0, 0, 5.0, 10.0)], frames=50, end_s=10.0, border=CONTINUES),
        segment(2, 3, [(10.0, 15.0, 0, 0, 10.0, 15.0)], frames=50, end_s=15.0),
    ]
    put(tmp_path, *groups)
    fold(tmp_path, WRITERS)
    seen = [(r["shot_index"], r["shot_start_s"], r["shot_end_s"], r["start_frame"]) for r in table(tmp_path)]
    assert seen == [(0, 0.0, 15.0, 0), (0, 0.0, 15.0, 50), (0, 0.0, 15.0, 100)]


def test_clips_inside_a_transition_that_reaches_over_the_border_are_no_clips(tmp_path):
    """The next segment is decoded apart: it cannot know that the shot before has not ended yet."""
    finish = dict.fromkeys(FINISH_COLUMNS) | {"caption": "a dog", "caption_status": "ok", "clip_path": "videos/x.mp4"}
    clips = [(6.0, 8.0, 0, 0, 6.0, 10.0), (8.0, 10.0, 0, 20, 6.0, 10.0), (10.0, 14.0, 0, 40, 10.0, 14.0)]
    for reach, hit in ((0, 0), (1, 1), (20, 1), (21, 2), (40, 2)):
        out = tmp_path / str(reach)
        first, second = two_segments()[0], segment(1, 2, clips, frames=80, end_s=14.0, **finish)
        first[-1]["_border"] = reach
        put(out, second, first)
        fold(out, WRITERS)
        rows = table(out)
        assert [r["kind"] for r in rows] == ["clip"] * 3 + ["transition"] * hit + ["clip"] * (3 - hit), reach
        for row in rows[3 : 3 + hit]:
            assert (row["status"], row["reasons"]) == ("rejected", [TRANSITION])
            assert {row[c] for c in FINISH_COLUMNS if c in row} == {None}
        for row in rows[3 + hit :]:
            assert (row["status"], row["reasons"]) == ("accepted", [])
            assert {c: row[c] for c in finish if c in row} == {c: v for c, v in finish.items() if c in row}
        assert [r["shot_index"] for r in rows] == [0, 1, 2, 3, 3, 3], "a transition ends its shot"
        assert [r["start_frame"] for r in rows] == [0, 20, 40, 60, 80, 100]


def test_a_shot_whose_transition_reaches_over_the_border_is_one_shot(tmp_path):
    clips = [(6.0, 8.0, 0, 0, 6.0, 10.0), (8.0, 10.0, 0, 20, 6.0, 10.0), (10.0, 14.0, 0, 40, 10.0, 14.0)]
    first, second = two_segments()[0], segment(1, 2, clips, frames=80, end_s=14.0)
    last = first[-1]["shot_index"]
    first[-1]["_border"] = Border(is_cut=False, transition_frames=5).to_column()
    put(tmp_path, second, first)
    fold(tmp_path, WRITERS)
    rows = table(tmp_path)
    assert [r["kind"] for r in rows] == ["clip"] * 3 + ["transition"] + ["clip"] * 2
    assert [r["shot_index"] for r in rows][2:] == [last] * 4


def test_a_transition_over_the_border_leaves_failed_rows_and_later_segments_alone(tmp_path):
    first = segment(0, 3, [(0.0, 4.0, 0, 0, 0.0, 4.0)], frames=40, end_s=4.0, border=5)
    failed = segment(1, 3, [(4.0, 8.0, 0, 0, 4.0, 8.0)], frames=40, end_s=8.0, status="failed", error="cut: x")
    last = segment(2, 3, [(8.0, 12.0, 0, 0, 8.0, 12.0)], frames=40, end_s=12.0)
    put(tmp_path, first, failed, last)
    fold(tmp_path, WRITERS)
    seen = [(r["kind"], r["status"], r["error"]) for r in table(tmp_path)]
    assert seen == [("clip", "accepted", None), ("clip", "failed", "cut: x"), ("clip", "accepted", None)]


def test_a_lost_stretch_keeps_its_place_and_counts_as_a_row(tmp_path):
    good = segment(0, 2, [(0.0, 4.0, 0, 0, 0.0, 4.0)], frames=40, end_s=4.0)
    bad = row("lost", start_s=4.0, status="failed", error="analyse: x", _segment=0, _segments=2, _segment_rows=2)
    good[0]["_segment_rows"] = None
    rest = segment(1, 2, [(6.0, 9.0, 0, 0, 6.0, 9.0)], frames=30, end_s=9.0)
    put(tmp_path, [bad], rest, good)
    fold(tmp_path, WRITERS)
    rows = table(tmp_path)
    assert [r["status"] for r in rows] == ["accepted", "failed", "accepted"]
    assert [r["shot_index"] for r in rows] == [0, None, 1]
    assert {r["source_clips"] for r in rows} == {3}


def test_images_and_lost_sources_are_sources_of_one_row(tmp_path):
    alone = {"_segment": 0, "_segments": 1, "_segment_rows": 1, "_segment_frames": 1}
    image = row("i", "i.jpg", type="image", kind=None, **alone)
    lost = row("x", "x.mp4", status="failed", **alone | {"_segment_frames": 0})
    put(tmp_path, [image, lost])
    fold(tmp_path, WRITERS)
    assert [(r["clip_id"], r["source_num_frames"], r["source_duration_s"]) for r in table(tmp_path)] == [
        ("i", 1, None),
        ("x", 0, None),
    ]


def test_a_source_that_cannot_be_read_any_more_is_told_of_though_a_part_of_it_was_done(tmp_path):
    """Killed in the middle of a film, which is then out of reach: it must not stay without a row for ever."""
    put(tmp_path, two_segments()[0])
    fold(tmp_path, WRITERS)
    assert len(parts(tmp_path)) == 1
    alone = {"_segment": 0, "_segments": 1, "_segment_rows": 1, "_segment_frames": 0}
    put(tmp_path, [row("gone", status="failed", error="probe: the file is gone", **alone)])
    assert fold(tmp_path, WRITERS).segments == {}
    assert [(r["clip_id"], r["status"]) for r in table(tmp_path)] == [("gone", "failed")]
    assert not parts(tmp_path)


def test_the_order_and_the_number_of_parts_are_irrelevant(tmp_path):
    rows = [r for s in ("a.mp4", "b.mp4") for group in two_segments(s) for r in group]
    put(tmp_path / "plain", rows)
    fold(tmp_path / "plain", WRITERS)
    for seed in range(10):
        rng = random.Random(seed)
        mixed = rng.sample(rows, len(rows)) + rng.sample(rows, 3)  # and some of them twice
        out = tmp_path / str(seed)
        while mixed:
            size = rng.randint(1, 4)
            put(out, mixed[:size])
            mixed = mixed[size:]
            if rng.random() < 0.2:
                fold(out, WRITERS)
                put(out, rows)  # the rest is done again after a stop
        fold(out, WRITERS)
        assert table(out) == table(tmp_path / "plain"), seed


def test_updates_replace_rows_and_bring_no_new_ones(tmp_path):
    put(tmp_path, *two_segments(), *two_segments("b.mp4"))
    fold(tmp_path, WRITERS)
    before = table(tmp_path)
    captioned = before[1] | {"caption": "a dog"} | dict.fromkeys(PART_COLUMNS)
    put(tmp_path, [captioned, row("unheard of")], [captioned | {"caption": "two dogs"}])
    assert fold(tmp_path, WRITERS) == Unfinished({})
    assert table(tmp_path) == [before[0], before[1] | {"caption": "two dogs"}, *before[2:]]


def test_a_source_done_again_replaces_all_its_rows(tmp_path):
    put(tmp_path, *two_segments(), *two_segments("b.mp4"))
    fold(tmp_path, WRITERS)
    changed = segment(0, 1, [(0.0, 3.0, 0, 0, 0.0, 3.0)], frames=30, end_s=3.0, source_mtime_ns=21)
    old_row = table(tmp_path)[1] | {"caption": "stale"} | dict.fromkeys(PART_COLUMNS)
    put(tmp_path, changed, [old_row])
    fold(tmp_path, WRITERS)
    rows = table(tmp_path)
    assert [(r["source_path"], r["source_mtime_ns"]) for r in rows] == [("a.mp4", 21), *[("b.mp4", 20)] * 5]


def test_a_changed_source_that_is_unfinished_leaves_the_old_rows(tmp_path):
    put(tmp_path, *two_segments())
    fold(tmp_path, WRITERS)
    before = table(tmp_path)
    put(tmp_path, two_segments(source_mtime_ns=21)[0])
    assert fold(tmp_path, WRITERS) == Unfinished({("a.mp4", 10, 21): [0]})
    assert table(tmp_path) == before


def test_the_table_remembers_its_rules_and_reads_some_columns(tmp_path):
    put(tmp_path, *two_segments())
    fold(tmp_path, WRITERS)
    assert written_rules(tmp_path) == TEXT
    assert read_table(tmp_path, WRITERS, ["status", "clip_id"]).column_names == ["status", "clip_id"]


def test_parts_by_several_rules_give_a_table_without_rules(tmp_path):
    """Whoever opens it judges it again."""
    put(tmp_path, *two_segments())
    put(tmp_path, *two_segments("b.mp4"), rules=OTHER)
    fold(tmp_path, WRITERS)
    assert len(table(tmp_path)) == 10
    assert written_rules(tmp_path) == ""


def test_parts_by_other_rules_than_the_table_leave_it_without_rules(tmp_path):
    put(tmp_path, *two_segments())
    fold(tmp_path, WRITERS)
    put(tmp_path, *two_segments("b.mp4"))
    fold(tmp_path, WRITERS)
    assert written_rules(tmp_path) == TEXT
    put(tmp_path, two_segments("c.mp4")[0], rules=OTHER)
    fold(tmp_path, WRITERS)
    assert written_rules(tmp_path) == TEXT, "nothing by other rules is in it yet"
    put(tmp_path, two_segments("c.mp4")[1], rules=OTHER)
    fold(tmp_path, WRITERS)
    assert len(table(tmp_path)) == 15
    assert written_rules(tmp_path) == ""


def test_an_update_by_other_rules_leaves_the_table_without_rules(tmp_path):
    put(tmp_path, *two_segments())
    fold(tmp_path, WRITERS)
    put(tmp_path, [table(tmp_path)[1] | dict.fromkeys(PART_COLUMNS)], rules=OTHER)
    fold(tmp_path, WRITERS)
    assert written_rules(tmp_path) == ""


def test_what_stays_in_the_parts_keeps_its_rules(tmp_path):
    put(tmp_path / "one", two_segments()[0], rules=OTHER)
    put(tmp_path / "mixed", two_segments()[0], rules=OTHER)
    put(tmp_path / "mixed", two_segments("b.mp4")[0], rules=TEXT)
    for name, rules in (("one", OTHER), ("mixed", "")):
        out = tmp_path / name
        fold(out, WRITERS)
        assert len(parts(out)) == 1
        put(out, two_segments()[1], rules=OTHER)
        fold(out, WRITERS)
        assert len(table(out)) == 5
        assert written_rules(out) == rules


def test_an_empty_table_is_a_table(tmp_path):
    write_table(tmp_path, read_table(tmp_path, WRITERS), TEXT)
    assert table(tmp_path) == []
    assert len(list((tmp_path / "clips").glob("part-*.parquet"))) == 1


def test_many_rows_take_several_files(tmp_path, monkeypatch):
    monkeypatch.setattr("curation.output.table.ROWS_PER_FILE", 3)
    put(tmp_path, *two_segments(), *two_segments("b.mp4"))
    fold(tmp_path, WRITERS)
    assert [pq.read_metadata(f).num_rows for f in sorted((tmp_path / "clips").iterdir())] == [3, 3, 3, 1]
    assert len(table(tmp_path)) == 10


# -- parts that nobody wants


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.none() | st.sampled_from([0.0, 1.0, math.inf]), st.integers(0, 9))),
    st.integers(1, 3),
    st.booleans(),
)
def test_rows_are_put_in_order_by_source_time_and_clip(rows, chunks, is_sorted):
    """Return whether they are in order already is seen without sorting; either way the result is that of sorting."""
    in_time = sorted(set(rows), key=lambda r: (r[0], r[1] is None, r[1] or 0.0, r[2]))
    rows = in_time if is_sorted else sorted(set(rows), key=hash)
    schema = pa.schema([("source_path", pa.string()), ("start_s", pa.float64()), ("clip_id", pa.string())])
    made = [dict(zip(schema.names, (path, start_s, str(clip)), strict=True)) for path, start_s, clip in rows]
    parts = np.array_split(np.arange(len(made)), chunks)
    before = pa.concat_tables([pa.Table.from_pylist([made[i] for i in part], schema=schema) for part in parts])
    after = in_order(before)
    assert [(r["source_path"], r["start_s"], int(r["clip_id"])) for r in after.to_pylist()] == in_time
    assert (after is before) == (rows == in_time)


# -- columns as rows


@st.composite
def part_rows(draw):
    """Rows as workers write them: sources of several segments, some unfinished, some rows written twice or later."""
    rows = []
    for name in draw(st.lists(st.sampled_from("abcd"), unique=True)):
        for size in draw(st.lists(st.sampled_from([10, 11]), min_size=1, unique=True)):
            count = draw(st.integers(1, 3))
            for index in draw(st.sampled_from([range(count), range(count - 1)])):
                clips = draw(st.integers(1, 3))
                border = draw(st.sampled_from([0, CONTINUES, 3, CONTINUES - 15]))
                spans = [
                    (10.0 * index + i, 10.0 * index + i + 1, i, 10 * i, 10.0 * index + i, None) for i in range(clips)
                ]
                made = segment(index, count, spans, name, 10 * clips, 10.0 * index + clips, border)
                for number, one in enumerate(made):
                    one["clip_id"] = f"{name}:{size}:{index}:{number}"
                    one["source_size_bytes"] = size
                    one["caption"] = draw(st.sampled_from([None, "said"]))
                    one["status"] = draw(st.sampled_from(["accepted", "rejected", "failed"]))
                    one["reasons"] = ["motion:low"] if one["status"] == "rejected" else []
                    one["motion"] = draw(st.none() | st.floats(0, 9))
                rows += made[: draw(st.sampled_from([clips, clips, clips, clips - 1]))]
    again = [one | {"motion": 99.0} for one in rows if draw(st.integers(0, 5)) == 0]
    late = [one | dict.fromkeys(PART_COLUMNS) for one in rows if draw(st.integers(0, 5)) == 0]
    return [*draw(st.permutations(rows)), *again, *late]


def folded_by_row(rows):
    """What `fold` does, one row after another: rows of the table, and clips that stay in the parts."""
    newest = {one["clip_id"]: one for one in rows}
    sources: dict = {}
    for one in newest.values():
        if one["_segments"] is not None:
            segments = sources.setdefault((one["source_path"], one["source_size_bytes"]), {})
            segments.setdefault(one["_segment"], []).append(one)
    entered, stay = [], set()
    for segments in sources.values():
        whole = {index: some for index, some in segments.items() if folding._is_whole(some)}
        if len(whole) == next(iter(segments.values()))[0]["_segments"]:
            in_time = [sorted(whole[index], key=folding._place) for index in sorted(whole)]
            entered += folding._finish_source(in_time)
        else:
            stay |= {one["clip_id"] for some in whole.values() for one in some}
    for one in entered:
        if one.pop("_is_fallen", False):
            one |= dict.fromkeys(one.keys() & {*FINISH_COLUMNS}) | {"kind": "transition", "reasons": [TRANSITION]}
    return {one["clip_id"]: {k: v for k, v in one.items() if k not in PART_COLUMNS} for one in entered}, stay


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(part_rows(), st.integers(1, 4), st.integers(1, 4))
def test_parts_are_folded_by_column_as_by_row(rows, count, at_once):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patched:
        out = Path(folder)
        patched.setattr(folding, "ROWS_AT_ONCE", at_once)
        for some in np.array_split(np.arange(len(rows)), count):
            put(out, [rows[i] for i in some])
        fold(out, WRITERS)
        entered, stay = folded_by_row(rows)
        assert {one["clip_id"]: one for one in table(out)} == entered
        assert {one for file in parts(out) for one in pq.read_table(file)["clip_id"].to_pylist()} == stay


def test_parts_of_sources_that_are_gone_or_changed_are_dropped(tmp_path):
    put(tmp_path, two_segments("a.mp4")[0] + two_segments("b.mp4")[0], two_segments("c.mp4", source_mtime_ns=21)[0])
    drop_parts(tmp_path, WRITERS, {("a.mp4", 10, 20), ("c.mp4", 10, 20)})
    assert fold(tmp_path, WRITERS) == Unfinished({("a.mp4", 10, 20): [0]})
    put(tmp_path, two_segments("a.mp4")[1])
    assert fold(tmp_path, WRITERS) == Unfinished({})
    assert {r["source_path"] for r in table(tmp_path)} == {"a.mp4"}
    assert written_rules(tmp_path) == TEXT


def test_dropping_leaves_parts_that_are_wanted_as_they_are(tmp_path):
    drop_parts(tmp_path, WRITERS, set())
    put(tmp_path, *two_segments("a.mp4"))
    before = [(file, file.stat().st_ino) for file in parts(tmp_path)]
    drop_parts(tmp_path, WRITERS, {("a.mp4", 10, 20), ("b.mp4", 10, 20)})
    assert [(file, file.stat().st_ino) for file in parts(tmp_path)] == before
    drop_parts(tmp_path, WRITERS, set())
    assert parts(tmp_path) == []
    assert fold(tmp_path, WRITERS) == Unfinished({})
    assert table(tmp_path) == []


def test_dropping_parts_by_several_rules_leaves_the_rest_without_rules(tmp_path):
    put(tmp_path, *two_segments("a.mp4"))
    put(tmp_path, *two_segments("b.mp4"), two_segments("c.mp4")[0], rules=OTHER)
    drop_parts(tmp_path, WRITERS, {("a.mp4", 10, 20), ("b.mp4", 10, 20)})
    fold(tmp_path, WRITERS)
    assert len(table(tmp_path)) == 10
    assert written_rules(tmp_path) == ""


# -- crashes


class Killed(BaseException):
    """The process ends here."""


class Guillotine:
    """Lets `alive` changes of the file system happen and refuses all further ones, as a killed process would."""

    def __init__(self, monkeypatch, alive: int, exchange: bool):
        self.left, self.struck = alive, False
        for name in ("replace", "rename", "unlink", "rmdir", "mkdir"):
            monkeypatch.setattr(os, name, self.guard(getattr(os, name)))
        swap = self.guard(files._exchange) if exchange else lambda a, b: False
        monkeypatch.setattr(files, "_exchange", swap)

    def guard(self, real):
        def call(*args, **kwargs):
            if self.left <= 0:
                self.struck = True
                raise Killed
            self.left -= 1
            return real(*args, **kwargs)

        return call


def prepare(out):
    """A table with a.mp4 and b.mp4; parts with c whole, a redone, b updated, d unfinished."""
    put(out, *two_segments("a.mp4"), *two_segments("b.mp4"))
    fold(out, WRITERS)
    update = table(out)[-1] | {"caption": "seen"} | dict.fromkeys(PART_COLUMNS)
    c, a, d = two_segments("c.mp4"), two_segments("a.mp4", source_mtime_ns=21), two_segments("d.mp4")
    put(out, c[0], d[1], a[1], c[1] + a[0], [update], d[0][:1])


@pytest.mark.slow
@pytest.mark.parametrize("exchange", [True, False], ids=["one step", "two renames"])
def test_a_crash_at_any_instant_of_folding_changes_nothing(tmp_path, exchange):
    undisturbed = tmp_path / "undisturbed"
    prepare(undisturbed)
    left = fold(undisturbed, WRITERS)
    expected = table(undisturbed)
    assert left == Unfinished({("d.mp4", 10, 20): [1]})
    assert len({r["clip_id"] for r in expected}) == len(expected) == 15
    stale = []
    for alive in itertools.count():
        out = tmp_path / str(alive)
        prepare(out)
        before = table(out)
        with pytest.MonkeyPatch.context() as patch:
            blade = Guillotine(patch, alive, exchange)
            with contextlib.suppress(Killed):
                fold(out, WRITERS)
        if exchange:
            assert table(out) in (before, expected), f"{alive}: a reader sees the old table or the new one"
        for folder in (clips_folder(out), parts_folder(out)):
            files.recover_swap(folder)  # as whoever holds the output does first
        assert table(out) in (before, expected), alive
        assert parts(out), f"{alive}: the parts of d.mp4"
        again = fold(out, WRITERS)
        assert table(out) == expected, alive
        stale += [(alive, again)] if again != left else []
        put(out, *two_segments("d.mp4"))
        assert fold(out, WRITERS) == Unfinished({})
        assert len(table(out)) == 20
        if not blade.struck:
            break
    assert alive > 10
    assert not stale, "sources that the table has count as unfinished"


def test_a_half_written_part_of_a_killed_worker_is_passed_over(tmp_path):
    put(tmp_path, *two_segments())
    (whole, _) = parts(tmp_path)
    half = files.temporary_path(parts_folder(tmp_path) / "1-2.parquet")
    half.write_bytes(whole.read_bytes()[:100])
    drop_parts(tmp_path, WRITERS, {("a.mp4", 10, 20)})
    assert fold(tmp_path, WRITERS) == Unfinished({})
    assert len(table(tmp_path)) == 5


def test_a_path_that_is_not_unicode_does_not_lose_the_other_rows(tmp_path):
    """File names are bytes; Python hands the odd ones on as lone surrogates, which Arrow refuses."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / os.fsdecode(b"caf\xe9.mp4")).write_bytes(b"")
    (source,) = find_sources([str(tmp_path / "in")])
    put(tmp_path, *two_segments("b.mp4"), *two_segments(source.path))
    fold(tmp_path, WRITERS)
    assert len(table(tmp_path)) == 10


@given(st.booleans(), st.integers(0, 1000))
def test_a_border_survives_its_column(is_cut: bool, frames: int) -> None:
    border = Border(is_cut, frames)
    assert Border.from_column(border.to_column()) == border
    assert Border.from_column(None) == Border(is_cut=True, transition_frames=0)
