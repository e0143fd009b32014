"""The device's checks on a CPU: what is wrong is found, what hangs or crashes stops nothing else."""

import ast
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.gpu import memory, rates, sampling, training
from benchmarks.gpu.check import Bench, Check, Finding, SkippedError, compared, difference, result_of
from benchmarks.gpu.memory import judged
from benchmarks.gpu.runner import Result, run_all
from benchmarks.gpu.sizes import ON_CPU, ON_GPU, tokens_of
from models.memory import block_offload, fp8
from models.memory.modes import MODES
from models.memory.modes import place as really_place
from models.memory.training_need import BASE_MODES

torch.set_num_threads(1)
ROOT = Path(__file__).resolve().parents[2]
BENCH = Bench(torch.device("cpu"), ON_CPU)
NOT_NEEDED = (
    "ray", "av", "pyarrow", "pandas", "cv2", "onnxruntime", "scenedetect", "rapidocr", "decord", "torchvision",
    "open_clip", "tensorboard", "duckdb", "datasets", "polars", "webdataset", "curation", "train_bridge", "operators",
)  # fmt: skip
OF_SCORES = ("torchvision", "open_clip")
"""which the perceptual loss and the learned scores need, and no device path"""

FAKE = """
import json, os, signal, sys, time
done = json.loads(sys.argv[sys.argv.index("--done") + 1])
def say(**words): print(json.dumps(words), flush=True)
def result(name): say(result=dict(name=name, status="passed", seconds=0.1, words="well"))
if {starts} and not done: sys.exit(3)
say(device="fake")
print("what a library prints")
for name in ("first", "hangs", "crashes", "last"):
    if name in done: continue
    say(started=name, limit_s=0.3 if name == "hangs" else 60)
    if name == "hangs": time.sleep(600)
    if name == "crashes": os.kill(os.getpid(), signal.SIGSEGV)
    result(name)
say(finished=True)
"""


def fake(starts: bool = True) -> list[str]:
    return [sys.executable, "-S", "-c", FAKE.format(starts=not starts)]


def test_what_hangs_or_crashes_fails_alone() -> None:
    results: list[Result] = []
    facts = run_all(fake(), time.monotonic() + 600, results.append)
    assert facts == {"device": "fake"}
    assert [(one.name, one.status) for one in results] == [
        ("first", "passed"), ("hangs", "failed"), ("crashes", "failed"), ("last", "passed"),
    ]  # fmt: skip
    assert "took over" in results[1].words and "SIGSEGV" in results[2].words


def test_what_runs_at_the_end_of_the_time_is_skipped() -> None:
    results: list[Result] = []
    script = FAKE.format(starts=False).replace("0.3 if", "500 if")
    run_all([sys.executable, "-S", "-c", script], time.monotonic() + 0.5, results.append)
    assert results[1].name == "hangs" and results[1].status == "skipped" and results[1].words.startswith("time")


def test_a_process_that_does_not_begin_is_told_and_not_tried_for_ever() -> None:
    with pytest.raises(SystemExit, match="status 3"):
        run_all(fake(starts=False), time.monotonic() + 600, lambda result: None)


def test_what_is_not_finite_or_of_another_shape_is_infinitely_different() -> None:
    one = torch.tensor([3.0, 4.0])
    assert difference(one * 1.01, one) == pytest.approx(0.01, rel=1e-3)
    assert difference(torch.tensor([3.0, float("nan")]), one) == difference(one[:1], one) == float("inf")
    assert compared(one, one, 0.0).passed and not compared(one * 1.1, one, 0.05).passed


@pytest.mark.parametrize(("found", "passed"), [(49, False), (51, True), (109, True), (111, False)])
def test_a_prediction_that_is_twice_too_high_fails_as_one_that_is_too_low(found: int, passed: bool) -> None:
    assert judged(found, 100, 1.1).passed is passed


def test_a_check_that_raises_is_told_with_its_place_and_one_without_time_is_not_begun() -> None:
    def ended(run: Any, left_s: float = 100.0) -> tuple[Result, list[str]]:
        started: list[str] = []
        check = Check("one", 60, run)
        return result_of(check, BENCH, time.monotonic() + left_s, lambda which: started.append(which.name)), started

    def breaks(bench: Bench) -> Finding:
        raise ValueError("two\nlines")

    def needs_more(bench: Bench) -> Finding:
        raise SkippedError("there is no such thing here")

    result, started = ended(breaks)
    assert (result.status, result.words, started) == ("failed", "ValueError: two lines", ["one"])
    assert "in breaks" in result.detail
    assert ended(needs_more)[0].status == "skipped"
    result, started = ended(lambda bench: Finding(True, "well"), left_s=10.0)
    assert (result.status, result.words[:4], started) == ("skipped", "time", [])
    assert ended(lambda bench: Finding(False, "off"))[0].status == "failed"


