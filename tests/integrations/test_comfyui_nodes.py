"""The nodes at work: workflows run by ComfyUI's rules, and what they make beside what the command line makes."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from comfy_rules import (
    CORE_NODES,
    PreviewAny,
    as_prompt,
    load_custom_node,
    read_video,
    read_workflow,
    run_prompt,
    stand_in,
)
from footage import pan, write
from pipelines import half_mask, moving, picture, write_pipeline
from runs import curate, rows_of

import run_pipeline
from controls import CONTROLS
from controls.frames import map_makers
from core.errors import UserError
from curation.find.selection import write_selection
from integrations.comfyui import models
from integrations.comfyui.clips import select_clips
from integrations.comfyui.examples import FOLDER
from integrations.comfyui.pixels import frames_file, from_image, from_mask, to_image
from integrations.comfyui.save import save
from integrations.comfyui.score import SCORES, score_video
from integrations.comfyui.table import NODES
from sampling.media import look
from sampling.pictures import write_lossless
from sampling.request import Options

torch.set_num_threads(1)
ROOT = Path(__file__).resolve().parents[2]
QUICK = {"width": 48, "height": 48, "num_frames": 5, "steps": 2, "guidance": 1.0, "seed": 7}
WORDS = ["--size", "48x48", "--frames", "5", "--steps", "2", "--guidance", "1", "--seed", "7"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a made-up folder of ComfyUI: two models, and pictures, a video and a mask in its input folder."""
    base = tmp_path_factory.mktemp("comfyui")
    write_pipeline(base / "models" / "EasyAnimate" / "plain")
    for name, channels in (("inpaint", 33), ("control", 32), ("camera", 38), ("reference", 48)):
        write_pipeline(base / "models" / "Selects" / name, in_channels=channels)
    (base / "input").mkdir()
    picture(base / "input" / "first.png")
    picture(base / "input" / "last.png", seed=5)
    moving(base / "input" / "video.mp4")
    half_mask(base / "input" / "mask.png")
    (base / "custom_nodes").mkdir()
    (base / "custom_nodes" / "selects").symlink_to(ROOT / "integrations" / "comfyui")
    return base


@pytest.fixture
def comfy(base: Path) -> Iterator[dict[str, type]]:
    """Yield the classes of all nodes, in a process that has ComfyUI's modules."""
    models._HELD.clear()
    with stand_in(base):
        yield CORE_NODES | load_custom_node(base / "custom_nodes" / "selects")[1]
    PreviewAny.SHOWN.clear()


def run_example(name: str, classes: dict[str, type], values: dict[str, dict[str, Any]]) -> tuple[dict, dict]:
    """Run an example workflow with other values of some fields, by type of node; return the prompt and what it gave."""
    prompt = as_prompt(read_workflow(FOLDER / f"{name}.json"), classes)
    for node in prompt.values():
        node["inputs"] |= values.get(node["class_type"], {})
    return prompt, run_prompt(prompt, classes)


def sampled(base: Path, model: str, out: Path, *words: str | Path) -> Path:
    """Sample on the command line; return the file."""
    arguments = ["sample", base / "models" / model, "--prompt", "a square moves", "--output", out, *WORDS, *words]
    assert run_pipeline.main([str(word) for word in arguments]) == 0
    return out


def frames_of(base: Path, model: str, **asked: Any) -> np.ndarray:
    """Return the frames that the sampler's API makes of the same settings, uint8 (T, H, W, 3)."""
    from sampling.model import open_model
    from sampling.request import Request

    request = Request("a square moves", width_px=48, height_px=48, num_frames=5, steps=2, guidance=1.0, seed=7, **asked)
    return open_model(base / "models" / model, Options(maps=map_makers(CONTROLS))).sample(request).frames


def images_of(done: dict, prompt: dict, node: str) -> np.ndarray:
    (number,) = [number for number, one in prompt.items() if one["class_type"] == node]
    (images,) = done[number][0]
    assert images.dtype == torch.float32 and images.ndim == 4 and images.min() >= 0 and images.max() <= 1
    return from_image(images)


def saved(base: Path) -> Path:
    return max((base / "output" / "selects").glob("sample_*.mp4"), key=lambda path: path.name)


