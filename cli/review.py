"""The `review` command: a page on which people keep, drop, caption and tag clips."""

import _thread
import argparse
import contextlib
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from cli.asking import asking_for
from cli.buckets import output_in_bucket
from cli.common import shown, use_weights
from cli.parser import add_weights
from cli.plugins import tables_of
from cli.serve import add_address, token_of
from core.errors import RunError, UserError
from core.storage.urls import is_url
from curation.find.rank import Findings, find
from curation.output.folder import recipe_file
from curation.pipeline import need_table, select
from curation.recipe import load_recipe
from curation.report.summary import funnel
from curation.reviews import NAME as JOURNAL
from models.errors import ModelError

HELP = "keep, drop, caption and tag clips on a page; what people say wins over the rules"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("output", metavar="DIR", help="or the URL of an output in a bucket, which is held meanwhile")
    add_address(parser, 8300)
    add_weights(parser)


def run(parsed: argparse.Namespace) -> int:
    """Serve an output for review; at the end judge it with what people have said."""
    if not is_url(parsed.output):
        out = Path(parsed.output)
        _serve(parsed, out, lambda path: path)
        _judge(out)
        return 0
    with output_in_bucket(parsed.output) as output:

        def stop() -> None:
            print(f"\n{output.url} was taken by another process", file=sys.stderr, flush=True)
            _thread.interrupt_main()

        with output.committing(on_loss=stop):
            _serve(parsed, output.folder, output.whole)
        try:
            output.commit()  # what was said, before it is judged
        except RunError as error:
            kept = output.folder.parent / f"said-{time.strftime('%Y%m%d-%H%M%S')}.jsonl"
            shutil.copyfile(output.folder / JOURNAL, kept)
            raise RunError(f"{error}; what was said is in {kept}, lines of {JOURNAL} in the output") from None
        _judge(output.folder)
        output.finish(is_complete=True)
    return 0


def _serve(parsed: argparse.Namespace, out: Path, whole: Callable[[Path], Path]) -> None:
    """Serve an output until interrupted; `whole` returns a clip's file, which may lie elsewhere."""
    from serving.review.serve import review
    from serving.review.store import ReviewStore

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
        review(ReviewStore(out, recipe, whole), finder, parsed.host, parsed.port, token, tell)


def _judge(out: Path) -> None:
    recipe, _ = load_recipe(recipe_file(out), [], tables_of(out))
    try:
        print(f"\n{funnel(select(out, recipe))}")
    except (UserError, RunError, ModelError) as error:  # a run holds the output, say: it judges anew by itself
        print(f"\nnot judged now ({error}); judge with: run_pipeline.py select {shown(out)}")
