"""Whole runs on drawn footage with known truth: verdicts, runners, select, running again, mistakes."""

import os
import shutil
from pathlib import Path

import pytest
from runs import assert_same_output, curate, rows_of

import run_pipeline
from demo.footage import Truth, draw_demo

FEW = ("travel.mp4", "rushes.mp4", "glimpse.mp4", "postcard.jpg", "broken.mp4", "phone.mp4")


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Truth]]:
    folder = tmp_path_factory.mktemp("drawn")
    return folder, draw_demo(folder)


@pytest.fixture(scope="module")
def few(truth: tuple[Path, dict[str, Truth]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("few")
    for name in FEW:
        shutil.copy2(truth[0] / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def demo_out(truth: tuple[Path, dict[str, Truth]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "out"
    curate(truth[0], "--config", "configs/demo.yaml", out=out)
    return out


@pytest.fixture(scope="module")
def few_out(few: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("few_out") / "out"
    curate(few, out=out)
    return out


def clips_of(out: Path, source: str) -> list[dict]:
    rows = [r for r in rows_of(out).values() if r["source_path"] == source]
    return sorted(rows, key=lambda r: r["start_frame"] or 0)


def test_hard_cuts_of_the_demo_are_found_at_their_frames(demo_out: Path, truth: tuple[Path, dict[str, Truth]]) -> None:
    for name in ("travel.mp4", "rushes.mp4"):
        found = [c["start_frame"] for c in clips_of(demo_out, name)][1:]
        assert found == list(truth[1][name].cut_frames), name


def test_fade_and_dissolve_become_transitions(demo_out: Path) -> None:
    clips = clips_of(demo_out, "evening.mp4")
    assert [c["kind"] for c in clips] == ["clip", "transition", "clip", "transition", "clip"]
    for clip, (start, end) in zip(clips[1::2], ((120, 144), (264, 288)), strict=True):
        assert abs(clip["start_frame"] - start) <= 10 and abs(clip["start_frame"] + clip["num_frames"] - end) <= 10
        assert clip["reasons"][0] == "shot:transition"


def test_faults_are_rejected_for_what_they_are(demo_out: Path) -> None:
    good, frozen, dark, blurred = clips_of(demo_out, "rushes.mp4")
    assert good["status"] == "accepted"
    assert "frozen:high" in frozen["reasons"] and frozen["frozen"] > 0.9
    assert "brightness:low" in dark["reasons"]
    assert blurred["reasons"][0] == "sharpness:low"
    assert clips_of(demo_out, "subtitled.mp4")[0]["reasons"] == ["text_area:high"]
    widescreen = clips_of(demo_out, "widescreen.mp4")[0]
    assert widescreen["reasons"][0] == "letterbox:high" and widescreen["letterbox"] == pytest.approx(92 / 360, abs=0.01)
    assert clips_of(demo_out, "glimpse.mp4")[0]["reasons"][0] == "duration_s:low"
    broken = clips_of(demo_out, "broken.mp4")[0]
    assert broken["status"] == "failed" and broken["error"].startswith("probe:")


def test_what_has_no_fault_is_accepted(demo_out: Path) -> None:
    for name in ("travel.mp4", "evening.mp4", "flyover.mp4", "phone.mp4", "downtown_720p.mp4", "reef_60fps.mp4"):
        for clip in clips_of(demo_out, name):
            assert clip["kind"] == "transition" or clip["status"] == "accepted", (
                name,
                clip["start_s"],
                clip["reasons"],
            )


def test_facts_of_the_demo(demo_out: Path) -> None:
    phone = clips_of(demo_out, "phone.mp4")[0]
    assert (phone["width_px"], phone["height_px"]) == (360, 640) == (phone["clip_width_px"], phone["clip_height_px"])
    flyover = clips_of(demo_out, "flyover.mp4")[0]
    assert flyover["motion"] == pytest.approx(12, rel=0.05) and "pans right" in flyover["caption"]
    postcard = clips_of(demo_out, "postcard.jpg")[0]
    assert postcard["type"] == "image" and postcard["motion"] is None and postcard["status"] == "accepted"
    assert clips_of(demo_out, "reef_60fps.mp4")[0]["fps"] == 60


def test_every_clip_has_four_previews(demo_out: Path) -> None:
    for row in rows_of(demo_out).values():
        found = list((demo_out / "previews").glob(f"*/{row['clip_id']}-*.jpg"))
        expected = 0 if row["status"] == "failed" else 1 if row["type"] == "image" else 4
        assert len(found) == expected or row["num_frames"] < 48, row["source_path"]


@pytest.mark.slow
def test_ray_gives_the_same_output(few: Path, few_out: Path, tmp_path: Path, ray_here: None) -> None:
    curate(few, out=tmp_path / "out", runner="ray")
    assert_same_output(few_out, tmp_path / "out")


def test_segments_change_nothing_but_where_clips_end(truth: tuple[Path, dict[str, Truth]], tmp_path: Path) -> None:
    words = [
        "shots.max_s=3",
        "shots.min_s=1",
        "shots.segment_s=6",
        "operators.text_area=false",
        "rules.text_area=false",
    ]
    curate(truth[0] / "travel.mp4", *words, "cut.mode=none", out=tmp_path / "out")
    clips = clips_of(tmp_path / "out", "travel.mp4")
    frame = 0
    for clip in clips:
        assert clip["start_frame"] == frame
        frame += clip["num_frames"]
    assert frame == truth[1]["travel.mp4"].num_frames
    shots = sorted({(c["shot_index"], round(c["shot_start_s"] * 24), round(c["shot_end_s"] * 24)) for c in clips})
    starts = [0, *truth[1]["travel.mp4"].cut_frames]
    assert shots == [(i, s, e) for i, (s, e) in enumerate(zip(starts, [*starts[1:], frame], strict=True))]


def test_running_again_does_nothing(few: Path, few_out: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "out"
    shutil.copytree(few_out, out)
    before = {p: p.stat().st_mtime_ns for p in (out / "train").iterdir()}
    curate(few, out=out)
    assert "up to date" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in (out / "train").iterdir()} == before
    assert_same_output(out, few_out)


def test_only_new_and_changed_sources_are_done(few: Path, tmp_path: Path) -> None:
    sources, out, fresh = tmp_path / "sources", tmp_path / "out", tmp_path / "fresh"
    sources.mkdir()
    for name in ("phone.mp4", "glimpse.mp4", "broken.mp4"):
        shutil.copy2(few / name, sources / name)
    curate(sources, out=out)
    untouched = (out / clips_of(out, "phone.mp4")[0]["clip_path"]).stat().st_mtime_ns
    shutil.copy(sources / "phone.mp4", sources / "copy.mp4")  # the same bytes under another name
    shutil.copy(few / "rushes.mp4", sources / "glimpse.mp4")  # other bytes under the same name
    curate(sources, out=out)
    curate(sources, out=fresh)
    assert_same_output(out, fresh)
    assert len({r["clip_id"] for r in rows_of(out).values() if r["source_path"] in ("phone.mp4", "copy.mp4")}) == 2
    assert (out / clips_of(out, "phone.mp4")[0]["clip_path"]).stat().st_mtime_ns == untouched


def test_a_folder_that_cannot_be_read_is_told_of_until_it_can(
    few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    footage, out = tmp_path / "in", tmp_path / "out"
    (footage / "closed").mkdir(parents=True)
    shutil.copy2(few / "postcard.jpg", footage / "a.jpg")
    shutil.copy2(few / "postcard.jpg", footage / "closed" / "b.jpg")
    scandir = os.scandir

    def refuse(place: str) -> object:
        if str(place).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(place))
        return scandir(place)

    with monkeypatch.context() as closed:  # rights do not hold for root, who may run this
        closed.setattr(os, "scandir", refuse)
        closed.setattr(os, "access", lambda *_: False)
        curate(footage, out=out)
    rows = {row["source_path"]: row for row in rows_of(out).values()}
    assert rows.keys() == {"a.jpg", "closed/"}
    assert rows["closed/"]["error"] == "probe: the folder cannot be read; grant access, or leave it out"
    curate(footage, out=out)
    assert {row["source_path"] for row in rows_of(out).values()} == {"a.jpg", "closed/b.jpg"}


def test_an_output_inside_the_footage_is_no_footage(few: Path, tmp_path: Path) -> None:
    sources = tmp_path / "sources"
    sources.mkdir()
    shutil.copy2(few / "phone.mp4", sources / "phone.mp4")
    for _ in range(2):
        curate(sources, "cut.preset=ultrafast", out=sources / "out")
    assert {r["source_path"] for r in rows_of(sources / "out").values()} == {"phone.mp4"}


def test_failed_sources_are_tried_again_on_request_only(few: Path, tmp_path: Path) -> None:
    sources, out = tmp_path / "sources", tmp_path / "out"
    sources.mkdir()
    file = sources / "clip.mp4"
    good = (few / "glimpse.mp4").read_bytes()
    file.write_bytes(b"\0" * len(good))
    stat = file.stat()
    curate(sources, out=out)
    assert clips_of(out, "clip.mp4")[0]["status"] == "failed"
    file.write_bytes(good)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # fixed, yet to all appearances the same
    curate(sources, out=out)
    assert clips_of(out, "clip.mp4")[0]["status"] == "failed"
    curate(sources, "--retry-failed", out=out)
    assert [c["status"] for c in clips_of(out, "clip.mp4")] == ["rejected"]


@pytest.mark.parametrize(
    ("rules", "accepted"),
    [
        (["rules.motion.min=5"], "fewer"),
        pytest.param(
            ["rules.sharpness.min=0.5", "rules.motion.min=0", "rules.frozen=false"],
            "more, some never seen by the OCR step",
            marks=pytest.mark.slow,
        ),
        pytest.param(["rules.brightness.min=0.5", "rules.sharpness=false"], "others", marks=pytest.mark.slow),
    ],
)
def test_select_then_curate_equals_a_fresh_run(
    few: Path, few_out: Path, tmp_path: Path, rules: list[str], accepted: str
) -> None:
    out, fresh, hidden = tmp_path / "out", tmp_path / "fresh", tmp_path / "hidden"
    shutil.copytree(few_out, out)
    few.rename(hidden)  # select must not need the sources
    try:
        assert run_pipeline.main(["select", str(out), *rules]) == 0
    finally:
        hidden.rename(few)
    curate(few, out=out)
    curate(few, *rules, out=fresh)
    assert_same_output(out, fresh)


def test_select_back_and_forth_costs_nothing(few: Path, few_out: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(few_out, out)
    assert run_pipeline.main(["select", str(out), "rules.motion.min=50"]) == 0
    assert not list((out / "train").glob("*.mp4"))
    assert run_pipeline.main(["select", str(out), "rules.motion.min=0.5"]) == 0
    assert_same_output(out, few_out)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nowhere"], "no such file or folder"),
        ([".", "shots.min=3"], "did you mean 'min_s'"),
        ([".", "operators.motoin={}"], "did you mean 'motion'"),
        ([".", "operators.aesthetic={head: none.pth}"], "none.pth"),
        ([".", "operators.text_area=false"], "add operators.text_area"),
        ([".", "rules.motoin.min=4"], "did you mean 'motion'"),
        ([".", "rules.motion.min=fast"], "expected float"),
        ([".", "--config", "nothing.yaml"], "no such file"),
        (["empty"], "no video or image"),
        ([".", "--config", "configs/easyanimate_v5.yaml"], "weights fetch"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(
    words: list[str], told: str, few: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "empty").mkdir()
    words = [{".": str(few), "empty": str(tmp_path / "empty")}.get(w, w) for w in words]
    out = tmp_path / "out"
    assert run_pipeline.main(["curate", *words, "--output", str(out), "--runner", "inline"]) == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1 and "Traceback" not in error
    assert not out.exists()


def test_another_recipe_on_an_output_is_refused(
    few: Path, few_out: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    before = sorted((p, p.stat().st_mtime_ns) for p in few_out.rglob("*") if p.is_file())
    for words, told in (
        (["shots.max_s=8"], "another recipe (shots.max_s"),
        (["rules.motion.min=2"], "run_pipeline.py select"),
    ):
        arguments = ["curate", str(few), "--output", str(few_out), "--runner", "inline", *words]
        assert run_pipeline.main(arguments) == 2
        assert told in capsys.readouterr().err
    assert sorted((p, p.stat().st_mtime_ns) for p in few_out.rglob("*") if p.is_file()) == before


def test_an_output_that_cannot_be_written_is_refused(few: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    assert (
        run_pipeline.main(["curate", str(few), "--output", str(tmp_path / "file" / "out"), "--runner", "inline"]) == 2
    )
    assert "cannot be written to" in capsys.readouterr().err


def test_recipe_prints_every_key_with_its_meaning(capsys: pytest.CaptureFixture) -> None:
    assert run_pipeline.main(["recipe", "rules.motion.min=1"]) == 0
    shown = capsys.readouterr().out
    assert "threshold: 12.0  # total evidence" in shown
    assert "min: 1.0" in shown and "longer shots are taken in pieces" in shown and "short_side_px: 180  #" in shown
