#!/usr/bin/env python3
"""Measure listing a container: seconds, memory, and what a kept listing saves.

    python benchmarks/azure_listing.py [--blobs 200000] [--latency_ms 50]

A service in a process of its own stands in for Azure: it gives the names of blobs that nobody
uploaded, 5,000 a page, as the real one does (List Blobs of the REST API), each page after some
latency. Processes of their own survey a container of a tenth of the blobs and of all, as a dry run
does: once the names are listed and kept, once the kept listing is read. None of them is drawn.
"""

import argparse
import contextlib
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

from machine import describe

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

_ACCOUNT, _CONTAINER = "stand0in", "pictures"
_ROOT = f"azfs://{_ACCOUNT}/{_CONTAINER}/p"
_FOLDERS = 40
_PAGE = 5000


class Surveyed(NamedTuple):
    """What a survey told of itself."""

    rows: int
    seconds: float
    cpu_s: float
    grown_bytes: int  # peak resident memory beyond that before it began
    requests: dict[str, int]  # by kind, as the program counts them


def names(blobs: int, prefix: str) -> list[str]:
    """Return the names of a container of so many blobs that start so, in order."""
    each = blobs // _FOLDERS
    found = []
    for folder in range(_FOLDERS):
        start = f"p/{folder:03d}/"
        if start.startswith(prefix) or prefix.startswith(start):
            found += [
                name for n in range(each) if (name := f"{start}{n:07d}.jpg").startswith(prefix)
            ]
    return found


def page(blobs: int, prefix: str, delimiter: str, marker: str, most: int = _PAGE) -> bytes:
    """Return a page of names as the REST API has it."""
    if delimiter and prefix == "p/":
        parts = [f"<BlobPrefix><Name>p/{n:03d}/</Name></BlobPrefix>" for n in range(_FOLDERS)]
        following = ""
    else:
        start, found = int(marker or 0), names(blobs, prefix)
        parts = [_blob(name) for name in found[start : start + most]]
        following = str(start + most) if start + most < len(found) else ""
    return (
        '<?xml version="1.0" encoding="utf-8"?><EnumerationResults><Blobs>'
        f"{''.join(parts)}</Blobs><NextMarker>{following}</NextMarker></EnumerationResults>"
    ).encode()


def _blob(name: str) -> str:
    digest = hashlib.md5(name.encode(), usedforsecurity=False).digest()
    return (
        f"<Blob><Name>{name}</Name><Properties><Last-Modified>Sun, 13 Sep 2020 12:26:40 GMT"
        f"</Last-Modified><Etag>0x{digest[:8].hex()}</Etag><Content-Length>110000</Content-Length>"
        f"<Content-Type>image/jpeg</Content-Type><Content-MD5>{b64encode(digest).decode()}"
        "</Content-MD5><BlobType>BlockBlob</BlobType><AccessTier>Hot</AccessTier></Properties></Blob>"
    )


def _handler(blobs: int, latency_s: float, asked: Counter[str]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            query = {
                name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()
            }
            asked[query.get("comp", "read")] += 1
            time.sleep(latency_s)
            asks = [query.get(name, "") for name in ("prefix", "delimiter", "marker")]
            body = page(blobs, *asks, min(int(query.get("maxresults", _PAGE)), _PAGE))
            self._answer(200, body)

        def do_HEAD(self) -> None:
            asked["head"] += 1
            self._answer(404, b"", "BlobNotFound")

        def _answer(self, status: int, body: bytes, code: str = "") -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Type", "application/xml")
            if code:
                self.send_header("x-ms-error-code", code)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@contextlib.contextmanager
def service(blobs: int, latency_s: float = 0.0) -> Iterator[tuple[str, Counter[str]]]:
    """Serve a container; yield a connection string, and the requests so far by kind."""
    asked: Counter[str] = Counter()
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(blobs, latency_s, asked)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_address[1]}/{_ACCOUNT}"
        # Nobody checks the signature. In pieces, as a search of the sources finds whole ones.
        key = "Account" + f"Key={b64encode(b'nobody checks this').decode()}"
        yield f"AccountName={_ACCOUNT};{key};BlobEndpoint={endpoint}", asked
        server.shutdown()


def survey(folder: str) -> Surveyed:
    """Survey the container as a dry run does, with a listing cache in a folder."""
    from beam_dedup.estimate import survey as count_rows
    from transforms.listing import iterate_inputs
    from transforms.storage import traffic
    from transforms.storage.cache import ListingCache

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started, cpu = time.monotonic(), time.process_time()
    cache = ListingCache(folder, 3600.0)
    rows = count_rows(iterate_inputs([_ROOT], cache=cache, keep=True)).inputs
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    requests: Counter[str] = Counter()
    for one in traffic.take():
        requests[one.kind] += one.requests
    seconds = time.monotonic() - started
    return Surveyed(rows, seconds, time.process_time() - cpu, grown * 1024, dict(requests))


def _survey_apart(folder: str, connection: str) -> Surveyed:
    """Do it in a process of its own, whose memory nothing else fills."""
    done = subprocess.run(
        [sys.executable, __file__, "--survey", folder],
        env={**os.environ, "AZURE_STORAGE_CONNECTION_STRING": connection},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return Surveyed(*json.loads(done.stdout.splitlines()[-1]))


def _serve(blobs: int, latency_s: float) -> None:
    """Serve until standard input ends."""
    with service(blobs, latency_s) as (connection, _):
        print(connection, flush=True)
        sys.stdin.read()


def main() -> int:
    """Run it; see the module's text."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--blobs", type=int, default=200_000)
    parser.add_argument("--latency_ms", type=float, default=50.0)
    parser.add_argument("--survey", help=argparse.SUPPRESS)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.survey:
        print(json.dumps(survey(args.survey)))
        return 0
    if args.serve:
        _serve(args.serve, args.latency_ms / 1000)
        return 0
    print(describe())
    for blobs in (args.blobs // 10, args.blobs):
        command = [sys.executable, __file__, "--serve", str(blobs)]
        command.append(f"--latency_ms={args.latency_ms}")
        with (
            tempfile.TemporaryDirectory(prefix="beam-dedup-listing-") as folder,
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            ) as server,
        ):
            connection = server.stdout.readline().strip() if server.stdout else ""
            for what in ("listed and kept", "kept listing read"):
                one = _survey_apart(folder, connection)
                print(
                    f"{one.rows:>9,} blobs {what:<17}: {one.seconds:.1f} s, CPU {one.cpu_s:.1f} s, "
                    f"memory +{one.grown_bytes / 2**20:.0f} MiB, requests {one.requests}"
                )
            if server.stdin:
                server.stdin.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
