"""What stops a run before it begins: each in one line with the mend. And what a plan accounts for."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from clips import CLIPS, paint, write_clips
from diffusers import FlowMatchEulerDiscreteScheduler

import run_pipeline
from models.easyanimate import EasyAnimate
from models.lora import add_lora, export_lora
from models.text_encoder import build_tiny
from models.video_vae import PRESETS, build_vae
from train_bridge.pictures import write_mp4

torch.set_num_threads(1)
CONFIGS = Path(run_pipeline.__file__).parent / "configs"


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips, an untrained VAE, and a pipeline of untrained parts."""
    folder = tmp_path_factory.mktemp("parts")
    write_clips(folder / "clips", CLIPS)
    torch.manual_seed(0)
    build_vae(PRESETS["tiny"]).save_pretrained(folder / "vae")
    build_vae(dict(PRESETS["tiny"]) | {"latent_channels": 4}).save_pretrained(folder / "vae4")
    family = EasyAnimate()
    pipeline = folder / "pipeline"
    family.build(family.presets["tiny"]).save_pretrained(pipeline / "transformer")
    build_vae(PRESETS["tiny"]).save_pretrained(pipeline / "vae")
    build_tiny(pipeline)
    FlowMatchEulerDiscreteScheduler(shift=2.0).save_pretrained(pipeline / "scheduler")
    classes = {
        "transformer": ["diffusers", "EasyAnimateTransformer3DModel"], "vae": ["diffusers", "AutoencoderKLMagvit"],
        "text_encoder": ["transformers", "Qwen2VLForConditionalGeneration"],
        "tokenizer": ["transformers", "Qwen2Tokenizer"], "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    }  # fmt: skip
    (pipeline / "model_index.json").write_text(json.dumps({"_class_name": "EasyAnimatePipeline", **classes}))
    return folder


def said(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    """Run a command that fails as a user's mistake does; give its one line."""
    capsys.readouterr()
    assert run_pipeline.main([str(word) for word in words]) == 2
    line = capsys.readouterr().err.strip()
    assert line.startswith("error: ")
    assert "\n" not in line
    return line


def plan(parts: Path, *words: str) -> list[str | Path]:
    data = parts / "clips" / "metadata.json"
    return ["plan", CONFIGS / "train_tiny.yaml", "--data", data, f"model.vae={parts / 'vae'}", *words]


def test_the_plan_accounts_for_every_row(parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    items = json.loads((parts / "clips" / "metadata.json").read_text())
    write_mp4(paint(CLIPS["a white square grows on a violet wall"], 3), 12.0, tmp_path / "short.mp4")
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    for item in items:
        (tmp_path / item["file_path"]).write_bytes((parts / "clips" / item["file_path"]).read_bytes())
    (tmp_path / "silent.mp4").write_bytes((tmp_path / "0.mp4").read_bytes())
    items = [item | {"score": place} for place, item in enumerate(items)]
    items += [
        {"file_path": "short.mp4", "text": "three frames", "type": "video", "score": 9},
        {"file_path": "broken.mp4", "text": "noise", "type": "video", "score": 9},
        {"file_path": "gone.mp4", "text": "nothing", "type": "video", "score": 9},
        {"file_path": "silent.mp4", "type": "video", "score": 9},
    ]
    (tmp_path / "all.json").write_text(json.dumps(items))
    words = plan(parts)
    words[3] = tmp_path / "all.json"
    assert run_pipeline.main([*map(str, words), "--where", "score > 0"]) == 0
    shown = capsys.readouterr().out
    assert "8 rows: 3 to train on, 0 held out, 1 left out by where, 4 refused" in shown
    for key, mend in (
        ("num_frames", "buckets.frames"),
        ("file_path", "no such file"),
        ("file_path", "cannot be read"),
        ("text:", "write one"),
    ):
        assert any(key in line and mend in line for line in shown.splitlines()), (key, shown)
    assert "none dropped" in shown
    assert "9x32x32" in shown


def test_the_12b_is_planned_without_its_weights(parts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = parts / "qwen" / "text_encoder"
    text.mkdir(parents=True)
    (text / "config.json").write_text(
        json.dumps({"architectures": ["Qwen2VLForConditionalGeneration"], "hidden_size": 3584})
    )
    (parts / "qwen" / "tokenizer").mkdir()
    (parts / "qwen" / "tokenizer" / "vocab.json").write_text("{}")
    words = ["plan", CONFIGS / "train_easyanimate_12b.yaml", *plan(parts)[2:], f"model.text_encoder={parts / 'qwen'}"]
    assert run_pipeline.main([*map(str, words), "buckets.sizes_px=[256]", "buckets.frames=[17]"]) == 0
    shown = capsys.readouterr().out
    # 11.8 billion weights with gradients, moments and a running mean, 20 bytes each, over 64 GPUs: 3.7 GB and more.
    memory = float(shown.split("memory of one device: about ")[1].split(" GB")[0])
    assert 3.7 < memory < 20
    assert "of 80 GB" in shown


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["model.vae=tiny"], "needs trained weights"),
        (["model.vae=VAE4"], "gives 4 latent channels, the transformer wants 16"),
        (["model.transformer=huge"], "neither a preset"),
        (["model.text_encoder=null"], "model.text_encoder"),
        (["train.memory_gb=0.001"], "not enough memory"),
        (["launch.workers=3", "buckets.micro_batches_per_step=4"], "cannot share 4 micro-batches"),
        (["buckets.frames=[8]"], "nearest are 5 and 9"),
        (["buckets.frames=[97]"], "no row is left"),
        (["train.optimizer=adamw_8bit"], "needs a GPU"),
        (["train.stepz=3"], "did you mean 'steps'"),
        (["launch.device=abacus"], "known: B200"),
        (["model.base=PIPELINE", "objective.kind=epsilon"], "set objective.kind=flow"),
        (["--where", "score >"], "data.where"),
        (["--where", "score > 1"], "score"),
        (["--data", "/nowhere.json"], "/nowhere.json"),
    ],
)
def test_a_mistake_is_one_line_with_the_mend(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], expected: str
) -> None:
    if torch.cuda.is_available() and "adamw_8bit" in words[0]:
        pytest.skip("there is a GPU")
    words = [w.replace("VAE4", str(parts / "vae4")).replace("PIPELINE", str(parts / "pipeline")) for w in words]
    arguments = plan(parts, *words)
    if "memory" in expected:
        arguments = ["train", *arguments[1:], "--output", tmp_path / "run", "--runner", "inline"]
    assert expected in said(capsys, *arguments)


