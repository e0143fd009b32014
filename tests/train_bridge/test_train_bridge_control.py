"""Training on control maps: which are taken, what the network sees of them, what is refused, and what a run leaves."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from clips import CLIPS, paint, write_clips
from closeness import close
from PIL import Image
from runs import curate, rows_of

import run_pipeline
from core.errors import UserError
from models.conditions.camera_path import CameraPath, path_text, preset_path
from models.conditions.plucker import camera_channels
from models.conditions.spec import CAMERA_REFERENCE, CONTROL, CONTROL_REFERENCE
from models.geometry import Bucket
from models.transformers.easyanimate_v5 import EasyAnimate
from models.vae.video_vae import PRESETS, build_vae, encode, load_vae, to_signed
from sampling.pictures import write_mp4
from train_bridge.config import DataSettings, load_config
from train_bridge.data.controls import chosen_controls, control_shares
from train_bridge.data.frames import read_frames
from train_bridge.data.media_process import Decoders
from train_bridge.data.metadata import read_metadata
from train_bridge.data.rows_file import read_rows
from train_bridge.loop.batches import VideoFrames
from train_bridge.loop.checkpoint import checkpoints, load_weights
from train_bridge.loop.control_inputs import ControlInputs, MapLatents, draw, show_control, taken_path
from train_bridge.method_settings import ControlSettings
from train_bridge.methods.types import Batch
from train_bridge.plan.plan import collect_rows
from train_bridge.types import MicroBatch, TrainRow

torch.set_num_threads(1)
CONFIGS = Path(run_pipeline.__file__).parent / "configs"
SIZE, FRAMES, FPS = 64, 25, 12.0


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output of `curate` with two kinds of maps, an untrained VAE and a plain transformer."""
    folder = tmp_path_factory.mktemp("control")
    write_clips(folder / "footage", CLIPS)
    recipe = folder / "recipe.yaml"
    recipe.write_text(
        "shots: {detector: stride, settings: {every_s: 100}, min_s: 0.5}\noperators: {}\n"
        "caption: {captioner: template}\ncut: {preset: ultrafast}\ncontrols: {canny: true, gray: true}\n"
    )
    curate(folder / "footage", "--config", recipe, out=folder / "out")
    torch.manual_seed(0)
    build_vae(PRESETS["tiny"]).save_pretrained(folder / "vae")
    family = EasyAnimate()
    family.build(dict(family.presets["tiny"]) | {"num_layers": 1}).save_pretrained(folder / "plain")
    return folder


def words(data: Path, command: str, *more: str | Path, config: str = "train_control_tiny") -> list[str]:
    fixed = [command, CONFIGS / f"{config}.yaml", f"model.vae={data / 'vae'}"]
    return [str(word) for word in (*fixed, *more)]


def train(data: Path, run: Path, *more: str | Path, config: str = "train_control_tiny") -> Path:
    fixed = ["--output", run, "--runner", "inline", "watch.log_every=1"]
    assert run_pipeline.main(words(data, "train", *fixed, *more, config=config)) == 0
    return run


def said(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    capsys.readouterr()
    assert run_pipeline.main(arguments) == 2
    line = capsys.readouterr().err.strip()
    assert line.startswith("error: ") and "\n" not in line
    return line


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line["transformer"] for line in lines if line["what"] == "train"]


# -- which maps are taken


def test_maps_are_named_with_shares() -> None:
    assert control_shares(None) == {} == control_shares("")
    assert control_shares("canny") == {"canny": 1.0}
    assert control_shares("canny:2, lines:0.5") == {"canny": 2.0, "lines": 0.5}
    for text in ("canny:no", "canny:0", "canny,canny", ":1", "canny:-1", "canny:inf"):
        with pytest.raises(UserError, match="write a name, as canny"):
            control_shares(text)


def test_of_a_rows_maps_those_that_are_wanted_are_chosen() -> None:
    both = {"canny": "c.mp4", "gray": "g.mp4"}
    assert chosen_controls(both, ["gray"]) == [("gray", "g.mp4")]
    assert chosen_controls(both, ["gray", "canny"]) == [("gray", "g.mp4"), ("canny", "c.mp4")]
    assert chosen_controls(both, ["lines"]) == chosen_controls(both, []) == chosen_controls(None, ["canny"]) == []
    assert chosen_controls({"": "own.mp4"}, []) == [("", "own.mp4")]
    assert chosen_controls({"": "own.mp4"}, ["canny"]) == [("canny", "own.mp4")]
    assert chosen_controls({"": "control/gray/a.mp4"}, ["canny", "gray"]) == [("gray", "control/gray/a.mp4")]
    assert chosen_controls({"": "control/gray/a.mp4"}, ["canny"]) == [], "what curate calls gray is not taken for edges"


