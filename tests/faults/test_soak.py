"""Many short sources: what the driver, the decoders and Ray's workers hold does not grow with their number.

`SELECTS_SOAK_SOURCES` says how many.
"""

import contextlib
import os
import statistics
import struct
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image
from runs import curate, rows_of

from demo.drawing import write_video
from demo.landscapes import scene

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(7200)]

SOURCES = int(os.environ.get("SELECTS_SOAK_SOURCES", "200"))
KINDS = 20
SETTINGS = (
    *("shots.min_s=1", "cut.preset=ultrafast", "rules.short_side_px=false", "rules.sharpness=false"),
    *("rules.motion=false", "rules.visual_quality=false", "rules.text_area.max=1"),
)
WARM_UP = 0.2
"""Share of the time until caches and heaps have their size."""
MOST_GROWTH, MOST_GROWTH_MB, MOST_MORE_FILES = 0.10, 40.0, 12
"""Ray opens connections when it likes, five at once on a busy machine; one file a source would be more than 100."""
TWICE = """
import sys, run_pipeline
for out in sys.argv[1:3]:
    assert run_pipeline.main(["curate", *sys.argv[3:], "--output", out, "--runner", "inline"]) == 0
"""


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty kinds of short source, one of them cut short and one a picture; each file with content of its own."""
    kinds = tmp_path_factory.mktemp("kinds")
    folder = tmp_path_factory.mktemp("soak")
    drawn: list[tuple[str, bytes]] = []
    for kind in range(KINDS - 2):
        ground = scene(kind, 400, 120)
        frames = (ground[10:106, 2 * i : 2 * i + 160] for i in range(72 + kind))
        write_video(kinds / "one.mp4", (np.ascontiguousarray(f) for f in frames), 24)
        drawn.append((".mp4", (kinds / "one.mp4").read_bytes()))
    drawn.append((".mp4", drawn[0][1][: len(drawn[0][1]) // 2]))
    Image.fromarray(scene(3, 160, 96)[:96]).save(kinds / "one.jpg")
    drawn.append((".jpg", (kinds / "one.jpg").read_bytes()))
    for number in range(SOURCES):
        suffix, data = drawn[number % KINDS]
        mark = struct.pack(">I4sI", 12, b"free", number)
        (folder / f"{number:05d}{suffix}").write_bytes(data + mark)
    return folder


@dataclass
class Held:
    """What processes of each kind held, sample by sample: the most of any one of them."""

    memory_mb: dict[str, list[float]]
    files: dict[str, list[int]]
    count: dict[str, list[int]]


def watched(root: psutil.Process, kind_of: Callable[[psutil.Process], str | None], done: threading.Event) -> Held:
    """Look at a process and those below it four times a second until `done`."""
    held = Held(defaultdict(list), defaultdict(list), defaultdict(list))
    while not done.wait(0.25):
        most: dict[str, tuple[float, int, int]] = {}
        for process in [root, *root.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                kind = kind_of(process)
                if kind is None:
                    continue
                info = process.memory_info()
                memory, files, count = most.get(kind, (0.0, 0, 0))
                # Shared pages are the libraries and Ray's object store.
                own = (info.rss - info.shared) / 1e6
                most[kind] = (max(memory, own), max(files, process.num_fds()), count + 1)
        for kind, (memory, files, count) in most.items():
            held.memory_mb[kind].append(memory)
            held.files[kind].append(files)
            held.count[kind].append(count)
    return held


def early_and_late(samples: Iterable[float]) -> tuple[float, float]:
    """Return the means of the first and of the last quarter after the warm-up; a text model swings by a tenth."""
    warm = list(samples)
    warm = warm[int(WARM_UP * len(warm)) :]
    quarter = max(1, len(warm) // 4)
    return statistics.fmean(warm[:quarter]), statistics.fmean(warm[-quarter:])


def assert_no_growth(held: Held, kinds: set[str]) -> None:
    assert set(held.memory_mb) >= kinds
    for kind in kinds:
        assert len(held.memory_mb[kind]) >= 10, f"{kind}: too few samples to tell"
        early, late = early_and_late(held.memory_mb[kind])
        assert late - early < max(MOST_GROWTH * early, 5.0), (kind, early, late)
        assert late - early < MOST_GROWTH_MB, (kind, early, late)
        files, files_late = early_and_late(held.files[kind])
        assert files_late - files <= MOST_MORE_FILES, (kind, files, files_late)
        count, count_late = early_and_late(held.count[kind])
        assert count_late - count <= 2, (kind, "processes", count, count_late)


def assert_all_there(sources: Path, out: Path) -> None:
    rows = list(rows_of(out).values())
    assert {row["source_path"] for row in rows} == {path.name for path in sources.iterdir()}
    failed = {row["source_path"] for row in rows if row["status"] == "failed"}
    assert failed == {f"{number:05d}.mp4" for number in range(KINDS - 2, SOURCES, KINDS)}, "those that are cut short"
    assert sum(row["status"] == "accepted" for row in rows) >= SOURCES // 2


def test_the_plain_loop_holds_no_more_after_many_sources(sources: Path, tmp_path: Path) -> None:
    outs = [tmp_path / "first", tmp_path / "second"]
    command = [sys.executable, "-c", TWICE, *map(str, outs), str(sources), *SETTINGS]
    done = threading.Event()
    with (tmp_path / "log").open("w") as log:
        run = subprocess.Popen(command, cwd=Path(__file__).resolve().parents[2], stdout=log, stderr=log)

        def wait() -> None:
            run.wait()
            done.set()

        waiting = threading.Thread(target=wait)
        waiting.start()
        root = psutil.Process(run.pid)
        held = watched(root, lambda process: "driver" if process == root else "decoder", done)
        waiting.join()
    assert run.returncode == 0, (tmp_path / "log").read_text()[-2000:]
    assert_no_growth(held, {"driver", "decoder"})
    for out in outs:
        assert_all_there(sources, out)


def test_the_workers_of_ray_hold_no_more_after_many_sources(sources: Path, tmp_path: Path, ray_here: None) -> None:
    done = threading.Event()
    results: list[Held] = []
    here = psutil.Process()

    known: dict[int, str] = {here.pid: "driver"}

    def kind_of(process: psutil.Process) -> str | None:
        """Go by the last title of a worker that had something to do; between tasks it is idle."""
        title = " ".join(process.cmdline())
        if "curation.analysis.tasks" in title:
            return "decoder"
        if title.startswith("ray::") and "IDLE" not in title:
            known[process.pid] = "model worker" if "MapWorker" in title else "worker"
        return known.get(process.pid)

    watching = threading.Thread(target=lambda: results.append(watched(here, kind_of, done)))
    watching.start()
    try:
        curate(sources, *SETTINGS, out=tmp_path / "out", runner="ray")
    finally:
        done.set()
        watching.join()
    assert_no_growth(results[0], {"driver", "worker", "model worker", "decoder"})
    assert_all_there(sources, tmp_path / "out")
