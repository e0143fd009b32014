"""What a tiny model that was trained here makes of images, masks and videos that it has not seen."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from closeness import close_pixels
from PIL import Image
from pipelines import psnr_db
from sliding_bars import CAPTION, FPS, SHARE, paint_bars, write_bars

import run_pipeline
from models.vae.video_vae import decode_pixels, encode, load_vae, to_signed
from sampling.model import OpenModel, open_model
from sampling.pictures import write_mp4
from sampling.request import Request

torch.set_num_threads(1)
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # the first test waits for the training
CONFIGS = Path(__file__).resolve().parents[2] / "configs"
FRAMES, SIDE = 9, 32
UNSEEN = (0.07, 0.31, 0.55, 0.82)
"""phases between those that were trained on"""


def train(*words: str | Path) -> None:
    assert run_pipeline.main([str(word) for word in ("train", *words, "--runner", "inline")]) == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A VAE, and an inpaint model that knows how bars slide, from eight clips of one caption."""
    folder = tmp_path_factory.mktemp("bars")
    data = write_bars(folder / "clips")
    same = ["--data", data, "buckets.frames=[9]"]
    train(CONFIGS / "train_vae_tiny.yaml", *same, "--output", folder / "vae", "train.steps=180")
    train(
        CONFIGS / "train_inpaint_tiny.yaml", *same, "--output", folder / "inpaint", f"model.vae={folder / 'vae'}",
        "train.steps=350", "inpaint.masks={first_frames: 0.4, both_ends: 0.3, box: 0.15, all: 0.15}",
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> OpenModel:
    return open_model(folder / "inpaint")


@pytest.fixture(scope="module")
def reconstructed(folder: Path) -> Callable[[np.ndarray], np.ndarray]:
    """What the VAE makes of frames by itself."""
    vae = load_vae(folder / "vae" / "model" / "vae").eval()

    def reconstruct(frames: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return decode_pixels(vae, encode(vae, to_signed(torch.from_numpy(frames)[None])))[0]

    return reconstruct


def clip(phase: float) -> np.ndarray:
    return paint_bars(phase, SHARE, FRAMES, SIDE)


def request(**given: object) -> Request:
    return Request(CAPTION, steps=20, guidance=1.0, **given)


def saved(frame: np.ndarray, path: Path) -> Path:
    Image.fromarray(frame).save(path)
    return path


@pytest.mark.parametrize("phase", UNSEEN)
def test_image_to_video_begins_with_the_given_frame_and_goes_on_as_it_should(
    model: OpenModel, reconstructed: Callable[[np.ndarray], np.ndarray], tmp_path: Path, phase: float
) -> None:
    truth = clip(phase)
    made = model.sample(request(image=saved(truth[0], tmp_path / "first.png"))).frames
    expected = reconstructed(truth)
    assert psnr_db(made[0], expected[0]) >= 25
    without = model.sample(request()).frames
    assert psnr_db(made, expected) > max(25, psnr_db(without, expected) + 5)


@pytest.mark.parametrize("phase", UNSEEN)
def test_first_and_last_frame_begin_and_end_the_video(
    model: OpenModel, reconstructed: Callable[[np.ndarray], np.ndarray], tmp_path: Path, phase: float
) -> None:
    truth = clip(phase)
    first, last = saved(truth[0], tmp_path / "first.png"), saved(truth[-1], tmp_path / "last.png")
    made = model.sample(request(image=first, end_image=last)).frames
    expected = reconstructed(truth)
    assert psnr_db(made[0], expected[0]) >= 25
    assert psnr_db(made[-1], expected[-1]) >= 25


def test_what_a_mask_keeps_stays_and_what_is_filled_in_fits_it(model: OpenModel, tmp_path: Path) -> None:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[8:24, 8:24] = 255
    saved(mask, tmp_path / "mask.png")
    for phase in UNSEEN[:2]:
        truth = clip(phase)
        video = tmp_path / f"{phase}.mp4"
        write_mp4(truth, FPS / 3, video, crf=1)
        job = model.check(request(video=video, mask=tmp_path / "mask.png", num_frames=FRAMES))
        assert job.video is not None
        given, made = job.video.read(job.bucket, job.span_s), model.sample(job).frames
        is_kept = mask == 0
        assert np.array_equal(made[:, is_kept], given[:, is_kept])
        assert psnr_db(made[:, ~is_kept], truth[:, ~is_kept]) > 20  # the mean colour in its place has 14


def test_the_stronger_the_further_from_the_source(
    model: OpenModel, reconstructed: Callable[[np.ndarray], np.ndarray], tmp_path: Path
) -> None:
    video = tmp_path / "video.mp4"
    write_mp4(clip(UNSEEN[1]), FPS / 3, video, crf=1)
    jobs = [model.check(request(video=video, num_frames=FRAMES, strength=s)) for s in (0.0, 0.4, 1.0)]
    assert jobs[0].video is not None
    source = reconstructed(jobs[0].video.read(jobs[0].bucket, jobs[0].span_s))
    likeness = [psnr_db(model.sample(job).frames, source) for job in jobs]
    assert likeness[0] == np.inf and likeness[0] > likeness[1] > likeness[2]
    assert close_pixels(model.sample(jobs[2]).frames, model.sample(request()).frames)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_long_video_of_4_segments_moves_on_without_a_jump(model: OpenModel, tmp_path: Path, seed: int) -> None:
    image = saved(clip(UNSEEN[0])[0], tmp_path / "first.png")
    made = model.sample(request(image=image, segments=4, overlap=5, seed=seed)).frames.astype(float)
    assert len(made) == 4 * FRAMES - 3 * 5
    changes = np.abs(np.diff(made, axis=0)).mean(axis=(1, 2, 3))
    seams = [place * (FRAMES - 5) + edge for place in (1, 2, 3) for edge in (-1, 0, 1, 2, 3, 4)]
    assert changes[seams].max() <= 2 * np.median(changes)
    still = np.abs(np.diff(clip(0.0).astype(float), axis=0)).mean()
    assert np.median(changes) > 0.3 * still  # it does move, to the end
    assert changes[-4:].mean() > 0.3 * still
