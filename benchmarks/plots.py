"""The README's two plots, drawn from what the benchmarks wrote into `.bench/`.

    python -m benchmarks.plots [--to DIR]

`cost_by_step.svg`: what each step of analysis costs in shares of a bare decode, by size of the picture (`floor.json`).
`scale.svg`: memory and time against the amount of footage (`scale.json`). Written into docs/plots; they are readable
on light and on dark pages.
"""

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from benchmarks.measure import ROOT

WIDTH = 760
COLORS = ("#4e79a7", "#f28e2b", "#59a14f", "#b07aa1", "#76b7b2", "#e15759", "#edc948", "#9c755f")
REST = "#a0a0a0"
MOST_NAMED = len(COLORS)
STYLE = """<style>
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600; font-size: 15px }
.faint { fill: #57606a }
.axis { stroke: #8c959f; stroke-width: 1; fill: none }
.grid { stroke: #8c959f; stroke-opacity: .25 }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .faint { fill: #9da7b3 } }
</style>"""


def drawing(height: int, title: str, parts: Sequence[str]) -> str:
    """Return an SVG document with a title."""
    body = "\n".join([STYLE, text(0, 18, title, "title"), *parts])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label="{escape(title)}">\n{body}\n</svg>\n'
    )


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    """Write words at a place."""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'


def box(x: float, y: float, width: float, height: float, color: str, told: str) -> str:
    """Draw a filled rectangle that says what it is when pointed at."""
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(0.0, width):.1f}" height="{height:.1f}" fill="{color}">'
        f"<title>{escape(told)}</title></rect>"
    )


def line(x1: float, y1: float, x2: float, y2: float, kind: str = "axis") -> str:
    """Draw a straight line."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def cost_by_step(floor: Mapping[str, Mapping]) -> str:
    """Draw a bar for each size: the steps of analysis in shares of a bare decode, the most expensive ones by name."""
    summed: dict[str, float] = {}
    for found in floor.values():
        for name, share in found["steps"].items():
            summed[name] = summed.get(name, 0.0) + share
    named = sorted(summed, key=lambda name: (name != "decode", -summed[name]))[:MOST_NAMED]
    left, top, high, gap = 90, 60, 34, 22
    longest = max(max(sum(found["steps"].values()) for found in floor.values()), 1.0) * 1.12
    scale = (WIDTH - left - 60) / longest
    bottom = top + len(floor) * (high + gap)
    parts = []
    for tenth in range(0, int(longest * 10) + 1, 5):
        x = left + tenth / 10 * scale
        parts += [line(x, top - 8, x, bottom, "grid"), text(x, bottom + 16, f"{tenth / 10:g}", "faint", "middle")]
    for index, (size, found) in enumerate(floor.items()):
        y, x = top + index * (high + gap), float(left)
        parts.append(text(left - 10, y + high / 2 + 5, size, "", "end"))
        shares = [(name, found["steps"].get(name, 0.0), color) for name, color in zip(named, COLORS, strict=False)]
        rest = sum(share for name, share in found["steps"].items() if name not in named)
        for name, share, color in [*shares, ("other", rest, REST)]:
            parts.append(box(x, y, share * scale, high, color, f"{name}: {share:.2f} of a bare decode"))
            x += share * scale
        parts.append(text(x + 6, y + high / 2 + 5, f"{found['ratio'][0]:.2f} ×"))
    x = left + scale
    parts += [line(x, top - 14, x, bottom), text(x + 4, top - 14, "one bare decode", "faint")]
    x, y = 0.0, bottom + 44
    for name, color in [*zip(named, COLORS, strict=False), ("other", REST)]:
        width = 28 + 7.6 * len(name)
        if x + width > WIDTH:
            x, y = 0.0, y + 22
        parts += [box(x, y - 11, 12, 12, color, name), text(x + 17, y, name)]
        x += width
    return drawing(int(y + 14), "CPU of analysis by step, in bare decodes of the same footage", parts)


@dataclass(frozen=True)
class Panel:
    """A small plot of one figure against minutes of footage."""

    title: str
    figure: str
    factor: float = 1.0
    unit: str = ""


PANELS = (
    Panel("peak memory of all processes, GB", "peak mb", 1e-3, " GB"),
    Panel("wall seconds for a second of footage", "wall s per video s"),
)


def round_step(least: float) -> float:
    """Return the next round number for the lines of an axis: 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(times * power for times in (1, 2, 5, 10) if times * power >= least)


def scale_plot(scale: Mapping[str, Mapping]) -> str:
    """Draw memory and time against footage, a line for each kind, with lowest and highest as a band."""
    top, high, width, left = 70, 190, 290, 48
    parts = []
    for number, panel in enumerate(PANELS):
        x0 = left + number * (width + 84)
        longest = max(at["video s"][0] for amounts in scale.values() for at in amounts.values()) / 60
        most = max(at[panel.figure][2] for amounts in scale.values() for at in amounts.values()) * panel.factor
        highest = 4 * round_step(most / 4)
        parts.append(text(x0, top - 18, panel.title, "faint"))
        for quarter in range(5):
            y = top + high * (1 - quarter / 4)
            value = highest * quarter / 4
            parts += [line(x0, y, x0 + width, y, "grid"), text(x0 - 6, y + 4, f"{value:.3g}", "faint", "end")]
        for kind_number, (kind, amounts) in enumerate(scale.items()):
            color = COLORS[kind_number]
            points = []
            for at in amounts.values():
                x = x0 + width * at["video s"][0] / 60 / (longest * 1.03)
                middle, low, top_y = (top + high * (1 - value * panel.factor / highest) for value in at[panel.figure])
                told = f"{kind}, {at['video s'][0] / 60:.0f} min: {at[panel.figure][0] * panel.factor:.3g}{panel.unit}"
                parts.append(f'<line x1="{x:.1f}" y1="{low:.1f}" x2="{x:.1f}" y2="{top_y:.1f}" stroke="{color}"/>')
                shape = f'<circle cx="{x:.1f}" cy="{middle:.1f}" r="4" fill="{color}">'
                parts.append(f"{shape}<title>{escape(told)}</title></circle>")
                points.append(f"{x:.1f},{middle:.1f}")
                if kind_number == 0:
                    parts.append(text(x, top + high + 18, f"{at['video s'][0] / 60:.0f}", "faint", "middle"))
            parts.append(f'<polyline points="{" ".join(points)}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts.append(text(x0 + width / 2, top + high + 36, "minutes of footage", "faint", "middle"))
    for number, kind in enumerate(scale):
        x = left + 130 * number
        parts += [box(x, top + high + 48, 12, 12, COLORS[number], kind), text(x + 17, top + high + 59, kind)]
    return drawing(top + high + 72, "Memory and time against the amount of footage", parts)


PLOTS = {"cost_by_step": ("floor", cost_by_step), "scale": ("scale", scale_plot)}


def main() -> int:
    """Draw what there are figures for; return 1 where some are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, default=ROOT / "docs" / "plots")
    options = parser.parse_args()
    options.to.mkdir(parents=True, exist_ok=True)
    code = 0
    for name, (source, draw) in PLOTS.items():
        figures = ROOT / ".bench" / f"{source}.json"
        if not figures.is_file():
            print(f"{figures}: not there yet; run python -m benchmarks.{source} first", file=sys.stderr)
            code = 1
            continue
        path = options.to / f"{name}.svg"
        path.write_text(draw(json.loads(figures.read_text(encoding="utf-8"))), encoding="utf-8")
        print(path)
    return code


if __name__ == "__main__":
    sys.exit(main())
