"""Dividing long sources at keyframes, so that one film uses a whole machine."""

import numpy as np

from media.decode import can_seek
from media.probe import PacketScan
from media.types import Segment, SourceFacts


def divide_source(facts: SourceFacts, scan: PacketScan, segment_s: float) -> list[Segment]:
    """Divide a source into keyframe-aligned segments of about `segment_s` seconds.

    A border is the first keyframe at or after each multiple of `segment_s`; a last stretch shorter than half
    a segment stays with the one before. A source whose packets carry no times, or that cannot be
    entered midway, is one segment.
    """
    borders: list[int] = []
    if len(scan.pts) and facts.time_base > 0 and can_seek(facts):
        step = max(1, round(segment_s / facts.time_base))
        last = int(scan.pts[-1]) - step // 2
        target = facts.zero_pts + step
        for key in scan.key_pts[np.searchsorted(scan.key_pts, target) :]:
            if key > last:
                break
            if key >= target:
                borders.append(int(key))
                target = facts.zero_pts + ((int(key) - facts.zero_pts) // step + 1) * step
    starts, ends = [None, *borders], [*borders, None]
    before = [None, *(int(scan.pts[np.searchsorted(scan.pts, border) - 1]) for border in borders)]
    spans = zip(starts, ends, before, strict=True)
    return [Segment(i, len(starts), start, end, previous) for i, (start, end, previous) in enumerate(spans)]
