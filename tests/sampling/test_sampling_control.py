"""Sampling steered by maps, cameras, points and references: as diffusers does it, in parts, long, and mistakes."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from closeness import close, close_pixels
from diffusers import EasyAnimateControlPipeline, FlowMatchEulerDiscreteScheduler
from pipelines import moving, picture, write_pipeline

import run_pipeline
from cli.sample import DRAWN
from controls import CONTROLS
from controls.frames import map_makers
from controls.networks import MapNetwork
from models.conditions.camera_path import path_text, preset_path
from models.conditions.plucker import plucker_maps
from models.conditions.trajectory import read_trajectory
from models.denoise.generate import Course, Denoiser, Prompted, generate_latents
from models.errors import ModelError
from models.geometry import Bucket
from models.vae.video_vae import to_signed
from sampling.control import empty_share, fitted, look_at_control, read_control
from sampling.model import OpenModel, open_model
from sampling.modes import read_pixels, steered
from sampling.request import Options, Request

torch.set_num_threads(1)
MAPS = map_makers(CONTROLS)
KINDS = {"plain": 16, "control": 32, "reference": 48, "camera": 38, "inpaint": 33}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline of each kind, and media."""
    folder = tmp_path_factory.mktemp("pipelines")
    for name, channels in KINDS.items():
        write_pipeline(folder / name, channels)
    moving(folder / "film.mp4")
    moving(folder / "short.mp4", num_frames=4)
    picture(folder / "still.png")
    picture(folder / "look.png", seed=4)
    (folder / "points.json").write_text("[[4, 10], [40, 30]]")
    (folder / "path.txt").write_text(path_text(preset_path("zoom_in", 9)))
    return folder


@pytest.fixture(scope="module")
def models(folder: Path) -> dict[str, OpenModel]:
    return {name: open_model(folder / name, Options(maps=MAPS)) for name in KINDS}


def ask(**given: object) -> Request:
    return Request("a disc", steps=2, guidance=2.0, **given)  # type: ignore[arg-type]


def latents_of(model: OpenModel, request: Request) -> torch.Tensor:
    """What `sample` makes before it decodes, of one segment."""
    job = model.check(request)
    model.prepare([job])
    networks, channels = model._networks, 16
    vae, pixels = networks.vae, read_pixels(job, MAPS)
    condition, acting = steered(vae, model.facts.spec, job, pixels)
    with networks.placement.computing("transformer") as transformer:
        return generate_latents(
            Denoiser(networks.family, transformer, FlowMatchEulerDiscreteScheduler(shift=2.0)),
            Prompted(replace(model._texts["a disc"], latents=condition), model._texts[""], 2.0),
            (channels, *job.bucket.latent_shape),
            Course(2, acting=acting),
            torch.Generator().manual_seed(0),
        )


def mended(folder: Path, monkeypatch: pytest.MonkeyPatch) -> EasyAnimateControlPipeline:
    """Diffusers' pipeline, which passes `encode_prompt` an argument too many, and lacks what it calls to decode."""
    whole = EasyAnimateControlPipeline.encode_prompt
    monkeypatch.setattr(
        EasyAnimateControlPipeline,
        "encode_prompt",
        lambda self, *args, text_encoder_index=0, **words: whole(self, *args, **words),
    )
    monkeypatch.setattr(
        EasyAnimateControlPipeline,
        "decode_latents",
        lambda self, latents: self.vae.decode(latents / self.vae.config.scaling_factor, return_dict=False)[0],
        raising=False,
    )
    pipeline = EasyAnimateControlPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.parametrize("kind", ["reference", "camera"])
