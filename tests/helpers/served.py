"""A server over a tiny pipeline, as a process of its own."""

import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[2]
QUICK = {"prompt": "a red disc", "size": "48x48", "num_frames": 9, "num_inference_steps": 2}
"""fields of a request that takes moments"""


@dataclass
class Served:
    """A server that runs.

    Attributes:
        process: of the command.
        address: `http://127.0.0.1:PORT`.
        client: asks it.
        lines: what the command has printed.
    """

    process: subprocess.Popen[str]
    address: str
    client: httpx.Client
    lines: list[str]

    def ended(self, video_id: str, timeout_s: float = 240.0) -> dict:
        """Return a job once it has ended; the server is asked again and again."""
        import time

        until = time.monotonic() + timeout_s
        while True:
            job = self.client.get(f"/v1/videos/{video_id}").json()
            if job["status"] not in ("queued", "in_progress"):
                return job
            assert time.monotonic() < until, job
            time.sleep(0.05)

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.client.close()

    def stop(self) -> int:
        """End it as Ctrl-C does; return its exit code."""
        self.process.send_signal(signal.SIGINT)
        self.client.close()
        return self.process.wait(120)


def serve(models: list[str], folder: Path, *words: str, token: str | None = None) -> Served:
    """Start `serve` and wait until it takes requests."""
    return start(["serve", *models, "--output", str(folder), *words], folder.parent, token)


def review(out: Path, *words: str) -> Served:
    """Start `review` and wait until it takes requests."""
    return start(["review", str(out), *words], out.parent)


def studio(models: list[str], folder: Path, *words: str, token: str | None = None) -> Served:
    """Start `studio` and wait until it takes requests."""
    return start(["studio", *models, "--output", str(folder), *words], folder.parent, token)


def start(words: list[str], folder: Path, token: str | None = None) -> Served:
    """Start a server on a free port and wait until it takes requests; its log lies in a folder."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "run_pipeline.py"), *words, "--port", "0"]
    log = (folder / "server.log").open("a")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment, cwd=folder)
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("stop with"):
            break
    match = re.search(r"at (http://[\d.:]+)", "".join(lines))
    assert match, (lines, (folder / "server.log").read_text())
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return Served(process, match[1], httpx.Client(base_url=match[1], headers=headers, timeout=300), lines)
