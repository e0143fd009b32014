"""A plan as plain values, for programs."""

import dataclasses
from collections import Counter
from typing import Any

from train_bridge.plan.plan import BucketPlan, Plan


def plan_values(plan: Plan) -> dict[str, Any]:
    """Return a plan as plain values: rows and why some are not used, buckets with their cost, steps, memory, notes."""
    rows = plan.rows
    reasons = Counter((refusal.key, refusal.reason, refusal.fix) for refusal in rows.refused)
    return {
        "rows": {
            "train": len(rows.train),
            "validation": len(rows.validation),
            "left_out": rows.left_out,
            "never_drawn": rows.never_drawn,
            "empty_maps": {
                name: {"clips": bare, "of": there, "share": bare / there}
                for name, (bare, there) in rows.empty_maps.items()
            },
            "added_by_windows": rows.added,
            "refused": [
                {"key": key, "reason": reason, "fix": fix, "rows": count}
                for (key, reason, fix), count in reasons.most_common()
            ],
        },
        "buckets": [_bucket_values(line) for line in plan.buckets],
        "steps_per_epoch": plan.steps_per_epoch,
        "repeated_rows": plan.fillers,
        "step_s": plan.step_s,
        "peak_bytes": plan.peak_bytes,
        "device_bytes": plan.device_bytes,
        "notes": [*rows.notes, *plan.notes],
    }


def _bucket_values(line: BucketPlan) -> dict[str, Any]:
    bucket = line.bucket
    size = {"num_frames": bucket.num_frames, "height_px": bucket.height_px, "width_px": bucket.width_px}
    values = {f.name: getattr(line, f.name) for f in dataclasses.fields(line) if f.name != "bucket"}
    return size | {"tokens": bucket.tokens} | values
