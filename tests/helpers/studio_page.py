"""What a person does on the studio's page, and what the server says came of it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from browser import watched
from served import Served

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PATIENCE_MS = 90_000
OF_GRADIO = ("WARN ", "Method not implemented", "[.WebGL", "    at ")
"""with which remarks begin that Gradio's plots, uploads and editor make on themselves"""


def opened(browser: "Browser", server: Served, **context: Any):
    """Yield an empty page that may ask a server, watched."""
    return watched(browser, address=server.address, quiet=OF_GRADIO, **context)


def visit(page: "Page", server: Served, ready: str = "#facts .note") -> None:
    """Open the page and wait until it shows something of the server's."""
    page.set_default_timeout(PATIENCE_MS)
    page.goto(server.address)
    page.wait_for_selector(ready)


def fill(page: "Page", **values: str) -> None:
    """Fill in fields of the form."""
    for name, text in values.items():
        page.fill(f"#field-{name} :is(input, textarea)", text)


def ask(page: "Page", **values: str) -> None:
    """Fill in a request that takes moments, with some values more."""
    quick = {"prompt": "a red disc", "width": "48", "height": "48", "num_frames": "9", "num_inference_steps": "2"}
    fill(page, **quick | {"seed": "7"} | values)


def choose_model(page: "Page", name: str) -> None:
    """Choose a model."""
    page.click("#field-model input")
    page.get_by_role("option", name=name).click()


def go(page: "Page", server: Served) -> dict:
    """Press the button, and return the job once the page shows how it ended."""
    known = {job["id"] for job in server.client.get("/v1/videos?limit=100").json()["data"]}
    page.click("#go")
    page.wait_for_function(
        "known => !known.includes(document.querySelector('#status [data-job]')?.dataset.job)"
        " && document.querySelector('#status [data-status=completed]')",
        arg=sorted(known),
    )
    return newest(server)


def newest(server: Served) -> dict:
    """Return the job that was asked for last."""
    return server.client.get("/v1/videos").json()["data"][0]


def asked_for(folder: Path, video_id: str) -> dict:
    """Return what a job was asked for, as it lies on disk."""
    return json.loads((folder / "data" / "jobs" / video_id / "job.json").read_text())["asked"]
