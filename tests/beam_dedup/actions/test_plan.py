"""A plan is what the report asks for, in one order, or is refused."""

import json
from pathlib import Path

import pytest

from beam_dedup.actions.plan import Plan
from beam_dedup.reports import Report, ReportError
from tests.beam_dedup.actions.made import RUN_ID, Source, report_of, rows_of
from tests.transforms.reporting.made import write_by_hand

GROUPS = [
    [Source(f"file:///in/{group}/{one}.jpg", f"{group}{one}".encode(), "e") for one in range(size)]
    for group, size in enumerate((2, 3, 2))
]


def _plan(output: Path) -> Plan:
    return Plan.of_report(Report.open(str(output)))


def test_groups_come_whole_with_the_best_first(tmp_path: Path) -> None:
    plan = _plan(report_of(tmp_path, GROUPS))
    groups = list(plan.groups())
    found = {tuple(item.uri for item in group) for group in groups}
    assert found == {tuple(source.uri for source in group) for group in GROUPS}
    assert all([item.is_best for item in group] == [True, *[False] * len(group[1:])]
               for group in groups)  # fmt: skip
    assert groups == sorted(groups)
    assert (plan.group_count, len(plan.rows), plan.total_bytes) == (3, 7, 14)
    item = next(item for group in groups for item in group if item.uri == GROUPS[0][1].uri)
    assert item.target.startswith(f"duplicates/{item.group_id}/")
    assert (item.path, item.size_bytes, item.etag) == ("/in/0/1.jpg", 2, "e")


def test_batches_hold_whole_groups(tmp_path: Path) -> None:
    plan = _plan(report_of(tmp_path, GROUPS))
    items = [item for group in plan.groups() for item in group]
    for files, number in ((1, 3), (4, 2), (100, 1)):
        batches = list(plan.batches(files))
        assert len(batches) == number
        assert [item for batch in batches for item in batch] == items
        assert sum(len({item.group_id for item in batch}) for batch in batches) == 3


def test_a_report_without_groups_has_an_empty_plan(tmp_path: Path) -> None:
    plan = _plan(report_of(tmp_path, []))
    assert (list(plan.batches(5)), plan.group_count, plan.total_bytes) == ([], 0, 0)
    assert plan.accounts == []


def test_accounts_are_those_of_the_sources(tmp_path: Path) -> None:
    uris = ["azfs://second/pics/a", "azfs://first/pics/b", "file:///c", "azfs://first/d00/e"]
    plan = _plan(report_of(tmp_path, [[Source(uri, uri.encode(), "e") for uri in uris]]))
    assert plan.accounts == ["first", "second"]


def test_a8_a_plan_is_bound_to_the_run_and_its_files(tmp_path: Path) -> None:
    made = {
        name: _plan(report_of(tmp_path / name, groups, run_id)).digest
        for name, groups, run_id in (
            ("one", GROUPS, RUN_ID),
            ("other run", GROUPS, "run-2"),
            ("other rows", GROUPS[:2], RUN_ID),
        )
    }
    assert len(set(made.values())) == 3
    assert _plan(report_of(tmp_path / "again", GROUPS)).digest == made["one"]


def test_a8_a_changed_report_is_no_plan(tmp_path: Path) -> None:
    shard = next((report_of(tmp_path, GROUPS) / "images").iterdir())
    shard.write_bytes(shard.read_bytes() + b"x")
    with pytest.raises(ReportError, match="is not the file that the manifest names"):
        _plan(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"group_id": "../../../etc"}, "group_id"),
        ({"group_id": "g0123456789abcdef\n"}, "group_id"),
        ({"uri": "s3://bucket/x"}, "uri"),
        ({"uri": "/etc/passwd"}, "uri"),
        ({"sha256": None}, "sha256"),
        ({"sha256": "AB" * 32}, "sha256"),
        ({"etag": None}, "etag"),
        ({"etag": ""}, "etag"),
        ({"size_bytes": None}, "size"),
        ({"size_bytes": -1}, "size"),
        ({"status": "best"}, "kept image"),
        ({"uri": GROUPS[0][0].uri}, "twice"),
    ],
)
def test_n3_rows_of_another_form_are_refused(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    rows, groups = rows_of(GROUPS)
    place = next(i for i, row in enumerate(rows) if row.status == "duplicate")
    rows[place] = rows[place]._replace(**changes)
    write_by_hand(tmp_path, RUN_ID, rows, groups, [])
    with pytest.raises(ReportError, match=message):
        _plan(tmp_path)


@pytest.mark.parametrize("run_id", ["../x", "", "a/b", ".hidden", "a b"])
def test_n3_a_run_id_that_is_no_name_is_refused(tmp_path: Path, run_id: str) -> None:
    report_of(tmp_path, GROUPS)
    manifest = json.loads((tmp_path / "manifest.json").read_bytes())
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"run_id": run_id}))
    with pytest.raises(ReportError, match="run id"):
        _plan(tmp_path)
