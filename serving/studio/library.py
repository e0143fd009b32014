"""The tab Models and LoRAs: what is there, and whether it fits this machine."""

from html import escape
from pathlib import Path

import gradio as gr

from core.errors import UserError
from models.accelerator import own_device
from models.errors import ModelError
from models.lora.files import read_lora
from models.memory.modes import decide
from sampling.need import need_of
from sampling.request import Request
from serving.offered import Offered
from serving.studio.desk import Desk, Opened
from serving.studio.showing import table_html
from serving.studio.texts import Words, language_of, say


def build_library(desk: Desk, i18n: Words) -> list[Opened]:
    """Lay out the tab; return what is asked when it is opened.

    Whether models fit is predicted when the tab is opened: it takes a second or two for each.
    """
    look = gr.Button(i18n("look_again"), size="sm", elem_id="library-look", scale=0)
    shown = gr.HTML("", elem_id="library")

    def show(request: gr.Request) -> str:
        return library_html(desk.intake.offered, language_of(request.headers.get("accept-language")))

    look.click(show, None, shown, api_visibility="private")
    return [Opened(show, [shown])]


def library_html(offered: Offered, language: str) -> str:
    """Return both tables."""
    names = ("name", "family", "size_gb", "trained", "takes", "fits")
    models = table_html(tuple(say(name, language) for name in names), [_model(offered, name) for name in offered.names])
    parts = [f"<h3>{escape(say('models_here', language))}</h3>", models]
    if offered.lora_names:
        header = tuple(say(name, language) for name in ("name", "size_gb", "rank", "fits_models"))
        rows = [_lora(offered, name) for name in offered.lora_names]
        parts += [f"<h3>{escape(say('loras_here', language))}</h3>", table_html(header, rows)]
    return "".join(parts)


def _model(offered: Offered, name: str) -> tuple[str, ...]:
    facts = offered.facts(name, ())
    hints = facts.hints
    trained = f"{hints['width_px']}×{hints['height_px']}, {hints['num_frames']}, {float(hints['fps']):g} fps"
    takes = ["text", "image", "end image", "mask"] if facts.has_condition else ["text", "image"]
    takes += ["video", *(part for part in ("control", "camera", "reference") if part in facts.spec)]
    size = sum(_bytes_of(part) for part in (facts.bundle.transformer, facts.bundle.vae, facts.bundle.text_encoder))
    return name, facts.family.name, _gb(size), trained, ", ".join(takes), fit_of(offered, name)


def fit_of(offered: Offered, name: str) -> str:
    """Return how a model would be placed on this machine at the size that it was trained for, and what it needs."""
    facts, device, options = offered.facts(name, ()), own_device(), offered.options
    try:
        planned = offered.plan(name, (), Request("fit"))
        need = need_of(facts, [planned], half=device.type != "cpu", encoder_stays=options.keep_text_encoder)
        return decide(options.memory, device, need, vae_tiling=options.vae_tiling).why
    except (UserError, ModelError) as error:
        return str(error)


def _lora(offered: Offered, name: str) -> tuple[str, ...]:
    file = offered.lora_file_of(name)
    try:
        ranks = sorted({factors.rank for factors in read_lora(file).layers.values()})
    except ModelError as error:
        return name, _gb(_bytes_of(file)), "", str(error)
    fitting = []
    for model in offered.names:
        try:
            offered.facts(model, offered.loras_of({name: 1.0}))
            fitting.append(model)
        except (UserError, ModelError):
            continue
    return name, _gb(_bytes_of(file)), ", ".join(map(str, ranks)), ", ".join(fitting) or "–"


def _bytes_of(path: Path) -> int:
    files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
    return sum(file.stat().st_size for file in files)


def _gb(count: int) -> str:
    return f"{count / 1e9:.3g}"
