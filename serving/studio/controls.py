"""The controls of the Generate form, each with the place for its mark."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr

from models.conditions.camera_path import PRESETS as CAMERAS
from models.denoise.samplers import SAMPLERS
from sampling.model_facts import ModelFacts
from sampling.request import AS_IS
from serving.offered import Offered
from serving.studio.form import PLAIN
from serving.studio.marks import MARKED
from serving.studio.texts import TEXTS, Words
from serving.wire import MEDIA

UPLOAD_PX = 140
"""height of a place for a file: its label and three lines fit"""
STRONGEST = 2.0
"""of an adapter, to both sides"""


@dataclass(frozen=True)
class Form:
    """The controls.

    Attributes:
        plain: those of `form.PLAIN`, by name.
        media: those of `wire.MEDIA`, by name.
        loras: sliders by the name of the adapter.
        marks: places for errors, by field.
        painted: the picture on which a mask is painted.
        to_paint: shows the picture.
        map_shown: the control map.
        show_map: draws it.
        to_draw: shows the picture.
        drawn: the picture on which paths are drawn.
        drawn_from: the picture without them.
        paths: what has been drawn.
        new_path: begins another path.
        clear_paths: forgets them.
        facts: what the model was trained for, and what the request comes to.
    """

    plain: Mapping[str, Any]
    media: Mapping[str, Any]
    loras: Mapping[str, Any]
    marks: Mapping[str, Any]
    painted: Any
    to_paint: Any
    map_shown: Any
    show_map: Any
    to_draw: Any
    drawn: Any
    drawn_from: Any
    paths: Any
    new_path: Any
    clear_paths: Any
    facts: Any

    @property
    def inputs(self) -> list[Any]:
        """Everything that is read when a request is made, in the order of `values_of`."""
        return [
            *(self.plain[name] for name in PLAIN), *(self.media[name] for name in MEDIA),
            *self.loras.values(), self.painted, self.drawn_from, self.paths,
        ]  # fmt: skip


def build_form(offered: Offered, i18n: Words, kinds: list[str]) -> Form:
    """Lay out the controls.

    Args:
        offered: models and adapters.
        i18n: the texts.
        kinds: of control maps that can be made of footage.
    """
    plain: dict[str, Any] = {}
    media: dict[str, Any] = {}
    marks: dict[str, Any] = {}

    def mark(name: str) -> None:
        assert name in MARKED
        marks[name] = gr.HTML("", elem_id=f"mark-{name}", elem_classes="mark", padding=False)

    def words(name: str) -> dict[str, Any]:
        found = {"label": i18n(name), "elem_id": f"field-{name}"}
        return found | ({"info": i18n(f"{name}_help")} if f"{name}_help" in TEXTS else {})

    def number(name: str, help_key: str | None = None) -> None:
        plain[name] = gr.Textbox(
            "", max_lines=1, **words(name) | ({"info": i18n(help_key)} if help_key else {}), min_width=110
        )

    def upload(name: str, kinds: list[str]) -> None:
        media[name] = gr.File(file_types=kinds, height=UPLOAD_PX, **words(name))
        mark(name)

    plain["model"] = gr.Dropdown(list(offered.names), value=offered.names[0], **words("model"))
    mark("model")
    facts = gr.HTML("", elem_id="facts", padding=False)
    plain["prompt"] = gr.Textbox("", lines=3, **words("prompt"))
    mark("prompt")
    plain["negative_prompt"] = gr.Textbox("", lines=1, **words("negative_prompt"))
    mark("negative_prompt")
    with gr.Accordion(i18n("further"), open=True):
        with gr.Row():
            number("width", "size_help")
            number("height", "size_help")
        mark("size")
        with gr.Row():
            number("num_frames")
            number("fps")
        mark("num_frames")
        mark("fps")
        with gr.Row():
            number("num_inference_steps")
            number("guidance_scale")
        mark("num_inference_steps")
        mark("guidance_scale")
        with gr.Row():
            plain["sampler"] = gr.Dropdown(list(SAMPLERS), value=None, **words("sampler"), min_width=140)
            plain["seed"] = gr.Textbox("", max_lines=1, **words("seed"), min_width=140)
        mark("sampler")
        mark("seed")
    loras: dict[str, Any] = {}
    with gr.Accordion(i18n("loras"), open=True, visible=bool(offered.lora_names)):
        for place, name in enumerate(offered.lora_names):
            loras[name] = gr.Slider(
                -STRONGEST, STRONGEST, 0, step=0.05, label=name, info=i18n("lora_help"), elem_id=f"field-lora-{place}"
            )
        mark("loras")
    with gr.Accordion(i18n("from_image"), open=False), gr.Row():
        for name in ("image", "end_image"):
            with gr.Column(min_width=140):
                media[name] = gr.Image(
                    type="filepath", image_mode=None, sources=["upload", "clipboard"], height=220, **words(name)
                )
                mark(name)
    with gr.Accordion(i18n("from_video"), open=False):
        upload("video", ["video", "image"])
        number("strength")
        mark("strength")
        to_paint = gr.Button(i18n("to_paint"), size="sm", elem_id="to-paint")
        painted = gr.ImageEditor(
            type="numpy", label=i18n("painted"), elem_id="painted", sources=[], transforms=[],
            brush=gr.Brush(default_size="auto", colors=["#ff4040"], color_mode="fixed"), layers=False,
        )  # fmt: skip
        upload("mask", ["image", "video"])
    with gr.Accordion(i18n("steer"), open=False):
        upload("control", ["video", "image"])
        plain["control_kind"] = gr.Dropdown([AS_IS, *kinds], value=AS_IS, **words("control_kind"))
        mark("control_kind")
        show_map = gr.Button(i18n("show_map"), size="sm", elem_id="show-map")
        map_shown = gr.Image(
            None, show_label=False, interactive=False, visible=False, format="png", elem_id="map-shown"
        )
        with gr.Row():
            for name in ("control_scale", "control_start", "control_end"):
                number(name)
        mark("control_scale")
        upload("reference", ["image"])
        with gr.Row():
            plain["camera"] = gr.Dropdown([("–", ""), *CAMERAS], value="", **words("camera"))
            number("camera_speed")
        mark("camera")
        mark("camera_speed")
        media["camera_file"] = gr.File(file_types=[".txt", "video"], height=UPLOAD_PX, **words("camera_file"))
        to_draw = gr.Button(i18n("to_draw"), size="sm", elem_id="to-draw")
        drawn_from = gr.State(None)
        paths = gr.State([])
        drawn = gr.Image(
            type="numpy", sources=["upload", "clipboard"], label=i18n("drawn"), elem_id="drawn", height=320
        )
        with gr.Row():
            new_path = gr.Button(i18n("new_path"), size="sm", elem_id="new-path")
            clear_paths = gr.Button(i18n("clear_paths"), size="sm", elem_id="clear-paths")
        upload("trajectory", [".json", ".csv"])
    with gr.Accordion(i18n("long"), open=False):
        with gr.Row():
            for name in ("segments", "length", "overlap"):
                number(name)
        plain["prompts"] = gr.Textbox("", lines=3, **words("prompts"))
        for name in ("segments", "length", "overlap", "prompts"):
            mark(name)
    return Form(
        plain, media, loras, marks, painted, to_paint, map_shown, show_map, to_draw, drawn, drawn_from, paths, new_path,
        clear_paths, facts,
    )  # fmt: skip


def samplers_of(facts: ModelFacts) -> list[str]:
    """Return the samplers that fit a model, its default first."""
    kinds = SAMPLERS[facts.default_sampler].objectives
    kind = facts.family.objective.kind if facts.family.objective.kind in kinds else kinds[0]
    fitting = [name for name, sampler in SAMPLERS.items() if kind in sampler.objectives]
    return sorted(fitting, key=lambda name: name != facts.default_sampler)
