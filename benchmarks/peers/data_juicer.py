"""Data-Juicer 1.6.1 at the task, as its own documents have it, in an environment of its own.

Its scene mapper gives one row of many clips, and its filters judge a row as a whole. Clips are judged one by one only
in two jobs: split; then one row for each clip, filtered. Both are charged. It gets its best case: an encoder as fast
as everybody's here, and files whose frames OpenCV can count (its own `empty_moov` makes the motion filter look at
every frame instead of two a second).
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import av

from benchmarks.measure import ROOT, Cost, measured
from benchmarks.peers.task import (
    CONTENT_THRESHOLD,
    CRF,
    MAX_S,
    MIN_HEIGHT_PX,
    MIN_MOTION_PX,
    MIN_S,
    MIN_SHOT_FRAMES,
    MIN_WIDTH_PX,
    MOTION_FPS,
    MOTION_SIDE_PX,
    PRESET,
    Clip,
)

VENV = ROOT / ".bench" / "data-juicer-venv"
PACKAGES = (
    *("py-data-juicer[distributed]==1.6.1", "scenedetect", "opencv-python-headless", "av==13.1.0", "easyocr==1.7.1"),
    "imageio-ffmpeg",
)
TEXT = "<__dj__video> <|__dj__eoc|>"
COMMON = """dataset_path: {rows}
export_path: {to}
np: 2
use_cache: false
keep_stats_in_res_ds: true
{executor}process:
"""
SPLIT = f"""  - video_split_by_scene_mapper:
      detector: ContentDetector
      threshold: {CONTENT_THRESHOLD}
      min_scene_len: {MIN_SHOT_FRAMES}
      save_dir: {{clips}}
      ffmpeg_extra_args: "-c:v libx264 -preset {PRESET} -crf {CRF} -an -movflags +faststart"
"""
FILTER = f"""  - video_duration_filter: {{min_duration: {MIN_S}, max_duration: {MAX_S}, video_backend: av}}
  - video_resolution_filter: {{min_width: {MIN_WIDTH_PX}, min_height: {MIN_HEIGHT_PX}}}
  - video_motion_score_filter: {{min_score: {MIN_MOTION_PX}, sampling_fps: {MOTION_FPS}, size: {MOTION_SIDE_PX}}}
"""
RAY = "executor_type: ray\nray_address: local\noverride_num_blocks: 8\n"


def install() -> None:
    """Make the environment: 7 GB, a few minutes."""
    subprocess.run([sys.executable, "-m", "uv", "venv", "--quiet", str(VENV)], check=True)
    python = str(VENV / "bin" / "python")
    subprocess.run([sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", python, *PACKAGES], check=True)


def ffmpeg_program() -> str:
    """Return the ffmpeg program: the installed one, else the one that comes with imageio-ffmpeg.

    Raises:
        SystemExit: there is neither.
    """
    if found := shutil.which("ffmpeg"):
        return found
    for path in VENV.glob("lib/python*/site-packages/imageio_ffmpeg/binaries/ffmpeg-*"):
        return str(path)
    raise SystemExit(f"no ffmpeg program and no {VENV}: python -m benchmarks.peers --install makes it (7 GB)")


def data_juicer(videos: list[str], out: Path, *, ray: bool) -> tuple[Cost, list[Clip]]:
    """Do the task in two jobs."""
    out.mkdir(parents=True)
    split = _job(out, "split", SPLIT.format(clips=out / "clips"), videos, ray=ray)
    found = [video for row in _rows(out / "split.jsonl") for video in row["videos"]]
    cost = _job(out, "filter", FILTER, found, ray=ray)
    kept = {video for row in _rows(out / "filter.jsonl") for video in row["videos"]}
    return split + cost, _clips(found, kept)


def _job(out: Path, name: str, steps: str, videos: Iterable[str], *, ray: bool) -> Cost:
    rows, recipe = out / f"{name}_in.jsonl", out / f"{name}.yaml"
    rows.write_text("".join(json.dumps({"text": TEXT, "videos": [video]}) + "\n" for video in videos))
    head = COMMON.format(rows=rows, to=out / f"{name}.jsonl", executor=RAY if ray else "")
    recipe.write_text(head + steps)
    program = VENV / "bin" / "dj-process"
    if not program.exists():
        raise SystemExit(f"no {program}: python -m benchmarks.peers --install makes it (7 GB)")
    env = {"DATA_JUICER_USE_STDLIB_JSON": "1"}
    return measured([program, "--config", recipe], out / f"{name}.log", env=env)


def _rows(exported: Path) -> list[dict]:
    """Read what was exported: one file, or a folder of them; nothing is written where nothing is kept."""
    if not exported.exists():
        return []
    files = sorted(exported.glob("*.json*")) if exported.is_dir() else [exported]
    return [json.loads(line) for file in files for line in file.read_text().splitlines() if line]


def _clips(found: list[str], kept: set[str]) -> list[Clip]:
    """Tell the clips' frames: they follow each other without a gap, in the order of their numbers."""
    clips, ends = [], dict[str, int]()
    for video in sorted(found):
        source = Path(video).stem.split("__dj_hash_")[0]
        start = ends.get(source, 0)
        with av.open(video) as container:
            ends[source] = start + sum(packet.pts is not None for packet in container.demux(video=0))
        clips.append(Clip(source, start, ends[source], video in kept))
    return clips
