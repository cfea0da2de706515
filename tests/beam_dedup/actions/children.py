"""Run command lines in processes of their own, which may be killed at a point that a test names.

As a program it reads ``[[{argv, point, nth, when}, …], …]`` from its standard input: the processes
of an inner list run at the same time, the lists one after the other. It prints their exit codes, -9
for what was killed. ``point`` is ``module:name`` of a function: the process is killed by SIGKILL
``before`` or ``after`` its nth call; "" lets it live. One start-up does for all: it forks.
"""

import functools
import importlib
import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, TypedDict


class Child(TypedDict):
    """A command line, and where it is killed."""

    argv: list[str]
    point: str
    nth: int
    when: str


def child(argv: list[str], point: str = "", nth: int = 1, when: str = "before") -> Child:
    """Describe a process."""
    return Child(argv=argv, point=point, nth=nth, when=when)


def run_children(rounds: list[list[Child]]) -> list[list[int]]:
    """Run the processes of each round at the same time; return their exit codes."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.beam_dedup.actions.children"],
        input=json.dumps(rounds),
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
    )
    codes: list[list[int]] = json.loads(done.stdout.splitlines()[-1])
    return codes


def _main() -> None:
    rounds = json.load(sys.stdin)
    from beam_dedup import cli

    importlib.import_module("beam_dedup.actions.command")  # once, not in each process
    codes = []
    for some in rounds:
        pids = [_fork(one, cli.main) for one in some]
        codes.append([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids])
    print(json.dumps(codes))


def _fork(one: Child, run: Any) -> int:
    sys.stdout.flush()
    if pid := os.fork():
        return pid
    code = 70
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if one["point"]:
            _arm(one)
        code = run(one["argv"])
    finally:
        os._exit(code)


def _arm(one: Child) -> None:
    module, _, name = one["point"].partition(":")
    *owners, last = name.split(".")
    owner = functools.reduce(getattr, owners, importlib.import_module(module))
    original, calls = getattr(owner, last), itertools.count(1)

    def armed(*args: Any, **kwargs: Any) -> Any:
        is_last = next(calls) == one["nth"]
        if is_last and one["when"] == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **kwargs)
        if is_last:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, last, armed)


if __name__ == "__main__":
    _main()
