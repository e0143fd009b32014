"""What may be asked of the sampler, in the words of the Python API and of the command line."""

import codecs
import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from core.errors import UserError
from core.files import read_bounded
from core.sanitize import LONGEST_CAPTION, clean_text
from models.lora.files import DIFFUSERS_FILE

Made = tuple[np.ndarray | None, str | None, float]
MapMaker = Callable[[np.ndarray, float], Made]
"""uint8 (T, H, W, 3) RGB and frames a second to maps (T, H, W, 3) or none, a text or none, and how much it holds"""
HINTS_FILE = "sampling.json"
STRENGTH = 0.7
"""of video-to-video, as EasyAnimate has it"""
AS_IS = "as_is"
"""the kind of a control that is a map already"""
MOST_SEEDS = 100_000
MOST_PROMPT_BYTES = 64 << 20
"""of a file of prompts"""


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
        raise UserError(
            "no such file", field="lora", value=text, fix="name a .safetensors or a run's folder, and `:SCALE` after it"
        )


@dataclass(frozen=True)
class Options:
    """How a model is opened.

    Attributes:
        loras: adapters, all active together.
        fuse_loras: put them into the weights: a little faster, the same result but for rounding.
        memory: a mode of `models.memory.modes`, or `auto`.
        vae_tiling: let the VAE work in tiles: less memory, faint seams.
        cache_threshold: relative change of the first block's output below which the other blocks' last is taken
            again; None: every block computes in every step.
        keep_text_encoder: hold it while sampling, for programs whose prompts are not known beforehand.
        maps: what makes control maps of footage, by kind (`controls.frames.map_makers`).
    """

    loras: tuple[Lora, ...] = ()
    fuse_loras: bool = False
    memory: str = "auto"
    vae_tiling: bool = False
    cache_threshold: float | None = None
    keep_text_encoder: bool = False
    maps: Mapping[str, MapMaker] = field(default_factory=dict)


DEFAULTS = Options()


@dataclass(frozen=True)
class SegmentPrompt:
    """What a stretch of a long video shall show.

    Attributes:
        prompt: the text, on one line.
        num_frames: how long it holds; None: as long as the others.
    """

    prompt: str
    num_frames: int | None = None

    def __post_init__(self) -> None:
        """Bring the text to one line that every file can hold."""
        object.__setattr__(self, "prompt", " ".join(clean_text(self.prompt, LONGEST_CAPTION).split()))

    @staticmethod
    def parse(text: str) -> "SegmentPrompt":
        """Read `FRAMES | TEXT`, or a text alone; one that begins with `|` may hold that sign."""
        match = re.fullmatch(r"\s*(\d{0,9})\s*\|(.*)", text, re.DOTALL)
        if match is None:
            return SegmentPrompt(text)
        return SegmentPrompt(match[2], int(match[1]) if match[1] else None)

    def __str__(self) -> str:
        """Return what `parse` reads."""
        if self.num_frames is not None:
            return f"{self.num_frames} | {self.prompt}"
        return f"| {self.prompt}" if "|" in self.prompt else self.prompt


@dataclass(frozen=True)
class Request:
    """One sample; None takes what the model was trained for, or what an image or video given asks for.

    Attributes:
        prompt: what it shall show; empty with `prompts`: the first of them.
        negative: text that guidance leads away from.
        seed: of the first noise.
        width_px: multiple of 16.
        height_px: multiple of 16.
        num_frames: of one segment, as the VAE takes it (V5: 4n+1); 1 makes a picture.
        fps: of the file.
        steps: denoising steps; None: the family's.
        guidance: classifier-free guidance; 1 or less: none; None: the family's.
        sampler: a name in `models.denoise.samplers.SAMPLERS`; None: the family's.
        image: the first frame.
        end_image: the last frame; needs a model with condition channels.
        video: a video (or for one frame an image) to begin from.
        mask: an image or video of the video's size: white is generated, black is kept.
        strength: share of the steps that change the video: 0 gives it back, 1 forgets it; None: 0.7, with a mask 1.
        segments: how often the model continues; each begins with the last frames of the one before.
        length: frames in all, in place of `segments`.
        prompts: of a long video: what its stretches show, one after the other, in place of `prompt`. Without their
            lengths the segments are shared out evenly, one to each where neither `segments` nor `length` is given. A
            border between two of them falls on the nearest border between segments.
        overlap: frames that segments share, as the VAE takes them (V5: 4n+1), of V3 any number; None: the family's,
            else 5 or the next that the VAE takes, or 1 where segments have no more than 5.
        control: a control map, video or image, or footage that one is made of; needs a control model.
        control_kind: which map is made of it; `as_is`: it is one.
        reference: an image whose look the video shall have; needs a model that sees one.
        camera: a preset, or a file with a path (.txt) or a video that shows one; needs a camera model.
        camera_speed: how many times as far the camera goes.
        trajectory: a file of points (JSON or CSV), whose heat maps are the control.
        control_scale: factor on what the model sees of the control or the camera; 0: nothing.
        control_start: share of the steps before which the control does not act.
        control_end: share of the steps from which on it does not.
    """

    prompt: str
    negative: str = ""
    seed: int = 0
    width_px: int | None = None
    height_px: int | None = None
    num_frames: int | None = None
    fps: float | None = None
    steps: int | None = None
    guidance: float | None = None
    sampler: str | None = None
    image: Path | None = None
    end_image: Path | None = None
    video: Path | None = None
    mask: Path | None = None
    strength: float | None = None
    segments: int | None = None
    length: int | None = None
    prompts: tuple[SegmentPrompt, ...] = ()
    overlap: int | None = None
    control: Path | None = None
    control_kind: str = AS_IS
    reference: Path | None = None
    camera: str | None = None
    camera_speed: float = 1.0
    trajectory: Path | None = None
    control_scale: float = 1.0
    control_start: float = 0.0
    control_end: float = 1.0

    def __post_init__(self) -> None:
        """Make the texts such as every file beside a sample can hold; the command line may pass any bytes."""
        if self.prompts and not self.prompt.strip():
            object.__setattr__(self, "prompt", self.prompts[0].prompt)
        for name in ("prompt", "negative"):
            object.__setattr__(self, name, clean_text(getattr(self, name), LONGEST_CAPTION))


def each_of(template: Request, prompts: Sequence[str], seeds: Sequence[int] | None = None) -> tuple[Request, ...]:
    """Return a request for every prompt.

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
            raise UserError(
                f"'{part}' is neither a number nor a range", field="seeds", value=text, fix="write 0..9 or 1,5,8..10"
            )
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first or last - first + len(seeds) >= MOST_SEEDS:
            raise UserError(
                f"'{part}' is empty or too long",
                field="seeds",
                value=text,
                fix=f"write it upwards, fewer than {MOST_SEEDS}",
            )
        seeds.extend(range(first, last + 1))
    return tuple(dict.fromkeys(seeds))


def read_prompts(file: Path) -> tuple[str, ...]:
    """Read a file of prompts, one a line; empty lines are passed over.

    Lines end as editors end them (LF, CRLF, CR): other separators, such as U+2028, are part of a prompt. A byte order
    mark says UTF-8 or UTF-16; without one it is UTF-8.

    Raises:
        UserError: it cannot be read.
    """
    try:
        content = read_bounded(file, MOST_PROMPT_BYTES)
        text = content.decode("utf-16" if content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"cannot be read as text ({error})", field="prompts_file", value=file) from None
    lines = (
        line.replace("\ufeff", "").strip() for line in re.split(r"\r\n|\n|\r", text)
    )  # joined files have marks within
    return tuple(line for line in lines if line)
