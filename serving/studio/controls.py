"""The controls of the Generate form, each with the place for its mark."""

from collections.abc import Mapping
from dataclasses import dataclass, field
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


@dataclass(frozen=True)
class _Controls:
    """What has been laid out so far: by name what `Form` holds by name, and by attribute the rest."""

    i18n: Words
    plain: dict[str, Any] = field(default_factory=dict)
    media: dict[str, Any] = field(default_factory=dict)
    marks: dict[str, Any] = field(default_factory=dict)
    rest: dict[str, Any] = field(default_factory=dict)

    def words(self, name: str) -> dict[str, Any]:
        """Return label, help and id of a control."""
        found = {"label": self.i18n(name), "elem_id": f"field-{name}"}
        return found | ({"info": self.i18n(f"{name}_help")} if f"{name}_help" in TEXTS else {})

    def mark(self, *names: str) -> None:
        """Lay out places for errors."""
        for name in names:
            assert name in MARKED
            self.marks[name] = gr.HTML("", elem_id=f"mark-{name}", elem_classes="mark", padding=False)

    def text(self, name: str, lines: int) -> None:
        """Lay out a place for text."""
        self.plain[name] = gr.Textbox("", lines=lines, **self.words(name))

    def number(self, name: str, help_key: str | None = None) -> None:
        """Lay out a place for a number, which may be empty."""
        info = {"info": self.i18n(help_key)} if help_key else {}
        self.plain[name] = gr.Textbox("", max_lines=1, **self.words(name) | info, min_width=110)

    def upload(self, name: str, kinds: list[str]) -> None:
        """Lay out a place for a file, with its mark."""
        self.media[name] = gr.File(file_types=kinds, height=UPLOAD_PX, **self.words(name))
        self.mark(name)

    def button(self, name: str) -> None:
        """Lay out a small button."""
        self.rest[name] = gr.Button(self.i18n(name), size="sm", elem_id=name.replace("_", "-"))


def build_form(offered: Offered, i18n: Words, kinds: list[str]) -> Form:
    """Lay out the controls.

    Args:
        offered: models and adapters.
        i18n: the texts.
        kinds: of control maps that can be made of footage.
    """
    to = _Controls(i18n)
    to.plain["model"] = gr.Dropdown(list(offered.names), value=offered.names[0], **to.words("model"))
    to.mark("model")
    to.rest["facts"] = gr.HTML("", elem_id="facts", padding=False)
    to.text("prompt", 3)
    to.mark("prompt")
    to.text("negative_prompt", 1)
    to.mark("negative_prompt")
    with gr.Accordion(i18n("further"), open=True):
        _add_sampling(to)
    with gr.Accordion(i18n("loras"), open=True, visible=bool(offered.lora_names)):
        loras = _add_loras(to, offered)
    with gr.Accordion(i18n("from_image"), open=False), gr.Row():
        _add_images(to)
    with gr.Accordion(i18n("from_video"), open=False):
        _add_video(to)
    with gr.Accordion(i18n("steer"), open=False):
        _add_steering(to, kinds)
        _add_trajectory(to)
    with gr.Accordion(i18n("long"), open=False):
        _add_length(to)
    return Form(plain=to.plain, media=to.media, loras=loras, marks=to.marks, **to.rest)


def _add_sampling(to: _Controls) -> None:
    with gr.Row():
        to.number("width", "size_help")
        to.number("height", "size_help")
    to.mark("size")
    for names in (("num_frames", "fps"), ("num_inference_steps", "guidance_scale")):
        with gr.Row():
            for name in names:
                to.number(name)
        to.mark(*names)
    with gr.Row():
        to.plain["sampler"] = gr.Dropdown(list(SAMPLERS), value=None, **to.words("sampler"), min_width=140)
        to.plain["seed"] = gr.Textbox("", max_lines=1, **to.words("seed"), min_width=140)
    to.mark("sampler", "seed")


def _add_loras(to: _Controls, offered: Offered) -> dict[str, Any]:
    info = to.i18n("lora_help")
    found = {
        name: gr.Slider(-STRONGEST, STRONGEST, 0, step=0.05, label=name, info=info, elem_id=f"field-lora-{place}")
        for place, name in enumerate(offered.lora_names)
    }
    to.mark("loras")
    return found


def _add_images(to: _Controls) -> None:
    for name in ("image", "end_image"):
        with gr.Column(min_width=140):
            to.media[name] = gr.Image(
                type="filepath", image_mode=None, sources=["upload", "clipboard"], height=220, **to.words(name)
            )
            to.mark(name)


def _add_video(to: _Controls) -> None:
    to.upload("video", ["video", "image"])
    to.number("strength")
    to.mark("strength")
    to.button("to_paint")
    to.rest["painted"] = gr.ImageEditor(
        type="numpy", label=to.i18n("painted"), elem_id="painted", sources=[], transforms=[],
        brush=gr.Brush(default_size="auto", colors=["#ff4040"], color_mode="fixed"), layers=False,
    )  # fmt: skip
    to.upload("mask", ["image", "video"])


def _add_steering(to: _Controls, kinds: list[str]) -> None:
    to.upload("control", ["video", "image"])
    to.plain["control_kind"] = gr.Dropdown([AS_IS, *kinds], value=AS_IS, **to.words("control_kind"))
    to.mark("control_kind")
    to.button("show_map")
    to.rest["map_shown"] = gr.Image(
        None, show_label=False, interactive=False, visible=False, format="png", elem_id="map-shown"
    )
    with gr.Row():
        for name in ("control_scale", "control_start", "control_end"):
            to.number(name)
    to.mark("control_scale")
    to.upload("reference", ["image"])
    with gr.Row():
        to.plain["camera"] = gr.Dropdown([("–", ""), *CAMERAS], value="", **to.words("camera"))
        to.number("camera_speed")
    to.mark("camera", "camera_speed")
    to.media["camera_file"] = gr.File(file_types=[".txt", "video"], height=UPLOAD_PX, **to.words("camera_file"))


def _add_trajectory(to: _Controls) -> None:
    to.button("to_draw")
    to.rest["drawn_from"], to.rest["paths"] = gr.State(None), gr.State([])
    to.rest["drawn"] = gr.Image(
        type="numpy", sources=["upload", "clipboard"], label=to.i18n("drawn"), elem_id="drawn", height=320
    )
    with gr.Row():
        to.button("new_path")
        to.button("clear_paths")
    to.upload("trajectory", [".json", ".csv"])


def _add_length(to: _Controls) -> None:
    names = ("segments", "length", "overlap")
    with gr.Row():
        for name in names:
            to.number(name)
    to.text("prompts", 3)
    to.mark(*names, "prompts")


def samplers_of(facts: ModelFacts) -> list[str]:
    """Return the samplers that fit a model, its default first."""
    kinds = SAMPLERS[facts.default_sampler].objectives
    kind = facts.family.objective.kind if facts.family.objective.kind in kinds else kinds[0]
    fitting = [name for name, sampler in SAMPLERS.items() if kind in sampler.objectives]
    return sorted(fitting, key=lambda name: name != facts.default_sampler)
