"""The tab History: what was made, its settings back into the form, and two side by side."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from sampling.request import AS_IS
from sampling.settings_file import settings_within
from serving.ledger import Job
from serving.studio.controls import UPLOAD_PX, Form
from serving.studio.desk import Desk, Opened
from serving.studio.form import PLAIN, Values, text_of, values_of_job, values_of_settings
from serving.studio.marks import MARKED, no_marks
from serving.studio.showing import differences, shareable, table_html
from serving.studio.texts import Words, language_of, say
from serving.wire import MEDIA

MOST_SHOWN = 60
CAPTION = 60
EMPTY = {"control_kind": AS_IS, "sampler": None}
"""of controls that choose"""


@dataclass(frozen=True)
class _Layout:
    """What lies on the tab.

    Attributes:
        names: ids of the jobs shown, in their order.
        chosen: id of the one that was clicked; likewise those to compare.
        sides: a video and a picture for the left, then for the right.
        differing: the settings in which the two differ.
    """

    names: Any
    chosen: Any
    left_job: Any
    right_job: Any
    look: Any
    gallery: Any
    to_form: Any
    to_left: Any
    to_right: Any
    remove: Any
    told: Any
    facts: Any
    dropped: Any
    sides: tuple[Any, ...]
    differing: Any


def build_history(desk: Desk, i18n: Words, form: Form, tabs: Any) -> list[Opened]:
    """Lay out the tab; return what is asked when it is opened."""
    on = _lay_out(i18n)
    _connect_form(desk, form, tabs, on)
    _connect_sides(desk, on)
    return [_connect_gallery(desk, on)]


def _lay_out(i18n: Words) -> _Layout:
    names, chosen, left_job, right_job = gr.State([]), gr.State(None), gr.State(None), gr.State(None)
    look = gr.Button(i18n("look_again"), size="sm", elem_id="history-look")
    gallery = gr.Gallery(
        [], label=i18n("gallery"), columns=4, height=320, allow_preview=False, object_fit="contain", elem_id="gallery",
        interactive=False,
    )  # fmt: skip
    with gr.Row():
        to_form = gr.Button(i18n("to_form"), variant="primary", elem_id="to-form", min_width=140)
        to_left = gr.Button(i18n("to_left"), elem_id="to-left", min_width=110)
        to_right = gr.Button(i18n("to_right"), elem_id="to-right", min_width=110)
        remove = gr.Button(i18n("remove"), variant="stop", elem_id="remove", min_width=90)
    told = gr.HTML("", elem_id="history-told", padding=False)
    facts = gr.JSON(None, label=i18n("settings"), elem_id="history-settings", max_height=260)
    dropped = gr.File(label=i18n("drop"), file_types=[".mp4", ".png"], height=UPLOAD_PX, elem_id="dropped")
    sides: list[Any] = []
    with gr.Row():
        for side in ("left", "right"):
            with gr.Column(min_width=150):
                sides += (
                    gr.Video(None, label=i18n(side), visible=False, loop=True, elem_id=f"{side}-video"),
                    gr.Image(None, label=i18n(side), visible=False, interactive=False, elem_id=f"{side}-picture"),
                )
    differing = gr.HTML("", elem_id="differing")
    return _Layout(
        names, chosen, left_job, right_job, look, gallery, to_form, to_left, to_right, remove, told, facts, dropped,
        tuple(sides), differing,
    )  # fmt: skip


def _connect_gallery(desk: Desk, on: _Layout) -> Opened:
    """Say what looking, choosing and removing do; return what fills the gallery."""
    jobs = desk.intake.jobs

    def show() -> tuple[Any, list[str], None]:
        made = [job for job in jobs.newest_first() if job.status == "completed"][:MOST_SHOWN]
        drawn = [(job, thumbnail) for job in made if (thumbnail := desk.thumbnail(job))]
        items = [(thumbnail, _caption(job)) for job, thumbnail in drawn]
        return gr.update(value=items, selected_index=None), [job.job_id for job, _ in drawn], None

    def choose(event: gr.SelectData, known: list[str]) -> Any:
        job = jobs.get(known[event.index]) if event.index < len(known) else None
        return (None, None) if job is None else (job.job_id, shareable(job.settings))

    def forget(job_id: str | None) -> tuple[Any, list[str], None]:
        if job_id:
            desk.forget(job_id)
        return show()

    shown = [on.gallery, on.names, on.chosen]
    on.look.click(show, None, shown, api_visibility="private", queue=False)
    on.gallery.select(choose, on.names, [on.chosen, on.facts], api_visibility="private", show_progress="hidden")
    on.remove.click(forget, on.chosen, shown, api_visibility="private")
    return Opened(show, shown)


def _connect_form(desk: Desk, form: Form, tabs: Any, on: _Layout) -> None:
    """Say how the settings of what was made, or of a file, come back into the form."""
    jobs, ledger = desk.intake.jobs, desk.intake.ledger
    controls = [*(form.plain[n] for n in PLAIN), *(form.media[n] for n in MEDIA), *form.loras.values()]
    filled = [
        *controls, form.painted, form.drawn, form.drawn_from, form.paths, *(form.marks[n] for n in MARKED), tabs,
        on.told,
    ]  # fmt: skip

    def fill(values: Values, words: str) -> dict[Any, Any]:
        shown = {name: _shown(desk, values[name]) for name in MEDIA}
        return (
            {form.plain[name]: text_of(values[name]) or EMPTY.get(name, "") for name in PLAIN}
            | {form.media[name]: path for name, path in shown.items()}
            | {slider: values["loras"].get(name, 0) for name, slider in form.loras.items()}
            | {form.painted: None, form.drawn: None, form.drawn_from: None, form.paths: []}
            | {form.marks[name]: text for name, text in no_marks().items()}
            | {tabs: gr.Tabs(selected="generate"), on.told: words}
        )

    def restore(job_id: str | None) -> dict[Any, Any]:
        job = jobs.get(job_id) if job_id else None
        return {on.told: ""} if job is None else fill(values_of_job(job, ledger.place(job.job_id)), "")

    def read(path: str | None, request: gr.Request) -> dict[Any, Any]:
        language = language_of(request.headers.get("accept-language"))
        settings = settings_within(Path(path)) if path else {}
        if "prompt" not in settings:
            return {on.told: f'<p role="alert">{say("no_settings", language)}</p>' if path else ""}
        made = _made_by(desk, settings)
        if made is not None:
            return fill(values_of_job(made, ledger.place(made.job_id)), "")
        values, left_out = values_of_settings(settings, desk.intake.offered, ledger.folder)
        words = say("not_offered", language, ", ".join(left_out)) if left_out else ""
        return fill(values, f'<p role="alert">{words}</p>' if words else "")

    on.to_form.click(restore, on.chosen, filled, api_visibility="private", show_progress="hidden")
    on.dropped.upload(read, on.dropped, filled, api_visibility="private", show_progress="hidden")


def _connect_sides(desk: Desk, on: _Layout) -> None:
    """Say how two results come to stand side by side."""
    jobs = desk.intake.jobs

    def compare(left: str | None, right: str | None, request: gr.Request) -> Any:
        pair = [jobs.get(name) if name else None for name in (left, right)]
        updates: list[Any] = []
        for job in pair:
            path = desk.result(job) if job else None
            is_video = path is not None and path.endswith(".mp4")
            updates.append(gr.update(value=path if is_video else None, visible=is_video))
            updates.append(gr.update(value=None if is_video else path, visible=path is not None and not is_video))
        language = language_of(request.headers.get("accept-language"))
        table = ""
        if pair[0] and pair[1]:
            rows = differences(pair[0].settings, pair[1].settings)
            header = (say("name", language), say("left", language), say("right", language))
            table = table_html(header, list(rows)) if rows else f"<p>{say('nothing_differs', language)}</p>"
        return *updates, table

    for button, state in ((on.to_left, on.left_job), (on.to_right, on.right_job)):
        button.click(lambda name: name, on.chosen, state, api_visibility="private", queue=False).then(
            compare, [on.left_job, on.right_job], [*on.sides, on.differing], api_visibility="private"
        )


def _caption(job: Job) -> str:
    return f"{job.settings.get('seed', '')} · {str(job.asked.get('prompt', ''))[:CAPTION]}"


def _made_by(desk: Desk, settings: dict[str, Any]) -> Job | None:
    """Return the job that a file came from, which says exactly what was asked for; None where it is gone."""
    wanted = settings.get("request_id")
    if wanted is None:
        return None
    made = desk.intake.jobs.newest_first()
    return next((job for job in made if job.settings.get("request_id") == wanted), None)


def _shown(desk: Desk, path: str | None) -> str | None:
    return desk.show(Path(path)) if path and Path(path).is_file() else None
