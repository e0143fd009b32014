"""The `serve` command: videos over HTTP."""

import argparse
import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from cli.places import Inputs, inputs, local, of_model
from core.errors import UserError
from core.sanitize import printable
from core.storage.urls import is_url

if TYPE_CHECKING:
    from serving.serve import Serving

HELP = "serve models over HTTP: jobs that make videos and pictures"
TOKEN_VARIABLE = "SELECTS_TOKEN"  # noqa: S105 the name of a variable
LONGEST_TOKEN = 4096


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_serving(parser, "+", 8200, 600)


def add_serving(parser: argparse.ArgumentParser, models: str, port: int, rate: int) -> None:
    """Add the arguments that say what is served, and how much of it."""
    parser.add_argument(
        "models", nargs=models, metavar="MODEL",
        help="a training run or pipeline folder, its URL, or NAME=FOLDER; first = default",
    )  # fmt: skip
    parser.add_argument("--output", required=True, metavar="DIR", help="where jobs and their files lie")
    add_address(parser, port)
    parser.add_argument("--lora", action="append", default=[], metavar="NAME=PATH", help="adapters requests may name")
    parser.add_argument("--queue", type=int, default=8, metavar="N", help="jobs that may wait; more get 429")
    parser.add_argument("--keep", type=int, default=1000, metavar="N", help="ended jobs whose files are kept")
    parser.add_argument("--memory", default="auto", metavar="MODE", help="as for `sample`")
    parser.add_argument("--vae-tiling", action="store_true", help="less memory for large pictures")
    parser.add_argument("--max-upload-mb", type=int, default=64, metavar="N", help="of a request")
    parser.add_argument("--rate", type=int, default=rate, metavar="N", help="requests a minute from one address")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of sampling")


def add_address(parser: argparse.ArgumentParser, port: int) -> None:
    """Add the arguments that say where a server listens and who may ask it."""
    parser.add_argument("--host", default="127.0.0.1", help="default: this machine alone; others need a token")
    parser.add_argument("--port", type=_port, default=port, help=f"0 takes a free one; default {port}")
    parser.add_argument(
        "--token-file", metavar="FILE",
        help=f"what requests must bring as a Bearer token; or {TOKEN_VARIABLE}; else one is made where --host needs it",
    )  # fmt: skip


def _port(text: str) -> int:
    if not text.isdigit() or int(text) >= 1 << 16:
        raise argparse.ArgumentTypeError(f"'{text}' is no port; name a number from 0 to 65535")
    return int(text)


def run(parsed: argparse.Namespace) -> int:
    """Serve models over HTTP."""
    with inputs() as here:
        _serve(parsed, serving_of(parsed, here))
    return 0


def _serve(parsed: argparse.Namespace, serving: "Serving") -> None:
    from serving.serve import serve

    token, is_new = token_of(parsed)

    def tell(address: str) -> None:
        print(f"serving {', '.join(map(printable, serving.models))} at {address}/v1 (description: {address}/docs)")
        if is_new:
            print(f"token   {token}   (shown once; --token-file keeps one)")
        print("stop with Ctrl-C; jobs that wait are taken up by the next start", flush=True)

    with contextlib.suppress(KeyboardInterrupt):  # that is how it ends
        serve(serving, parsed.host, parsed.port, token, tell)


def serving_of(parsed: argparse.Namespace, here: Inputs) -> "Serving":
    """Return what is served, with models and adapters on this machine.

    Raises:
        UserError: a number or a name that cannot be.
    """
    from controls import CONTROLS
    from controls.frames import map_makers
    from sampling.request import Lora, Options
    from serving.guard import Limits
    from serving.serve import Serving

    for flag, value in (("--queue", parsed.queue), ("--keep", parsed.keep), ("--rate", parsed.rate)):
        if value < 1:
            raise UserError(f"{flag} {value}: must be at least 1")
    if parsed.max_upload_mb < 1:
        raise UserError(f"--max-upload-mb {parsed.max_upload_mb}: must be at least 1")
    return Serving(
        models=named(parsed.models, "MODEL", here),
        folder=local(parsed.output, "output"),
        loras={name: Lora.parse(str(path)).path for name, path in named(parsed.lora, "--lora", here).items()},
        options=Options(
            memory=parsed.memory,
            vae_tiling=parsed.vae_tiling,
            keep_text_encoder=True,
            maps=map_makers(CONTROLS),
        ),
        most_waiting=parsed.queue,
        kept=parsed.keep,
        threads=parsed.threads,
        limits=Limits(parsed.max_upload_mb << 20, parsed.rate),
    )


def token_of(parsed: argparse.Namespace) -> tuple[str | None, bool]:
    """Return the token, and whether it was made now because others can reach the address."""
    from serving.listen import is_loopback, new_token

    token = read_token(parsed.token_file)
    is_new = token is None and not is_loopback(parsed.host)
    return (new_token() if is_new else token), is_new


def named(words: list[str], what: str, here: Inputs) -> dict[str, Path]:
    """Read `NAME=PATH`, or a path or URL whose last part is the name; what lies in buckets is copied here.

    Raises:
        UserError: two of one name, or an empty one.
    """
    found: dict[str, Path] = {}
    for word in words:
        name, has_name, path = word.partition("=")
        if is_url(word):
            name, path = word.rstrip("/").rpartition("/")[2], word
        elif not has_name:
            name, path = Path(word).resolve().name, word
        if not name or not path or name in found:
            raise UserError(f"{what} {word}: each needs a name of its own; write NAME=PATH")
        found[name] = here.at(path, of_model)
    return found


def read_token(file: str | None) -> str | None:
    """Return the token of a file or of the environment, None where there is neither.

    Raises:
        UserError: the file cannot be read, or the token is short.
    """
    token = os.environ.get(TOKEN_VARIABLE)
    if file is not None:
        from core.files import read_bounded

        try:
            token = read_bounded(Path(file), LONGEST_TOKEN).decode().strip()
        except (OSError, ValueError) as error:
            raise UserError(f"--token-file {file}: cannot be read ({error})") from None
    if token is not None and len(token) < 16:
        raise UserError("the token has fewer than 16 characters; take a longer one, such as `openssl rand -hex 24`")
    return token
