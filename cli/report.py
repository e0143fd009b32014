"""The `report` command: what an output holds, or two side by side."""

import argparse
import dataclasses
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from cli.buckets import CLIPS, CONTROLS, RETIRED, SHARDS, output_at
from cli.common import print_json, shown
from cli.parser import add_json
from cli.plugins import tables_of
from core.storage.urls import is_url
from curation.output.folder import output_lock_if_free, recipe_file
from curation.output.place import place_of_output
from curation.pipeline import need_table
from curation.recipe import Recipe, load_recipe
from curation.report.compare import write_comparison
from curation.report.gather import gather
from curation.report.summary import funnel, summarise
from curation.report.terminal import score_lines, score_values, side_by_side
from curation.report.write import Budget, write_report

NOT_SHOWN = (CLIPS, CONTROLS, RETIRED, SHARDS)
HELP = "write and print what an output holds, or two side by side"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("output", metavar="DIR", help="or the URL of an output in a bucket")
    parser.add_argument("other", metavar="DIR", nargs="?", help="a second output: compare the two")
    parser.add_argument("--page", metavar="FILE", help="default: DIR/report.html, or DIR/compare-NAME.html")
    parser.add_argument("--pictures-mb", type=float, default=25.0, metavar="MB", help="of pictures within the page")
    add_json(parser)


def run(parsed: argparse.Namespace) -> int:
    """Write the page that shows an output, or two side by side; print its numbers."""
    with ExitStack() as stack:
        names = [name for name in (parsed.output, parsed.other) if name]
        outs = [stack.enter_context(output_at(name, NOT_SHOWN, puts_back=True)) for name in names]
        for out in outs:
            need_table(out)
        for out in dict.fromkeys(out.resolve() for out in outs):
            stack.enter_context(output_lock_if_free(out))
        return _report(parsed, outs)


def _report(parsed: argparse.Namespace, outs: Sequence[Path]) -> int:
    first, *others = [(out, load_recipe(recipe_file(out), [], tables_of(out))[0]) for out in outs]
    budget = Budget(pictures_mb=parsed.pictures_mb)
    if parsed.json:
        return _print_values(parsed, first, others, budget)
    if not others:
        print(f"{funnel(summarise(first[0], first[1].writers))}\n\n{score_lines(gather(*first))}\n")
        page = write_report(*first, budget, parsed.page and Path(parsed.page))
    else:
        page = _compare_page(parsed, first[0], others[0][0])
        print(f"A  {shown(first[0])}\nB  {shown(others[0][0])}\n{side_by_side(gather(*first), gather(*others[0]))}\n")
        write_comparison(first, others[0], page, budget)
    place = place_of_output(first[0])
    is_within = is_url(place) and page.resolve().is_relative_to(first[0].resolve())
    print(f"report    {place}/{page.name}" if is_within else f"report    {shown(page)}")
    return 0


def _compare_page(parsed: argparse.Namespace, first: Path, other: Path) -> Path:
    return Path(parsed.page) if parsed.page else first / f"compare-{other.resolve().name}.html"


def _print_values(
    parsed: argparse.Namespace, first: tuple[Path, Recipe], others: Sequence[tuple[Path, Recipe]], budget: Budget
) -> int:
    outputs = []
    for out, recipe in (first, *others):
        summary = dataclasses.asdict(summarise(out, recipe.writers))
        outputs.append({
            "output": place_of_output(out),
            "summary": summary,
            "scores": score_values(gather(out, recipe)),
        })
    if not others:
        page = write_report(*first, budget, parsed.page and Path(parsed.page))
        print_json(outputs[0] | {"page": str(page)})
    else:
        page = _compare_page(parsed, first[0], others[0][0])
        write_comparison(first, others[0], page, budget)
        print_json({"outputs": outputs, "page": str(page)})
    return 0
