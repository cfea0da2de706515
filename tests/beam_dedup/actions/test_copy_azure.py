"""Copies from, to and within Azure, against Azurite."""

import os
from pathlib import Path

import pytest

from beam_dedup.actions.copy import Copier, Result
from beam_dedup.actions.journal import Journal
from beam_dedup.actions.places import place_of
from beam_dedup.actions.plan import Plan
from beam_dedup.reports import Report
from tests.azurite import Azurite
from tests.beam_dedup.actions.children import child, run_children
from tests.beam_dedup.actions.made import (
    Source,
    blobs,
    copies,
    expected,
    local_groups,
    remote_groups,
    report_of,
)
from tests.faulty import Fault, Proxy, always, either, failing, first, reset
from transforms.access import Access
from transforms.storage import traffic
from transforms.storage.azure.account import forget_accounts

Accounts = tuple[Azurite, Azurite]


def _plan(tmp_path: Path, groups: list[list[Source]]) -> Plan:
    return Plan.of_report(Report.open(str(report_of(tmp_path / "report", groups))))


def _apply(plan: Plan, destination: str, *, execute: bool = True) -> dict[str, list[Result]]:
    access = Access(concurrency=4)
    place = place_of(destination, access)
    found: dict[str, list[Result]] = {}
    for result in Copier(place, access, execute=execute).run(plan, Journal(place, plan)):
        found.setdefault(result.outcome, []).append(result)
    return found


def _counts(found: dict[str, list[Result]]) -> dict[str, int]:
    return {outcome: len(results) for outcome, results in found.items()}


def _to(azurite: Azurite, container: str) -> str:
    return f"azfs://{azurite.account}/{container}/to"


