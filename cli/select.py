"""The `select` command: other rules over the same scores."""

import argparse
import dataclasses
from pathlib import Path

from cli.buckets import output_in_bucket
from cli.common import TABLES, check_weights, print_json
from cli.parser import add_json
from cli.plugins import tables_of
from configs import config_file
from core.errors import UserError
from core.sanitize import printable
from core.storage.place import called
from core.storage.urls import is_url
from curation.output.folder import caption_operators, recipe_file
from curation.pipeline import need_table, select
from curation.recipe import load_recipe, what_differs
from curation.report.summary import funnel

HELP = "judge an output by other rules, without decoding"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("output", metavar="DIR", help="or the URL of an output in a bucket")
    parser.add_argument("words", nargs="*", metavar="rules.COLUMN.min=VALUE")
    parser.add_argument("--config", metavar="FILE", help="recipe whose rules are taken")
    add_json(parser)


def run(parsed: argparse.Namespace) -> int:
    """Judge an output by other rules."""
    if not is_url(parsed.output):
        return _select(parsed, Path(parsed.output))
    with output_in_bucket(parsed.output) as output:
        code = _select(parsed, output.folder)
        output.finish(is_complete=True)
        return code


def _select(parsed: argparse.Namespace, out: Path) -> int:
    need_table(out)
    tables = tables_of(out)
    kept, _ = load_recipe(recipe_file(out), [], tables)
    overrides = list(parsed.words)
    for override in overrides:
        if not override.startswith("rules."):
            raise UserError(f"'{override}': select changes rules only, such as rules.motion.min=0.5")
    if parsed.config:
        asked, _ = load_recipe(config_file(parsed.config), overrides, TABLES)
        recipe = dataclasses.replace(kept, rules=asked.rules)
        written = {c for op in kept.operators.values() for c in op.writes}
        for column in recipe.rules:
            writer = asked.writer_of(column)
            if writer in asked.operators and column not in written:
                raise UserError(f"rules.{column}: {out} has no such column; curate with operators.{writer}")
    else:
        recipe, _ = load_recipe(recipe_file(out), overrides, tables)
    for operator in caption_operators(recipe):  # before anything is written
        check_weights(operator)
    changed = what_differs(recipe, kept)
    summary = select(out, recipe)
    waiting = summary.waiting(with_files=recipe.cut.mode != "none")
    if parsed.json:
        print_json({"summary": dataclasses.asdict(summary), "rules_changed": changed, "waiting": waiting})
        return 0
    print(funnel(summary))
    print(f"rules changed: {', '.join(changed) or 'none'}")
    if waiting:
        print(f"{waiting} accepted clips wait for caption or file; finish them with:")
        print(f"  run_pipeline.py curate INPUT --output {printable(called(out))}")
    return 0
