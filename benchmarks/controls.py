"""What control maps add to a run of `curate`: CPU time with each map beside that without, on drawn 720p footage.

Footage of 24 pictures a second with a moving camera, houses, trees and what moves by itself; the default recipe, with
every clip accepted. Each round runs all of them in turn; told is the median of the ratios. Target for canny: at most
1.10.

    python -m benchmarks.controls [NAME ...] [--rounds N] [--seconds S]
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from controls import CONTROLS
from demo.actors import birds, cars
from demo.drawing import Take, write_video
from demo.places import city, forest

SIZE = (1280, 720)
FPS = 24
TARGET = {"canny": 1.10}


def draw(folder: Path, seconds: int) -> None:
    """Draw two films of so many seconds."""
    scenes = (city(1, 3200, 900), (cars, birds), (4.0, 0.0)), (forest(2, 3200, 900), (birds,), (3.0, 0.5))
    for number, (scene, actors, pan) in enumerate(scenes):
        take = Take(scene, pan=pan, actors=actors, fps=FPS, size=SIZE)
        options = {"preset": "veryfast", "crf": "20", "g": "48"}
        write_video(folder / f"{number}.mp4", take.frames(0, seconds * FPS), FPS, options=options)


def cpu_of(footage: Path, out: Path, controls: Sequence[str]) -> tuple[float, float, float]:
    """Curate; return the CPU seconds in all, those without the start of processes, and the amount in the first map."""
    rules = ("motion", "frozen", "brightness", "sharpness", "visual_quality", "letterbox", "text_area")
    command = [sys.executable, "run_pipeline.py", "curate", footage, "--output", out, "--runner", "inline", "--json"]
    settings = [*(f"rules.{rule}=false" for rule in rules), *(f"controls.{name}=true" for name in controls)]
    shown = subprocess.run([*map(str, command), *settings], capture_output=True, text=True, check=False)
    if shown.returncode:
        raise SystemExit(shown.stderr[-2000:])
    run = json.loads((out / "run.json").read_text(encoding="utf-8"))
    rows = [row for part in (out / "clips").glob("*.parquet") for row in pq.read_table(part).to_pylist()]
    assert all(row["status"] == "accepted" for row in rows), "every clip is to be cut"
    amounts = [row[f"control_{controls[0]}_amount"] for row in rows] if controls else [0.0]
    return run["cpu_total_s"], run["cpu_total_s"] - run["cpu_s"]["start"], statistics.mean(amounts)


def main() -> None:
    """Measure, and print one line for each map."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=["canny"], metavar="NAME", help=", ".join(CONTROLS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=30)
    parsed = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        footage = Path(folder) / "footage"
        footage.mkdir()
        draw(footage, parsed.seconds)
        ratios: dict[str, list[tuple[float, float]]] = {name: [] for name in parsed.names}
        amounts: dict[str, float] = {}
        for number in range(parsed.rounds):
            base = cpu_of(footage, Path(folder) / f"{number}-without", ())
            for name in parsed.names:
                found = cpu_of(footage, Path(folder) / f"{number}-{name}", (name,))
                ratios[name].append((found[0] / base[0], found[1] / base[1]))
                amounts[name] = found[2]
                print(f"round {number + 1}: {name} {found[0]:.2f} s, without {base[0]:.2f} s", flush=True)
    for name, pairs in ratios.items():
        whole, steady = (statistics.median(values) for values in zip(*pairs, strict=True))
        said = f"; target {TARGET[name]:.2f}" if name in TARGET else ""
        print(f"{name}: {whole:.3f} of the CPU time without ({steady:.3f} leaving out the start of processes{said}); "
              f"the map's amount is {amounts[name]:.3f}")  # fmt: skip


if __name__ == "__main__":
    main()
