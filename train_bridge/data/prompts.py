"""Prompts of a file: one a line, or JSON with a text in each entry."""

import json
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.files import read_bounded
from core.sanitize import LONGEST_CAPTION, clean_text

MOST_BYTES = 1 << 30
TEXT_KEYS = ("prompt", "text", "caption")


def read_prompts(path: Path, what: str) -> tuple[str, ...]:
    """Read the prompts of a file, each once, in order.

    Args:
        path: text with a prompt on each line, a JSON array of texts or objects, or JSON lines of objects; the text of
            an object is under `prompt`, `text` or `caption`.
        what: the key that names the file, for messages.

    Raises:
        UserError: not there, not readable, or without a prompt.
    """
    try:
        text = read_bounded(path, MOST_BYTES).decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{what} {path}: no such file; write one with a prompt on each line") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{what} {path}: cannot be read ({' '.join(str(error).split())})") from None
    try:
        if text.lstrip()[:1] == "[":
            items: list[Any] = json.loads(text)
        elif path.suffix in (".json", ".jsonl"):
            items = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            items = text.splitlines()
    except (ValueError, RecursionError) as error:
        raise UserError(f"{what} {path}: broken JSON ({error}); correct it") from None
    prompts = [_text(item, place, path, what) for place, item in enumerate(items)]
    found = tuple(dict.fromkeys(prompt for prompt in prompts if prompt))
    if not found:
        raise UserError(f"{what} {path}: holds no prompt; write one on each line")
    return found


def _text(item: Any, place: int, path: Path, what: str) -> str:
    value = item if isinstance(item, str) else None
    if isinstance(item, dict):
        value = next((item[key] for key in TEXT_KEYS if isinstance(item.get(key), str)), None)
    if value is None:
        raise UserError(f"{what} {path}[{place}]: no text; write it under one of {', '.join(TEXT_KEYS)}")
    return clean_text(value, LONGEST_CAPTION).strip()
