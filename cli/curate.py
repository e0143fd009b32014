"""The `curate` command: from videos and images to a table, clips and metadata."""

import argparse
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from cli.buckets import output_in_bucket
from cli.common import check_weights, print_outcome, recipe_for, runner_of, use_weights
from cli.node_needs import node_needs
from cli.parser import add_json, add_runner, add_weights, split_overrides
from controls.networks import check_network
from core.errors import UserError
from core.metrics import HOST, Metrics, serving_metrics
from core.storage.urls import is_url
from curation.engine.choice import is_worth_ray
from curation.engine.committing import CommittingRunner
from curation.inputs.sources import look_for_sources
from curation.output.folder import known_sources
from curation.output.remote import RemoteOutput
from curation.pipeline import CurateSettings, curate

HELP = "turn videos and images into training data"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("words", nargs="+", metavar="INPUT", help="file, folder, glob, list or URL; and key=value")
    parser.add_argument("--output", required=True, metavar="DIR", help="or a URL, such as s3://bucket/out")
    parser.add_argument("--config", metavar="FILE", help="recipe; default configs/default.yaml, or the output's own")
    add_weights(parser)
    parser.add_argument("--retry-failed", action="store_true", help="try failed sources again, too")
    add_runner(parser, with_auto=True)
    parser.add_argument("--metrics-port", type=int, metavar="PORT", help="serve Prometheus's metrics here, on loopback")
    add_json(parser)


def run(parsed: argparse.Namespace) -> int:
    """Curate sources into an output."""
    if not is_url(parsed.output):
        return _curate(parsed, Path(parsed.output), None)
    with output_in_bucket(parsed.output) as output:
        return _curate(parsed, output.folder, output)


def _curate(parsed: argparse.Namespace, out: Path, remote: RemoteOutput | None) -> int:
    """Curate into a folder, which `remote` brings to a bucket."""
    files, overrides = split_overrides(parsed.words)
    if not files:
        raise UserError("curate needs at least one input: a file, folder, glob or list")
    recipe, captioner = recipe_for(out, parsed.config, overrides)
    found = look_for_sources(files, known_sources(out, recipe))
    use_weights(parsed.weights)
    for operator in recipe.operators.values():
        check_weights(operator)  # once, here, before workers on this node ask for them
    for name, control in recipe.controls.items():
        check_network(name, control)
    if parsed.runner == "auto":
        parsed.runner = "ray" if parsed.ray_address or is_worth_ray(found.sources, captioner) else "inline"
    needs = partial(node_needs, recipe, captioner, found.sources, None if remote is None else remote.url)
    runner = runner_of(parsed, None if remote is None else remote.handoff, needs)
    metrics = Metrics()
    with ExitStack() as stack:
        if parsed.metrics_port is not None:
            port = stack.enter_context(serving_metrics(parsed.metrics_port, metrics))
            print(f"metrics at http://{HOST}:{port}/metrics", file=sys.stderr)
        outcome = curate(
            found.sources,
            out,
            recipe,
            captioner,
            runner if remote is None else CommittingRunner(runner, remote),
            CurateSettings(
                retry_failed=parsed.retry_failed, whole_process=True, passed_over=found.passed_over, watch=metrics.watch
            ),
        )
    if remote is not None:
        remote.finish(is_complete=outcome.is_complete)
    return print_outcome(out if remote is None else remote.url, recipe, outcome, as_json=parsed.json)