def test_a_folder_whose_name_is_no_text_is_refused(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / os.fsdecode(b"\xff")
    shutil.copytree(parts / "clips", folder)
    assert re.search(
        r"data.metadata .*\\xff.*rename it$", said(capsys, *plan(parts, "--data", folder / "metadata.json"))
    )


def test_a_run_goes_on_with_its_own_config_only(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "train", *plan(parts)[1:], "--output", tmp_path / "run", "--runner", "inline", "train.steps=2",
        "watch.log_every=1", "data.validation=0.3", "watch.validate_every=1", "watch.prompts=[a red disc]",
        "watch.sample_every=2", "watch.sample_steps=2",
    ]  # fmt: skip
    assert run_pipeline.main([str(word) for word in words]) == 0
    run = tmp_path / "run"
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert {line["what"] for line in lines} == {"train", "validation"}
    assert {"noise_0.10", "noise_0.90"} <= set(lines[-1])
    assert (run / "samples" / "step-00000002.png").is_file()
    assert (run / "first_batch" / "micro_batch_0.png").is_file()
    assert list((run / "tensorboard").iterdir())
    assert "train.learning_rate" in said(capsys, *words, "train.learning_rate=0.5")
    assert run_pipeline.main([*map(str, words), "train.steps=3"]) == 0
    assert json.loads((run / "log.jsonl").read_text().splitlines()[-2])["step"] == 3
    assert "4 encoded" not in capsys.readouterr().out  # the cache was there


def test_training_straight_from_video_equals_training_from_the_cache(parts: Path, tmp_path: Path) -> None:
    found = []
    for name, cache in (("cached", str(tmp_path / "cache")), ("direct", "none")):
        words = [
            "train", *plan(parts)[1:], "--output", tmp_path / name, "--runner", "inline", "train.steps=3",
            "watch.log_every=1", f"train.cache={cache}",
        ]  # fmt: skip
        assert run_pipeline.main([str(word) for word in words]) == 0
        lines = [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        found.append([line["transformer"] for line in lines])
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_images_and_videos_train_together(parts: Path, tmp_path: Path) -> None:
    from PIL import Image

    data = tmp_path / "data"
    metadata = write_clips(data, CLIPS)
    Image.fromarray(paint(CLIPS["an orange sky grows dark at dusk"], 1)[0]).save(data / "dusk.png")
    items = [*json.loads(metadata.read_text()), {"file_path": "dusk.png", "text": "dusk", "type": "image"}]
    metadata.write_text(json.dumps(items))
    words = ["train", *plan(parts)[1:], "--output", tmp_path / "run", "--runner", "inline", "train.steps=4"]
    words[3] = metadata
    assert run_pipeline.main([str(word) for word in words]) == 0
    import pyarrow.parquet as pq

    rows = {row["row_id"]: row["buckets"] for row in pq.read_table(tmp_path / "run" / "rows.parquet").to_pylist()}
    assert rows.pop("dusk.png") == ["1x32x32"]
    assert set(map(tuple, rows.values())) == {("9x32x32",)}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--prompt", " "], "--prompt: empty"),
        ([], "at least one --prompt"),
        (["--prompt", "x", "--frames", "8"], "nearest are 5 and 9"),
        (["--prompt", "x", "--size", "40x32"], "multiples of 16"),
        (["--prompt", "x", "--sampler", "ddim"], "trained for flow"),
        (["--prompt", "x", "--sampler", "flow_eulr"], "there is none"),
        (["--prompt", "x", "--lora", "gone.safetensors"], "no such file"),
        (["--prompt", "x", "--lora", "OTHER_LORA"], "transformer_blocks"),
        (["--prompt", "x", "--steps", "0"], "--steps"),
        (["--prompt", "x", "--prompt", "y", "--output", "one.mp4"], "one file for 2 prompts"),
    ],
)
def test_a_sample_that_cannot_be_is_refused(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], expected: str
) -> None:
    family = EasyAnimate()
    if "OTHER_LORA" in words:
        other = family.build(dict(family.presets["tiny"]) | {"num_attention_heads": 2})
        add_lora(other, 4, None, family.lora_targets)
        words = [word.replace("OTHER_LORA", str(export_lora(other, "default", tmp_path)[0])) for word in words]
    output = [] if "--output" in words else ["--output", tmp_path / "out"]
    steps = [] if "--steps" in words else ["--steps", "2"]
    assert expected in said(capsys, "sample", parts / "pipeline", *words, *output, *steps)
    assert not list(tmp_path.glob("**/*.mp4"))


def test_a_pipeline_of_diffusers_samples_here(parts: Path, tmp_path: Path) -> None:
    words = ["sample", parts / "pipeline", "--prompt", "雪", "--output", tmp_path / "a.mp4", "--steps", "2"]
    assert run_pipeline.main([*map(str, words), "--size", "48x32", "--frames", "5", "--fps", "8"]) == 0
    settings = json.loads((tmp_path / "a.json").read_text())
    assert (settings["width_px"], settings["num_frames"], settings["prompt"]) == (48, 5, "雪")
    assert np.asarray((tmp_path / "a.mp4").stat().st_size) > 500


def test_without_the_training_packages_the_command_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    for name in [name for name in sys.modules if name.startswith("train_bridge.run")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert "selects[train]" in said(capsys, "plan", CONFIGS / "train_tiny.yaml")
