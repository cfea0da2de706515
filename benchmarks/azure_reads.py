#!/usr/bin/env python3
"""Measure reading from Azure Blob Storage: latency hidden, faults survived, bytes downloaded once.

    python benchmarks/azure_reads.py [--blobs 1000] [--latency_ms 100] [--rate 100] [--seed 1]

Makes JPEGs of about 60 to 110 KB, uploads them to Azurite, and reads them through a proxy:

1. behind added latency, with one reader after the other, with ``ReadAhead`` alone, and with the
   whole of ``run --profile fast``, one object at a time and as it comes;
2. with every fifth request failing (429, 503, a reset in the middle of the body, in turn) and
   ``--max_requests_per_second``;
3. and counts the bytes that were sent in both for each byte of the blobs.

Each line says what Azurite and the proxy themselves took of the machine: what they take is not
there for the program.
"""

import argparse
import concurrent.futures
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from azure_demo import run, without_azure
from machine import describe
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from beam_dedup.reports import Report
from tests.azurite import ACCOUNT, Azurite, missing, started
from tests.faulty import Exchange, Fault, Plan, Proxy, failing, nth
from tests.pictures import photo, saved
from transforms.access import Access
from transforms.storage.azure.account import account_of
from transforms.storage.azure.names import BlobName
from transforms.storage.reads import ReadAhead, Wanted

_CONTAINER = "reads"
_URI = f"azfs://{ACCOUNT}/{_CONTAINER}"
_SIDES = (660, 880)  # pixels of the longer side: with their grain, 60 to 110 KB
_GRAIN = 5.0  # deviation, of 255
_EVERY = 5  # every so many-th request fails
_CONNECTION = "AZURE_STORAGE_CONNECTION_STRING"


class Servers(NamedTuple):
    """CPU seconds that what stands in for Azure took."""

    azurite_s: float
    proxy_s: float

    def __str__(self) -> str:
        """Return it as the lines have it."""
        return f"CPU of Azurite {self.azurite_s:.1f} s, of the proxy {self.proxy_s:.1f} s"


class Reading(NamedTuple):
    """What a reader alone did."""

    blobs: int
    size_bytes: int
    seconds: float
    cpu_s: float  # of the reading process
    most_held_bytes: int  # the greatest sum of what was under way or waiting to be taken


def picture(seed: int, grain: np.ndarray) -> bytes:
    """Return a JPEG of a photograph with grain, of 60 to 110 KB.

    Args:
        seed: another picture for each.
        grain: float32 [h, w, 3], at least as large as the picture.
    """
    width = _SIDES[0] + 37 * seed % (_SIDES[1] - _SIDES[0])
    height = width * 3 // 4
    smooth = np.asarray(photo(seed, width // 2, height // 2))
    large = cv2.resize(smooth, (width, height), interpolation=cv2.INTER_CUBIC)
    noisy = large + np.roll(grain, 7 * seed, axis=0)[:height, :width]
    return saved(
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)), quality=89, subsampling=2
    )


def make_blobs(azurite: Azurite, count: int, seed: int) -> list[int]:
    """Upload so many pictures; return their sizes in bytes."""
    size = (_SIDES[1], _SIDES[1], 3)
    grain = np.random.default_rng(seed).normal(0.0, _GRAIN, size).astype(np.float32)
    azurite.client.create_container(_CONTAINER)
    sizes = []
    for number in range(count):
        data = picture(seed * 1_000_000 + number, grain)
        azurite.upload(_CONTAINER, {f"{number % 10}/{number:06d}.jpg": data})
        sizes.append(len(data))
    return sizes


