"""The tabs put together, mounted into the HTTP API's application."""

import os
from typing import Any

from fastapi import FastAPI

from serving.studio.desk import Desk, Opened
from serving.studio.reports import add_reports
from serving.studio.texts import PREFIX, Words, translations

TITLE = "Selects studio"
WAITING_EVENTS = 64
"""of the page, beside the jobs' own queue"""
KEPT_S = 24 * 3600
"""how long uploads and what was shown stay in the page's folder"""
CSS = """
.mark p[role=alert] { color: #b3261e; margin: 2px 2px 6px; font-weight: 600; overflow-wrap: anywhere; }
.dark .mark p[role=alert] { color: #ffb4ab; }
.mark:not(:has(p)), #status:not(:has(p)), #preview:not(:has(img, p)), #history-told:not(:has(p)) { display: none; }
.note, #comes-to { margin: 2px; opacity: .8; }
.status { margin: 4px 2px; overflow-wrap: anywhere; }
#status progress { width: 100%; }
#preview img.preview { max-width: 100%; border-radius: 6px; display: block; }
#curate-report iframe { width: 100%; height: 80vh; border: 1px solid var(--border-color-primary); border-radius: 6px; }
#gallery .grid-container { grid-template-columns: repeat(auto-fill, minmax(96px, 150px)) !important; }
#curate-lines textarea, #train-lines textarea { font: 12px/1.5 ui-monospace, monospace; white-space: pre; }
.funnel .bar { display: grid; grid-template-columns: 11em 1fr 4em; gap: 6px; align-items: center; margin: 2px; }
.funnel .bar span { overflow-wrap: anywhere; } .funnel .bar span:last-child { text-align: right; }
.funnel .bar b { height: .9em; min-width: 1px; border-radius: 3px; background: #2f7d4f; }
.funnel .bar.lost b { background: #b3541e; }
.wide { overflow-x: auto; } .wide td, .wide th { padding: 4px 10px; text-align: left; vertical-align: top; }
@media (min-width: 769px) { #outcome { position: sticky; top: 8px; align-self: flex-start; } }
@media (max-width: 480px) { .gradio-container { padding: 6px !important; } }
"""


def mount_page(app: FastAPI, desk: Desk, most_upload_bytes: int) -> FastAPI:
    """Mount the page at `/`, beside the routes of the API; return the application.

    Gradio asks nothing of other machines: analytics, sharing, history in the browser and monitoring are off, and the
    policy of the page's answers forbids the rest.

    Args:
        app: the HTTP API.
        desk: what the tabs work with.
        most_upload_bytes: of one file.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["GRADIO_TEMP_DIR"] = str(desk.shown)
    import gradio as gr

    i18n = gr.I18n(**translations())
    blocks = build_blocks(desk, lambda key: i18n(PREFIX + key))
    blocks.queue(max_size=WAITING_EVENTS, api_open=False)
    font = ["system-ui", "sans-serif"]
    if desk.commands is not None:
        add_reports(app, desk.commands.folder / "curated")
    return gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        server_name="127.0.0.1",
        footer_links=[],
        run_history=False,
        allowed_paths=[],
        show_error=True,
        max_file_size=most_upload_bytes,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        i18n=i18n,
        theme=gr.themes.Default(font=font, font_mono=["ui-monospace", "monospace"]).set(
            block_info_text_color="*neutral_600", block_info_text_color_dark="*neutral_300"
        ),
        css=CSS,
    )


def build_blocks(desk: Desk, i18n: Words) -> Any:
    """Lay out the tabs, and let each ask what it shows when it is opened."""
    import gradio as gr

    from serving.studio.curate import build_curate
    from serving.studio.endpoint import add_endpoint
    from serving.studio.generate import build_generate
    from serving.studio.history import build_history
    from serving.studio.library import build_library
    from serving.studio.train import build_train

    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(3600, KEPT_S), fill_width=True) as blocks:
        has_model = bool(desk.intake.offered.names)
        with gr.Tabs(selected="generate" if has_model else "curate", elem_id="tabs") as tabs:
            if has_model:
                with gr.Tab(i18n("generate"), id="generate"):
                    form, _ = build_generate(desk, i18n)
                    add_endpoint(desk)
                with gr.Tab(i18n("library"), id="library") as tab:
                    _when_opened(tab, build_library(desk, i18n))
                with gr.Tab(i18n("history"), id="history") as tab:
                    _when_opened(tab, build_history(desk, i18n, form, tabs))
            if desk.commands is not None:
                with gr.Tab(i18n("curate"), id="curate") as tab:
                    _when_opened(tab, build_curate(desk.commands, i18n))
                with gr.Tab(i18n("train"), id="train") as tab:
                    _when_opened(tab, build_train(desk, desk.commands, i18n))
    return blocks


def _when_opened(tab: Any, asked: list[Opened]) -> None:
    for one in asked:
        tab.select(one.ask, None, list(one.outputs), api_visibility="private", show_progress="hidden")
