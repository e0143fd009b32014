"""What this machine has: CPUs, memory, GPUs, and which versions of which packages."""

import os
import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Gpu:
    """A GPU as its driver names it, with its memory in all, and what of it nobody uses (null: not told)."""

    name: str
    memory_gb: float
    free_gb: float | None = None


@dataclass(frozen=True)
class Machine:
    """What this process may use.

    Attributes:
        system: operating system and processor.
        python: version.
        cpus: that this process may run on.
        memory_gb: of the machine, or of the container where that is less.
        free_memory_gb: available now.
        gpus: as `nvidia-smi` lists them; none where there is no driver.
    """

    system: str
    python: str
    cpus: int
    memory_gb: float
    free_memory_gb: float
    gpus: tuple[Gpu, ...]


def read_machine() -> Machine:
    """Look at this machine; takes no GPU."""
    memory = psutil.virtual_memory()
    total = min(memory.total, _container_bytes() or memory.total)
    return Machine(
        f"{platform.system()} {platform.release()} {platform.machine()}",
        platform.python_version(),
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        round(total / 1e9, 1),
        round(min(memory.available, total) / 1e9, 1),
        read_gpus(),
    )


def read_gpus() -> tuple[Gpu, ...]:
    """Return the GPUs that the NVIDIA driver lists; asks the driver's own tool, so that no library has to be loaded."""
    command = ["nvidia-smi", "--query-gpu=name,memory.total,memory.free", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    found = []
    for line in done.stdout.splitlines():
        name, *sizes = (part.strip() for part in line.split(","))
        if sizes and sizes[0].isdigit():
            found.append(Gpu(name, *(_gb_of_mib(size) for size in sizes[:2] if size.isdigit())))
    return tuple(found)


def _gb_of_mib(mib: str) -> float:
    return round(int(mib) * (1 << 20) / 1e9, 1)


def version_of(package: str) -> str | None:
    """Return the installed version of a package, None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _container_bytes() -> int | None:
    """Return the memory limit of this process's control group, None where there is none."""
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(file).read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            continue
        if text.isdigit() and int(text) < 1 << 60:
            return int(text)
    return None
