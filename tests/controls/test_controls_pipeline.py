"""Control maps through the pipeline: made beside the clips, judged by, stashed and brought back, resumed, exported."""

import json
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from footage import pan as footage_pan
from PIL import Image
from runs import assert_same_output, curate, internal_json, rows_of

import run_pipeline
from controls import CONTROLS
from controls.networks import MapNetwork
from core.errors import UserError
from demo.drawing import write_video
from media.shape import TICKS

RECIPE = "operators: {brightness: true}\ncut: {preset: ultrafast}\ncontrols: {gray: true}\n"


def frames_of(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def times_of(path: Path) -> tuple[list[float], float]:
    """Presentation times of the frames, and the length of the track, in seconds."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        length = float(stream.duration * stream.time_base)
        return [float(frame.pts * frame.time_base) for frame in container.decode(video=0)], length


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bright clip with a sliding bar, and a blank one that is dark."""
    folder = tmp_path_factory.mktemp("footage")
    bars = np.full((40, 64, 96, 3), 90, np.uint8)
    for i, picture in enumerate(bars):
        picture[:, 2 * i : 2 * i + 6] = 220
    pts = [i / 10 + (0.03 if i % 3 else 0.0) for i in range(40)]
    write_video(folder / "bars.mp4", list(bars), 10, pts=pts, options={"preset": "ultrafast", "g": "10"})
    blank = np.full((40, 64, 96, 3), 40, np.uint8)
    write_video(folder / "blank.mp4", list(blank), 10, options={"preset": "ultrafast", "g": "10"})
    return folder


def config(folder: Path, text: str = RECIPE) -> Path:
    file = folder / "recipe.yaml"
    file.write_text(text)
    return file


def by_name(out: Path) -> dict[str, dict]:
    return {row["source_path"]: row for row in rows_of(out).values()}


@pytest.fixture(scope="module")
def made(footage: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    curate(footage, "--config", config(folder), out=folder / "out")
    return folder / "out"


def test_a_map_is_frame_for_frame_with_its_clip(made: Path) -> None:
    for row in rows_of(made).values():
        assert row["control_gray_path"] == f"control/gray/{row['clip_id']}.mp4"
        clip, drawn = made / row["clip_path"], made / row["control_gray_path"]
        (times, length), (map_times, map_length) = times_of(clip), times_of(drawn)
        assert map_times == pytest.approx(times, abs=float(TICKS)) and len(times) == row["clip_num_frames"]
        assert map_length == pytest.approx(length, abs=float(TICKS))
        assert frames_of(drawn)[0].shape == frames_of(clip)[0].shape


def test_a_gray_map_is_the_luma_of_the_clip(made: Path) -> None:
    row = by_name(made)["bars.mp4"]
    for picture, drawn in zip(
        frames_of(made / row["clip_path"]), frames_of(made / row["control_gray_path"]), strict=True
    ):
        assert np.ptp(drawn.astype(int), axis=2).max() <= 2, "no colour"
        luma = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(int)
        assert np.abs(drawn[..., 0] - luma).mean() < 2.5


def test_amounts_tell_a_blank_picture_from_one_with_something_in_it(made: Path) -> None:
    rows = by_name(made)
    assert rows["blank.mp4"]["control_gray_amount"] < 0.01 < 0.1 < rows["bars.mp4"]["control_gray_amount"] <= 1


def test_without_controls_nothing_of_them_is_there(footage: Path, tmp_path: Path) -> None:
    curate(footage / "bars.mp4", "--config", config(tmp_path, "operators: {}\n"), out=tmp_path / "out")
    assert not [name for row in rows_of(tmp_path / "out").values() for name in row if name.startswith("control")]
    assert not (tmp_path / "out" / "control").exists()
    assert "control" not in (tmp_path / "out" / "json_of_internal_datasets.json").read_text()


def test_a_rule_rejects_clips_with_empty_maps_and_their_files_are_gone(footage: Path, tmp_path: Path) -> None:
    text = f"{RECIPE}rules: {{control_gray_amount: {{min: 0.05}}}}\n"
    curate(footage, "--config", config(tmp_path, text), out=tmp_path / "out")
    rows = by_name(tmp_path / "out")
    blank = rows["blank.mp4"]
    assert rows["bars.mp4"]["status"] == "accepted"
    assert (blank["status"], blank["reasons"]) == ("rejected", ["control_gray_amount:low"])
    assert blank["control_gray_amount"] is not None and blank["control_gray_path"] is blank["clip_path"] is None
    assert len(list((tmp_path / "out" / "control" / "gray").iterdir())) == 1
    assert len(list((tmp_path / "out" / "train").iterdir())) == 1
    before = by_name(tmp_path / "out")
    curate(footage, "--config", tmp_path / "recipe.yaml", out=tmp_path / "out")
    assert by_name(tmp_path / "out") == before, "a clip that its map has rejected is not tried again"


def test_select_by_amounts_moves_maps_aside_and_back(footage: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    curate(footage, "--config", config(tmp_path), out=out)
    before, listed = by_name(out), sorted(path.name for path in (out / "control" / "gray").iterdir())
    assert run_pipeline.main(["select", str(out), "rules.control_gray_amount.min=0.05"]) == 0
    rows = by_name(out)
    assert rows["blank.mp4"]["reasons"] == ["control_gray_amount:low"]
    assert rows["blank.mp4"]["control_gray_path"] is None and rows["blank.mp4"]["control_gray_amount"] is not None
    assert [path.stem for path in (out / "_retired" / "control" / "gray").iterdir()] == [rows["blank.mp4"]["clip_id"]]
    assert run_pipeline.main(["select", str(out), "rules.control_gray_amount=false"]) == 0
    assert by_name(out) == before
    assert sorted(path.name for path in (out / "control" / "gray").iterdir()) == listed


def test_an_amount_has_no_place_where_an_earlier_rule_rejects(footage: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    curate(footage, "--config", config(tmp_path), out=out)
    before = by_name(out)
    assert run_pipeline.main(["select", str(out), "rules.brightness.min=0.3"]) == 0
    blank = by_name(out)["blank.mp4"]
    assert blank["reasons"] == ["brightness:low"] and blank["control_gray_amount"] is None
    fresh = tmp_path / "fresh"
    (tmp_path / "other").mkdir()
    text = f"{RECIPE}rules: {{brightness: {{min: 0.3}}}}\n"
    curate(footage, "--config", config(tmp_path / "other", text), out=fresh)
    assert_same_output(out, fresh)
    assert run_pipeline.main(["select", str(out), "rules.brightness=false"]) == 0
    assert by_name(out) == before


def test_a_lost_map_is_made_again(footage: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    curate(footage, "--config", config(tmp_path), out=out)
    before = by_name(out)
    lost = out / before["bars.mp4"]["control_gray_path"]
    content = lost.read_bytes()
    lost.unlink()
    curate(footage, "--config", tmp_path / "recipe.yaml", out=out)
    assert lost.read_bytes() == content and by_name(out) == before


def test_maps_of_an_output_are_no_footage(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from curation.inputs.outputs import Outputs

    assert Outputs().owning(str(made / "control" / "gray")) == str(made.resolve())


def test_an_image_has_maps_of_what_does_not_need_motion(footage: Path, tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
    Image.fromarray(cv2.resize(picture[:8, :12], (96, 64))).save(tmp_path / "still.png")
    curate(tmp_path / "still.png", "--config", config(tmp_path), out=tmp_path / "out")
    (row,) = rows_of(tmp_path / "out").values()
    assert row["control_gray_path"].endswith(".jpg")
    drawn = np.asarray(Image.open(tmp_path / "out" / row["control_gray_path"]))
    clip = np.asarray(Image.open(tmp_path / "out" / row["clip_path"]))
    assert drawn.shape == (64, 96)
    assert np.abs(drawn - clip.astype(float) @ (0.2126, 0.7152, 0.0722)).mean() < 3


def test_the_trainers_json_names_the_map(made: Path) -> None:
    for item in internal_json(made):
        assert item["control_file_path"] == f"control/gray/{item['clip_id']}.mp4" and "control_file_paths" not in item
        assert (made / item["control_file_path"]).is_file()


FREE = {name: kind for name, kind in CONTROLS.items() if not isinstance(kind(), MapNetwork)}
ALL = f"{RECIPE.splitlines()[0]}\ncontrols: {{{', '.join(f'{name}: true' for name in FREE)}}}\n"


@pytest.fixture(scope="module")
def made_all(footage: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("all")
    picture = np.random.default_rng(0).integers(0, 255, (8, 12, 3), np.uint8)
    Image.fromarray(cv2.resize(picture, (96, 64))).save(folder / "still.png")
    curate(footage, folder / "still.png", "--config", config(folder, ALL), out=folder / "out")
    return folder / "out"


def test_all_maps_of_a_clip_are_made_in_one_run(made_all: Path) -> None:
    for source, row in by_name(made_all).items():
        for name, control in FREE.items():
            path, amount = row[f"control_{name}_path"], row[f"control_{name}_amount"]
            if row["type"] not in control.media:
                assert path is amount is None
                continue
            assert 0 <= amount <= 1
            if name == "camera":  # a bar over a plain ground says nothing of the camera
                assert path is None and amount == 0, source
                continue
            assert (made_all / path).is_file()
            if row["type"] == "video":
                assert len(frames_of(made_all / path)) == row["clip_num_frames"]
                assert frames_of(made_all / path)[0].shape == (64, 96, 3)


def test_of_several_maps_the_json_names_the_first_and_each(made_all: Path) -> None:
    rows = rows_of(made_all)
    for item in internal_json(made_all):
        row = rows[item["clip_id"]]
        assert item["control_file_path"] == row["control_canny_path"] is not None
        assert item["control_file_paths"] == {name: row[f"control_{name}_path"] for name in FREE}
    assert run_pipeline.main(["export", str(made_all), "--format", "internal", "--absolute"]) == 0
    for item in internal_json(made_all):
        paths = [item["control_file_path"], *filter(None, item["control_file_paths"].values())]
        assert all(Path(path).is_absolute() and Path(path).is_file() for path in paths)


def test_a_camera_that_moves_as_one_has_its_path_beside_the_clip(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in" / "pan.mp4", footage_pan(84, size=(320, 180), step_px=1), 24)
    curate(tmp_path / "in", "--config", config(tmp_path, "controls: {camera: true}\n"), out=tmp_path / "out")
    (row,) = rows_of(tmp_path / "out").values()
    assert row["control_camera_path"] == f"control/camera/{row['clip_id']}.txt"
    lines = (tmp_path / "out" / row["control_camera_path"]).read_text().splitlines()
    assert len(lines) == 1 + row["clip_num_frames"] and all(len(line.split()) == 19 for line in lines[1:])
    assert float(lines[-1].split()[10]) < -0.1, "the picture moves to the left"
    assert internal_json(tmp_path / "out")[0]["control_file_path"] == row["control_camera_path"]
    assert run_pipeline.main(["select", str(tmp_path / "out"), "rules.short_side_px.min=500"]) == 0
    assert not list((tmp_path / "out" / "control" / "camera").iterdir())
    assert run_pipeline.main(["select", str(tmp_path / "out"), "rules.short_side_px=false"]) == 0
    assert (tmp_path / "out" / row["control_camera_path"]).read_text().splitlines() == lines


def test_maps_follow_the_size_and_the_rate_of_the_clips_file(footage: Path, tmp_path: Path) -> None:
    text = "cut: {preset: ultrafast, short_side_px: 32, fps: 12}\ncontrols: {canny: true, blur: true}\n"
    curate(footage / "bars.mp4", "--config", config(tmp_path, text), out=tmp_path / "out")
    (row,) = rows_of(tmp_path / "out").values()
    for name in ("canny", "blur"):
        path = tmp_path / "out" / row[f"control_{name}_path"]
        assert frames_of(path)[0].shape == (32, 48, 3)
        assert times_of(path)[0] == pytest.approx(times_of(tmp_path / "out" / row["clip_path"])[0], abs=float(TICKS))


@pytest.mark.slow
def test_on_ray_the_maps_are_the_same(footage: Path, made: Path, tmp_path: Path) -> None:
    curate(footage, "--config", config(tmp_path), out=tmp_path / "out", runner="ray")
    assert_same_output(made, tmp_path / "out")
    for row in rows_of(made).values():
        assert (made / row["control_gray_path"]).read_bytes() == (
            tmp_path / "out" / row["control_gray_path"]
        ).read_bytes()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("controls: {grey: true}", "unknown control 'grey' .did you mean 'gray'"),
        ("controls: {gray: {size: 3}}", "controls.gray: unknown key 'size'"),
        ("controls: [gray]", "controls: expected names and settings"),
        ("controls: {gray: true}\ncut: {mode: copy}", "set cut.mode: transcode"),
        ("controls: {gray: true}\ncut: {mode: none}", "set cut.mode: transcode"),
        ("controls: {gray: true}\ncut: {hdr: keep}", "set cut.hdr: tone_map"),
        ("rules: {control_gray_amount: {min: 0.1}}", "add controls.gray"),
        ("controls: {gray: true}\nrules: {control_gray_path: {min: 0.1}}", "not a number"),
        (
            "controls: {gray: true}\noperators: {temporal_hash: true, duplicates: {best: control_gray_amount}}",
            "no column to judge by",
        ),
    ],
)
def test_recipes_that_cannot_be_met_say_why(text: str, problem: str) -> None:
    import yaml

    from cli.common import TABLES
    from curation.recipe import resolve

    with pytest.raises(UserError, match=problem):
        resolve(yaml.safe_load(text), TABLES)


def test_a_control_that_is_false_is_left_out(footage: Path) -> None:
    from cli.common import TABLES
    from curation.recipe import resolve

    assert resolve({"controls": {"gray": False}}, TABLES)[0].controls == {}
    assert resolve({}, TABLES)[0].writers == ()


def test_json_of_mappings_is_what_json_writes() -> None:
    import pyarrow as pa

    from core.json_text import json_values, to_json

    rows = [{"a": "x\n<", "b": None}, {"a": None, "b": "ü"}]
    assert json_values(pa.array(rows)).to_pylist() == [to_json(row) for row in rows]
    assert [json.loads(text) for text in json_values(pa.array(rows)).to_pylist()] == rows


# -- empty maps


def test_the_summary_warns_of_empty_maps_with_their_share(
    footage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (
        f"{RECIPE.splitlines()[0]}\ncut: {{preset: ultrafast}}\ncontrols: {{canny: true, gray: true, camera: true}}\n"
    )
    shown = ["curate", str(footage), "--output", str(tmp_path / "out"), "--config", str(config(tmp_path, text))]
    assert run_pipeline.main([*shown, "--runner", "inline"]) == 0
    said = capsys.readouterr().out
    assert (
        "warning: the gray map of 1 of 2 clips (50%) is empty; rules.control_gray_amount.min=0.001 rejects them" in said
    )
    assert "warning: the camera map of 2 of 2 clips (100%) is empty" in said
    assert run_pipeline.main([*shown, "--runner", "inline", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)["summary"]
    assert summary["empty_maps"]["gray"] == {"clips": 1, "of": 2, "share": 0.5}
    assert run_pipeline.main(["select", str(tmp_path / "out"), "rules.control_gray_amount.min=0.001"]) == 0
    said = capsys.readouterr().out
    assert "the gray map of" not in said and "the camera map of 1 of 1 clips (100%)" in said


def test_maps_that_need_motion_are_asked_of_images_in_vain_and_it_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)).save(tmp_path / "still.png")
    recipe = config(tmp_path, "operators: {}\ncontrols: {canny: true, trajectory: true}\n")
    shown = ["curate", str(tmp_path / "still.png"), "--output", str(tmp_path / "out"), "--config", str(recipe)]
    assert run_pipeline.main([*shown, "--runner", "inline"]) == 0
    said = capsys.readouterr().out
    assert "note: 1 images have no trajectory map, which needs motion" in said and "canny map" not in said


def test_without_empty_maps_nothing_is_said(made: Path, footage: Path, tmp_path: Path) -> None:
    from curation.output.table import read_table
    from curation.report.summary import funnel, summarise
    from curation.schema import table_schema

    assert "warning" not in funnel(summarise(made, ()))
    assert summarise(made, ("control_gray",)).empty_maps["gray"].clips == 1
    assert not read_table(made, ()).column_names[-1].startswith("control") and "type" in table_schema(()).names
