"""Shared footage and runs; one Ray for the whole session."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from object_servers import Service

TESTS = Path(__file__).resolve().parent
# Workers and media processes find the project, and the operators that tests define.
os.environ["PYTHONPATH"] = os.pathsep.join([
    *map(str, (TESTS.parent, TESTS, *sorted(folder for folder in TESTS.iterdir() if folder.is_dir()))),
    *filter(None, [os.environ.get("PYTHONPATH")]),
])
# No test downloads, wherever it runs.
os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real footage with known truth, kept outside the project."""
    folder = Path(os.environ.get("SELECTS_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not (folder / "videos" / "MANIFEST.json").is_file():
        pytest.skip("no real footage: set SELECTS_SHARED to a folder with videos/ and truth/")
    return folder


@pytest.fixture(scope="session")
def shared_videos(shared: Path) -> Path:
    return shared / "videos"


@pytest.fixture(scope="session")
def demo_footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's footage, drawn once."""
    from demo.footage import draw_demo

    folder = tmp_path_factory.mktemp("footage")
    draw_demo(folder)
    return folder


@pytest.fixture(scope="session")
def ray_here() -> Iterator[None]:
    """Ray within this process, on two CPUs whatever the machine has."""
    from curation.engine.ray_runner import start_ray

    start_ray(None, cpus=2)
    yield
    import ray

    ray.shutdown()


@pytest.fixture(scope="session")
def s3_address() -> Iterator[str]:
    """The address of a real S3 over HTTP, on loopback."""
    from buckets import s3_server

    with s3_server() as address:
        yield address


@pytest.fixture
def bucket_url(s3_address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """An empty bucket, for this test and the processes that it starts."""
    from buckets import make_bucket, point_at

    point_at(s3_address, monkeypatch, tmp_path)
    return f"s3://{make_bucket(s3_address)}"


@pytest.fixture(scope="session")
def service_of() -> Iterator[Callable[[str], "Service"]]:
    """From the name of an object store (`object_servers.SERVICES`) to it, running; each is started once."""
    from object_servers import SERVICES, Service

    running: dict[str, Service] = {}
    with ExitStack() as stack:

        def start(name: str) -> Service:
            if name not in running:
                running[name] = stack.enter_context(SERVICES[name]())
            return running[name]

        yield start