def test_an_output_gives_its_maps_by_name_and_without_control_none(data: Path) -> None:
    out = data / "out"
    settings = DataSettings(metadata=str(out), control="gray")
    rows = read_metadata(settings, controls=True).rows
    table = rows_of(out)
    assert len(rows) == len(table) == 4
    assert all(row.controls == (("gray", out / table[row.row_id]["control_gray_path"]),) for row in rows)
    assert all(row.controls == () for row in read_metadata(settings).rows)
    from_json = dataclasses.replace(settings, metadata=str(out / "json_of_internal_datasets.json"))
    assert {r.row_id: r.controls for r in read_metadata(from_json, controls=True).rows} == {
        r.row_id: r.controls for r in rows
    }
    several = read_metadata(dataclasses.replace(settings, control=None), controls=True)
    assert not several.rows and {r.reason for r in several.refused} == {"has no control map"}


def own(folder: Path, maps: dict[str, str | None]) -> Path:
    """Write metadata of clips with maps of one's own."""
    folder.mkdir(exist_ok=True)
    write_mp4(paint(CLIPS["a white square grows on a violet wall"]), FPS, folder / "clip.mp4")
    items = []
    for name, path in maps.items():
        (folder / f"{name}.mp4").write_bytes((folder / "clip.mp4").read_bytes())
        items.append({"file_path": f"{name}.mp4", "text": name, "type": "video", "control_file_path": path})
    (folder / "metadata.json").write_text(json.dumps(items))
    return folder / "metadata.json"


def test_maps_that_do_not_fit_their_clip_are_refused_and_counted(data: Path, tmp_path: Path) -> None:
    frames = paint(CLIPS["a white square grows on a violet wall"])
    metadata = own(tmp_path, {
        "good": "good_map.mp4", "small": "small_map.mp4", "long": "long_map.mp4", "rate": "rate_map.mp4",
        "wide": "wide_map.mp4", "none": None, "gone": "gone_map.mp4", "still": "still.png", "path": "path.txt",
        "text": "text_map.mp4",
    })  # fmt: skip
    write_mp4(frames, FPS, tmp_path / "good_map.mp4")
    write_mp4(frames[:, ::2, ::2], FPS, tmp_path / "small_map.mp4")  # the same picture with fewer pixels
    write_mp4(np.repeat(frames, 2, axis=0), FPS, tmp_path / "long_map.mp4")
    write_mp4(np.repeat(frames, 2, axis=0), 2 * FPS, tmp_path / "rate_map.mp4")
    write_mp4(frames[:, :32], FPS, tmp_path / "wide_map.mp4")
    Image.fromarray(frames[0]).save(tmp_path / "still.png")
    (tmp_path / "path.txt").write_text(path_text(preset_path("pan_left", FRAMES)))
    (tmp_path / "text_map.mp4").write_text("no video")
    overrides = [f"model.vae={data / 'vae'}", "data.control=null", f"data.metadata={metadata}"]
    rows = collect_rows(load_config(CONFIGS / "train_control_tiny.yaml", overrides))
    assert sorted(row.row_id for row in rows.train) == ["good.mp4", "small.mp4"]
    assert {r.row_id: (r.key, r.reason) for r in rows.refused} == {
        "long.mp4": ("control", "lasts longer or shorter than its clip"),
        "rate.mp4": ("control", "has another rate than its clip"),
        "wide.mp4": ("control", "has another aspect than its clip"),
        "none.mp4": ("control", "has no control map"),
        "gone.mp4": ("control", "no such file"),
        "still.mp4": ("control", "is of type image, its clip of type video"),
        "path.mp4": ("control", "is a camera path"),
        "text.mp4": ("control", "cannot be read"),
    }