@pytest.mark.slow
def test_text_to_video_gives_the_frames_and_the_file_of_sample(
    comfy: dict[str, type], base: Path, tmp_path: Path
) -> None:
    asked = QUICK | {"prompt": "a square moves"}
    values = {"SelectsLoadModel": {"model": "plain"}, "SelectsTextToVideo": asked}
    prompt, done = run_example("text_to_video", comfy, values)
    assert np.array_equal(images_of(done, prompt, "SelectsTextToVideo"), frames_of(base, "EasyAnimate/plain"))
    theirs = sampled(base, "EasyAnimate/plain", tmp_path / "a.mp4")
    assert saved(base).read_bytes() == theirs.read_bytes()
    assert json.loads(saved(base).with_suffix(".json").read_text()) == json.loads(
        theirs.with_suffix(".json").read_text()
    )
    (video,) = done["2"][2]
    assert (len(video.get_components().images), float(video.get_components().frame_rate)) == (5, 8.0)
    before = saved(base)
    run_example("text_to_video", comfy, values)
    assert saved(base) != before and saved(base).read_bytes() == before.read_bytes(), "the next number, the same bytes"


@pytest.mark.slow
def test_image_to_video_gives_the_frames_of_sample(comfy: dict[str, type], base: Path) -> None:
    asked = QUICK | {"prompt": "a square moves"}
    values = {"SelectsLoadModel": {"model": "inpaint"}, "SelectsImageToVideo": asked}
    prompt, done = run_example("image_to_video", comfy, values)
    first = base / "input" / "first.png"
    assert np.array_equal(
        images_of(done, prompt, "SelectsImageToVideo"), frames_of(base, "Selects/inpaint", image=first)
    )
    node = comfy["SelectsImageToVideo"]
    (model,) = (
        comfy["SelectsLoadModel"]
        .execute(model="inpaint", memory="auto", vae_tiling=False, cache_threshold=0.0, fuse_loras=False)
        .args
    )
    ends = [CORE_NODES["LoadImage"]().load(name)[0] for name in ("first.png", "last.png")]
    usual = {port.name: port.default for one in NODES for port in one.inputs if one.id == "SelectsImageToVideo"}
    made = node.execute(**usual | asked | {"model": model, "image": ends[0], "end_image": ends[1]}).args[0]
    both = frames_of(base, "Selects/inpaint", image=first, end_image=base / "input" / "last.png")
    assert np.array_equal(from_image(made), both)


@pytest.mark.slow
def test_video_to_video_gives_the_frames_of_sample(comfy: dict[str, type], base: Path) -> None:
    asked = QUICK | {"prompt": "a square moves", "strength": 0.5}
    values = {"SelectsLoadModel": {"model": "inpaint"}, "SelectsVideoToVideo": asked}
    prompt, done = run_example("video_to_video", comfy, values)
    files = {"video": base / "input" / "video.mp4", "mask": base / "input" / "mask.png"}
    theirs = frames_of(base, "Selects/inpaint", strength=0.5, **files)
    assert np.array_equal(images_of(done, prompt, "SelectsVideoToVideo"), theirs)
    # Frames in place of a file: those of a file without loss are the file's own.
    lossless = base / "input" / "lossless.mp4"
    write_lossless(np.stack(list(pan(24, (48, 48)))), 8.0, lossless)
    images, rate = read_video(lossless)
    usual = {port.name: port.default for one in NODES for port in one.inputs if one.id == "SelectsVideoToVideo"}
    (model,) = done["1"][0]
    given = {"model": model, "images": images, "images_fps": float(rate)}
    made = comfy["SelectsVideoToVideo"].execute(**usual | asked | given).args[0]
    assert np.array_equal(from_image(made), frames_of(base, "Selects/inpaint", strength=0.5, video=lossless))
    with pytest.raises(UserError, match="one of them"):
        comfy["SelectsVideoToVideo"].execute(**usual | asked | {"model": model})


