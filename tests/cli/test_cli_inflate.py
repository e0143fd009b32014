"""`inflate` writes a video model that begins as the image model that it was made from."""

from pathlib import Path

import pytest
import torch
from closeness import close
from pixart import FAMILIES, build, caption, frame_by_frame, image_folder, noise, predicted, trained

import run_pipeline
from models.transformers.easyanimate_v1 import MOTION
from models.transformers.motion_files import save_motion_module
from models.transformers.table import build_transformer

torch.set_num_threads(1)


def run(*words: str | Path) -> int:
    return run_pipeline.main(["inflate", *(str(word) for word in words)])


def test_the_written_model_is_found_as_its_family_and_predicts_as_its_parts(tmp_path: Path) -> None:
    layers = FAMILIES["tiny-v1"].presets["tiny-v1"]["num_layers"]
    image = image_folder(tmp_path / "image", layers)
    module = trained(build("tiny-v1", motion_module_kwargs=MOTION))
    save_motion_module(module, tmp_path / "motion.safetensors")
    base, out = tmp_path / "image", tmp_path / "video"
    assert run(base, "--family", "v1", "--output", out, "--motion-module", tmp_path / "motion.safetensors") == 0
    family, model = build_transformer(str(out))
    assert family is FAMILIES["tiny-v1"]
    moving = {name: tensor for name, tensor in model.state_dict().items() if "attn_temporal" in name}
    assert moving and all(torch.equal(tensor, module.state_dict()[name]) for name, tensor in moving.items())
    assert run(base, "--family", "v1", "--output", tmp_path / "fresh") == 0
    family, fresh = build_transformer(str(tmp_path / "fresh"))
    assert close(predicted(family, fresh, noise(), caption()), frame_by_frame(image, noise(), caption()), 1e-4)


def test_mistakes_are_told_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "there").mkdir()
    assert run(tmp_path, "--family", "v2", "--output", tmp_path / "there") == 2
    assert "--output" in capsys.readouterr().err
    assert run(tmp_path, "--family", "v2", "--output", tmp_path / "new") == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and "config.json" in said
    assert not (tmp_path / "new").exists()
