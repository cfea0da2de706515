"""Copies within this machine: complete, never over a file, and the same when done again."""

import itertools
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from beam_dedup.actions import copy
from beam_dedup.actions.copy import Copier, Result
from beam_dedup.actions.journal import Journal, JournalError
from beam_dedup.actions.places import Folder, Place, Seen
from beam_dedup.actions.plan import Plan
from beam_dedup.reports import Report
from tests.beam_dedup.actions.children import child, run_children
from tests.beam_dedup.actions.made import (
    RUN_ID,
    Source,
    copies,
    expected,
    local,
    local_groups,
    report_of,
    touch,
)
from tests.transforms.reporting.made import tree
from transforms.access import Access
from transforms.storage import StorageError, to_local_path
from transforms.storage.errors import AccessError


def _plan(tmp_path: Path, groups: list[list[Source]], name: str = "report") -> Plan:
    return Plan.of_report(Report.open(str(report_of(tmp_path / name, groups))))


def _apply(
    plan: Plan, place: Path | Place, *, execute: bool = True, access: Access | None = None
) -> dict[str, list[Result]]:
    """Carry a plan out; return the results by outcome."""
    there = Folder(place) if isinstance(place, Path) else place
    copier = Copier(there, access or Access(concurrency=4), execute=execute)
    found: dict[str, list[Result]] = {}
    for result in copier.run(plan, Journal(there, plan)):
        found.setdefault(result.outcome, []).append(result)
    return found


def _counts(found: dict[str, list[Result]]) -> dict[str, int]:
    return {outcome: len(results) for outcome, results in found.items()}


def _path(source: Source) -> Path:
    return Path(os.fsdecode(to_local_path(source.uri)))


@pytest.fixture
def groups(tmp_path: Path) -> list[list[Source]]:
    return local_groups(tmp_path / "in")


@pytest.fixture
def to(tmp_path: Path) -> Path:
    return tmp_path / "to"


def test_s1_n2_every_file_of_every_group_is_copied(
    tmp_path: Path, groups: list[list[Source]], to: Path
) -> None:
    before = tree(tmp_path / "in")
    assert _counts(_apply(_plan(tmp_path, groups), to)) == {"copied": 6}
    found = copies(to)
    assert sorted(found.values()) == expected(groups)
    bests = [data for name, data in found.items() if name.startswith("best/")]
    assert sorted(bests) == sorted(group[0].data for group in groups)
    assert {name.split("/")[0] for name in found} == {"best", "duplicates"}
    assert all(name.endswith("_IMG_1.jpg") for name in found)
    assert tree(tmp_path / "in") == before
    assert sorted(path.name for path in to.iterdir()) == ["best", "duplicates", "journal"]


def test_a1_a_plan_writes_nothing_and_says_what_is_done(
    tmp_path: Path, groups: list[list[Source]], to: Path
) -> None:
    touch(_path(groups[1][1]))  # its group is left out
    plan = _plan(tmp_path, groups)
    taken, there = (next(i for i in plan.groups() if i[0].uri == groups[n][0].uri) for n in (0, 2))
    for item, data in ((taken[1], b"other"), (there[0], groups[2][0].data)):
        local(to / item.target, data)
    before = tree(tmp_path)
    planned = _apply(plan, to, execute=False)
    assert tree(tmp_path) == before
    done = _apply(plan, to)
    assert _counts(done) == {"copied": 2, "there": 1, "conflict": 1, "changed": 2}
    assert {
        outcome: [(one.item, one.message) for one in results]
        for outcome, results in planned.items()
    } == {
        outcome: [(one.item, one.message) for one in results] for outcome, results in done.items()
    }


def test_doing_it_again_changes_nothing(
    tmp_path: Path, groups: list[list[Source]], to: Path
) -> None:
    plan = _plan(tmp_path, groups)
    _apply(plan, to)
    before = tree(to)
    assert _counts(_apply(plan, to)) == {"there": 6}
    assert tree(to) == before


