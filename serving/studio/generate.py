"""The tab Generate: the form, progress with previews, and what came out."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from core.errors import UserError
from models.errors import ModelError
from sampling.model_facts import ModelFacts
from sampling.request import AS_IS
from serving.faults import ApiError, refused
from serving.ledger import Job
from serving.studio.controls import Form, build_form, samplers_of
from serving.studio.desk import Desk
from serving.studio.form import PLAIN, Values, files_of_form, request_of_form
from serving.studio.marks import MARKED, marks_of, no_marks
from serving.studio.painting import Paths, mask_of, picture_of, trajectory_of, with_paths, with_point
from serving.studio.showing import preview_html, progress_html, shareable
from serving.studio.texts import Words, language_of, say
from serving.wire import MEDIA, asked_of, request_of

LOOK_EVERY_S = 0.15
"""how often the page looks how far its job is"""
FOLLOWED_AT_ONCE = 16


@dataclass(frozen=True)
class Results:
    """What is shown of a job.

    Attributes:
        status: how far it is.
        preview: moving small pictures.
        video: the result, a video.
        picture: the result, a picture.
        settings: what it was made with.
        job: its name.
        cancel: the button that cancels it.
    """

    status: Any
    preview: Any
    video: Any
    picture: Any
    settings: Any
    job: Any
    cancel: Any


def values_of(words: list[Any], loras: tuple[str, ...]) -> Values:
    """Return the form's values from those of its controls (`Form.inputs`); what is drawn wins over files.

    Args:
        words: values of the controls.
        loras: names of adapters, in the order of their sliders.
    """
    values: Values = dict(zip((*PLAIN, *MEDIA), words, strict=False))
    rest = words[len(PLAIN) + len(MEDIA) :]
    values["loras"] = dict(zip(loras, rest, strict=False))
    painted, drawn_from, paths = rest[len(loras) :]
    values["mask"] = mask_of(painted) or values["mask"]
    if drawn_from is not None:
        height, width = drawn_from.shape[:2]
        values["trajectory"] = trajectory_of(paths, width, height) or values["trajectory"]
    if values["control"] is None:
        values |= {"control_kind": None}
    if not (values["control"] or values["trajectory"] or values["camera"] or values["camera_file"]):
        values |= {"control_scale": None, "control_start": None, "control_end": None}
    return values


def build_generate(desk: Desk, i18n: Words) -> tuple[Form, Results]:
    """Lay out the tab, and say what its controls do."""
    offered = desk.intake.offered
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=320):
            form = build_form(offered, i18n, [kind for kind in offered.options.maps if kind != "camera"])
        with gr.Column(scale=4, min_width=320, elem_id="outcome"):
            with gr.Row():
                go = gr.Button(i18n("go"), variant="primary", elem_id="go", min_width=120)
                cancel = gr.Button(i18n("cancel"), variant="stop", elem_id="cancel", interactive=False, min_width=120)
            form.marks["general"] = gr.HTML("", elem_id="mark-general", elem_classes="mark", padding=False)  # type: ignore[index]
            status = gr.HTML("", elem_id="status", padding=False)
            preview = gr.HTML("", elem_id="preview", padding=False)
            video = gr.Video(None, label=i18n("result"), visible=False, loop=True, autoplay=True, elem_id="video")
            picture = gr.Image(None, label=i18n("result"), visible=False, interactive=False, elem_id="picture")
            with gr.Accordion(i18n("settings"), open=False):
                settings = gr.JSON(None, show_label=False, elem_id="settings")
            job = gr.State(None)
    results = Results(status, preview, video, picture, settings, job, cancel)
    _connect_making(desk, form, results, go)
    _connect_checking(desk, form)
    _connect_model(desk, form)
    _connect_pictures(desk, form)
    return form, results


def marks_within(form: Form) -> list[Any]:
    """Return the places for errors, in the order of `MARKED`."""
    return [form.marks[name] for name in MARKED]


def _connect_making(desk: Desk, form: Form, results: Results, go: Any) -> None:
    """Say what the buttons for making and cancelling do."""
    offered = desk.intake.offered

    def make(request: gr.Request, *words: Any) -> Iterator[dict[Any, Any]]:
        language = language_of(request.headers.get("accept-language"))
        try:
            values = values_of(list(words), offered.lora_names)
            job = desk.intake.submit(request_of_form(values), files_of_form(values))
        except ApiError as error:
            yield _marked(form, error) | {results.status: "", results.preview: ""}
            return
        yield {form.marks[name]: text for name, text in no_marks().items()} | {
            results.job: job.job_id,
            results.cancel: gr.update(interactive=True),
            results.settings: None,
        }
        yield from follow(desk, form, results, job, language)

    go.click(
        make, form.inputs,
        [*marks_within(form), results.status, results.preview, results.video, results.picture, results.settings,
         results.job, results.cancel],
        concurrency_limit=FOLLOWED_AT_ONCE, show_progress="hidden", api_visibility="private",
    )  # fmt: skip

    def cancel(job_id: str | None, request: gr.Request) -> Any:
        found = desk.intake.jobs.cancel(job_id) if job_id else None
        if found is None or found.has_ended:
            return gr.skip()
        return f'<p class="status">{say("stopping", language_of(request.headers.get("accept-language")))}</p>'

    results.cancel.click(
        cancel, results.job, results.preview, queue=False, show_progress="hidden", api_visibility="private"
    )


def _connect_checking(desk: Desk, form: Form) -> None:
    """Say how what is filled in is checked as it is."""
    offered = desk.intake.offered

    def comes_to(request: gr.Request, *words: Any) -> dict[Any, Any]:
        """Check what is filled in so far, so that what cannot be is marked before anything is asked for."""
        language = language_of(request.headers.get("accept-language"))
        values = values_of(list(words), offered.lora_names) | dict.fromkeys(MEDIA)
        values |= {"strength": None, "control_kind": None, "prompt": values["prompt"] or "?"}
        try:
            asked = asked_of(request_of_form(values), {})
            loras = offered.loras_of(asked.get("loras") or {})
            facts = offered.facts(values["model"], loras)
            planned = offered.plan(values["model"], loras, request_of(asked, facts, Path()))
        except ApiError as error:
            return _marked(form, error) | {form.facts: trained_html(offered.facts(values["model"], ()), language)}
        except (UserError, ModelError) as error:
            marked = _marked(form, refused(error))
            return marked | {form.facts: trained_html(offered.facts(values["model"], ()), language)}
        sides = (planned.bucket.width_px, planned.bucket.height_px)
        seconds = f"{planned.length / planned.fps:.1f}"
        words_ = say("comes_to", language, planned.length, *sides, f"{planned.fps:g}", seconds)
        told = trained_html(facts, language) + f'<p id="comes-to">{words_}</p>'
        return {form.marks[name]: text for name, text in no_marks().items()} | {form.facts: told}

    watched = [
        form.plain[name]
        for name in ("width", "height", "num_frames", "fps", "num_inference_steps", "guidance_scale", "sampler",
                     "segments", "length", "overlap", "prompts", "seed")
    ]  # fmt: skip
    gr.on(
        [control.change for control in (*watched, *form.loras.values())], comes_to, form.inputs,
        [*marks_within(form), form.facts],
        queue=False, show_progress="hidden", trigger_mode="always_last", api_visibility="private",
    )  # fmt: skip


def _connect_model(desk: Desk, form: Form) -> None:
    """Say what another model changes of the form."""
    offered = desk.intake.offered

    def chosen(model: str, request: gr.Request) -> dict[Any, Any]:
        facts = offered.facts(model, ())
        language = language_of(request.headers.get("accept-language"))
        usual = facts.family.sampler
        return {
            form.facts: trained_html(facts, language),
            form.plain["sampler"]: gr.update(choices=samplers_of(facts), value=None),
            form.plain["width"]: gr.update(placeholder=str(facts.hints["width_px"])),
            form.plain["height"]: gr.update(placeholder=str(facts.hints["height_px"])),
            form.plain["num_frames"]: gr.update(placeholder=f"{facts.hints['num_frames']} ({facts.grid.rule})"),
            form.plain["fps"]: gr.update(placeholder=f"{float(facts.hints['fps']):g}"),
            form.plain["num_inference_steps"]: gr.update(placeholder=str(usual.steps)),
            form.plain["guidance_scale"]: gr.update(placeholder=f"{usual.guidance:g}"),
            form.media["end_image"]: gr.update(visible=facts.has_condition),
        }

    changed = [form.facts, form.media["end_image"]] + [
        form.plain[name]
        for name in ("sampler", "width", "height", "num_frames", "fps", "num_inference_steps", "guidance_scale")
    ]
    form.plain["model"].change(
        chosen, form.plain["model"], changed, queue=False, show_progress="hidden", api_visibility="private"
    )
    gr.context.Context.root_block.load(  # type: ignore[union-attr]
        chosen, form.plain["model"], changed, queue=False, show_progress="hidden", api_visibility="private"
    )


def _connect_pictures(desk: Desk, form: Form) -> None:
    """Say what the pictures do on which people paint and draw, and that which shows a control map."""
    maps = desk.intake.offered.options.maps

    def to_paint(path: str | None) -> Any:
        try:
            picture = picture_of(path)
        except UserError as error:
            return gr.skip(), marks_of("video", str(error))["video"]
        return (None if picture is None else {"background": picture, "layers": [], "composite": None}), ""

    form.to_paint.click(
        to_paint, form.media["video"], [form.painted, form.marks["video"]], show_progress="hidden",
        api_visibility="private",
    )  # fmt: skip

    def show_map(path: str | None, kind: str) -> Any:
        try:
            picture = picture_of(path)
        except UserError as error:
            return gr.skip(), marks_of("control", str(error))["control"]
        made = picture
        if picture is not None and kind != AS_IS:
            drawn = maps[kind](picture[None], 8.0)[0]
            made = None if drawn is None else drawn[0]
        return gr.update(value=made, visible=made is not None), ""

    form.show_map.click(
        show_map, [form.media["control"], form.plain["control_kind"]], [form.map_shown, form.marks["control"]],
        show_progress="hidden", api_visibility="private",
    )  # fmt: skip

    def to_draw(*pictures: str | None) -> Any:
        path = next((one for one in pictures if one), None)
        try:
            picture = picture_of(path)
        except UserError as error:
            return gr.skip(), gr.skip(), gr.skip(), marks_of("trajectory", str(error))["trajectory"]
        return picture, picture, [], ""

    form.to_draw.click(
        to_draw, [form.media[name] for name in ("image", "reference", "video")],
        [form.drawn, form.drawn_from, form.paths, form.marks["trajectory"]],
        show_progress="hidden", api_visibility="private",
    )  # fmt: skip

    def point(event: gr.SelectData, picture: np.ndarray | None, paths: Paths) -> Any:
        if picture is None:
            return gr.skip(), gr.skip(), gr.skip()
        begins = bool(paths) and not paths[-1]
        more = with_point(paths[:-1] if begins else paths, event.index, begins=begins)
        return with_paths(picture, more), more, gr.update(interactive=True)

    def begin(paths: Paths) -> Any:
        # The button stays off until the new path has a point, which shows that one was begun.
        return ([*paths, []], gr.update(interactive=False)) if paths and paths[-1] else (paths, gr.skip())

    def start_on(picture: np.ndarray | None) -> Any:
        return picture, [], gr.update(interactive=True)

    # Past the queue: clicks come faster than its stream to the browser is closed and opened again, which loses them.
    quick = {"show_progress": "hidden", "api_visibility": "private", "queue": False}
    empty = [form.drawn_from, form.paths, form.new_path]
    form.drawn.upload(start_on, form.drawn, empty, **quick)
    form.drawn.clear(lambda: start_on(None), None, empty, **quick)
    form.drawn.select(
        point, [form.drawn_from, form.paths], [form.drawn, form.paths, form.new_path], trigger_mode="multiple", **quick
    )
    form.new_path.click(begin, form.paths, [form.paths, form.new_path], **quick)
    form.clear_paths.click(start_on, form.drawn_from, [form.drawn, form.paths, form.new_path], **quick)


def follow(desk: Desk, form: Form, results: Results, job: Job, language: str) -> Iterator[dict[Any, Any]]:
    """Yield what changes on the page until a job has ended."""
    jobs, told = desk.intake.jobs, ""
    while not job.has_ended:
        before = sum(one.status == "queued" and one.created_s < job.created_s for one in jobs.newest_first())
        now = progress_html(job, before, language)
        if now != told:
            told = now
            yield {results.status: now, results.preview: preview_html(desk.engine.preview(job.job_id))}
        time.sleep(LOOK_EVERY_S)
        later = jobs.get(job.job_id)
        if later is None:
            words = f'<p class="status">{say("removed", language)}</p>'
            yield {results.status: words, results.cancel: gr.update(interactive=False)}
            return
        job = later
    yield ended(desk, form, results, job, language)


def ended(desk: Desk, form: Form, results: Results, job: Job, language: str) -> dict[Any, Any]:
    """Return what the page shows of a job that has ended."""
    shown: dict[Any, Any] = {
        results.status: progress_html(job, 0, language),
        results.preview: "",
        results.cancel: gr.update(interactive=False),
        results.job: None,
    }
    if job.fault is not None:
        return shown | {form.marks[n]: text for n, text in marks_of(job.fault.field, job.fault.problem).items()}
    path = desk.result(job)
    if path is None:
        return shown
    is_video = path.endswith(".mp4")
    return shown | {
        results.video: gr.update(value=path if is_video else None, visible=is_video),
        results.picture: gr.update(value=None if is_video else path, visible=not is_video),
        results.settings: shareable(job.settings),
    }


def trained_html(facts: ModelFacts, language: str) -> str:
    """Return what a model was trained for."""
    hints = facts.hints
    words = say(
        "trained_for", language, hints["width_px"], hints["height_px"], hints["num_frames"], f"{float(hints['fps']):g}"
    )
    return f'<p class="note">{facts.family.name}. {words}</p>'


def _marked(form: Form, error: ApiError) -> dict[Any, Any]:
    return {form.marks[name]: text for name, text in marks_of(error.field, error.message).items()}
