"""Kept listings: whole or not at all, used while they are fresh, the same rows as listing anew."""

import json
import time
from collections import defaultdict
from pathlib import Path

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to

from tests.transforms.storage.accounts import FakeAccount
from transforms.access import LOCAL
from transforms.listing import ListImages, check_inputs, iterate_inputs
from transforms.records import FailedImage
from transforms.storage import cache as cache_module
from transforms.storage.azure import blobs
from transforms.storage.azure.blobs import split, walk
from transforms.storage.cache import (
    MANIFEST,
    Kept,
    ListingCache,
    find,
    fresh_parts,
    publish,
    read_known,
    resolve,
    walk_fresh,
)
from transforms.storage.errors import InputError
from transforms.storage.patterns import Bounds
from transforms.storage.sightings import Scope, Source

ROOT = "azfs://acc/pics/p"
NAMES = ["b.jpg", "a/x.jpg", "a/y.png", "a/d/z.jpg", "c/é.jpg", "c/e 1.jpg", "aa.png", "Ü/u.jpg"]
DAY_S = 86400.0


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> FakeAccount:
    made = FakeAccount(page=3)
    made.fill("pics", {f"p/{name}": name.encode() for name in NAMES})
    made.fill("pics", {"p/cold.jpg": b"cold"}, tier="Archive")
    made.fill("pics", {"p/": b"the very prefix"})
    made.fill("pics", {"q/other.jpg": b"other", "p.jpg": b"p", "p/out/r.csv": b"r"})
    return made.used(monkeypatch)


def run(*inputs: str, cache: ListingCache | None, **options: object) -> dict[str, list]:
    """Run a listing as a pipeline does, and return its outputs."""
    _taken.clear()
    with TestPipeline("FnApiRunner") as pipeline:
        listing = pipeline | ListImages(list(inputs) or [ROOT], cache=cache, **options)
        for name in ("found", "failed", "caps"):
            getattr(listing, name) | name >> beam.Map(_take, name)
    return {name: sorted(_taken[name]) for name in ("found", "failed", "caps")}


_taken: dict[str, list] = defaultdict(list)  # in the one process of these pipelines


def _take(row: object, name: str) -> None:
    _taken[name].append(row)


def shards(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.parquet"))


def manifests(folder: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(folder.rglob(MANIFEST))]


def _age(folder: Path, seconds: float) -> None:
    """Make a listing look as if it had been made earlier."""
    (path,) = folder.rglob(MANIFEST)
    manifest = json.loads(path.read_text())
    old = manifest["listing"]
    began = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(cache_module._seconds(old) - seconds))
    new = began + old[len(began) :]
    for shard in manifest["shards"]:
        renamed = shard["name"].replace(old, new)
        (path.parent / shard["name"]).rename(path.parent / renamed)
        shard["name"] = renamed
    manifest["listing"] = new
    path.write_text(json.dumps(manifest))


def test_a_listing_is_kept_and_used_again_for_the_same_rows(
    account: FakeAccount, tmp_path: Path
) -> None:
    cache = ListingCache(str(tmp_path), DAY_S)
    plain = run(cache=None)
    account.take()
    first = run(cache=cache)
    assert account.take()["list"] > 3
    assert first == plain
    (manifest,) = manifests(tmp_path)
    assert manifest["prefix"] == f"{ROOT}/"
    assert manifest["rows"] == len(NAMES) + 3
    second = run(cache=cache)
    assert account.take() == {"head": 1}
    (cap,) = (cap for cap in second.pop("caps") if cap.name == "listing_cache")
    assert (cap.stage, cap.applied) == ("list", 1)
    assert 0 <= cap.limit < 60
    assert cap.note.startswith("input 1 was not listed: a listing of 20")
    assert second == {name: rows for name, rows in plain.items() if name != "caps"}


