"""What noise levels by score do for training on clips that are each good in one respect alone.

    python -m benchmarks.tqd [--seeds N] [--steps N] [--vae-steps N] [--minutes M] [--keep FOLDER]

Drawn data of two halves: checks that slide but are blurred, and sharp checks that stand still. The captions are the
same in both. A tiny transformer is trained on them with all rows at the same, uniform noise levels, and with
`data.timesteps: tqd(motion, visual_quality)` over the same density (Luo et al., "Beyond the Golden Data", arXiv
2603.25527, in the form of `curation/ranks.py`), everything else being equal. Samples of both are set by `evaluate`
beside clips that nobody trained the transformer on: the same checks, sharp and sliding. Printed are the distances of
motion and of sharpness, in standard deviations of those clips, as median, lowest and highest over the seeds of
training. The VAE is trained once, on all three kinds, so that what it can show is no part of the question; printed,
too, are the distances of the training clips, which a model that copies them has, and of the sharp sliding clips
themselves after the VAE. Target: a lower median of both with `tqd`.

Written to `.bench/tqd.json`.
"""

import argparse
import io
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import torch

from benchmarks.measure import shown, spread, verdict, write_results
from cli.common import TABLES
from configs import CONFIGS
from curation.engine.runners import InlineRunner
from curation.inputs.sources import find_sources
from curation.pipeline import curate
from curation.recipe import resolve
from evaluation.request import Asked, plan_evaluation
from evaluation.run import evaluate
from models.vae.table import load_vae
from models.vae.video_vae import decode_pixels, encode_pixels, scaling_factor_of
from sampling.command import sample
from sampling.pictures import write_mp4
from sampling.request import Request, each_of
from train_bridge.config import load_config
from train_bridge.run import train

COLOURS = {
    "yellow and blue checks": ((0.95, 0.85, 0.2), (0.15, 0.3, 0.55)),
    "white and red checks": ((0.95, 0.95, 0.95), (0.6, 0.1, 0.15)),
}
PHASES = 8
SIZE_PX, NUM_FRAMES, FPS, NUM_SAMPLED = 32, 27, 24.0, 9
TOKENS = 12
"""of a clip of 9 frames: 3 × 4 × 4 latents, 2 × 2 of them a token"""
CLIPS_PER_STEP = (16, 8)
"""of the VAE and of the transformer"""
PERIODS = 2
"""of checks across the picture"""
EDGE = 4.0
"""how steep the checks' edges are"""
BLUR = 3 / 32
"""of the blurred clips, standard deviation as a share of the side"""
LARGE_PX = 256
"""side of the training clips, since `visual_quality` takes fine structure of very small pictures for noise"""
SPEEDS = (0.4, 0.7)
"""periods that a sliding clip slides, the least and the most"""
ARMS = {"uniform": "null", "tqd": "tqd(motion, visual_quality)"}
SCORES = ("motion", "sharpness")
SAMPLES, SAMPLE_STEPS, GUIDANCE = 8, 16, 1.0
"""of each caption; denoising steps; no guidance, so that nothing sharpens the one more than the other"""
VAE_STEPS, STEPS, SEEDS = 200, 160, 3


@dataclass(frozen=True)
class Kind:
    """What a set of clips is like."""

    slides: bool
    is_sharp: bool


MOVING, STILL, BOTH = Kind(True, False), Kind(False, True), Kind(True, True)
KINDS_OF_DATA = (MOVING, STILL)


@dataclass(frozen=True)
class Found:
    """Distances from the sharp sliding clips, by score.

    Attributes:
        copied: of the training clips.
        through: of the sharp sliding clips after the VAE.
        arms: of the samples of each arm, by seed.
    """

    copied: dict[str, float]
    through: dict[str, float]
    arms: dict[str, list[dict[str, float]]]


def paint(
    kind: Kind, colours: tuple[Sequence[float], Sequence[float]], phase: float, speed: float, size_px: int
) -> np.ndarray:
    """Return checks, uint8 (T, H, W, 3), from a phase on; `speed` is in periods a clip."""
    place = 2 * np.pi * PERIODS * (np.arange(size_px) + 0.5) / size_px
    light, dark = (np.array(colour) for colour in colours)
    frames = []
    for time_s in np.linspace(0, 1, NUM_FRAMES):
        wave = np.sin(place + 2 * np.pi * (phase + speed * time_s * kind.slides))[None] * np.sin(place)[:, None]
        share = (0.5 + 0.5 * np.tanh(EDGE * wave))[..., None]
        frame = share * light + (1 - share) * dark
        frames.append(frame if kind.is_sharp else cv2.GaussianBlur(frame, (0, 0), BLUR * size_px))
    return (np.stack(frames) * 255).round().astype(np.uint8)