def _behind(proxy: Proxy, azurite: Azurite, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"AZURE_STORAGE_CONNECTION_STRING__{azurite.account.upper()}"
    monkeypatch.setenv(name, azurite.connection_string(proxy.endpoint))
    forget_accounts()


def test_s3_within_an_account_the_store_copies(tmp_path: Path, accounts: Accounts) -> None:
    one, _ = accounts
    source, target = one.container(), one.container()
    groups = remote_groups(one, source)
    before = blobs(one, source)
    plan = _plan(tmp_path, groups)
    assert _counts(_apply(plan, _to(one, target), execute=False)) == {"copied": 6}
    assert one.names(target) == []
    traffic.take()
    found = _apply(plan, _to(one, target))
    counted = traffic.take()
    assert _counts(found) == {"copied": 6}
    assert traffic.total(counted, "copy") == 6
    assert traffic.total(counted, "read") == 0
    made = blobs(one, target, "to/")
    assert sorted(made.values()) == expected(groups)
    assert set(made) == {result.item.target for result in found["copied"]}
    for result in found["copied"]:
        client = one.client.get_blob_client(target, f"to/{result.item.target}")
        properties = client.get_blob_properties()
        assert properties.etag.strip('"') == result.etag
        assert properties.copy.status == "success"
    assert blobs(one, source) == before
    names = one.names(target)
    assert _counts(_apply(plan, _to(one, target))) == {"there": 6}
    assert one.names(target) == names
    assert traffic.total(traffic.take(), "copy") == 0


def test_across_accounts_bytes_pass_through(tmp_path: Path, accounts: Accounts) -> None:
    one, two = accounts
    target = two.container()
    groups = remote_groups(one, one.container())
    plan = _plan(tmp_path, groups)
    assert _counts(_apply(plan, _to(two, target))) == {"copied": 6}
    assert sorted(blobs(two, target, "to/").values()) == expected(groups)
    assert _counts(_apply(plan, _to(two, target))) == {"there": 6}


def test_from_here_to_azure_and_back(tmp_path: Path, accounts: Accounts) -> None:
    one, _ = accounts
    target = one.container()
    groups = local_groups(tmp_path / "in")
    plan = _plan(tmp_path, groups)
    assert _counts(_apply(plan, _to(one, target))) == {"copied": 6}
    assert sorted(blobs(one, target, "to/").values()) == expected(groups)
    groups = remote_groups(one, one.container())
    plan = _plan(tmp_path / "back", groups)
    assert _counts(_apply(plan, str(tmp_path / "to"))) == {"copied": 6}
    assert sorted(copies(tmp_path / "to").values()) == expected(groups)


@pytest.mark.parametrize("change", ["overwritten", "gone"])
def test_a2_a3_a_changed_blob_leaves_its_whole_group_out(
    tmp_path: Path, accounts: Accounts, change: str
) -> None:
    one, _ = accounts
    source, target = one.container(), one.container()
    groups = remote_groups(one, source)
    name = "1/0/a?x=1 #%20.jpg"
    if change == "gone":
        one.client.get_blob_client(source, name).delete_blob()
    else:
        one.upload(source, {name: groups[1][0].data})  # only its ETag is another one
    plan = _plan(tmp_path, groups)
    for execute in (False, True):
        found = _apply(plan, _to(one, target), execute=execute)
        assert _counts(found) == {"copied": 4, "changed": 2}
        assert all("since the report was made" in one.message for one in found["changed"])
    assert sorted(blobs(one, target, "to/").values()) == expected([groups[0], groups[2]])


@pytest.mark.parametrize("streamed", [False, True])
def test_a2_412_of_a_source_is_a_skip_and_no_retry(
    tmp_path: Path, accounts: Accounts, streamed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = accounts
    groups = remote_groups(one, one.container(), count=1, size=3)
    plan = _plan(tmp_path, groups)
    owner = two if streamed else one
    target = owner.container()
    kind = "read" if streamed else "copy"
    changed = failing(412, code="ConditionNotMet" if streamed else "SourceConditionNotMet")
    with Proxy(one.endpoint, always(changed, kind=kind)) as proxy:
        _behind(proxy, one, monkeypatch)
        found = _apply(plan, _to(owner, target))
        assert _counts(found) == {"changed": 3}
        assert 1 <= proxy.counts()[kind, 412] <= 3  # once for each at most
    assert blobs(owner, target, "to/") == {}


@pytest.mark.parametrize("same", [True, False])
def test_a7_another_content_is_never_overwritten(
    tmp_path: Path, accounts: Accounts, same: bool
) -> None:
    one, two = accounts
    groups = remote_groups(one, one.container())
    owner = one if same else two
    target = owner.container()
    plan = _plan(tmp_path, groups)
    item = next(iter(plan.groups()))[0]
    other = bytes(len(groups[0][0].data))
    owner.upload(target, {f"to/{item.target}": other})
    for execute in (False, True, True):
        found = _apply(plan, _to(owner, target), execute=execute)
        assert [result.item for result in found["conflict"]] == [item]
    made = blobs(owner, target, "to/")
    assert made[item.target] == other
    assert len(made) == 6


def test_a6_two_processes_at_once_have_one_effect(tmp_path: Path, accounts: Accounts) -> None:
    one, _ = accounts
    target = one.container()
    groups = remote_groups(one, one.container(), count=8, size=3)
    report = report_of(tmp_path / "report", groups)
    argv = ["apply", f"--report={report}", "--action=copy", f"--destination={_to(one, target)}"]
    assert run_children([[child([*argv, "--execute"])] * 2]) == [[0, 0]]
    assert sorted(blobs(one, target, "to/").values()) == expected(groups)


@pytest.mark.parametrize("streamed", [False, True])
def test_a5_killed_anywhere_and_run_again_gives_the_same(
    tmp_path: Path, accounts: Accounts, streamed: bool
) -> None:
    one, two = accounts
    owner = two if streamed else one
    groups = remote_groups(one, one.container(), count=1)
    report = report_of(tmp_path / "report", groups)
    account = "transforms.storage.azure.account:Account"
    copying = [(f"{account}.{'put' if streamed else 'copy'}", nth) for nth in (1, 2)]
    if streamed:
        copying = [(name, nth + 1) for name, nth in copying]  # the journal is put before
    journal = [("beam_dedup.actions.journal:Journal.write", nth) for nth in (1, 2)]
    points = [(*point, when) for point in copying + journal for when in ("before", "after")]
    whole, *killed = (owner.container() for _ in range(len(points) + 1))

    def argv(container: str) -> list[str]:
        words = ["apply", f"--report={report}", "--action=copy", "--execute"]
        return [*words, f"--destination={_to(owner, container)}", "--read_concurrency=1"]

    codes = run_children(
        [
            [child(argv(whole))],
            *(
                [child(argv(to), *point)]
                for to, point in zip(killed, points, strict=True)
            ),
            *([child(argv(to))] for to in killed),
        ]
    )  # fmt: skip
    assert codes == [[0], *[[-9]] * len(points), *[[0]] * len(points)]
    made = blobs(owner, whole, "to/")
    assert sorted(made.values()) == expected(groups)
    assert all(blobs(owner, to, "to/") == made for to in killed)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (failing(403, code="AuthorizationPermissionMismatch"), "copy"),
        (failing(409, code="BlobImmutableDueToPolicy"), "copy"),
        (failing(403, code="AuthorizationPermissionMismatch"), "head"),
        (failing(412, code="LeaseIdMissing"), "copy"),
    ],
)
def test_a10_what_one_blob_refuses_is_reported_and_the_rest_goes_on(
    tmp_path: Path,
    accounts: Accounts,
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault,
    kind: str,
) -> None:
    one, _ = accounts
    source, target = one.container(), one.container()
    groups = remote_groups(one, source)
    plan = _plan(tmp_path, groups)
    refused = next(group[1] for group in plan.groups() if group[0].uri == groups[1][0].uri)
    path = f"/{source}/1/1/" if kind == "head" else refused.target
    with Proxy(one.endpoint, always(fault, kind=kind, path=path)) as proxy:
        _behind(proxy, one, monkeypatch)
        found = _apply(plan, _to(one, target))
    assert _counts(found) == {"copied": 5, "failed": 1}
    assert found["failed"][0].item == refused
    assert fault.code in found["failed"][0].message
    assert len(blobs(one, target, "to/")) == 5


