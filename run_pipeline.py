#!/usr/bin/env python3
"""From raw footage to training data for video models: the command line, and the only file that knows every name."""

import argparse
import dataclasses
import glob
import json
import os
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import NoReturn

from captioners import CAPTIONERS
from captioners import PLANNED as PLANNED_CAPTIONERS
from curation.errors import RunError, UserError
from curation.export import FORMATS, INTERNAL_NAME, export
from curation.output import check_same_recipe, known_sources, prepare_folder, recipe_file
from curation.outside_text import printable, printable_lines, without_secrets
from curation.pipeline import Outcome, curate, need_table, select
from curation.recipe import Recipe, Tables, load_recipe, render_recipe, what_differs
from curation.runners import InlineRunner, Runner
from curation.settings_file import read_yaml, render
from curation.sources import find_sources
from curation.summary import funnel
from curation.types import Captioner
from models.errors import ModelError
from operators import OPERATORS, PLANNED
from train_bridge.config import TrainConfig, load_config

TABLES = Tables(OPERATORS, CAPTIONERS, frozenset((*PLANNED, *PLANNED_CAPTIONERS)))
TRAIN_EXTRA = {"torch", "diffusers", "transformers", "peft", "safetensors", "tensorboard", "huggingface_hub"}
CONFIGS = Path(__file__).resolve().parent / "configs"
LONGEST_ERROR = 2000
"""characters of an error on the terminal; names and values from outside may have any length"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; give the exit code: 0 done, 2 a mistake in the request, 1 the run broke or was stopped."""
    parsed = _parse(arguments)
    try:
        code: int = parsed.run(parsed)
        return code
    except (UserError, ModelError, RunError) as error:
        print(f"error: {printable(without_secrets(str(error)), LONGEST_ERROR)}", file=sys.stderr)
        return 1 if isinstance(error, RunError) else 2
    except ModuleNotFoundError as error:
        if error.name not in TRAIN_EXTRA:
            raise
        print(f"error: training and sampling need {error.name}: pip install 'selects[train]'", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        return 1


def run_curate(parsed: argparse.Namespace) -> int:
    """Curate sources into an output."""
    files, overrides = _split_overrides(parsed.words)
    if not files:
        raise UserError("curate needs at least one input: a file, folder, glob or list")
    out = Path(parsed.output)
    recipe, captioner = _recipe_for(out, parsed.config, overrides)
    sources = find_sources(files, known_sources(out, recipe))
    runner = _runner(parsed)
    outcome = curate(sources, out, recipe, captioner, runner, parsed.retry_failed)
    return _tell(out, recipe, outcome)


def run_demo(parsed: argparse.Namespace) -> int:
    """Draw footage with known truth, curate it, train tiny models on it and sample."""
    from curation.demo_footage import draw_demo

    out = Path(parsed.output)
    footage = out / "footage"
    if not (footage / ".complete").exists():
        prepare_folder(out)
        print(f"drawing footage into {_shown(footage)} …")
        footage.mkdir(parents=True, exist_ok=True)
        draw_demo(footage)
        (footage / ".complete").touch()
    recipe, captioner = _recipe_for(out / "curated", str(CONFIGS / "demo.yaml"), [])
    outcome = curate(find_sources([str(footage)]), out / "curated", recipe, captioner, _runner(parsed))
    code = _tell(out / "curated", recipe, outcome)
    if code == 0 and not parsed.no_train:
        _train_demo(out, parsed)
    return code


def _train_demo(out: Path, parsed: argparse.Namespace) -> None:
    """Train tiny models on what the demo curated, and sample from them."""
    from train_bridge.run import train
    from train_bridge.sample import SampleRequest, sample

    data = {"data.metadata": str(out / "curated")}
    print("\ntraining a tiny video VAE (3 minutes or so; Ctrl-C is safe, the same command goes on) …", flush=True)
    config = load_config(CONFIGS / "train_vae_tiny.yaml", ["train.steps=900"], data)
    train(config, out / "vae", parsed.runner, parsed.ray_address)
    print("\ntraining a tiny transformer on its latents (a minute or so) …", flush=True)
    config = load_config(CONFIGS / "train_tiny.yaml", [f"model.vae={out / 'vae'}", "train.steps=900"], data)
    model = train(config, out / "video", parsed.runner, parsed.ray_address)
    captions = [row["text"] for row in json.loads((out / "curated" / INTERNAL_NAME).read_text(encoding="utf-8"))]
    prompts = tuple(sorted(set(captions))[:2])
    print("\nsampling …", flush=True)
    for path in sample(SampleRequest(model, prompts, out / "samples", steps=25, guidance=2.0)):
        print(f"sample    {_shown(path)}   (and .png, .json)")


def run_select(parsed: argparse.Namespace) -> int:
    """Judge an output by other rules."""
    out = Path(parsed.output)
    need_table(out)
    kept, _ = load_recipe(recipe_file(out), [], TABLES)
    overrides = list(parsed.words)
    for override in overrides:
        if not override.startswith("rules."):
            raise UserError(f"'{override}': select changes rules only, such as rules.motion.min=0.5")
    if parsed.config:
        asked, _ = load_recipe(Path(parsed.config), overrides, TABLES)
        recipe = dataclasses.replace(kept, rules=asked.rules)
        written = {c for op in kept.operators.values() for c in op.writes}
        for column in recipe.rules:
            if kept.writer_of(column) in OPERATORS and column not in written:
                raise UserError(
                    f"rules.{column}: {out} has no such column; curate with operators.{kept.writer_of(column)}"
                )
    else:
        recipe, _ = load_recipe(recipe_file(out), overrides, TABLES)
    changed = what_differs(recipe, kept)
    summary = select(out, recipe)
    print(funnel(summary))
    print(f"rules changed: {', '.join(changed) or 'none'}")
    waiting = summary.waiting(with_files=recipe.cut.mode != "none")
    if waiting:
        print(f"{waiting} accepted clips wait for caption or file; go on with:")
        print(f"  run_pipeline.py curate INPUT --output {_shown(out)}")
    return 0


def run_export(parsed: argparse.Namespace) -> int:
    """Write a trainer's metadata format."""
    need_table(Path(parsed.output))
    result = export(Path(parsed.output), parsed.format, parsed.absolute)
    for path in result.paths:
        print(_shown(path))
    print(f"{result.rows} rows", end="")
    left_out = {
        "without file": result.without_file,
        "without caption": result.without_caption,
        "images": result.not_videos,
    }
    print("".join(f", left out {count} {what}" for what, count in left_out.items() if count))
    return 0


def run_recipe(parsed: argparse.Namespace) -> int:
    """Print a resolved recipe or training config with every key's meaning."""
    words = list(parsed.words)
    file = Path(words.pop(0)) if words and "=" not in words[0] else CONFIGS / "default.yaml"
    if "method" in read_yaml(file, "recipe"):
        print(render(load_config(file, words)), end="")
        return 0
    recipe, _ = load_recipe(file, words, TABLES)
    print(render_recipe(recipe), end="")
    return 0


def run_plan(parsed: argparse.Namespace) -> int:
    """Say what a training run would do, without loading a model."""
    from train_bridge.plan import render_plan
    from train_bridge.run import plan_run

    config = _train_config(parsed)
    print(printable_lines(render_plan(config, plan_run(config))))
    return 0


def run_train(parsed: argparse.Namespace) -> int:
    """Train a VAE, a transformer or an adapter, or go on with a run."""
    from train_bridge.run import train

    model = train(_train_config(parsed), Path(parsed.output), parsed.runner, parsed.ray_address)
    print(f"model     {_shown(model)}\nlog       {_shown(Path(parsed.output) / 'log.jsonl')}")
    return 0


def run_sample(parsed: argparse.Namespace) -> int:
    """Sample videos from prompts."""
    from train_bridge.sample import Lora, SampleRequest, read_prompts, sample

    width, height = parsed.size or (None, None)
    request = SampleRequest(
        model=Path(parsed.model),
        prompts=(*parsed.prompt, *(read_prompts(Path(parsed.prompts)) if parsed.prompts else ())),
        output=Path(parsed.output),
        negative=parsed.negative,
        seed=parsed.seed,
        width_px=width,
        height_px=height,
        num_frames=parsed.frames,
        fps=parsed.fps,
        steps=parsed.steps,
        guidance=parsed.guidance,
        sampler=parsed.sampler,
        loras=tuple(Lora.parse(text) for text in parsed.lora),
        threads=parsed.threads,
    )
    for path in sample(request):
        print(_shown(path))
    return 0


def _train_config(parsed: argparse.Namespace) -> TrainConfig:
    """Give a training config: the file, its overrides, and the options that are short for keys."""
    short = {"data.metadata": parsed.data, "data.where": parsed.where, "data.weight": parsed.weight}
    values = {key: value for key, value in short.items() if value is not None}
    return load_config(Path(parsed.config), parsed.words, values)


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"'{text}' is not WIDTHxHEIGHT, such as 672x384")
    return int(match[1]), int(match[2])