def speed_of(place: int) -> float:
    """Return how many periods the clip of a phase slides; speeds and phases are mixed."""
    return float(np.interp(place * 3 % PHASES, (0, PHASES - 1), SPEEDS))


def draw(folder: Path, kinds: Sequence[Kind], size_px: int = SIZE_PX) -> None:
    """Write clips of some kinds, each with its caption beside it, which says nothing about the kind."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, kind in enumerate(kinds):
        for caption, colours in COLOURS.items():
            for place in range(PHASES):
                path = folder / f"{number}-{caption.split()[0]}-{place}.mp4"
                write_mp4(paint(kind, colours, place / PHASES, speed_of(place), size_px), FPS, path)
                path.with_suffix(".json").write_text(json.dumps({"prompt": caption}), encoding="utf-8")


def curated(footage: Path, out: Path) -> Path:
    """Score and caption clips as they are, in the plain loop; return the output."""
    recipe, captioner = resolve(
        {
            "shots": {"detector": "stride", "settings": {"every_s": 60.0}, "min_s": 0.1},
            "operators": {name: {} for name in ("motion", "sharpness", "visual_quality")},
            "caption": {"captioner": "prompt"},
        },
        TABLES,
    )
    outcome = curate(find_sources([str(footage)]), out, recipe, captioner, InlineRunner())
    assert outcome.is_complete and not outcome.tally.problems, outcome.tally.problems
    return out


def check_halves(data: Path) -> None:
    """Stop where the scores do not rank the halves as they were drawn, since then there is nothing to measure."""
    rows = [row for part in (data / "clips").glob("*.parquet") for row in pq.read_table(part).to_pylist()]
    halves = [[row for row in rows if row["source_path"].startswith(f"{k}-")] for k in range(len(KINDS_OF_DATA))]
    for score, (low, high) in {"motion": halves[::-1], "visual_quality": halves}.items():
        if max(row[score] for row in low) >= min(row[score] for row in high):
            raise SystemExit(f"{score} does not tell the halves apart")


def metadata_of(folders: Sequence[Path], file: Path) -> Path:
    """Write the list of all clips of some folders, for the VAE."""
    videos = sorted(video for folder in folders for video in folder.glob("*.mp4"))
    rows = [{"file_path": str(video.relative_to(file.parent)), "text": "checks", "type": "video"} for video in videos]
    file.write_text(json.dumps(rows), encoding="utf-8")
    return file


def distances(samples: Path, reference: Path, out: Path) -> dict[str, float]:
    """Return how far samples are from a reference by `evaluate`, in spreads of the reference."""
    default = CONFIGS / "default.yaml"
    request = plan_evaluation(Asked([str(samples)], [], None, reference, out), default, TABLES, lambda _: None)
    found = evaluate(request, InlineRunner(), lambda _: None)
    assert not found.failed and not found.problems, (found.failed, found.problems)
    far = {score.column.name: score.wasserstein for score in found.scores}
    return {name: value for name in SCORES if (value := far[name]) is not None}


@torch.no_grad()
def draw_through(vae: Path, folder: Path) -> None:
    """Write sharp sliding clips after the VAE: what a perfect model of their latents would make."""
    folder.mkdir(parents=True, exist_ok=True)
    network = load_vae(vae / "model" / "vae").eval()
    shown_frames = np.linspace(0, NUM_FRAMES - 1, NUM_SAMPLED).round().astype(int)
    for name, colours in COLOURS.items():
        for place in range(PHASES):
            pixels = torch.from_numpy(paint(BOTH, colours, place / PHASES, speed_of(place), SIZE_PX)[shown_frames])[
                None
            ]
            latents = encode_pixels(network, pixels)[0] * scaling_factor_of(network)
            path = folder / f"{name.split()[0]}-{place}.mp4"
            write_mp4(decode_pixels(network, latents)[0], FPS * NUM_SAMPLED / NUM_FRAMES, path)


def trained(config: str, changes: Sequence[str], data: Path, out: Path) -> Path:
    """Train with one of the tiny configs; return the run."""
    shape = [f"buckets.sizes_px=[{SIZE_PX}]", f"buckets.frames=[{NUM_SAMPLED}]"]
    settings = load_config(CONFIGS / config, [*shape, *changes], {"data.metadata": str(data)})
    train(settings, out, "inline")
    return out


def run(work: Path, seeds: int, steps: int, vae_steps: int, is_late: Callable[[], bool]) -> Found:
    """Train and measure."""
    draw(work / "halves", KINDS_OF_DATA)
    draw(work / "large", KINDS_OF_DATA, LARGE_PX)
    draw(work / "whole", (BOTH,))
    data, reference = curated(work / "large", work / "data"), curated(work / "whole", work / "reference")
    check_halves(data)
    copied = distances(work / "halves", reference, work / "copied")
    clips = metadata_of((work / "halves", work / "whole"), work / "clips.json")
    few = f"buckets.tokens_per_micro_batch={CLIPS_PER_STEP[0] * TOKENS}"
    vae = trained("train_vae_tiny.yaml", [f"train.steps={vae_steps}", few], clips, work / "vae")
    draw_through(vae, work / "through")
    through = distances(work / "through", reference, work / "through-found")
    print(f"training clips: {told(copied)}; through the VAE: {told(through)}", file=sys.stderr, flush=True)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ARMS}
    for seed in range(seeds):
        if is_late():
            break
        for name, timesteps in ARMS.items():
            changes = (
                f"buckets.tokens_per_micro_batch={CLIPS_PER_STEP[1] * TOKENS}", f"train.cache={work / 'cache'}",
                f"model.vae={vae}", f"train.steps={steps}", f"train.seed={seed}",
                "train.learning_rate=0.002", "train.warmup_steps=20", "objective.timesteps=uniform",
                f"data.timesteps={timesteps}",
            )  # fmt: skip
            model = trained("train_tiny.yaml", changes, data, work / f"{name}-{seed}")
            ask = Request("", steps=SAMPLE_STEPS, guidance=GUIDANCE)
            sample(model, each_of(ask, list(COLOURS), range(SAMPLES)), work / f"{name}-{seed}-samples")
            found[name].append(distances(work / f"{name}-{seed}-samples", reference, work / f"{name}-{seed}-found"))
            print(f"seed {seed}, {name}: {told(found[name][-1])}", file=sys.stderr, flush=True)
    return Found(copied, through, found)


def told(far: dict[str, float]) -> str:
    """Write distances for a line."""
    return ", ".join(f"{name} {value:.2f}" for name, value in far.items())


def missed(found: Found) -> list[str]:
    """Return the scores in which `tqd` is not nearer than uniform noise levels, by the median over the seeds."""
    words = []
    for score in SCORES:
        uniform, tqd = (statistics.median(one[score] for one in found.arms[name]) for name in ARMS)
        if tqd >= uniform:
            words.append(f"distance of {score} with tqd: {tqd:.2f}, with uniform noise levels {uniform:.2f}")
    return words


def show(found: Found) -> int:
    """Print the table and what was missed; return the exit status."""
    seeds = len(found.arms["uniform"])
    print(f"distance from sharp sliding clips (median, lowest and highest of {seeds} seeds of training)")
    print(f"{'':16}" + "".join(f"{score:>24}" for score in SCORES))
    for name, far in (("training clips", found.copied), ("through the VAE", found.through)):
        print(f"{name:16}" + "".join(f"{far[score]:>24.2f}" for score in SCORES))
    for name, each in found.arms.items():
        print(f"{name:16}" + "".join(f"{shown([one[score] for one in each]):>24}" for score in SCORES))
    return verdict(missed(found))


def main() -> int:
    """Print the table; 1 where `tqd` is not nearer in both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--steps", type=int, default=STEPS, help="of each transformer")
    parser.add_argument("--vae-steps", type=int, default=VAE_STEPS)
    parser.add_argument("--minutes", type=float, default=60, help="no further seed is begun after so long")
    parser.add_argument("--keep", type=Path, help="folder that all is left in; with it again, a run goes on")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    end_s = time.monotonic() + 60 * options.minutes
    keep = nullcontext(options.keep) if options.keep else tempfile.TemporaryDirectory()
    with keep as folder, redirect_stdout(io.StringIO()):  # what the trainer tells is not shown
        work = Path(folder).absolute()
        found = run(work, options.seeds, options.steps, options.vae_steps, lambda: time.monotonic() > end_s)
    if not found.arms["uniform"]:
        raise SystemExit("no seed was begun; give --seeds 1 or more, and more --minutes")
    spreads = {
        name: {score: spread([one[score] for one in each]) for score in SCORES} for name, each in found.arms.items()
    }
    results = {"copied": found.copied, "through": found.through, "seeds": found.arms, "spread": spreads}
    print(f"written to {write_results('tqd', results)}")
    return show(found)


if __name__ == "__main__":
    sys.exit(main())
