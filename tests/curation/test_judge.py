"""Rules over scores: every bound, what is missing, and the same verdict by row and by table."""

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.judge import judge, judge_table, rejected_rows, rules_of, still_undecided, undecided_rows, verdict
from curation.recipe import Recipe, Rule, ShotSettings
from curation.schema import BY_NAME, blank_row, table_schema

WRITERS = ("motion", "sharpness", "brightness", "frozen", "text_area", "facts")
COLUMNS = ("motion", "sharpness", "brightness", "frozen", "text_area", "duration_s", "short_side_px", "num_frames")
WHOLE = {"short_side_px", "num_frames"}


def row_of(**values):
    return blank_row(table_schema(WRITERS)) | {"type": "video", "status": "accepted", "kind": "clip"} | values


@pytest.mark.parametrize(
    ("value", "rule", "reasons"),
    [
        (0.4, Rule(min=0.5), ["motion:low"]),
        (0.5, Rule(min=0.5), []),
        (0.4999999, Rule(min=0.5), []),
        (0.4999, Rule(min=0.5), ["motion:low"]),
        (60.1, Rule(max=60), ["motion:high"]),
        (60.00005, Rule(max=60), []),
        (60.0001, Rule(max=60), ["motion:high"]),
        (1.0, Rule(1.0, 1.0), []),
        (0.0, Rule(max=0.0), []),
        (0.01, Rule(max=0.0), ["motion:high"]),
        (-1.0, Rule(-2.0, -1.0), []),
        (-2.1, Rule(-2.0, -1.0), ["motion:low"]),
        (float("inf"), Rule(max=60), ["motion:high"]),
        (None, Rule(min=0.5), ["motion:missing"]),
    ],
)
def test_one_rule(value, rule, reasons):
    assert verdict(row_of(motion=value), {"motion": rule}) == reasons
    judged = judge(row_of(motion=value), {"motion": rule})
    assert (judged["status"], judged["reasons"]) == ("rejected" if reasons else "accepted", reasons)


def test_reasons_come_in_the_order_of_the_rules_and_missing_ones_last():
    rules = {"sharpness": Rule(min=1), "motion": Rule(max=2), "frozen": Rule(max=0.5), "duration_s": Rule(min=3)}
    row = row_of(sharpness=None, motion=9.0, frozen=None, duration_s=1.0)
    assert verdict(row, rules) == ["motion:high", "duration_s:low", "sharpness:missing", "frozen:missing"]


def test_an_image_is_not_asked_for_what_only_videos_have():
    image = row_of(type="image", kind=None, brightness=0.01)
    rules = {"motion": Rule(min=0.5), "duration_s": Rule(min=3), "brightness": Rule(min=0.1), "sharpness": Rule(min=1)}
    assert verdict(image, rules) == ["brightness:low", "sharpness:missing"]


def test_a_score_that_is_not_a_number_does_not_pass():
    """Doubt fails closed: NaN compares false with every bound."""
    rules = {"motion": Rule(0.5, 60)}
    row = row_of(motion=float("nan"))
    assert judge(row, rules)["status"] == "rejected"
    assert (
        judge_table(pa.Table.from_pylist([row], schema=table_schema(WRITERS)), rules)["status"][0].as_py() == "rejected"
    )


def test_a_failed_row_stays_as_it_is():
    row = row_of(status="failed", motion=0.0, error="cut: no", reasons=[])
    assert judge(row, {"motion": Rule(min=1)}) == row


def test_a_transition_is_rejected_whatever_its_scores():
    assert judge(row_of(kind="transition", motion=3.0), {"motion": Rule(min=1)})["reasons"] == ["shot:transition"]


def test_a_caption_is_judged_only_where_no_rule_rejects():
    rules = {"motion": Rule(min=1)}
    assert judge(row_of(motion=3.0, caption_status="refused"), rules)["reasons"] == ["caption:refused"]
    assert judge(row_of(motion=0.0, caption_status="refused"), rules)["reasons"] == ["motion:low"]
    assert judge(row_of(motion=3.0, caption_status="ok"), rules)["status"] == "accepted"
    assert judge(row_of(motion=3.0, caption_status=None), rules)["status"] == "accepted"


def test_a_former_verdict_leaves_no_trace():
    row = row_of(motion=3.0, status="rejected", reasons=["motion:low"])
    assert judge(row, {"motion": Rule(min=1)}) == row | {"status": "accepted", "reasons": []}


def test_the_minimum_clip_length_is_a_rule_that_the_recipe_may_set():
    assert rules_of(Recipe(shots=ShotSettings(min_s=2.5))) == {"duration_s": Rule(min=2.5)}
    own = {"motion": Rule(min=1), "duration_s": Rule(4, 9)}
    assert list(rules_of(Recipe(rules=own)).items()) == [("duration_s", Rule(4, 9)), ("motion", Rule(min=1))]


