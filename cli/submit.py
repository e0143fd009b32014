"""The `submit` command: another command as a job of a Ray cluster, by the cluster's job server (its REST API)."""

import argparse
import os
import shlex
import sys
import time
import uuid
from dataclasses import dataclass
from typing import Any

import urllib3

from core.errors import RunError, UserError
from core.sanitize import printable_lines, without_secrets

HELP = "run a command as a job of a Ray cluster, follow its log, and return its exit code"
AUTH_VARIABLE = "RAY_AUTH_TOKEN"
PROGRAM = "selects"
ENDED = {"SUCCEEDED": 0, "FAILED": 1, "STOPPED": 1}
"""states in which a job does not go on, and the exit code where the server knows none"""
POLL_S = 2.0
TIMEOUT_S = 30.0
PATIENCE_S = 300.0
"""for which a job server may be away while a job runs"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("--ray-address", required=True, metavar="URL", help="the job server, such as http://head:8265")
    parser.add_argument("--detach", action="store_true", help="do not wait for the job")
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND", help="such as curate INPUT --output O")


def run(parsed: argparse.Namespace) -> int:
    """Submit a command, follow its log and return its exit code."""
    words = parsed.words[1:] if parsed.words[:1] == ["--"] else parsed.words
    if not words:
        raise UserError("submit needs a command behind its options, such as: curate s3://b/raw --output /shared/out")
    server = JobServer(parsed.ray_address.rstrip("/"))
    if not server.url.startswith(("http://", "https://")):
        raise UserError(f"--ray-address {server.url}: not the URL of a job server, such as http://head:8265")
    job = f"selects-{uuid.uuid4().hex[:12]}"
    if words[0] in ("curate", "demo", "evaluate", "train") and "--ray-address" not in words:
        words = [*words, "--ray-address", "auto"]  # the cluster that runs the job
    server.submit(job, shlex.join([PROGRAM, *words]))
    print(f"job {job} at {server.url}", file=sys.stderr)
    if parsed.detach:
        return 0
    try:
        return follow(server, job)
    except KeyboardInterrupt:
        print(f"\njob {job} goes on; to stop it: ray job stop {job} --address {server.url}", file=sys.stderr)
        return 1


def follow(server: "JobServer", job: str) -> int:
    """Print a job's log as it grows until it ends; return its exit code.

    Raises:
        RunError: the server is away for too long.
    """
    shown, answered_s = 0, time.monotonic()
    while True:
        try:
            state = server.ask("GET", f"/api/jobs/{job}")
            log = str(server.ask("GET", f"/api/jobs/{job}/logs").get("logs") or "")
            answered_s = time.monotonic()
        except RunError:
            if time.monotonic() - answered_s > PATIENCE_S:
                raise
            time.sleep(POLL_S)
            continue
        status = str(state.get("status"))
        whole = len(log) if status in ENDED else log.rfind("\n") + 1
        if whole > shown:
            print(printable_lines(without_secrets(log[shown:whole].rstrip("\n"))), flush=True)
            shown = whole
        if status in ENDED:
            code = state.get("driver_exit_code")
            if status != "SUCCEEDED":
                message = str(state.get("message") or "").strip().splitlines()
                words = printable_lines(without_secrets(message[0] if message else "no reason given"))
                print(f"job {job}: {status.lower()} ({words})", file=sys.stderr)
            return int(code) if isinstance(code, int) and (code or status == "SUCCEEDED") else ENDED[status]
        time.sleep(POLL_S)


@dataclass(frozen=True)
class JobServer:
    """Ray's job server.

    Attributes:
        url: without a slash at the end; a token comes from RAY_AUTH_TOKEN.
    """

    url: str

    def submit(self, job: str, command: str) -> None:
        """Start a job; where the answer was lost, the name tells whether it has started.

        Raises:
            UserError: the server refuses it.
            RunError: no server answers.
        """
        content = {"entrypoint": command, "submission_id": job}
        try:
            self.ask("POST", "/api/jobs/", content)
        except RunError:
            try:
                self.ask("GET", f"/api/jobs/{job}")
            except UserError:  # it has not
                self.ask("POST", "/api/jobs/", content)

    def ask(self, method: str, path: str, content: dict[str, Any] | None = None) -> dict[str, Any]:
        """Send a request and return the answer.

        Raises:
            UserError: the server refuses it.
            RunError: no server answers, or it fails.
        """
        token = os.environ.get(AUTH_VARIABLE)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            answer = urllib3.request(
                method, self.url + path, json=content, headers=headers, timeout=TIMEOUT_S, retries=False, redirect=False
            )
            values = answer.json() if answer.status == 200 else {}
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            words = type(error).__name__
            raise RunError(f"--ray-address {self.url}: no job server answers ({words}); check the address") from None
        if answer.status in (401, 403):
            raise UserError(f"--ray-address {self.url}: access is denied; set {AUTH_VARIABLE} to the cluster's token")
        if answer.status >= 500:
            raise RunError(f"--ray-address {self.url}: the job server fails (HTTP {answer.status}); try again")
        if answer.status != 200 or not isinstance(values, dict):
            raise UserError(f"--ray-address {self.url}{path}: refused (HTTP {answer.status}); is it a Ray job server?")
        return values
