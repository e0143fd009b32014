"""What is held out: whole sources and clips, never a part of one; and what is said where that leaves none."""

import dataclasses
import hashlib
import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import UserError
from train_bridge.config import TrainConfig
from train_bridge.data.held_out import Split, divide_rows, same_content
from train_bridge.data.metadata import read_metadata
from train_bridge.data.rows_file import read_rows, write_rows
from train_bridge.plan.plan import Rows, collect_rows
from train_bridge.types import TrainRow

CONTENTS = [b"a" * 70_000 + b"1", b"a" * 70_000 + b"2", b"short"]  # two of one size that begin alike


def settings_of(share: float, by: str = "source", metadata: Path | str = "") -> TrainConfig:
    config = TrainConfig()
    data = dataclasses.replace(config.data, metadata=str(metadata), validation=share, validation_by=by)
    buckets = dataclasses.replace(config.buckets, sizes_px=(32,), frames=(5,), fps=0, shorter="slow_down")
    return dataclasses.replace(config, data=data, buckets=buckets)


def divided(rows: list[TrainRow], share: float, by: str = "source") -> Split:
    return divide_rows(rows, settings_of(share, by).data)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Six files of three contents."""
    folder = tmp_path_factory.mktemp("files")
    paths = [folder / f"{i}.mp4" for i in range(6)]
    for i, path in enumerate(paths):
        path.write_bytes(CONTENTS[i % 3])
    return paths


def test_files_of_equal_content_are_found(files: list[Path], tmp_path: Path) -> None:
    found = same_content([*files, *files, tmp_path / "gone.mp4"])
    assert [found[path] for path in files] == [str(files[i % 3]) for i in range(6)]
    assert tmp_path / "gone.mp4" not in found
    assert same_content(files[:3]) == {}, "no two are alike"


ROW = st.tuples(st.integers(0, 5), st.none() | st.sampled_from(["s", "t", "u"]), st.sampled_from([None, 0.0, 1.0]))


@settings(max_examples=60, deadline=None)
@given(st.lists(ROW, min_size=1, max_size=14), st.sampled_from([0.2, 0.5, 0.8]), st.randoms())
def test_nothing_is_on_both_sides(
    files: list[Path], drawn: list[tuple[int, str | None, float | None]], share: float, shuffle: random.Random
) -> None:
    rows = [
        TrainRow(f"row {i}", files[place], "c", "video", start_s=start, end_s=start, source=source)
        for i, (place, source, start) in enumerate(drawn)
    ]
    split = divided(rows, share)
    assert sorted(r.row_id for r in (*split.train, *split.held_out)) == sorted(r.row_id for r in rows)
    for name in ("path", "source"):
        sides = [{getattr(r, name) for r in some} - {None} for some in (split.train, split.held_out)]
        assert not sides[0] & sides[1]
    content = [{r.path.read_bytes() for r in some} for some in (split.train, split.held_out)]
    assert not content[0] & content[1]
    clips = divided(rows, share, "content")
    spans = [{(r.path.read_bytes(), r.start_s) for r in some} for some in (clips.train, clips.held_out)]
    assert not spans[0] & spans[1]
    other = rows.copy()
    shuffle.shuffle(other)
    for by in ("source", "content", "row"):
        assert {r.row_id for r in divided(other, share, by).held_out} == {
            r.row_id for r in divided(rows, share, by).held_out
        }


def test_captions_of_a_clip_and_clips_of_a_source_stay_together(files: list[Path], tmp_path: Path) -> None:
    rows = [TrainRow(f"{i}-{j}", tmp_path / f"{i}.mp4", f"caption {j}", "video") for i in range(40) for j in range(5)]
    split = divided(rows, 0.2)
    held = {row.path for row in split.held_out}
    assert held and not held & {row.path for row in split.train}
    assert (split.groups, split.groups_held_out) == (40, len(held))
    by_row = divided(rows, 0.2, "row")
    assert {row.path for row in by_row.held_out} & {row.path for row in by_row.train}, "what the key is there for"
    sources = [TrainRow(f"clip {i}", tmp_path / f"{i}.mp4", "c", "video", source=f"film {i % 20}") for i in range(200)]
    split = divided(sources, 0.25)
    assert len(split.held_out) == 10 * split.groups_held_out > 0
    assert not {row.source for row in split.held_out} & {row.source for row in split.train}


def test_about_the_share_is_held_out_and_rows_of_their_own_stay_where_they_were(tmp_path: Path) -> None:
    rows = [TrainRow(f"{i}.mp4", tmp_path / f"{i}.mp4", "c", "video") for i in range(2000)]
    held = {row.row_id for row in divided(rows, 0.1).held_out}
    assert len(held) == pytest.approx(200, abs=45)

    def before(row: TrainRow) -> bool:  # as version 0.8 decided
        digest = hashlib.blake2b(b"held out " + row.row_id.encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") < 0.1 * 2**64

    assert held == {row.row_id for row in rows if before(row)}
    assert {row.row_id for row in divided(rows, 0.1, "row").held_out} == held
    fewer = {row.row_id for row in divided(rows[:1000], 0.1).held_out}
    assert fewer == held & {row.row_id for row in rows[:1000]}, "more rows move no others"


def made(folder: Path, items: list[dict]) -> Path:
    for item in items:
        (folder / item["file_path"]).write_bytes(item["file_path"].encode())
    facts = {"text": "c", "type": "video", "width": 64, "height": 64, "num_frames": 12, "fps": 12}
    (folder / "all.json").write_text(json.dumps([facts | item for item in items]))
    return folder / "all.json"


def planned(source: Path, share: float, by: str = "source") -> Rows:
    config = settings_of(share, by, source)
    return collect_rows(dataclasses.replace(config, watch=dataclasses.replace(config.watch, validate_every=5)))


def test_a_small_data_set_of_which_none_or_all_is_held_out_is_told_in_a_line(tmp_path: Path) -> None:
    source = made(tmp_path, [{"file_path": f"{i}.mp4", "source_path": "film.mov"} for i in range(4)])
    rows = planned(source, 0.01)
    assert rows.notes == ("data.validation 0.01 of 4 rows (1 source) holds out none; raise it",)
    assert planned(source, 0.01, "row").notes == ("data.validation 0.01 of 4 rows holds out none; raise it",)
    with pytest.raises(UserError, match=r"0\.999 holds out all 4 rows of 1 source; lower it, or set .*=row") as told:
        planned(source, 0.999)
    assert "\n" not in str(told.value)
    assert planned(source, 0.0).notes == (
        "watch.validate_every: no rows are held out to validate with; set data.validation",
    )


def test_metadata_names_sources(tmp_path: Path) -> None:
    items = [{"file_path": f"{i}.mp4", "source_path": f"film {i % 8}.mov"} for i in range(64)]
    rows = planned(made(tmp_path, items), 0.3)
    assert {row.source for row in (*rows.train, *rows.validation)} == {f"film {i}.mov" for i in range(8)}
    assert len(rows.validation) % 8 == 0 and rows.validation
    films = len(rows.validation) // 8
    assert rows.notes == (
        f"held out by source: {films} of 8 sources, {films / 8:.0%} of the rows for data.validation 0.3",
    )
    write_rows(tmp_path / "rows.parquet", rows, {})
    assert read_rows(tmp_path / "rows.parquet").validation == rows.validation
    (tmp_path / "m.csv").write_text("file_name,text,source_id\n0.mp4,c,17\n1.mp4,c,\n")
    data = dataclasses.replace(settings_of(0.3).data, metadata=str(tmp_path / "m.csv"))
    assert [row.source for row in read_metadata(data).rows] == ["17", None]
    no_names = made(tmp_path, [{"file_path": f"{i}.mp4"} for i in range(64)])
    assert "no row names its source" in planned(no_names, 0.3).notes[1]
