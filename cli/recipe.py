"""The `recipe` command: a recipe or training config with every key explained."""

import argparse
import sys

from cli.common import TABLES, print_json
from cli.plugins import surveyed
from cli.schemas import recipe_schema, training_schema
from configs import CONFIGS, config_file
from core.sanitize import printable
from core.settings_file import read_yaml, render
from curation.recipe import load_recipe, render_recipe
from train_bridge.config import load_config

HELP = "print a resolved recipe or training config with every key's meaning"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("words", nargs="*", metavar="[FILE] [key=value]")
    parser.add_argument(
        "--schema", nargs="?", const="recipe", choices=("recipe", "train"),
        help="print the JSON Schema of recipes, or of training configs, for editors",
    )  # fmt: skip


def run(parsed: argparse.Namespace) -> int:
    """Print a resolved recipe or training config with every key's meaning."""
    if parsed.schema:
        print_json(training_schema() if parsed.schema == "train" else recipe_schema())
        return 0
    words = list(parsed.words)
    file = config_file(words.pop(0)) if words and "=" not in words[0] else CONFIGS / "default.yaml"
    if "method" in read_yaml(file, "recipe"):
        print(render(load_config(file, words)), end="")
        return 0
    recipe, _ = load_recipe(file, words, TABLES)
    print(render_recipe(recipe), end="")
    for kind, found in surveyed().items():
        for name, package in found.packages.items():
            print(f"# plug-in: {kind} {name}, of {printable(package, 200)}")
        for line in found.broken:
            print(f"warning: {line}", file=sys.stderr)
    return 0
