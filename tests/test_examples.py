"""The examples run, small: each script on drawn footage, and the cells of both notebooks one after the other."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from demo.footage import rushes

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
pytestmark = pytest.mark.slow


def run(words: Sequence[str | Path], folder: Path, **environment: str) -> str:
    """Run Python in a folder, with the project importable; return what it printed."""
    paths = {"PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))}
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=folder, env=os.environ | paths | environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def script_of(notebook: Path) -> str:
    """Return the code cells of a notebook as one script."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def run_notebook(name: str, folder: Path, after: str) -> str:
    script = folder / f"{name}.py"
    script.write_text(f"{script_of(EXAMPLES / name)}\n\n{after}\n", encoding="utf-8")
    return run([script], folder, SELECTS_STEPS="2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with drawn footage, in which the notebooks and then the scripts run."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "videos").mkdir()
    rushes(folder / "videos")
    return folder


@pytest.fixture(scope="module")
def notebooks(folder: Path) -> tuple[str, str]:
    """Return what both notebooks print, in the order that they name."""
    counts = (
        "print(clips.status.value_counts().to_dict(), pd.read_parquet(OUT / 'clips').status.value_counts().to_dict())"
    )
    first = run_notebook("footage_to_report.ipynb", folder, counts)
    return first, run_notebook(
        "table_to_sample.ipynb", folder, "print(sample.frames.dtype, (RUNS / 'sample.mp4').stat().st_size)"
    )


def test_the_first_notebook_tells_good_shots_from_faulty_ones(notebooks: tuple[str, str], folder: Path) -> None:
    report, before_and_after = notebooks[0].splitlines()[-2:]
    assert report.startswith("file:///") and report.endswith("report.html")
    before, after = (json.loads(part + "}") for part in before_and_after.replace("'", '"').rstrip("}").split("} "))
    assert before["accepted"] >= 2 and after["accepted"] < before["accepted"]
    assert sum(before.values()) == sum(after.values())


def test_the_second_notebook_trains_and_samples(notebooks: tuple[str, str]) -> None:
    lines = notebooks[1].splitlines()
    assert lines[-2].endswith("3)") and "video clip" in lines[-2]
    kind, size = lines[-1].split()
    assert kind == "uint8" and int(size) > 0


def test_a_folder_is_curated_in_python(folder: Path) -> None:
    shown = run([EXAMPLES / "curate_folder.py", "videos", "curated", "shots.max_s=6"], folder)
    table = pq.read_table(folder / "curated" / "clips")
    assert f"{table['status'].to_pylist().count('accepted')} rows in" in shown
    assert "'source_path': 'rushes.mp4'" in shown


def test_an_operator_from_outside_is_measured_and_judged(folder: Path) -> None:
    run(["-m", "examples.custom_operator", "videos", "tenengrad"], folder)
    rows = pq.read_table(folder / "tenengrad" / "clips").to_pylist()
    by_start = {row["start_s"]: row for row in rows}
    blurred = min((row for row in rows if row["brightness"] > 0.1), key=lambda row: row["sharpness"])
    assert "sharpness:low" in blurred["reasons"] and blurred["sharpness"] < by_start[0.0]["sharpness"] / 10
    assert by_start[0.0]["status"] == "accepted"


def test_an_adapter_is_trained_and_sampled_with(notebooks: tuple[str, str], folder: Path) -> None:
    runs = folder / "notebook_output" / "runs"
    base, data, adapter = runs / "video" / "model", folder / "notebook_output" / "curated", folder / "lora"
    trained = run([EXAMPLES / "train_lora.py", data, base, adapter, "train.steps=2"], folder)
    assert trained.count("safetensors") == 2
    words = [EXAMPLES / "sample_api.py", runs / "video", "samples", "a red disc", "a blue field", "--steps", "2"]
    shown = run([*words, "--lora", adapter], folder)
    assert "1.mp4: 9 frames, a blue field" in shown and (folder / "samples" / "1.mp4").stat().st_size > 0
