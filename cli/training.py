"""The `plan` and `train` commands."""

import _thread
import argparse
import contextlib
import sys
from pathlib import Path

from cli.buckets import output_in_bucket
from cli.common import print_json, shown
from cli.parser import add_json, add_runner
from cli.places import Inputs, inputs, of_model
from cli.training_data import data_at, root_at
from configs import config_file
from core.errors import RunError, UserError
from core.sanitize import printable_lines
from core.storage.urls import is_url
from curation.folders import TABLE
from train_bridge.config import TrainConfig, load_config
from train_bridge.named import placed, places_of

PLAN_HELP = "say what a training run would do: rows, buckets, memory, time"
TRAIN_HELP = "train a VAE, a transformer or a LoRA on curated clips; the same command resumes"


def add_plan_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `plan`."""
    _add_config(parser)
    add_json(parser)


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG", help="training config, such as configs/train_tiny.yaml")
    parser.add_argument("words", nargs="*", metavar="key=value")
    parser.add_argument(
        "--data", metavar="PATH", help="an output of curate (folder or URL), or metadata; data.metadata"
    )
    parser.add_argument("--where", metavar="EXPR", help="rows kept: 'aesthetic > 5 and motion < 3'; data.where")
    parser.add_argument("--clips", metavar="FILE", help="rows kept: a selection of find --write; data.clips")
    parser.add_argument("--weight", metavar="EXPR", help="factor on a row's loss; data.weight")


def add_train_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `train`."""
    _add_config(parser)
    parser.add_argument("--output", required=True, metavar="RUN", help="folder, or a URL such as s3://bucket/run")
    add_runner(parser)


def run_plan(parsed: argparse.Namespace) -> int:
    """Print what a training run would do, without loading a model."""
    with inputs() as here:
        config = _train_config(parsed, here)
        from train_bridge.plan.plan import render_plan  # take seconds to import
        from train_bridge.plan.values import plan_values
        from train_bridge.run import plan_run

        if parsed.json:
            print_json(plan_values(plan_run(config)))
            return 0
        print(printable_lines(render_plan(config, plan_run(config))))
    return 0


def run_train(parsed: argparse.Namespace) -> int:
    """Train a VAE, a transformer or an adapter, or resume a run."""
    with inputs() as here:
        config = _train_config(parsed, here)
        if is_url(parsed.output):
            return _train_in_bucket(parsed, config)
        from train_bridge.run import train  # takes seconds to import

        model = train(config, Path(parsed.output), parsed.runner, parsed.ray_address)
    print(f"model     {shown(model)}\nlog       {shown(Path(parsed.output) / 'log.jsonl')}")
    return 0


def _train_in_bucket(parsed: argparse.Namespace, config: TrainConfig) -> int:
    """Train in a folder of this machine, of which every whole checkpoint is committed to a bucket."""
    from train_bridge.remote import TRAINED
    from train_bridge.run import train

    if parsed.ray_address:
        raise UserError("--ray-address needs a folder that all nodes share, and the output is a URL; name a folder")

    with output_in_bucket(parsed.output, TRAINED) as output:

        def stop() -> None:
            print(f"\n{output.url} was taken by another process", file=sys.stderr, flush=True)
            _thread.interrupt_main()

        try:
            with output.committing(on_loss=stop):
                model = train(config, output.folder, parsed.runner)
        except KeyboardInterrupt:
            with contextlib.suppress(RunError):  # what was saved last; the next run tells why it was not taken
                output.commit()
            raise
        output.finish(is_complete=True)
        print(f"model     {output.url}/{model.name}\nlog       {output.url}/log.jsonl")
    return 0


def _train_config(parsed: argparse.Namespace, here: Inputs) -> TrainConfig:
    """Return the training config: the file, its overrides, and the options that are short for keys.

    What it names by URL is copied to this machine; `train` writes the URLs down.
    """
    short = {
        "data.metadata": parsed.data,
        "data.where": parsed.where,
        "data.weight": parsed.weight,
        "data.clips": parsed.clips,
    }
    values = {key: value for key, value in short.items() if value is not None}
    config = load_config(config_file(parsed.config), parsed.words, values)
    if config.train.cache is not None and is_url(config.train.cache):
        raise UserError("is read and written all along", field="train.cache", fix="name a folder of this machine")
    urls = {key: value for key, value in places_of(config).items() if is_url(value)}
    here_now: dict[str, str | None] = {
        key: str(here.at(url, of_model)) for key, url in urls.items() if key != "data.metadata"
    }
    if "data.metadata" in urls:
        here_now |= data_at(here, urls["data.metadata"], has_root=bool(config.data.root))
    elif not config.data.root and (out := Path(config.data.metadata).expanduser()).joinpath(TABLE).is_dir():
        here_now["data.root"] = root_at(here, out)
    return placed(config, here_now)
