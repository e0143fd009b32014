"""The prompt of a generated clip, from the `.json` that the sampler writes beside it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from core.sanitize import LONGEST_CAPTION, clean_text
from curation.types import Caption, Frames, Row, Sampling
from sampling.settings_file import settings_of

NAME = "prompt"
"""of the captioner, as recipes name it"""
MISSING = "missing"
"""`caption_status` of a clip without a prompt"""


def prompt_of(file: Path) -> str | None:
    """Return the prompt that a file was sampled from; None where it is not known."""
    prompt = settings_of(file).get("prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        return None
    return clean_text(prompt.encode("utf-8", "replace").decode(), LONGEST_CAPTION)  # half a character becomes `?`


@dataclass(frozen=True)
class Prompts:
    """Takes the prompt that a clip was generated from for its caption."""

    pool: ClassVar[str | None] = None
    slots: ClassVar[int] = 1

    @property
    def sampling(self) -> Sampling | None:
        """No frames."""
        return None

    def load(self) -> Callable[[Sequence[tuple[Row, Frames | None]]], list[Caption]]:
        """Return the captioning function; a clip without a prompt has the status `missing`."""

        def read(clips: Sequence[tuple[Row, Frames | None]]) -> list[Caption]:
            prompts = [prompt_of(Path(row["source_root"]) / row["source_path"]) for row, _ in clips]
            return [Caption(prompt, NAME, "ok" if prompt else MISSING) for prompt in prompts]

        return read
