"""What the device computes, against the CPU, and how fast: every device path once, with small models.

    python -m benchmarks.gpu [--device D] [--minutes M] [--only WORDS] [--json FILE]

Needs torch, diffusers, transformers, peft and safetensors only. With a GPU at most eight minutes: each memory mode,
the VAE both ways, each way of training, compared with the CPU's results within stated tolerances; then training and
sampling of a transformer of 1.6 B parameters against the device's FLOP/s, the VAE's rates, and peak memory against its
prediction. `--device cpu` runs the same with tiny sizes. A check that fails or hangs stops no other; one that does not
fit the time is skipped. Prints a line for each check, writes `.bench/gpu.json`, and fails where a check failed.
"""

import argparse
import importlib.metadata
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.gpu.runner import Result, run_all
from benchmarks.measure import ROOT, verdict

LIBRARIES = ("torch", "diffusers", "transformers", "peft", "safetensors")
RESERVED_S = 20.0
"""of the time, for a process that tells what is skipped"""


def run_checks(name: str | None, only: str, done: Sequence[str], deadline_s: float) -> None:
    """Run the checks that are not over yet in this process, and tell of them on the standard output."""
    told = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is not for the pipe
    import torch

    from benchmarks.gpu import memory, rates, sampling, training
    from benchmarks.gpu.check import Bench, Check, result_of
    from benchmarks.gpu.sizes import ON_CPU, ON_GPU
    from models.accelerator import own_device, use_device
    from models.quiet import quiet_libraries

    quiet_libraries()
    # Exactness is compared with the CPU's float32.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    device = torch.device(name) if name else own_device()
    use_device(device)
    bench = Bench(device, ON_GPU if device.type == "cuda" else ON_CPU)
    facts = {
        "device": torch.cuda.get_device_name(device) if bench.on_gpu else "CPU",
        "cuda_version": torch.version.cuda,
        "versions": {library: importlib.metadata.version(library) for library in LIBRARIES},
    }
    print(json.dumps(facts), file=told)

    def started(check: Check) -> None:
        print(json.dumps({"started": check.name, "limit_s": check.limit_s}), file=told)

    for check in (*sampling.CHECKS, *training.CHECKS, *rates.CHECKS, *memory.CHECKS):
        if check.name in done or only not in check.name:
            continue
        result = result_of(check, bench, deadline_s, started)
        print(result.line(), file=told)
        if result.detail and bench.on_gpu:
            bench.wait()  # raises where the error has spoilt the device for this process: another one goes on
    print(json.dumps({"finished": True}), file=told)


def main() -> int:
    """Run all in a process that can be replaced; print a line for each check."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", help="cpu, or a GPU as torch names it; left out: this machine's")
    parser.add_argument("--minutes", type=float, default=8.0, help="after which all is over")
    parser.add_argument("--only", default="", help="part of the names of the checks to run")
    parser.add_argument("--json", type=Path, default=ROOT / ".bench" / "gpu.json")
    parser.add_argument("--done", help=argparse.SUPPRESS)
    parser.add_argument("--deadline", type=float, default=0.0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.done is not None:
        run_checks(options.device, options.only, json.loads(options.done), options.deadline)
        return 0
    began = time.monotonic()
    deadline_s = began + 60 * options.minutes - RESERVED_S
    command = [sys.executable, "-m", "benchmarks.gpu", "--only", options.only, "--deadline", str(deadline_s)]
    command += ["--device", options.device] if options.device else []
    results: list[Result] = []

    def told(result: Result) -> None:
        results.append(result)
        print(f"{result.status:8}{result.seconds:6.1f} s  {result.name}: {result.words}", flush=True)

    facts = run_all(command, deadline_s, told)
    counts = Counter(result.status for result in results)
    print(f"\n{facts.get('device')}: " + ", ".join(f"{count} {status}" for status, count in counts.items()))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    content = {**facts, "seconds": time.monotonic() - began, "checks": [asdict(result) for result in results]}
    options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    missed = [f"{result.name}: {result.words}" for result in results if result.status == "failed"]
    return verdict(missed or ([] if counts["passed"] else ["nothing could be checked"]))


if __name__ == "__main__":
    sys.exit(main())
