"""Each family from clips with captions to samples of them, by the command line alone: VAE, transformer, samples."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from clips import CLIPS, OTHER_CLIPS, nearest, paint, write_clips
from PIL import Image
from pipelines import psnr_db

import run_pipeline
from models.lora.files import DIFFUSERS_FILE, read_lora
from models.vae.video_vae import decode_pixels, encode, load_vae, to_signed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # minutes for a family, more where other work goes on
torch.set_num_threads(1)
CONFIGS = Path(run_pipeline.__file__).parent / "configs"
SIZE_PX = 32


@dataclass(frozen=True)
class Family:
    """How a tiny family is trained: its VAE, the frames of a clip, how the VAE learns, and how images are added."""

    vae: str
    frames: int
    vae_words: tuple[str, ...] = ()
    widen_words: tuple[str, ...] = ()


FASTER = ("train.steps=200", "train.learning_rate=0.002")
WIDEN = (
    "method=inpaint", "inpaint.widen=true", "inpaint.masks={first_frames: 0.5, both_ends: 0.2, box: 0.1, all: 0.2}",
    "model.transformer=null", "model.vae=null", "model.text_encoder=null", "train.schedule=cosine", "train.steps=600",
)  # fmt: skip
"""image conditions for a text-to-video model; V3's configuration trains with them from the start"""
V4_IMAGES = ("model.image_encoder=tiny", 'data.repeat="2"')


FAMILIES = {
    "v1": Family("tiny-image-vae", 8),
    "v2": Family("tiny-magvit4", 9, vae_words=FASTER),
    "v3": Family("tiny-slice", 8, vae_words=FASTER),
    "v4": Family("tiny-cached-slice", 8, vae_words=FASTER, widen_words=(*WIDEN, *V4_IMAGES)),
    "v5": Family("tiny", 9, widen_words=WIDEN),
}


def run(*words: str | Path) -> None:
    assert run_pipeline.main([str(word) for word in words]) == 0


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of families that have been trained, each with `vae` and `video`; filled by `train_family`."""
    return {"": tmp_path_factory.mktemp("families")}


def train_family(trained: dict[str, Path], name: str) -> Path:
    """Train a family once, and return its folder."""
    if name in trained:
        return trained[name]
    folder, family = trained[""] / name, FAMILIES[name]
    data, every = write_clips(folder / "clips", CLIPS), write_clips(folder / "every", CLIPS | OTHER_CLIPS)
    run(
        "train", CONFIGS / "train_vae_tiny.yaml", "--data", every, "--output", folder / "vae", "--runner", "inline",
        f"model.vae={family.vae}", f"buckets.frames=[{family.frames}]", f"buckets.sizes_px=[{SIZE_PX}]",
        *family.vae_words,
    )  # fmt: skip
    run(
        "train", CONFIGS / f"train_{name}_tiny.yaml", "--data", data, "--output", folder / "video",
        "--runner", "inline", f"model.vae={folder / 'vae'}",
    )  # fmt: skip
    trained[name] = folder
    return folder


def widen_family(trained: dict[str, Path], name: str) -> Path:
    """Train a family once, then its model of image conditions, and return that run's folder."""
    folder, words = train_family(trained, name), FAMILIES[name].widen_words
    if not words:
        return folder / "video"
    run(
        "train", CONFIGS / f"train_{name}_tiny.yaml", "--data", folder / "clips" / "metadata.json",
        "--output", folder / "images", "--runner", "inline", f"model.base={folder / 'video' / 'model'}", *words,
    )  # fmt: skip
    return folder / "images"


