"""A report is opened whole or not at all, and every broken promise is found."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beam_dedup.reports import Report, ReportError
from tests.transforms.reporting.made import (
    EDGES,
    GROUP,
    GROUPS,
    IMAGES,
    embedded,
    failed_row,
    image_row,
    run_report,
    tree,
    write_by_hand,
    write_table,
)
from transforms.reporting.schema import TABLES, images_table, to_arrow
from transforms.reporting.stores import open_store

EMBEDDED = {"labels": True, "embedding_size": 4}
A, B, C, D = (f"file:///in/{name}.jpg" for name in "abcd")


def _open(output):
    return Report.open(str(output))


def _replace(rows, index, **changes):
    return [*rows[:index], rows[index]._replace(**changes), *rows[index + 1 :]]


@pytest.fixture
def output(tmp_path):
    """A folder with a good report."""
    write_by_hand(tmp_path, "run-1")
    return tmp_path


def test_a_report_is_read_back_whole(tmp_path):
    run_report(tmp_path, "run-1", options={"profile": "fast"})
    report = _open(tmp_path)
    assert report.run_id == "run-1"
    assert report.images.equals(to_arrow(TABLES["images"], IMAGES))
    assert report.groups.equals(to_arrow(TABLES["groups"], GROUPS))
    assert report.edges.equals(to_arrow(TABLES["edges"], EDGES))
    assert report.summary["options"] == {"profile": "fast"}
    assert report.check() == []


@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("size", [None, 4])
def test_labels_and_embeddings_are_read_where_they_are(tmp_path, labels, size):
    columns = {"labels": labels, "embedding_size": size}
    rows = embedded()
    write_by_hand(tmp_path, "run-1", rows, columns=columns)
    report = _open(tmp_path)
    assert report.check() == []
    assert report.images.equals(to_arrow(images_table(**columns), rows))
    further = [*["label"] * labels, *["embedding"] * bool(size)]
    assert report.read("images", ["uri", *further]).column_names == ["uri", *further]
    for name in {"label", "embedding"} - set(further):
        with pytest.raises(ReportError, match=f"images has no column '{name}'"):
            report.read("images", ["uri", name])


def test_an_empty_report_with_embeddings_is_sound(tmp_path):
    write_by_hand(tmp_path, "run-1", [], [], [], columns=EMBEDDED)
    report = _open(tmp_path)
    assert report.check() == []
    assert report.images.equals(images_table(**EMBEDDED).schema.empty_table())


def test_files_of_two_sizes_are_no_report(tmp_path):
    write_by_hand(tmp_path, "run-1", embedded(), columns={"embedding_size": 4})
    path = "images/run-1-00001.parquet"
    table = images_table(embedding_size=5)
    rows = embedded([image_row("x.jpg")], 5)
    entry = write_table(open_store(str(tmp_path)), path, to_arrow(table, rows))
    manifest = json.loads((tmp_path / "manifest.json").read_bytes())
    manifest["files"].append(entry._asdict())
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ReportError, match=r"00001\.parquet' is no table of images"):
        _ = _open(tmp_path).images


def _vector(*values):
    return np.array(values, np.float16).tobytes()


@pytest.mark.parametrize(
    ("index", "changes", "message"),
    [
        (3, {"embedding": _vector(0.5, 0, 0, 0)}, "d.jpg has an embedding of length 0.5000"),
        (3, {"embedding": _vector(1, np.nan, 0, 0)}, "d.jpg has an embedding of length nan"),
        (3, {"embedding": _vector(np.inf, 0, 0, 0)}, "d.jpg has an embedding of length inf"),
        (3, {"embedding": _vector(1.0027, 0, 0, 0)}, "d.jpg has an embedding of length 1.00"),
        (3, {"embedding": None}, "d.jpg has neither an embedding nor an error"),
        (4, {"embedding": _vector(1, 0, 0, 0)}, "e.jpg is failed and has an embedding"),
        (1, {"embedding": _vector(0, 0, 1, 0)}, "b.jpg has another embedding than its exact"),
        (1, {"label": "other"}, "b.jpg has another label than its exact copies"),
        (3, {"label": None}, "d.jpg has the label None with the score 0.5"),
        (3, {"label_score": None}, "d.jpg has the label 'l0' with the score None"),
        (3, {"label_score": 1.5}, "d.jpg has the label 'l0' with the score 1.5"),
        (4, {"label": "l", "label_score": 0.5}, "e.jpg is failed and has a label"),
    ],
)
def test_m7_what_labels_and_embeddings_must_be(tmp_path, index, changes, message):
    rows = _replace(embedded(), index, **changes)
    write_by_hand(tmp_path, "run-1", rows, columns=EMBEDDED)
    (problem,) = _open(tmp_path).check()
    assert message in problem


def test_m7_an_image_that_could_not_be_embedded_has_an_error_instead(tmp_path):
    error = {"error_stage": "global", "error_type": "bad_embedding", "error_message": "nan"}
    rows = _replace(embedded(), 3, embedding=None, label=None, label_score=None, **error)
    write_by_hand(tmp_path, "run-1", rows, columns=EMBEDDED)
    assert _open(tmp_path).check() == []


@pytest.mark.parametrize("size", [1, 231, 4096])
def test_the_rounding_of_float16_is_no_fault(tmp_path, size):
    rows = []
    for seed in range(8):
        vector = np.random.default_rng(seed).normal(size=size).astype(np.float32)
        vector = (vector / np.linalg.norm(vector)).astype(np.float16)
        rows.append(image_row(f"{seed}.jpg", embedding=vector.tobytes()))
    write_by_hand(tmp_path, "run-1", rows, [], [], columns={"embedding_size": size})
    assert _open(tmp_path).check() == []


def test_an_empty_report_is_sound(tmp_path):
    write_by_hand(tmp_path, "run-1", [], [], [])
    assert _open(tmp_path).images.equals(TABLES["images"].schema.empty_table())
    assert _open(tmp_path).check() == []


def test_a8_stale_files_are_not_read(output):
    stale = to_arrow(TABLES["images"], [image_row("stale.jpg")])
    write_table(open_store(str(output)), "images/run-0-00000.parquet", stale)
    write_table(open_store(str(output)), "images/run-1-00001.parquet", stale)
    report = _open(output)
    assert report.images.equals(to_arrow(TABLES["images"], IMAGES))
    assert report.check() == []


@pytest.mark.parametrize("name", ["absent", "file", "."])
def test_where_no_run_has_ended_there_is_no_report(tmp_path, name):
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(ReportError, match=r"no manifest\.json"):
        _open(tmp_path / name)


def test_a_manifest_that_is_a_folder(tmp_path):
    (tmp_path / "manifest.json").mkdir()
    with pytest.raises(ReportError, match="Is a directory"):
        _open(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff", b'{"files": [{"path": "../x"}]}'])
def test_a_damaged_manifest(tmp_path, content):
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(ReportError, match=r"manifest\.json in"):
        _open(tmp_path)


@pytest.mark.parametrize(
    "path",
    ["images/run-1-00000.parquet", "groups/run-1-00000.parquet", "report.csv", "summary.json"],
)
def test_a8_a_missing_or_changed_file_is_found(output, path):
    data = (output / path).read_bytes()
    changed = f"{path!r} is not the file that the manifest names"
    for content, message in (
        (data[:-1], changed),
        (data + b"x", changed),
        (data[:-1] + bytes([data[-1] ^ 1]), changed),
        (None, f"{path!r} cannot be read: No such file or directory"),
    ):
        if content is None:
            (output / path).unlink()
        else:
            (output / path).write_bytes(content)
        with pytest.raises(ReportError, match=path) as caught:
            _open(output)
        assert str(caught.value) == message
        assert Report.open(str(output), verify=False).check() == [message]


def _renamed(output, table, change):
    """Replace a table's file by a changed one, and let the manifest name it."""
    path = f"{table}/run-1-00000.parquet"
    entry = write_table(open_store(str(output)), path, change(pq.ParquetFile(output / path).read()))
    manifest = json.loads((output / "manifest.json").read_bytes())
    files = [entry._asdict() if e["path"] == path else e for e in manifest["files"]]
    (output / "manifest.json").write_text(json.dumps({**manifest, "files": files}))


