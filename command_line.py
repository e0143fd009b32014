"""What may be typed: commands, their arguments, and the one line that says what is wrong with them."""

import argparse
import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from curation.export import FORMATS
from curation.outside_text import printable, without_secrets

LONGEST_ERROR = 2000
"""characters of an error on the terminal; names and values from outside may have any length"""


def parse(arguments: Sequence[str] | None, about: str | None) -> argparse.Namespace:
    """Parse the command line; inputs and `key=value` may stand before and after options.

    Args:
        arguments: the words; null: the process's own.
        about: shown on top of the help.

    Returns:
        What was given, with the command's name as `command`; a mistake ends the process with code 2 and one line.
    """
    parser = _parser(about)
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


def _parser(about: str | None) -> argparse.ArgumentParser:
    parser = _OneLineParser(prog="run_pipeline.py", description=about)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="draw footage with known truth, curate it, train on it, sample")
    demo.add_argument("--output", default="demo_output", help="folder for footage and results")
    demo.add_argument("--no-train", action="store_true", help="stop after curation")
    _add_runner(demo)

    curating = commands.add_parser("curate", help="turn videos and images into training data")
    curating.add_argument("words", nargs="+", metavar="INPUT", help="file, folder, glob or list; and key=value")
    curating.add_argument("--output", required=True, metavar="DIR")
    curating.add_argument("--config", metavar="FILE", help="recipe; default configs/default.yaml, or the output's own")
    curating.add_argument("--weights", metavar="DIR", help="folder of model weights, looked into first")
    curating.add_argument("--retry-failed", action="store_true", help="try failed sources again, too")
    _add_runner(curating)

    selecting = commands.add_parser("select", help="judge an output by other rules, without decoding")
    selecting.add_argument("output", metavar="DIR")
    selecting.add_argument("words", nargs="*", metavar="rules.COLUMN.min=VALUE")
    selecting.add_argument("--config", metavar="FILE", help="recipe whose rules are taken")

    exporting = commands.add_parser("export", help="write metadata for trainers")
    exporting.add_argument("output", metavar="DIR")
    exporting.add_argument("--format", choices=FORMATS, default="internal")
    exporting.add_argument("--absolute", action="store_true", help="absolute instead of relative paths")

    reporting = commands.add_parser("report", help="write and print what an output holds, or two side by side")
    reporting.add_argument("output", metavar="DIR")
    reporting.add_argument("other", metavar="DIR", nargs="?", help="a second output: compare the two")
    reporting.add_argument("--page", metavar="FILE", help="default: DIR/report.html, or DIR/compare-NAME.html")
    reporting.add_argument("--pictures-mb", type=float, default=25.0, metavar="MB", help="of pictures within the page")

    showing = commands.add_parser("recipe", help="print a resolved recipe or training config with every key's meaning")
    showing.add_argument("words", nargs="*", metavar="[FILE] [key=value]")

    weighing = commands.add_parser("weights", help="list, fetch or verify the weights of learned operators")
    weighing.add_argument("action", choices=("list", "fetch", "verify"))
    weighing.add_argument("names", nargs="*", metavar="NAME", help="of the list, or OWNER/NAME of a model on the hub")
    weighing.add_argument("--weights", metavar="DIR", help="folder; default: the one of SELECTS_WEIGHTS, or the cache")

    for name, meaning in (
        ("plan", "say what a training run would do: rows, buckets, memory, time"),
        ("train", "train a VAE, a transformer or a LoRA on curated clips; the same command goes on"),
    ):
        training = commands.add_parser(name, help=meaning)
        training.add_argument("config", metavar="CONFIG", help="training config, such as configs/train_tiny.yaml")
        training.add_argument("words", nargs="*", metavar="key=value")
        training.add_argument("--data", metavar="PATH", help="an output of curate, or metadata; data.metadata")
        training.add_argument("--where", metavar="EXPR", help="rows kept: 'aesthetic > 5 and motion < 3'; data.where")
        training.add_argument("--weight", metavar="EXPR", help="factor on a row's loss; data.weight")
        if name == "train":
            training.add_argument("--output", required=True, metavar="RUN")
            _add_runner(training)

    _add_sampling(commands.add_parser("sample", help="sample pictures and videos from prompts, images and videos"))
    _add_evaluate(commands)
    return parser


