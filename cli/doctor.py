"""The `doctor` command: what is on this machine, and what each recipe lacks."""

import argparse
import os

from cli.checkup import examine, render
from cli.common import print_json
from cli.parser import add_json, add_weights
from models.weights.find import FOLDER_VARIABLE

HELP = "show what this machine has, and what each recipe lacks"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_weights(parser)
    add_json(parser)


def run(parsed: argparse.Namespace) -> int:
    """Examine this machine; exit 1 where not even the default recipe can run."""
    found = examine(parsed.weights or os.environ.get(FOLDER_VARIABLE))
    if parsed.json:
        print_json(found.as_values())
    else:
        print(render(found))
    return 1 if found.recipes["default.yaml"] or found.codecs.missing_encoders else 0
