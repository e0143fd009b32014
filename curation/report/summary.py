"""The funnel: how many came in, how many each reason dropped, how much is kept."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from core.sanitize import printable
from curation.empty_maps import EmptyMaps, count_empty, count_motionless, empty_lines, motionless_lines
from curation.inputs.passed import PassedOver
from curation.judge import COPY
from curation.output.table import read_table
from curation.reviews import caption_of
from curation.schema import CONTROL_AMOUNTS, CONTROL_PATHS, Writer, table_schema

MAP_COLUMNS = frozenset((*CONTROL_PATHS, *CONTROL_AMOUNTS))
SHOWN_ERRORS = 10
SHOWN = 160
"""most characters of a name or an error in the funnel"""


@dataclass(frozen=True)
class Summary:
    """Counts of an output; `accepted + rejected + failed == rows` and sources are counted once.

    Attributes:
        dropped_by: rows by their first reason: these add up to `rejected`.
        failed_with: failed rows by their error's step.
    """

    sources: int
    rows: int
    accepted: int
    rejected: int
    failed: int
    hours: float
    hours_accepted: float
    dropped_by: dict[str, int]
    hours_dropped_by: dict[str, float]
    failed_with: dict[str, int]
    errors: tuple[tuple[str, str], ...]
    """(source path, error) of the first failed rows"""
    captioned: int = 0
    files: int = 0
    passed_over: PassedOver = field(default_factory=PassedOver)
    """what lay in the inputs and is no source; empty where no inputs were looked through"""
    stale_exports: tuple[str, ...] = ()
    """exports that hold other rows than the table, with the commands that write them again"""
    empty_maps: dict[str, EmptyMaps] = field(default_factory=dict)
    """control maps with next to nothing in them, by control"""
    images_without_maps: dict[str, int] = field(default_factory=dict)
    """accepted images, by control that needs motion and so has no map of them"""

    def waiting(self, *, with_files: bool) -> int:
        """Return how many accepted clips still lack a caption, or a file where files are wanted."""
        return self.accepted - min(self.captioned, self.files if with_files else self.captioned)


def summarise(out: Path, writers: tuple[Writer, ...]) -> Summary:
    """Count an output's table."""
    columns = ["source_path", "status", "reasons", "error", "duration_s", "caption", "caption_by_hand", "clip_path"]
    columns += ["type", *(name for name in table_schema(writers).names if name in MAP_COLUMNS)]
    return summarise_table(read_table(out, writers, columns))


def summarise_table(table: pa.Table) -> Summary:
    """Count the rows of a judged table."""
    counts = Counter({row["values"]: row["counts"] for row in pc.value_counts(table["status"]).to_pylist()})
    rejected = table.select(["reasons", "duration_s"]).filter(pc.equal(table["status"], "rejected"))
    failed = table.select(["source_path", "error"]).filter(pc.equal(table["status"], "failed"))
    firsts = pc.list_element(rejected["reasons"], 0)
    reasons = pc.if_else(pc.starts_with(firsts, COPY), COPY.rstrip(":"), firsts)
    by_reason = pa.table({"reason": reasons, "duration_s": rejected["duration_s"]}).group_by(
        "reason", use_threads=False
    )
    dropped = sorted(
        by_reason.aggregate([([], "count_all"), ("duration_s", "sum")]).to_pylist(), key=lambda row: -row["count_all"]
    )
    steps = pc.list_element(pc.split_pattern(failed["error"], ":"), 0)
    failed_with = Counter({row["values"]: row["counts"] for row in pc.value_counts(steps).to_pylist()})
    first = failed.slice(0, SHOWN_ERRORS)
    held = ["duration_s", "caption", "caption_by_hand", "clip_path"]
    kept = table.select(held).filter(pc.equal(table["status"], "accepted"))
    return Summary(
        sources=len(pc.unique(table["source_path"])),
        rows=len(table),
        accepted=counts["accepted"],
        rejected=counts["rejected"],
        failed=counts["failed"],
        hours=(pc.sum(table["duration_s"]).as_py() or 0.0) / 3600,
        hours_accepted=(pc.sum(kept["duration_s"]).as_py() or 0.0) / 3600,
        dropped_by={row["reason"]: row["count_all"] for row in dropped},
        hours_dropped_by={row["reason"]: (row["duration_s_sum"] or 0.0) / 3600 for row in dropped},
        failed_with=dict(failed_with.most_common()),
        errors=tuple(zip(first["source_path"].to_pylist(), first["error"].to_pylist(), strict=True)),
        captioned=len(kept) - caption_of(kept).null_count,
        files=len(kept) - kept["clip_path"].null_count,
        empty_maps=count_empty(table),
        images_without_maps=count_motionless(table),
    )


def funnel(summary: Summary) -> str:
    """Draw the funnel for the terminal."""
    width = 34
    lines = [f"{'sources':<{width}}{summary.sources:>8}"]
    lines.append(f"{'clips and images':<{width}}{summary.rows - summary.failed:>8}{_hours(summary.hours):>12}")
    for reason, count in summary.dropped_by.items():
        share = count / max(1, summary.rows)
        bar = "█" * max(1, round(20 * share))
        lines.append(f"{'  - ' + reason:<{width}}{count:>8}{_hours(summary.hours_dropped_by[reason]):>12}  {bar}")
    share = summary.accepted / max(1, summary.rows)
    bar = "█" * round(20 * share)
    lines.append(f"{'accepted':<{width}}{summary.accepted:>8}{_hours(summary.hours_accepted):>12}  {bar} {share:.0%}")
    if summary.failed:
        lines.append(f"{'failed':<{width}}{summary.failed:>8}")
        for path, error in summary.errors:
            lines.append(f"  ! {printable(path, SHOWN)}: {printable(error, SHOWN)}")
        if summary.failed > len(summary.errors):
            lines.append(f"  ! … and {summary.failed - len(summary.errors)} more: see status 'failed' in the table")
    if words := str(summary.passed_over):
        lines.append(f"passed over: {words}")
    lines += summary.stale_exports
    lines += [*empty_lines(summary.empty_maps), *motionless_lines(summary.images_without_maps)]
    return "\n".join(lines)


def _hours(hours: float) -> str:
    return f"{hours * 60:.1f} min" if hours < 1 else f"{hours:.1f} h"
