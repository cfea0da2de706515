"""Tests of devices: which GPU a process gets, what is refused, how many threads a call may use."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from transforms.models import devices
from transforms.models.devices import check_device, choose_device, take_slot, threads
from transforms.models.spec import Execution, ModelError

# Takes a slot, says which, and keeps it until its input ends.
_HOLDER = """
import sys
from transforms.models.devices import take_slot
print(take_slot(sys.argv[1]), take_slot(sys.argv[1]), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Have PyTorch see four GPUs, and this process be the sixth of its machine."""
    monkeypatch.setattr(devices, "gpu_count", lambda: 4)
    monkeypatch.setattr(devices, "take_slot", lambda: 5)
    return monkeypatch


@pytest.mark.parametrize(
    ("text", "device"),
    [
        ("cpu", "cpu"),
        ("auto", "cuda:1"),
        ("cuda", "cuda:1"),
        ("cuda:2", "cuda:2"),
        ("cuda:0,3", "cuda:3"),
        ("cuda:3,2,0", "cuda:0"),
    ],
)
@pytest.mark.usefixtures("gpus")
def test_processes_are_dealt_to_the_gpus_in_turn(text: str, device: str) -> None:
    assert choose_device(text) == device


def test_auto_is_the_cpu_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "gpu_count", lambda: 0)
    assert choose_device("auto") == "cpu"


def test_cpu_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(devices, "gpu_count")
    assert choose_device("cpu") == "cpu"


@pytest.mark.parametrize(
    ("count", "text", "seen"),
    [
        (0, "cuda", "no GPU"),
        (0, "cuda:0", "no GPU"),
        (1, "cuda:1", "GPU 0"),
        (4, "cuda:1,4", "4 GPUs (0 to 3)"),
    ],
)
def test_a_gpu_that_is_not_there_is_refused(
    monkeypatch: pytest.MonkeyPatch, count: int, text: str, seen: str
) -> None:
    monkeypatch.setattr(devices, "gpu_count", lambda: count)
    for refuse in (check_device, choose_device):
        with pytest.raises(ModelError) as refused:
            refuse(text)
        assert str(refused.value) == (
            f"device {text!r} is not here: PyTorch sees {seen}; give --device auto"
        )


@pytest.mark.parametrize("text", ["", "gpu", "cuda:", "cuda:0,", "cpu:1", "auto:0", "cuda:-1"])
def test_other_names_are_refused(text: str) -> None:
    with pytest.raises(ModelError, match="auto, cpu, cuda or cuda:N,M"):
        choose_device(text)


def _hold(folder: Path) -> tuple[subprocess.Popen[str], int]:
    command = [sys.executable, "-c", _HOLDER, str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    first, second = process.stdout.readline().split()
    assert first == second
    return process, int(first)


def test_slots_are_apart_and_come_back_when_a_process_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "slots"
    held = [_hold(folder) for _ in range(2)]
    try:
        assert [number for _, number in held] == [0, 1]
        held[0][0].kill()
        held[0][0].communicate()
        held.append(_hold(folder))
        assert held[2][1] == 0
        assert folder.stat().st_mode & 0o777 == 0o700
    finally:
        for process, _ in held:
            process.kill()
            process.communicate()


def test_a_folder_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "slots"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(ModelError, match="not this user's own folder"):
        take_slot(str(folder))


def test_a_link_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(0o700)
    (tmp_path / "slots").symlink_to(tmp_path / "real")
    with pytest.raises(ModelError, match="not this user's own folder"):
        take_slot(str(tmp_path / "slots"))


@pytest.mark.parametrize(
    ("execution", "expected"),
    [
        (Execution(processes=1), 8),
        (Execution(processes=3), 2),
        (Execution(processes=8), 1),
        (Execution(processes=20), 1),
        (Execution(), 1),
        (Execution(shared=True, processes=8, job="one"), 8),
    ],
)
def test_processes_share_out_the_cpus(
    monkeypatch: pytest.MonkeyPatch, execution: Execution, expected: int
) -> None:
    monkeypatch.setattr(devices, "usable_cpus", lambda: 8)
    assert threads(execution) == expected


def test_threads_reach_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    monkeypatch.setattr(devices, "usable_cpus", lambda: 3)
    try:
        devices.use_threads(Execution(processes=1))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_without_torch_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert devices.gpu_count() == 0
    devices.use_threads(Execution(processes=1))


def test_usable_cpus_are_those_of_this_process() -> None:
    assert 1 <= devices.usable_cpus() <= (os.cpu_count() or 1)


def test_a_shared_model_needs_a_job() -> None:
    with pytest.raises(ValueError, match="needs the name of its job"):
        Execution(shared=True)
