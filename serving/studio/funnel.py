"""How far a run of `curate` is, and what it rejects: from its own metrics while it goes on, from its table after."""

import re
import urllib.request
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from core.errors import OutputError, RunError, UserError
from curation.output.table import read_table
from serving.studio.texts import say

ADDRESS = re.compile(r"^metrics at (http://127\.0\.0\.1:\d{1,5}/metrics)$", re.ASCII | re.MULTILINE)
"""the line in which the command tells where its numbers are, on the loopback alone"""
SAMPLE = re.compile(r'^selects_(rows|rejected)_total\{\w+="((?:[^"\\]|\\.)*)"\} ([\d.e+]+)$', re.ASCII)
MOST_BYTES = 1 << 20
MOST_REASONS = 12
KINDS = {"rejected": "lost", "failed": "lost"}
TIMEOUT_S = 2.0


@dataclass(frozen=True)
class Funnel:
    """Clips by what became of them.

    Attributes:
        steps: clips (of `probe`: sources) that each step has dealt with, or clips by status once it has ended.
        rejects: clips by the first reason that rejects them.
        is_live: the run goes on.
    """

    steps: Mapping[str, int] = field(default_factory=dict)
    rejects: Mapping[str, int] = field(default_factory=dict)
    is_live: bool = True


def live_funnel(lines: str) -> Funnel | None:
    """Return how far a run is, by the lines that it has printed; None where it does not say."""
    told = ADDRESS.search(lines)
    if told is None:
        return None
    plain = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with plain.open(told[1], timeout=TIMEOUT_S) as answer:
            return read_metrics(answer.read(MOST_BYTES).decode(errors="replace"))
    except OSError:  # it has just ended
        return None


def read_metrics(text: str) -> Funnel:
    """Return the funnel of metrics in Prometheus's text format."""
    found: dict[str, dict[str, int]] = {"rows": {}, "rejected": {}}
    for line in text.splitlines():
        if match := SAMPLE.match(line):
            found[match[1]][match[2]] = int(float(match[3]))
    return Funnel(found["rows"], found["rejected"])


def final_funnel(out: Path) -> Funnel | None:
    """Return what became of every clip of an output, by its table; None where there is none yet."""
    try:
        table = read_table(out, (), ["status", "reasons"])
    except (UserError, RunError, OutputError, OSError, ValueError):
        return None
    if not len(table):
        return None
    reasons = (each[0] for each in table["reasons"].to_pylist() if each)
    return Funnel(Counter(table["status"].to_pylist()), Counter(reasons), is_live=False)


def funnel_html(funnel: Funnel | None, language: str) -> str:
    """Return bars: what the steps have done or what became of the clips, then the reasons, most frequent first."""
    if funnel is None:
        return ""
    reasons = sorted(funnel.rejects.items(), key=lambda pair: -pair[1])[:MOST_REASONS]
    most = max([1, *funnel.steps.values(), *funnel.rejects.values()])
    live = "yes" if funnel.is_live else "no"
    parts = [
        f'<div class="funnel" data-live="{live}">',
        *(_bar(*one, most, KINDS.get(one[0], "kept")) for one in _shown(funnel)),
    ]
    if reasons:
        parts.append(f'<p class="note">{escape(say("rejected_by", language))}</p>')
        parts += [_bar(name, count, most, "lost") for name, count in reasons]
    return "".join([*parts, "</div>"])


def _shown(funnel: Funnel) -> list[tuple[str, int]]:
    order = {name: place for place, name in enumerate(("accepted", "rejected", "failed"))}
    return sorted(funnel.steps.items(), key=lambda pair: order.get(pair[0], len(order)))


def _bar(name: str, count: int, most: int, kind: str) -> str:
    share = 100 * count / most
    facts = f'data-name="{escape(name)}" data-count="{count}"'
    return (
        f'<div class="bar {kind}" {facts}><span>{escape(name)}</span>'
        f'<b style="width:{share:.1f}%"></b><span>{count}</span></div>'
    )