def test_camera_paths_that_do_not_fit_are_refused(data: Path, tmp_path: Path) -> None:
    metadata = own(tmp_path, {"good": "good.txt", "short": "short.txt", "broken": "broken.txt", "film": "clip.mp4"})
    good = path_text(preset_path("zoom_in", FRAMES))
    (tmp_path / "good.txt").write_text(good)
    (tmp_path / "short.txt").write_text(path_text(preset_path("zoom_in", 9)))
    (tmp_path / "broken.txt").write_text(good.replace(" 0.5 ", " half ", 1))
    overrides = [f"model.vae={data / 'vae'}", "data.control=null", f"data.metadata={metadata}"]
    rows = collect_rows(load_config(CONFIGS / "train_camera_tiny.yaml", overrides))
    assert [row.row_id for row in rows.train] == ["good.mp4"]
    found = {r.row_id: (r.reason, r.fix) for r in rows.refused}
    assert found["short.mp4"][0] == "has another number of poses than its clip has frames"
    assert found["broken.mp4"][0] == "does not parse" and "broken.txt:2, column 27: 'half'" in found["broken.mp4"][1]
    assert found["film.mp4"][0] == "is no camera path (.txt)"


def test_an_image_has_no_map_of_motion_and_it_is_said_why(data: Path, tmp_path: Path) -> None:
    Image.fromarray(paint(CLIPS["a white square grows on a violet wall"])[0]).save(tmp_path / "a.png")
    item = {"file_path": "a.png", "text": "a", "type": "image", "control_file_paths": {"canny": "a.png"}}
    (tmp_path / "metadata.json").write_text(json.dumps([item]))
    settings = DataSettings(metadata=str(tmp_path / "metadata.json"), control="trajectory")
    (refusal,) = read_metadata(settings, controls=True).refused
    assert refusal.reason == "has no trajectory map" and "it needs motion: leave images out" in refusal.fix
    (refusal,) = read_metadata(dataclasses.replace(settings, control="trajectory,lines"), controls=True).refused
    assert "name it in the recipe's controls" in refusal.fix


# -- what the network sees


def test_draws_follow_from_the_seed_in_the_shares_asked_for() -> None:
    row = TrainRow("a", Path("a.mp4"), "c", "video", controls=(("canny", Path("c")), ("lines", Path("l"))))
    settings = ControlSettings()
    drawn = [draw(row, {"canny": 3.0, "lines": 1.0}, settings, 9, seed) for seed in range(2000)]
    assert drawn == [draw(row, {"canny": 3.0, "lines": 1.0}, settings, 9, seed) for seed in range(2000)]
    assert np.mean([one.path == Path("c") for one in drawn]) == pytest.approx(0.75, abs=0.03)
    assert np.mean([one.sees_control for one in drawn]) == pytest.approx(0.8, abs=0.03)
    assert np.mean([one.sees_reference for one in drawn]) == pytest.approx(0.8, abs=0.03)
    others = np.array([one.reference_frame for one in drawn])
    assert np.mean(others == 0) == pytest.approx(0.4 + 0.6 / 9, abs=0.03)
    assert set(others.tolist()) == set(range(9))
    none = draw(row, {}, ControlSettings(zeroed=1.0, reference_zeroed=1.0, reference_first=1.0), 9, 3)
    assert (none.sees_control, none.sees_reference, none.reference_frame) == (False, False, 0)


