"""The modes of the sampler through its Python API and its command, with untrained parts."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import av
import diffusers
import numpy as np
import pytest
import torch
from closeness import close_pixels
from PIL import Image
from pipelines import FAMILY, half_mask, moving, picture, psnr_db, write_pipeline

import run_pipeline
from models.errors import ModelError
from models.lora.adapters import add_lora, export_lora
from models.lora.form import AdapterForm
from models.vae.video_vae import decode_pixels, encode, load_vae, to_signed
from sampling.files import targets_for
from sampling.model import OpenModel, open_model
from sampling.request import Lora, Options, Request
from sampling.settings_file import settings_within

torch.set_num_threads(1)
NONE = Options(memory="none")
QUICK = Request("a square moves", steps=2, guidance=1.0, num_frames=5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`plain` without condition channels, `inpaint` with; a picture, a video and a mask."""
    folder = tmp_path_factory.mktemp("sampling")
    write_pipeline(folder / "plain")
    write_pipeline(folder / "inpaint", in_channels=33)
    picture(folder / "first.png")
    picture(folder / "last.png", seed=5)
    moving(folder / "video.mp4")
    half_mask(folder / "mask.png")
    return folder


@pytest.fixture(scope="module")
def plain(folder: Path) -> OpenModel:
    return open_model(folder / "plain", NONE)


@pytest.fixture(scope="module")
def inpaint(folder: Path) -> OpenModel:
    return open_model(folder / "inpaint", NONE)


def reconstructed(folder: Path, frames: np.ndarray) -> np.ndarray:
    vae = load_vae(folder / "plain" / "vae").eval()
    with torch.no_grad():
        return decode_pixels(vae, encode(vae, to_signed(torch.from_numpy(frames.copy())[None])))[0]


def sample(folder: Path, model: str, out: Path, *words: str | Path) -> list[Path]:
    given = ["sample", folder / model, "--output", out, "--steps", "2", "--guidance", "1", "--memory", "none", *words]
    assert run_pipeline.main([str(word) for word in given]) == 0
    return sorted([*out.glob("*.mp4"), *out.glob("*.png")]) if out.is_dir() else [out]


def test_one_frame_is_a_picture(folder: Path, tmp_path: Path) -> None:
    made = sample(folder, "plain", tmp_path / "out", "--prompt", "snow", "--frames", "1", "--size", "64x32")
    assert [path.name[:-13] for path in made] == ["snow_seed0_text_to_image"]
    assert Image.open(made[0]).size == (64, 32)
    settings = json.loads(made[0].with_suffix(".json").read_text())
    assert (settings["mode"], settings["num_frames"]) == ("text_to_image", 1)


def test_no_request_replaces_what_another_made(folder: Path, tmp_path: Path) -> None:
    """Whatever differs has a name of its own; each video and picture lies beside the settings that made it."""
    out, words = tmp_path / "out", ("--size", "48x48", "--prompt", "snow, at dusk 雪", "--frames", "5")
    kept: dict[Path, bytes] = {}
    for count, other in enumerate((["--seed", "0"], ["--seed", "1"], ["--frames", "1"]), start=1):
        sample(folder, "plain", out, *words, *other)
        found = {path: path.read_bytes() for path in out.iterdir()}
        assert kept.items() <= found.items(), f"{other} replaced something"
        assert len(list(out.glob("*.json"))) == count
        kept = found
    sample(folder, "plain", out, *words, "--seed", "1")
    assert set(out.iterdir()) == kept.keys(), "the same request again replaces itself"
    for file in out.glob("*.json"):
        settings = json.loads(file.read_text())
        is_picture = settings["num_frames"] == 1
        assert file.with_suffix(".mp4").exists() is not is_picture and file.with_suffix(".png").exists()
        assert file.stem == f"snow_at_dusk_雪_seed{settings['seed']}_{settings['mode']}_{settings['request_id'][:8]}"


