"""Units, ranks and relations."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.grouping.rank import RankFacts, deciding_rule, encode_rank
from transforms.grouping.relations import RELATIONS, whole_image_relation
from transforms.grouping.units import split_pairs


@given(
    st.integers(2, 40).flatmap(
        lambda n: st.tuples(
            st.just(n),
            st.sets(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=60),
            st.integers(2, 12),
        )
    )
)
def test_units_hold_every_pair_once_within_the_bound(case):
    members, pairs, bound = case
    units = list(split_pairs([(i, j, (i, j)) for i, j in sorted(pairs)], members, bound))
    assert sorted(pair for unit in units for pair in unit) == sorted(pairs)
    assert all(len({m for pair in unit for m in pair}) <= bound for unit in units)


def test_units_refuse_a_bound_below_two():
    with pytest.raises(ValueError, match="at least 2"):
        list(split_pairs([], 3, 1))


def _facts(**changes):
    facts = RankFacts(
        1_000_000, 1e6, False, False, 90, 0.5, 3, "2020-01-01T00:00:00", 0, 1000, "a", "file:///a"
    )
    return facts._replace(**changes)


@pytest.mark.parametrize(
    ("better", "worse", "rule"),
    [
        ({}, {"effective_pixels": 1e4}, "effective_resolution"),
        ({}, {"pixels": 700_000, "effective_pixels": 7e5}, "effective_resolution"),
        ({"effective_pixels": 4e5}, {"effective_pixels": 5e5, "jpeg_quality": 60}, "origin"),
        ({"lossless": True}, {}, "origin"),
        (
            {"jpeg_quality": 95},
            {"lossless": True, "jpeg_origin": True, "jpeg_quality": 70},
            "origin",
        ),
        ({"jpeg_quality": 95}, {}, "origin"),
        ({"sharpness": 0.9}, {}, "sharpness"),
        ({"exif_fields": 9}, {}, "metadata"),
        ({"captured": "2019-01-01T00:00:00"}, {}, "capture_date"),
        ({}, {"captured": None}, "capture_date"),
        ({}, {"input_index": 1}, "input_order"),
        ({"size_bytes": 900}, {}, "bytes"),
        ({}, {"below": "b"}, "path"),
    ],
)
def test_s5_each_rule_decides_in_its_turn(better, worse, rule):
    first, second = encode_rank(_facts(**better)), encode_rank(_facts(**worse))
    assert first < second
    assert deciding_rule(first, second) == rule


@pytest.mark.parametrize(
    ("orientation", "same_size", "recoloured", "relation"),
    [
        (1, True, False, "reencoded"),
        (1, False, False, "resized"),
        (1, False, True, "recoloured"),
        (6, False, True, "turned"),
        (2, True, False, "mirrored"),
    ],
)
def test_whole_image_relation(orientation, same_size, recoloured, relation):
    assert whole_image_relation(orientation, same_size, recoloured) == relation
    assert relation in RELATIONS
