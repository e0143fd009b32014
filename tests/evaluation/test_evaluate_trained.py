"""The loop closed: what a trained model samples is nearer to its training clips than what an untrained one does."""

import json
from pathlib import Path

import pytest
from clips import CLIPS, write_clips
from runs import curate

import run_pipeline

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def run(*words: str | Path) -> None:
    assert run_pipeline.main([str(word) for word in words]) == 0


@pytest.mark.slow
def test_samples_of_a_trained_model_are_nearer_to_the_training_clips_than_those_of_an_untrained_one(
    tmp_path: Path,
) -> None:
    data = write_clips(tmp_path / "clips", CLIPS)
    curate(tmp_path / "clips", "shots.min_s=1", "rules={}", out=tmp_path / "out")
    run(
        "train", CONFIGS / "train_vae_tiny.yaml", "--data", data, "--output", tmp_path / "vae", "--runner", "inline",
        "train.steps=200",
    )  # fmt: skip
    found = {}
    for name, steps in (("untrained", 1), ("trained", 500)):
        run(
            "train", CONFIGS / "train_tiny.yaml", "--data", data, "--output", tmp_path / name, "--runner", "inline",
            f"model.vae={tmp_path / 'vae'}", f"train.steps={steps}", f"train.cache={tmp_path / 'cache'}",
        )  # fmt: skip
        prompts = [word for caption in CLIPS for word in ("--prompt", caption)]
        made = tmp_path / f"{name}_samples"
        run("sample", tmp_path / name, *prompts, "--output", made, "--steps", "12", "--guidance", "2")
        run("evaluate", made, "--reference", tmp_path / "out", "--runner", "inline")
        found[name] = json.loads((made / "evaluation" / "evaluate.json").read_text(encoding="utf-8"))
    trained, untrained = found["trained"], found["untrained"]
    assert trained["overall"]["distance"] < 0.9 * untrained["overall"]["distance"]
    bits = {
        name: sum(one["by_pictures"]["picture_bits"] if one["by_pictures"] else 512 for one in each["nearest"])
        for name, each in found.items()
    }
    assert bits["trained"] < bits["untrained"], "it learnt these clips by heart, and that is seen"
