"""How stores are reached travels to workers, and holds no secret."""

import pickle
from typing import Any

import pytest

from transforms.access import Access


def test_access_travels_and_is_a_key() -> None:
    access = Access("/run/secrets/azure", 5, 8, 1000)
    assert pickle.loads(pickle.dumps(access)) == access  # noqa: S301
    assert len({access, Access("/run/secrets/azure", 5, 8, 1000), Access()}) == 2


@pytest.mark.parametrize("name", ["requests_per_second", "concurrency", "memory_bytes"])
def test_bounds_that_let_nothing_pass_are_refused(name: str) -> None:
    values: dict[str, Any] = {name: 0}
    with pytest.raises(ValueError, match=f"{name} must be 1 or more, not 0"):
        Access(**values)