def test_what_is_all_there_needs_no_source(
    tmp_path: Path, groups: list[list[Source]], to: Path
) -> None:
    plan = _plan(tmp_path, groups)
    _apply(plan, to)
    _path(groups[0][0]).unlink()
    touch(_path(groups[1][0]))
    assert _counts(_apply(plan, to)) == {"there": 6}


def test_a_copy_that_went_away_is_made_again(
    tmp_path: Path, groups: list[list[Source]], to: Path
) -> None:
    plan = _plan(tmp_path, groups)
    _apply(plan, to)
    lost = next(iter(plan.groups()))[0].target
    (to / lost).unlink()
    assert _counts(_apply(plan, to)) == {"copied": 1, "there": 5}
    assert sorted(copies(to).values()) == expected(groups)
    before = tree(to)
    assert _counts(_apply(plan, to)) == {"there": 6}
    assert tree(to) == before


@pytest.mark.parametrize("member", [0, 1])
@pytest.mark.parametrize("change", ["time", "size", "content", "gone", "link", "folder"])
def test_a2_a3_a_changed_source_leaves_its_whole_group_out(
    tmp_path: Path, groups: list[list[Source]], to: Path, member: int, change: str
) -> None:
    path, aside = _path(groups[1][member]), tmp_path / "aside"
    plan = _plan(tmp_path, groups)
    info = path.stat()
    if change == "time":
        touch(path)
    elif change == "size":
        path.write_bytes(b"longer than it was")
    elif change == "content":  # as an editor that sets the time back
        path.write_bytes(b"9" * info.st_size)
        os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    else:
        path.rename(aside)
        if change == "link":
            path.symlink_to(aside)
        elif change == "folder":
            path.mkdir()
    found = _apply(plan, to, access=Access(concurrency=1))
    ended = {result.item.uri: result for results in found.values() for result in results}
    assert ended[groups[1][member].uri].outcome in ("changed", "failed")
    left = {"changed": 2, "copied": 4}
    if change == "content" and member == 1:
        # Only reading tells, and by then the kept image had been copied.
        left = {"changed": 1, "copied": 5}
    if change == "folder":  # nothing of the kind was ever listed under this name
        left = {"failed": 1, "copied": 5}
    assert _counts(found) == left
    if "changed" in found:
        assert str(path) in found["changed"][0].message
    assert not any(name in copies(to) for name in (r.item.target for r in found.get("changed", [])))


def test_a7_another_content_is_never_overwritten(
    tmp_path: Path, groups: list[list[Source]], to: Path
) -> None:
    plan = _plan(tmp_path, groups)
    items = [item for group in plan.groups() for item in group]
    longer, same_size, folder, link = items[:4]
    (tmp_path / "elsewhere").write_bytes(b"x y")
    local(to / longer.target, b"mine, and longer")
    local(to / same_size.target, b"x y")
    (to / folder.target).mkdir(parents=True)
    (to / link.target).parent.mkdir(parents=True, exist_ok=True)
    (to / link.target).symlink_to(tmp_path / "elsewhere")
    for _ in range(2):
        found = _apply(plan, to)
        assert {one.item.target for one in found["conflict"]} == {i.target for i in items[:4]}
        assert (to / longer.target).read_bytes() == b"mine, and longer"
        assert (to / same_size.target).read_bytes() == b"x y"
        assert list((to / folder.target).iterdir()) == []
        assert (tmp_path / "elsewhere").read_bytes() == b"x y"


def test_the_same_content_that_nobody_wrote_down_is_there(
    tmp_path: Path, groups: list[list[Source]], to: Path
) -> None:
    plan = _plan(tmp_path, groups)
    _apply(plan, to)
    for path in (to / "journal").rglob("*.jsonl"):
        path.unlink()
    assert _counts(_apply(plan, to)) == {"there": 6}
    # It is written down now, so that the next time nothing is read.
    done = next((to / "journal" / RUN_ID).glob("*.done.jsonl"))
    assert [json.loads(line)["outcome"] for line in done.read_bytes().splitlines()[1:]] == [
        "there"
    ] * 6


