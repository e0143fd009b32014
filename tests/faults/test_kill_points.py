"""Kill every command before any of its file operations: the same command again gives the output of an undisturbed run.

SELECTS_KILL_POINTS says before how many operations of each command it is killed (4; all of them in the full suite).
"""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from clips import CLIPS, write_clips
from safetensors import safe_open

from core.files import SWAP_NAME, TEMPORARY_NAME
from demo.drawing import write_video

POINTS = int(os.environ.get("SELECTS_KILL_POINTS", "4"))
ROOT = Path(__file__).resolve().parents[2]
HELPERS = ROOT / "tests" / "helpers"
VOLATILE = frozenset({"run.json", "report.html", "pages.html", "compare-out.html", "log.jsonl", ".lock"})
"""files with times, costs and process numbers in them: that they are there must do"""
IGNORED = frozenset({"tensorboard", ".ray_train"})
"""folders that other libraries write, and begin anew with every start"""

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(4 * 3600)]


class Killing:
    """The server that runs commands up to their k-th file operation."""

    def __init__(self, log: Path):
        self.log = log
        path = os.pathsep.join([str(ROOT), str(HELPERS), os.environ.get("PYTHONPATH", "")])
        self._process = subprocess.Popen(
            [sys.executable, str(HELPERS / "kill_server.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log.open("ab"),
            text=True,
            env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        )
        self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, self.log.read_text()[-3000:]
        return json.loads(line)

    def run(self, root: Path, *words: str | Path, kill_at: int | None = None) -> tuple[int, int]:
        """Return the exit code and the number of operations on files under `root`."""
        assert self._process.stdin is not None
        job = {"words": [str(w) for w in words], "root": str(root), "kill_at": kill_at, "log": str(self.log)}
        print(json.dumps(job), file=self._process.stdin, flush=True)
        reply = self._read()
        return reply["code"], reply["operations"]

    def done(self, root: Path, *words: str | Path) -> int:
        """Run to the end; return the number of operations."""
        self.log.write_bytes(b"")
        code, operations = self.run(root, *words)
        assert code == 0, self.log.read_text()[-3000:]
        return operations

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)


@pytest.fixture(scope="module")
def killing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killing]:
    server = Killing(tmp_path_factory.mktemp("log") / "log.txt")
    yield server
    server.close()


@dataclass(frozen=True)
class Given:
    """What every command finds: nothing here is written to."""

    footage: Path
    recipe: Path
    clips: Path
    model: Path

    def curate(self, root: Path, *files: str) -> list[str | Path]:
        inputs = [self.footage / name for name in files] or [self.footage]
        return ["curate", *inputs, "--output", root / "out", "--config", self.recipe, "--runner", "inline"]

    def train(self, root: Path, *settings: str) -> list[str | Path]:
        always = ("train.steps=2", "train.ema=0.9", "watch.checkpoint_every=1", "watch.keep_checkpoints=1")
        watched = ("watch.prompts=[a disc]", "watch.sample_every=1", "watch.sample_steps=1", "watch.log_every=1")
        sizes = ("buckets.sizes_px=[32]", "buckets.frames=[5]")
        config = ROOT / "configs" / "train_tiny.yaml"
        words = ["train", config, "--data", self.clips, "--output", root / "run", "--runner", "inline"]
        return [*words, *always, *watched, *sizes, *settings]


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Given:
    from pipelines import write_pipeline

    folder = tmp_path_factory.mktemp("given")
    (folder / "footage").mkdir()
    for number in range(3):
        pictures = np.full((40, 64, 96, 3), 80 + 40 * number, np.uint8)
        for i, picture in enumerate(pictures):
            picture[:, 2 * i : 2 * i + 6] = 220
        options = {"preset": "ultrafast", "g": "10"}
        write_video(folder / "footage" / f"{number}.mp4", list(pictures), 10, options=options)
    recipe = folder / "recipe.yaml"
    recipe.write_text("operators: {brightness: true}\ncut: {preset: ultrafast}\n")
    (folder / "controls.yaml").write_text(f"{recipe.read_text()}controls: {{gray: true}}\n")
    clips = write_clips(folder / "clips", dict(list(CLIPS.items())[:2]), num_frames=9)
    return Given(folder / "footage", recipe, clips, write_pipeline(folder / "model"))


Words = Callable[[Given, Path], list[str | Path]]


@dataclass(frozen=True)
class Case:
    """A command, the commands before it, and how many files (by pattern) it leaves, so that it has done something."""

    words: Words
    before: tuple[Words, ...] = ()
    leaves: tuple[str, int] = ("out/train/*.mp4", 2)


def curated(given: Given, root: Path) -> list[str | Path]:
    return given.curate(root)


def darker(given: Given, root: Path) -> list[str | Path]:
    return ["select", root / "out", "rules.brightness.min=0.4"]


def exported(format: str) -> Words:
    return lambda given, root: ["export", root / "out", "--format", format]


def with_controls(given: Given, root: Path) -> list[str | Path]:
    """Curate with control maps beside the clips."""
    return [given.recipe.with_name("controls.yaml") if word == given.recipe else word for word in given.curate(root)]