def test_more_columns_may_have_been_added(output):
    _renamed(output, "images", lambda t: t.add_column(0, "new", pa.array([0] * len(t))))
    assert _open(output).images.equals(to_arrow(TABLES["images"], IMAGES))
    assert _open(output).check() == []


def test_a_missing_column_is_an_error(output):
    _renamed(output, "images", lambda table: table.drop_columns(["sha256"]))
    with pytest.raises(ReportError, match="is no table of images"):
        _ = _open(output).images
    assert "sha256" in _open(output).check()[0]


def test_a_file_that_is_no_parquet_is_an_error(output):
    manifest = json.loads((output / "manifest.json").read_bytes())
    path = "images/run-1-00000.parquet"
    with open_store(str(output)).drafts() as drafts:
        with drafts.write(path) as file:
            file.write(b"no table")
        entry = drafts.describe(path, 5)._asdict()
        drafts.publish()
    files = [entry if e["path"] == entry["path"] else e for e in manifest["files"]]
    (output / "manifest.json").write_text(json.dumps({**manifest, "files": files}))
    with pytest.raises(ReportError, match="is no table of images"):
        _ = _open(output).images
    assert len(_open(output).check()) == 1


BROKEN = {
    "a duplicate without any edge": (
        {"edges": EDGES[1:]},
        [f"{C} has no accepted edge to {A}"],
    ),
    "a duplicate with a rejected edge": (
        {"edges": _replace(EDGES, 0, verdict="reject", in_group=False)},
        [f"{C} has no accepted edge to {A}"],
    ),
    "a duplicate with an edge to another duplicate": (
        {"edges": [EDGES[0]._replace(uri_a=C, uri_b=D, in_group=False), EDGES[1]]},
        [f"{C} has no accepted edge to {A}"],
    ),
    "two best in one group": (
        {"images": _replace(IMAGES, 1, status="best", relation=None, decided_by=None)},
        [f"group {GROUP} has 2 kept images and 3 rows"],
    ),
    "no best in a group": (
        {"images": _replace(IMAGES, 0, status="duplicate", relation="exact", decided_by="exact")},
        [f"group {GROUP} has 0 kept images and 3 rows"],
    ),
    "a group of one": (
        {
            "images": [image_row("d.jpg", "best", group_id="g", best_uri=D)],
            "groups": [GROUPS[0]._replace(group_id="g", best_uri=D, size=1)],
            "edges": [],
        },
        ["group g has 1 kept images and 1 rows"],
    ),
    "a wrong group_id": (
        {
            "images": [r._replace(group_id="g0") if r.group_id else r for r in IMAGES],
            "groups": [GROUPS[0]._replace(group_id="g0")],
        },
        ["group g0 contradicts itself"],
    ),
    "a wrong group_size": (
        {"images": _replace(IMAGES, 1, group_size=2)},
        [f"group {GROUP} contradicts itself"],
    ),
    "a wrong size in the groups table": (
        {"groups": [GROUPS[0]._replace(size=2)]},
        [f"group {GROUP} contradicts itself"],
    ),
    "a group of another name": (
        {"groups": [GROUPS[0]._replace(group_id="gother")]},
        ["the groups table and the rows name different groups",
         f"group {GROUP} contradicts itself"],
    ),
    "more reclaimed than there is": (
        {"groups": [GROUPS[0]._replace(reclaimable_bytes=2001)]},
        [f"group {GROUP} contradicts itself"],
    ),
    "exact with a different sha256": (
        {"images": _replace(IMAGES, 1, sha256="ff" * 32)},
        [f"{B} has equal pixels but is exact"],
    ),
    "exact with a different size": (
        {"images": _replace(IMAGES, 1, size_bytes=1001)},
        [f"{B} has equal pixels but is exact"],
    ),
    "pixels with the same sha256": (
        {"images": _replace(IMAGES, 1, relation="pixels")},
        [f"{B} has equal pixels but is pixels"],
    ),
    "exact with other pixels": (
        {"images": _replace(IMAGES, 2, relation="exact", decided_by="exact")},
        [f"{C} is exact but has other pixels"],
    ),
    "a score that is not the edge's": (
        {"images": _replace(IMAGES, 2, local_overlap=0.89)},
        [f"{C} differs from its edge to {A}"],
    ),
    "a duplicate without hashes": (
        {"images": _replace(IMAGES, 1, sha256=None, pixel_hash=None)},
        [f"{B} is a duplicate without hashes to prove it"],
    ),
    "a duplicated URI": (
        {"images": [*IMAGES, IMAGES[3]]},
        [f"{D} has 2 rows"],
    ),
    "a kept image that has no row": (
        {"images": _replace(IMAGES, 1, best_uri="file:///in/gone.jpg")},
        [f"group {GROUP} contradicts itself",
         f"{B} names a kept image that has no row"],
    ),
    "a unique row in a group": (
        {"images": _replace(IMAGES, 3, group_id=GROUP)},
        [f"{D} is unique and names a group"],
    ),
    "a unique row with a relation": (
        {"images": _replace(IMAGES, 3, relation="similar")},
        [f"{D} is unique and has a relation"],
    ),
    "a failed row in a group": (
        {"images": _replace(IMAGES, 4, best_uri=A)},
        ["file:///in/e.jpg is failed and names a group"],
    ),
    "a failed row without an error": (
        {"images": _replace(IMAGES, 4, error_type=None)},
        ["file:///in/e.jpg is failed without an error"],
    ),
    "an edge out of order": (
        {"edges": _replace(EDGES, 0, uri_a=C, uri_b=A)},
        [f"edge {C} {A} is not in order"],
    ),
    "an edge within one content": (
        {"edges": [*EDGES, EDGES[1]._replace(uri_b=B)]},
        [f"edge {A} {B} joins no two contents"],
    ),
    "an edge to no row": (
        {"edges": _replace(EDGES, 1, uri_b="file:///in/x")},
        [f"edge {A} file:///in/x joins no two contents"],
    ),
    "an edge twice": (
        {"edges": [*EDGES, EDGES[1]]},
        [f"edge {A} {D} joins contents that another edge joins"],
    ),
    "an edge without a verdict": (
        {"edges": _replace(EDGES, 1, verdict="undecided")},
        [f"edge {A} {D} has the verdict 'undecided'"],
    ),
    "an edge that is not in its group": (
        {"edges": _replace(EDGES, 0, in_group=False)},
        [f"edge {A} {C} has in_group False, which its rows deny"],
    ),
    "counts of other rows": (
        {
            "counts": {
                "listed": 6, "unique": 2, "best": 1, "duplicate": 2, "failed": 1, "groups": 2,
            }
        },
        ["1 rows are unique, the counts say 2", "1 groups, the counts say 2",
         "5 rows, 6 inputs listed"],
    ),
    "a status that there is not": (
        {"images": _replace(IMAGES, 3, status="lost")},
        ["no row may have the status 'lost'"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_g1_check_finds(tmp_path, name):
    rows, problems = BROKEN[name]
    write_by_hand(tmp_path, "run-1", **rows)
    assert _open(tmp_path).check() == problems


def test_g1_check_finds_what_a_pipeline_wrote(tmp_path):
    run_report(tmp_path, "run-1", edges=EDGES[1:])
    assert _open(tmp_path).check() == [f"{C} has no accepted edge to {A}"]


def test_g6_a_failed_image_is_never_kept(tmp_path):
    kept = failed_row("a.jpg")._replace(group_id=GROUP, best_uri=A, group_size=3)
    write_by_hand(tmp_path, "run-1", [kept, *IMAGES[1:]])
    assert f"group {GROUP} has 0 kept images and 2 rows" in _open(tmp_path).check()


@pytest.mark.parametrize(
    ("path", "rows", "problem"),
    [
        ("images/run-1-00000.parquet", 4, "images has 5 rows, the manifest says 4"),
        ("report.csv", 4, "report.csv has [4] rows, images has 5"),
        ("report.csv", None, "report.csv has [None] rows, images has 5"),
    ],
)
def test_row_counts_of_the_manifest_are_checked(output, path, rows, problem):
    manifest = json.loads((output / "manifest.json").read_bytes())
    files = [{**e, "rows": rows} if e["path"] == path else e for e in manifest["files"]]
    (output / "manifest.json").write_text(json.dumps({**manifest, "files": files}))
    assert _open(output).check() == [problem]


def test_a_manifest_that_names_too_little(output):
    manifest = json.loads((output / "manifest.json").read_bytes())

    def keep(*starts):
        files = [e for e in manifest["files"] if e["path"].startswith(starts)]
        (output / "manifest.json").write_text(json.dumps({**manifest, "files": files}))
        return _open(output).check()

    assert keep("images", "groups", "edges", "report") == [
        "the report cannot be read: the manifest names no summary.json"
    ]
    assert keep("images", "groups", "edges", "summary") == ["report.csv has [] rows, images has 5"]
    assert keep("images", "groups", "report", "summary") == [
        "the manifest names no file of edges",
        f"{C} has no accepted edge to {A}",
    ]


def test_p15_a_report_that_was_replaced_is_read_from_the_new_manifest(output):
    write_by_hand(output, "run-2", [image_row("z.jpg")], [], [])
    assert _open(output).images["uri"].to_pylist() == ["file:///in/z.jpg"]
    assert [path for path in tree(output) if "run-1" in path] == []


def test_a_time_beyond_the_year_9999_can_be_checked(tmp_path):
    write_by_hand(tmp_path, "r", [image_row("d.jpg", modified=2**62)], [], [])
    assert _open(tmp_path).check() == []
