"""The `review` command: a page on which people keep, drop, caption and tag clips."""

import argparse
import contextlib
from pathlib import Path

import pyarrow as pa

from cli.asking import asking_for
from cli.common import shown, use_weights
from cli.parser import add_weights
from cli.plugins import tables_of
from cli.serve import add_address, token_of
from core.errors import RunError, UserError
from curation.find.rank import Findings, find
from curation.output.folder import recipe_file
from curation.pipeline import need_table, select
from curation.recipe import load_recipe
from curation.report.summary import funnel
from models.errors import ModelError

HELP = "keep, drop, caption and tag clips on a page; what people say wins over the rules"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("output", metavar="DIR")
    add_address(parser, 8300)
    add_weights(parser)


def run(parsed: argparse.Namespace) -> int:
    """Serve an output for review; at the end judge it with what people have said."""
    from serving.review.serve import review

    out = Path(parsed.output)
    need_table(out)
    use_weights(parsed.weights)
    recipe, _ = load_recipe(recipe_file(out), [], tables_of(out))
    token, is_new = token_of(parsed)
    asking = asking_for(recipe)

    def finder(table: pa.Table, words: str, limit: int) -> Findings:
        try:
            return find(table, asking.words(table, words, None), limit)
        except ModelError as error:
            raise UserError(f"find: {error}") from None

    def tell(address: str) -> None:
        print(f"review at {address}/{f'?token={token}' if is_new else ''}")
        print("stop with Ctrl-C; verdicts are kept as they are said, and the table follows at the end", flush=True)

    with contextlib.suppress(KeyboardInterrupt):  # that is how it ends
        review(out, recipe, finder, parsed.host, parsed.port, token, tell)
    try:
        print(f"\n{funnel(select(out, recipe))}")
    except (UserError, RunError, ModelError) as error:  # a run holds the output, say: it judges anew by itself
        print(f"\nnot judged now ({error}); judge with: run_pipeline.py select {shown(out)}")
    return 0
