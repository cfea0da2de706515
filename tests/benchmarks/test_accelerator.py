"""Without a GPU the benchmark of one says so."""

import sys

import accelerator
import pytest


def test_without_a_gpu_nothing_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(accelerator, "gpu_name", lambda: None)
    monkeypatch.setattr(sys, "argv", ["accelerator.py"])
    accelerator.main()
    machine, told = capsys.readouterr().out.splitlines()
    assert machine.endswith("seed: 1")
    assert told == "not measured: PyTorch sees no GPU here"


def test_without_torch_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert accelerator.gpu_name() is None
