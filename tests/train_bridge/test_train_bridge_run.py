"""What stops a run before it begins: each in one line with the fix. And what a plan accounts for."""

import json
import os
import re
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from clips import CLIPS, paint, write_clips
from training_commands import CONFIGS, plan, said

import run_pipeline
from models.denoise.objectives import Flow
from models.lora.adapters import add_lora, export_lora
from models.lora.form import AdapterForm
from models.transformers.easyanimate_v5 import EasyAnimate
from sampling.pictures import write_mp4
from train_bridge.config import load_config
from train_bridge.loop import watched_samples

torch.set_num_threads(1)


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
    for key, fix in (
        ("num_frames", "buckets.frames"),
        ("file_path", "no such file"),
        ("file_path", "cannot be read"),
        ("text:", "write one"),
    ):
        assert any(key in line and fix in line for line in shown.splitlines()), (key, shown)
    assert "none dropped" in shown
    assert "captions: 0 of 3 rows are cut; the longest has" in shown
    assert "9x32x32" in shown
    (line,) = [line for line in shown.splitlines() if line.startswith("9x32x32")]
    assert line.split()[-3:] == ["4.32"] * 3, "nine frames of 25/12 s each: lowest, median and highest rate"
    assert run_pipeline.main([*map(str, words), "--where", "score > 0", "buckets.fps=4", "buckets.frames=[5]"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("5x32x32")]
    assert line.split()[-3:] == ["4"] * 3
    assert run_pipeline.main([*map(str, words), "--where", "score > 0", "buckets.fps=8", "buckets.frames=[5]"]) == 0
    shown = capsys.readouterr().out
    assert "8 rows: 9 to train on" in shown and "which makes 6 rows more" in shown


def test_the_plan_is_printed_for_programs(parts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*map(str, plan(parts, "buckets.frames=[5]"))]
    capsys.readouterr()
    assert run_pipeline.main([*words, "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert run_pipeline.main(words) == 0
    shown = capsys.readouterr().out
    (bucket,) = values["buckets"]
    size = f"{bucket['num_frames']}x{bucket['height_px']}x{bucket['width_px']}"
    assert size in shown and bucket["rows"] == values["rows"]["train"] == len(CLIPS)
    assert f"{values['steps_per_epoch']} steps an epoch" in shown and values["rows"]["refused"] == []


def test_the_plan_shows_what_is_cropped(parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    items = json.loads((parts / "clips" / "metadata.json").read_text())
    for item, height in zip(items, (64, 48, 40), strict=False):
        write_mp4(paint(CLIPS[item["text"]])[:, :height], 12.0, tmp_path / item["file_path"])
    write_mp4(paint(CLIPS[items[3]["text"]], size_px=160)[:, 72:88], 12.0, tmp_path / items[3]["file_path"])
    (tmp_path / "all.json").write_text(json.dumps(items))
    words = [*plan(parts), "buckets.aspects=[1/1]", "data.max_crop=0.4"]
    words[3] = tmp_path / "all.json"
    assert run_pipeline.main([str(word) for word in words]) == 0
    shown = capsys.readouterr().out
    (line,) = [line for line in shown.splitlines() if line.startswith("9x32x32")]
    assert line.split()[6:8] == ["25%", "38%"], "of 0, 1 - 48/64 and 1 - 40/64 the median and the most"
    assert "1 data.max_crop: more than 40% of the picture would be cropped away; add 10/1 to buckets.aspects" in shown
    assert run_pipeline.main([*map(str, words), "data.letterbox=true"]) == 0
    shown = capsys.readouterr().out
    assert "4 rows: 4 to train on" in shown and "1 rows are fitted in whole between black bars" in shown


def test_clips_with_captions_beside_them_are_planned_from_a_folder_and_from_shards(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "folder"
    folder.mkdir()
    with tarfile.open(tmp_path / "shard-000000.tar", "w") as shard:
        for item in json.loads((parts / "clips" / "metadata.json").read_text()):
            clip = shutil.copy(parts / "clips" / item["file_path"], folder)
            (folder / item["file_path"]).with_suffix(".txt").write_text(item["text"])
            for suffix in (".mp4", ".txt"):
                file = Path(clip).with_suffix(suffix)
                shard.add(file, file.name)
    shown = []
    for data in (folder, f"{tmp_path}/shard-*.tar"):
        words = plan(parts)
        words[3] = data
        assert run_pipeline.main([str(word) for word in words]) == 0
        shown.append(capsys.readouterr().out.splitlines())
    assert shown[0][0].startswith("4 rows: 4 to train on, 0 held out")
    buckets = [[line.split()[:4] for line in lines if "x32x32" in line] for lines in shown]
    assert buckets[0] and buckets[0] == buckets[1]
    assert shown[1][0] == shown[0][0]


def test_a_plan_that_does_not_fit_says_what_would(parts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_pipeline.main([*map(str, plan(parts)), "train.memory_gb=0.07"]) == 0
    shown = capsys.readouterr().out.splitlines()[-1]
    assert shown.startswith("not enough memory: bucket 9x32x32 with 4 rows needs about 0.08")
    assert "the device has 0.07 GB; what fits (predicted): set " in shown
    ways = re.findall(r"\((\d[\d.]*) GB\)", shown)
    assert ways and all(float(way) <= 0.07 for way in ways)


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


@pytest.mark.slow
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
    # As an earlier version wrote it, which spread frames over whole clips and knew no limit of cropping.
    lines = [line for line in (run / "config.yaml").read_text().splitlines() if not re.match(" +(fps|max_crop):", line)]
    (run / "config.yaml").write_text("\n".join(lines) + "\n")
    assert "buckets.fps=0.0" in said(capsys, *words, "buckets.fps=8")
    assert run_pipeline.main([*map(str, words), "train.steps=3"]) == 0
    assert json.loads((run / "log.jsonl").read_text().splitlines()[-2])["step"] == 3
    assert "4 encoded" not in capsys.readouterr().out  # the cache was there


@pytest.mark.slow
@pytest.mark.parametrize(("words", "shift"), [([], 2.0), (["objective.shift=4"], 4.0)])
def test_training_samples_and_export_have_one_shift(
    parts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    shift: float,
) -> None:
    """The base's, or the number that is given: each place is asked what it used."""
    trained, sampled = set(), set()
    plain_levels, plain_scheduler = Flow.timesteps, watched_samples.make_scheduler

    def levels(self: Flow, quantiles: torch.Tensor) -> torch.Tensor:
        trained.add(self.shift)
        return plain_levels(self, quantiles)

    def scheduler(config: dict, steps: int) -> object:
        sampled.add(config["shift"])
        return plain_scheduler(config, steps)

    monkeypatch.setattr(Flow, "timesteps", levels)
    monkeypatch.setattr(watched_samples, "make_scheduler", scheduler)
    shutil.copytree(parts / "pipeline", tmp_path / "base")
    arguments = [
        "train", *plan(parts)[1:], "--output", tmp_path / "run", "--runner", "inline", "train.steps=1",
        "watch.prompts=[a red disc]", "watch.sample_every=1", "watch.sample_steps=2", "lora.rank=2",
        "model.transformer=null", "model.text_encoder=null", f"model.base={tmp_path / 'base'}", *words,
    ]  # fmt: skip
    assert run_pipeline.main([str(word) for word in arguments]) == 0
    exported = json.loads((tmp_path / "run" / "model" / "scheduler" / "scheduler_config.json").read_text())
    assert (trained, sampled, exported["shift"]) == ({shift}, {shift}, shift)
    assert load_config(tmp_path / "run" / "config.yaml").objective.shift == shift
    file = tmp_path / "base" / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"shift": 7.0}))
    if not words:  # a base that was changed meanwhile does not change a run silently
        assert "objective.shift=2.0, this one asks for 7.0" in said(capsys, *arguments, "train.steps=2")


@pytest.mark.slow
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


@pytest.mark.slow
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
        ([], "give at least one"),
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
        add_lora(other, AdapterForm(4, None), family.lora_targets)
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
    assert "selects-video[train]" in said(capsys, "plan", CONFIGS / "train_tiny.yaml")
