"""Captions from any server with OpenAI's chat interface: `vllm serve`, SGLang, llama.cpp, a cloud.

How it waits for a server that is busy, away or dead is told in `connection`.
"""

import base64
import json
import re
import uuid
from dataclasses import dataclass
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

import cv2
import numpy as np

from captioners.ask import Ask, Reply, Request, frame_times_s, video_metadata
from captioners.asking import Asking, Describe, described
from captioners.connection import Connection, InvalidReply
from core.errors import RunError
from core.sanitize import printable
from core.settings import key
from curation.types import Frames, Sampling


@dataclass(frozen=True)
class Server:
    """Where a server is, and how it is spoken to."""

    url: str = key("http://127.0.0.1:8000/v1", "where its interface begins (the default is `vllm serve`'s)")
    model: str | None = key(None, "the model's name there; null: the only one that the server has")
    slots: int = key(
        32, "requests in flight at once, of each worker; a few more than the server works on, so that it never waits"
    )
    api_key_env: str = key("OPENAI_API_KEY", "environment variable, where workers run, that holds the key, if any")
    media: Literal["images", "video"] = key(
        "images", "frames as images, each after its time (any server), or as one video with metadata (vLLM)"
    )
    jpeg_quality: int = key(90, "of the frames sent, 1 to 100")
    limit_key: Literal["max_tokens", "max_completion_tokens"] = key(
        "max_tokens", "what the server calls the bound on a reply; OpenAI's newer models: max_completion_tokens"
    )
    timeout_s: float = key(300.0, "the longest that a request may take, to the last byte of its reply")
    patience_s: float = key(900.0, "time without any success after which the run ends; the same command continues it")
    extra: dict[str, Any] = key({}, "further keys of every request, such as {chat_template_kwargs: {…}}")

    def __post_init__(self) -> None:
        """Refuse what cannot be reached, and secrets, since a recipe is kept with its output."""
        parts = urlsplit(self.url)
        if parts.username or parts.password:
            raise ValueError("url: it holds a password and would be stored; put the key into a variable (api_key_env)")
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("url: give http://HOST:PORT/v1 or the like, without ?…")
        if not re.fullmatch(r"[A-Za-z_]\w*", self.api_key_env, re.ASCII):
            raise ValueError("api_key_env: give the name of an environment variable, never the key itself")
        if self.slots < 1 or not 1 <= self.jpeg_quality <= 100 or min(self.timeout_s, self.patience_s) <= 0:
            raise ValueError("slots, timeout_s and patience_s must be above 0, jpeg_quality 1 to 100")

    def open(self) -> tuple[Ask, str]:
        """Return the function that asks the server, and the name of its model; waits for a server that is starting.

        Raises:
            RunError: nobody answers, or the server has not one model but several.
        """
        connection = Connection(self.url, self.slots, self.api_key_env, self.timeout_s, self.patience_s)
        model = self.model or _only_model(connection, self.url)

        def ask(request: Request) -> Reply:
            # vLLM makes its own id of a reply from this header; so a reply that went astray is found out.
            name = f"clip-{request.clip_id}-{uuid.uuid4().hex[:12]}"
            body = json.dumps(request_body(self, model, request)).encode()
            headers = {"X-Request-Id": name}
            return connection.send(
                "POST", "/chat/completions", body, headers, lambda reply: read_reply(reply, request.clip_id, name)
            )

        return ask, model


@dataclass(frozen=True)
class Endpoint:
    """Captions from a server with OpenAI's chat interface, many at a time."""

    server: Server = key(Server(), "which server")
    asking: Asking = key(Asking(), "what it is asked")
    rewriter: Server | None = key(None, "another server, to merge descriptions (asking.rewrite); null: the same")

    pool: ClassVar[str | None] = "caption"

    @property
    def sampling(self) -> Sampling | None:
        """RGB frames at uniform times."""
        return self.asking.sampling

    @property
    def slots(self) -> int:
        """Threads that call the loaded function: some encode frames while each of the server's slots is at work."""
        return self.server.slots + max(2, self.server.slots // 8)

    def load(self) -> Describe:
        """Open connections and give the captioning function.

        Raises:
            RunError: nobody answers where the server had to be asked for its model.
        """
        ask, model = self.server.open()
        rewriter = self.rewriter.open()[0] if self.rewriter else None
        return described(ask, self.asking, model, rewriter)


def request_body(server: Server, model: str, request: Request) -> dict[str, Any]:
    """Return the body of a chat request: the frames, then the question."""
    content: list[dict[str, Any]] = []
    body: dict[str, Any] = {"model": model, server.limit_key: request.max_tokens, "temperature": request.temperature}
    frames = request.frames
    if frames is not None and len(frames) > 1 and server.media == "video":
        # vLLM takes a video as a list of JPEGs and, beside it, what it should know of their times.
        url = f"data:video/jpeg;base64,{','.join(jpegs(frames, server.jpeg_quality))}"
        content.append({"type": "video_url", "video_url": {"url": url}})
        body["media_io_kwargs"] = {"video": {"num_frames": -1, **video_metadata(frames)}}
    elif frames is not None:
        for time_s, jpeg in zip(frame_times_s(frames), jpegs(frames, server.jpeg_quality), strict=True):
            if len(frames) > 1:
                content.append({"type": "text", "text": f"{time_s:.1f} s:"})
            content.append({"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{jpeg}"}})
    content.append({"type": "text", "text": request.prompt})
    return body | {"messages": [{"role": "user", "content": content}]} | server.extra


def jpegs(frames: Frames, quality: int) -> list[str]:
    """Encode frames as JPEG in base64."""
    flags = [cv2.IMWRITE_JPEG_QUALITY, quality]
    encoded = (cv2.imencode(".jpg", np.ascontiguousarray(rgb[..., ::-1]), flags)[1] for rgb in frames.pixels)
    return [base64.b64encode(jpeg.tobytes()).decode("ascii") for jpeg in encoded]


def read_reply(reply: Any, clip_id: str, name: str) -> Reply:
    """Read the reply to the request of this name.

    Raises:
        InvalidReply: it has no text where text should be, or answers another request.
    """
    try:
        choice, own_name = reply["choices"][0], str(reply.get("id"))
        message, is_truncated = choice["message"], choice.get("finish_reason") == "length"
        text = message.get("content") or message.get("refusal") or ""
    except (KeyError, IndexError, TypeError, AttributeError):
        raise InvalidReply("no text where text should be") from None
    if isinstance(text, list):  # some servers answer in parts, as they are asked
        text = "".join(str(part.get("text") or "") for part in text if isinstance(part, dict))
    if not isinstance(text, str):
        raise InvalidReply("no text where text should be")
    if "clip-" in own_name and name not in own_name:
        raise InvalidReply("it answers another request")
    return Reply(clip_id, text, is_truncated)


def _only_model(connection: Connection, url: str) -> str:
    def read(reply: Any) -> list[str]:
        try:
            return [str(model["id"]) for model in reply["data"]]
        except (KeyError, TypeError):
            raise InvalidReply("no list of models") from None

    names = connection.send("GET", "/models", None, {}, read)
    if len(names) != 1:
        there = printable(", ".join(names) or "none", 300)
        raise RunError(
            f"{url}: the server has {len(names)} models ({there}); name one as caption.settings.server.model"
        )
    return names[0]
