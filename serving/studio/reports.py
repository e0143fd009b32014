"""Reports of outputs that the page made: the page, its pictures and clips, and nothing else of the folder."""

from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse

from core.errors import UserError
from serving.faults import ApiError
from serving.studio.places import named

TYPES = {".html": "text/html", ".jpg": "image/jpeg", ".png": "image/png", ".mp4": "video/mp4"}
FOLDERS = frozenset({"previews", "train"})
POLICY = (
    "default-src 'self' data: blob: 'unsafe-inline'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'"
)


def add_reports(app: FastAPI, outputs: Path) -> None:
    """Add the route.

    Args:
        app: the application.
        outputs: where outputs lie, each under its name.
    """

    @app.get("/reports/{name}/{place:path}", include_in_schema=False)
    def report(name: str, place: str) -> FileResponse:
        path = file_of(outputs, name, place)
        if path is None:
            raise ApiError(404, "there is no such file in a report")
        return FileResponse(path, media_type=TYPES[path.suffix], headers={"Content-Security-Policy": POLICY})


def file_of(outputs: Path, name: str, place: str) -> Path | None:
    """Return a file of a report; None where there is none, or where it is not a report's."""
    try:
        out = named(name, outputs).resolve()
    except UserError:
        return None
    path = Path(place)
    if "\0" in place or path.suffix not in TYPES or path.is_absolute():
        return None
    if place != "report.html" and (len(path.parts) < 2 or path.parts[0] not in FOLDERS):
        return None
    found = (out / path).resolve()
    return found if found.is_file() and found.is_relative_to(out) else None
