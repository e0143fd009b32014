"""The `find` command: clips of an output by words, by a picture, or like one of them."""

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import get_args

import pyarrow as pa

from cli.asking import Asking, asking_for
from cli.buckets import output_at
from cli.common import print_json, use_weights
from cli.parser import add_json, add_weights
from cli.places import Inputs, files_for, inputs
from cli.plugins import tables_of
from core.errors import UserError
from core.sanitize import printable
from core.storage.urls import is_url
from curation.expressions import keep_mask, parse
from curation.find.question import Question
from curation.find.rank import READS, VECTORS, By, Findings, find
from curation.find.selection import write_selection
from curation.folders import CLIPS, CONTROLS, PREVIEWS, RETIRED, SHARDS
from curation.output.folder import recipe_file
from curation.output.table import read_table
from curation.pipeline import need_table
from curation.recipe import Recipe, load_recipe
from curation.reviews import REVIEW_COLUMNS, read_reviews, with_reviews
from curation.schema import table_schema

HELP = "find clips by words, by a picture, or like one of them; the result is a selection for export and train"
UNREAD = (CLIPS, CONTROLS, PREVIEWS, RETIRED, SHARDS)
SHOWN_CAPTION = 80
"""characters of a caption on the terminal"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("output", metavar="DIR", help="or the URL of an output in a bucket")
    parser.add_argument(
        "question", metavar="WORDS|IMAGE|CLIP_ID", help="a file that is there, a clip id of the table, else words"
    )
    parser.add_argument("--limit", type=int, default=20, metavar="N", help="most clips found; default 20")
    parser.add_argument("--least", type=float, metavar="SCORE", help="leave out clips below this score")
    parser.add_argument("--where", metavar="EXPR", help="among the clips for which it holds: \"status == 'accepted'\"")
    parser.add_argument(
        "--by", choices=get_args(By), help="default: CLIP embeddings where the table has them, else hashes or words"
    )
    parser.add_argument("--write", metavar="FILE", help="clip ids, for export --clips and train data.clips=FILE")
    add_weights(parser)
    add_json(parser)


def run(parsed: argparse.Namespace) -> int:
    """Find clips of an output."""
    if parsed.limit < 1:
        raise UserError("must be at least 1", field="limit", value=parsed.limit)
    with output_at(parsed.output, UNREAD) as out, inputs() as here:
        return _find(parsed, out, here)


def _find(parsed: argparse.Namespace, out: Path, here: Inputs) -> int:
    need_table(out)
    use_weights(parsed.weights)
    recipe, _ = load_recipe(recipe_file(out), [], tables_of(out))
    table, among = _read(out, recipe, parsed.where)
    asking = asking_for(recipe)
    if asking.lacks is not None and parsed.by is None:
        print(f"note: not by CLIP embeddings: {printable(asking.lacks)}", file=sys.stderr)
    findings = find(among, _question(asking, table, parsed, here), parsed.limit, parsed.by, parsed.least)
    if parsed.write is not None:
        about = f"{len(findings.clips)} clips found by {findings.by} for: {printable(parsed.question, 500)}"
        with files_for(parsed.write, lambda file: (file,), is_file=True) as (file, put):
            write_selection(file, [clip.clip_id for clip in findings.clips], about)
            put(file)
    if parsed.json:
        print_json({"by": findings.by, "compared": findings.compared, "rows": findings.rows} | {
            "clips": [dataclasses.asdict(clip) for clip in findings.clips]
        })  # fmt: skip
    else:
        _print(findings, parsed.write)
    return 0


def _read(out: Path, recipe: Recipe, where: str | None) -> tuple[pa.Table, pa.Table]:
    """Return all rows with what people have said of them, and those to look among.

    Raises:
        UserError: an expression that cannot be.
    """
    known = table_schema(recipe.writers).names
    condition = None if where is None else parse(where, "where")
    if condition is not None:
        condition.check(known)
    wanted = {*READS, *VECTORS.values(), *REVIEW_COLUMNS, *(condition.columns if condition is not None else ())}
    table = read_table(out, recipe.writers, [name for name in known if name in wanted])
    table = with_reviews(table, read_reviews(out))
    return table, table if condition is None else table.filter(pa.array(keep_mask(table, condition)))


def _question(asking: Asking, table: pa.Table, parsed: argparse.Namespace, here: Inputs) -> Question:
    file = here.at(parsed.question) if is_url(parsed.question) else Path(parsed.question)
    if len(parsed.question) < 4096 and file.is_file():
        return asking.picture(table, file, parsed.by)
    return asking.words(table, parsed.question, parsed.by)


def _print(findings: Findings, written: str | None) -> None:
    for clip in findings.clips:
        caption = printable(clip.caption or "", SHOWN_CAPTION)
        place = printable(clip.source_path, 60)
        span = "" if clip.start_s is None else f"{clip.start_s:.2f}-{clip.end_s:.2f} s"
        print("  ".join(filter(None, (f"{clip.score:6.3f}", clip.clip_id, clip.status, place, span, caption))))
    have = {"embedding": "an embedding", "hash": "a hash", "words": "one of the words"}[findings.by]
    print(f"{len(findings.clips)} clips by {findings.by}; {findings.compared} of {findings.rows} rows have {have}")
    if written is not None:
        print(f"selection {printable(written)}")
