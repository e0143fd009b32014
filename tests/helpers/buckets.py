"""A real S3 over HTTP for tests: moto's server on loopback, and buckets of one's own in it."""

import importlib.util
import itertools
import logging
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

KEY_ID, SECRET = "AKIAPLANTEDKEYID0000", "planted-secret-0123456789abcdefghijklmn"
_numbers = itertools.count(1)


@contextmanager
def s3_server() -> Iterator[str]:
    """Run moto's server; yields its address. Skips where moto or obstore is missing."""
    for name in ("moto", "obstore", "flask"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"no {name}: pip install obstore 'moto[server]'")
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def make_bucket(address: str) -> str:
    """Make a bucket that no other test uses; return its name."""
    name = f"films-{next(_numbers)}"
    urllib.request.urlopen(urllib.request.Request(f"{address}/{name}", method="PUT"), timeout=30).close()  # noqa: S310
    return name


def point_at(address: str, patch: pytest.MonkeyPatch, home: Path) -> None:
    """Let this process and those that it starts use a server, with planted credentials and no profile."""
    for name, value in {
        "AWS_ENDPOINT_URL": address,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_CONFIG_FILE": str(home / "no-config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(home / "no-credentials"),
    }.items():
        patch.setenv(name, value)


def upload(folder: Path, url: str) -> None:
    """Copy the files of a folder below a URL."""
    from core.storage.opening import open_store

    store = open_store(url)
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        store.put(path.relative_to(folder).as_posix(), path)
