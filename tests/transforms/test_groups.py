"""Decisions, group rows, edge rows and image rows."""

import apache_beam as beam
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to

from tests.transforms.samples import digest, make_content, make_edge, make_image, make_ref
from transforms.contents import content_of, merge_contents
from transforms.groups import elect, group_id
from transforms.records import Decision, FailedImage, Failure
from transforms.rounds import Component
from transforms.rows import AssembleRows, row_of


def _component(contents, edges):
    contents = sorted(contents, key=lambda c: c.rank)
    number = {c.content: i for i, c in enumerate(contents)}
    pairs = {tuple(sorted((number[e.a], number[e.b]))): e for e in edges}
    return Component(b"c", contents, {}, pairs)


def test_g3_a_chain_is_cut_and_counted():
    a, b, c = (make_content(n, area=area) for n, area in (("a", 4e6), ("b", 2e6), ("c", 1e6)))
    decisions, groups, edges = elect(_component([a, b, c], [make_edge(a, b), make_edge(b, c)]))
    assert {(d.content, d.best_uri) for d in decisions} == {
        (a.content, a.uri),
        (b.content, a.uri),
    }
    (group,) = groups
    assert group == (group_id(a.sha256), 2, a.uri, "effective_resolution", 0.88, 1000, 1)
    assert sorted((e.uri_a, e.uri_b, e.in_group) for e in edges) == [
        (a.uri, b.uri, True),
        (b.uri, c.uri, False),
    ]


def test_the_group_id_is_of_the_kept_sha256():
    # g + the first 16 hex digits of the SHA-256 of the kept image's sha256, as the report shows it.
    assert group_id(bytes(32)) == "g60e05bd1b195af2f"


def test_the_kept_image_that_is_a_crop_gives_way_and_says_why():
    crop, whole = make_content("crop", area=4e6), make_content("whole", area=1e6)
    derived = 1 if crop.content < whole.content else -1
    edge = make_edge(crop, whole, relation="cropped", derived=derived)
    decisions, groups, _ = elect(_component([crop, whole], [edge]))
    assert groups[0].best_uri == whole.uri
    assert groups[0].keep_reason == "uncropped"
    assert {d.keep_reason for d in decisions} == {"uncropped"}


def test_a_group_of_exact_copies_needs_no_edge():
    images = [make_image(n, "p") for n in "ab"]
    content = merge_contents(content_of(image) for image in images)
    decisions, groups, edges = elect(_component([content], []))
    assert groups == [(group_id(digest("a")), 2, "file:///in/a", "path", 1.0, 1000, 0)]
    assert edges == []
    best, copy = (row_of(image, decisions[0]) for image in images)
    assert (best.status, best.keep_reason, best.best_uri) == ("best", "path", best.uri)
    assert (copy.status, copy.relation, copy.decided_by) == ("duplicate", "pixels", "exact")


def test_x8_exact_means_equal_sha256_and_size():
    first = make_image("a", "p")
    twin = make_image("b", "p", sha256=first.sha256)
    (decision,), _, _ = elect(
        _component([merge_contents([content_of(first), content_of(twin)])], [])
    )
    assert row_of(twin, decision).relation == "exact"
    longer = twin._replace(ref=twin.ref._replace(size_bytes=1001))
    assert row_of(longer, decision).relation == "pixels"


def test_g5_hard_links_reclaim_nothing():
    images = [make_image(n, "p", ref=make_ref(n, storage_id="1:7")) for n in "ab"]
    _, groups, _ = elect(_component([merge_contents(content_of(i) for i in images)], []))
    assert groups[0].reclaimable_bytes == 0
    assert groups[0].size == 2


def test_a_failed_pair_marks_the_row_and_keeps_its_status():
    a, b = make_content("a"), make_content("b")
    edge = make_edge(
        a, b, "review", error_stage="read", error_type="vanished", error_message="gone",
        failed_member=b.content,
    )  # fmt: skip
    decisions, groups, edges = elect(_component([a, b], [edge]))
    assert groups == []
    assert [e.verdict for e in edges] == ["review"]
    (decision,) = decisions
    row = row_of(make_image("b"), decision)
    assert (row.status, row.error_stage, row.error_type) == ("unique", "read", "vanished")
    assert (row.group_id, row.best_uri, row.group_size) == (None, None, 1)


def test_g6_a_failed_image_is_a_row_and_never_a_keeper():
    image = make_image("a")
    failure = Failure("decode", "file:///in/bad", "truncated", "cut short")
    failed = FailedImage(make_ref("bad"), failure, "JPEG", 10, 20, digest("bad"))
    with TestPipeline("FnApiRunner") as pipeline:
        images = pipeline | "Images" >> beam.Create([image])
        decisions = pipeline | "Decisions" >> beam.Create([]).with_output_types(Decision)
        gone = pipeline | "Failed" >> beam.Create([failed])
        rows = (
            images
            | AssembleRows(decisions, gone)
            | beam.Map(lambda r: (r.uri, r.status, r.error_type))
        )
        assert_that(
            rows,
            equal_to([(image.ref.uri, "unique", None), (failed.ref.uri, "failed", "truncated")]),
        )
