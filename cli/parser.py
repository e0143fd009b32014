"""What may be typed: the parser that commands add their arguments to, and the one line that says what is wrong."""

import argparse
import glob
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from core.sanitize import printable, without_secrets

LONGEST_ERROR = 2000
"""characters of an error on the terminal; names and values from outside may have any length"""


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        help: one line for the list of commands.
        add_arguments: adds its arguments to its parser.
        run: does it and returns the exit code.
    """

    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def parse(commands: Mapping[str, Command], arguments: Sequence[str] | None, about: str | None) -> argparse.Namespace:
    """Parse the command line; inputs and `key=value` may stand before and after options.

    Args:
        commands: by name.
        arguments: the words; None: the process's own.
        about: shown on top of the help.

    Returns:
        What was given, with the command's name as `command`; a mistake ends the process with code 2 and one line.
    """
    parser = _OneLineParser(prog="run_pipeline.py", description=about)
    names = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in commands.items():
        command.add_arguments(names.add_parser(name, help=command.help))
    parsed, rest = parser.parse_known_args(arguments)
    words = getattr(parsed, "words", None)
    if words is None or any(word.startswith("-") for word in rest):
        if rest:
            parser.error(f"unknown argument: {' '.join(rest)}")
    else:
        words += rest
    return parsed


class _OneLineParser(argparse.ArgumentParser):
    """Says what is wrong in one line, as every other mistake is told."""

    def error(self, message: str) -> NoReturn:
        """Exit 2 with the message."""
        self.exit(2, f"error: {printable(without_secrets(message), LONGEST_ERROR)}; see {self.prog} --help\n")


def add_runner(parser: argparse.ArgumentParser, *, with_auto: bool = False) -> None:
    """Add the options that say where the steps run; `with_auto`: also that the amount of footage may decide."""
    choices: tuple[str, ...] = ("ray", "inline")
    words = "inline: a plain loop without Ray"
    if with_auto:
        choices, words = (*choices, "auto"), f"{words}; auto: that where Ray's start would take longer"
    parser.add_argument("--runner", choices=choices, default="ray", help=words)
    parser.add_argument(
        "--ray-address", metavar="ADDRESS", help="run on this Ray cluster instead of this machine alone"
    )


def add_weights(parser: argparse.ArgumentParser) -> None:
    """Add the option that names a folder of weights."""
    parser.add_argument("--weights", metavar="DIR", help="folder of model weights, looked into first")


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the option that prints the result as one JSON object, for programs."""
    parser.add_argument("--json", action="store_true", help="print the result as JSON, and nothing else on stdout")


def split_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separate inputs from `key=value`: a word with `=` that names no file is an override."""
    overrides = [w for w in words if re.match(r"[A-Za-z_][\w.]*=", w) and not os.path.exists(w) and not glob.glob(w)]
    return [w for w in words if w not in overrides], overrides