@pytest.mark.parametrize(
    ("inputs", "options"),
    [
        ([ROOT], {"include": ["*.jpg"]}),
        ([ROOT], {"exclude": ["a/"], "output": f"{ROOT}/out"}),
        ([ROOT], {"bounds": Bounds(min_bytes=7)}),
        ([ROOT], {"bounds": Bounds(before_us=1)}),
        ([f"{ROOT}/**"], {}),
        ([f"{ROOT}/*.jpg"], {}),
        ([f"{ROOT}/*/*.png", f"{ROOT}/c", ROOT], {}),
    ],
)
def test_one_listing_serves_every_glob_filter_and_output(
    account: FakeAccount, tmp_path: Path, inputs: list[str], options: dict
) -> None:
    cache = ListingCache(str(tmp_path), DAY_S)
    run(ROOT, f"{ROOT}/c", cache=cache)
    kept = shards(tmp_path)
    plain = run(*inputs, cache=None, **options)
    account.take()
    again = run(*inputs, cache=cache, **options)
    # A glob asks once whether something has its very name.
    assert account.take().get("list", 0) == sum("*" in one for one in inputs)
    assert shards(tmp_path) == kept
    again["caps"] = [cap for cap in again["caps"] if cap.name != "listing_cache"]
    assert again == plain


def test_a_limit_takes_the_same_rows_and_keeps_nothing(
    account: FakeAccount, tmp_path: Path
) -> None:
    cache = ListingCache(str(tmp_path), DAY_S)
    plain = run(cache=cache, limit=4)
    assert shards(tmp_path) == []
    run(cache=cache)
    kept = shards(tmp_path)
    account.take()
    again = run(cache=cache, limit=4)
    assert account.take() == {"head": 1}
    assert (again["found"], again["failed"]) == (plain["found"], plain["failed"])
    assert [cap.name for cap in again["caps"]] == ["listing_cache"]
    assert shards(tmp_path) == kept
    for limit in range(1, 12):
        first = list(iterate_inputs([ROOT], limit=limit))
        assert list(iterate_inputs([ROOT], limit=limit, cache=cache)) == first
        assert len(first) == min(limit, len(NAMES) + 3)


def test_r7_a_listing_that_fails_keeps_no_manifest(account: FakeAccount, tmp_path: Path) -> None:
    cache = ListingCache(str(tmp_path), DAY_S)
    for pages in (0, 2, 3):
        account.fails_after = pages
        with pytest.raises(Exception, match="a page of names is cut"):
            run(cache=cache)
        assert manifests(tmp_path) == []
        assert find(cache, Source("folder", ROOT), LOCAL) is None
    account.fails_after = None
    assert len(run(cache=cache)["found"]) == len(NAMES) + 2
    assert len(manifests(tmp_path)) == 1


def _walked(account: FakeAccount, cache: ListingCache) -> list[Kept]:
    scope, kept = Scope(), []
    source, known = resolve(ROOT.encode(), scope, cache)
    assert known is None
    for part in fresh_parts(source, scope, cache):
        assert list(walk_fresh(part, scope, kept.append))
    return kept