def test_whatever_differs_in_a_request_is_in_its_name(folder: Path, plain: OpenModel, inpaint: OpenModel) -> None:
    video = folder / "video.mp4"
    changes: list[dict] = [
        {}, {"prompt": "rain"}, {"negative": "rain"}, {"seed": 9}, {"num_frames": 1}, {"num_frames": 9}, {"fps": 7.0},
        {"steps": 3}, {"guidance": 2.5}, {"sampler": "unipc"}, {"width_px": 64, "height_px": 48}, {"segments": 2},
        {"image": folder / "first.png"}, {"video": video}, {"video": video, "strength": 0.9}, {"prompt": "snow" * 999},
    ]  # fmt: skip
    few_tiles = open_model(folder / "plain", replace(NONE, vae_tiling=True))
    opened = [(plain, change) for change in changes] + [(inpaint, {}), (few_tiles, {})]
    names = []
    for _ in range(2):
        jobs = [(model, model.check(replace(QUICK, **change))) for model, change in opened]
        ids = [model.request_id(job) for model, job in jobs]
        names.append([path.name for path in targets_for([job for _, job in jobs], ids, Path("out"))])
    assert names[0] == names[1] and len({name.rsplit(".", 1)[0] for name in names[0]}) == len(opened)
    assert max(len(name.encode()) for name in names[0]) < 100


