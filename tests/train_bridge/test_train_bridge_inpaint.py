"""Training with a condition: what the network sees, what stops a run before it begins, and what a run leaves."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from clips import CLIPS, nearest, paint, write_clips
from closeness import close, close_pixels
from diffusers import EasyAnimateInpaintPipeline
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

import run_pipeline
from models.conditions.inpaint import Known, condition_latents
from models.denoise.generate import Course, Denoiser, Prompted, generate_latents
from models.denoise.samplers import make_scheduler
from models.geometry import Bucket
from models.lora.files import DIFFUSERS_FILE
from models.text.qwen2_vl import Qwen2VLText
from models.transformers.conditioning import Conditioning
from models.transformers.easyanimate_v5 import EasyAnimate
from models.transformers.table import build_transformer
from models.vae.video_vae import PRESETS, build_vae, decode_pixels, encode, encode_moments, load_vae, to_signed
from train_bridge.config import load_config
from train_bridge.loop.batches import Conditioned, VideoFrames, to_device
from train_bridge.loop.checkpoint import checkpoints, load_weights
from train_bridge.method_settings import InpaintSettings
from train_bridge.methods.conditions import draw_known, encode_condition, show_condition
from train_bridge.methods.types import Batch
from train_bridge.run import check_config, make_predictor
from train_bridge.types import MicroBatch, TrainRow

torch.set_num_threads(1)
CONFIGS = Path(run_pipeline.__file__).parent / "configs"
PLAIN = InpaintSettings(reference_noise=False)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips, an untrained VAE, and untrained transformers of every kind."""
    folder = tmp_path_factory.mktemp("parts")
    write_clips(folder / "clips", CLIPS)
    torch.manual_seed(0)
    build_vae(PRESETS["tiny"]).save_pretrained(folder / "vae")
    family = EasyAnimate()
    for name, channels in (("plain", 16), ("inpaint", 33), ("control", 32)):
        model = family.build(dict(family.presets["tiny"]) | {"in_channels": channels, "num_layers": 1})
        model.save_pretrained(folder / name)
    return folder


def words(parts: Path, command: str, config: str, *more: str | Path) -> list[str]:
    data = parts / "clips" / "metadata.json"
    fixed = [command, CONFIGS / f"{config}.yaml", "--data", data, f"model.vae={parts / 'vae'}"]
    return [str(word) for word in (*fixed, *more)]


def train(parts: Path, run: Path, *more: str | Path, config: str = "train_inpaint_tiny") -> Path:
    arguments = words(parts, "train", config, "--output", run, "--runner", "inline", "watch.log_every=1", *more)
    assert run_pipeline.main(arguments) == 0
    return run


def said(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    """Run a command that fails as a user's mistake does; return its one line."""
    capsys.readouterr()
    assert run_pipeline.main(arguments) == 2
    line = capsys.readouterr().err.strip()
    assert line.startswith("error: ")
    assert "\n" not in line
    return line


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line["transformer"] for line in lines if line["what"] == "train"]


