"""The `curate` command: from videos and images to a table, clips and metadata."""

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path

from cli.common import check_weights, print_outcome, recipe_for, runner_of, use_weights
from cli.parser import add_json, add_runner, add_weights, split_overrides
from core.errors import UserError
from core.metrics import HOST, Metrics, serving_metrics
from curation.engine.choice import is_worth_ray
from curation.inputs.sources import look_for_sources
from curation.output.folder import known_sources
from curation.pipeline import CurateSettings, curate

HELP = "turn videos and images into training data"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("words", nargs="+", metavar="INPUT", help="file, folder, glob, list or URL; and key=value")
    parser.add_argument("--output", required=True, metavar="DIR")
    parser.add_argument("--config", metavar="FILE", help="recipe; default configs/default.yaml, or the output's own")
    add_weights(parser)
    parser.add_argument("--retry-failed", action="store_true", help="try failed sources again, too")
    add_runner(parser, with_auto=True)
    parser.add_argument("--metrics-port", type=int, metavar="PORT", help="serve Prometheus's metrics here, on loopback")
    add_json(parser)


def run(parsed: argparse.Namespace) -> int:
    """Curate sources into an output."""
    files, overrides = split_overrides(parsed.words)
    if not files:
        raise UserError("curate needs at least one input: a file, folder, glob or list")
    out = Path(parsed.output)
    recipe, captioner = recipe_for(out, parsed.config, overrides)
    found = look_for_sources(files, known_sources(out, recipe))
    use_weights(parsed.weights)
    for operator in recipe.operators.values():
        check_weights(operator)  # once, here, before workers on this node ask for them
    if parsed.runner == "auto":
        parsed.runner = "ray" if parsed.ray_address or is_worth_ray(found.sources, captioner) else "inline"
    runner = runner_of(parsed)
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
            runner,
            CurateSettings(
                retry_failed=parsed.retry_failed, whole_process=True, passed_over=found.passed_over, watch=metrics.watch
            ),
        )
    return print_outcome(out, recipe, outcome, as_json=parsed.json)
