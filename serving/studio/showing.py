"""Results, progress and previews as the page shows them: HTML that holds what it shows."""

import base64
import io
from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np
from PIL import Image

from sampling.settings_file import is_place, without_places
from serving.ledger import Job
from serving.studio.texts import say

PREVIEW_PX = 256
"""height of a preview, to which latents are magnified"""
PREVIEW_MS = 250
MOST_FRAMES = 16
LEFT_OUT = frozenset({"request_id", "versions", "loras"})


def preview_html(pictures: np.ndarray | None) -> str:
    """Return small pictures, uint8 (F, h, w, 3), as one moving image."""
    if pictures is None or not len(pictures):
        return ""
    scale = max(1, PREVIEW_PX // pictures.shape[1])
    size = (pictures.shape[2] * scale, pictures.shape[1] * scale)
    places = np.unique(np.linspace(0, len(pictures) - 1, MOST_FRAMES).round().astype(int))
    frames = [Image.fromarray(pictures[place]).resize(size, Image.Resampling.BICUBIC) for place in places]
    file = io.BytesIO()
    frames[0].save(file, "WEBP", save_all=True, append_images=frames[1:], duration=PREVIEW_MS, loop=0, quality=70)
    return f'<img class="preview" alt="" src="data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}">'


def progress_html(job: Job, before: int, language: str) -> str:
    """Return how far a job is.

    Args:
        job: any.
        before: jobs that come before it, where it waits.
        language: of the text.
    """
    bar = ""
    if job.status == "queued":
        words = say("waiting", language, before)
    elif job.status == "in_progress":
        words = say("step", language, job.steps_done, job.steps) if job.steps else say("loading", language)
        bar = f'<progress max="{job.steps or 1}" value="{job.steps_done}"></progress>'
    elif job.status == "completed":
        lasted_s = (job.ended_s or 0.0) - (job.started_s or 0.0)
        words = say("done", language, f"{lasted_s:.1f}", job.settings.get("seed", "?"))
        words = "\n".join((words, *job.notes))
    elif job.status == "cancelled":
        words = say("cancelled", language)
    else:
        words = say("failed", language, job.fault.problem if job.fault else "?")
    lines = "<br>".join(escape(line) for line in words.split("\n"))
    facts = f'data-status="{job.status}" data-step="{job.steps_done}" data-job="{escape(job.job_id)}"'
    return f'<p class="status" {facts} role="status">{lines}</p>{bar}'


def differences(left: Mapping[str, Any], right: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return the settings that differ: name, left, right; what only one has is empty at the other."""
    names = [name for name in {**left, **right} if name not in LEFT_OUT and left.get(name) != right.get(name)]
    names = [name for name in names if not is_place(name, left.get(name, right.get(name)))]
    return [(name, _short(left.get(name)), _short(right.get(name))) for name in names]


def _short(value: Any) -> str:
    return "" if value is None else str(value)[:200]


def table_html(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a table that a narrow screen can scroll."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def shareable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings without the paths of this machine."""
    return {name: value for name, value in without_places(settings).items() if name not in ("loras", "request_id")}
