#!/usr/bin/env python3
"""From raw footage to training data for video models: the command line, and the only file that knows every name."""

import argparse
import dataclasses
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from captioners import CAPTIONERS
from command_line import LONGEST_ERROR, parse, split_overrides
from curation.errors import RunError, UserError
from curation.evaluate.prompts import NAME as PROMPT
from curation.evaluate.prompts import Prompts
from curation.evaluate.request import plan_evaluation
from curation.evaluate.run import evaluate
from curation.evaluate.tell import render_evaluation, write_evaluation
from curation.export import INTERNAL_NAME, export
from curation.output import check_same_recipe, known_sources, prepare_folder, recipe_file
from curation.outside_text import printable, printable_lines, without_secrets
from curation.pipeline import Outcome, curate, need_table, select
from curation.recipe import Recipe, Tables, load_recipe, render_recipe, what_differs
from curation.report.compare import write_comparison
from curation.report.gather import gather
from curation.report.terminal import score_lines, side_by_side
from curation.report.write import PAGE_NAME, Budget, write_report
from curation.runners import InlineRunner, Runner
from curation.settings_file import read_yaml, render
from curation.sources import find_sources
from curation.summary import funnel, summarise
from curation.types import Captioner, Operator
from models.errors import ModelError
from models.weights import FOLDER_VARIABLE, find_weights
from operators import OPERATORS
from train_bridge.config import TrainConfig, load_config

