"""The `serve` command: the HTTP API over some models, on this machine unless told otherwise."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from core.files import make_folder
from core.lock import locked
from models.quiet import quiet_libraries
from sampling.request import DEFAULTS, Options
from serving.engine import Engine
from serving.guard import App, Guard, Limits
from serving.http import build_app
from serving.intake import Intake
from serving.jobs import KEPT, Jobs
from serving.ledger import Ledger
from serving.listen import check_token, hosts_of, listen
from serving.offered import Offered


@dataclass(frozen=True)
class Serving:
    """How models are served.

    Attributes:
        models: folders by name; the first is the default.
        folder: where jobs and their files lie; they outlive the server.
        loras: adapters by name, which requests may ask for.
        options: how models are opened.
        most_waiting: jobs that may wait.
        kept: ended jobs whose files are kept.
        threads: of the CPU, for sampling.
        limits: sizes and rates of requests.
    """

    models: Mapping[str, Path]
    folder: Path
    loras: Mapping[str, Path]
    options: Options = DEFAULTS
    most_waiting: int = 8
    kept: int = KEPT
    threads: int = 1
    limits: Limits = Limits()


def guarded_app(serving: Serving, host: str, token: str | None) -> App:
    """Return the application with its guard.

    Args:
        serving: what is served.
        host: the address; for one that others can reach a token is needed.
        token: which requests must bring.

    Raises:
        UserError: a model that cannot be served, or no token where one is needed.
        ModelError: likewise, told by the models.
    """
    check_token(host, token)
    intake, engine = opened(serving)
    return Guard(build_app(intake, engine), token, hosts_of(host), serving.limits)


def opened(serving: Serving, *, previews: bool = False) -> tuple[Intake, Engine]:
    """Return what takes requests and what samples; nothing runs yet.

    Args:
        serving: what is served.
        previews: whether small pictures of the running job are kept.

    Raises:
        UserError: a model that cannot be served.
        ModelError: likewise, told by the models.
    """
    quiet_libraries()
    offered = Offered(serving.models, serving.loras, serving.options)
    ledger = Ledger(serving.folder / "jobs")
    jobs = Jobs(ledger, serving.most_waiting, serving.kept)
    return Intake(offered, jobs, ledger), Engine(jobs, ledger, offered, serving.threads, previews=previews)


def serve(serving: Serving, host: str, port: int, token: str | None, on_ready: Callable[[str], None]) -> None:
    """Serve until interrupted.

    Args:
        serving: what is served.
        host: address.
        port: 0 takes a free one.
        token: which requests must bring; None: nobody is asked.
        on_ready: called with the address once requests are taken.

    Raises:
        UserError: the address cannot be had, another server uses the folder, or a model cannot be served.
        ModelError: likewise, told by the models.
    """
    make_folder(serving.folder)
    with locked(serving.folder):
        app = guarded_app(serving, host, token)
        listen(app, host, port, on_ready)
