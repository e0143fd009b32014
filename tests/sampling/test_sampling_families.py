"""What a family's models cannot sample is told in one line before any weights are loaded, for each family."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pipelines import picture

import run_pipeline
from models.bundle import PIPELINE_CLASS, write_model_index
from models.lora.adapters import add_lora, export_lora
from models.lora.form import AdapterForm
from models.text.table import TEXT_ENCODERS
from models.transformers.table import find_architecture
from models.vae.video_vae import PRESETS, build_vae
from sampling.checks import check
from sampling.model import open_model
from sampling.model_facts import read_model
from sampling.request import Options, Request

torch.set_num_threads(1)
VAES = {"v1": "tiny-image-vae", "v2": "tiny-magvit4", "v3": "tiny-slice", "v4": "tiny-cached-slice"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pipelines without weights of V1 to V4, an adapter of each, and a picture."""
    place = tmp_path_factory.mktemp("families")
    for name, vae in VAES.items():
        pipeline = place / name
        family, config = find_architecture(f"tiny-{name}")
        assert config is not None
        facts = family.defaults(config)
        with torch.device("meta"):
            family.build(config).save_config(pipeline / "transformer")  # type: ignore[operator]
        build_vae(PRESETS[vae]).save_config(pipeline / "vae")
        TEXT_ENCODERS[facts.text_encoder].build_tiny(pipeline)
        assert facts.objective.scheduler is not None
        (pipeline / "scheduler").mkdir()
        (pipeline / "scheduler" / "scheduler_config.json").write_text(json.dumps(dict(facts.objective.scheduler)))
        classes = {"transformer": ("diffusers", family.class_name), "vae": ("diffusers", "AutoencoderKL")}
        text = TEXT_ENCODERS[facts.text_encoder].classes
        write_model_index(pipeline, {**classes, **text, "scheduler": ("diffusers", "DDIMScheduler")}, PIPELINE_CLASS)
        hints = {"width_px": 32, "height_px": 32, "num_frames": 72, "fps": 8.0, "text_tokens": facts.text_tokens}
        (pipeline / "sampling.json").write_text(json.dumps(hints))
        adapted = family.build(config)
        add_lora(adapted, AdapterForm(2), family.lora_targets)
        (place / f"lora_{name}").mkdir()
        export_lora(adapted, "default", place / f"lora_{name}")
    picture(place / "first.png", 32, 32)
    return place


@pytest.mark.parametrize(
    ("name", "words", "expected"),
    [
        ("v2", "--frames 16", "16 frames are not 9n or 1; the nearest are 9 and 18"),
        ("v3", "--frames 12", "12 frames are not 8n or 1; the nearest are 8 and 16"),
        ("v4", "--frames 17", "17 frames are not 8n or 1; the nearest are 16 and 24"),
        ("v1", "--size 48x32", "multiples of 32"),
        ("v1", "--sampler flow_euler", "trained for epsilon"),
        ("v4", "--sampler flow_euler", "trained for v_prediction"),
        ("v1", "--image first.png --end-image first.png", "no condition channels"),
        ("v4", "--image first.png --end-image first.png", "no condition channels"),
        ("v1", "--lora lora_v4/pytorch_lora_weights.safetensors", "trained on it"),
        ("v2", "--segments 2 --overlap 4", "--overlap 4: must be 9n or 1 and at most 63 of 72 frames; take 1"),
        ("v3", "--segments 2 --overlap 72", "--overlap 72: must be at most 71 of 72 frames; take 71"),
        ("v4", "--segments 2 --overlap 4", "--overlap 4: must be 8n or 1 and at most 64 of 72 frames; take"),
        ("v2", "--lora lora_v3/pytorch_lora_weights.safetensors", "trained on it"),
        ("v4", "--lora lora_v1/pytorch_lora_weights.safetensors", "trained on it"),
    ],
)
def test_what_a_family_cannot_do_is_one_line_before_weights_are_loaded(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, words: str, expected: str
) -> None:
    given = [str(folder / word) if word.endswith((".png", ".safetensors")) else word for word in words.split()]
    capsys.readouterr()
    command = ["sample", str(folder / name), "--prompt", "snow", *given, "--output", str(tmp_path / "out")]
    assert run_pipeline.main(command) == 2
    line = capsys.readouterr().err.strip()
    assert line.startswith("error: ") and "\n" not in line and expected in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "other", "expected"),
    [
        ("v1", "tiny", "gives 16 latent channels, the transformer wants 4"),
        ("v2", "tiny-slice", "magvit4"),
        ("v3", "tiny-magvit4", "slice"),
        ("v4", "tiny-magvit4", "cached_slice"),
        ("v3", "tiny-cached-slice", "a VAE of kind cached_slice"),
        ("v4", "tiny-slice", "a VAE of kind slice"),
    ],
)
def test_a_vae_of_another_family_is_one_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, other: str, expected: str
) -> None:
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for part in (folder / name).iterdir():
        if part.name != "vae":
            (mixed / part.name).symlink_to(part)
    build_vae(PRESETS[other]).save_config(mixed / "vae")
    capsys.readouterr()
    assert run_pipeline.main(["sample", str(mixed), "--prompt", "snow", "--output", str(tmp_path / "out")]) == 2
    line = capsys.readouterr().err.strip()
    assert line.startswith("error: ") and "\n" not in line and expected in line


def test_a_long_video_of_v3_goes_on_from_any_number_of_frames(folder: Path, tmp_path: Path) -> None:
    facts = read_model(folder / "v3", Options())
    assert check(Request("snow", segments=2), facts).overlap == 4  # as published
    whole = tmp_path / "v3"
    shutil.copytree(folder / "v3", whole)
    torch.manual_seed(0)
    family, config = find_architecture("tiny-v3")
    assert config is not None
    family.build(config).save_pretrained(whole / "transformer")  # type: ignore[operator]
    build_vae(PRESETS["tiny-slice"]).save_pretrained(whole / "vae")
    request = Request("snow", num_frames=8, steps=2, guidance=1.0)
    model = open_model(whole, Options())
    one = model.sample(request).frames
    two = model.sample(replace(request, segments=2, overlap=3)).frames
    assert len(one) == 8 and len(two) == 13
    np.testing.assert_array_equal(two[:5], one[:5])  # what is before the overlap is the first segment's