def read_alone(connection: str, access: Access, is_ahead: bool) -> Reading:
    """Read every blob in this process, after listing them; only the reads are timed.

    Args:
        connection: the connection string.
        access: bounds the reads.
        is_ahead: with ``ReadAhead``; else one blob after the other.
    """
    os.environ[_CONNECTION] = connection
    account = account_of(ACCOUNT, access)
    found = [blob for page in account.pages(_CONTAINER, "") for blob in page]
    begun, cpu, most, sizes = time.monotonic(), time.process_time(), 0, []
    if is_ahead:
        with ReadAhead[None](access, 2**30) as ahead:
            for blob in found:
                uri = BlobName(ACCOUNT, _CONTAINER, blob.name).uri
                ahead.add(None, Wanted(uri, blob.size_bytes, blob.etag))
                if ahead.is_full:
                    sizes.append(len(ahead.take()[1].data))
            while ahead:
                sizes.append(len(ahead.take()[1].data))
            most = ahead.most_held_bytes
    else:
        for blob in found:
            name = BlobName(ACCOUNT, _CONTAINER, blob.name)
            sizes.append(len(account.get(name, 2**30, blob.size_bytes, blob.etag)))
            most = max(most, sizes[-1])
    seconds, cpu_s = time.monotonic() - begun, time.process_time() - cpu
    return Reading(len(sizes), sum(sizes), seconds, cpu_s, most)


class Bench:
    """The blobs, and what is measured on them."""

    def __init__(self, azurite: Azurite, sizes: list[int], scratch: Path) -> None:
        """Measure what is in a container.

        Args:
            azurite: holds the blobs.
            sizes: theirs, in bytes.
            scratch: a folder for reports.
        """
        self._azurite = azurite
        self._sizes = sizes
        self._scratch = scratch
        self._runs = 0

    def alone(self, latency_s: float, access: Access, is_ahead: bool) -> Reading:
        """Read behind latency in a process of its own; print and return what it took."""
        with Proxy(self._azurite.endpoint, latency_s=latency_s) as proxy:
            before = self._servers(proxy)
            connection = self._azurite.connection_string(proxy.endpoint)
            fresh = multiprocessing.get_context("spawn")
            with concurrent.futures.ProcessPoolExecutor(1, fresh) as pool:
                read = pool.submit(read_alone, connection, access, is_ahead).result()
            took = _since(before, self._servers(proxy))
        if (read.blobs, read.size_bytes) != (len(self._sizes), sum(self._sizes)):
            sys.exit(f"{len(self._sizes)} blobs of {sum(self._sizes)} bytes, but read: {read}")
        name = f"ReadAhead, {access.concurrency} at once" if is_ahead else "one after the other"
        print(
            f"reader alone, {name}: {read.seconds:.1f} s, {read.blobs / read.seconds:.0f} blobs/s, "
            f"at most {read.most_held_bytes / 2**20:.1f} MiB in flight (bound "
            f"{access.memory_bytes / 2**20:.0f}), {proxy.peak_at_once} requests at once; CPU of "
            f"the reader {read.cpu_s:.1f} s; {took}",
            flush=True,
        )
        return read

    def whole(
        self, name: str, plan: Plan | None, latency_s: float, *options: str
    ) -> tuple[float, Proxy, Report]:
        """Run the program; print what it took; return seconds, the proxy, and the report."""
        self._runs += 1
        output = str(self._scratch / f"out-{self._runs}")
        with Proxy(self._azurite.endpoint, plan, latency_s=latency_s) as proxy:
            before = self._servers(proxy)
            secret = {_CONNECTION: self._azurite.connection_string(proxy.endpoint)}
            options = ("--quiet", "--profile=fast", "--workers=1", *options)
            seconds = run(_URI, output, options, without_azure() | secret)
            took = _since(before, self._servers(proxy))
        print(
            f"run --profile fast, {name}: {seconds:.1f} s, {len(self._sizes) / seconds:.0f} "
            f"images/s, {proxy.peak_at_once} requests at once, at most {proxy.peak_per_second()} "
            f"in any one second; {took}",
            flush=True,
        )
        report = Report.open(output)
        told = report.summary["requests"]
        print(
            f"  the proxy saw {len(proxy.exchanges)} requests; the summary counts {told['sent']}, "
            f"{told['retries']} retries, {told['seconds_throttled']:.1f} s throttled"
        )
        return seconds, proxy, report

    def latency(self, latency_s: float, concurrency: int) -> Proxy:
        """Measure what is hidden of a latency; return the proxy of the fast run."""
        slow = self.alone(latency_s, Access(concurrency=1), is_ahead=False)
        fast = self.alone(latency_s, Access(concurrency=concurrency), is_ahead=True)
        print(f"  the reader alone is {slow.seconds / fast.seconds:.1f} times as fast")
        one, *_ = self.whole("one object at a time", None, latency_s, "--read_concurrency=1")
        at_once = f"--read_concurrency={concurrency}"
        many, proxy, report = self.whole(f"{concurrency} at once", None, latency_s, at_once)
        print(f"  the whole pipeline is {one / many:.1f} times as fast; {self._lost(report)}")
        return proxy

    def faults(self, rate: int, retry_after: float | None) -> Proxy:
        """Measure a run of which every fifth request fails; return its proxy.

        Args:
            rate: the limit, requests in any one second.
            retry_after: seconds that each 429 asks all requests to wait; None asks for nothing.
        """
        plan = nth(_EVERY, failing(429, retry_after=retry_after), failing(503), Fault(reset=0.5))
        limit = f"--max_requests_per_second={rate}"
        asked = "" if retry_after is None else f" (429 with Retry-After: {retry_after:g})"
        name = f"every fifth request fails{asked}, {limit}"
        _, proxy, report = self.whole(name, plan, 0.0, limit)
        failed = sum(each.fault is not None for each in proxy.exchanges)
        most = proxy.peak_per_second()
        print(
            f"  {failed} requests were made to fail; {self._lost(report)}; "
            f"any one second had at most {most} requests, limit {rate}"
            f"{'' if most <= rate else ': EXCEEDED'}"
        )
        return proxy

    def bytes_of(self, name: str, proxy: Proxy) -> None:
        """Print how many bytes were sent for each byte of the blobs."""
        whole, spoilt = sent_bytes(proxy.exchanges)
        total = sum(self._sizes)
        print(
            f"bytes, {name}: {whole:,} in whole answers / {total:,} of the blobs = "
            f"{whole / total:.4f}; {spoilt:,} more in answers that were made to fail"
        )

    def _lost(self, report: Report) -> str:
        found = [row for row in report.images.to_pylist() if row["status"] != "failed"]
        return f"{len(self._sizes) - len(found)} of {len(self._sizes)} images lost"

    def _servers(self, proxy: Proxy) -> Servers:
        return Servers(self._azurite.cpu_s(), proxy.cpu_s())


