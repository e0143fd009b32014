"""The `studio` command: a page on which people generate, curate and train."""

import argparse
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from cli.places import inputs
from cli.schemas import recipe_schema, training_schema
from cli.serve import add_serving, serving_of, token_of
from configs import CONFIGS
from core.errors import UserError
from core.sanitize import printable
from core.settings_file import read_yaml

if TYPE_CHECKING:
    from serving.serve import Serving
    from serving.studio.serve import Tools

HELP = "generate, curate and train on a page in the browser"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_serving(parser, "*", 8400, 6000)
    parser.add_argument(
        "--data", action="append", default=[], metavar="DIR",
        help="folders that Curate and Train may read; default: the current one",
    )  # fmt: skip
    parser.add_argument(
        "--commands", action="store_true",
        help="let whoever has the token curate and train, where others can reach --host; on this machine always",
    )  # fmt: skip


def run(parsed: argparse.Namespace) -> int:
    """Serve the page."""
    with inputs() as here:
        _studio(parsed, serving_of(parsed, here))
    return 0


def _studio(parsed: argparse.Namespace, serving: "Serving") -> None:
    from serving.listen import is_loopback
    from serving.studio.serve import studio

    token, is_new = token_of(parsed)
    tools = tools_of(parsed.data) if parsed.commands or is_loopback(parsed.host) else None
    if tools is None and not serving.models:
        raise UserError("there is nothing to show", field="models", fix="name a model, or add --commands")

    def tell(address: str) -> None:
        print(f"studio  {', '.join(map(printable, serving.models)) or 'without a model'}")
        print(f"at {address}/{f'?token={token}' if is_new else ''}")
        print("stop with Ctrl-C; jobs that wait are taken up by the next start", flush=True)

    with contextlib.suppress(KeyboardInterrupt):  # that is how it ends
        studio(serving, tools, parsed.host, parsed.port, token, tell)


def tools_of(data: list[str]) -> "Tools":
    """Return what the tabs Curate and Train offer.

    Raises:
        UserError: a folder that is none.
    """
    from serving.studio.serve import Tools

    roots = [Path(folder) for folder in data or ["."]]
    for root in roots:
        if not root.is_dir():
            raise UserError("there is no such folder", field="data", value=root)
    files = sorted(CONFIGS.glob("*.yaml"), key=lambda file: (file.stem != "default", file.stem))
    trains = {file.stem for file in files if "method" in read_yaml(file, "config")}
    return Tools(
        tuple(roots),
        recipes={file.stem: file for file in files if file.stem not in trains},
        configs={file.stem: file for file in files if file.stem in trains},
        schema=recipe_schema(),
        training=training_schema(),
    )
