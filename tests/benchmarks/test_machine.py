import sys

import machine
import pytest

_MIB = 2**20


def test_a_command_is_measured_with_its_children() -> None:
    child = "data = bytearray(80 << 20); sum(range(10**6))"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], check=True)"
    found = machine.measured([sys.executable, "-c", code])
    assert found.peak_bytes > 80 * _MIB
    assert found.peak_sum_bytes >= found.peak_bytes
    assert 0 < found.cpu_s
    assert 0 < found.wall_s


def test_a_failed_command_ends_the_script() -> None:
    with pytest.raises(SystemExit, match="ended with 3"):
        machine.measured([sys.executable, "-c", "raise SystemExit(3)"])


def test_the_environment_reaches_the_command() -> None:
    code = "import os; raise SystemExit(os.environ.get('GIVEN') != 'yes')"
    assert machine.measured([sys.executable, "-c", code], env={"GIVEN": "yes"}).wall_s > 0


def test_the_seed_is_told() -> None:
    assert machine.describe(7).endswith("seed: 7")
    assert "seed: none" in machine.describe()