@pytest.mark.slow
def test_control_camera_and_trajectory_give_the_frames_of_sample(comfy: dict[str, type], base: Path) -> None:
    asked = QUICK | {"prompt": "a square moves"}
    values = {
        "SelectsLoadModel": {"model": "control"},
        "SelectsControlToVideo": asked | {"control_end": 0.5, "control_kind": "soft_edges"},
    }
    prompt, done = run_example("control_to_video", comfy, values)
    edges = {"control": base / "input" / "video.mp4", "control_kind": "soft_edges"}
    made = images_of(done, prompt, "SelectsControlToVideo")
    assert np.array_equal(made, frames_of(base, "Selects/control", control_end=0.5, **edges))
    assert not np.array_equal(made, frames_of(base, "Selects/control", **edges)), "the settings matter"

    (model,) = done["1"][0]
    ports = {one.id: {port.name: port.default for port in one.inputs} for one in NODES}
    points = "[[4, 10], [40, 30]]"
    usual = ports["SelectsTrajectoryToVideo"] | asked | {"model": model, "points": points}
    (base / "points.json").write_text(points)
    theirs = frames_of(base, "Selects/control", trajectory=base / "points.json")
    assert np.array_equal(from_image(comfy["SelectsTrajectoryToVideo"].execute(**usual).args[0]), theirs)

    values = {"SelectsLoadModel": {"model": "camera"}, "SelectsCameraToVideo": asked | {"camera_speed": 2.0}}
    prompt, done = run_example("camera_to_video", comfy, values)
    made = images_of(done, prompt, "SelectsCameraToVideo")
    assert np.array_equal(made, frames_of(base, "Selects/camera", camera="pan_left", camera_speed=2.0))
    (model,) = done["1"][0]
    usual = ports["SelectsCameraToVideo"] | asked | {"model": model, "camera": "file"}
    with pytest.raises(UserError, match="no file is named"):
        comfy["SelectsCameraToVideo"].execute(**usual)

    (model,) = models.load("reference", "auto", 0.0, vae_tiling=False, fuse_loras=False)
    look = CORE_NODES["LoadImage"]().load("last.png")[0]
    film, rate = read_video(base / "input" / "video.mp4")
    usual = ports["SelectsControlToVideo"] | asked | {"model": model, "reference": look, "images": film}
    made = comfy["SelectsControlToVideo"].execute(**usual | {"images_fps": float(rate)}).args[0]
    lossless = base / "film.mp4"
    write_lossless(from_image(film), float(rate), lossless)
    theirs = frames_of(base, "Selects/reference", control=lossless, reference=base / "input" / "last.png")
    assert np.array_equal(from_image(made), theirs)


@pytest.mark.slow
def test_a_run_is_cancelled_at_a_step_and_the_model_stays_usable(comfy: dict[str, type], base: Path) -> None:
    from comfy import model_management, utils

    asked = QUICK | {"prompt": "a square moves", "steps": 4}
    values = {"SelectsLoadModel": {"model": "plain"}, "SelectsTextToVideo": asked}
    model_management.UNLOADED.clear()
    utils.SHOWN.clear()
    model_management.INTERRUPT_AT[:] = [3]
    with pytest.raises(model_management.InterruptProcessingException):
        run_example("text_to_video", comfy, values)
    assert utils.SHOWN == [(1, 4), (2, 4)], "two steps were told of, and none after the cancel"
    run_example("text_to_video", comfy, values)
    assert utils.SHOWN[-1] == (4, 4)
    assert len(model_management.UNLOADED) == 1, "the model was loaded once, and ComfyUI's own made room before"
    values["SelectsLoadModel"] = {"model": "inpaint"}
    run_example("text_to_video", comfy, values)
    assert [choice.folder.name for choice, _ in models._HELD] == ["inpaint"], "one model is held at a time"


def test_a_model_is_checked_when_it_is_named(comfy: dict[str, type], base: Path, tmp_path: Path) -> None:
    usual = {"memory": "auto", "vae_tiling": False, "cache_threshold": 0.0, "fuse_loras": False}
    with pytest.raises(UserError, match=r"model 'nowhere'.*there are: camera, control, inpaint, plain, reference"):
        models.load("nowhere", **usual)
    with pytest.raises(UserError, match="no such folder"):
        models.load("", **usual)
    with pytest.raises(UserError, match="lora none"):
        models.load("plain", **usual, loras="none.safetensors:0.5")
    (choice,) = models.load(str(base / "models" / "EasyAnimate" / "plain"), **usual)
    assert choice == models.load("plain", **usual)[0], "a name stands for its folder"
    before = models.model_changed("plain", **usual)
    (base / "models" / "EasyAnimate" / "plain" / "sampling.json").touch()
    assert models.model_changed("plain", **usual) != before