@pytest.mark.parametrize("streamed", [False, True])
def test_r1_r2_r5_a_bad_day_of_the_store_loses_nothing(
    tmp_path: Path, accounts: Accounts, streamed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = accounts
    owner = two if streamed else one
    target = owner.container()
    groups = remote_groups(one, one.container(), count=2)
    plan = _plan(tmp_path, groups)
    faults = either(
        first(1, failing(503), kind="copy"),
        first(1, reset(done=True), kind="copy"),  # copied, but nobody said so
        first(1, reset(done=True), kind="write"),
        first(1, failing(429), kind="head"),
        first(1, reset(), kind="read"),
    )
    with Proxy(owner.endpoint, faults) as proxy:
        _behind(proxy, owner, monkeypatch)
        found = _apply(plan, _to(owner, target))
    assert set(found) <= {"copied", "there"}
    assert sorted(blobs(owner, target, "to/").values()) == expected(groups)


def test_a_source_without_md5_is_verified_by_reading(tmp_path: Path, accounts: Accounts) -> None:
    from azure.storage.blob import ContentSettings

    one, _ = accounts
    source, target = one.container(), one.container()
    groups = remote_groups(one, source, count=1)
    for number, name in enumerate(one.names(source)):
        client = one.client.get_blob_client(source, name)
        client.set_http_headers(ContentSettings(content_md5=None))
        etag = client.get_blob_properties().etag.strip('"')
        groups[0][number] = groups[0][number]._replace(etag=etag)
    plan = _plan(tmp_path, groups)
    item = next(iter(plan.groups()))[1]
    one.upload(target, {f"to/{item.target}": groups[0][1].data})
    found = _apply(plan, _to(one, target))
    assert _counts(found) == {"there": 1, "copied": 1}
    one.upload(target, {f"to/{item.target}": bytes(item.size_bytes)})
    assert _counts(_apply(plan, _to(one, target))) == {"there": 1, "conflict": 1}


def test_x2_no_secret_is_written(tmp_path: Path, accounts: Accounts) -> None:
    one, two = accounts
    target = two.container()
    plan = _plan(tmp_path, remote_groups(one, one.container()))
    _apply(plan, _to(two, target))
    journal = [two.read(target, name) for name in two.names(target) if "/journal/" in name]
    assert len(journal) == 2
    assert not any(one.key.encode() in data or b"sig=" in data for data in journal)
    assert one.key in os.environ[f"AZURE_STORAGE_CONNECTION_STRING__{one.account.upper()}"]
