"""What the captioning step adds to the time that the captions themselves take.

Against a server with a fixed latency and a fixed number of slots, the ideal is requests ÷ slots × latency; measured is
the time from the first request to the last reply, as the server sees them, while the step does its whole work on Ray:
unpacks frames, asks, checks, writes parts. Clips are all there from the beginning. Target: at most 1.05 × the ideal.

With --vllm (in the environment of `make test-vllm`) an engine of vLLM with a tiny model answers within the step's own
worker; measured is the share of time in which it has nothing to do while clips wait. Target: at most 5 %.

    python -m benchmarks.captions [--rounds N] [--vllm MODEL_FOLDER]
"""

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from captioners.asking import Asking, Describe, described
from captioners.checks import STATUSES
from captioners.endpoint import Endpoint, Server
from captioners.vllm import Vllm, start
from cli.common import TABLES
from core.progress import Display
from curation.analysis.samples import encode_samples
from curation.engine.ray_runner import RayRunner, start_ray
from curation.output.table import parts_folder
from curation.recipe import resolve
from curation.steps import FinishStep
from curation.types import Captioner, Frames, Row
from curation.work import Plan

SERVERS = ((8, 0.5), (32, 1.0), (64, 2.0))
"""slots and latency in seconds"""
REQUESTS_PER_SLOT = 16
CPUS = 2
OVERHEAD_TARGET, IDLE_TARGET = 1.05, 0.05
REPLY_TOKENS = 192
"""as long as a caption is; of a shorter one a tiny model is done before the next can be prepared"""
LOOK_S = 0.0005


def waiting_rows(plan: Plan, count: int, frames: int, short_side_px: int) -> list[Row]:
    """Return accepted clips that have all but their captions, with soft pictures of some grain."""
    rng = np.random.default_rng(0)
    size = (short_side_px * 16 // 9, short_side_px)
    packed = []
    for _ in range(8):
        soft = [cv2.resize(rng.integers(0, 256, (18, 32, 3), np.uint8), size) for _ in range(frames)]
        grain = rng.normal(0, 4, (frames, size[1], size[0], 3))
        pixels = np.clip(np.stack(soft) + grain, 0, 255).astype(np.uint8)
        packed.append(encode_samples({"caption": Frames(pixels, np.arange(frames) / 4)}))
    facts = {"status": "accepted", "reasons": [], "type": "video", "duration_s": 5.0, "source_path": "drawn.mp4"}
    return [plan.blank() | facts | {"clip_id": f"{i:032x}", "_samples": packed[i % len(packed)]} for i in range(count)]


def caption_all(captioner: Captioner, rows: int, frames: int, short_side_px: int) -> None:
    """Caption clips by the step itself, on Ray, into an output that is thrown away."""
    recipe, _ = resolve({"cut": {"mode": "none"}}, TABLES)
    with tempfile.TemporaryDirectory() as out:
        parts_folder(Path(out)).mkdir()
        plan = Plan(recipe, out, "benchmark")
        waiting = waiting_rows(plan, rows, frames, short_side_px)
        RayRunner().run(plan, [FinishStep(plan, captioner)], waiting, Display(["finish"], 0, io.StringIO()))


@contextmanager
def slow_server(latency_s: float, slots: int) -> Iterator[str]:
    """Start a server; return its address."""
    command = [sys.executable, "-m", "benchmarks.slow_server", str(latency_s), str(slots)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
    finally:
        server.kill()
        server.wait()


def overhead(slots: int, latency_s: float) -> float:
    """Return the time from the first request to the last reply, over the ideal."""
    count = slots * REQUESTS_PER_SLOT
    with slow_server(latency_s, slots) as url:
        caption_all(Endpoint(Server(url, slots=slots + max(2, slots // 8))), count, 8, 224)
        with urllib.request.urlopen(url.replace("/v1", "/times")) as reply:
            times = json.load(reply)
    assert times["count"] == count, f"{times['count']} replies to {count} clips"
    return float(times["last_s"] - times["first_s"]) / (count / slots * latency_s)


@dataclass(frozen=True)
class WatchedVllm(Vllm):
    """The captioner with an engine of vLLM, which writes down how long the engine had nothing to do."""

    log: str = ""
    clips: int = 0

    def load(self) -> Describe:
        """Start the engine and a thread that looks at it, from the first clip until the last one is asked about."""
        engine, asked = start(self), 0
        has_more, lock = threading.Event(), threading.Lock()
        running = engine._running
        assert running is not None
        in_engine = running._engine.output_processor.get_num_unfinished_requests

        def look() -> None:
            idle_s, begin_s = 0.0, time.perf_counter()
            last_s = begin_s
            while has_more.is_set():
                is_idle = in_engine() == 0
                time.sleep(LOOK_S)
                now_s = time.perf_counter()
                idle_s, last_s = idle_s + is_idle * (now_s - last_s), now_s
            Path(self.log).write_text(json.dumps({"idle_s": idle_s, "total_s": last_s - begin_s}), encoding="utf-8")

        def ask(request: Any) -> Any:
            nonlocal asked
            with lock:
                asked += 1
                if asked == 1:
                    has_more.set()
                    threading.Thread(target=look, daemon=True).start()
                if asked == self.clips:
                    has_more.clear()
            return engine.ask(request)

        return described(ask, self.asking, "tiny")


def idle_share(model: str, clips: int = 160) -> float:
    """Return the share of time in which the engine has nothing to do while clips wait."""
    asking = Asking(
        own_prompts={"en": "Describe it."}, frames=4, short_side_px=56, max_tokens=REPLY_TOKENS, retries=0, mend=False,
        unchecked=STATUSES[1:],
    )  # fmt: skip
    extra = {"enforce_eager": True, "kv_cache_memory_bytes": 1 << 28}
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "idle.json"
        captioner = WatchedVllm(
            model=model, device="cpu", dtype="float32", gpu_memory=0.15, max_model_len=1024, max_num_seqs=8,
            extra=extra, asking=asking, log=str(log), clips=clips,
        )  # fmt: skip
        caption_all(captioner, clips, 4, 56)
        seen = json.loads(log.read_text(encoding="utf-8"))
    return float(seen["idle_s"] / seen["total_s"])


def main() -> int:
    """Print the figures; 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--vllm", metavar="MODEL_FOLDER", help="measure an engine of vLLM with this model")
    options = parser.parse_args()
    home = str(Path(__file__).resolve().parents[1])
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
    start_ray(None, cpus=CPUS)
    if options.vllm:
        shares = [idle_share(options.vllm) for _ in range(options.rounds)]
        print(f"engine idle while clips wait: {_spread(shares, '.1%')}")
        return int(statistics.median(shares) > IDLE_TARGET)
    missed = False
    for slots, latency_s in SERVERS:
        ratios = [overhead(slots, latency_s) for _ in range(options.rounds)]
        missed |= statistics.median(ratios) > OVERHEAD_TARGET
        print(f"{slots:3} slots of {latency_s:.1f} s: {_spread(ratios, '.3f')} × the ideal", flush=True)
    return int(missed)


def _spread(values: list[float], how: str) -> str:
    return f"{statistics.median(values):{how}} ({min(values):{how}} to {max(values):{how}})"


if __name__ == "__main__":
    sys.exit(main())
