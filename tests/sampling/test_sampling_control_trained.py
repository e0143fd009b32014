"""A tiny control model, trained on what `curate` left, obeys maps that it has not seen."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import curate
from steered_clips import CAPTION, FPS, paint_figure, write_figures

import run_pipeline
from controls import CONTROLS
from controls.frames import map_makers
from sampling.model import OpenModel, open_model
from sampling.obedience import EDGE_LEVEL, edges_f1
from sampling.pictures import write_mp4
from sampling.request import Options, Request

torch.set_num_threads(1)
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]
CONFIGS = Path(run_pipeline.__file__).parent / "configs"
MAPS = map_makers(CONTROLS)
HELD_OUT = tuple(range(1000, 1008))
SHAPE = ["buckets.frames=[5]", "buckets.sizes_px=[32]", "buckets.aspects=[1/1]", "buckets.tokens_per_micro_batch=64"]
RECIPE = """
shots: {detector: stride, settings: {every_s: 100}, min_s: 0.5}
operators: {}
caption: {captioner: template}
cut: {preset: ultrafast}
controls: {canny: true}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Curated clips with their edges, a VAE that has seen both, a control model, and clips that are held out."""
    folder = tmp_path_factory.mktemp("steered")
    write_figures(folder / "footage", range(60))
    (folder / "recipes").mkdir()
    (folder / "recipes" / "edges.yaml").write_text(RECIPE)
    curate(folder / "footage", "--config", folder / "recipes" / "edges.yaml", out=folder / "out")
    items = json.loads((folder / "out" / "json_of_internal_datasets.json").read_text())
    paths = [item[key] for item in items for key in ("file_path", "control_file_path")]
    both = [{"file_path": path, "text": CAPTION, "type": "video"} for path in paths]
    (folder / "out" / "both.json").write_text(json.dumps(both))
    for config, data, more in (
        ("train_vae_tiny", folder / "out" / "both.json", ["train.steps=250"]),
        (
            "train_control_tiny",
            folder / "out",
            [f"model.vae={folder / 'train_vae_tiny'}", "train.steps=600", "control.zeroed=0.1"],
        ),
    ):
        words = ["train", CONFIGS / f"{config}.yaml", "--data", data, "--output", folder / config, "--runner", "inline"]
        assert run_pipeline.main([str(word) for word in (*words, *SHAPE, *more)]) == 0
    for seed in HELD_OUT:
        write_mp4(paint_figure(seed), FPS, folder / f"{seed}.mp4")
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> OpenModel:
    return open_model(folder / "train_control_tiny", Options(maps=MAPS))


def edges_of(frames: np.ndarray) -> np.ndarray:
    drawn = MAPS["canny"](frames, FPS)[0]
    assert drawn is not None
    return drawn[..., 0] >= EDGE_LEVEL


@pytest.fixture(scope="module")
def samples(folder: Path, model: OpenModel) -> dict[int, np.ndarray]:
    """What is made of the edges of each held-out clip."""
    made = {}
    for seed in HELD_OUT:
        file = folder / f"{seed}.mp4"
        request = Request(CAPTION, steps=12, guidance=1.0, seed=seed, control=file, control_kind="canny")
        made[seed] = model.sample(request).frames
    return made


def asked_of(seed: int, frames: int, size: int) -> np.ndarray:
    """The edges of a held-out clip at the frames that are made of it."""
    return edges_of(paint_figure(seed, frames, size))


def test_samples_obey_maps_that_were_held_out_far_better_than_shuffled_ones(samples: dict[int, np.ndarray]) -> None:
    own, others = [], []
    for place, frames in enumerate(samples.values()):
        made = edges_of(frames)
        for shift in range(len(HELD_OUT)):
            other = HELD_OUT[(place + shift) % len(HELD_OUT)]
            score = edges_f1(made, asked_of(other, len(frames), frames.shape[1]))
            (others if shift else own).append(score or 0.0)
    print(f"edge F1: own maps {np.mean(own):.3f}, shuffled {np.mean(others):.3f}")
    assert np.mean(own) >= 2 * np.mean(others)
    assert np.mean(own) > 0.5


def test_an_empty_map_is_text_to_video(folder: Path, model: OpenModel) -> None:
    write_mp4(np.zeros((25, 64, 64, 3), np.uint8), FPS, folder / "empty.mp4")
    plain = Request(CAPTION, steps=12, guidance=1.0, seed=5)
    without = model.sample(plain).frames
    off = model.sample(Request(CAPTION, steps=12, guidance=1.0, seed=5, control=folder / "1000.mp4", control_scale=0.0))
    assert np.array_equal(off.frames, without)
    made, size = edges_of(without), without.shape[1]
    near = [edges_f1(made, asked_of(seed, len(made), size)) or 0.0 for seed in HELD_OUT]
    assert np.mean(near) < 0.65, "what was not asked for is met by chance alone"
    empty = Request(CAPTION, steps=12, guidance=1.0, seed=5, control=folder / "empty.mp4")
    model.take_notes()
    model.sample(empty)
    assert any("the control map is empty in 100% of its frames" in note for note in model.take_notes())
