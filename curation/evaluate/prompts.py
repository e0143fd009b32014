"""The prompt of a generated clip, from the `.json` that the sampler writes beside it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from curation.types import Caption, Frames, Row, Sampling

NAME = "prompt"
"""of the captioner, as recipes name it"""
MISSING = "missing"
"""`caption_status` of a clip without a prompt"""
MOST_BYTES = 1 << 20


def settings_of(file: Path) -> dict[str, Any]:
    """Give what a file was sampled with, from the `.json` beside it; nothing where there is none that can be read."""
    try:
        with file.with_suffix(".json").open("rb") as beside:
            settings = json.loads(beside.read(MOST_BYTES))
    except (OSError, ValueError, RecursionError):  # not there, no JSON, or too much of it
        return {}
    return settings if isinstance(settings, dict) else {}


def prompt_of(file: Path) -> str | None:
    """Give the prompt that a file was sampled from; None where it is not known."""
    prompt = settings_of(file).get("prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        return None
    return prompt.encode("utf-8", "replace").decode()  # JSON may spell halves of characters


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
        """Give the captioning function; a clip without a prompt has the status `missing`."""

        def read(clips: Sequence[tuple[Row, Frames | None]]) -> list[Caption]:
            prompts = [prompt_of(Path(row["source_root"]) / row["source_path"]) for row, _ in clips]
            return [Caption(prompt, NAME, "ok" if prompt else MISSING) for prompt in prompts]

        return read