def sent_bytes(exchanges: list[Exchange]) -> tuple[int, int]:
    """Return the bytes that reads got in whole answers, and in those that were made to fail."""
    reads = [each for each in exchanges if each.request.kind == "read"]
    whole = sum(each.sent_bytes for each in reads if each.fault is None)
    return whole, sum(each.sent_bytes for each in reads) - whole


def _since(before: Servers, now: Servers) -> Servers:
    return Servers(*(b - a for a, b in zip(before, now, strict=True)))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blobs", type=int, default=1000)
    parser.add_argument("--latency_ms", type=float, default=100.0)
    parser.add_argument("--concurrency", type=int, default=Access().concurrency)
    parser.add_argument("--rate", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if missing():
        sys.exit(missing())
    print(describe(args.seed))
    with tempfile.TemporaryDirectory(prefix="beam-dedup-azure-") as name:
        scratch = Path(name)
        with started(scratch / "azurite") as azurite:
            sizes = make_blobs(azurite, args.blobs, args.seed)
            print(
                f"{len(sizes)} blobs of {min(sizes) / 1000:.0f} to {max(sizes) / 1000:.0f} KB, "
                f"{sum(sizes) / 1e6:.1f} MB; {args.latency_ms:g} ms before every answer",
                flush=True,
            )
            bench = Bench(azurite, sizes, scratch)
            fast = bench.latency(args.latency_ms / 1000, args.concurrency)
            faulty = bench.faults(args.rate, None)
            bench.faults(args.rate, 1.0)
            bench.bytes_of("no faults", fast)
            bench.bytes_of("every fifth request fails", faulty)


if __name__ == "__main__":
    main()
