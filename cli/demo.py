"""The `demo` command: everything once, on drawn footage."""

import argparse

from cli.common import print_outcome, recipe_for, runner_of, shown
from cli.parser import add_runner
from cli.places import local
from configs import CONFIGS
from curation.inputs.sources import find_sources
from curation.output.folder import prepare_folder
from curation.pipeline import curate

HELP = "draw footage with known truth, curate it, train on it, sample"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("--output", default="demo_output", help="folder for footage and results")
    parser.add_argument("--no-train", action="store_true", help="stop after curation")
    add_runner(parser)


def run(parsed: argparse.Namespace) -> int:
    """Draw footage with known truth, curate it, train tiny models on it and sample."""
    from demo.footage import draw_demo

    out = local(parsed.output, "output")
    footage = out / "footage"
    if not (footage / ".complete").exists():
        prepare_folder(out)
        print(f"drawing footage into {shown(footage)} …")
        footage.mkdir(parents=True, exist_ok=True)
        draw_demo(footage)
        (footage / ".complete").touch()
    recipe, captioner = recipe_for(out / "curated", str(CONFIGS / "demo.yaml"), [])
    outcome = curate(find_sources([str(footage)]), out / "curated", recipe, captioner, runner_of(parsed))
    code = print_outcome(out / "curated", recipe, outcome)
    if code == 0 and not parsed.no_train:
        from demo.training import train_demo  # training libraries take seconds to import

        for path in train_demo(out / "curated", CONFIGS, out, parsed.runner, parsed.ray_address):
            print(f"sample    {shown(path)}   (and .png, .json)")
    return code
