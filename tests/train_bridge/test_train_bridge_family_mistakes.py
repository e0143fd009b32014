"""What does not fit a family is told in one line before any work, by the command line."""

from pathlib import Path

import pytest
import torch
from clips import CLIPS, write_clips
from training_commands import CONFIGS, said

from models.vae.table import PRESETS, build_vae
from train_bridge.config import load_config
from train_bridge.parts import check_frames, find_parts

torch.set_num_threads(1)
VAES = ("tiny", "tiny-image-vae", "tiny-magvit4", "tiny-slice", "tiny-cached-slice")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips, and untrained VAEs of every kind."""
    place = tmp_path_factory.mktemp("families")
    write_clips(place / "clips", CLIPS)
    torch.manual_seed(0)
    for name in VAES:
        build_vae(PRESETS[name]).save_pretrained(place / name)
    return place


@pytest.mark.parametrize(
    ("family", "vae", "more", "words"),
    [
        ("v1", "tiny", (), ("16 latent channels", "wants 4")),
        ("v1", "tiny-slice", (), ("kind slice", "image-vae")),
        ("v2", "tiny-slice", (), ("kind slice (8n or 1", "magvit4 (9n or 1")),
        ("v3", "tiny-magvit4", (), ("kind magvit4", "of slice")),
        ("v4", "tiny-magvit4", (), ("kind magvit4", "cached_slice")),
        ("v3", "tiny-cached-slice", (), ("kind cached_slice", "of slice")),
        ("v4", "tiny-slice", (), ("kind slice", "of cached_slice")),
        ("v5", "tiny-magvit4", (), ("4 latent channels", "wants 16")),
        ("v4", "tiny-cached-slice", ("objective.high_noise_weight=20",), ("high_noise_weight 20", "set it to 1")),
        ("v2", "tiny-magvit4", ("buckets.frames=[16]",), ("buckets.frames 16", "9 and 18")),
        ("v3", "tiny-slice", ("buckets.frames=[12]",), ("buckets.frames 12", "8 and 16")),
        ("v1", "tiny-image-vae", ("buckets.sizes_px=[16]",), ("sizes_px 16", "multiples of 32")),
        ("v1", "tiny-image-vae", ("method=inpaint",), ("EasyAnimate V1 has no image conditions",)),
        ("v2", "tiny-magvit4", ("method=inpaint", "inpaint.widen=true"), ("EasyAnimate V2 has no image conditions",)),
        ("v3", "tiny-slice", ("method=control", "model.image_encoder=null"), ("EasyAnimate V3 has no control models",)),
        ("v3", "tiny-slice", ("method=text_to_video", "model.image_encoder=null"), ("method: inpaint",)),
        ("v1", "tiny-image-vae", ("model.image_encoder=tiny",), ("model.image_encoder", "no tokens of images")),
        ("v3", "tiny-slice", ("model.image_encoder=no/such/folder",), ("no/such/folder", "no image encoder here")),
    ],
)
def test_parts_that_do_not_fit_are_told_in_one_line(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    family: str,
    vae: str,
    more: tuple[str, ...],
    words: tuple[str, ...],
) -> None:
    data = folder / "clips" / "metadata.json"
    config = CONFIGS / f"train_{family}_tiny.yaml"
    line = said(capsys, "plan", config, "--data", data, f"model.vae={folder / vae}", *more)
    assert "\n" not in line
    assert all(word in line for word in words), line


@pytest.mark.parametrize("family", ["v1", "v2", "v3", "v4", "v5"])
def test_the_tiny_configs_fit_the_vaes_that_they_name(folder: Path, family: str) -> None:
    vae = dict(zip(("v1", "v2", "v3", "v4", "v5"), (*VAES[1:], VAES[0]), strict=True))[family]
    config = load_config(CONFIGS / f"train_{family}_tiny.yaml", [f"model.vae={folder / vae}"])
    check_frames(config, find_parts(config))


@pytest.mark.parametrize("family", ["v1", "v2", "v3"])
def test_configs_of_published_sizes_weigh_errors_as_published(family: str) -> None:
    objective = load_config(CONFIGS / f"train_{family}.yaml").objective
    assert (objective.kind, objective.high_noise_weight) == ("epsilon", 1.0)