def _add_sampling(sampling: argparse.ArgumentParser) -> None:
    sampling.add_argument("model", metavar="MODEL", help="a training run, or a pipeline folder in diffusers layout")
    sampling.add_argument("--prompt", action="append", default=[], metavar="TEXT", help="may be given several times")
    sampling.add_argument("--prompts", metavar="FILE", help="one prompt a line")
    sampling.add_argument("--output", required=True, metavar="DIR|FILE.mp4|FILE.png")
    sampling.add_argument("--negative", default="", metavar="TEXT", help="what guidance leads away from")
    seeding = sampling.add_mutually_exclusive_group()
    seeding.add_argument("--seed", type=int, metavar="N", help="of the first prompt, the next has N+1; default 0")
    seeding.add_argument("--seeds", metavar="0..9", help="every prompt with each of these: 0..9 or 1,5,8..10")
    sampling.add_argument("--size", type=_size, metavar="WxH", help="default: the image's aspect, or as trained")
    sampling.add_argument("--frames", type=int, metavar="N", help="4n+1; 1 makes a picture")
    sampling.add_argument("--fps", type=float)
    sampling.add_argument("--image", type=Path, metavar="FILE", help="the first frame")
    sampling.add_argument("--end-image", type=Path, metavar="FILE", help="the last frame")
    sampling.add_argument("--video", type=Path, metavar="FILE", help="video (or image) to begin from")
    sampling.add_argument("--mask", type=Path, metavar="FILE", help="as large as the video; white is generated")
    sampling.add_argument("--strength", type=float, help="0 gives the video back, 1 forgets it; default 0.7, masked 1")
    sampling.add_argument("--segments", type=int, metavar="N", help="continue the video to N times the model's frames")
    sampling.add_argument("--length", type=int, metavar="N", help="frames in all, in place of --segments")
    sampling.add_argument("--overlap", type=int, metavar="N", help="frames that segments share, 4n+1; default 5")
    sampling.add_argument("--steps", type=int, default=50)
    sampling.add_argument("--guidance", type=float, default=6.0, help="1 or less: none")
    sampling.add_argument("--sampler", metavar="NAME", help="default: the first that fits the weights")
    sampling.add_argument(
        "--lora", action="append", default=[], metavar="PATH[:SCALE]", help="may be given several times"
    )
    sampling.add_argument("--fuse-lora", action="store_true", help="put the LoRAs into the weights")
    sampling.add_argument(
        "--memory", default="auto", metavar="MODE",
        help="none, model_cpu_offload, model_cpu_offload_and_qfloat8, sequential_cpu_offload, or auto (default)",
    )  # fmt: skip
    sampling.add_argument("--vae-tiling", action="store_true", help="less memory for large pictures")
    sampling.add_argument("--cache-threshold", type=float, metavar="X", help="first-block caching; 0.05 is careful")
    sampling.add_argument("--threads", type=int, default=1, help="CPU threads; more pay for large models only")


def _add_evaluate(commands: "argparse._SubParsersAction[_OneLineParser]") -> None:
    judging = commands.add_parser("evaluate", help="judge samples by the operators, and beside the training clips")
    judging.add_argument("words", nargs="+", metavar="SAMPLES", help="folder, file, glob or list; and operators.…=…")
    judging.add_argument("--reference", metavar="OUT", help="the output of curate that the model was trained on")
    judging.add_argument("--output", metavar="DIR", help="default: a folder `evaluation` within SAMPLES")
    judging.add_argument("--config", metavar="FILE", help="recipe whose operators judge; default: the reference's own")
    judging.add_argument("--weights", metavar="DIR", help="folder of model weights, looked into first")
    _add_runner(judging)


def _add_runner(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runner", choices=("ray", "inline"), default="ray", help="inline: a plain loop without Ray")
    parser.add_argument(
        "--ray-address", metavar="ADDRESS", help="run on this Ray cluster instead of this machine alone"
    )


def split_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Tell inputs from `key=value`: a word with `=` that names no file is an override."""
    overrides = [w for w in words if re.match(r"[A-Za-z_][\w.]*=", w) and not os.path.exists(w) and not glob.glob(w)]
    return [w for w in words if w not in overrides], overrides


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"'{text}' is not WIDTHxHEIGHT, such as 672x384")
    return int(match[1]), int(match[2])
