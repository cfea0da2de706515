"""What the benchmark scripts share: the line about the machine, and what a run took."""

import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

_SAMPLE_EVERY_S = 0.1


class Took(NamedTuple):
    """What something took."""

    cpu_s: float  # User and system time, of the process and of its children.
    wall_s: float
    peak_bytes: int  # Resident memory of the largest process.
    peak_sum_bytes: int  # Highest sum over its processes, sampled; shared pages count in each.

    def __str__(self) -> str:
        """Return it as the scripts print it."""
        return (
            f"CPU {self.cpu_s:.2f} s, wall {self.wall_s:.1f} s, peak memory "
            f"{self.peak_bytes / 2**20:.0f} MiB in the largest process, "
            f"{self.peak_sum_bytes / 2**20:.0f} MiB in all"
        )


def describe(seed: int | None = None) -> str:
    """Return a line on the machine, this Python and the seed."""
    told = "none, nothing here is drawn" if seed is None else str(seed)
    model = platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text(encoding="utf-8", errors="replace").splitlines()
        model = next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model n")), model)
    return (
        f"machine: {model}, {os.cpu_count()} cores, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}; seed: {told}"
    )


def own(started_wall: float) -> Took:
    """Return what this process and the children that it waited for took since it began."""
    mine = resource.getrusage(resource.RUSAGE_SELF)
    theirs = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = mine.ru_utime + mine.ru_stime + theirs.ru_utime + theirs.ru_stime
    peak, inner = mine.ru_maxrss * 1024, theirs.ru_maxrss * 1024
    # At most one child of a script runs at a time, so this bounds the sum.
    return Took(cpu, time.monotonic() - started_wall, max(peak, inner), peak + inner)


def measured(command: Sequence[str], env: Mapping[str, str] | None = None) -> Took:
    """Run a command to its end; return what it and its children took.

    Raises:
        SystemExit: the command failed; its last lines were printed.
    """
    started, highest_sum = time.monotonic(), 0
    process = subprocess.Popen(command, env=None if env is None else dict(env))
    while True:
        # wait4 tells the use of this child alone, together with the children that it waited for.
        pid, status, used = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        resident = sum(_resident(each) for each in (process.pid, *children(process.pid)))
        highest_sum = max(highest_sum, resident)
        time.sleep(_SAMPLE_EVERY_S)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}")
    wall, peak = time.monotonic() - started, used.ru_maxrss * 1024
    return Took(used.ru_utime + used.ru_stime, wall, peak, max(highest_sum, peak))


def _resident(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    line = next((x for x in status.splitlines() if x.startswith("VmRSS")), "VmRSS: 0 kB")
    return int(line.split()[1]) * 1024


def children(pid: int) -> list[int]:
    """Return the processes below a process, each before its own."""
    direct = []
    # Beam starts its workers from threads, and a child belongs to the thread that made it.
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            direct += [int(word) for word in path.read_text(encoding="ascii").split()]
        except OSError:
            continue
    return direct + [inner for child in direct for inner in children(child)]