def some_frames(rows: int, frames: int = 5, size: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(4)
    return torch.randint(0, 256, (rows, frames, size, size, 3), generator=generator, dtype=torch.uint8)


def tiny_vae() -> torch.nn.Module:
    torch.manual_seed(0)
    return build_vae(PRESETS["tiny"]).eval().requires_grad_(False)


def test_a_rows_condition_follows_from_its_seed_whoever_is_in_its_batch() -> None:
    vae, settings, frames = tiny_vae(), InpaintSettings(), some_frames(4)
    together = encode_condition(vae, settings, frames, (11, 12, 13, 14))
    for row, seed in enumerate((11, 12, 13, 14)):
        assert close(encode_condition(vae, settings, frames[row : row + 1], (seed,))[0], together[row])
    other = encode_condition(vae, settings, frames, (21, 22, 23, 24))
    assert not torch.equal(together, other)
    assert together.shape == (4, 17, 2, 2, 2)


def test_masks_are_drawn_in_the_shares_asked_for_and_whole_ones_are_zeroed_as_often_as_asked() -> None:
    frames = some_frames(1, size=8)

    def draw(settings: InpaintSettings) -> tuple[float, float]:
        drawn = [draw_known(settings, frames, [torch.Generator().manual_seed(seed)]) for seed in range(400)]
        whole = np.mean([float(known.mask.mean()) == 1.0 for known, _ in drawn])
        return float(whole), float(np.mean([zeroed[0] for _, zeroed in drawn]))

    whole, zeroed = draw(InpaintSettings(masks={"all": 3.0, "first_frames": 1.0}))
    assert whole == pytest.approx(0.75, abs=0.07)
    assert zeroed == pytest.approx(0.9, abs=0.05)
    assert draw(InpaintSettings(masks={"first_frames": 1.0}, zeroed=0.0)) == (0.0, 0.0)
    vae = tiny_vae()
    for zeroed_share, expected in ((1.0, True), (0.0, False)):
        settings = InpaintSettings(masks={"all": 1.0}, zeroed=zeroed_share)
        assert bool((encode_condition(vae, settings, frames, (1,)) == 0).all()) is expected


def test_noise_on_known_pixels_is_laid_where_asked_for_and_changes_no_mask() -> None:
    vae, frames = tiny_vae(), some_frames(1)
    masks = {"first_frames": 1.0}
    quiet = encode_condition(vae, dataclasses.replace(PLAIN, masks=masks), frames, (5,))
    noisy = encode_condition(vae, InpaintSettings(masks=masks), frames, (5,))
    assert torch.equal(quiet[:, :1], noisy[:, :1])
    assert not torch.equal(quiet[:, 1:, :1], noisy[:, 1:, :1])


def test_the_pictures_show_what_is_known_and_grey_where_it_is_hidden() -> None:
    vae, frames = tiny_vae(), some_frames(2, size=32)
    video, mask = to_signed(frames), torch.zeros(2, 1, 5, 32, 32)
    assert close_pixels(
        show_condition(vae, condition_latents(vae, Known(video, mask))), decode_pixels(vae, encode(vae, video))
    )
    mask[:, :, 1:] = 1
    mask[:, :, 0, :, 16:] = 1
    seen = show_condition(vae, condition_latents(vae, Known(video, mask)))
    assert seen.shape == frames.shape
    assert (np.abs(seen[:, 1:].astype(int) - 128) <= 1).all()
    assert (np.abs(seen[:, 0, :, 16:].astype(int) - 128) <= 1).all()
    assert (np.abs(seen[:, 0, :, :16].astype(int) - 128) > 1).any()
    nothing = show_condition(vae, torch.zeros(1, 17, 2, 4, 4))
    assert (np.abs(nothing.astype(int) - 128) <= 1).all()


def test_a_row_that_cannot_be_read_counts_nothing(tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    rows = [TrainRow("broken", tmp_path / "broken.mp4", "c", "video")]
    seen: list[torch.Size] = []

    def condition(frames: torch.Tensor, seeds: tuple[int, ...]) -> torch.Tensor:
        seen.append(frames.shape)
        return torch.zeros(1, 17, 2, 2, 2)

    batches = Conditioned(
        lambda micro, seeds: Batch(
            seeds, torch.tensor(micro.weights), torch.ones(1), conditioning=Conditioning(torch.ones(1))
        ),
        VideoFrames(rows),
        condition,
    )
    batch = batches(MicroBatch(Bucket(5, 16, 16), (0,), (1.0,)), (3,))
    assert batch.weights.tolist() == [0.0]
    assert seen == [torch.Size((1, 5, 16, 16, 3))]
    moved = to_device(batch, torch.device("cpu"))
    assert moved.conditioning.latents is batch.conditioning.latents
    assert (moved.seeds, moved.frames) == ((3,), None)


@pytest.mark.parametrize(
    ("config", "more", "expected"),
    [
        ("train_inpaint_tiny", ["model.transformer=PARTS/plain"], "set inpaint.widen=true to add channels"),
        ("train_inpaint_tiny", ["inpaint.widen=true"], "has condition channels already; set inpaint.widen=false"),
        (
            "train_inpaint_tiny",
            ["model.transformer=PARTS/plain", "inpaint.widen=true", "lora.rank=4"],
            "new channels are not trained by adapters",
        ),
        (
            "train_inpaint_tiny",
            ["model.transformer=PARTS/control"],
            "control model (control), which sees a condition",
        ),
        ("train_tiny", ["model.transformer=PARTS/inpaint"], "train it with method: inpaint"),
        ("train_tiny", ["model.transformer=tiny-inpaint"], "train it with method: inpaint"),
        ("train_inpaint_tiny", ["model.vae=tiny"], "inpaint needs trained weights"),
        ("train_inpaint_tiny", ["inpaint.masks={boxes: 1}"], "mask kind 'boxes': there is none; take some of box"),
        ("train_inpaint_tiny", ["inpaint.masks={box: 0}"], "none has a share above 0"),
        (
            "train_inpaint_tiny",
            ["inpaint.zeroed=2"],
            "zeroed: 2.0 is out of range; it must be at least 0 and at most 1",
        ),
        ("train_inpaint_tiny", ["inpaint.mask={}"], "did you mean 'masks'"),
        ("train_inpaint_tiny", ["method=inpaintt"], "did you mean 'inpaint'"),
    ],
)
def test_a_mistake_is_one_line_with_the_mend(
    parts: Path, capsys: pytest.CaptureFixture[str], config: str, more: list[str], expected: str
) -> None:
    more = [word.replace("PARTS", str(parts)) for word in more]
    assert expected in said(capsys, words(parts, "plan", config, *more))


def test_the_plan_names_masks_and_counts_the_encoding(parts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_pipeline.main(words(parts, "plan", "train_inpaint_tiny", "inpaint.masks={first_frames: 3, all: 1}")) == 0
    assert "masks: first_frames 75%, all 25%" in capsys.readouterr().out
    overrides = [f"model.vae={parts / 'vae'}"]
    inpaint = load_config(CONFIGS / "train_inpaint_tiny.yaml", overrides)
    plain = load_config(CONFIGS / "train_tiny.yaml", overrides)
    bucket = Bucket(17, 32, 32)
    one, other = (make_predictor(c, check_config(c)) for c in (inpaint, plain))
    encoding = one.flops(bucket) - other.flops(bucket)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        encode_moments(load_vae(parts / "vae"), torch.zeros(1, 3, 17, 32, 32))
    assert encoding == pytest.approx(counter.get_total_flops(), rel=0.05)
    weights = sum(p.numel() for p in load_vae(parts / "vae").parameters())
    assert one.memory(bucket, 2).beside > other.memory(bucket, 2).beside >= 4 * weights  # both have it for samples


def test_a_run_leaves_pictures_of_masks_and_a_pipeline_that_diffusers_runs(parts: Path, tmp_path: Path) -> None:
    run = train(
        parts, tmp_path / "run", "train.steps=2", "data.validation=0.3", "watch.validate_every=2",
        "watch.prompts=[a red disc]", "watch.sample_every=2", "watch.sample_steps=2",
    )  # fmt: skip
    assert (run / "first_batch" / "micro_batch_0.png").is_file()
    assert (run / "samples" / "step-00000002.png").is_file()
    assert any("noise_0.35" in line for line in (run / "log.jsonl").read_text().splitlines())
    assert json.loads((run / "model" / "model_index.json").read_text())["_class_name"] == "EasyAnimateInpaintPipeline"
    pipeline = EasyAnimateInpaintPipeline.from_pretrained(run / "model")
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline.transformer.config.in_channels == 33
    assert pipeline.transformer.config.add_noise_in_inpaint_model is True
    mask = torch.full((1, 1, 5, 32, 32), 255.0)
    mask[:, :, 0] = 0
    made = pipeline(
        "a red disc", negative_prompt="", video=torch.rand(1, 3, 5, 32, 32), mask_video=mask, num_frames=5,
        height=32, width=32, num_inference_steps=1, output_type="np",
    ).frames  # fmt: skip
    assert made.shape == (1, 5, 32, 32, 3)
    assert np.isfinite(made).all()


@pytest.mark.slow
def test_going_on_equals_never_having_stopped_and_the_cache_equals_the_video(parts: Path, tmp_path: Path) -> None:
    cache = f"train.cache={tmp_path / 'cache'}"
    whole = train(parts, tmp_path / "whole", "train.steps=3", cache)
    for steps in (1, 3):
        halves = train(parts, tmp_path / "halves", f"train.steps={steps}", cache)
    one, other = (load_weights(checkpoints(run)[-1] / "transformer") for run in (whole, halves))
    assert one.keys() == other.keys()
    assert all(close(one[name], other[name]) for name in one)
    assert losses(whole) == pytest.approx(losses(halves), rel=1e-4)
    direct = train(parts, tmp_path / "direct", "train.steps=3", "train.cache=none")
    assert losses(direct) == pytest.approx(losses(whole), rel=1e-4)


def test_a_widened_model_predicts_what_it_did_and_learns_to_look(parts: Path, tmp_path: Path) -> None:
    family, model = build_transformer(str(parts / "plain"))
    generator = torch.Generator().manual_seed(0)
    latents, text = torch.randn(1, 16, 2, 4, 4, generator=generator), torch.randn(1, 8, 64, generator=generator)
    condition, level = torch.randn(1, 17, 2, 4, 4, generator=generator), torch.tensor([300.0])
    with torch.no_grad():
        before = family.predict(model, latents, level, Conditioning(text))
        family.widen(model)
        assert close(
            family.predict(model, latents, level, Conditioning(text, latents=torch.zeros_like(condition))), before
        )
        torch.testing.assert_close(family.predict(model, latents, level, Conditioning(text, latents=condition)), before)
    run = train(
        parts, tmp_path / "run", f"model.transformer={parts / 'plain'}", "inpaint.widen=true", "train.steps=2",
        "inpaint.reference_noise=false", "train.precision=bf16",
    )  # fmt: skip
    _, trained = build_transformer(str(run / "model" / "transformer"))
    assert trained.config.in_channels == 33
    assert trained.config.add_noise_in_inpaint_model is False
    assert bool((trained.proj.weight[:, 16:] != 0).any())


@pytest.mark.slow
def test_an_adapter_is_trained_on_an_inpaint_model_and_leaves_it_alone(parts: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    train(parts, base, "train.steps=1")
    before = {path.name: path.read_bytes() for path in (base / "model" / "transformer").iterdir()}
    run = train(
        parts, tmp_path / "lora", f"model.base={base / 'model'}", "model.transformer=null", "model.text_encoder=null",
        "lora.rank=4", "train.steps=2", "train.gradient_checkpointing=true",
    )  # fmt: skip
    assert (run / "lora" / DIFFUSERS_FILE).is_file()
    exported = {path.name: path.read_bytes() for path in (run / "model" / "transformer").iterdir()}
    assert exported == before
    assert json.loads((run / "model" / "model_index.json").read_text())["_class_name"] == "EasyAnimateInpaintPipeline"


@pytest.mark.slow
def test_images_are_conditioned_too(parts: Path, tmp_path: Path) -> None:
    metadata = write_clips(tmp_path / "data", CLIPS)
    Image.fromarray(np.zeros((48, 48, 3), np.uint8)).save(tmp_path / "data" / "night.png")
    items = [*json.loads(metadata.read_text()), {"file_path": "night.png", "text": "night", "type": "image"}]
    metadata.write_text(json.dumps(items))
    run = train(parts, tmp_path / "run", "--data", metadata, "train.steps=5", "buckets.sizes_px=[32]")
    assert len(losses(run)) == 5
    assert all(np.isfinite(losses(run)))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of an inpaint model that knows four clips, and the VAE beside it."""
    folder = tmp_path_factory.mktemp("trained")
    write_clips(folder / "clips", CLIPS)
    data = ["--data", folder / "clips" / "metadata.json", "--runner", "inline"]
    for config, name, more in (
        ("train_vae_tiny", "vae", []),
        ("train_inpaint_tiny", "inpaint", [f"model.vae={folder / 'vae'}"]),
    ):
        arguments = ["train", CONFIGS / f"{config}.yaml", *data, "--output", folder / name, *more]
        assert run_pipeline.main([str(word) for word in arguments]) == 0
    return folder


def psnr_db(one: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(np.square(one.astype(float) - other).mean(), 1e-9)))


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("known", ["first", "both_ends", "outside_a_box", "nothing"])
def test_a_trained_model_keeps_what_it_is_given_and_completes_it(trained: Path, known: str) -> None:
    model = trained / "inpaint" / "model"
    family, transformer = build_transformer(str(model / "transformer"))
    vae, hints = load_vae(model / "vae").eval(), json.loads((model / "sampling.json").read_text())
    frames, side = hints["num_frames"], hints["width_px"]
    texts = Qwen2VLText.load(model, hints["text_tokens"], torch.float32, torch.device("cpu")).encode(["", *CLIPS])
    scheduler = json.loads((model / "scheduler" / "scheduler_config.json").read_text())
    for place, (caption, painter) in enumerate(CLIPS.items()):
        truth = to_signed(torch.from_numpy(paint(painter, frames, side))[None])
        text = texts[1 + place : 2 + place]
        mask = torch.ones(1, 1, frames, side, side)
        if known == "outside_a_box":
            mask[:] = 0
            mask[..., 8:24, 8:24] = 1
        elif known != "nothing":
            mask[:, :, [0, -1] if known == "both_ends" else [0]] = 0
        with torch.no_grad():
            condition = condition_latents(vae, Known(truth, mask))
            expected = decode_pixels(vae, encode(vae, truth))[0]
            latents = generate_latents(
                Denoiser(family, transformer.eval(), make_scheduler(scheduler, 20)),
                Prompted(Conditioning(text, latents=condition), None, 1.0),
                (16, *condition.shape[2:]),
                Course(20),
                torch.Generator().manual_seed(place),
            )
            made = decode_pixels(vae, latents)[0]
        assert nearest(made, CLIPS) == caption
        kept = (mask[0, 0] == 0).numpy()
        if kept.any():
            assert psnr_db(made[kept], expected[kept]) >= 25, caption


def weights_after(run: Path) -> dict[str, torch.Tensor]:
    return load_weights(checkpoints(run)[-1] / "transformer")


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_two_workers_train_what_one_trains(trained: Path, tmp_path: Path) -> None:
    more = [
        f"model.vae={trained / 'vae'}", "buckets.micro_batches_per_step=4", "buckets.tokens_per_micro_batch=12",
        "train.steps=8", f"train.cache={tmp_path / 'cache'}",
    ]  # fmt: skip
    one = train(trained, tmp_path / "one", *more)
    command = words(trained, "train", "train_inpaint_tiny", "--output", tmp_path / "two", "--runner", "inline")
    command += [*more, "watch.log_every=1", "launch.workers=2"]
    done = subprocess.run([sys.executable, run_pipeline.__file__, *command], capture_output=True, timeout=600)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    assert losses(tmp_path / "two") == pytest.approx(losses(one), rel=1e-3)
    here, there = weights_after(one), weights_after(tmp_path / "two")
    assert max(float((here[name] - there[name]).abs().max()) for name in here) < 1e-3