def test_the_journal_is_written_before_the_act(
    tmp_path: Path, groups: list[list[Source]], to: Path
) -> None:
    seen = []

    class Watched(Folder):
        def write(self, name: str, data: bytes) -> str:
            seen.append((name.split("/")[0], len(copies(to)) if to.exists() else 0))
            return super().write(name, data)

    plan = _plan(tmp_path, groups)
    _apply(plan, Watched(to), access=Access(concurrency=1))
    assert [name for name, _ in seen if name == "journal"] == ["journal"] * 2
    assert seen[0] == ("journal", 0)
    assert seen[-1] == ("journal", 6)
    planned, done = sorted((to / "journal" / RUN_ID).iterdir(), reverse=True)
    assert planned.name.endswith(".planned.jsonl")
    head, *lines = [json.loads(line) for line in planned.read_bytes().splitlines()]
    assert (head["run_id"], head["plan"], head["action"]) == (RUN_ID, plan.digest, "copy")
    items = {item.target: item for group in plan.groups() for item in group}
    for line in lines:
        item = items.pop(line["target"])
        assert line == {key: getattr(item, key) for key in line}
    assert items == {}
    results = [json.loads(line) for line in done.read_bytes().splitlines()[1:]]
    assert {result["outcome"] for result in results} == {"copied"}


def test_a8_a_journal_of_another_report_is_refused(
    tmp_path: Path, groups: list[list[Source]], to: Path
) -> None:
    _apply(_plan(tmp_path, groups), to)
    before = tree(to)
    other = _plan(tmp_path, groups[:2], "other report of that run")
    with pytest.raises(JournalError, match="belongs to another report with the same run id"):
        _apply(other, to)
    assert tree(to) == before


@pytest.mark.parametrize("text", ["", "{}", "[]\n", '{"plan": 1}', "no json", '{"plan":"x"}\n{}'])
def test_a_journal_that_is_none_is_refused(
    tmp_path: Path, groups: list[list[Source]], to: Path, text: str
) -> None:
    plan = _plan(tmp_path, groups)
    (to / "journal" / RUN_ID).mkdir(parents=True)
    (to / "journal" / RUN_ID / "00000000.s.done.jsonl").write_text(text)
    (to / "journal" / RUN_ID / "notes.txt").write_text("of a person")
    with pytest.raises(JournalError, match=r"00000000\.s\.done\.jsonl in the destination"):
        _apply(plan, to)


def test_batches_have_entries_of_their_own(
    tmp_path: Path, groups: list[list[Source]], to: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copy, "BATCH", 2)
    plan = _plan(tmp_path, groups)
    told: list[int] = []
    place = Folder(to)
    copier = Copier(place, Access(), execute=True, tell=told.append)
    assert [one.outcome for one in copier.run(plan, Journal(place, plan))] == ["copied"] * 6
    assert told == [0, 1, 2, 2, 3, 4, 4, 5, 6]
    names = sorted(path.name for path in (to / "journal" / RUN_ID).iterdir())
    assert [(name[:8], name.split(".")[2]) for name in names] == [
        (f"{number:08d}", kind) for number in range(3) for kind in ("done", "planned")
    ]
    (to / "journal" / RUN_ID / names[2]).unlink()
    assert _counts(_apply(plan, to)) == {"there": 6}


def test_a6_two_processes_at_once_have_one_effect(tmp_path: Path, to: Path) -> None:
    groups = local_groups(tmp_path / "in", count=40, size=3)
    report = report_of(tmp_path / "report", groups)
    argv = ["apply", f"--report={report}", "--action=copy", f"--destination={to}", "--execute"]
    assert run_children([[child(argv)] * 3]) == [[0, 0, 0]]
    assert sorted(copies(to).values()) == expected(groups)
    assert sorted(path.name for path in to.iterdir()) == ["best", "duplicates", "journal"]


