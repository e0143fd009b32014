"""What a run has done so far, for Prometheus: its text format (0.0.4) over HTTP, on the loopback alone."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from core.errors import UserError
from core.progress import Tally

HOST = "127.0.0.1"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
HELP = {
    "selects_rows_total": "sources, clips and images that a step has dealt with",
    "selects_footage_seconds_total": "footage that a step has dealt with",
    "selects_rejected_total": "finished clips by the first rule that rejects them",
    "selects_cpu_seconds_total": "CPU time by part of the work",
    "selects_source_bytes_total": "bytes of sources fully dealt with",
    "selects_fetched_bytes_total": "bytes read from buckets and web servers",
    "selects_problems_total": "internal errors",
    "selects_gpus": "GPUs of the cluster, and how much of them workers have booked",
    "selects_run_seconds": "since the run began",
}


class Metrics:
    """Holds the latest tally of a run."""

    def __init__(self) -> None:
        """Start with nothing done."""
        self._tally, self._begin = Tally(), time.monotonic()

    def watch(self, tally: Tally) -> None:
        """Take a tally, which may go on changing."""
        self._tally = tally

    def text(self) -> str:
        """Return all of it in Prometheus's text format."""
        return metrics_text(self._tally, time.monotonic() - self._begin)


def metrics_text(tally: Tally, elapsed_s: float) -> str:
    """Return a tally in Prometheus's text format."""
    labelled: dict[str, tuple[str, Mapping[str, float]]] = {
        "selects_rows_total": ("step", dict(tally.rows)),
        "selects_footage_seconds_total": ("step", dict(tally.video_s)),
        "selects_rejected_total": ("reason", dict(tally.rejects)),
        "selects_cpu_seconds_total": ("part", dict(tally.cpu_s)),
        "selects_gpus": ("state", dict(tally.gpus)),
    }
    plain = {
        "selects_source_bytes_total": tally.bytes_done,
        "selects_fetched_bytes_total": tally.fetched_bytes,
        "selects_problems_total": len(tally.problems),
        "selects_run_seconds": elapsed_s,
    }
    lines = []
    for name, meaning in HELP.items():
        kind = "counter" if name.endswith("_total") else "gauge"
        lines += [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}"]
        if name in plain:
            lines.append(f"{name} {float(plain[name])!r}")
        else:
            label, values = labelled[name]
            lines += [f'{name}{{{label}="{_escaped(key)}"}} {float(value)!r}' for key, value in sorted(values.items())]
    return "\n".join(lines) + "\n"


@contextmanager
def serving_metrics(port: int, metrics: Metrics) -> Iterator[int]:
    """Serve `/metrics` on the loopback while the block runs; yields the port, which is a free one where 0 is asked for.

    Raises:
        UserError: the port is taken.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802 - the name that the server calls
            if self.path.partition("?")[0] != "/metrics":
                self.send_error(404)
                return
            body = metrics.text().encode()
            self.send_response(200)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing on the terminal."""

    try:
        server = ThreadingHTTPServer((HOST, port), Handler)
    except (OSError, OverflowError) as error:
        problem = f"cannot be listened on ({error})"
        raise UserError(problem, field="metrics_port", value=port, fix="give another one") from None
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
