"""The page on which people review an output, and what it asks of the server."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
from fastapi import FastAPI, Query
from fastapi import Path as PathParameter
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request

from core.errors import OutputError, UserError
from core.sanitize import LONGEST_CAPTION
from curation.find.rank import Findings
from curation.report.agreement import Agreement
from curation.reviews import FIELDS, LONGEST_WORD
from serving.faults import ApiError, answer_errors, response
from serving.review.store import Query as Wanted
from serving.review.store import ReviewStore, Show

PAGE = Path(__file__).parent / "page"
FILES = {"review.js": "text/javascript", "review.css": "text/css"}
POLICY = "; ".join((
    "default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'", "img-src 'self' data:",
    "media-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
))  # fmt: skip
MOST_CLIPS = 200
Finder = Callable[[pa.Table, str, int], Findings]
"""finds clips of a table by words or a clip id, at most so many"""
MOST_FOUND = 1000
TYPES = {".mp4": "video/mp4", ".jpg": "image/jpeg", ".mkv": "video/x-matroska", ".webm": "video/webm"}


class Saying(BaseModel):
    """What somebody says of a clip; fields that are not sent stay as they are.

    Attributes:
        clip_id: of which.
        by: who.
        review: `keep`, `drop`, or null: the rules decide again.
        caption: a text by hand, or null: the captioner's again.
        tags: words.
    """

    model_config = ConfigDict(extra="forbid")

    clip_id: str = Field(max_length=100)
    by: str = Field("", max_length=LONGEST_WORD)
    review: str | None = None
    caption: str | None = Field(None, max_length=LONGEST_CAPTION)
    tags: list[str] = []


def build_review(store: ReviewStore, title: str, finder: Finder) -> FastAPI:
    """Build the application.

    Args:
        store: the output.
        title: its name, for the page.
        finder: answers the search box.
    """
    app = FastAPI(title="Selects review", docs_url=None, redoc_url=None, openapi_url=None)
    answer_errors(app)

    @app.exception_handler(UserError)
    def wrong(http: Request, error: UserError) -> JSONResponse:
        return response(ApiError(400, str(error)))

    @app.exception_handler(OutputError)
    def unwritten(http: Request, error: OutputError) -> JSONResponse:
        return response(ApiError(507, str(error)))

    @app.get("/")
    def page() -> Response:
        text = (PAGE / "review.html").read_text(encoding="utf-8").replace("{{title}}", _escaped(title))
        headers = {"Content-Security-Policy": POLICY, "Referrer-Policy": "no-referrer"}
        return HTMLResponse(text, headers=headers)

    @app.get("/page/{name}")
    def file(name: str) -> Response:
        if name not in FILES:
            raise ApiError(404, f"there is no file '{name[:60]}'")
        return FileResponse(PAGE / name, media_type=FILES[name])

    @app.get("/api/clips")
    def clips(
        show: Show = "all",
        where: Annotated[str, Query(max_length=10_000)] = "",
        words: Annotated[str, Query(max_length=1000)] = "",
        like: Annotated[str, Query(max_length=1000)] = "",
        offset: Annotated[int, Query(ge=0, lt=1 << 40)] = 0,
        limit: Annotated[int, Query(ge=1, le=MOST_CLIPS)] = 50,
    ) -> dict[str, Any]:
        findings = finder(store.table, like, MOST_FOUND) if like.strip() else None
        ids = None if findings is None else [found.clip_id for found in findings.clips]
        total, some = store.page(Wanted(show, where, words, ids), offset, limit)
        by = None if findings is None else findings.by
        return {"total": total, "clips": some, "counts": store.counts(), "by": by}

    @app.get("/api/agreement")
    def agreement() -> list[dict[str, Any]]:
        return [_told(each) for each in store.agreements()]

    @app.post("/api/reviews")
    def say(saying: Saying) -> dict[str, Any]:
        values = {name: getattr(saying, name) for name in FIELDS if name in saying.model_fields_set}
        if not values:
            raise ApiError(422, f"nothing is said; send some of {', '.join(FIELDS)}")
        return {"clip": store.say(saying.clip_id, values, saying.by), "counts": store.counts()}

    @app.get("/media/clip/{clip_id}")
    def clip(clip_id: str) -> Response:
        return _sent(store.file_of(clip_id))

    @app.get("/media/picture/{clip_id}/{number}")
    def picture(clip_id: str, number: Annotated[int, PathParameter(ge=0, le=9)]) -> Response:
        return _sent(store.picture_of(clip_id, number))

    return app


def _sent(path: Path | None) -> Response:
    if path is None:
        raise ApiError(404, "there is no such file")
    return FileResponse(path, media_type=TYPES.get(path.suffix, "application/octet-stream"))


def _told(agreement: Agreement) -> dict[str, Any]:
    return vars(agreement) | {"precision": agreement.precision}


def _escaped(text: str) -> str:
    from html import escape

    return escape(text)
