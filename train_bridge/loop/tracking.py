"""What a run says while it trains: a line in the terminal, log.jsonl, TensorBoard."""

import json
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import torch
from torch.distributed.tensor import DTensor
from torch.utils.tensorboard import SummaryWriter

from core.files import atomic_path
from models.accelerator import own_device
from train_bridge.types import Metrics

MOST_LINE_BYTES = 1 << 20
"""of the log: a longer line is none of ours"""


@dataclass
class Meter:
    """Adds up what happened between two lines.

    Attributes:
        peak_flops: of all devices together, for MFU.
    """

    peak_flops: float
    began_s: float = field(default_factory=time.perf_counter)
    steps: int = 0
    rows: float = 0.0
    tokens: float = 0.0
    flops: float = 0.0
    waited_s: float = 0.0
    losses: dict[str, list[torch.Tensor]] = field(default_factory=dict)
    norms: dict[str, list[torch.Tensor]] = field(default_factory=dict)

    def add_loss(self, name: str, loss: torch.Tensor) -> None:
        """Note a loss; it is read only when the line is due, so that the device need not wait for us."""
        self.losses.setdefault(name, []).append(loss.detach())

    def add_norm(self, name: str, norm: torch.Tensor) -> None:
        """Note the norm of one step's gradients before they were clipped; where they are divided, that of all parts."""
        whole = norm.full_tensor() if isinstance(norm, DTensor) else norm
        self.norms.setdefault(name, []).append(whole.detach())

    def line(self) -> Metrics:
        """Return means and rates since the last line, and begin anew."""
        passed = max(time.perf_counter() - self.began_s, 1e-9)
        # One mean over whole steps: a step's losses are parts that add up to its loss.
        metrics = {name: float(torch.stack(values).sum()) / max(1, self.steps) for name, values in self.losses.items()}
        metrics |= {name: float(torch.stack(values).mean()) for name, values in self.norms.items()}
        metrics |= {
            "samples_per_s": self.rows / passed,
            "tokens_per_s": self.tokens / passed,
            "step_s": passed / max(1, self.steps),
            "data_wait_percent": 100 * self.waited_s / passed,
            "memory_gb": _memory_gb(),
            "mfu_percent": 100 * self.flops / passed / self.peak_flops,
        }
        self.began_s, self.steps, self.rows, self.tokens, self.flops, self.waited_s = time.perf_counter(), 0, 0, 0, 0, 0
        self.losses, self.norms = {}, {}
        return metrics


@dataclass(frozen=True)
class Log:
    """Where numbers go: one worker writes, the others keep silent."""

    run: Path
    board: SummaryWriter

    @staticmethod
    def open(run: Path, step: int) -> "Log":
        """Open the log of a run that goes on at a step; lines from beyond it are taken back."""
        file = run / "log.jsonl"
        if file.is_file():
            with file.open("rb") as before, atomic_path(file) as temporary, temporary.open("wb") as after:
                while line := before.readline(MOST_LINE_BYTES):
                    if _step_of(line) <= step:
                        after.write(line.rstrip() + b"\n")
        return Log(run, SummaryWriter(str(run / "tensorboard"), purge_step=step + 1 if step else None))

    def write(self, step: int, metrics: Metrics, prefix: str = "train") -> None:
        """Write numbers of one step."""
        with open(self.run / "log.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "what": prefix, **metrics}) + "\n")
        for name, value in metrics.items():
            self.board.add_scalar(f"{prefix}/{name}", value, step)
        self.board.flush()


def show(step: int, steps: int, metrics: Metrics, main: str) -> None:
    """Write the progress line: over the last one in a terminal, else below it."""
    left = int((steps - step) * metrics["step_s"])
    line = (
        f"step {step}/{steps}  epoch {metrics['epoch']:.2f}  loss {metrics.get(main, float('nan')):.4f}  "
        f"norm {metrics.get('gradient_norm', float('nan')):.3g}  rate {metrics['learning_rate']:.3g}  "
        f"{metrics['samples_per_s']:.1f} samples/s  "
        f"{metrics['tokens_per_s']:.0f} tokens/s  data-wait {metrics['data_wait_percent']:.1f} %  "
        f"{metrics['memory_gb']:.1f} GB  MFU {metrics['mfu_percent']:.0f} %  {left // 60}:{left % 60:02d} left"
    )
    if sys.stderr.isatty():
        width = os.get_terminal_size(sys.stderr.fileno()).columns
        print(f"\r\x1b[K{line[: width - 1]}", end="" if step < steps else "\n", file=sys.stderr, flush=True)
    else:
        print(line, file=sys.stderr, flush=True)


def _memory_gb() -> float:
    if (device := own_device()).type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return float(psutil.Process().memory_info().rss) / 1e9


def _step_of(line: bytes) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return float("inf")  # a line cut off by a kill