TABLES = Tables(OPERATORS, {**CAPTIONERS, PROMPT: Prompts})
TRAIN_EXTRA = {"torch", "diffusers", "transformers", "peft", "safetensors", "tensorboard", "huggingface_hub"}
CONFIGS = Path(__file__).resolve().parent / "configs"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; give the exit code: 0 done, 2 a mistake in the request, 1 the run broke or was stopped."""
    parsed = parse(arguments, __doc__)
    try:
        return COMMANDS[parsed.command](parsed)
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
    files, overrides = split_overrides(parsed.words)
    if not files:
        raise UserError("curate needs at least one input: a file, folder, glob or list")
    out = Path(parsed.output)
    recipe, captioner = _recipe_for(out, parsed.config, overrides)
    sources = find_sources(files, known_sources(out, recipe))
    _use_weights(parsed.weights)
    for operator in recipe.operators.values():
        for name in getattr(operator, "needs", ()):
            find_weights(name)  # once, here, before workers on this node ask for it
    runner = _runner(parsed)
    outcome = curate(sources, out, recipe, captioner, runner, parsed.retry_failed, whole_process=True)
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
        from train_bridge.demo import train_demo  # training libraries take seconds to import

        for path in train_demo(out / "curated", CONFIGS, out, parsed.runner, parsed.ray_address):
            print(f"sample    {_shown(path)}   (and .png, .json)")
    return code


def _use_weights(folder: str | None) -> None:
    """Let this process and its workers look for weights in a folder first."""
    if folder is not None:
        os.environ[FOLDER_VARIABLE] = str(Path(folder).resolve())


def run_weights(parsed: argparse.Namespace) -> int:
    """List, fetch or verify published weights."""
    from models.weights_fetch import fetch_weights, list_weights, verify_weights

    if parsed.action == "list":
        print(list_weights(parsed.weights))
    elif parsed.action == "fetch":
        fetch_weights(parsed.names, parsed.weights)
    else:
        table, is_fine = verify_weights(parsed.names, parsed.weights)
        print(table)
        return 0 if is_fine else 1
    return 0


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


def run_report(parsed: argparse.Namespace) -> int:
    """Write the page that shows an output, or two side by side; print its numbers."""
    outs = [Path(name) for name in (parsed.output, parsed.other) if name]
    for out in outs:
        need_table(out)
    first, *others = [(out, load_recipe(recipe_file(out), [], TABLES)[0]) for out in outs]
    budget = Budget(pictures_mb=parsed.pictures_mb)
    if not others:
        print(f"{funnel(summarise(first[0], first[1].writers))}\n\n{score_lines(gather(*first))}\n")
        page = write_report(*first, budget, parsed.page and Path(parsed.page))
    else:
        page = Path(parsed.page) if parsed.page else first[0] / f"compare-{others[0][0].resolve().name}.html"
        print(f"A  {_shown(first[0])}\nB  {_shown(others[0][0])}\n{side_by_side(gather(*first), gather(*others[0]))}\n")
        write_comparison(first, others[0], page, budget)
    print(f"report    {_shown(page)}")
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
    """Sample pictures and videos from prompts, images and videos."""
    from train_bridge.sampling.command import sample
    from train_bridge.sampling.request import Lora, Options, Request, each_of, parse_seeds, read_prompts

    width, height = parsed.size or (None, None)
    template = Request(
        prompt="",
        negative=parsed.negative,
        seed=parsed.seed or 0,
        width_px=width,
        height_px=height,
        num_frames=parsed.frames,
        fps=parsed.fps,
        steps=parsed.steps,
        guidance=parsed.guidance,
        sampler=parsed.sampler,
        image=parsed.image,
        end_image=parsed.end_image,
        video=parsed.video,
        mask=parsed.mask,
        strength=parsed.strength,
        segments=parsed.segments,
        length=parsed.length,
        overlap=parsed.overlap,
    )
    prompts = (*parsed.prompt, *(read_prompts(Path(parsed.prompts)) if parsed.prompts else ()))
    seeds = parse_seeds(parsed.seeds) if parsed.seeds is not None else None
    options = Options(
        loras=tuple(Lora.parse(text) for text in parsed.lora),
        fuse_loras=parsed.fuse_lora,
        memory=parsed.memory,
        vae_tiling=parsed.vae_tiling,
        cache_threshold=parsed.cache_threshold,
    )
    for path in sample(
        Path(parsed.model), each_of(template, prompts, seeds), Path(parsed.output), options, parsed.threads
    ):
        print(_shown(path))
    return 0


def run_evaluate(parsed: argparse.Namespace) -> int:
    """Judge samples by the operators, beside the clips that their model was trained on."""
    files, overrides = split_overrides(parsed.words)
    reference = Path(parsed.reference) if parsed.reference else None
    if reference is not None:
        need_table(reference)
    _use_weights(parsed.weights)
    request = plan_evaluation(
        files,
        overrides,
        Path(parsed.config) if parsed.config else None,
        reference,
        Path(parsed.output) if parsed.output else None,
        CONFIGS / "default.yaml",
        TABLES,
        _lacks,
    )
    found = evaluate(request, _runner(parsed), print)
    print(f"\n{render_evaluation(found)}\n")
    print(f"numbers   {_shown(write_evaluation(request, found))}")
    if found.sheet is not None:
        print(f"nearest   {_shown(found.sheet)}")
    print(f"page      {_shown(found.page)}")
    return _tell_problems(found.problems)


def _lacks(operator: Operator) -> str | None:
    """Say which weights of an operator are not to be had here."""
    try:
        for name in getattr(operator, "needs", ()):
            find_weights(name)
    except ModelError as error:
        return str(error)
    return None


def _train_config(parsed: argparse.Namespace) -> TrainConfig:
    """Give a training config: the file, its overrides, and the options that are short for keys."""
    short = {"data.metadata": parsed.data, "data.where": parsed.where, "data.weight": parsed.weight}
    values = {key: value for key, value in short.items() if value is not None}
    return load_config(Path(parsed.config), parsed.words, values)


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
    print(f"report    {_shown(out / PAGE_NAME)}\nrun       {_shown(out / 'run.json')}   ({outcome.wall_s:.1f} s)")
    if outcome.tally.problems:
        return _tell_problems(outcome.tally.problems)
    if not outcome.is_complete:
        print("stopped before the end; the same command goes on from here", file=sys.stderr)
        return 1
    return 0


def _tell_problems(problems: Sequence[str]) -> int:
    """Print the first of the internal errors of a run; give its exit code."""
    if not problems:
        return 0
    first = printable_lines(without_secrets(problems[0]))
    print(f"error: {len(problems)} internal errors; the first:\n{first}", file=sys.stderr)
    return 1


def _shown(path: Path) -> str:
    return printable(str(path))


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "demo": run_demo,
    "curate": run_curate,
    "select": run_select,
    "export": run_export,
    "report": run_report,
    "recipe": run_recipe,
    "plan": run_plan,
    "train": run_train,
    "sample": run_sample,
    "evaluate": run_evaluate,
    "weights": run_weights,
}


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
