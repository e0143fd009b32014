"""The tab Curate: a folder of videos through `curate`, with its funnel and its lines as they come, and its report."""

from collections.abc import Iterable, Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr

from core.errors import UserError
from serving.studio.desk import Commands, Opened
from serving.studio.funnel import final_funnel, funnel_html, live_funnel
from serving.studio.lines import follow_run, started
from serving.studio.places import folders_within, keys_set, meaning_in, named, overrides, readable
from serving.studio.texts import Words, language_of, say

KEYS = (
    "shots.min_s", "shots.max_s", "rules.motion.min", "rules.motion.max", "rules.sharpness.min",
    "rules.brightness.min", "rules.brightness.max", "rules.text_area.max", "rules.letterbox.max",
    "rules.short_side_px.min",
)  # fmt: skip
"""of a recipe, which have a control; all others are written as `key=value`"""
REPORT = "report.html"


def curate_words(folder: Path, out: Path, recipe: Path, keys: Mapping[str, str], more: str) -> list[str]:
    """Return the command's words.

    Raises:
        UserError: further keys that are none.
    """
    words = ["curate", str(folder), "--output", str(out), "--config", str(recipe), "--metrics-port", "0"]
    return [*words, *keys_set(keys), *overrides(more)]


def build_curate(commands: Commands, i18n: Words) -> list[Opened]:
    """Lay out the tab; return what is asked when it is opened."""
    outputs = commands.folder / "curated"
    within = ", ".join(map(str, commands.roots))
    with gr.Row(equal_height=False):
        with gr.Column(min_width=320):
            folder = gr.Dropdown(
                folders_within(commands.roots), value=None, allow_custom_value=True, label=i18n("folder"), info=within,
                elem_id="curate-folder",
            )  # fmt: skip
            recipe = gr.Dropdown(list(commands.recipes), label=i18n("recipe"), info=i18n("blank"), elem_id="recipe")
            keys: dict[str, Any] = {}
            for pair in zip(KEYS[::2], KEYS[1::2], strict=True):
                with gr.Row():
                    for key in pair:
                        keys[key] = gr.Textbox(
                            "", max_lines=1, label=key, info=meaning_in(commands.schema, key), min_width=140,
                            elem_id=f"key-{key.replace('.', '-')}",
                        )  # fmt: skip
            more = gr.Textbox("", lines=2, label=i18n("more_keys"), elem_id="more-keys")
            name = gr.Textbox(
                "", label=i18n("output_name"), info=i18n("output_help"), elem_id="curate-name", max_length=80
            )
        with gr.Column(min_width=320):
            with gr.Row():
                go = gr.Button(i18n("start_curate"), variant="primary", elem_id="curate-go", min_width=120)
                stop = gr.Button(i18n("stop"), variant="stop", elem_id="curate-stop", min_width=90)
            told = gr.HTML("", elem_id="curate-told", padding=False)
            funnel = gr.HTML("", elem_id="curate-funnel", padding=False)
            lines = gr.Textbox(
                "", lines=12, max_lines=12, label=i18n("output"), elem_id="curate-lines", autoscroll=True
            )
    report = gr.HTML("", elem_id="curate-report", padding=False)

    def begin(request: gr.Request, *words: Any) -> Iterator[tuple[str, str, str, str]]:
        language = language_of(request.headers.get("accept-language"))
        where, which, called, further, *numbers = words
        try:
            out = named(called, outputs)
            read = curate_words(
                readable(where, commands.roots), out, commands.recipes[which],
                dict(zip(KEYS, numbers, strict=True)), further,
            )  # fmt: skip
        except UserError as error:
            yield f'<p role="alert">{escape(str(error))}</p>', "", "", ""
            return
        outputs.mkdir(parents=True, exist_ok=True)
        runs = commands.runs
        told = started(runs, lambda: runs.start(f"curate {called}", read, commands.folder), language)
        yield from beside(told, out, language)

    events: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    go.click(
        begin,
        [folder, recipe, name, more, *keys.values()],
        [told, lines, funnel, report],
        concurrency_limit=4,
        **events,
    )
    stop.click(lambda: _interrupt(commands), None, None, queue=False, api_visibility="private")

    def resume(request: gr.Request) -> Iterator[tuple[str, str, str, str]]:
        run = commands.runs.current
        if run is not None and run.name.startswith("curate "):
            language = language_of(request.headers.get("accept-language"))
            yield from beside(follow_run(run, language), outputs / run.name.removeprefix("curate "), language)

    return [Opened(resume, [told, lines, funnel, report])]


def beside(told: Iterable[tuple[str, str]], out: Path, language: str) -> Iterator[tuple[str, str, str, str]]:
    """Yield what is said of a run and its lines with its funnel as it grows, and at the end with its report."""
    words, text, last = "", "", ""
    for words, text in told:
        last = funnel_html(live_funnel(text), language) or last
        yield words, text, last, ""
    yield words, text, funnel_html(final_funnel(out), language) or last, report_html(out, language)


def report_html(out: Path, language: str) -> str:
    """Return an output's report within the page, and a link to it; nothing where there is none yet."""
    if not (out / REPORT).is_file():
        return ""
    words, address = escape(say("report", language)), f"reports/{quote(out.name)}/{REPORT}"
    link = f'<p><a href="{address}" target="_blank" rel="noopener">{words}</a></p>'
    # Another address each time, so that a report that was written again is loaded again.
    changed = (out / REPORT).stat().st_mtime_ns
    return f'{link}<iframe src="{address}?{changed}" title="{words}"></iframe>'


def _interrupt(commands: Commands) -> None:
    if commands.runs.current is not None:
        commands.runs.current.stop()
