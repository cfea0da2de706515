"""Components partition the candidates, by one worker and by rounds."""

import hashlib
import random

import apache_beam as beam
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to

from tests.transforms.samples import make_content
from transforms import components as module
from transforms import packing
from transforms.components import KeyByComponent, PartitionCandidates, shard_count
from transforms.packing import PackedCandidates, pack, unpack
from transforms.records import Candidate, Cap


def _name(number):
    return hashlib.sha256(number.to_bytes(4, "big")).digest()


def _candidate(i, j, *rest):
    return Candidate(*sorted((_name(i), _name(j))), *rest)


def _packed(candidates):
    """Return candidates in elements of 100 at most."""
    starts = range(0, len(candidates), 100)
    return [one for start in starts for one in pack(candidates[start : start + 100])]


def _unpacked(keyed):
    return [(keyed[0], candidate) for candidate in unpack(keyed[1])]


def _partition(edges):
    """Return {id: least id of its component}, by breadth-first search."""
    beside = {}
    for i, j in edges:
        beside.setdefault(i, set()).add(j)
        beside.setdefault(j, set()).add(i)
    found = {}
    for start in beside:
        if start not in found:
            seen, queue = {start}, [start]
            while queue:
                queue += (new := beside[queue.pop()] - seen)
                seen |= new
            found |= dict.fromkeys(seen, min(map(_name, seen)))
    return {_name(one): component for one, component in found.items()}


def _caps(limit, pairs, left):
    caps = [
        Cap(
            "components",
            "max_pairs_in_memory",
            limit,
            pairs,
            "pairs, too many for one worker, went through 3 rounds",
        )
    ]
    if left:
        note = "pairs that 3 rounds left over were joined by one worker"
        caps.append(Cap("components", "component_rounds", 3, left, note))
    return caps


def _packed_members(members, size):
    ends = [b"".join(pair) for pair in members]
    return [b"".join(ends[start : start + size]) for start in range(0, len(ends), size)]


def _unpacked_members(packed):
    return [(packed[n : n + 32], packed[n + 32 : n + 64]) for n in range(0, len(packed), 64)]


@pytest.mark.parametrize("limit", [5, 4, 1])
def test_candidates_are_keyed_by_component_whole_and_once(limit):
    candidates = [
        _candidate(0, 1, "wavelet", 3, 1, 0),
        _candidate(0, 1, "words", -1, 6, -40),
        _candidate(1, 2, "wavelet", 60, 8, 7),
        _candidate(3, 4, "wavelet+words", 0, 1, 70_000),
        _candidate(4, 5, "wavelet", 9, 2, 0),
    ]
    assert Candidate(*candidates[0]) == candidates[0]  # every field is given
    components = _partition([(0, 1), (1, 2), (3, 4), (4, 5)])
    with TestPipeline("FnApiRunner") as pipeline:
        found = pipeline | beam.Create(_packed(candidates)) | PartitionCandidates(limit)
        pairs = found.candidates | beam.FlatMap(_unpacked)
        assert_that(pairs, equal_to([(components[c.a], c) for c in candidates]), label="pairs")
        members = found.members | "Unpack members" >> beam.FlatMap(_unpacked_members)
        assert_that(members, equal_to(list(components.items())), label="members")
        assert_that(found.caps, equal_to([] if limit == 5 else _caps(limit, 5, 0)), label="caps")


def test_no_candidates_give_no_components():
    with TestPipeline("FnApiRunner") as pipeline:
        none = pipeline | beam.Create([]).with_output_types(PackedCandidates)
        found = none | PartitionCandidates()
        assert_that((found.candidates, found.members) | beam.Flatten(), equal_to([]))
        assert_that(found.caps, equal_to([]), label="caps")


