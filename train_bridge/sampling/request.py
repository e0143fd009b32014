"""What may be asked of the sampler, in the words of the Python API and of the command line."""

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curation.errors import UserError
from models.lora_files import DIFFUSERS_FILE

HINTS_FILE = "sampling.json"
# What published weights of the family were made for.
PUBLISHED: dict[str, Any] = {"width_px": 512, "height_px": 512, "num_frames": 49, "fps": 8.0, "text_tokens": 256}
STRENGTH = 0.7
"""of video-to-video, as EasyAnimate has it"""
MOST_SEEDS = 100_000


@dataclass(frozen=True)
class Lora:
    """An adapter file and how strongly it acts."""

    path: Path
    scale: float = 1.0

    @staticmethod
    def parse(text: str) -> "Lora":
        """Read `PATH` or `PATH:SCALE`; a run's folder stands for its adapter.

        Raises:
            UserError: there is no such file.
        """
        path, _, scale = text.rpartition(":")
        try:
            found = Lora(Path(path), float(scale)) if path else Lora(Path(text))
        except ValueError:
            found = Lora(Path(text))
        for file in (found.path, found.path / "lora" / DIFFUSERS_FILE, found.path / DIFFUSERS_FILE):
            if file.is_file():
                return dataclasses.replace(found, path=file)
        raise UserError(f"--lora {text}: no such file; name a .safetensors or a run's folder, and `:SCALE` after it")


@dataclass(frozen=True)
class Options:
    """How a model is opened.

    Attributes:
        loras: adapters, all active together.
        fuse_loras: put them into the weights: a little faster, the same result but for rounding.
        memory: a mode of `models.memory`, or `auto`.
        vae_tiling: let the VAE work in tiles: less memory, faint seams.
        cache_threshold: relative change of the first block's output below which the other blocks' last is taken
            again; None: every block computes in every step.
        keep_text_encoder: hold it while sampling, for programs whose prompts are not known beforehand.
    """

    loras: tuple[Lora, ...] = ()
    fuse_loras: bool = False
    memory: str = "auto"
    vae_tiling: bool = False
    cache_threshold: float | None = None
    keep_text_encoder: bool = False


DEFAULTS = Options()


@dataclass(frozen=True)
class Request:
    """One sample; None takes what the model was trained for, or what an image or video given asks for.

    Attributes:
        prompt: what it shall show.
        negative: text that guidance leads away from.
        seed: of the first noise.
        width_px: multiple of 16.
        height_px: multiple of 16.
        num_frames: 4n+1, of one segment; 1 makes a picture.
        fps: of the file.
        steps: denoising steps.
        guidance: classifier-free guidance; 1 or less: none.
        sampler: a name in `models.samplers.SAMPLERS`.
        image: the first frame.
        end_image: the last frame; needs a model with condition channels.
        video: a video (or for one frame an image) to begin from.
        mask: an image or video of the video's size: white is generated, black is kept.
        strength: share of the steps that change the video: 0 gives it back, 1 forgets it; None: 0.7, with a mask 1.
        segments: how often the model continues; each begins with the last frames of the one before.
        length: frames in all, in place of `segments`.
        overlap: frames that segments share, 4n+1; None: 5, or 1 where segments have no more than 5.
    """

    prompt: str
    negative: str = ""
    seed: int = 0
    width_px: int | None = None
    height_px: int | None = None
    num_frames: int | None = None
    fps: float | None = None
    steps: int = 50
    guidance: float = 6.0
    sampler: str | None = None
    image: Path | None = None
    end_image: Path | None = None
    video: Path | None = None
    mask: Path | None = None
    strength: float | None = None
    segments: int | None = None
    length: int | None = None
    overlap: int | None = None


def each_of(template: Request, prompts: Sequence[str], seeds: Sequence[int] | None = None) -> tuple[Request, ...]:
    """Give a request for every prompt.

    Args:
        template: all but prompt and seed; its seed is the first prompt's, and the next has the next number.
        prompts: one or more.
        seeds: sample every prompt with each of these instead.
    """
    if seeds is None:
        pairs = [(prompt, template.seed + place) for place, prompt in enumerate(prompts)]
    else:
        pairs = [(prompt, seed) for prompt in prompts for seed in seeds]
    return tuple(dataclasses.replace(template, prompt=prompt, seed=seed) for prompt, seed in pairs)


def parse_seeds(text: str) -> tuple[int, ...]:
    """Read `7`, `0..9` (both ends belong to it) or `1,5,8..10`.

    Raises:
        UserError: something else, or very many.
    """
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,18})(?:\.\.(\d{1,18}))?\s*", part)
        if not match:
            raise UserError(f"--seeds {text}: '{part}' is neither a number nor a range; write 0..9 or 1,5,8..10")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first or last - first + len(seeds) >= MOST_SEEDS:
            raise UserError(f"--seeds {text}: '{part}' is empty or too long; write it upwards, fewer than {MOST_SEEDS}")
        seeds.extend(range(first, last + 1))
    return tuple(dict.fromkeys(seeds))


def read_prompts(file: Path) -> tuple[str, ...]:
    """Read a file of prompts, one a line; empty lines are passed over.

    Raises:
        UserError: it cannot be read.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--prompts {file}: cannot be read as text ({error})") from None
    return tuple(line.strip() for line in lines if line.strip())