def findings(words: str) -> list[Finding]:
    checks = [c for c in (*sampling.CHECKS, *training.CHECKS, *rates.CHECKS, *memory.CHECKS) if words in c.name]
    assert checks
    return [check.run(BENCH) for check in checks]


def test_a_layer_that_comes_to_the_device_changed_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def place(parts: dict[str, nn.Module], *rest: Any, **more: Any) -> Any:
        if rest[0] == "sequential_cpu_offload":
            with torch.no_grad():
                parts["transformer"].transformer_blocks[1].ff.net[2].weight.mul_(1.2)
        return really_place(parts, *rest, **more)

    monkeypatch.setattr(sampling, "place", place)
    assert [finding.passed for finding in findings("sequential_cpu_offload, float32")] == [False]


def test_a_block_used_before_its_copy_is_whole_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(finding.passed for finding in findings("adapters, blocks offloaded"))

    def half(self: block_offload.PlainCopier, flat: torch.Tensor) -> torch.Tensor:
        there = flat.clone()
        there[len(there) // 2 :] = 0
        return there

    monkeypatch.setattr(block_offload.PlainCopier, "start", half)
    assert not any(finding.passed for finding in findings("adapters, blocks offloaded"))


def test_a_scale_that_is_left_out_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fp8, "_dequantized", lambda weight, scale, dtype: weight.to(dtype) / 448)
    assert not findings("training: adapters, fp8 base")[0].passed


def test_an_error_of_the_thread_beside_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(device: torch.device) -> None:
        raise RuntimeError("no such device")

    monkeypatch.setattr(training, "use_device", wrong)
    with pytest.raises(RuntimeError, match="no such device"):
        findings("second thread")


def test_each_memory_mode_and_each_way_to_keep_a_base_is_checked() -> None:
    names = [check.name for check in (*sampling.CHECKS, *training.CHECKS, *rates.CHECKS, *memory.CHECKS)]
    assert len(set(names)) == len(names)
    for mode in MODES:
        assert {f"sampling: {mode}, float32", f"sampling: {mode}, bf16", f"memory: sampling, {mode}"} <= set(names)
    assert all(f"memory: adapters on {base.name}" in names for base in BASE_MODES)


def test_rates_on_a_gpu_are_those_of_a_transformer_of_1_to_2_billion_at_9k_and_37k_tokens() -> None:
    shape = rates.shape_of(Bench(torch.device("meta"), ON_GPU), ON_GPU.fewer_layers[0])
    assert 1e9 < shape.parameters < 2e9
    assert [round(tokens_of(grid) / 1000) for grid in ON_GPU.grids] == [9, 37]


def test_models_and_the_checks_import_none_of_what_curation_needs() -> None:
    for path in [*(ROOT / "models").rglob("*.py"), *(ROOT / "benchmarks" / "gpu").glob("*.py")]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        # What a function imports is for its own callers.
        names = {a.name for node in tree.body if isinstance(node, ast.Import) for a in node.names}
        names |= {node.module or "" for node in tree.body if isinstance(node, ast.ImportFrom)}
        assert not {name.split(".")[0] for name in names} & {*NOT_NEEDED} - {*OF_SCORES}, path.name


@pytest.mark.slow
def test_all_of_it_runs_on_a_cpu_without_what_curation_needs(tmp_path: Path) -> None:
    # A package that is None is not there, for whoever asks.
    blocked = [name for name in NOT_NEEDED if not (ROOT / name).is_dir()]
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({blocked!r}))\n")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--json", str(tmp_path / "found.json")]
    shown = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stdout + shown.stderr[-3000:]
    found = json.loads((tmp_path / "found.json").read_text())
    by_status: dict[str, list[str]] = {}
    for check in found["checks"]:
        by_status.setdefault(check["status"], []).append(check["name"])
    assert len(by_status["passed"]) >= 50 and "failed" not in by_status
    assert all("8-bit" in n or "page-locked" in n or "copies" in n for n in by_status["skipped"])
    figures = {check["name"]: check["figures"] for check in found["checks"]}
    assert figures["rate: training, more tokens"]["mfu"] > 0 and figures["memory: sampling, none"]["share"] > 0.5
    assert found["device"] == "CPU" and set(found["versions"]) >= {"torch", "diffusers", "peft"}
