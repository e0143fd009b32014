"""What footage in a bucket costs over the same footage in a folder, with a latency on every request.

    python -m benchmarks.buckets [--rounds N] [--latency-ms N] [--runners NAME …] [--folder DIR] [--files KIND=COUNT …]

Whole runs of `curate` with the default recipe on two cores, each a command of its own, in turns: from a folder, and
from moto's S3 behind a line with that latency (`slow_line`). Runs on a source of a second say what starting costs,
which is taken off both. Printed for large files (20 s of 720p, about 15 MB each) and small ones (3 s of 360p, about
0.4 MB): CPU from the bucket over CPU from the folder (target at most 1.15), and footage per second from the bucket
over that from the folder (target at least 0.9). The CPU of the server and of the line is not counted, but they share
the cores, so that the second figure is a little lower than over a real network; how much they used is printed. Written
to `.bench/buckets.json`. It fails where a target is missed.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil

from benchmarks.engine import draw_second
from benchmarks.measure import ROOT, Cost, measured, shown, spread, verdict, write_results
from core.storage.object_store import open_object_store
from demo.drawing import noise, to_pixels, write_video

MOST_CPU = 1.15
LEAST_THROUGHPUT = 0.9
FOLDER = ROOT / ".bench" / "buckets"
BUCKET = "footage"
KINDS = {"large": ((1280, 720), 20.0, "17"), "small": ((640, 360), 3.0, "23")}
"""By kind: width and height, seconds, and quality of the encoder."""
FPS = 25


def draw(path: Path, kind: str, seed: int) -> None:
    """Draw one file: a picture with grain under a moving camera, which costs bits as footage does."""
    (width, height), duration_s, crf = KINDS[kind]
    rng = np.random.default_rng(seed)
    picture = to_pixels(np.repeat(noise(rng, (height * 2, width * 2), (9, 16))[..., None], 3, axis=2))
    grain = rng.integers(-6, 7, (height + 64, width + 64, 1), np.int16)

    def frames() -> Iterator[np.ndarray]:
        for number in range(int(duration_s * FPS)):
            x, y, dx, dy = number % width, number % height, *rng.integers(0, 64, 2)
            shown_part = picture[y : y + height, x : x + width].astype(np.int16)
            yield np.clip(shown_part + grain[dy : dy + height, dx : dx + width], 0, 255).astype(np.uint8)

    temporary = path.with_name(f"drawing-{path.name}")
    write_video(temporary, frames(), FPS, options={"preset": "veryfast", "crf": crf})
    temporary.replace(path)


def footage(folder: Path, kind: str, count: int) -> list[Path]:
    """Return so many files of a kind, drawn where they are missing."""
    place = folder / kind
    place.mkdir(parents=True, exist_ok=True)
    files = [place / f"{number:03d}.mp4" for number in range(count)]
    for number, file in enumerate(files):
        if not file.exists():
            draw(file, kind, number)
    return files


@contextmanager
def process(*words: str | Path) -> Iterator[tuple[psutil.Process, str]]:
    """Run a program of this project's while the block runs; yields it and the first line that it prints."""
    started = subprocess.Popen([sys.executable, *map(str, words)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        yield psutil.Process(started.pid), started.stdout.readline().strip() if started.stdout else ""
    finally:
        started.kill()
        started.wait()


SERVER = """
import logging, sys, time
from moto.server import ThreadedMotoServer
logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
time.sleep(1e9)
"""


def environment(port: str, stage: Path) -> dict[str, str]:
    """Return the variables by which a run finds the server, with a stage of its own."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "bench",
        "AWS_SECRET_ACCESS_KEY": "bench", "SELECTS_STAGE": str(stage), "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }  # fmt: skip


def one_run(inputs: str | Path, runner: str, folder: Path, env: Mapping[str, str]) -> Cost:
    """Curate once, on two cores, into a new folder."""
    out = folder / "out"
    for left in (out, folder / "stage"):
        shutil.rmtree(left, ignore_errors=True)
    command = [sys.executable, ROOT / "run_pipeline.py", "curate", inputs, "--output", out, "--runner", runner]
    cost = measured(command, folder / "run.log", sorted(os.sched_getaffinity(0))[:2], env)
    return cost


def one_round(folder: Path, kinds: Mapping[str, Path], runner: str, env: Mapping[str, str]) -> dict[str, dict]:
    """Run each kind from the folder and from the bucket, in turns; return what each cost beside starting."""
    costs: dict[str, dict[str, Cost]] = defaultdict(dict)
    for kind, place in {"second": folder / "second", **kinds}.items():
        costs[kind]["folder"] = one_run(place, runner, folder / "work", env)
        costs[kind]["bucket"] = one_run(f"s3://{BUCKET}/{kind}", runner, folder / "work", env)
    start, figures = costs.pop("second"), {}
    for kind, by_place in costs.items():
        cpu = {place: cost.cpu_s - start[place].cpu_s for place, cost in by_place.items()}
        wall = {place: cost.wall_s - start[place].wall_s for place, cost in by_place.items()}
        figures[kind] = {
            "cpu": cpu["bucket"] / cpu["folder"],
            "throughput": wall["folder"] / wall["bucket"],
            "whole_cpu": by_place["bucket"].cpu_s / by_place["folder"].cpu_s,
            "whole_throughput": by_place["folder"].wall_s / by_place["bucket"].wall_s,
            "folder_cpu_s": cpu["folder"],
            "folder_wall_s": wall["folder"],
        }
    return figures


def misses(results: Mapping[str, Mapping[str, Sequence[float]]]) -> list[str]:
    """Name the targets that a median misses."""
    found = []
    for name, figures in results.items():
        cpu, throughput = spread(figures["cpu"])[0], spread(figures["throughput"])[0]
        if cpu > MOST_CPU:
            found.append(f"{name}: CPU of the bucket over the folder {cpu:.3f}, more than {MOST_CPU}")
        if throughput < LEAST_THROUGHPUT:
            found.append(f"{name}: throughput {throughput:.3f} of the folder's, less than {LEAST_THROUGHPUT}")
    return found


def main() -> int:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--latency-ms", type=float, default=50.0)
    parser.add_argument("--runners", nargs="+", default=["inline", "ray"])
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--files", nargs="+", default=["large=8", "small=40"], metavar="KIND=COUNT")
    words = parser.parse_args()
    counts = {kind: int(count) for kind, _, count in (each.partition("=") for each in words.files)}
    kinds = {kind: footage(words.folder, kind, count) for kind, count in counts.items()}
    results: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with tempfile.TemporaryDirectory() as name, process("-c", SERVER) as (server, port):
        folder = Path(name)
        (folder / "second").mkdir()
        kinds["second"] = [draw_second(folder / "second" / "second.mp4")]
        places = {kind: folder / kind for kind in kinds}
        os.environ |= environment(port, folder / "stage")
        subprocess.run(["curl", "-sfX", "PUT", f"http://127.0.0.1:{port}/{BUCKET}"], check=True)
        for kind, files in kinds.items():
            store = open_object_store(f"s3://{BUCKET}/{kind}")
            for file in files:
                store.put(file.name, file)
                if kind != "second":
                    places[kind].mkdir(exist_ok=True)
                    os.link(file, places[kind] / file.name) if _same_disk(file, folder) else shutil.copy(
                        file, places[kind]
                    )
            size = sum(file.stat().st_size for file in files) / len(files) / 1e6
            print(f"{kind}: {len(files)} files of {size:.1f} MB", flush=True)
        del places["second"]
        line = ("-m", "benchmarks.slow_line", str(words.latency_ms / 1000), "127.0.0.1", port)
        with process(*line) as (slow_line, far_port):
            env = environment(far_port, folder / "work" / "stage")
            for number in range(words.rounds):
                for runner in words.runners:
                    before = [sum(each.cpu_times()[:2]) for each in (server, slow_line)]
                    for kind, figures in one_round(folder, places, runner, env).items():
                        for figure, value in figures.items():
                            results[f"{runner}, {kind}"][figure].append(value)
                        told = ", ".join(f"{figure} {value:.3f}" for figure, value in figures.items())
                        print(f"round {number + 1}, {runner}, {kind}: {told}", flush=True)
                    used = [sum(e.cpu_times()[:2]) - b for e, b in zip((server, slow_line), before, strict=True)]
                    print(f"  beside it: server {used[0]:.1f} s, line {used[1]:.1f} s of CPU", flush=True)
    print("\n| run | CPU, bucket ÷ folder | throughput, bucket ÷ folder | with start | folder: CPU s, wall s |")
    print("|---|---|---|---|---|")
    for name, figures in results.items():
        whole = f"{shown(figures['whole_cpu'])}, {shown(figures['whole_throughput'])}"
        local = f"{spread(figures['folder_cpu_s'])[0]:.1f}, {spread(figures['folder_wall_s'])[0]:.1f}"
        print(f"| {name} | {shown(figures['cpu'])} | {shown(figures['throughput'])} | {whole} | {local} |")
    write_results("buckets", results)
    return verdict(misses(results))


def _same_disk(file: Path, folder: Path) -> bool:
    return file.stat().st_dev == folder.stat().st_dev


if __name__ == "__main__":
    sys.exit(main())
