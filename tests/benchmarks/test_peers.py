import peers
import pytest

from beam_dedup.evaluate import Truth


@pytest.mark.parametrize(
    ("pairs", "groups"),
    [
        ([], [{"a"}, {"b"}, {"c"}, {"d"}]),
        ([("a", "b")], [{"a", "b"}, {"c"}, {"d"}]),
        ([("a", "b"), ("b", "c"), ("d", "unknown")], [{"a", "b", "c"}, {"d"}]),
    ],
)
def test_components_follow_chains(pairs: list[tuple[str, str]], groups: list[set[str]]) -> None:
    files = ["a", "b", "c", "d"]
    found = peers.components(files, pairs)
    members = [{f for f, g in zip(files, found, strict=True) if g == group} for group in set(found)]
    assert sorted(members, key=min) == groups


def test_a_peer_is_scored_by_its_groups() -> None:
    truth = Truth(
        ["a", "b", "c", "d", "e"],
        ["1", "1", "1", "2", "3"],
        ["original", "crop", "blur", "original", "hard_form"],
    )
    found = peers.score(truth, [("a", "b"), ("d", "e")])
    assert found["all"]["pairwise"] == pytest.approx(
        {"precision": 1 / 2, "recall": 1 / 3, "f1": 2 / 5}
    )
    assert found["photographs"]["pairwise"]["precision"] == 1.0
    assert found["recall_by_kind"]["crop"]["recall"] == 1.0
    assert found["recall_by_kind"]["blur"]["recall"] == 0.0
    assert found["hard_by_kind"] == {"hard_form": {"merged": 1, "of": 1}}
    assert (found["hard_merged"], found["hard"]) == (1, 1)