@pytest.mark.parametrize("count", [1, 9])
def test_frames_come_back_from_their_file_as_they_were(tmp_path: Path, monkeypatch, count: int) -> None:
    monkeypatch.setattr("integrations.comfyui.pixels.temporary_folder", lambda: tmp_path)
    frames = np.random.default_rng(0).integers(0, 256, (count, 32, 48, 3), dtype=np.uint8)
    assert np.array_equal(from_image(to_image(frames)), frames)
    file = frames_file(frames, 12.5)
    medium = look("video", file)
    from models.geometry import Bucket, LatentGrid

    assert np.array_equal(medium.read(Bucket(count, 32, 48, LatentGrid(1, 8, 2))), frames)
    assert frames_file(frames, 12.5) == file and (count == 1 or frames_file(frames, 12.0) != file)
    if count > 1:
        assert medium.file.extent.duration_s == pytest.approx(count / 12.5, abs=1e-3)


def test_masks_are_pictures_whose_white_is_one() -> None:
    mask = torch.zeros(2, 4, 4)
    mask[1, :, 2:] = 1.0
    assert from_mask(mask).shape == (2, 4, 4, 3) and from_mask(mask[1]).shape == (1, 4, 4, 3)
    assert from_mask(mask)[1, 0].tolist() == [[0] * 3, [0] * 3, [255] * 3, [255] * 3]


# -- clips and scores


@pytest.fixture(scope="module")
def curated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Curate three drawn films of rising speed, in grey, and one picture, with control maps of their edges."""
    folder = tmp_path_factory.mktemp("curated")
    (folder / "films").mkdir()
    for speed in (1, 3, 6):
        grey = [np.repeat(frame[..., :1], 3, axis=2) for frame in pan(96, seed=speed, step_px=speed)]
        write(folder / "films" / f"film-{speed}.mp4", grey)
    picture(folder / "films" / "still.png", 160, 96)
    operators = {"facts": {}, "motion": {}, "sharpness": {}, "brightness": {}, "frozen": {}, "temporal_hash": {}}
    recipe = {"operators": operators, "rules": {}, "controls": {"canny": {}}}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    curate(folder / "films", "--config", folder / "recipe.yaml", out=folder / "out")
    return folder / "out"


def selected(out: Path, where: str = "", **other: Any) -> tuple[list[Any], ...]:
    usual = {"limit": 8, "offset": 0, "frames": 5, "short_side": 96, "control": "none"}
    return select_clips(str(out), where, **usual | other)


def test_clips_are_selected_as_train_would_select_them(curated: Path, tmp_path: Path) -> None:
    rows = rows_of(curated)
    images, masks, captions, rates, ids = selected(curated)
    assert set(ids) == set(rows) and all(rows[one]["status"] == "accepted" for one in ids)
    assert [rows[one]["caption"] for one in ids] == captions
    for clip_id, image, mask, rate in zip(ids, images, masks, rates, strict=True):
        count = 5 if rows[clip_id]["type"] == "video" else 1
        assert image.shape == (count, 96, 160, 3) and mask.shape == (count, 96, 160) and not mask.any()
        assert rate == pytest.approx(5 / rows[clip_id]["duration_s"] if count > 1 else 1.0, rel=0.02)
    fast = sorted((row["motion"], one) for one, row in rows.items() if row["motion"] is not None)[-1][1]
    limit = rows[fast]["motion"] * 0.99
    assert selected(curated, f"motion > {limit}")[4] == [fast]
    assert len(selected(curated, limit=2)[4]) == 2 and selected(curated, offset=3)[4] == ids[3:]
    write_selection(tmp_path / "picked.txt", [ids[2], ids[0], "unknown"], "two")
    assert selected(curated, clips=str(tmp_path / "picked.txt"))[4] == [ids[2], ids[0]]
    for wrong, line in (("motion > 1e9", "no accepted clip"), ("moton > 1", "no column 'moton'"), ("motion", "number")):
        with pytest.raises(UserError, match=line):
            selected(curated, wrong)
    with pytest.raises(UserError, match="no table"):
        selected(tmp_path)


def test_masks_are_the_maps_of_the_clips(curated: Path) -> None:
    images, masks, *_ = selected(curated, "type == 'video'", control="canny")
    for image, mask in zip(images, masks, strict=True):
        assert mask.shape == image.shape[:3] and 0.01 < mask.mean() < 0.9
        grey = image.mean(dim=3)
        steps = (grey[:, :, 1:] - grey[:, :, :-1]).abs()
        on_edge = mask[:, :, 1:] > 0.5
        assert steps[on_edge].mean() > steps[~on_edge].mean(), "edges lie where brightness changes"
    with pytest.raises(UserError, match="no gray maps"):
        selected(curated, control="gray")


@pytest.mark.parametrize("name", ["motion", "sharpness", "brightness", "frozen"])
def test_scores_are_those_of_the_table(curated: Path, name: str) -> None:
    """From decoded pixels in place of the decoder's planes, which moves a score by rounding alone."""
    for row in rows_of(curated).values():
        if row["type"] != "video":
            continue
        images, rate = read_video(curated.parent / "films" / row["source_path"])
        images = images[row["start_frame"] : row["start_frame"] + row["num_frames"]]
        score, told = score_video(images, name, float(rate))
        assert score == pytest.approx(row[name], rel=0.02, abs=0.01), (name, row["source_path"])
        assert json.loads(told)[name] == score


