"""What a check of the device is, and what it finds."""

import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

from benchmarks.gpu.runner import Result, Status
from benchmarks.gpu.sizes import Sizes
from models.errors import one_line

FLOAT32 = 1e-3
"""relative difference (norm of the difference over norm) of float32 results of two devices, TF32 being off: sums in
another order differ by 1e-6 each, and a few layers and steps add up"""
BF16 = 0.05
"""of results computed in bf16 from float32's: its values have 8 binary digits, 0.4 %"""


class SkippedError(Exception):
    """A check that cannot run here; the text says why."""


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        passed: whether all that it compares is within its bounds.
        words: a line for people, with the bound.
        figures: for the JSON.
    """

    passed: bool
    words: str
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Bench:
    """Where and how large.

    Attributes:
        device: that is checked.
        sizes: of what is computed.
    """

    device: torch.device
    sizes: Sizes

    @property
    def on_gpu(self) -> bool:
        """Return whether there are streams, page-locked memory and a memory of its own."""
        return self.device.type == "cuda"

    def wait(self) -> None:
        """Wait until the device has done what it was asked to do."""
        if self.on_gpu:
            torch.cuda.synchronize(self.device)


@dataclass(frozen=True)
class Check:
    """One thing that is run on the device.

    Attributes:
        name: group and words.
        limit_s: it is stopped after this, and not started where less than a quarter of it is left.
        run: computes and compares.
    """

    name: str
    limit_s: float
    run: Callable[[Bench], Finding]


def result_of(check: Check, bench: Bench, deadline_s: float, started: Callable[[Check], None]) -> Result:
    """Run a check if there is time for it, and tell what became of it, whatever it raises.

    Args:
        check: to run.
        bench: where.
        deadline_s: on `time.monotonic`, when all is to be over.
        started: is called before it runs.
    """
    left_s = deadline_s - time.monotonic()
    if left_s < check.limit_s / 4:
        return Result(check.name, "skipped", 0.0, f"time: {max(0.0, left_s):.0f} s are left")
    started(check)
    began = time.monotonic()
    try:
        finding = check.run(bench)
        bench.wait()
    except SkippedError as reason:
        return Result(check.name, "skipped", time.monotonic() - began, str(reason))
    except Exception as error:  # a failing check stops no other
        words = f"{type(error).__name__}: {one_line(error)}"
        return Result(check.name, "failed", time.monotonic() - began, words, {}, traceback.format_exc())
    status: Status = "passed" if finding.passed else "failed"
    return Result(check.name, status, time.monotonic() - began, finding.words, finding.figures)


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the norm of the difference over the norm of what was expected; infinite where a value is not finite."""
    found, expected = found.detach().double().cpu().flatten(), expected.detach().double().cpu().flatten()
    if found.shape != expected.shape or not bool(found.isfinite().all()):
        return float("inf")
    return float((found - expected).norm() / expected.norm().clamp(min=1e-30))


def compared(found: torch.Tensor, expected: torch.Tensor, tolerance: float) -> Finding:
    """Compare a result with the CPU's."""
    far = difference(found, expected)
    words = f"differs by {far:.1e} from the CPU's, at most {tolerance:g}"
    return Finding(far <= tolerance, words, {"difference": far, "tolerance": tolerance})