def test_r7_a_listing_without_one_of_its_parts_is_none(
    account: FakeAccount, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = ListingCache(str(tmp_path), DAY_S)
    kept = _walked(account, cache)
    assert len(kept) > 3
    assert publish(kept[1:], LOCAL) is None
    assert caplog.messages == [
        f"a listing has {len(kept) - 1} of {len(kept)} parts and is not kept"
    ]
    assert manifests(tmp_path) == []
    assert publish(kept, LOCAL) == manifests(tmp_path)[0]


def test_r7_r14_a_part_that_is_walked_twice_counts_once(
    account: FakeAccount, tmp_path: Path
) -> None:
    cache = ListingCache(str(tmp_path), DAY_S)
    kept = _walked(account, cache)
    twice: list[Kept] = []
    list(walk_fresh(kept[0].part, Scope(), twice.append))
    assert twice[0].shards[0].name != kept[0].shards[0].name
    assert twice[0].rows == kept[0].rows
    publish([*kept, *twice], LOCAL)
    assert manifests(tmp_path)[0]["rows"] == len(NAMES) + 3
    assert len(run(cache=cache)["found"]) == len(NAMES) + 2


def test_r7_a_walk_that_is_left_in_the_middle_tells_of_no_shards(
    account: FakeAccount, tmp_path: Path
) -> None:
    cache = ListingCache(str(tmp_path), DAY_S)
    kept: list[Kept] = []
    source, _ = resolve(ROOT.encode(), Scope(), cache)
    walk = walk_fresh(fresh_parts(source, Scope(), cache)[0], Scope(), kept.append)
    next(walk)
    walk.close()  # type: ignore[attr-defined]  # a generator
    assert kept == []
    assert shards(tmp_path) == []


@pytest.mark.parametrize(
    ("age_s", "max_age_s", "is_used"),
    [
        (0, DAY_S, True),
        (DAY_S, DAY_S, True),
        (DAY_S + 1, DAY_S, False),
        (-299, DAY_S, True),
        (-301, DAY_S, False),
        (0, 0.0, False),
    ],
)
def test_r8_a_listing_is_used_while_it_is_fresh_and_never_from_the_future(
    account: FakeAccount, tmp_path: Path, age_s: float, max_age_s: float, is_used: bool
) -> None:
    kept = _walked(account, ListingCache(str(tmp_path), DAY_S))
    publish(kept, LOCAL)
    began = cache_module._seconds(kept[0].part.listing)
    cache = ListingCache(str(tmp_path), max_age_s)
    known = find(cache, Source("folder", ROOT), LOCAL, now=began + age_s)
    assert (known is not None) == is_used
    if known:
        assert known.age_s(began + age_s) == max(age_s, 0)


def test_an_old_listing_is_made_anew_and_its_shards_go_one_listing_later(
    account: FakeAccount, tmp_path: Path
) -> None:
    cache = ListingCache(str(tmp_path), DAY_S)
    generations = []
    for number in range(3):
        account.fill("pics", {f"p/new{number}.jpg": b"new"})
        rows = run(cache=cache)
        assert len(rows["found"]) == len(NAMES) + 3 + number
        generations.append({path.name for path in shards(tmp_path)})
        _age(tmp_path, 5 * DAY_S)
    # A job may have begun to read a listing right before it was replaced.
    assert len(generations[1]) == 2 * len(generations[0]) + 0
    assert len(generations[2]) == len(generations[1])


def test_shards_that_no_manifest_names_are_removed_once_no_job_can_be_writing_them(
    account: FakeAccount, tmp_path: Path
) -> None:
    cache = ListingCache(str(tmp_path), DAY_S)
    kept = _walked(account, cache)
    publish(kept, LOCAL)
    (folder,) = tmp_path.iterdir()
    stamps = [time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(time.time() - s)) for s in (7e3, 9e4)]
    young, old = (f"{stamp}-0123abcd-00000-89abcdef-000.parquet" for stamp in stamps)
    for name in (young, old, "mine.parquet", "notes.txt"):
        (folder / name).write_bytes(b"half a sh")
    before = {path.name for path in folder.iterdir()}
    assert len(run(cache=cache)["found"]) == len(NAMES) + 2  # what no manifest names is no row
    publish(_walked(account, ListingCache(str(tmp_path), 0)), LOCAL)
    assert before - {path.name for path in folder.iterdir()} == {old}


def test_r7_a_shard_that_is_lost_or_changed_ends_the_job(
    account: FakeAccount, tmp_path: Path
) -> None:
    cache = ListingCache(str(tmp_path), DAY_S)
    run(cache=cache)
    _, known = resolve(ROOT.encode(), Scope(), cache)
    assert known is not None
    path = shards(tmp_path)[0]
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(InputError, match="--listing_max_age=0"):
        list(read_known(known, Scope()))
    path.unlink()
    with pytest.raises(Exception, match="has lost its file"):
        run(cache=cache)
    assert len(run(cache=ListingCache(str(tmp_path), 0))["found"]) == len(NAMES) + 2


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(format=2),
        lambda m: m.update(prefix="azfs://acc/pics/"),
        lambda m: m.update(rows=3),
        lambda m: m.update(listing="yesterday"),
        lambda m: m["shards"][0].update(name="../../etc/passwd"),
        lambda m: m["shards"][0].pop("sha256"),
        lambda m: m.clear(),
    ],
)
def test_a_manifest_that_is_none_is_not_used(
    account: FakeAccount, tmp_path: Path, change: object, caplog: pytest.LogCaptureFixture
) -> None:
    cache = ListingCache(str(tmp_path), DAY_S)
    run(cache=cache)
    (path,) = tmp_path.rglob(MANIFEST)
    manifest = json.loads(path.read_text())
    change(manifest)  # type: ignore[operator]
    path.write_text(json.dumps(manifest))
    account.take()
    assert len(run(cache=cache)["found"]) == len(NAMES) + 2
    assert account.take()["list"] > 1
    assert set(caplog.messages) == {
        f"the listing cache holds a {MANIFEST} that is none; it is not used"
    }
    assert find(cache, Source("folder", ROOT), LOCAL) is not None