def test_what_cannot_be_scored_is_said() -> None:
    still, film = torch.rand(1, 64, 64, 3), torch.rand(8, 64, 64, 3)
    with pytest.raises(UserError, match="looks at no image"):
        score_video(still, "motion", 8.0)
    with pytest.raises(UserError, match="no column 'sharp'"):
        score_video(still, "sharpness", 8.0, column="sharp")
    with pytest.raises(UserError, match="YAML"):
        score_video(still, "sharpness", 8.0, settings="a: [")
    with pytest.raises(UserError, match="rate"):
        score_video(film, "motion", 8.0, settings="rate: 2")
    black, told = score_video(torch.zeros(8, 64, 64, 3), "temporal_hash", 8.0)
    assert math.isnan(black) and json.loads(told) == {"temporal_hash": None}


@pytest.mark.slow
def test_every_score_that_needs_no_weights_gives_something(curated: Path) -> None:
    from operators import OPERATORS

    images, rate = read_video(next((curated / "train").glob("*.mp4")))
    for name in SCORES:
        operator = OPERATORS[name]()
        if getattr(operator, "needs", ()) or getattr(operator, "wheel", None) or name == "text_area":
            continue
        _, told = score_video(images, name, float(rate))
        assert set(json.loads(told)) <= {*operator.writes} and json.loads(told), name


def test_curate_and_score_runs_once_for_each_clip(comfy: dict[str, type], curated: Path) -> None:
    where = "type == 'video'"
    values = {"SelectsSelectClips": {"output": str(curated), "where": where, "frames": 9}}
    prompt, done = run_example("curate_and_score", comfy, values)
    scores, ids = done["2"][0], done["1"][4]
    assert len(scores) == len(ids) == 3 and all(math.isfinite(score) for score in scores)
    assert [*scores, *done["1"][2]] == PreviewAny.SHOWN
    again = [score_video(images, "sharpness", fps)[0] for images, fps in zip(done["1"][0], done["1"][3], strict=True)]
    assert scores == again


def test_files_stay_within_the_output_folder(comfy: dict[str, type], base: Path) -> None:
    settings = {"fps": 8.0, "prompt": "a", "seed": 1}
    made = save(torch.rand(1, 16, 16, 3), settings, "some/folder/name")
    assert made["ui"]["images"] == [{"filename": "name_00001.png", "subfolder": "some/folder", "type": "output"}]
    assert (base / "output" / "some" / "folder" / "name_00001.json").is_file()
    for prefix in ("../out", "/tmp/x", "a/../../b", "."):
        with pytest.raises(UserError, match="leads out of the output folder"):
            save(torch.rand(1, 16, 16, 3), settings, prefix)
    with pytest.raises(UserError, match="sides must be even"):
        save(torch.rand(2, 15, 16, 3), settings, "odd")