def test_a5_killed_anywhere_and_run_again_gives_the_same(tmp_path: Path) -> None:
    groups = local_groups(tmp_path / "in", count=2)
    report = report_of(tmp_path / "report", groups)

    def argv(to: Path) -> list[str]:
        words = ["apply", f"--report={report}", "--action=copy", f"--destination={to}"]
        return [*words, "--execute", "--read_concurrency=1"]

    points = [
        ("beam_dedup.actions.places:_rename_to_free", nth, when)
        for nth in range(1, 7)  # what is planned, four copies, what was done
        for when in ("before", "after")
    ]
    killed = {tmp_path / f"to {n}": point for n, point in enumerate(points)}
    whole = tmp_path / "whole"
    codes = run_children(
        [
            [child(argv(whole))],
            *([child(argv(to), *point)] for to, point in killed.items()),
            *([child(argv(to))] for to in killed),
        ]
    )
    assert codes == [[0], *[[-9]] * len(points), *[[0]] * len(points)]
    for to in killed:
        assert copies(to) == copies(whole)
        assert not (to / ".parts").exists()
        done = list((to / "journal" / RUN_ID).glob("*.done.jsonl"))
        assert (
            {  # what was done is known, whoever did it
                json.loads(line)["target"]
                for path in done
                for line in path.read_bytes().splitlines()[1:]
            }
            == set(copies(whole))
        )


class _Refusing:
    """A place of which some names refuse, in memory."""

    uri = "memory:"

    def __init__(self, refused: Callable[[str], Exception | None]) -> None:
        self.files: dict[str, bytes] = {}
        self._refused = refused

    def session(self) -> threading.Lock:
        return threading.Lock()

    def find(self, name: str) -> Seen | None:
        data = self.files.get(name)
        return None if data is None else Seen(len(data), str(hash(data)))

    def read(self, name: str, size_bytes: int) -> bytes:
        return self.files[name]

    def write(self, name: str, data: bytes) -> str:
        if (error := self._refused(name)) is not None:
            raise error
        self.files[name] = data
        return str(hash(data))

    def can_copy(self, uri: str) -> bool:
        return False

    def copy(self, uri: str, etag: str, name: str) -> str:
        raise NotImplementedError

    def remove_leftover(self, name: str, seen: Seen) -> None:
        raise NotImplementedError

    def names(self, folder: str) -> list[str]:
        return sorted(n.removeprefix(folder + "/") for n in self.files if n.startswith(folder))


@pytest.mark.parametrize(
    "error",
    [
        AccessError("account 'a' refuses access (AuthorizationFailure)"),
        StorageError("other", "the store refuses it (BlobImmutableDueToPolicy)"),
    ],
)
def test_a10_what_one_blob_refuses_is_reported_and_the_rest_goes_on(
    tmp_path: Path, groups: list[list[Source]], error: Exception
) -> None:
    plan = _plan(tmp_path, groups)
    refused = next(iter(plan.groups()))[0].target
    place = _Refusing(lambda name: error if name == refused else None)
    found = _apply(plan, place)
    assert _counts(found) == {"copied": 5, "failed": 1}
    assert found["failed"][0].item.target == refused
    assert found["failed"][0].message == str(error).removeprefix("other: ")


def test_r3_where_everything_is_refused_the_job_ends(tmp_path: Path) -> None:
    groups = local_groups(tmp_path / "in", count=30)
    asked = itertools.count()

    def refused(name: str) -> Exception | None:
        if name.startswith("journal"):
            return None
        next(asked)
        return AccessError("account 'a' refuses access (AuthenticationFailed)")

    with pytest.raises(AccessError, match="AuthenticationFailed"):
        _apply(_plan(tmp_path, groups), _Refusing(refused), access=Access(concurrency=1))
    assert next(asked) == 10


