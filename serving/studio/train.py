"""The tab Train: a config and an output of curate, the plan before, then training with its loss as it falls."""

import json
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import pandas as pd

from core.errors import UserError
from core.files import read_bounded
from serving.studio.desk import Commands, Desk, Opened
from serving.studio.lines import follow_run, started
from serving.studio.places import keys_set, meaning_in, named, overrides, readable
from serving.studio.runs import Run
from serving.studio.texts import Words, language_of

KEYS = (
    "train.steps", "train.learning_rate", "lora.rank", "buckets.tokens_per_micro_batch", "watch.sample_every",
    "watch.checkpoint_every", "model.base", "model.vae",
)  # fmt: skip
"""of a config, which have a control; all others are written as `key=value`"""
LOSSES = {
    "train": re.compile(r"(?!gradient_norm|learning_rate|epoch|step|what|skipped_steps)(?!.*_(?:s|percent|gb)$).+"),
    "validation": re.compile(r"noise_[\d.]+|l1|.*_loss"),
}
"""names of losses among a line's numbers, by what it tells of: in training each network has one under its name"""
NO_LOSS = re.compile(r"(?!)")
MOST_LOG_BYTES = 64 << 20
MOST_POINTS = 2000


def losses_of(log: Path) -> pd.DataFrame:
    """Return the losses of a run's log: columns step, loss, what; lines that cannot be read are passed over."""
    rows: list[dict[str, Any]] = []
    try:
        lines = read_bounded(log, MOST_LOG_BYTES).decode(errors="replace").splitlines()
    except (OSError, ValueError):
        lines = []
    for line in lines:
        try:
            values = json.loads(line)
            losses = LOSSES.get(values["what"], NO_LOSS)
            found = {key: float(value) for key, value in values.items() if losses.fullmatch(key)}
            rows += [
                {"step": int(values["step"]), "loss": v, "what": f"{values['what']} {k}"} for k, v in found.items()
            ]
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            continue
    keep = rows[:: max(1, len(rows) // MOST_POINTS)]
    # Types even of no rows: the page takes the axes of its plot from them.
    return pd.DataFrame(keep, columns=["step", "loss", "what"]).astype({"step": int, "loss": float, "what": str})


def newest_samples(run: Path) -> Path | None:
    """Return the contact sheet that a run wrote last; None where there is none."""
    return max((run / "samples").glob("step-*.png"), default=None)


def build_train(desk: Desk, commands: Commands, i18n: Words) -> list[Opened]:
    """Lay out the tab; return what is asked when it is opened."""
    outputs, runs_folder = commands.folder / "curated", commands.folder / "runs"
    with gr.Row(equal_height=False):
        with gr.Column(min_width=320):
            config = gr.Dropdown(list(commands.configs), label=i18n("config"), elem_id="train-config")
            data = gr.Dropdown([], value=None, allow_custom_value=True, label=i18n("data"), elem_id="train-data")
            where = gr.Textbox("", label=i18n("where"), elem_id="train-where")
            keys: dict[str, Any] = {}
            for pair in zip(KEYS[::2], KEYS[1::2], strict=True):
                with gr.Row():
                    for key in pair:
                        keys[key] = gr.Textbox(
                            "", max_lines=1, label=key, info=meaning_in(commands.training, key), min_width=140,
                            elem_id=f"train-{key.replace('.', '-')}",
                        )  # fmt: skip
            more = gr.Textbox("", lines=3, label=i18n("more_keys"), elem_id="train-keys")
            name = gr.Textbox("", label=i18n("run_name"), info=i18n("output_help"), elem_id="train-name", max_length=80)
        with gr.Column(min_width=320):
            with gr.Row():
                plan = gr.Button(i18n("show_plan"), elem_id="train-plan", min_width=110)
                go = gr.Button(i18n("start_train"), variant="primary", elem_id="train-go", min_width=110)
                stop = gr.Button(i18n("stop"), variant="stop", elem_id="train-stop", min_width=90)
            told = gr.HTML("", elem_id="train-told", padding=False)
            lines = gr.Textbox("", lines=14, max_lines=14, label=i18n("output"), elem_id="train-lines", autoscroll=True)
            plot = gr.LinePlot(
                losses_of(Path()),
                x="step",
                y="loss",
                color="what",
                title=i18n("loss"),
                elem_id="train-loss",
                height=240,
            )
            samples = gr.Image(None, label=i18n("samples"), visible=False, interactive=False, elem_id="train-samples")

    def words_of(which: str, source: str, rows: str, further: str, *numbers: str) -> list[str]:
        words = [str(commands.configs[which]), "--data", str(readable(source, (*commands.roots, outputs)))]
        where = [f"--where={rows}"] if rows and rows.strip() else []
        return [*words, *where, *keys_set(dict(zip(KEYS, numbers, strict=True))), *overrides(further)]

    def show_plan(which: str, request: gr.Request, *further: str) -> Iterator[tuple[str, str]]:
        language = language_of(request.headers.get("accept-language"))
        try:
            words = ["plan", *words_of(which, *further)]
        except UserError as error:
            yield f'<p role="alert">{escape(str(error))}</p>', ""
            return
        runs = commands.runs
        yield from started(runs, lambda: runs.start(f"plan {which}", words, commands.folder), language)

    events: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": 4}
    asked = [config, data, where, more, *keys.values()]
    plan.click(show_plan, asked, [told, lines], **events)

    def begin(called: str, which: str, request: gr.Request, *further: str) -> Iterator[tuple[Any, ...]]:
        language = language_of(request.headers.get("accept-language"))
        try:
            run_folder = named(called, runs_folder)
            words = ["train", *words_of(which, *further), "--output", str(run_folder)]
        except UserError as error:
            yield f'<p role="alert">{escape(str(error))}</p>', "", gr.skip(), gr.skip()
            return
        runs_folder.mkdir(parents=True, exist_ok=True)
        runs = commands.runs
        for told_, text in started(runs, lambda: runs.start(f"train {called}", words, commands.folder), language):
            yield told_, text, *beside(run_folder)

    def beside(run_folder: Path) -> tuple[Any, Any]:
        sheet = newest_samples(run_folder)
        shown = gr.skip() if sheet is None else gr.update(value=desk.show(sheet), visible=True)
        return losses_of(run_folder / "log.jsonl"), shown

    go.click(begin, [name, *asked], [told, lines, plot, samples], **events)

    def interrupt() -> None:
        if commands.runs.current is not None:
            commands.runs.current.stop()

    stop.click(interrupt, None, None, queue=False, api_visibility="private")

    def resume(request: gr.Request) -> Iterator[tuple[Any, ...]]:
        run: Run | None = commands.runs.current
        if run is not None and run.name.startswith("train "):
            folder = runs_folder / run.name.removeprefix("train ")
            for told_, text in follow_run(run, language_of(request.headers.get("accept-language"))):
                yield told_, text, *beside(folder)

    def choices() -> Any:
        found = sorted(str(one) for one in outputs.iterdir() if one.is_dir()) if outputs.is_dir() else []
        return gr.update(choices=found)

    return [Opened(choices, [data]), Opened(resume, [told, lines, plot, samples])]
