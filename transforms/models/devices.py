"""Where a model runs: the device of this worker process, and its share of the CPUs."""

import contextlib
import fcntl
import os
import re
import tempfile
from typing import IO, Final

from transforms.models.spec import Execution, ModelError

#: What ``--device`` takes.
DEVICES: Final = re.compile(r"auto|cpu|cuda(:\d+(,\d+)*)?")
_MOST_PROCESSES: Final = 4096  # of one machine
# The slot that this process took, as an open file with its lock, by folder.
_slots: dict[str, tuple[int, IO[bytes]]] = {}


def choose_device(text: str) -> str:
    """Return the device of this process.

    Args:
        text: auto | cpu | cuda | cuda:N,M; auto is all GPUs that PyTorch sees, or else the CPU.

    Returns:
        cpu or cuda:N. The processes of a machine are dealt to the GPUs in turn.

    Raises:
        ModelError: there is no such device here.
    """
    if not DEVICES.fullmatch(text):
        raise ModelError(f"device must be auto, cpu, cuda or cuda:N,M, not {text!r}")
    if text == "cpu":
        return "cpu"
    found = gpu_count()
    if text == "auto" and not found:
        return "cpu"
    check_device(text)
    _, _, numbers = text.partition(":")
    usable = [int(number) for number in numbers.split(",")] if numbers else list(range(found))
    if len(usable) == 1:
        return f"cuda:{usable[0]}"
    return f"cuda:{usable[take_slot() % len(usable)]}"


def check_device(text: str) -> None:
    """Refuse GPUs that this machine does not have.

    Args:
        text: as of ``choose_device``.

    Raises:
        ModelError: it names a GPU that PyTorch does not see.
    """
    if not text.startswith("cuda"):
        return
    found = gpu_count()
    _, _, numbers = text.partition(":")
    missing = [number for number in numbers.split(",") if number and int(number) >= found]
    if missing or not found:
        seen = f"{found} GPUs (0 to {found - 1})" if found > 1 else ("GPU 0" if found else "no GPU")
        raise ModelError(f"device {text!r} is not here: PyTorch sees {seen}; give --device auto")


def gpu_count() -> int:
    """Return how many GPUs PyTorch sees; 0 where it is not installed."""
    try:
        import torch
    except ImportError:
        return 0
    return torch.cuda.device_count()


def take_slot(folder: str | None = None) -> int:
    """Return the number of this process among those of this user on this machine that asked.

    The number is the first free one, and is held by a lock on a file until the process ends,
    however it ends.

    Args:
        folder: of the files; None is one of this user in the folder for temporary files.
    """
    folder = folder or os.path.join(tempfile.gettempdir(), f"beam-dedup-devices-{os.getuid()}")
    if folder in _slots:
        return _slots[folder][0]
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    status = os.lstat(folder)
    # In a folder that all may write to, somebody else may have made it first.
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise ModelError(f"{folder!r} is not this user's own folder; remove it")
    for number in range(_MOST_PROCESSES):
        # Held open: the lock goes with the file.
        file = open(os.path.join(folder, str(number)), "wb")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            continue
        _slots[folder] = (number, file)
        return number
    raise ModelError(f"more than {_MOST_PROCESSES} processes hold a device in {folder!r}")


def usable_cpus() -> int:
    """Return how many CPUs this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux alone has it
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def threads(execution: Execution) -> int:
    """Return how many threads one call of a model may use on the CPU.

    The worker processes are the parallelism; what they leave of the CPUs is shared out evenly. A
    model that all processes of a machine share has all CPUs to itself.

    Args:
        execution: where it runs, with the number of processes.
    """
    if execution.shared:
        return usable_cpus()
    return max(1, usable_cpus() // execution.processes) if execution.processes else 1


def use_threads(execution: Execution) -> None:
    """Have PyTorch use this process's share of the CPUs, where PyTorch is installed."""
    try:
        import torch
    except ImportError:
        return
    torch.set_num_threads(threads(execution))
