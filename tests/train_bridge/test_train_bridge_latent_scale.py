"""The scaling factor of an exported VAE: a given one's is kept, a new one's is measured on few clips."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from clips import CLIPS, write_clips
from hypothesis import given
from hypothesis import strategies as st
from training_commands import CONFIGS

from core.errors import UserError
from core.settings_file import render
from models.vae.video_vae import PRESETS, build_vae, encode_moments, encode_pixels, load_vae, to_signed
from train_bridge.config import TrainConfig, load_config
from train_bridge.data.rows_file import read_rows, write_rows
from train_bridge.loop import latent_scale
from train_bridge.loop.batches import VideoFrames
from train_bridge.loop.checkpoint import write_checkpoint
from train_bridge.loop.finish import export_run
from train_bridge.loop.job import CONFIG_FILE, ROWS_FILE
from train_bridge.loop.latent_scale import measure_scale, spread
from train_bridge.plan.plan import collect_rows
from train_bridge.run import _agree, check_config
from train_bridge.types import MicroBatch

torch.set_num_threads(1)


def finished(data: Path, run: Path, vae: Path | str, **settings: Any) -> TrainConfig:
    """Leave what a run of the VAE has when it is about to export; return its config."""
    values = {"data.metadata": str(data / "metadata.json"), "model.vae": str(vae)}
    config = load_config(CONFIGS / "train_vae_tiny.yaml", values=values | {f"vae.{k}": v for k, v in settings.items()})
    write_rows(run / ROWS_FILE, collect_rows(config), {})
    torch.manual_seed(2)
    weights = {f"vae.{name}": tensor for name, tensor in build_vae(PRESETS["tiny"]).state_dict().items()}
    write_checkpoint(run, 1, {"vae": (weights, None)}, {}, {"data_id": "d"}, keep=1)
    return config


def exported(config: TrainConfig, run: Path) -> float:
    """Export, and return the factor in the folder."""
    model = export_run(config, run, check_config(config))
    return float(json.loads((model / "vae" / "config.json").read_text())["scaling_factor"])


def deviation(run: Path, rows: list[int]) -> float:
    """The deviation of latents drawn from the posteriors of some rows, by drawing them."""
    vae, prepared = load_vae(run / "model"), read_rows(run / "rows.parquet")
    read, found = VideoFrames(prepared.train), []
    for row in rows:
        frames = read(MicroBatch(prepared.train_buckets.buckets[0], (row,), (1.0,)), (0,)).frames
        with torch.no_grad():
            mean, logvar = encode_moments(vae, to_signed(frames))
        noise = torch.randn((200, *mean.shape), generator=torch.Generator().manual_seed(row))
        found.append((mean + (0.5 * logvar).exp() * noise).flatten())
    return float(torch.cat(found).std())


@pytest.fixture(scope="module")
def given_vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("given")
    torch.manual_seed(1)
    vae = build_vae(PRESETS["tiny"])
    vae.register_to_config(scaling_factor=0.5)
    vae.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    write_clips(folder, CLIPS)
    return folder


def test_a_given_vae_keeps_its_factor_unless_measuring_is_asked_for(
    clips: Path, given_vae: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exported(finished(clips, tmp_path, given_vae), tmp_path) == 0.5
    assert "scaling_factor 0.5, that of the given VAE" in capsys.readouterr().out
    measured = exported(finished(clips, tmp_path, given_vae, measure_scale=True), tmp_path)
    assert measured == pytest.approx(1 / deviation(tmp_path, [0, 1, 2, 3]), rel=0.02)
    assert measured != 0.5
    assert f"scaling_factor {measured:.4g}, measured" in capsys.readouterr().out


def test_a_new_vae_is_measured_on_as_many_clips_as_asked(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = []

    def counting(vae: Any, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        encoded.append(frames)
        return encode_pixels(vae, frames)

    monkeypatch.setattr(latent_scale, "encode_pixels", counting)
    found = exported(finished(clips, tmp_path, "tiny", scale_clips=2), tmp_path)
    assert len(encoded) == 2
    assert found == pytest.approx(1 / deviation(tmp_path, [0, 2]), rel=0.02)
    assert exported(finished(clips, tmp_path, "tiny", measure_scale=False), tmp_path) == pytest.approx(0.7125)


def test_a_run_may_be_exported_anew_with_another_factor(clips: Path, tmp_path: Path) -> None:
    (tmp_path / CONFIG_FILE).write_text(render(finished(clips, tmp_path, "tiny")))
    assert _agree(finished(clips, tmp_path, "tiny", measure_scale=False), tmp_path, {}) is None


def test_measuring_runs_where_it_is_told_and_says_how_far_it_is(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a faked device; seen is that the VAE and every clip are moved to it."""
    finished(clips, tmp_path, "tiny")
    told: list[tuple[int, int]] = []
    moved = []

    def encode(network: torch.nn.Module, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        moved.append({frames.device, *(p.device for p in network.parameters())})
        return torch.tensor([2.0, -2.0]), torch.full((2,), -math.inf)

    monkeypatch.setattr(latent_scale, "encode_pixels", encode)
    device = torch.device("meta")
    found = measure_scale(build_vae(PRESETS["tiny"]), tmp_path, 16, device, lambda *n: told.append(n))
    assert found == pytest.approx(0.5)
    assert moved == [{device}] * 4
    assert told == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]


def test_latents_that_are_not_finite_are_not_measured(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished(clips, tmp_path, "tiny")
    monkeypatch.setattr(latent_scale, "encode_pixels", lambda *_: (torch.tensor([math.nan]), torch.zeros(1)))
    with pytest.raises(UserError, match="not finite; train anew"):
        measure_scale(build_vae(PRESETS["tiny"]), tmp_path, 16, torch.device("cpu"))


@given(rows=st.integers(1, 1000), most=st.integers(1, 64))
def test_clips_are_taken_evenly(rows: int, most: int) -> None:
    places = spread(rows, most)
    assert len(places) == min(rows, most) and places[0] == 0 and places[-1] < rows
    gaps = [after - before for before, after in zip(places, places[1:], strict=False)]
    assert not gaps or (min(gaps) >= 1 and max(gaps) - min(gaps) <= 1)
