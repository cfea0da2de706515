"""Progress: sums over processes, the two displays, the callback."""

import io
import json
import logging
import threading
from pathlib import Path

import pytest

from beam_dedup import progress
from beam_dedup.progress import BarDisplay, LineDisplay, StageProgress, Tally


class _Clock:
    """A clock that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def _write(folder: Path, name: str, counts: dict[str, list[int]]) -> None:
    (folder / name).write_text(json.dumps(counts), encoding="utf-8")


def _stage(done: int, total: int | None, rate: float = 5.0) -> StageProgress:
    percent = None if total is None else 100.0 * done / total
    eta = None if total is None else (total - done) / rate
    return StageProgress("fingerprint", done, total, "images", rate, percent, eta)


def test_counts_of_all_processes_are_added_up(tmp_path: Path) -> None:
    clock = _Clock()
    tally = Tally(tmp_path, clock)
    assert tally.poll() == []
    _write(tmp_path, "host-1.json", {"fingerprint": [10, 100], "color": [1, 0]})
    _write(tmp_path, "host-2.json", {"": [0, 0], "fingerprint": [20, 0], "other": [3, 6]})
    tally.poll()
    clock.now += 10
    first, second, third = tally.poll()
    assert first == StageProgress("fingerprint", 30, 100, "images", 3.0, 30.0, 70 / 3)
    assert second == StageProgress("color", 1, None, "pairs", 0.1, None, None)
    assert third == StageProgress("other", 3, 6, "items", 0.3, 50.0, pytest.approx(10.0))


def test_what_a_process_counted_before_is_not_counted(tmp_path: Path) -> None:
    _write(tmp_path, "host-1.json", {"fingerprint": [500, 500]})
    tally = Tally(tmp_path, _Clock())
    assert tally.poll() == []
    _write(tmp_path, "host-1.json", {"fingerprint": [510, 520]})
    assert tally.poll()[0][1:3] == (10, 20)


def test_a_total_behind_the_count_is_unknown(tmp_path: Path) -> None:
    _write(tmp_path, "x.json", {})
    tally = Tally(tmp_path, _Clock())
    _write(tmp_path, "x.json", {"fingerprint": [10, 9]})
    assert tally.poll()[0][1:3] == (10, None)


def test_broken_and_foreign_files_are_left_alone(tmp_path: Path) -> None:
    tally = Tally(tmp_path, _Clock())
    for name, text in (
        ("a.json", "{"),
        ("b.json", "[1]"),
        ("c.json", '{"x": 3}'),
        ("lifeline", ""),
    ):
        (tmp_path / name).write_text(text, encoding="utf-8")
    _write(tmp_path, "d.json", {"list": [1, 0]})
    assert [one.stage for one in tally.poll()] == ["list"]


def test_x6_stage_names_are_escaped(tmp_path: Path) -> None:
    tally = Tally(tmp_path, _Clock())
    _write(tmp_path, "a.json", {"\x1b[31mred\n": [1, 2]})
    assert tally.poll()[0].stage == "\\x1b[31mred\\x0a"


def test_lines_come_every_ten_seconds() -> None:
    clock, stream = _Clock(), io.StringIO()
    display = LineDisplay(stream, clock)
    for step in range(25):
        clock.now = 1000.0 + step
        display.show([_stage(step * 1000, 24000), _stage(7, None)] if step else [])
    display.close()
    assert stream.getvalue().splitlines() == [
        "beam-dedup: 10.0 s: fingerprint 10,000/24,000 images (42 %), 5.0/s, 0:46:40 left; "
        "fingerprint 7 images, 5.0/s",
        "beam-dedup: 20.0 s: fingerprint 20,000/24,000 images (83 %), 5.0/s, 0:13:20 left; "
        "fingerprint 7 images, 5.0/s",
    ]


def test_a_line_says_so_when_there_is_nothing_to_tell() -> None:
    clock, stream = _Clock(), io.StringIO()
    display = LineDisplay(stream, clock)
    clock.now += 10
    display.show([_stage(5, 5)])
    assert stream.getvalue() == "beam-dedup: 10.0 s: running\n"


def test_bars_show_count_rate_and_time_left() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    display = BarDisplay(stream)
    display.show([_stage(10, 100), _stage(1, None)._replace(stage="[red]color[/red]")])
    display.close()
    text = stream.getvalue()
    assert "fingerprint" in text
    assert "10/100 images (10 %), 5.0/s, 18.0 s left" in text
    assert "[red]color[/red]" in text


def test_the_display_suits_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(progress.open_display(Terminal()), LineDisplay)
    assert isinstance(progress.open_display(io.StringIO()), LineDisplay)
    monkeypatch.setenv("TERM", "xterm")
    display = progress.open_display(Terminal())
    assert isinstance(display, BarDisplay)
    display.close()


def test_the_callback_hears_every_change_once(tmp_path: Path) -> None:
    heard: list[tuple[object, ...]] = []
    with progress.watch(tmp_path, callback=lambda *args: heard.append(args)):
        _write(tmp_path, "a.json", {"fingerprint": [3, 4], "color": [2, 0]})
    assert [one[:5] for one in heard] == [
        ("fingerprint", 3, 4, "images", 75.0),
        ("color", 2, None, "pairs", None),
    ]
    assert heard[1][5] is None


def test_the_callback_is_called_while_the_job_runs(tmp_path: Path) -> None:
    called = threading.Event()
    with progress.watch(tmp_path, callback=lambda *_: called.set()):
        _write(tmp_path, "a.json", {"fingerprint": [3, 4]})
        assert called.wait(20)


def test_a_failing_callback_is_logged_once_and_the_job_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    calls = []

    def callback(*args: object) -> None:
        calls.append(args)
        raise ZeroDivisionError("mine")

    shown: list[list[StageProgress]] = []

    class Fake:
        def show(self, stages: list[StageProgress]) -> None:
            shown.append(stages)

        def close(self) -> None:
            shown.append([])

    with caplog.at_level(logging.ERROR), progress.watch(tmp_path, Fake(), callback):
        _write(tmp_path, "a.json", {"fingerprint": [3, 4], "color": [1, 0]})
    assert len(calls) == 1
    assert len(caplog.records) == 1
    assert "ZeroDivisionError" in caplog.text
    assert [one.stage for one in shown[-2]] == ["fingerprint", "color"]
    assert shown[-1] == []


def test_a_display_that_cannot_write_is_dropped(tmp_path: Path) -> None:
    class Broken:
        def __init__(self) -> None:
            self.calls = 0

        def show(self, stages: list[StageProgress]) -> None:
            self.calls += 1
            raise BrokenPipeError

        def close(self) -> None:
            self.calls += 100

    display = Broken()
    with progress.watch(tmp_path, display):
        pass
    assert display.calls == 101
