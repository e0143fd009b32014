"""The `report` command: what an output holds, or two side by side."""

import argparse
import dataclasses
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from cli.buckets import output_at
from cli.common import print_json, shown
from cli.parser import add_json
from cli.places import local
from cli.plugins import tables_of
from core.errors import UserError
from core.storage.place import called
from core.storage.urls import is_url
from curation.folders import CLIPS, CONTROLS, RETIRED, SHARDS
from curation.output.folder import output_lock_if_free, recipe_file
from curation.output.table import read_table
from curation.pipeline import need_table
from curation.recipe import Recipe, load_recipe
from curation.report.compare import write_comparison
from curation.report.gather import gather
from curation.report.sheets import Sheets, write_sheets
from curation.report.summary import funnel, summarise
from curation.report.terminal import score_lines, score_values, side_by_side
from curation.report.write import Budget, write_report

NOT_SHOWN = (CLIPS, CONTROLS, RETIRED, SHARDS)
MOST_FRAMES = 64
HELP = "write and print what an output holds, or two side by side"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("output", metavar="DIR", help="or the URL of an output in a bucket")
    parser.add_argument("other", metavar="DIR", nargs="?", help="a second output: compare the two")
    parser.add_argument("--page", metavar="FILE", help="default: DIR/report.html, or DIR/compare-NAME.html")
    parser.add_argument("--pictures-mb", type=float, default=25.0, metavar="MB", help="of pictures within the page")
    parser.add_argument("--sheets", metavar="FOLDER", help="write contact sheets of the accepted videos there, too")
    parser.add_argument("--sheet-frames", type=_frames, default=8, metavar="N", help="frames of each, first to last")
    add_json(parser)


def _frames(text: str) -> int:
    count = int(text)
    if not 2 <= count <= MOST_FRAMES:
        raise argparse.ArgumentTypeError(f"must be 2 to {MOST_FRAMES}")
    return count


def run(parsed: argparse.Namespace) -> int:
    """Write the page that shows an output, or two side by side; print its numbers."""
    with ExitStack() as stack:
        names = [name for name in (parsed.output, parsed.other) if name]
        unread = [folder for folder in NOT_SHOWN if folder != CLIPS or not parsed.sheets]
        outs = [stack.enter_context(output_at(name, unread, puts_back=True)) for name in names]
        for out in outs:
            need_table(out)
        for out in dict.fromkeys(out.resolve() for out in outs):
            stack.enter_context(output_lock_if_free(out))
        return _report(parsed, outs)


def _report(parsed: argparse.Namespace, outs: Sequence[Path]) -> int:
    first, *others = [(out, load_recipe(recipe_file(out), [], tables_of(out))[0]) for out in outs]
    if parsed.sheets and others:
        raise UserError("sheets are of one output", field="sheets", fix="name one output")
    budget = Budget(pictures_mb=parsed.pictures_mb)
    if parsed.json:
        return _print_values(parsed, first, others, budget)
    if not others:
        print(f"{funnel(summarise(first[0], first[1].writers))}\n\n{score_lines(gather(*first))}\n")
        page = write_report(*first, budget, parsed.page and local(parsed.page, "page"))
        if parsed.sheets:
            print(_in_words(_sheets(parsed, *first), parsed.sheets))
    else:
        page = _compare_page(parsed, first[0], others[0][0])
        print(f"A  {shown(first[0])}\nB  {shown(others[0][0])}\n{side_by_side(gather(*first), gather(*others[0]))}\n")
        write_comparison(first, others[0], page, budget)
    place = called(first[0])
    is_within = is_url(place) and page.resolve().is_relative_to(first[0].resolve())
    print(f"report    {place}/{page.name}" if is_within else f"report    {shown(page)}")
    return 0


def _compare_page(parsed: argparse.Namespace, first: Path, other: Path) -> Path:
    return local(parsed.page, "page") if parsed.page else first / f"compare-{other.resolve().name}.html"


def _sheets(parsed: argparse.Namespace, out: Path, recipe: Recipe) -> Sheets:
    columns = ["clip_id", "type", "status", "source_path", "start_s", "end_s", "clip_path"]
    table = read_table(out, recipe.writers, columns)
    return write_sheets(out, local(parsed.sheets, "sheets"), table, parsed.sheet_frames, recipe.limits)


def _in_words(sheets: Sheets, folder: str) -> str:
    unread = f"; {sheets.unread} could not be read" if sheets.unread else ""
    return f"sheets    {folder}: {sheets.clips} accepted videos on {len(sheets.paths)} sheets{unread}"


def _print_values(
    parsed: argparse.Namespace, first: tuple[Path, Recipe], others: Sequence[tuple[Path, Recipe]], budget: Budget
) -> int:
    outputs = []
    for out, recipe in (first, *others):
        summary = dataclasses.asdict(summarise(out, recipe.writers))
        outputs.append({
            "output": called(out),
            "summary": summary,
            "scores": score_values(gather(out, recipe)),
        })
    if not others:
        page = write_report(*first, budget, parsed.page and local(parsed.page, "page"))
        sheets = {"sheets": dataclasses.asdict(_sheets(parsed, *first))} if parsed.sheets else {}
        print_json(outputs[0] | {"page": str(page)} | sheets)
    else:
        page = _compare_page(parsed, first[0], others[0][0])
        write_comparison(first, others[0], page, budget)
        print_json({"outputs": outputs, "page": str(page)})
    return 0
