"""Parts that are merged while a run goes on: the table is the same, and no row is ever missing."""

import os
import time

import pyarrow.parquet as pq
import pytest
from test_table import OTHER, TEXT, WRITERS, table, two_segments

from core import files
from curation.output import compaction, folding
from curation.output.compaction import compact, compacting, level_of
from curation.output.folding import Unfinished, fold
from curation.output.remote import CURATED
from curation.output.table import part_files, write_part
from curation.schema import PART_COLUMNS

NAMES = [f"{number:02d}.mp4" for number in range(12)]


def put_all(out, rules=TEXT):
    """Write each segment of twelve sources as a part of its own, and at the end a row of the first once more."""
    for name in NAMES:
        for segment in two_segments(name):
            write_part(out, WRITERS, segment, rules)
    write_part(out, WRITERS, [two_segments(NAMES[0])[1][-1] | {"motion": 99.0}], rules)


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(compaction, "PARTS_TOGETHER", (4, 3))


def test_merged_parts_fold_to_the_same_table(tmp_path, few):
    for name in ("merged", "as they are"):
        put_all(tmp_path / name)
    compact(tmp_path / "merged", WRITERS, time.time())
    levels = [level_of(part) for part in part_files(tmp_path / "merged")]
    assert levels == [2, 2, 0], "25 parts: six of four each, of which three and three, and the last"
    for out in (tmp_path / "merged", tmp_path / "as they are"):
        assert fold(out, WRITERS) == Unfinished({})
    assert table(tmp_path / "merged") == table(tmp_path / "as they are")
    assert [row["motion"] for row in table(tmp_path / "merged")].count(99.0) == 1


def test_only_parts_before_a_time_are_merged_and_only_when_there_are_enough(tmp_path, few):
    put_all(tmp_path)
    before = part_files(tmp_path)
    compact(tmp_path, WRITERS, before_s=int(before[3].name.split("-")[0]) / 1e9)
    assert part_files(tmp_path) == before, "three are settled, and it takes four"
    compact(tmp_path, WRITERS, before_s=int(before[5].name.split("-")[0]) / 1e9)
    (merged,) = set(part_files(tmp_path)) - set(before)
    assert part_files(tmp_path) == [merged, *before[4:]], "it stands where those stood of which it is made"


def test_parts_of_different_rules_stay_apart(tmp_path, few):
    for number, rules in enumerate([TEXT, TEXT, OTHER, OTHER]):
        write_part(tmp_path, WRITERS, two_segments(NAMES[number])[0], rules)
    compact(tmp_path, WRITERS, time.time())
    assert len(part_files(tmp_path)) == 2


@pytest.mark.parametrize("alive", range(0, 8, 2))
def test_a_kill_between_merging_and_deleting_changes_nothing(tmp_path, few, monkeypatch, alive):
    """A part is deleted only when the merged one is there: what is left twice is folded once."""
    put_all(tmp_path / "undisturbed")
    fold(tmp_path / "undisturbed", WRITERS)
    put_all(tmp_path / "out")
    left = iter(range(alive))

    class Killed(BaseException):
        pass

    def unlink(self, **named):
        if next(left, None) is None:
            raise Killed
        os.unlink(self)

    with monkeypatch.context() as patched:
        patched.setattr(type(tmp_path), "unlink", unlink)
        with pytest.raises(Killed):
            compact(tmp_path / "out", WRITERS, time.time())
    assert any(level_of(part) for part in part_files(tmp_path / "out"))
    assert fold(tmp_path / "out", WRITERS) == Unfinished({})
    assert table(tmp_path / "out") == table(tmp_path / "undisturbed")


def test_what_is_committed_meanwhile_holds_every_row(tmp_path, few):
    """Links outlive the parts: a commit that began before the merge still reads what it listed."""
    put_all(tmp_path / "out")
    listed = CURATED.at_work(tmp_path / "out", tmp_path / "aside")
    compact(tmp_path / "out", WRITERS, time.time())
    parts = [file for path, file in listed.items() if path.startswith("_parts/")]
    assert len(parts) == 25 and sum(pq.read_metadata(file).num_rows for file in parts) == 61
    again = CURATED.at_work(tmp_path / "out", tmp_path / "aside")
    assert len([path for path in again if path.startswith("_parts/")]) == 3
    assert len(list((tmp_path / "aside" / "_parts").iterdir())) == 3, "no link to what is gone stays"


def test_a_file_system_without_links_gives_the_file_itself(tmp_path, monkeypatch):
    put_all(tmp_path / "out")
    monkeypatch.setattr(files.os, "link", lambda *_: (_ for _ in ()).throw(PermissionError(1, "not permitted")))
    listed = CURATED.at_work(tmp_path / "out", tmp_path / "aside")
    assert {file for path, file in listed.items() if path.startswith("_parts/")} == set(part_files(tmp_path / "out"))


def test_parts_are_merged_while_a_block_runs(tmp_path, few, monkeypatch):
    monkeypatch.setattr(compaction, "LOOK_S", 0.01)
    monkeypatch.setattr(compaction, "SETTLED_S", 0.0)
    end_s = time.monotonic() + 30
    with compacting(tmp_path, WRITERS):
        put_all(tmp_path)
        while len(part_files(tmp_path)) > 6 and time.monotonic() < end_s:
            time.sleep(0.01)
    assert len(part_files(tmp_path)) <= 6
    assert fold(tmp_path, WRITERS) == Unfinished({}) and len(table(tmp_path)) == 60


@pytest.mark.parametrize("at_once", [1, 7, 30])
def test_a_table_is_folded_in_ranges_as_in_one(tmp_path, monkeypatch, at_once):
    """With an old table, a source done anew, an update, and one that stays unfinished."""
    for name in ("one", "ranges"):
        out = tmp_path / name
        put_all(out)
        fold(out, WRITERS)
        redone = [rows for name in ("03.mp4", "zz.mp4") for rows in two_segments(name, source_mtime_ns=21)]
        update = table(out)[-1] | {"caption": "seen"} | dict.fromkeys(PART_COLUMNS)
        for rows in (*redone, [update], two_segments("05x.mp4")[1]):
            write_part(out, WRITERS, rows, TEXT)
        with monkeypatch.context() as patched:
            patched.setattr(folding, "ROWS_PER_RANGE", 10**9 if name == "one" else at_once)
            assert fold(out, WRITERS) == Unfinished({("05x.mp4", 10, 20): [1]})
    assert table(tmp_path / "ranges") == table(tmp_path / "one")
    assert [row["source_path"] for row in table(tmp_path / "ranges")] == sorted(
        row["source_path"] for row in table(tmp_path / "one")
    )


def test_ranges_in_which_nothing_is_finished_leave_the_table_as_it_is(tmp_path, monkeypatch):
    put_all(tmp_path)
    fold(tmp_path, WRITERS)
    (file,) = (tmp_path / "clips").iterdir()
    before = file.stat().st_ino
    write_part(tmp_path, WRITERS, two_segments("new.mp4")[0], TEXT)
    monkeypatch.setattr(folding, "ROWS_PER_RANGE", 10)
    assert fold(tmp_path, WRITERS) == Unfinished({("new.mp4", 10, 20): [0]})
    assert file.stat().st_ino == before and len(part_files(tmp_path)) == 1
