"""What control maps add to a run of `curate`: CPU time with each map beside that without, on drawn 720p footage.

Footage of 24 pictures a second with a moving camera, houses, trees and what moves by itself; the default recipe, with
every clip accepted. Each round runs all of them in turn; told are the median of the ratios and their range. Target for
canny: at most 1.10. With `--profile` it prints instead where the CPU time of a canny map goes, for each frame.

    python -m benchmarks.controls [NAME ...] [--rounds N] [--seconds S] [--profile]
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pyarrow.parquet as pq
from av.video.frame import PictureType

from controls import CONTROLS
from demo.actors import birds, cars
from demo.drawing import Take, write_video
from demo.places import city, forest
from media import planes
from media.encoder import x264_options
from media.map_file import MapFile, _GrayFrame
from media.settings import CutSettings
from media.shape import TICKS

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


def profile(film: Path, folder: Path) -> dict[str, float]:
    """Return the CPU time of one frame of a film in each part of a canny map, and in the clip's file beside it: ms."""
    spent: dict[str, float] = {}

    def timed(part: str, work: Callable[[Any], object], items: Iterable[Any]) -> None:
        begin, count = time.process_time(), 0
        for item in items:
            work(item)
            count += 1
        spent[part] = 1000 * (time.process_time() - begin) / count

    cv2.setNumThreads(1)
    frames: list[av.VideoFrame] = []
    with av.open(str(film)) as container:
        container.streams.video[0].thread_count = 1
        timed("decoding the clip", frames.append, container.decode(video=0))
    luma, drawer = np.empty((SIZE[1], SIZE[0]), np.uint8), CONTROLS["canny"]().start()
    timed("its luma", lambda frame: planes.gray_into(frame, luma), frames)
    lumas = [planes.gray(frame, *SIZE, 0, cv2.INTER_AREA).copy() for frame in frames]
    timed("canny", lambda one: drawer.draw(one, 0.0), lumas)
    maps = [drawer.draw(one, 0.0).copy() for one in lumas]
    coded = _GrayFrame(SIZE[1], SIZE[0])
    timed("levels for the encoder", coded.of, maps)
    file, ticks = MapFile(folder / "map.mp4", FPS), round(1 / (FPS * TICKS))
    timed("encoding the map, with its levels", lambda one: file.add(one[1], one[0] * ticks), enumerate(maps))
    file.close(len(maps) * ticks)
    cut = CutSettings()
    with av.open(str(folder / "clip.mp4"), "w") as output:
        stream = output.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.codec_context.options = x264_options(cut.crf, cut.preset)
        for frame in frames:
            frame.pict_type = PictureType.NONE
        timed("encoding the clip", lambda frame: output.mux(stream.encode(frame)), frames)
        output.mux(stream.encode(None))
    return spent


def main() -> None:
    """Measure, and print one line for each map."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=["canny"], metavar="NAME", help=", ".join(CONTROLS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--profile", action="store_true")
    parsed = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        footage = Path(folder) / "footage"
        footage.mkdir()
        draw(footage, parsed.seconds)
        if parsed.profile:
            for film in sorted(footage.iterdir()):
                print(film.stem, ", ".join(f"{part} {ms:.2f} ms" for part, ms in profile(film, Path(folder)).items()))
            return
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
        ranges = [f"{min(values):.3f} to {max(values):.3f}" for values in zip(*pairs, strict=True)]
        target = TARGET.get(name)
        said = "" if target is None else f"; target {target:.2f}{' missed' if whole > target else ''}"
        print(
            f"{name}: {whole:.3f} of the CPU time without ({ranges[0]} in {len(pairs)} rounds{said}), "
            f"{steady:.3f} ({ranges[1]}) leaving out the start of processes; the map's amount is {amounts[name]:.3f}"
        )


if __name__ == "__main__":
    main()
