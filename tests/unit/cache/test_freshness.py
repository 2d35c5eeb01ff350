"""How long a value is fresh and kept, and which settings make no sense. Pure."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient.cache import Cache
from resilient.cache._freshness import Policy
from resilient.errors import ConfigurationError, InvalidInput


@given(st.floats(0.1, 1e6), st.floats(0, 0.99), st.floats(0, 1, exclude_max=True), st.floats(0, 1e6))
def test_jitter_only_shortens(ttl: float, jitter: float, chance: float, stale: float) -> None:
    """No entry outlives its ttl, and none loses more than the jitter's part of it."""
    fresh, keep = Policy(ttl, stale_if_error=stale, jitter=jitter).lives(chance)
    assert ttl * (1 - jitter) * 0.999 <= fresh <= ttl
    assert keep == pytest.approx(fresh + stale)


def test_what_is_stored_together_does_not_end_together() -> None:
    """A thousand entries of one ttl end over a tenth of it."""
    policy = Policy(60)
    lives = [policy.lives(number / 1000)[0] for number in range(1000)]
    assert max(lives) - min(lives) > 5
    assert all(54 <= each <= 60 for each in lives)


@pytest.mark.parametrize(
    "options",
    [
        {"ttl": None},
        {"ttl": 0},
        {"ttl": -1},
        {"ttl": float("inf")},
        {"ttl": 1, "negative_ttl": 0},
        {"ttl": 1, "stale_if_error": -1},
        {"ttl": 1, "jitter": 1.0},
    ],
    ids=repr,
)
def test_times_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    """A wrong time is found where it is written."""
    with pytest.raises(ConfigurationError):
        Policy(**options)


def test_a_soft_timeout_that_would_never_serve_anything_is_refused() -> None:
    """Who is served the old value at once does not wait, so that no time limit of its wait means anything."""
    for options in ({"stale_while_revalidate": 30}, {"stale_while_revalidate": 30, "stale_if_error": 30}):
        with pytest.raises(ConfigurationError, match="stale_if_error=, longer than"):
            Policy(60, soft_timeout=1, **options)
    Policy(60, soft_timeout=1, stale_while_revalidate=30, stale_if_error=60)


def test_what_is_misspelt_is_told_by_its_name() -> None:
    """An option that there is not, and one text where a list belongs."""
    cache: Any = Cache(ttl=60)
    with pytest.raises(TypeError, match=r"no option is called 'stale'; there are: .*stale_if_error"):
        cache.lazy("user:{user_id}", stale=5)
    with pytest.raises(InvalidInput, match=r"get_many\(\['user:1'\]\)"):
        cache.get_many("user:1")