def test_a_blob_of_the_very_name_goes_before_a_kept_folder(
    account: FakeAccount, tmp_path: Path
) -> None:
    cache = ListingCache(str(tmp_path), DAY_S)
    run(cache=cache)
    account.fill("pics", {"p": b"a blob"})
    assert [ref.uri for ref in run(cache=cache)["found"]] == [ROOT]
    assert len(run(f"{ROOT}/", cache=cache)["found"]) == len(NAMES) + 2


def test_shards_are_bounded_and_can_be_read_as_a_list(
    account: FakeAccount, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "_SHARD_ROWS", 10)
    monkeypatch.setattr(cache_module, "_ROWS_AT_ONCE", 3)
    account.fill("pics", {f"big/{n:02d}.jpg": b"x" for n in range(25)})
    cache = ListingCache(str(tmp_path), DAY_S)
    plain = run("azfs://acc/pics/big", cache=None)
    assert run("azfs://acc/pics/big", cache=cache) == plain
    tables = [pq.read_table(path) for path in shards(tmp_path)]
    assert sorted(len(table) for table in tables) == [5, 10, 10]
    whole = pa.concat_tables(tables)
    assert whole.column_names == [
        "uri", "below", "size_bytes", "etag", "modified", "content_md5", "error_type",
        "error_message",
    ]  # fmt: skip
    assert sorted(whole["uri"].to_pylist()) == [ref.uri for ref in plain["found"]]
    assert set(whole["content_md5"].to_pylist()) == {"9dd4e461268c8034f5c8564e155c67a6"}
    assert [ref.uri for ref in run("azfs://acc/pics/big", cache=cache, limit=12)["found"]] == [
        f"azfs://acc/pics/big/{n:02d}.jpg" for n in range(12)
    ]


def test_a_cache_in_the_store_itself_is_never_an_input(account: FakeAccount) -> None:
    cache = ListingCache(f"{ROOT}/kept", DAY_S)
    plain = run(cache=None)
    for _ in range(3):
        rows = run(cache=cache)
        assert (rows["found"], rows["failed"]) == (plain["found"], plain["failed"])
    assert any(name.startswith("p/kept/") for name in account.blobs["pics"])
    with pytest.raises(InputError, match="listing cache"):
        check_inputs([f"{ROOT}/kept"], cache=cache)


