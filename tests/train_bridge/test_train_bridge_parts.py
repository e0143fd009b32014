"""Where a run's networks come from: presets and folders alike, for every key that takes both."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from training_commands import CONFIGS, plan, said

import run_pipeline
from models.geometry import Bucket
from models.vae.video_vae import PRESETS, build_vae, load_vae
from train_bridge.config import ModelSettings, load_config
from train_bridge.parts import Parts, empty_vae
from train_bridge.run import check_config, make_predictor

torch.set_num_threads(1)

# For each key that takes a preset or a folder: the config, and values of both kinds; {} is the fixture's folder.
BOTH = {
    "vae": ("train_vae_tiny.yaml", ("tiny", "magvit", "{}/vae", "{}/vae4", "{}/pipeline")),
    "transformer": ("train_tiny.yaml", ("tiny", "{}/pipeline/transformer", "{}/pipeline")),
    "text_encoder": ("train_tiny.yaml", ("tiny", "{}/pipeline", "{}/pipeline/text_encoder")),
}


def of_vae(folder: Path, *words: str | Path) -> list[str]:
    return [str(word) for word in (CONFIGS / "train_vae_tiny.yaml", *plan(folder)[2:4], *words)]


def test_the_table_has_every_key_that_is_documented_so() -> None:
    meanings = {field.name: field.metadata["meaning"] for field in dataclasses.fields(ModelSettings)}
    documented = {name for name, text in meanings.items() if "folder" in text and ("preset" in text or "`" in text)}
    assert documented == {*BOTH, "image_encoder"}, "which V3 and V4 alone have"


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, (_, values) in BOTH.items() for value in values])
def test_a_preset_and_a_folder_are_planned_alike(parts: Path, key: str, value: str) -> None:  # noqa: F811
    values = {"data.metadata": "m.json", f"model.{key}": value.format(parts)}
    if key != "vae":
        values["model.vae"] = str(parts / "vae")
    config = load_config(CONFIGS / BOTH[key][0], values=values)
    predictor = make_predictor(config, check_config(config))
    assert predictor.flops(Bucket(5, 32, 32)) > 0
    assert predictor.memory(Bucket(5, 32, 32), 1).total > 0


def test_a_folder_costs_what_its_preset_does(parts: Path) -> None:  # noqa: F811
    shapes = [
        [(name, p.shape, p.device.type) for name, p in empty_vae(Parts(vae)).named_parameters()]
        for vae in ("tiny", str(parts / "vae"))
    ]
    assert shapes[0] == shapes[1]
    assert {device for *_, device in shapes[0]} == {"meta"}


@pytest.mark.slow  # a run
def test_a_given_vae_is_trained_on_from_its_own_weights(
    parts: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    words = of_vae(parts, f"model.vae={parts / 'vae'}", "train.steps=1", "train.learning_rate=1e-9")
    assert run_pipeline.main(["train", *words, "--output", str(tmp_path / "run"), "--runner", "inline"]) == 0
    given, trained = load_vae(parts / "vae").state_dict(), load_vae(tmp_path / "run" / "model").state_dict()
    for name, tensor in given.items():
        torch.testing.assert_close(trained[name], tensor, rtol=0, atol=1e-6)


def test_a_vae_that_is_neither_is_refused_in_one_line(
    parts: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "presets tiny, magvit" in said(capsys, "plan", *of_vae(parts, "model.vae=tinny"))
    build_vae(PRESETS["tiny"]).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"_class_name": "AutoencoderKL"}))
    assert "not AutoencoderKLMagvit" in said(capsys, "plan", *of_vae(parts, f"model.vae={tmp_path}"))