def _recipe_for(out: Path, config: str | None, overrides: list[str]) -> tuple[Recipe, Captioner]:
    """Give the recipe of a run: the output's own, which an explicit one must agree with."""
    own = recipe_file(out)
    if not own.is_file():
        return load_recipe(Path(config) if config else CONFIGS / "default.yaml", overrides, TABLES)
    kept, captioner = load_recipe(own, [], TABLES)
    asked, _ = load_recipe(Path(config) if config else own, overrides, TABLES)
    check_same_recipe(out, asked, kept)
    return asked, captioner


def _runner(parsed: argparse.Namespace) -> Runner:
    if parsed.runner == "inline":
        if parsed.ray_address:
            raise UserError("--ray-address has no meaning with --runner inline")
        return InlineRunner()
    from curation.ray_runner import RayRunner  # takes seconds to import

    return RayRunner(parsed.ray_address)


def _tell(out: Path, recipe: Recipe, outcome: Outcome) -> int:
    print(funnel(outcome.summary))
    if not outcome.sources_done and not outcome.clips_finished:
        print("nothing was missing")
    print(f"\ntable     {_shown(out / 'clips')}")
    if recipe.cut.mode != "none":
        print(f"clips     {_shown(out / 'train')}")
        print(f"metadata  {_shown(out / INTERNAL_NAME)}")
    print(f"previews  {_shown(out / 'previews')}\nrun       {_shown(out / 'run.json')}   ({outcome.wall_s:.1f} s)")
    if outcome.tally.problems:
        first = printable_lines(without_secrets(outcome.tally.problems[0]))
        print(f"error: {len(outcome.tally.problems)} internal errors; the first:\n{first}", file=sys.stderr)
        return 1
    if not outcome.is_complete:
        print("stopped before the end; the same command goes on from here", file=sys.stderr)
        return 1
    return 0


