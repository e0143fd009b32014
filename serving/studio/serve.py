"""The `studio` command: the page and the HTTP API over some models, on this machine unless told otherwise."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.files import make_folder
from core.lock import locked
from serving.guard import Guard
from serving.http import build_app
from serving.listen import check_token, hosts_of, listen
from serving.serve import Serving, opened
from serving.studio.desk import Commands, Desk
from serving.studio.headers import Headers
from serving.studio.page import mount_page
from serving.studio.runs import Runs


@dataclass(frozen=True)
class Tools:
    """What the tabs Curate and Train may use.

    Attributes:
        roots: folders whose files may be read.
        recipes: files by name; the first is the default.
        configs: training configs by name.
        schema: JSON Schema of recipes.
        training: JSON Schema of training configs.
    """

    roots: tuple[Path, ...]
    recipes: Mapping[str, Path]
    configs: Mapping[str, Path]
    schema: Mapping[str, Any]
    training: Mapping[str, Any]


def studio(
    serving: Serving, tools: Tools | None, host: str, port: int, token: str | None, on_ready: Callable[[str], None]
) -> None:
    """Serve the page until interrupted.

    Args:
        serving: what is served.
        tools: for the tabs Curate and Train; None: they are not there.
        host: address.
        port: 0 takes a free one.
        token: which requests must bring; None: nobody is asked.
        on_ready: called with the address once requests are taken.

    Raises:
        UserError: the address cannot be had, another server uses the folder, or a model cannot be served.
        ModelError: likewise, told by the models.
    """
    check_token(host, token)
    folder = serving.folder.resolve()
    make_folder(folder)
    with locked(folder):
        intake, engine = opened(serving, previews=True)
        runs = Runs()
        commands = None
        if tools is not None:
            roots = tuple(root.resolve() for root in tools.roots)
            commands = Commands(runs, roots, folder, tools.recipes, tools.configs, tools.schema, tools.training)
        shown = folder / "shown"
        make_folder(shown)
        desk = Desk(intake, engine, shown, commands)
        app = mount_page(build_app(intake, engine), desk, serving.limits.body_bytes)
        try:
            listen(Guard(Headers(app), token, hosts_of(host), serving.limits), host, port, on_ready)
        finally:
            runs.stop()
