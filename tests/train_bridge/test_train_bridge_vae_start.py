"""Training of the VAEs of V1 to V4 by the command line: their lengths, what they begin with, and the decoder alone."""

from pathlib import Path

import pytest
import torch
from clips import CLIPS, write_clips
from training_commands import CONFIGS, said

import run_pipeline
from models.vae.table import PRESETS, build_vae, load_vae

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips, an image VAE and a VAE of V2."""
    folder = tmp_path_factory.mktemp("starts")
    write_clips(folder / "clips", CLIPS)
    for preset in ("tiny-image-vae", "tiny-magvit4"):
        torch.manual_seed(0)
        build_vae(PRESETS[preset]).save_pretrained(folder / preset)
    return folder


def words(command: str, folder: Path, *more: str) -> list[str]:
    data = folder / "clips" / "metadata.json"
    return [command, str(CONFIGS / "train_vae_tiny.yaml"), "--data", str(data), "train.steps=1", *more]


def test_lengths_and_starts_that_do_not_fit_are_refused_before_any_work(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*more: str) -> str:
        return said(capsys, *words("plan", folder, *more))

    assert "9: not 8n or 1" in (line := refused("model.vae=tiny-slice", "buckets.frames=[9]"))
    assert "the nearest are 8 and 16" in line
    slices = ("model.vae=tiny-slice", "buckets.frames=[8]")
    assert "no config.json" in refused(*slices, f"vae.start={folder / 'nowhere'}")
    assert "not those of the VAE to start" in refused(
        "model.vae=tiny", "buckets.frames=[9]", f"vae.start={folder / 'tiny-image-vae'}"
    )
    given = f"model.vae={folder / 'tiny-magvit4'}"
    assert "has weights already" in refused(given, "buckets.frames=[9]", f"vae.start={folder / 'tiny-image-vae'}")


@pytest.mark.slow  # a run
def test_the_decoder_of_a_slice_vae_is_trained_from_a_vae_of_v2(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    start = f"vae.start={folder / 'tiny-magvit4'}"
    more = ("model.vae=tiny-slice", "buckets.frames=[8]", start, "vae.decoder_only=true", "vae_loss.l1=0")
    assert run_pipeline.main([*words("train", folder, *more), "--output", str(run), "--runner", "inline"]) == 0
    begun, trained = load_vae(folder / "tiny-magvit4"), load_vae(run / "model")
    assert trained.config["slice_compression_vae"]
    assert trained.config["scaling_factor"] == begun.config["scaling_factor"]
    changed = {
        name for name, tensor in trained.state_dict().items() if not torch.equal(tensor, begun.state_dict()[name])
    }
    assert changed
    assert all(name.startswith(("decoder.", "post_quant_conv.")) for name in changed)
