"""`submit`: a job runs once, its log is followed whole, and its exit code comes back."""

import json
import shlex
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import run_pipeline
from cli import submit

LOG = "starting\nclip 1\nclip 2 AWS_SECRET_ACCESS_KEY=abcdefgh12345678\n\x1b[31mdone"


@dataclass
class FakeServer:
    """Answers as Ray's job server does, state by state."""

    states: list[str]
    code: int | None = 0
    token: str | None = None
    failures: dict[str, list[int]] = field(default_factory=dict)
    """by method: statuses of its next answers; 0: the request counts, and its answer is lost"""
    jobs: dict[str, str] = field(default_factory=dict)
    submitted: int = 0
    asked: int = 0

    def answer(self, method: str, path: str, content: dict, headers) -> tuple[int, dict]:
        if self.token and headers.get("Authorization") != f"Bearer {self.token}":
            return 401, {}
        fault = self.failures[method].pop(0) if self.failures.get(method) else 200
        if fault >= 400:
            return fault, {}
        if method == "POST":
            self.jobs[content["submission_id"]] = content["entrypoint"]
            self.submitted += 1
            return fault, {"submission_id": content["submission_id"]}
        job, _, what = path.removeprefix("/api/jobs/").partition("/")
        if job not in self.jobs:
            return 404, {}
        at = min(self.asked, len(self.states) - 1)
        if what == "logs":
            self.asked += 1
            share = len(LOG) if at == len(self.states) - 1 else len(LOG) * (at + 1) // len(self.states)
            return fault, {"logs": LOG[:share]}
        ended = self.states[at] in submit.ENDED
        return fault, {
            "status": self.states[at],
            "driver_exit_code": self.code if ended else None,
            "message": "why\nmore",
        }


@pytest.fixture
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[list]:
    """Give a list: put a FakeServer into it, and its address comes second."""
    monkeypatch.setattr(submit, "POLL_S", 0.01)
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    held: list = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            content = json.loads(self.rfile.read(size)) if size else {}
            status, values = held[0].answer(self.command, self.path, content, self.headers)
            if not status:
                self.close_connection = True
                return
            body = json.dumps(values).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    held.append(None)
    held.append(f"http://127.0.0.1:{server.server_port}")
    yield held
    server.shutdown()
    server.server_close()
    thread.join()


def run(serving: list, fake: FakeServer, *words: str) -> int:
    serving[0] = fake
    return run_pipeline.main(["submit", "--ray-address", serving[1], *words])


@pytest.mark.parametrize(("end", "code", "given"), [("SUCCEEDED", 0, 0), ("FAILED", 2, 2), ("STOPPED", None, 1)])
def test_the_log_is_followed_and_the_exit_code_returned(
    serving: list, capsys: pytest.CaptureFixture[str], end: str, code: int | None, given: int
) -> None:
    fake = FakeServer(["PENDING", "RUNNING", "RUNNING", end], code)
    assert run(serving, fake, "curate", "s3://b/it's here", "--output", "/o", "rules.motion.min=1") == given
    (command,) = fake.jobs.values()
    assert shlex.split(command) == [
        "selects", "curate", "s3://b/it's here", "--output", "/o", "rules.motion.min=1", "--ray-address", "auto",
    ]  # fmt: skip
    out, err = capsys.readouterr()
    assert out.splitlines() == ["starting", "clip 1", "clip 2 AWS_SECRET_ACCESS_KEY=***", "\\x1b[31mdone"]
    assert ("why" in err) == (end != "SUCCEEDED")


def test_a_lost_answer_starts_no_second_job(serving: list) -> None:
    fake = FakeServer(["SUCCEEDED"], failures={"POST": [0]})
    assert run(serving, fake, "doctor") == 0
    assert fake.submitted == 1
    fake = FakeServer(["SUCCEEDED"], failures={"POST": [503]})
    assert run(serving, fake, "doctor") == 0
    assert fake.submitted == 1
    assert list(fake.jobs.values()) == ["selects doctor"]


def test_a_server_that_is_away_for_a_while_is_waited_for(serving: list) -> None:
    fake = FakeServer(["RUNNING", "SUCCEEDED"], failures={"GET": [200, 500, 0, 502]})
    assert run(serving, fake, "doctor") == 0


def test_a_token_is_sent_and_a_missing_one_named(
    serving: list, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(serving, FakeServer(["SUCCEEDED"], token="t" * 64), "doctor") == 2
    assert "RAY_AUTH_TOKEN" in capsys.readouterr().err
    monkeypatch.setenv("RAY_AUTH_TOKEN", "t" * 64)
    assert run(serving, FakeServer(["SUCCEEDED"], token="t" * 64), "doctor") == 0


def test_mistakes_are_told_in_one_line(serving: list, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(serving, FakeServer(["SUCCEEDED"])) == 2
    assert "needs a command" in capsys.readouterr().err
    assert run_pipeline.main(["submit", "--ray-address", "head:6379", "doctor"]) == 2
    assert "not the URL of a job server" in capsys.readouterr().err
    assert run_pipeline.main(["submit", "--ray-address", "http://127.0.0.1:9", "doctor"]) == 1
    err = capsys.readouterr().err.strip()
    assert "no job server answers" in err
    assert "\n" not in err


def test_detached_it_does_not_wait(serving: list) -> None:
    fake = FakeServer(["RUNNING"])
    assert run(serving, fake, "--detach", "doctor") == 0
    assert fake.asked == 0