def test_a_row_stands_while_only_what_is_pending_is_missing():
    rules = {"motion": Rule(min=1), "sharpness": Rule(min=1)}
    row = row_of(sharpness=5.0)
    assert still_undecided(row, rules, frozenset({"motion"}))
    assert not still_undecided(row, rules, frozenset())
    assert not still_undecided(row | {"sharpness": 0.0}, rules, frozenset({"motion"}))
    assert not still_undecided(row | {"kind": "transition"}, rules, frozenset({"motion"}))
    assert not still_undecided(row | {"status": "failed"}, rules, frozenset({"motion"}))


# -- the table as the row

values = st.one_of(st.none(), st.sampled_from([0.0, 0.5, 1.0, 1.0 - 5e-7, 1.0 + 2e-6]), st.floats(-10, 10, width=32))


@st.composite
def tables(draw):
    rows = []
    for _ in range(draw(st.integers(0, 8))):
        row = row_of(
            type=draw(st.sampled_from(["video", "image"])),
            kind=draw(st.sampled_from(["clip", "transition", None])),
            status=draw(st.sampled_from(["accepted", "rejected", "failed"])),
            reasons=[],
            caption_status=draw(st.sampled_from([None, "ok", "refused", "short"])),
        )
        for column in COLUMNS:
            value = draw(values)
            row[column] = round(value) if column in WHOLE and value is not None else value
        if row["status"] == "rejected":
            row["reasons"] = ["motion:low"]
        rows.append(row)
    return rows


@st.composite
def rule_sets(draw):
    rules = {}
    for column in draw(st.permutations(COLUMNS))[: draw(st.integers(0, len(COLUMNS)))]:
        low, high = sorted(draw(st.tuples(*[st.floats(-10, 10, width=32) | st.sampled_from([0.5, 1.0])] * 2)))
        rules[column] = draw(st.sampled_from([Rule(low, high), Rule(min=low), Rule(max=high), Rule(min=high)]))
    return rules


@settings(deadline=None)
@given(tables(), rule_sets())
def test_the_table_is_judged_as_its_rows_are(rows, rules):
    schema = table_schema(WRITERS)
    judged = judge_table(pa.Table.from_pylist(rows, schema=schema), rules)
    assert judged.schema.equals(schema)
    assert judged.to_pylist() == [judge(row, rules) for row in rows]


@settings(deadline=None)
@given(tables(), rule_sets(), st.frozensets(st.sampled_from(COLUMNS)))
def test_the_tables_rows_stand_as_each_row_does(rows, rules, pending):
    table = pa.Table.from_pylist(rows, schema=table_schema(WRITERS))
    assert undecided_rows(table, rules, pending).tolist() == [still_undecided(row, rules, pending) for row in rows]


@settings(deadline=None)
@given(tables(), rule_sets())
def test_what_rules_reject_is_told_without_regard_to_captions(rows, rules):
    table = pa.Table.from_pylist(rows, schema=table_schema(WRITERS))
    bare = [judge(row | {"caption_status": None}, rules)["status"] == "rejected" for row in rows]
    assert rejected_rows(table, rules).tolist() == bare


@settings(deadline=None)
@given(tables(), rule_sets())
def test_judging_again_changes_nothing(rows, rules):
    once = judge_table(pa.Table.from_pylist(rows, schema=table_schema(WRITERS)), rules)
    assert judge_table(once, rules).equals(once)


@settings(deadline=None)
@given(tables(), rule_sets())
def test_verdicts_say_what_is_so(rows, rules):
    for row in rows:
        judged = judge(row, rules)
        assert (judged["status"] == "failed") == (row["status"] == "failed")
        if judged["status"] == "failed":
            continue
        assert (judged["status"] == "accepted") == (not judged["reasons"])
        for reason in judged["reasons"]:
            column, word = reason.split(":")
            if column in BY_NAME and column in rules:
                assert row["type"] in BY_NAME[column].media
                assert (row[column] is None) == (word == "missing")


def test_tables_of_several_chunks_are_judged_alike():
    schema, rules = table_schema(WRITERS), {"motion": Rule(1, 2)}
    rows = [row_of(motion=m) for m in (0.0, 1.5, 3.0, None)]
    whole = judge_table(pa.Table.from_pylist(rows, schema=schema), rules)
    chunked = judge_table(pa.concat_tables([pa.Table.from_pylist([r], schema=schema) for r in rows]), rules)
    assert chunked.to_pylist() == whole.to_pylist()