def _graph():
    """A path, a star, a random graph and many small components, the pairs in a random order."""
    rng = random.Random(5)
    edges = [(number, number + 1) for number in range(800)]
    edges += [(1000, number) for number in range(1001, 1500)]
    edges += [(rng.randrange(2000, 2500), rng.randrange(2500, 3000)) for _ in range(500)]
    edges += [(number, number // 5 * 5) for number in range(3000, 3500) if number % 5]
    rng.shuffle(edges)
    return edges


def test_rounds_and_one_worker_give_the_same_components(monkeypatch):
    monkeypatch.setattr(module, "_LEAST_SHARD_PAIRS", 400)
    monkeypatch.setattr(module, "_PACKED", 100)
    monkeypatch.setattr(packing, "PACKED_ROWS", 100)
    edges = _graph()
    components = _partition(edges)
    candidates = [_candidate(i, j, "wavelet", 1, 1) for i, j in edges]
    with TestPipeline("FnApiRunner") as pipeline:
        created = pipeline | beam.Create(_packed(candidates))
        for limit in (len(edges), len(edges) - 1):
            found = created | f"{limit} pairs" >> PartitionCandidates(limit)
            names = found.caps | f"Cap names {limit}" >> beam.Map(lambda cap: cap.name)
            applied = ["max_pairs_in_memory", "component_rounds"] if limit < len(edges) else []
            assert_that(names, equal_to(applied), label=f"caps {limit}")
            pairs = found.candidates | f"Unpack {limit}" >> beam.FlatMap(_unpacked)
            members = found.members | f"Members {limit}" >> beam.FlatMap(_unpacked_members)
            for name, values, expected in (
                ("pairs", pairs, [(components[c.a], c) for c in candidates]),
                ("members", members, components.items()),
            ):
                # One list: equal_to takes a second for 1,000 elements.
                listed = (
                    values
                    | f"All {name} {limit}" >> beam.combiners.ToList()
                    | f"Sort {name} {limit}" >> beam.Map(sorted)
                )
                assert_that(listed, equal_to([sorted(expected)]), label=f"{name} {limit}")


def test_more_left_over_than_one_worker_holds_is_refused(monkeypatch):
    path = [_candidate(number, number + 1, "wavelet", 1, 1) for number in range(3000)]
    monkeypatch.setattr(module, "_PACKED", 100)
    monkeypatch.setattr(packing, "PACKED_ROWS", 100)
    random.Random(5).shuffle(path)
    with (
        pytest.raises(ValueError, match=r"to be joined after 3 rounds.* max_pairs_in_memory=9"),
        TestPipeline("FnApiRunner") as pipeline,
    ):
        _ = pipeline | beam.Create(_packed(path)) | PartitionCandidates(9)


@pytest.mark.parametrize("pairs", [0, -1])
def test_a_bound_below_one_is_refused(pairs):
    with pytest.raises(ValueError, match="max_pairs_in_memory must be at least 1"):
        PartitionCandidates(pairs)


@pytest.mark.parametrize(
    ("pairs", "limit", "shards"),
    [(2, 1, 1), (10_000, 9000, 9), (10**6, 900_000, 32), (10**8, 10**6, 400)],
)
def test_shards_hold_about_half_the_bound_in_arcs_and_are_not_tiny(pairs, limit, shards):
    assert shard_count(pairs, limit) == shards


@pytest.mark.parametrize("packed", [16_384, 3])
@pytest.mark.parametrize("most", [10, 9, 0])
def test_contents_in_pairs_and_copies_are_keyed_and_lone_ones_are_dropped(
    monkeypatch, packed, most
):
    monkeypatch.setattr(module, "_HELD", packed)
    paired = [make_content(f"p{number}") for number in range(10)]
    copied = [make_content(f"c{number}")._replace(copies=2) for number in range(4)]
    lone = [make_content(f"l{number}") for number in range(10)]
    members = [(content.content, _name(index // 2)) for index, content in enumerate(paired)]
    in_pairs = [
        (component, content) for (_, component), content in zip(members, paired, strict=True)
    ]
    with TestPipeline("FnApiRunner") as pipeline:
        labelled = pipeline | "Members" >> beam.Create(_packed_members(members, packed))
        contents = pipeline | "Contents" >> beam.Create([*lone, *paired, *copied])
        looked_up, joined = contents | KeyByComponent(labelled, most)
        expected = in_pairs + [(content.content, content) for content in copied]
        assert_that(looked_up, equal_to(expected if most == 10 else []), label="looked up")
        assert_that(joined, equal_to([] if most == 10 else expected), label="joined")


@pytest.mark.parametrize("most", [1, 0])
def test_a_lone_content_whose_id_begins_as_a_members_is_dropped(most):
    member = make_content("m")
    lone = make_content("l")._replace(content=member.content[:-1] + b"?")
    with TestPipeline("FnApiRunner") as pipeline:
        packed = _packed_members([(member.content, member.content)], 1)
        labelled = pipeline | "Members" >> beam.Create(packed)
        keyed = pipeline | beam.Create([lone, member]) | KeyByComponent(labelled, most)
        assert_that(keyed | beam.Flatten(), equal_to([(member.content, member)]))


def test_without_members_only_copies_are_keyed():
    copied = make_content("c")._replace(copies=2)
    with TestPipeline("FnApiRunner") as pipeline:
        none = pipeline | beam.Create([]).with_output_types(bytes)
        keyed = pipeline | "Contents" >> beam.Create([make_content("l"), copied])
        found = keyed | KeyByComponent(none)
        assert_that(found | beam.Flatten(), equal_to([(copied.content, copied)]))


def test_a_negative_bound_on_members_is_refused():
    with pytest.raises(ValueError, match="max_members_in_memory must not be negative, not -1"):
        KeyByComponent(None, -1)