def test_a_folder_of_this_machine_is_not_kept(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jpg").write_bytes(b"a")
    cache = ListingCache(str(tmp_path / "in/kept"), DAY_S)
    assert len(run(str(tmp_path / "in"), cache=cache)["found"]) == 1
    assert not (tmp_path / "in/kept").exists()


@pytest.mark.parametrize("folder", ["gs://b/c", "http://h/c", "", "azfs://acc", "file://host/c"])
def test_a_cache_elsewhere_is_refused(folder: str) -> None:
    with pytest.raises(InputError, match="listing_cache"):
        ListingCache(folder, DAY_S)


def test_a_relative_cache_is_pinned_to_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cache = ListingCache("kept", DAY_S)
    assert (cache.folder, cache.uri) == (f"{tmp_path}/kept", f"file://{tmp_path}/kept")
    assert ListingCache(cache.uri, DAY_S) == cache


def test_iterating_reads_the_cache_and_never_writes_it(
    account: FakeAccount, tmp_path: Path
) -> None:
    cache = ListingCache(str(tmp_path), DAY_S)
    inputs = [ROOT, "azfs://acc/pics/q"]
    plain = list(iterate_inputs(inputs))
    assert list(iterate_inputs(inputs, cache=cache)) == plain
    assert shards(tmp_path) == []
    run(*inputs, cache=cache)
    account.take()
    assert list(iterate_inputs(inputs, cache=cache)) == plain
    assert account.take() == {"head": 2}
    assert sum(isinstance(row, FailedImage) for row in plain) == 1


def test_the_check_of_an_input_takes_few_requests(
    account: FakeAccount, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_inputs([ROOT])
    assert account.take() == {"head": 1, "list": 2}
    check_inputs([ROOT], include=["c/"])
    assert account.take() == {"head": 1, "list": 4}
    check_inputs([f"{ROOT}/**/*.jpg"])
    assert account.take() == {"head": 1, "list": 3}
    cache = ListingCache(str(tmp_path), DAY_S)
    run(cache=cache)
    account.take()
    check_inputs([ROOT], cache=cache)
    assert account.take() == {"head": 1}


def test_the_check_looks_at_a_bounded_number_of_names(
    account: FakeAccount, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from transforms import listing

    with pytest.raises(InputError, match="filters of names, size and date leave"):
        check_inputs([ROOT], include=["*.gif"])
    monkeypatch.setattr(listing, "_LOOKED_AT", 5)
    account.take()
    check_inputs([ROOT], include=["*.gif"])
    assert account.take() == {"head": 1, "list": 3}
    assert caplog.messages == ["none of the first 5 names of input 1 is an input"]


def test_names_of_one_remote_folder_are_not_remembered(
    account: FakeAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transforms import listing

    asked: list[bool] = []
    real = listing._may_repeat
    monkeypatch.setattr(
        listing, "_may_repeat", lambda parts: asked.append(real(parts)) or asked[-1]
    )
    for inputs in ([ROOT], [ROOT, "azfs://acc/pics/q"], [ROOT, f"{ROOT}/a"], [f"{ROOT}.jpg", ROOT]):
        uris = [getattr(row, "ref", row).uri for row in iterate_inputs(inputs)]
        assert len(uris) == len(set(uris))
    assert asked == [False, False, True, True]


def test_the_pipeline_counts_the_work_of_keeping(account: FakeAccount, tmp_path: Path) -> None:
    cache = ListingCache(str(tmp_path), DAY_S)
    with TestPipeline("FnApiRunner") as pipeline:
        listing = pipeline | ListImages([ROOT], cache=cache)
        total = listing.stats | beam.Map(lambda s: s.items_in) | beam.CombineGlobally(sum)
        assert_that(total, equal_to([len(NAMES) + 3]))


def test_parts_are_found_without_listing_twice(account: FakeAccount) -> None:
    names = [f"big/{folder:02d}/{n:03d}.jpg" for folder in range(10) for n in range(150)]
    names += [f"big/{folder:02d}/sub/x.jpg" for folder in range(2)]
    account.fill("pics", {name: b"x" for name in names})
    parts = list(split(Source("folder", "azfs://acc/pics/big"), LOCAL))
    # The first level as a whole; of those below, what fits on a small page is cut on.
    assert account.levels == [("big/", 5000), *((f"big/{n:02d}/", 100) for n in range(10))]
    found = [s.ref.below for part in parts for s in walk(part, Scope())]
    assert sorted(found) == sorted(name.removeprefix("big/") for name in names)
    assert len(parts) == 10


def test_to_find_parts_takes_a_bounded_number_of_requests(account: FakeAccount) -> None:
    deep = "/".join("abcdefgh")
    names = [f"deep/{chain:02d}/{deep}/{end}/x.jpg" for chain in range(60) for end in "12"]
    account.fill("pics", {name: b"x" for name in names})
    parts = list(split(Source("folder", "azfs://acc/pics/deep"), LOCAL))
    assert account.take() == {"list": 1 + 4 * 60}
    assert [part.part for part in parts] == [f"{chain:02d}/a/b/c/d/" for chain in range(60)]


def test_parts_of_many_small_folders_are_bounded(
    account: FakeAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blobs, "_MOST_PARTS", 20)
    names = [f"wide/{top}/{n:02d}/x.jpg" for top in range(7) for n in range(12)]
    account.fill("pics", {name: b"x" for name in names})
    parts = list(split(Source("folder", "azfs://acc/pics/wide"), LOCAL))
    assert len(parts) == 12 + 6
    found = [s.ref.below for part in parts for s in walk(part, Scope())]
    assert sorted(found) == sorted(name.removeprefix("wide/") for name in names)