def _shown(path: Path) -> str:
    return printable(str(path))


def _split_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Tell inputs from `key=value`: a word with `=` that names no file is an override."""
    overrides = [w for w in words if re.match(r"[A-Za-z_][\w.]*=", w) and not os.path.exists(w) and not glob.glob(w)]
    return [w for w in words if w not in overrides], overrides


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; inputs and `key=value` may stand before and after options."""
    parser = _parser()
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


def _parser() -> argparse.ArgumentParser:
    parser = _OneLineParser(prog="run_pipeline.py", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="draw footage with known truth, curate it, train on it, sample")
    demo.add_argument("--output", default="demo_output", help="folder for footage and results")
    demo.add_argument("--no-train", action="store_true", help="stop after curation")
    _add_runner(demo)
    demo.set_defaults(run=run_demo)

    curating = commands.add_parser("curate", help="turn videos and images into training data")
    curating.add_argument("words", nargs="+", metavar="INPUT", help="file, folder, glob or list; and key=value")
    curating.add_argument("--output", required=True, metavar="DIR")
    curating.add_argument("--config", metavar="FILE", help="recipe; default configs/default.yaml, or the output's own")
    curating.add_argument("--retry-failed", action="store_true", help="try failed sources again, too")
    _add_runner(curating)
    curating.set_defaults(run=run_curate)

    selecting = commands.add_parser("select", help="judge an output by other rules, without decoding")
    selecting.add_argument("output", metavar="DIR")
    selecting.add_argument("words", nargs="*", metavar="rules.COLUMN.min=VALUE")
    selecting.add_argument("--config", metavar="FILE", help="recipe whose rules are taken")
    selecting.set_defaults(run=run_select)

    exporting = commands.add_parser("export", help="write metadata for trainers")
    exporting.add_argument("output", metavar="DIR")
    exporting.add_argument("--format", choices=FORMATS, default="internal")
    exporting.add_argument("--absolute", action="store_true", help="absolute instead of relative paths")
    exporting.set_defaults(run=run_export)

    showing = commands.add_parser("recipe", help="print a resolved recipe or training config with every key's meaning")
    showing.add_argument("words", nargs="*", metavar="[FILE] [key=value]")
    showing.set_defaults(run=run_recipe)

    for name, run, meaning in (
        ("plan", run_plan, "say what a training run would do: rows, buckets, memory, time"),
        ("train", run_train, "train a VAE, a transformer or a LoRA on curated clips; the same command goes on"),
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
        training.set_defaults(run=run)

    sampling = commands.add_parser("sample", help="sample videos from prompts")
    sampling.add_argument("model", metavar="MODEL", help="a training run, or a pipeline folder in diffusers layout")
    sampling.add_argument("--prompt", action="append", default=[], metavar="TEXT", help="may be given several times")
    sampling.add_argument("--prompts", metavar="FILE", help="one prompt a line")
    sampling.add_argument("--output", required=True, metavar="DIR|FILE.mp4")
    sampling.add_argument("--negative", default="", metavar="TEXT", help="what guidance leads away from")
    sampling.add_argument("--seed", type=int, default=0)
    sampling.add_argument("--size", type=_size, metavar="WxH", help="default: what the model was trained for")
    sampling.add_argument("--frames", type=int, metavar="N", help="4n+1")
    sampling.add_argument("--fps", type=float)
    sampling.add_argument("--steps", type=int, default=50)
    sampling.add_argument("--guidance", type=float, default=6.0, help="1 or less: none")
    sampling.add_argument("--sampler", metavar="NAME", help="default: the first that fits the weights")
    sampling.add_argument("--lora", action="append", default=[], metavar="PATH[:SCALE]")
    sampling.add_argument("--threads", type=int, default=1, help="CPU threads; more pay for large models only")
    sampling.set_defaults(run=run_sample)
    return parser


def _add_runner(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runner", choices=("ray", "inline"), default="ray", help="inline: a plain loop without Ray")
    parser.add_argument(
        "--ray-address", metavar="ADDRESS", help="run on this Ray cluster instead of this machine alone"
    )


def tell_bug(kind: type[BaseException], bug: BaseException, trace: TracebackType | None) -> None:
    """Print the traceback of a bug of ours, without secrets and without what a terminal would obey."""
    lines = "".join(traceback.format_exception(kind, bug, trace)).rstrip("\n")
    print(printable_lines(without_secrets(lines)), file=sys.stderr)


def run_and_exit() -> None:
    """Run as an installed command."""
    sys.excepthook = tell_bug
    sys.exit(main())


if __name__ == "__main__":
    run_and_exit()