def test_published_layouts_sample_as_diffusers_does(
    folder: Path, models: dict[str, OpenModel], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    model, look = models[kind], folder / "look.png"
    given: dict[str, object] = {"camera": "pan_left"} if kind == "camera" else {"control": folder / "film.mp4"}
    request = ask(reference=look, **given)
    job = model.check(request)
    ours = latents_of(model, request)
    pixels = read_pixels(job, MAPS)
    assert pixels.reference is not None
    words: dict[str, torch.Tensor] = {}
    if pixels.camera is not None:
        maps = torch.from_numpy(plucker_maps(pixels.camera, 48, 48)).float()
        words["control_camera_video"] = maps.permute(3, 0, 1, 2)[None]
    if pixels.control is not None:
        words["control_video"] = (to_signed(torch.from_numpy(pixels.control)[None]) + 1) / 2
    reference = (to_signed(torch.from_numpy(pixels.reference.copy())[None]) + 1) / 2
    texts = [model._texts[text].text for text in ("a disc", "")]
    ones = torch.ones(1, texts[0].shape[1])
    pipeline = mended(folder / kind, monkeypatch)
    same = partial(
        pipeline, None, prompt_embeds=texts[0], negative_prompt_embeds=texts[1], prompt_attention_mask=ones,
        negative_prompt_attention_mask=ones, ref_image=reference, num_frames=9, height=48, width=48,
        num_inference_steps=2, guidance_scale=2.0, **words,
    )  # fmt: skip
    theirs = same(generator=torch.Generator().manual_seed(0), output_type="latent").frames
    assert close(ours, theirs, 1e-4)
    frames = same(generator=torch.Generator().manual_seed(0), output_type="np").frames
    decoded = pipeline.vae.decode(ours / pipeline.vae.config.scaling_factor, return_dict=False)[0]
    wanted = (decoded / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 4, 1).detach().numpy()
    assert close(torch.from_numpy(np.asarray(frames)), torch.from_numpy(wanted), 1e-3)
    without = latents_of(model, ask())
    assert not torch.allclose(ours, without, atol=1e-2)


def test_each_part_changes_the_sample_and_scale_0_or_no_steps_are_without(
    folder: Path, models: dict[str, OpenModel]
) -> None:
    model = models["reference"]
    film = {"control": folder / "film.mp4"}
    plain, controlled = latents_of(model, ask()), latents_of(model, ask(**film))
    assert not torch.allclose(plain, controlled, atol=1e-2)
    for without in ({"control_scale": 0.0}, {"control_start": 1.0}, {"control_end": 0.0}):
        assert close(latents_of(model, ask(**film, **without)), plain)
    half, strong = latents_of(model, ask(**film, control_end=0.5)), latents_of(model, ask(**film, control_scale=3.0))
    assert not torch.allclose(half, controlled, atol=1e-3) and not torch.allclose(half, plain, atol=1e-3)
    assert not torch.allclose(strong, controlled, atol=1e-3)
    look = latents_of(model, ask(reference=folder / "look.png"))
    assert not torch.allclose(look, plain, atol=1e-2)
    assert close(latents_of(model, ask(reference=folder / "look.png", control_scale=0.0, **film)), look)


def control_of(model: OpenModel, request: Request, frames: int = 9) -> np.ndarray:
    steering = look_at_control(request, model.facts.spec, MAPS)
    steering = fitted(steering, request, frames, 8.0, Bucket(9, 48, 48), MAPS)
    pixels = read_control(steering, frames, 8.0, Bucket(9, 48, 48), MAPS)
    assert pixels is not None and pixels.shape == (frames, 48, 48, 3) and pixels.dtype == np.uint8
    return pixels


def test_maps_are_made_of_footage_on_the_spot(folder: Path, models: dict[str, OpenModel]) -> None:
    model = models["control"]
    footage = control_of(model, ask(control=folder / "film.mp4"))
    edges = control_of(model, ask(control=folder / "film.mp4", control_kind="canny"))
    grays = control_of(model, ask(control=folder / "film.mp4", control_kind="gray"))
    assert np.ptp(grays.astype(int), axis=3).max() == 0
    np.testing.assert_allclose(grays[..., 0], footage @ np.array([0.2126, 0.7152, 0.0722]), atol=3)
    drawn = MAPS["canny"](footage, 8.0)[0]
    assert drawn is not None and edges.any() and np.array_equal(edges, drawn)
    assert set(DRAWN) == {name for name, control in CONTROLS.items() if control.suffix != "txt"}
    for kind in DRAWN:
        if isinstance(CONTROLS[kind](), MapNetwork):  # with weights; see tests/controls
            continue
        control_of(model, ask(control=folder / "film.mp4", control_kind=kind))


def test_footage_larger_than_the_video_is_drawn_at_its_size(models: dict[str, OpenModel], tmp_path: Path) -> None:
    moving(tmp_path / "large.mp4", size=160)
    drawn = control_of(models["control"], ask(control=tmp_path / "large.mp4", control_kind="canny"))
    assert np.mean((drawn > 0) & (drawn < 255)) > 0, "thin edges of a larger picture are grey when it is made smaller"


def test_points_become_the_published_maps(folder: Path, models: dict[str, OpenModel]) -> None:
    maps = control_of(models["control"], ask(trajectory=folder / "points.json"))
    trajectory = read_trajectory("[[4, 10], [40, 30]]", "x")
    np.testing.assert_array_equal(maps[..., 0], trajectory.maps(9, 48, 48))
    np.testing.assert_array_equal(maps[..., 0], maps[..., 2])


def told(model: OpenModel, request: Request) -> str:
    job = model.check(request)
    model.take_notes()
    model.sample(job)
    return " | ".join(model.take_notes())


def test_another_length_and_an_empty_map_are_told(folder: Path, models: dict[str, OpenModel], tmp_path: Path) -> None:
    model = models["control"]
    assert "lasts 3.00 s: its first 1.12 s are used" in told(model, ask(control=folder / "film.mp4"))
    assert "lasts 0.50 s: it is stretched to the video's 1.12 s" in told(model, ask(control=folder / "short.mp4"))
    assert "one image: it holds for all frames" in told(model, ask(control=folder / "still.png"))
    (tmp_path / "out.json").write_text("[[-900, -900], [-900, -900]]")
    assert "empty in 100% of its frames" in told(model, ask(trajectory=tmp_path / "out.json"))
    (tmp_path / "path.txt").write_text(path_text(preset_path("zoom_in", 30)))
    camera = ask(camera=str(tmp_path / "path.txt"))
    assert "has 30 poses: they are spread over the video's 9 frames" in told(models["camera"], camera)
    half = np.zeros((4, 8, 8, 3), np.uint8)
    half[:2, 2:4] = 255
    assert empty_share(half) == 0.5


def test_a_long_video_takes_each_part_of_its_control(folder: Path, models: dict[str, OpenModel]) -> None:
    model = models["control"]
    request = ask(control=folder / "film.mp4", segments=2, overlap=5)
    sample = model.sample(request)
    assert len(sample.frames) == 13 == model.check(request).whole_frames
    given = read_pixels(model.check(request), MAPS)
    assert given.control is not None and len(given.control) == 13
    assert not np.array_equal(given.control[0], given.control[4])
    other = model.sample(ask(segments=2, overlap=5))
    assert not close_pixels(sample.frames, other.frames)
    camera = models["camera"].sample(ask(camera="zoom_in", segments=2, overlap=5))
    assert len(camera.frames) == 13


@pytest.mark.parametrize("memory", ["sequential_cpu_offload", "model_cpu_offload"])
def test_memory_modes_give_the_same_sample(folder: Path, models: dict[str, OpenModel], memory: str) -> None:
    request = ask(control=folder / "film.mp4", reference=folder / "look.png")
    expected = models["reference"].sample(request).frames
    other = open_model(folder / "reference", Options(maps=MAPS, memory=memory))
    assert close_pixels(other.sample(request).frames, expected)


def test_a_camera_is_told_by_a_preset_a_file_or_footage(folder: Path, models: dict[str, OpenModel]) -> None:
    model = models["camera"]

    def path_of(camera: str, speed: float = 1.0) -> np.ndarray:
        path = model.check(ask(camera=camera, camera_speed=speed)).steering.camera
        assert path is not None and len(path) == 9
        return path.poses

    np.testing.assert_allclose(path_of(str(folder / "path.txt")), path_of("zoom_in"), atol=1e-8)
    np.testing.assert_allclose(path_of("zoom_in", 2.0)[:, 2, 3], 2 * path_of("zoom_in")[:, 2, 3])
    np.testing.assert_allclose(path_of(str(folder / "path.txt"), 2.0), path_of("zoom_in", 2.0), atol=1e-8)
    assert not close(latents_of(model, ask(camera="zoom_in")), latents_of(model, ask(camera="zoom_out")), 1e-4)


@pytest.mark.parametrize(
    ("kind", "given", "expected"),
    [
        ("plain", {"control": "film.mp4"}, "control: this model (text_to_video) has no channels to see it by"),
        ("inpaint", {"trajectory": "points.json"}, "trajectory: this model (inpaint) has no channels"),
        ("control", {"reference": "look.png"}, "reference: this model (control) has no channels"),
        (
            "control",
            {"camera": "zoom_in"},
            "camera: this model (control) has no channels to see it by; take a",
        ),
        ("camera", {"control": "film.mp4"}, "control: this model (camera_reference) has no channels"),
        ("camera", {"camera": "zoom"}, "camera zoom: neither a file nor one of static, pan_left"),
        ("camera", {"camera": "points.json"}, "points.json: "),
        ("camera", {"camera": "broken.txt"}, "broken.txt:2, column 3: 'x' is no number"),
        ("camera", {"camera": "still.png"}, "give a path (.txt), a video that shows one"),
        ("control", {"control": "film.mp4", "trajectory": "points.json"}, "both take the place of the control map"),
        ("control", {"control": "gone.mp4"}, "control gone.mp4: no such file"),
        (
            "control",
            {"control": "film.mp4", "control_kind": "cany"},
            "control_kind cany: there is none; known",
        ),
        ("control", {"control_kind": "canny"}, "control_kind canny: there is no `control`"),
        ("control", {"control": "still.png", "control_kind": "trajectory"}, "an image has no trajectory; give a video"),
        ("control", {"control": "film.mp4", "control_scale": float("nan")}, "control_scale nan: must be a number"),
        ("control", {"control": "film.mp4", "control_start": 0.7, "control_end": 0.2}, "the start first"),
        ("control", {"trajectory": "path.txt"}, "its first line names no x and y"),
        ("control", {"control": "wide.png", "width_px": 48, "height_px": 48}, "is of another aspect"),
        ("reference", {"reference": "film.mp4"}, "reference film.mp4: is a video; give an image"),
    ],
)
def test_what_cannot_be_is_one_line_before_any_weights(
    folder: Path, kind: str, given: dict[str, object], expected: str, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(folder)
    Path("broken.txt").write_text("first\n0 x")
    picture(Path("wide.png"), 160, 48)
    files = ("control", "reference", "trajectory")
    words = {name: Path(str(value)) if name in files else value for name, value in given.items()}
    model = open_model(folder / kind, Options(maps=MAPS))
    with pytest.raises(Exception) as raised:
        model.check(ask(**words))
    assert type(raised.value).__name__ in ("UserError", "ModelError")
    assert expected in str(raised.value) and "\n" not in str(raised.value)


def test_the_command_steers_and_notes_what_by(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.mp4"
    arguments = [
        "sample", folder / "reference", "--prompt", "a disc", "--steps", "2", "--output", out, "--control",
        folder / "film.mp4", "--control-kind", "canny", "--reference", folder / "look.png", "--control-end", "0.8",
    ]  # fmt: skip
    assert run_pipeline.main([str(word) for word in arguments]) == 0
    settings = json.loads(out.with_suffix(".json").read_text())
    assert settings["control"] == str(folder / "film.mp4") and settings["control_kind"] == "canny"
    assert (settings["control_scale"], settings["control_start"], settings["control_end"]) == (1.0, 0.0, 0.8)
    assert settings["reference"] == str(folder / "look.png")
    assert run_pipeline.main([str(word) for word in arguments]) == 0, "the same request replaces its own file"
    arguments[arguments.index("canny")] = "gray"
    assert run_pipeline.main([str(word) for word in arguments]) == 2, "another request does not"


def test_a_map_whose_weights_are_not_here_is_told_before_the_model_is_loaded(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for kind, name in (("depth", "depth-v2-small"), ("pose", "dwpose-people"), ("hed", "controlnet-hed")):
        arguments = [
            "sample", folder / "gone", "--prompt", "a disc", "--output", tmp_path / "a.mp4", "--weights", tmp_path,
            "--control", folder / "film.mp4", "--control-kind", kind,
        ]  # fmt: skip
        assert run_pipeline.main([str(word) for word in arguments]) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert f"weights fetch {name} --weights DIR" in line


TRIANGLE = np.array([[0.0, 0.0], [10.0, 20.0], [30.0, 20.0]])


@pytest.mark.parametrize(
    "text",
    [
        "[[0, 0], [10, 20], [30, 20]]",
        '[{"x": 0, "y": 0}, {"x": 10, "y": 20}, {"x": 30, "y": 20}]',
        "[[[0, 0], [10, 20], [30, 20]]]",
        '{"paths": [[0, 0], [10, 20], [30, 20]]}',
        "x,y\n0,0\n10,20\n30,20\n",
        "\ufeffpath,y, x\na,0,0\na,20,10\na,20,30\n",
    ],
)
def test_points_are_read_in_every_form(text: str) -> None:
    trajectory = read_trajectory(text, "points")
    (path,) = trajectory.paths
    np.testing.assert_array_equal(path, TRIANGLE)
    np.testing.assert_allclose(trajectory.places(5, 40, 40)[0], [[0, 0], [5, 10], [10, 20], [20, 20], [30, 20]])


def test_points_of_a_named_size_are_brought_to_the_videos() -> None:
    text = json.dumps({"paths": [TRIANGLE.tolist()], "width": 100, "height": 50})
    np.testing.assert_allclose(read_trajectory(text, "x").places(3, 200, 25)[0], TRIANGLE * [2, 0.5])
    two = read_trajectory("path,x,y\na,1,2\nb,3,4\na,5,6\n", "x")
    assert [path.tolist() for path in two.paths] == [[[1, 2], [5, 6]], [[3, 4]]]
    assert two.places(4, 9, 9).shape == (2, 4, 2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[[1, 2], [3]]", "points: path 1, point 2: no two numbers"),
        ("[[1, 2], [3, true]]", "path 1, point 2"),
        ("[[[1, 2]], 7]", "points: path 2: no list of points"),
        ("[]", "points: no path in it"),
        ('{"paths": [[1, 2]], "width": 3}', "width and height must be numbers above 0"),
        ("[[1, 2]\n,", "points:2, column 2: broken JSON"),
        ("x,y\n1,b\n", "points:2: x '1' and y 'b' are no two numbers"),
        ("x,y\n", "points: no point in it"),
        ("", "its first line names no x and y"),
        ("a,b\n1,2", "its first line names no x and y"),
    ],
)
def test_points_that_cannot_be_read_say_where(text: str, expected: str) -> None:
    with pytest.raises(ModelError, match=expected):
        read_trajectory(text, "points")
