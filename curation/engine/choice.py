"""Which runner takes less time on this machine: Ray's, which has to start, or the plain loop on one core."""

from collections.abc import Iterable

import psutil

from curation.types import Captioner, Source
from media.names import looks_like_image

RAY_START_S = 8.0
"""what Ray within this process and its workers take to start: 6 to 10 s of CPU were measured on two cores"""
VIDEO_BYTES_PER_S = 500_000
"""of footage, where nothing is known but the size of its file: 4 Mbit/s, a usual 1080p"""
REAL_TIMES = 4.0
"""footage that one core analyses and cuts in its own time, with the default recipe"""
IMAGE_S = 0.1
"""CPU time of an image"""


def work_s(sources: Iterable[Source]) -> float:
    """Return about how long one core works on sources, by their sizes alone."""
    total = 0.0
    for source in sources:
        total += IMAGE_S if looks_like_image(source.file) else source.size_bytes / VIDEO_BYTES_PER_S / REAL_TIMES
    return total


def is_worth_ray(sources: Iterable[Source], captioner: Captioner, cpus: int | None = None) -> bool:
    """Return whether what Ray saves by working on all cores is more than its start costs.

    Args:
        sources: what is to be curated; what an output has already counts, too.
        captioner: one that answers several calls at a time, or has workers of its own, is served by Ray alone.
        cpus: of this machine; null: as many as there are.
    """
    if captioner.pool is not None or captioner.slots > 1:
        return True
    count = cpus or psutil.cpu_count() or 1
    worth_s = RAY_START_S / (1 - 1 / count) if count > 1 else float("inf")
    total = 0.0
    for source in sources:  # of a million sources the first few say it
        total += work_s([source])
        if total > worth_s:
            return True
    return False
