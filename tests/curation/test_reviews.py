"""What people say of clips: it wins over rules, and nothing that is done to an output loses it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from browser import a_row, an_id, default_recipe, write_rows
from hypothesis import given
from hypothesis import strategies as st
from runs import curate, internal_json, rows_of

from cli.main import main
from core.errors import UserError
from curation.judge import judge, judge_table, rejected_rows, still_undecided, undecided_rows
from curation.output.table import read_table
from curation.recipe import Rule
from curation.report.agreement import agreements, best_threshold
from curation.report.write import write_report
from curation.reviews import NAME, Change, Review, add_changes, read_reviews, stamp_of
from curation.schema import blank_row, table_schema
from demo.drawing import write_video
from train_bridge.data.formats import read_listing

AT = "2026-01-31T12:00:00Z"


def say(out: Path, clip_id: str, by: str = "ann", **values) -> None:
    add_changes(out, [Change(clip_id, values, by, AT)])


def test_the_last_word_on_each_field_holds(tmp_path):
    say(tmp_path, "a", review="keep")
    say(tmp_path, "a", caption="  a red disc ", tags=["good", "good", " "])
    say(tmp_path, "b", review="drop")
    before = read_reviews(tmp_path)
    say(tmp_path, "a", by="bob", review="drop")
    say(tmp_path, "b", review=None)
    reviews = read_reviews(tmp_path)
    assert reviews.clips == {"a": Review("drop", "a red disc", ("good",), "bob", AT)}
    assert before.stamp != reviews.stamp != read_reviews(tmp_path / "nothing").stamp == ""
    assert (stamp_of(tmp_path), stamp_of(tmp_path / "nothing")) == (reviews.stamp, "")


@pytest.mark.parametrize(
    "torn", [b'{"clip_id": "a", "rev', b"\xff\xfe", b"[1]\n", b'{"clip_id": 1, "review": "keep"}\n', b"\n\n"]
)
def test_what_a_kill_or_an_editor_left_spoils_no_other_line(tmp_path, torn):
    say(tmp_path, "a", review="keep")
    with (tmp_path / NAME).open("ab") as file:
        file.write(torn)
    say(tmp_path, "b", review="drop")
    assert {name: one.review for name, one in read_reviews(tmp_path).clips.items()} == {"a": "keep", "b": "drop"}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"review": "maybe"}, "no verdict"),
        ({"caption": 3}, "a text"),
        ({"tags": "x"}, "list"),
        ({"by": "x"}, "no field"),
    ],
)
def test_what_is_no_review_is_refused(tmp_path, values, words):
    with pytest.raises(UserError, match=words):
        add_changes(tmp_path, [Change("a", values, "ann", AT)])
    assert not (tmp_path / NAME).exists()


BLANK = blank_row(table_schema(["motion"]))
rows = st.builds(
    lambda **values: BLANK | {"type": "video", "source_path": "a", "reasons": []} | values,
    clip_id=st.uuids().map(str),
    kind=st.sampled_from(["clip", "transition"]),
    status=st.sampled_from(["accepted", "rejected", "failed"]),
    motion=st.one_of(st.none(), st.floats(0, 10)),
    review=st.sampled_from([None, "keep", "drop"]),
    caption_status=st.sampled_from([None, "ok", "refused"]),
    caption_by_hand=st.sampled_from([None, "by hand"]),
)


@given(st.lists(rows, min_size=1, max_size=20))
def test_tables_are_judged_as_rows_are_and_people_win(some):
    rules = {"motion": Rule(min=2.0, max=8.0)}
    table = pa.Table.from_pylist(some, schema=table_schema(["motion"]))
    judged = judge_table(table, rules).to_pylist()
    assert judged == [judge(row, rules) for row in some]
    assert undecided_rows(table, rules, {"motion"}).tolist() == [
        still_undecided(r, rules, frozenset({"motion"})) for r in some
    ]
    for row, marked in zip(judged, rejected_rows(table, rules).tolist(), strict=True):
        if row["status"] == "failed" or row["kind"] == "transition":
            continue
        if row["review"] == "keep":
            assert (row["status"], row["reasons"], marked) == ("accepted", [], False)
        if row["review"] == "drop":
            assert row["status"] == "rejected" and "review:drop" in row["reasons"] and marked


@pytest.fixture(scope="module")
def curated(tmp_path_factory):
    """Return a folder with an output of a dark and two light films, of which the rules reject the dark one."""
    folder = tmp_path_factory.mktemp("curated")
    (folder / "in").mkdir()
    for name, shade in (("dark", 40), ("light", 180), ("pale", 200)):
        pictures = []
        for number in range(80):
            picture = np.full((48, 64, 3), shade, np.uint8)
            picture[:, number % 56 : number % 56 + 6] = 250
            pictures.append(picture)
        write_video(folder / f"in/{name}.mp4", pictures, 20, options={"preset": "ultrafast"})
    curate(folder / "in", "operators.text_area=false", 'rules={"brightness": {"min": 0.5}}', out=folder / "out")
    assert sorted(r["status"] for r in rows_of(folder / "out").values()) == ["accepted", "accepted", "rejected"]
    return folder


@pytest.fixture
def output(curated, tmp_path):
    shutil.copytree(curated, tmp_path, dirs_exist_ok=True)
    return tmp_path / "out"


def test_a_kept_clip_is_finished_and_a_dropped_one_gives_up_its_place(output, tmp_path):
    before = rows_of(output)
    rejected = next(r for r in before.values() if r["status"] == "rejected" and r["kind"] == "clip")["clip_id"]
    accepted = next(r for r in before.values() if r["status"] == "accepted" and r["type"] == "video")
    file = output / accepted["clip_path"]
    content = file.read_bytes()
    say(output, rejected, review="keep", tags=["rescued"])
    say(output, accepted["clip_id"], by="bob", review="drop")
    assert main(["select", str(output)]) == 0
    after = rows_of(output)
    assert (after[rejected]["status"], after[rejected]["reasons"], after[rejected]["clip_path"]) == (
        "accepted",
        [],
        None,
    )
    assert (after[rejected]["review"], after[rejected]["review_by"], after[rejected]["review_tags"]) == (
        "keep",
        "ann",
        ["rescued"],
    )
    assert after[accepted["clip_id"]]["reasons"] == ["review:drop"]
    assert not file.exists()

    curate(tmp_path / "in", out=output)
    done = rows_of(output)[rejected]
    assert done["caption"] and (output / done["clip_path"]).is_file()
    assert main(["select", str(output), "rules.brightness.min=0.99"]) == 0
    assert [r["clip_id"] for r in rows_of(output).values() if r["status"] == "accepted" and r["type"] == "video"] == [
        rejected
    ]

    say(output, accepted["clip_id"], review=None)
    assert main(["select", str(output), "rules.brightness.min=0.5"]) == 0
    assert file.read_bytes() == content, "its file is back without decoding"
    assert rows_of(output)[accepted["clip_id"]]["review"] is None


def test_a_caption_by_hand_is_what_trainers_read_and_outlives_the_captioner(output, tmp_path):
    clip = next(r for r in rows_of(output).values() if r["status"] == "accepted")
    say(output, clip["clip_id"], caption="by hand: a disc")
    assert main(["select", str(output)]) == 0
    texts = {record["clip_id"]: record["text"] for record in internal_json(output)}
    assert texts[clip["clip_id"]] == "by hand: a disc"
    row = rows_of(output)[clip["clip_id"]]
    assert (row["caption"], row["caption_by_hand"]) == (clip["caption"], "by hand: a disc")
    assert "by hand: a disc" in [record.caption for record in read_listing(output, None, []).records]
    for form in ("webvid", "diffusers"):
        assert main(["export", str(output), "--format", form]) == 0
    said = [path.read_text() for path in output.rglob("*.csv")] + [path.read_text() for path in output.rglob("*.jsonl")]
    assert all("by hand: a disc" in text for text in said if clip["clip_id"] in text)
    curate(tmp_path / "in", "--retry-failed", out=output)
    assert rows_of(output)[clip["clip_id"]]["caption_by_hand"] == "by hand: a disc"


def test_a_bad_caption_rejects_no_clip_that_has_one_by_hand(tmp_path):
    recipe = default_recipe("rules={}")
    measured = {"duration_s": 5.0, "caption": "…", "caption_status": "refused"}
    out = write_rows(tmp_path / "out", recipe, [a_row(recipe, n, **measured) for n in range(2)])
    say(out, an_id(0), caption="a disc")
    assert main(["select", str(out)]) == 0
    assert [rows_of(out)[an_id(n)]["status"] for n in range(2)] == ["accepted", "rejected"]


def test_curate_judges_anew_what_was_said_since(output, tmp_path):
    """Also where nothing else is to be done, and where a `select` was never run."""
    clip = next(r for r in rows_of(output).values() if r["status"] == "accepted")["clip_id"]
    say(output, clip, review="drop")
    curate(tmp_path / "in", out=output)
    assert rows_of(output)[clip]["reasons"] == ["review:drop"]
    (output / NAME).unlink()
    curate(tmp_path / "in", out=output)
    assert (rows_of(output)[clip]["status"], rows_of(output)[clip]["review"]) == ("accepted", None)


@pytest.mark.parametrize("side", ["min", "max"])
def test_the_suggested_threshold_is_the_one_that_people_followed(side):
    values = np.linspace(0, 10, 101)
    is_drop = values < 3.14 if side == "min" else values > 3.14
    found = best_threshold(values, is_drop, 6.0, side)
    assert 3.1 < found < 3.2
    assert best_threshold(values, is_drop, 3.15, side) == 3.15, "one that agrees already stays"


@given(st.lists(st.tuples(st.floats(-5, 5), st.booleans()), min_size=1, max_size=30), st.floats(-6, 6))
def test_no_threshold_agrees_with_more_than_the_suggested_one(some, bound):
    values, is_drop = np.array([v for v, _ in some]), np.array([d for _, d in some])
    best = best_threshold(values, is_drop, bound, "min")
    agreed = ((values < best) == is_drop).sum()
    assert all(
        agreed >= ((values < other) == is_drop).sum() for other in [*values, *(values + 1e-12), bound, -9.0, 9.0]
    )


def test_rules_are_compared_with_people_and_the_report_shows_it(tmp_path):
    recipe = default_recipe("rules={motion: {min: 5.0}}")
    rows = [a_row(recipe, n, motion=float(n), duration_s=5.0) for n in range(10)]
    out = write_rows(tmp_path / "out", recipe, rows)
    for n in range(10):
        say(out, an_id(n), review="drop" if n < 3 else "keep")
    assert main(["select", str(out)]) == 0
    table = read_table(out, recipe.writers)
    (motion,) = [one for one in agreements(table, recipe.rules) if one.column == "motion"]
    assert (motion.reviewed, motion.rejected, motion.dropped, motion.missed) == (10, 5, 3, 0)
    assert motion.precision == pytest.approx(0.6)
    assert 2.0 < motion.suggested <= 3.0
    assert (motion.agreed, motion.suggested_agreed) == (0.8, 1.0)
    page = write_report(out, recipe).read_text()
    assert "Rules and people" in page and "motion min 5" in page
    assert json.loads(page.split('id="output-facts"')[1].split(">", 1)[1].split("</script", 1)[0])["agreement"]