def test_a_file_that_another_request_made_is_not_replaced(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--prompt", "snow", "--size", "48x48", "--frames", "5"]
    sample(folder, "plain", tmp_path / "a.mp4", *words)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    sample(folder, "plain", tmp_path / "a.mp4", *words)
    given = ["sample", str(folder / "plain"), "--steps", "2", "--guidance", "1", "--memory", "none", *words]
    (tmp_path / "own.mp4").write_bytes(b"somebody's")
    for output, other in (("a.mp4", ["--seed", "1"]), ("a.png", ["--frames", "1"]), ("own.mp4", [])):
        assert run_pipeline.main([*given, "--output", str(tmp_path / output), *other]) == 2
        assert re.search(r"is there already, of another request; name another file", capsys.readouterr().err)
    assert before.items() <= {path: path.read_bytes() for path in tmp_path.iterdir()}.items()
    (tmp_path / "own.mp4").unlink()
    for file in ("a.mp4", "a.png"):  # what a kill leaves: the settings come first
        (tmp_path / file).unlink()
    sample(folder, "plain", tmp_path / "a.mp4", *words)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_same_seed_and_settings_give_the_same_file(folder: Path, tmp_path: Path) -> None:
    words = ["--prompt", "snow", "--image", folder / "first.png", "--frames", "5"]
    once = sample(folder, "inpaint", tmp_path / "once.mp4", *words, "--seed", "4")[0].read_bytes()
    again = sample(folder, "inpaint", tmp_path / "again.mp4", *words, "--seed", "4")[0].read_bytes()
    other = sample(folder, "inpaint", tmp_path / "other.mp4", *words, "--seed", "5")[0].read_bytes()
    assert once == again != other


def test_every_prompt_is_sampled_with_every_seed_as_if_alone(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    sample(folder, "plain", out, "--prompt", "snow", "--prompt", "rain", "--seeds", "2..3,7", "--frames", "5")
    found = {path.name: json.loads(path.read_text()) for path in sorted(out.glob("*.json"))}
    assert [(s["prompt"], s["seed"]) for s in found.values()] == [(p, s) for p in ("rain", "snow") for s in (2, 3, 7)]
    (rain_3,) = out.glob("rain_seed3_*.mp4")
    alone = sample(folder, "plain", tmp_path / "alone.mp4", "--prompt", "rain", "--seed", "3", "--frames", "5")
    assert alone[0].read_bytes() == rain_3.read_bytes()


def test_a_video_at_strength_0_comes_back_as_the_vae_has_it(folder: Path, plain: OpenModel, inpaint: OpenModel) -> None:
    request = replace(QUICK, video=folder / "video.mp4", strength=0.0, num_frames=9)
    job = plain.check(request)
    assert job.video is not None
    expected = reconstructed(folder, job.video.read(job.bucket, job.span_s))
    assert close_pixels(plain.sample(request).frames, expected)
    assert (job.bucket.num_frames, job.fps, job.mode) == (9, 8.0, "video_to_video")


@pytest.mark.parametrize("name", ["plain", "inpaint"])
def test_a_video_at_strength_1_is_forgotten(folder: Path, name: str) -> None:
    model = open_model(folder / name, NONE)
    text_only = model.sample(QUICK).frames
    assert close_pixels(model.sample(replace(QUICK, video=folder / "video.mp4", strength=1.0)).frames, text_only)
    half = replace(QUICK, video=folder / "video.mp4", strength=0.5)
    assert not np.array_equal(model.sample(half).frames, text_only)


@pytest.mark.parametrize("name", ["plain", "inpaint"])
def test_a_mask_keeps_every_pixel_that_it_must(folder: Path, name: str) -> None:
    model = open_model(folder / name, NONE)
    request = replace(QUICK, video=folder / "video.mp4", mask=folder / "mask.png")
    job = model.check(request)
    assert job.video is not None and job.strength == 1.0
    given = job.video.read(job.bucket, job.span_s)
    made = model.sample(request).frames
    assert np.array_equal(made[:, :, :24], given[:, :, :24])
    assert psnr_db(made[:, :, 24:], given[:, :, 24:]) < 20


def test_what_the_mask_lets_through_depends_on_what_it_keeps(folder: Path, tmp_path: Path) -> None:
    """The network itself is shown the kept pixels, in either kind of model."""
    for name in ("plain", "inpaint"):
        model = open_model(folder / name, NONE)
        videos = []
        for seed in (1, 2):
            image = picture(tmp_path / f"{seed}.png", seed=seed)
            videos.append(model.sample(replace(QUICK, num_frames=1, video=image, mask=folder / "mask.png")).frames)
        assert not np.array_equal(videos[0][:, :, 24:], videos[1][:, :, 24:]), name


def test_a_model_without_condition_channels_begins_with_the_image(folder: Path, plain: OpenModel) -> None:
    request = replace(QUICK, image=folder / "first.png", num_frames=9)
    job, made = plain.check(request), plain.sample(request).frames
    assert job.image is not None and job.mode == "image_to_video"
    first = np.asarray(Image.open(folder / "first.png"))[None]
    assert psnr_db(made[:1], reconstructed(folder, first)) > 50
    assert not np.array_equal(made, plain.sample(replace(QUICK, num_frames=9)).frames)


@pytest.mark.parametrize("ends", [("image",), ("end_image",), ("image", "end_image")])
def test_a_model_with_condition_channels_samples_as_diffusers_does(
    folder: Path, inpaint: OpenModel, ends: tuple[str, ...]
) -> None:
    files = {"image": folder / "first.png", "end_image": folder / "last.png"}
    request = replace(QUICK, num_frames=9, steps=3, guidance=4.0, **{name: files[name] for name in ends})
    made = inpaint.sample(request).frames

    transformer = diffusers.EasyAnimateTransformer3DModel.from_pretrained(folder / "inpaint" / "transformer")
    vae = diffusers.AutoencoderKLMagvit.from_pretrained(folder / "inpaint" / "vae")
    vae.register_to_config(cache_mag_vae=True)  # the pipeline reads it, the class does not have it
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler.from_pretrained(folder / "inpaint" / "scheduler")
    theirs = diffusers.EasyAnimateInpaintPipeline(vae, None, None, transformer, scheduler)
    theirs.set_progress_bar_config(disable=True)
    pixels, mask = torch.zeros(1, 3, 9, 48, 48), torch.full((1, 1, 9, 48, 48), 255.0)
    for name, place in (("image", 0), ("end_image", 8)):
        if name in ends:
            values = np.asarray(Image.open(files[name]))
            pixels[0, :, place] = torch.from_numpy(values.copy()).permute(2, 0, 1) / 255
            mask[:, :, place] = 0
    text, negative = (inpaint._texts[one].text for one in (request.prompt, ""))
    ones = torch.ones(1, text.shape[1])
    latents = theirs(
        num_frames=9, video=pixels, mask_video=mask, height=48, width=48, num_inference_steps=3, guidance_scale=4.0,
        prompt_embeds=text, prompt_attention_mask=ones, negative_prompt_embeds=negative,
        negative_prompt_attention_mask=ones, generator=torch.Generator().manual_seed(request.seed), strength=1.0,
        noise_aug_strength=0.0563, output_type="latent",
    ).frames  # fmt: skip
    with torch.no_grad():
        expected = decode_pixels(load_vae(folder / "inpaint" / "vae").eval(), latents)[0]
    assert np.abs(made.astype(int) - expected.astype(int)).max() <= 1


def test_the_size_is_the_images_unless_another_is_asked_for(folder: Path, plain: OpenModel, tmp_path: Path) -> None:
    wide = picture(tmp_path / "wide.png", 400, 100)
    bucket = plain.check(replace(QUICK, image=wide)).bucket
    assert (bucket.width_px, bucket.height_px) == (96, 32)  # 96 x 24 at the trained area
    almost = picture(tmp_path / "almost.png", 100, 95)
    bucket = plain.check(replace(QUICK, image=almost, width_px=64, height_px=64)).bucket
    assert (bucket.width_px, bucket.height_px) == (64, 64)
    large = open_model(folder / "plain", NONE)
    large.facts.hints.update(width_px=512, height_px=512)
    bucket = large.check(replace(QUICK, image=picture(tmp_path / "hd.png", 1920, 1080))).bucket
    assert (bucket.width_px, bucket.height_px) == (688, 384)


def test_a_video_is_taken_at_the_models_rate_and_a_short_one_whole(plain: OpenModel, tmp_path: Path) -> None:
    long = plain.check(Request("x", video=moving(tmp_path / "long.mp4", 60, 24.0)))
    assert (long.bucket.num_frames, long.fps, long.span_s) == (9, 8.0, 9 / 8)
    short = plain.check(Request("x", video=moving(tmp_path / "short.mp4", 20, 24.0)))
    assert (short.bucket.num_frames, short.fps, short.span_s) == (5, 8.0, 5 / 8)  # 6.7 frames at 8 per second
    more = plain.check(Request("x", num_frames=9, video=tmp_path / "short.mp4"))
    assert more.fps == pytest.approx(9 / (20 / 24)) and more.span_s == pytest.approx(20 / 24)


@pytest.mark.parametrize("name", ["plain", "inpaint"])
def test_a_long_video_continues_from_its_last_frames(folder: Path, name: str) -> None:
    model = open_model(folder / name, NONE)
    request = replace(QUICK, num_frames=9, segments=3, overlap=5)
    long = model.sample(request)
    assert len(long.frames) == 9 + 2 * 4
    assert long.settings["num_frames"] == 17 and long.settings["segments"] == 3
    one = model.sample(replace(QUICK, num_frames=9)).frames
    assert close_pixels(long.frames[:4], one[:4])  # before the overlap, the first segment is untouched
    cut = model.sample(replace(QUICK, num_frames=9, length=14, overlap=5)).frames
    assert close_pixels(cut, long.frames[:14])
    if name == "plain":  # what is given is kept exactly, so both segments agree where they overlap
        again = reconstructed(folder, one[4:9])
        assert psnr_db(long.frames[5:9], again[1:]) > psnr_db(one[5:9], again[1:])


def test_the_end_image_ends_the_last_segment_only(folder: Path, inpaint: OpenModel) -> None:
    request = replace(QUICK, num_frames=9, segments=2, overlap=5)
    without = inpaint.sample(request).frames
    ended = inpaint.sample(replace(request, end_image=folder / "last.png")).frames
    assert close_pixels(without[:4], ended[:4])
    assert not np.array_equal(without[9:], ended[9:])


def test_several_loras_give_the_same_fused_or_not_and_each_by_its_scale(folder: Path, tmp_path: Path) -> None:
    files = []
    for seed in (1, 2):
        network = FAMILY.load(folder / "plain" / "transformer")
        add_lora(network, AdapterForm(4, None), FAMILY.lora_targets, seed=seed)
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(seed))
        (tmp_path / str(seed)).mkdir()
        files.append(export_lora(network, "default", tmp_path / str(seed))[0])

    def with_loras(*scales: float, fused: bool = False) -> np.ndarray:
        loras = tuple(Lora(file, scale) for file, scale in zip(files, scales, strict=False))
        return open_model(folder / "plain", Options(loras=loras, fuse_loras=fused, memory="none")).sample(QUICK).frames

    both, neither = with_loras(0.5, 0.8), with_loras()
    assert np.abs(both.astype(int) - with_loras(0.5, 0.8, fused=True)).max() <= 1
    assert not np.array_equal(both, neither) and not np.array_equal(both, with_loras(0.5))
    assert close_pixels(neither, with_loras(0.0, 0.0))


def test_reference_noise_follows_from_the_seed_where_the_model_was_trained_with_it(folder: Path) -> None:
    noisy = open_model(folder / "inpaint", NONE)
    plain = noisy.sample(replace(QUICK, image=folder / "first.png")).frames
    noisy.facts = replace(noisy.facts, noises_condition=True)
    once, again = (noisy.sample(replace(QUICK, image=folder / "first.png")).frames for _ in range(2))
    assert close_pixels(once, again)
    assert not np.array_equal(once, plain)


def pixels_of(path: Path) -> bytes:
    """Return the frames of a video; the file holds its settings, too."""
    with av.open(str(path)) as container:
        return b"".join(frame.to_ndarray(format="yuv420p").tobytes() for frame in container.decode(video=0))


def test_every_memory_mode_makes_the_same_video_but_8_bits_which_come_near(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--prompt", "snow", "--image", folder / "first.png", "--frames", "5"]
    files, said = {}, {}
    for mode in ("none", "model_cpu_offload", "sequential_cpu_offload", "model_cpu_offload_and_qfloat8", "auto"):
        capsys.readouterr()
        path = sample(folder, "inpaint", tmp_path / f"{mode}.mp4", *words, "--memory", mode)[0]
        files[mode], said[mode] = pixels_of(path), capsys.readouterr().err
        assert settings_within(path)["memory"] == ("none" if mode == "auto" else mode)
        assert json.loads(path.with_suffix(".json").read_text())["memory"] == ("none" if mode == "auto" else mode)
    near = files.pop("model_cpu_offload_and_qfloat8")
    assert len(set(files.values())) == 1 and near not in files.values()
    assert "there is no GPU" in said["auto"] and "free main memory" in said["auto"]
    assert "there is no GPU" in said["sequential_cpu_offload"]
    exact = open_model(folder / "inpaint", NONE).sample(QUICK).frames
    eight = open_model(folder / "inpaint", Options(memory="model_cpu_offload_and_qfloat8")).sample(QUICK).frames
    assert 20 < psnr_db(exact, eight) < 60


def test_one_sample_does_not_depend_on_those_before_it(folder: Path) -> None:
    options = Options(memory="none", cache_threshold=2.0, keep_text_encoder=True)
    request = replace(QUICK, steps=8)
    alone = open_model(folder / "plain", options).sample(request)
    model = open_model(folder / "plain", options)
    model.sample(replace(request, prompt="rain", seed=9))
    after = model.sample(request)
    assert close_pixels(alone.frames, after.frames)
    assert alone.settings == after.settings
    assert 0 < alone.settings["cached_share"] < 1
    assert not np.array_equal(alone.frames, open_model(folder / "plain", NONE).sample(request).frames)


def test_numbers_that_are_not_finite_are_no_video(folder: Path) -> None:
    with pytest.raises(ModelError, match="not finite; lower `guidance`"):
        open_model(folder / "plain", NONE).sample(replace(QUICK, guidance=3e38))


def test_the_user_is_told_where_the_model_does_not_see_what_is_given(folder: Path) -> None:
    for name, told in (("plain", True), ("inpaint", False)):
        model = open_model(folder / name, NONE)
        model.prepare([model.check(QUICK)])
        assert not any("sees no masks" in note for note in model.take_notes())
        for _ in range(2):
            model.prepare([model.check(replace(QUICK, image=folder / "first.png"))])
        assert sum("sees no masks" in note for note in model.take_notes()) == told


def test_a_run_that_trained_an_adapter_brings_it_along_once(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "plain", tmp_path / "run" / "model")
    network = FAMILY.load(folder / "plain" / "transformer")
    add_lora(network, AdapterForm(4, None), FAMILY.lora_targets)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(1))
    (tmp_path / "run" / "lora").mkdir()
    file = export_lora(network, "default", tmp_path / "run" / "lora")[0]
    own = open_model(tmp_path / "run", NONE).sample(QUICK)
    assert [lora["path"] for lora in own.settings["loras"]] == [str(file)]
    named = open_model(folder / "plain", replace(NONE, loras=(Lora.parse(str(tmp_path / "run")),))).sample(QUICK)
    twice = open_model(tmp_path / "run", replace(NONE, loras=(Lora(file),))).sample(QUICK)
    assert close_pixels(own.frames, named.frames) and close_pixels(own.frames, twice.frames)
    assert not np.array_equal(own.frames, open_model(folder / "plain", NONE).sample(QUICK).frames)