def inputs_of(data: Path, spec: object, settings: ControlSettings, row: TrainRow) -> ControlInputs:
    vae = load_vae(data / "vae").eval().requires_grad_(False)
    decoders = Decoders(1)

    def encode_frames(frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean = encode(vae, to_signed(frames)) / vae.config.scaling_factor
        return mean, torch.zeros_like(mean)

    maps = MapLatents([row], lambda row, bucket: None, encode_frames, decoders)
    return ControlInputs([row], spec, {}, settings, maps, VideoFrames([row], decoders=decoders), vae)  # type: ignore[arg-type]


ALL = ControlSettings(zeroed=0.0, reference_zeroed=0.0, reference_first=1.0)


def condition(data: Path, spec: object, settings: ControlSettings, row: TrainRow) -> tuple[torch.Tensor, ControlInputs]:
    inputs, bucket = inputs_of(data, spec, settings, row), Bucket(5, 32, 32)
    frames = torch.from_numpy(read_frames(row, bucket))[None]
    mean = encode(inputs.vae, to_signed(frames)) / inputs.vae.config.scaling_factor
    made, unreadable = inputs(MicroBatch(bucket, (0,), (1.0,)), (7,), Batch((7,), torch.ones(1), mean=mean))
    assert unreadable == []
    return made, inputs


def test_the_network_sees_latents_of_the_map_and_of_the_reference(data: Path) -> None:
    out, bucket = data / "out", Bucket(5, 32, 32)
    row = read_metadata(DataSettings(metadata=str(out), control="canny"), controls=True).rows[0]
    made, inputs = condition(data, CONTROL_REFERENCE, ALL, row)
    drawn = read_frames(dataclasses.replace(row, path=row.controls[0][1]), bucket)
    expected = encode(inputs.vae, to_signed(torch.from_numpy(drawn)[None]))
    assert made.shape == (1, 32, 2, 4, 4) and close(made[:, :16], expected)
    first = encode(inputs.vae, to_signed(torch.from_numpy(read_frames(row, bucket)[:1])[None]))
    assert close(made[:, 16:, :1], first) and not made[:, 16:, 1:].any()
    other, _ = condition(data, CONTROL_REFERENCE, dataclasses.replace(ALL, reference_first=0.0), row)
    place = draw(row, {}, dataclasses.replace(ALL, reference_first=0.0), 5, 7).reference_frame
    frame = read_frames(row, bucket)[place, None]
    assert close(other[:, 16:, :1], encode(inputs.vae, to_signed(torch.from_numpy(frame)[None])))
    nothing, _ = condition(data, CONTROL, dataclasses.replace(ALL, zeroed=1.0), row)
    assert nothing.shape == (1, 16, 2, 4, 4) and not nothing.any()
    assert show_control(inputs.vae, CONTROL_REFERENCE, made).shape == (1, 5, 32, 32, 3)


def test_the_network_sees_the_poses_of_the_frames_that_are_taken(data: Path, tmp_path: Path) -> None:
    metadata = own(tmp_path, {"one": "one.txt"})
    path = preset_path("pan_left", FRAMES, fps=FPS)
    (tmp_path / "one.txt").write_text(path_text(path))
    settings = DataSettings(metadata=str(metadata), control="camera")
    row = read_metadata(settings, controls=True).rows[0]
    row = dataclasses.replace(row, num_frames=FRAMES, duration_s=FRAMES / FPS)
    made, inputs = condition(data, CAMERA_REFERENCE, ALL, row)
    taken = taken_path(path, row, Bucket(5, 32, 32))
    assert close(made[:, :6], camera_channels(taken, 32, 32, (2, 4, 4)), 1e-4)
    np.testing.assert_allclose(taken.poses[:, 0, 3], path.poses[[2, 7, 12, 17, 22], 0, 3])
    assert show_control(inputs.vae, CAMERA_REFERENCE, made).shape == (1, 5, 32, 32, 3)
    # the second half of the clip, as a window of its own; and a file whose timestamps say nothing
    half = dataclasses.replace(row, start_s=1.0, end_s=2.0, duration_s=1.0, num_frames=12)
    assert taken_path(path, half, Bucket(5, 32, 32)).poses[0, 0, 3] == path.poses[13, 0, 3]
    blank = CameraPath(np.zeros(FRAMES), path.intrinsics, path.poses)
    np.testing.assert_array_equal(taken_path(blank, row, Bucket(5, 32, 32)).poses, taken.poses)


def test_a_map_that_cannot_be_read_counts_nothing(data: Path, tmp_path: Path) -> None:
    (tmp_path / "gone.mp4").write_bytes(b"nothing")
    row = read_metadata(DataSettings(metadata=str(data / "out"), control="canny"), controls=True).rows[0]
    row = dataclasses.replace(row, controls=(("canny", tmp_path / "gone.mp4"),))
    inputs = inputs_of(data, CONTROL, ALL, row)
    batch = Batch((7,), torch.ones(1), mean=torch.zeros(1, 16, 2, 4, 4))
    made, unreadable = inputs(MicroBatch(Bucket(5, 32, 32), (0,), (1.0,)), (7,), batch)
    assert unreadable == [0] and not made.any() and row.row_id in inputs.frames.unreadable


# -- runs


@pytest.mark.parametrize(
    ("config", "more", "expected"),
    [
        ("train_control_tiny", ["model.transformer=PLAIN"], "or set control.widen=control to add channels"),
        ("train_control_tiny", ["control.widen=control"], "has condition channels already; set control.widen=null"),
        (
            "train_control_tiny",
            ["model.transformer=PLAIN", "control.widen=control", "lora.rank=4"],
            "control.widen: new channels are not trained by adapters",
        ),
        ("train_control_tiny", ["model.transformer=tiny-inpaint"], "train it with method: inpaint"),
        ("train_tiny", ["model.transformer=tiny-control"], "train it with method: control"),
        ("train_control_tiny", ["data.control=lines"], "has no lines map"),
        ("train_control_tiny", ["data.control=canny:x"], "write a name, as canny"),
        ("train_control_tiny", ["control.zeroed=2"], "zeroed: 2.0 is out of range"),
        ("train_camera_tiny", ["data.control=canny"], "is no camera path"),
    ],
)
def test_a_mistake_is_one_line_with_the_mend(
    data: Path, capsys: pytest.CaptureFixture[str], config: str, more: list[str], expected: str
) -> None:
    more = [word.replace("PLAIN", str(data / "plain")) for word in more]
    assert expected in said(capsys, words(data, "plan", "--data", data / "out", *more, config=config))


@pytest.mark.slow
def test_a_run_on_an_output_of_curate_goes_on_and_equals_one_without_cache(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    same = ["--data", data / "out", "data.control=canny:1,gray:1", "model.transformer=tiny-control-reference"]
    cache = f"train.cache={tmp_path / 'cache'}"
    whole = train(data, tmp_path / "whole", *same, "train.steps=4", cache)
    assert "control maps: canny of 4 rows, gray of 4 rows" in capsys.readouterr().out
    for steps in (1, 4):
        halves = train(data, tmp_path / "halves", *same, f"train.steps={steps}", cache)
    one, other = (load_weights(checkpoints(run)[-1] / "transformer") for run in (whole, halves))
    assert all(close(one[name], other[name]) for name in one)
    direct = train(data, tmp_path / "direct", *same, "train.steps=4", "train.cache=none")
    assert losses(direct) == pytest.approx(losses(whole), rel=1e-4)
    prepared = read_rows(whole / "rows.parquet")
    assert {name for row in prepared.train for name, _ in row.controls} == {"canny", "gray"}
    assert len(prepared.content_ids) == 12
    assert (whole / "first_batch" / "micro_batch_0.png").is_file()
    index = json.loads((whole / "model" / "model_index.json").read_text())
    assert index["_class_name"] == "EasyAnimateControlPipeline"


def test_a_text_to_video_model_is_widened_by_what_it_shall_see(data: Path, tmp_path: Path) -> None:
    plain = f"model.transformer={data / 'plain'}"
    run = train(
        data, tmp_path / "run", "--data", data / "out", plain, "control.widen=control_reference", "train.steps=2",
        "watch.prompts=[a disc]", "watch.sample_every=2", "watch.sample_steps=2",
    )  # fmt: skip
    config = json.loads((run / "model" / "transformer" / "config.json").read_text())
    assert config["in_channels"] == 48
    assert (run / "samples" / "step-00000002.png").is_file()
    weights = load_weights(checkpoints(run)[-1] / "transformer")["proj.weight"]
    assert weights.shape[1] == 48 and weights[:, 16:].any(), "the new channels learn"


def test_a_camera_model_trains_on_paths(data: Path, tmp_path: Path) -> None:
    metadata = own(tmp_path / "own", {name: f"{name}.txt" for name in ("one", "two")})
    for name, preset in (("one", "pan_left"), ("two", "zoom_in")):
        (tmp_path / "own" / f"{name}.txt").write_text(path_text(preset_path(preset, FRAMES, fps=FPS)))
    run = train(data, tmp_path / "run", "--data", metadata, "train.steps=3", config="train_camera_tiny")
    assert len(losses(run)) == 3 and all(np.isfinite(losses(run)))


def test_a_plan_warns_of_empty_maps_with_their_share(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_clips(tmp_path / "footage", CLIPS)
    write_mp4(np.full((FRAMES, SIZE, SIZE, 3), 60, np.uint8), FPS, tmp_path / "footage" / "blank.mp4")
    recipe = data / "recipe.yaml"
    curate(tmp_path / "footage", "--config", recipe, out=tmp_path / "out")
    command = words(data, "plan", "--data", tmp_path / "out", "data.control=canny,gray", "data.validation=0")
    amounts = [row["control_canny_amount"] for row in rows_of(tmp_path / "out").values()]
    count, bare = len(amounts), sum(amount < 0.001 for amount in amounts)
    assert 0 < bare < count
    wanted = f"warning: the canny map of {bare} of {count} clips ({bare / count:.0%}) is empty; leave them out with "
    capsys.readouterr()
    assert run_pipeline.main(command) == 0
    assert wanted in capsys.readouterr().out
    assert run_pipeline.main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rows"]["empty_maps"]["canny"] == {"clips": bare, "of": count, "share": bare / count}
    assert any(note.startswith(wanted) for note in found["notes"])
    assert run_pipeline.main([*command, "--json", "data.where=control_canny_amount >= 0.001"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"]["empty_maps"] == {}