def read_video(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def sample(
    model: Path, out: Path, *words: str | Path, captions: tuple[str, ...] = tuple(CLIPS)
) -> dict[str, np.ndarray]:
    prompts = [word for caption in captions for word in ("--prompt", caption)]
    run("sample", model, *prompts, "--output", out, "--steps", "20", "--guidance", "2", *words)
    return {json.loads(p.with_suffix(".json").read_text())["prompt"]: read_video(p) for p in out.glob("*.mp4")}


EVERY = "SELECTS_FAMILIES" in os.environ
"""all take more than twenty minutes of CPU, so two processes share them; without it V1 stands for them"""
long = pytest.mark.skipif(not EVERY, reason="minutes for each family: set SELECTS_FAMILIES=1, as `make test-all` does")


def family(name: str, *values: str) -> Any:
    """Return the parameters of a family's test; with `--dist loadgroup` one worker trains it once for all of them."""
    marks = [pytest.mark.xdist_group(name), *([] if name == "v1" else [long])]
    return pytest.param(name, *values, marks=marks)


@pytest.mark.parametrize("name", [family(name) for name in ("v1", "v2", "v3", "v4", "v5")])
def test_each_caption_samples_its_own_clip(trained: dict[str, Path], tmp_path: Path, name: str) -> None:
    videos = sample(train_family(trained, name) / "video", tmp_path)
    assert videos.keys() == CLIPS.keys()
    assert {len(frames) for frames in videos.values()} == {FAMILIES[name].frames}
    assert {caption: nearest(frames, CLIPS) for caption, frames in videos.items()} == {c: c for c in CLIPS}


@pytest.mark.parametrize(("name", "guidance"), [family("v3", "2"), family("v4", "1"), family("v5", "2")])
def test_an_image_goes_on_as_its_clip_does(trained: dict[str, Path], tmp_path: Path, name: str, guidance: str) -> None:
    model, frames = widen_family(trained, name), FAMILIES[name].frames
    vae = load_vae(model / "model" / "vae").eval()
    found, first_db = {}, {}
    for number, (caption, painter) in enumerate(CLIPS.items()):
        # The first of as many frames as are trained on: those of the clip's file begin earlier, with another picture.
        clip = paint(painter, frames, SIZE_PX)
        own = decode_pixels(vae, encode(vae, to_signed(torch.from_numpy(clip)[None])))[0]
        Image.fromarray(clip[0]).save(tmp_path / f"{number}.png")
        words = ("--image", tmp_path / f"{number}.png", "--guidance", guidance)
        [video] = sample(model, tmp_path / str(number), *words, captions=(caption,)).values()
        found[caption], first_db[caption] = nearest(video, CLIPS), psnr_db(video[0], own[0])
    assert found == {caption: caption for caption in CLIPS}
    assert min(first_db.values()) >= 25, first_db


@pytest.mark.xdist_group("v1")
def test_a_lora_of_stills_changes_videos_of_v1_towards_them_and_no_layer_along_time(
    trained: dict[str, Path], tmp_path: Path
) -> None:
    base = train_family(trained, "v1") / "video"
    caption = next(iter(CLIPS))
    stills = tmp_path / "stills"
    stills.mkdir()
    look = np.broadcast_to(np.array((230, 230, 60), np.uint8), (SIZE_PX, SIZE_PX, 3))
    items = []
    for number, one in enumerate(CLIPS):
        Image.fromarray(look).save(stills / f"{number}.png")
        items.append({"file_path": f"{number}.png", "text": one, "type": "image"})
    (stills / "metadata.json").write_text(json.dumps(items), encoding="utf-8")
    run(
        "train", CONFIGS / "train_v1_tiny.yaml", "--data", stills / "metadata.json", "--output", tmp_path / "lora",
        "--runner", "inline", f"model.base={base / 'model'}", "model.transformer=null", "model.vae=null",
        "model.text_encoder=null", "lora.rank=16", "lora.images_only=true", "train.steps=200", "train.ema=null",
        "train.learning_rate=0.005",
    )  # fmt: skip
    file = tmp_path / "lora" / "lora" / DIFFUSERS_FILE
    weights = read_lora(file)
    assert weights.layers and not any("attn_temporal" in name for name in weights.layers)
    before = sample(base, tmp_path / "before", captions=(caption,))[caption]
    after = sample(base, tmp_path / "after", "--lora", file, captions=(caption,))[caption]
    far = [np.square(video.astype(float) - look).mean() for video in (before, after)]
    assert far[1] < 0.5 * far[0], far


def test_a_sampler_of_another_objective_is_refused(
    trained: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = train_family(trained, "v1") / "video"
    capsys.readouterr()
    words = ["sample", model, "--prompt", "x", "--output", tmp_path / "out", "--sampler", "flow_euler"]
    assert run_pipeline.main([str(word) for word in words]) == 2
    line = capsys.readouterr().err.strip()
    assert "\n" not in line and "flow_euler" in line
