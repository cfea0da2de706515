"""Azurite, the emulator of Azure Blob Storage: start it, fill it, read it back.

Tests take it from the fixture ``azurite`` (``tests/conftest.py``), benchmarks from ``started``.
"""

import contextlib
import itertools
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

# The account and key that every Azurite has, which Microsoft documents; they protect nothing:
# https://learn.microsoft.com/azure/storage/common/storage-connect-azurite
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

_INSTALLED = Path(__file__).parents[1] / ".venv/azurite/node_modules/azurite/dist/src/blob/main.js"
_STARTS_WITHIN_S = 60.0
_ENDS_WITHIN_S = 10.0
# Longer than any test leaves a connection idle: node's own 5 s would close it under a client.
_KEEP_ALIVE_S = 600


def program() -> Path:
    """Return where Azurite's main.js must be: BEAM_DEDUP_AZURITE, or where make puts it."""
    return Path(os.environ.get("BEAM_DEDUP_AZURITE") or _INSTALLED)


def missing() -> str:
    """Return why Azurite cannot be started here; empty if it can."""
    if shutil.which("node") is None:
        return "Azurite needs node, which is not installed"
    if not program().is_file():
        return f"Azurite is not at {program()}: run make test, or set BEAM_DEDUP_AZURITE"
    return ""


class Azurite:
    """A running Azurite with one account, and a client of the SDK for a test's own use."""

    def __init__(self, endpoint: str, pid: int) -> None:
        """Connect to the Azurite that answers at an endpoint, ``http://HOST:PORT/ACCOUNT``."""
        # Not above: every test session imports this module, and few need the SDK.
        from azure.storage.blob import BlobServiceClient

        self.account = ACCOUNT
        self.key = KEY
        self.endpoint = endpoint
        self._pid = pid
        self.client = BlobServiceClient.from_connection_string(self.connection_string())
        self._numbers = itertools.count(1)

    def connection_string(self, endpoint: str = "") -> str:
        """Return the string that connects to an endpoint: a proxy's, or else Azurite's own."""
        parts = ["DefaultEndpointsProtocol=http", f"AccountName={self.account}"]
        # In pieces, so that a search of the sources for a key in clear text finds nothing.
        parts += ["Account" + f"Key={self.key}", f"BlobEndpoint={endpoint or self.endpoint}"]
        return ";".join(parts)

    def container(self) -> str:
        """Make an empty container with a name of its own; return the name."""
        name = f"made-{next(self._numbers)}-{time.time_ns():x}"
        self.client.create_container(name)
        return name

    def upload(self, container: str, blobs: Mapping[str, bytes]) -> None:
        """Write blobs by name, over those that are there."""
        with self.client.get_container_client(container) as client:
            for name, data in blobs.items():
                client.upload_blob(name, data, overwrite=True)

    def read(self, container: str, name: str) -> bytes:
        """Return the contents of a blob."""
        return self.client.get_blob_client(container, name).download_blob().readall()

    def names(self, container: str) -> list[str]:
        """Return the names of a container's blobs, in the service's order."""
        return list(self.client.get_container_client(container).list_blob_names())

    def cpu_s(self) -> float:
        """Return the CPU seconds that Azurite took; Linux only (proc(5))."""
        told = Path(f"/proc/{self._pid}/stat").read_text(encoding="ascii").rpartition(")")[2]
        user, system = told.split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def started(location: Path) -> Iterator[Azurite]:
    """Start Azurite on a free port of 127.0.0.1 and end it when the block ends.

    Args:
        location: a folder of its own, where it keeps what is uploaded and its log.

    Raises:
        RuntimeError: it did not start; the message ends with what it wrote.
    """
    location.mkdir(parents=True, exist_ok=True)
    log = location / "azurite.log"
    command = ["node", str(program()), "--blobHost", "127.0.0.1", "--blobPort", "0"]
    command += ["--location", str(location), "--blobKeepAliveTimeout", str(_KEEP_ALIVE_S)]
    command += ["--silent", "--skipApiVersionCheck", "--disableTelemetry"]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
        )
    try:
        server = Azurite(f"{_listening(process, log)}/{ACCOUNT}", process.pid)
        with server.client:
            yield server
    finally:
        _end(process)


def _listening(process: "subprocess.Popen[bytes]", log: Path) -> str:
    """Wait until Azurite tells the address that it answers at; return it."""
    until = time.monotonic() + _STARTS_WITHIN_S
    while process.poll() is None and time.monotonic() < until:
        told = re.search(r"listens on (http://\S+)", log.read_text(encoding="utf-8"))
        if told:
            return told.group(1)
        time.sleep(0.02)
    raise RuntimeError(f"Azurite did not start: {log.read_text(encoding='utf-8')[-2000:]}")


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(_ENDS_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
