"""The tab Curate: a folder of videos through `curate`, with its lines as they come and a link to its report."""

from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr

from core.errors import UserError
from serving.studio.desk import Commands, Opened
from serving.studio.lines import follow_run, started
from serving.studio.places import folders_within, named, overrides, readable
from serving.studio.texts import Words, language_of, say

KEYS = (
    "shots.min_s", "shots.max_s", "rules.motion.min", "rules.motion.max", "rules.sharpness.min",
    "rules.brightness.min", "rules.brightness.max", "rules.text_area.max", "rules.letterbox.max",
    "rules.short_side_px.min",
)  # fmt: skip
"""of a recipe, which have a control; all others are written as `key=value`"""
REPORT = "report.html"


def meaning_in(schema: Mapping[str, Any], key: str) -> str:
    """Return what the JSON Schema says of a key: for a bound, of its column as well."""
    part, found = schema, []
    for name in key.split("."):
        choices = [part, *(part.get("anyOf") or ())]
        part = next((one["properties"][name] for one in choices if name in one.get("properties", {})), {})
        found.append(str(part.get("description", "")))
    return "; ".join(text for text in found[1:] if text)


def curate_words(folder: Path, out: Path, recipe: Path, keys: Mapping[str, str], more: str) -> list[str]:
    """Return the command's words.

    Raises:
        UserError: further keys that are none.
    """
    set_keys = [f"{key}={value.strip()}" for key, value in keys.items() if value and value.strip()]
    return ["curate", str(folder), "--output", str(out), "--config", str(recipe), *set_keys, *overrides(more)]


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
            report = gr.HTML("", elem_id="curate-report", padding=False)
            lines = gr.Textbox(
                "", lines=18, max_lines=18, label=i18n("output"), elem_id="curate-lines", autoscroll=True
            )

    def begin(request: gr.Request, *words: Any) -> Iterator[tuple[str, str, str]]:
        language = language_of(request.headers.get("accept-language"))
        where, which, called, further, *numbers = words
        try:
            out = named(called, outputs)
            read = curate_words(
                readable(where, commands.roots), out, commands.recipes[which],
                dict(zip(KEYS, numbers, strict=True)), further,
            )  # fmt: skip
        except UserError as error:
            yield f'<p role="alert">{escape(str(error))}</p>', "", ""
            return
        outputs.mkdir(parents=True, exist_ok=True)
        runs = commands.runs
        for words_, text in started(runs, lambda: runs.start(f"curate {called}", read, commands.folder), language):
            yield words_, text, link_of(out, language)

    events: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    go.click(begin, [folder, recipe, name, more, *keys.values()], [told, lines, report], concurrency_limit=4, **events)
    stop.click(lambda: _interrupt(commands), None, None, queue=False, api_visibility="private")

    def resume(request: gr.Request) -> Iterator[tuple[str, str]]:
        run = commands.runs.current
        if run is not None and run.name.startswith("curate "):
            yield from follow_run(run, language_of(request.headers.get("accept-language")))

    return [Opened(resume, [told, lines])]


def link_of(out: Path, language: str) -> str:
    """Return the link to an output's report, nothing where there is none yet."""
    if not (out / REPORT).is_file():
        return ""
    words = escape(say("report", language))
    return f'<p><a href="reports/{quote(out.name)}/{REPORT}" target="_blank" rel="noopener">{words}</a></p>'


def _interrupt(commands: Commands) -> None:
    if commands.runs.current is not None:
        commands.runs.current.stop()