def test_r13_a_full_disk_ends_the_job(tmp_path: Path, groups: list[list[Source]]) -> None:
    def full(name: str) -> Exception | None:
        return None if name.startswith("journal") else OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        _apply(_plan(tmp_path, groups), _Refusing(full))


def test_memory_on_the_way_is_bounded(tmp_path: Path) -> None:
    groups = [[local(tmp_path / f"in/{n}/{m}.jpg", bytes([n, m]) * 500) for m in range(2)] for n in
              range(20)]  # fmt: skip
    under_way, most, lock = [0], [0], threading.Lock()

    class Slow(_Refusing):
        def write(self, name: str, data: bytes) -> str:
            if name.startswith("journal"):
                return super().write(name, data)
            with lock:
                under_way[0] += len(data)
                most[0] = max(most[0], under_way[0])
            threading.Event().wait(0.002)
            with lock:
                under_way[0] -= len(data)
            return super().write(name, data)

    access = Access(concurrency=16, memory_bytes=3500)
    place = Slow(lambda _: None)
    assert _counts(_apply(_plan(tmp_path, groups), place, access=access)) == {"copied": 40}
    assert 1000 <= most[0] <= 3500
    tight = Access(concurrency=4, memory_bytes=1)  # less than any file: one at a time
    assert _counts(_apply(_plan(tmp_path, groups), Slow(lambda _: None), access=tight)) == {
        "copied": 40
    }


class _Copying(_Refusing):
    """A place that copies by itself, and of whose copies some go wrong."""

    def __init__(self, wrong: Callable[[str], Seen | None]) -> None:
        super().__init__(lambda _: None)
        self.wrong = wrong
        self.leftovers: list[str] = []

    def can_copy(self, uri: str) -> bool:
        return True

    def find(self, name: str) -> Seen | None:
        return (self.wrong(name) if name in self.files else None) or super().find(name)

    def copy(self, uri: str, etag: str, name: str) -> str:
        if name in self.files:
            raise StorageError("exists", "the store refuses it (BlobAlreadyExists)")
        self.files[name] = Path(os.fsdecode(to_local_path(uri))).read_bytes()
        return str(hash(self.files[name]))

    def remove_leftover(self, name: str, seen: Seen) -> None:
        self.leftovers.append(name)
        del self.files[name]


@pytest.mark.parametrize(
    "seen", [Seen(2, ""), Seen(3, "another"), Seen(3, str(hash(b"0 0")), "c0ffee")]
)
def test_a4_a_copy_that_is_not_its_source_has_failed(
    tmp_path: Path, groups: list[list[Source]], seen: Seen
) -> None:
    plan = _plan(tmp_path, groups)
    item = next(group[0] for group in plan.groups() if group[0].uri == groups[0][0].uri)
    place = _Copying(lambda name: seen if name == item.target else None)
    found = _apply(plan, place)
    if seen.content_md5:  # nobody knows the source's: what the store says is not doubted
        assert _counts(found) == {"copied": 6}
    else:
        assert _counts(found) == {"copied": 5, "failed": 1}
        assert "its copy is not what the source is" in found["failed"][0].message


def test_a4_what_a_failed_copy_left_gives_way(tmp_path: Path, groups: list[list[Source]]) -> None:
    plan = _plan(tmp_path, groups)
    item = next(iter(plan.groups()))[1]
    left = Seen(0, "e", is_empty_leftover=True)
    place = _Copying(lambda name: left if place.files[name] == b"" else None)
    place.files[item.target] = b""
    assert _counts(_apply(plan, place, execute=False)) == {"copied": 6}
    assert place.leftovers == []
    # The first session learns of it from the store, a later one looks before it copies.
    assert _counts(_apply(plan, place)) == {"copied": 6}
    assert place.leftovers == [item.target]
    data = [data for name, data in place.files.items() if not name.startswith("journal")]
    assert sorted(data) == expected(groups)
