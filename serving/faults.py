"""What clients hear of what cannot be: one shape for every error, that of OpenAI's API with the field and the fix."""

from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException

from core.errors import nearest
from core.sanitize import printable, without_secrets
from serving.ledger import Fault
from serving.wire import said

KINDS = {429: "rate_limit_error", 500: "server_error", 503: "server_error"}


class ErrorFacts(BaseModel):
    """What is wrong.

    Attributes:
        message: one line: the problem and what to do about it.
        type: what kind of error.
        param: the field of the request at fault.
        code: the status, or a word.
    """

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(BaseModel):
    """The body of every answer that is an error."""

    error: ErrorFacts


@dataclass
class ApiError(Exception):
    """An answer that is an error.

    Attributes:
        status: of HTTP.
        message: one line.
        field: of the request.
        retry_after_s: when to ask again.
    """

    status: int
    message: str
    field: str | None = None
    retry_after_s: int | None = None


def response(error: ApiError) -> JSONResponse:
    """Return the answer."""
    facts = {
        "message": printable(without_secrets(error.message), 1000),
        "type": KINDS.get(error.status, "invalid_request_error"),
        "param": error.field,
        "code": str(error.status),
    }
    headers = {"Retry-After": str(error.retry_after_s)} if error.retry_after_s is not None else None
    return JSONResponse({"error": facts}, error.status, headers)


def refused(error: Exception) -> ApiError:
    """Return the answer to a request that the sampler refuses."""
    words, field = said(error)
    return ApiError(400, words, field)


def invalid(error: ValidationError, fields: list[str]) -> ApiError:
    """Return the answer to a request whose fields are not those of the API."""
    first = jsonable_encoder(error.errors(include_url=False, include_context=False, include_input=False))[0]
    place = ".".join(str(part) for part in first["loc"]) or None
    words = first["msg"][:1].lower() + first["msg"][1:]
    if first["type"] == "extra_forbidden":
        words = "there is no such field" + nearest(str(first["loc"][0]), fields)
    return ApiError(422, f"{place}: {words}" if place else words, place)


def as_json(fault: Fault) -> dict[str, Any]:
    """Return why a job failed."""
    words = f"{fault.problem}; {fault.fix}" if fault.fix else fault.problem
    return {"code": "failed", "message": words, "param": fault.field}


def answer_errors(app: FastAPI) -> None:
    """Let an application answer every error in this shape."""

    @app.exception_handler(ApiError)
    def own(http: Request, error: ApiError) -> JSONResponse:
        return response(error)

    @app.exception_handler(RequestValidationError)
    def validation(http: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        parts = [str(part) for part in first["loc"] if part not in ("body", "query", "path")]
        place = ".".join(parts) or None
        return response(ApiError(422, f"{place}: {first['msg']}" if place else first["msg"], place))

    @app.exception_handler(HTTPException)
    def plain(http: Request, error: HTTPException) -> JSONResponse:
        return response(ApiError(error.status_code, str(error.detail)))


ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorBody, "description": "Something in the request cannot be; `param` names the field."},
    401: {"model": ErrorBody, "description": "The token is missing or wrong."},
    413: {"model": ErrorBody, "description": "The request is too large."},
    422: {"model": ErrorBody, "description": "A field is not of its type, or there is no such field."},
    429: {"model": ErrorBody, "description": "The queue is full, or too many requests; see Retry-After."},
    503: {"model": ErrorBody, "description": "The server is ending."},
}
"""for the description of every route"""
NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"model": ErrorBody, "description": "There is no such video."}}
