"""Shared footage and runs; one Ray for the whole session."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Workers and media processes find the project, and the operators that tests define.
os.environ["PYTHONPATH"] = os.pathsep.join([
    *map(str, Path(__file__).resolve().parents[:2]),
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
    from curation.demo_footage import draw_demo

    folder = tmp_path_factory.mktemp("footage")
    draw_demo(folder)
    return folder


@pytest.fixture(scope="session")
def ray_here() -> Iterator[None]:
    """Ray within this process, on two CPUs whatever the machine has."""
    from curation.ray_runner import start_ray

    start_ray(None, cpus=2)
    yield
    import ray

    ray.shutdown()
