"""An hour-long single shot: memory of driver and decoder does not depend on its length."""

import json
import math
import subprocess
import sys
from pathlib import Path

import av
import pytest
from runs import rows_of

from demo.drawing import write_video
from demo.landscapes import scene

pytestmark = pytest.mark.slow

MEASURE = """
import json, resource, sys, run_pipeline
code = run_pipeline.main(sys.argv[1:])
peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
print("PEAKS", json.dumps([code, *peaks]))
"""


@pytest.fixture(scope="module")
def minute(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A minute of a camera that swings to and fro, so that minutes join without a cut."""
    path = tmp_path_factory.mktemp("film") / "minute.mp4"
    texture = scene(5, 800, 360)

    def frames():
        for i in range(600):
            x = round(200 - 200 * math.cos(2 * math.pi * i / 300))
            yield texture[100:280, x : x + 320].copy()

    write_video(path, frames(), 10, options={"preset": "ultrafast", "g": "20"})
    return path


def repeat(minute: Path, times: int, to: Path) -> None:
    """Join a film with itself, packet by packet."""
    with av.open(str(to), "w") as output:
        stream = None
        for turn in range(times):
            with av.open(str(minute)) as source:
                template = source.streams.video[0]
                stream = stream or output.add_stream_from_template(template)
                for packet in source.demux(template):
                    if packet.dts is not None:
                        step = turn * template.duration
                        packet.pts, packet.dts, packet.stream = packet.pts + step, packet.dts + step, stream
                        output.mux(packet)


def peaks_kib(film: Path, out: Path, segment_s: float) -> tuple[int, int]:
    words = ["curate", str(film), "--output", str(out), "--runner", "inline", f"shots.segment_s={segment_s}"]
    words += ["cut.mode=none", "rules.short_side_px=false", "rules.sharpness=false"]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", MEASURE, *words], cwd=root, capture_output=True, text=True, check=True)
    code, driver, decoder = json.loads(done.stdout.split("PEAKS ")[1])
    assert code == 0
    return driver, decoder


@pytest.mark.parametrize("segment_s", [120, 100_000])
def test_an_hour_needs_the_memory_of_five_minutes(minute: Path, tmp_path: Path, segment_s: float) -> None:
    repeat(minute, 5, tmp_path / "short.mp4")
    repeat(minute, 60, tmp_path / "hour.mp4")
    short = peaks_kib(tmp_path / "short.mp4", tmp_path / "short", segment_s)
    hour = peaks_kib(tmp_path / "hour.mp4", tmp_path / "hour", segment_s)
    assert hour[0] <= 1.1 * short[0] and hour[1] <= 1.1 * short[1], (short, hour)
    rows = sorted(rows_of(tmp_path / "hour").values(), key=lambda r: r["start_s"])
    assert rows[0]["source_duration_s"] == pytest.approx(3600, abs=0.2)
    assert {(r["shot_index"], r["shot_start_s"], r["shot_end_s"]) for r in rows} == {(0, 0.0, rows[-1]["end_s"])}
    assert all(a["end_s"] == b["start_s"] for a, b in zip(rows, rows[1:], strict=False))
    assert max(r["duration_s"] for r in rows) <= 10 + 1e-6
    assert sum(r["num_frames"] for r in rows) == 36000