CASES = {
    "curate": Case(curated, leaves=("out/train/*.mp4", 3)),
    "curate with controls": Case(with_controls, leaves=("out/control/gray/*.mp4", 3)),
    "select with controls": Case(darker, (with_controls,), ("out/control/gray/*.mp4", 2)),
    "select back with controls": Case(
        lambda given, root: ["select", root / "out", "rules.brightness.min=0.0"], (with_controls, darker),
        ("out/control/gray/*.mp4", 3),
    ),
    "curate more": Case(curated, (lambda given, root: given.curate(root, "1.mp4"),), ("out/train/*.mp4", 3)),
    "select": Case(darker, (curated,)),
    "select back": Case(
        lambda given, root: ["select", root / "out", "rules.brightness.min=0.0"], (curated, darker),
        ("out/train/*.mp4", 3),
    ),
    **{
        f"export {format}": Case(exported(format), (curated, exported(format), darker))
        for format in ("internal", "webvid", "diffusers", "webdataset")
    },
    "report": Case(lambda given, root: ["report", root / "out"], (curated, darker)),
    "report elsewhere": Case(
        lambda given, root: ["report", root / "out", "--page", root / "pages.html"], (curated, darker)
    ),
    "compare": Case(lambda given, root: ["report", root / "out", root / "out"], (curated, darker)),
    "train": Case(
        lambda given, root: given.train(root, f"model.vae={given.model / 'vae'}"),
        leaves=("run/model/*/*.safetensors", 3),
    ),
    "train a LoRA": Case(
        lambda given, root: given.train(root, f"model.base={given.model}", "model.transformer=null", "lora.rank=2",
                                        "model.text_encoder=null"),
        leaves=("run/lora/*.safetensors", 2),
    ),
    "sample": Case(
        lambda given, root: ["sample", given.model, "--prompt", "a", "--prompt", "b", "--output", root / "samples",
                             "--steps", "1", "--frames", "5", "--size", "48x48"],
        leaves=("samples/*", 6),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_kill_before_any_file_operation_is_made_good_by_the_same_command(
    name: str, killing: Killing, given: Given, tmp_path: Path
) -> None:
    case, root, start = CASES[name], tmp_path / "root", tmp_path / "start"
    root.mkdir()
    for words in case.before:
        killing.done(root, *words(given, root))
    shutil.copytree(root, start, symlinks=True)
    words = case.words(given, root)
    count = killing.done(root, *words)
    expected = content_of(root)
    assert count > 0 and len(list(root.glob(case.leaves[0]))) == case.leaves[1]
    points = list(range(1, count + 1))
    if len(points) > POINTS:
        points = sorted(random.Random(name).sample(points, POINTS))
    lost = []
    for point in points:
        shutil.rmtree(root)
        shutil.copytree(start, root, symlinks=True)
        code, _ = killing.run(root, *words, kill_at=point)
        if code != -signal.SIGKILL:  # the order of two processes' operations may vary by a few at the end
            assert code == 0 and point > count - 5, (point, code, killing.log.read_text()[-3000:])
        killing.done(root, *words)
        found = content_of(root)
        left = [path for path in found if TEMPORARY_NAME.match(Path(path).name) or SWAP_NAME.match(Path(path).name)]
        differing = sorted(p for p in expected.keys() | found.keys() if expected.get(p) != found.get(p))
        if left or differing:
            lost.append((point, left, differing))
    print(f"{name}: killed before {len(points)} of {count} operations, lost {len(lost)}")
    assert not lost, f"of {count} operations: {lost[:5]}"


def content_of(root: Path) -> dict[str, str]:
    """Return what lies under a folder, by path: a digest of each file's meaning."""
    found = {}
    for parent, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in IGNORED]
        for name in [*names, *folders]:
            path = Path(parent, name)
            found[str(path.relative_to(root))] = "" if path.is_dir() or name in VOLATILE else meaning_of(path)
    return found


def plain(value: Any) -> Any:
    """Return nested values with bytes in the place of tensors, and mappings in order."""
    if isinstance(value, dict):
        return sorted(((str(key), plain(inner)) for key, inner in value.items()), key=lambda pair: pair[0])
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return (str(value.dtype), value.numpy().tobytes()) if isinstance(value, torch.Tensor) else value


def meaning_of(path: Path) -> str:
    content = path.read_bytes()
    if path.suffix == ".parquet" and content:
        content = json.dumps(sorted(pq.read_table(path).to_pylist(), key=str), default=str).encode()
    if path.suffix == ".safetensors":  # its writer puts the metadata in an order of its own
        with safe_open(path, framework="np") as file:
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
            content = json.dumps(sorted((file.metadata() or {}).items())).encode()
        for name, tensor in tensors.items():
            content += f"{name} {tensor.dtype} {tensor.shape}".encode() + tensor.tobytes()
    if path.suffix == ".pt":  # pickles of equal states differ in what they share
        content = repr(plain(torch.load(path, weights_only=True, map_location="cpu"))).encode()
    return hashlib.sha256(content).hexdigest()
