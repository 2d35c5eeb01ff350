"""How long a value is fresh and kept, and which settings make no sense. Pure."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient.cache import Cache
from resilient.cache._entry import Entry, Life
from resilient.cache._freshness import Loaded, Policy, Said, Use
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
        {"ttl": 1, "stale_if_error": float("inf")},
        {"ttl": 1, "stale_while_revalidate": float("inf")},
        {"ttl": 1, "early": -1.0},
        {"ttl": 1, "early": float("inf")},
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


@pytest.mark.parametrize("name", ["negative_ttl", "error_ttl", "soft_timeout", "hard_timeout"])
def test_a_wrong_time_is_called_by_its_name(name: str) -> None:
    """Who wrote several times learns which of them is wrong."""
    options: dict[str, Any] = {name: -1}
    with pytest.raises(ConfigurationError, match=name):
        Policy(60, **options)


@pytest.mark.parametrize("kind", ["KeyError", KeyError(), KeyboardInterrupt, int], ids=repr)
def test_only_classes_of_errors_are_cached_as_errors(kind: Any) -> None:
    """A name, an error itself, and what is more or less than an Exception are refused."""
    assert Policy(60, cache_errors=(KeyError, OSError)).cache_errors == (KeyError, OSError)
    with pytest.raises(ConfigurationError, match="cache_errors"):
        Policy(60, cache_errors=(KeyError, kind))


def test_a_version_is_told_by_a_name_or_a_function() -> None:
    """Either tells the version of a value, kept as one more; without them no value has one, and all else is refused."""
    value = {"version": 3}
    assert Policy(60, version_of="version").version(value) == 4
    assert Policy(60, version_of=lambda given: given["version"] + 5).version(value) == 9
    assert Policy(60).version(value) == 0
    wrong: Any = 5
    with pytest.raises(ConfigurationError, match="version_of is a name or a function, not 5"):
        Policy(60, version_of=wrong)


def test_a_soft_timeout_may_be_as_long_as_the_hard_one_and_no_longer() -> None:
    """A reader who has an old value does not wait longer than one who has none."""
    assert Policy(60, stale_if_error=60, soft_timeout=2, hard_timeout=2).soft_timeout == 2
    assert Policy(60, hard_timeout=2).hard_timeout == 2
    with pytest.raises(ConfigurationError, match="not above hard_timeout"):
        Policy(60, stale_if_error=60, soft_timeout=3, hard_timeout=2)


def test_a_reader_waits_as_long_as_what_it_has_asks_for() -> None:
    """The soft timeout is for who has an old value, the hard one for all others, and none is as long as it takes."""
    both = Policy(60, stale_if_error=60, soft_timeout=1, hard_timeout=2)
    assert both.patience(stale=True) == 1
    assert both.patience(stale=False) == 2
    assert Policy(60, hard_timeout=2).patience(stale=True) == 2
    assert Policy(60, stale_if_error=60, soft_timeout=1).patience(stale=False) is None


@pytest.mark.parametrize(
    ("options", "seconds"),
    [
        ({"error_ttl": 4, "negative_ttl": 8}, 4),
        ({"negative_ttl": 8}, 8),
        ({}, 1),
        ({"ttl": 0.5}, 0.5),
    ],
    ids=repr,
)
def test_an_error_is_remembered_for_its_own_time(options: dict[str, Any], seconds: float) -> None:
    """Its own ttl, else that of what is not there, else a second or the ttl if that is less; never served stale."""
    all_options: dict[str, Any] = {"ttl": 60, "stale_if_error": 60, "jitter": 0.5, **options}
    policy = Policy(**all_options)
    assert policy.lives(0.0, error=True) == (seconds, seconds)
    assert policy.lives(0.5, error=True) == (seconds * 0.75, seconds * 0.75)


def test_what_is_not_there_is_remembered_for_its_own_time() -> None:
    """``negative_ttl``, else ``ttl``, shortened as others are; never served stale."""
    assert Policy(60, negative_ttl=8, stale_if_error=60, jitter=0.5).lives(0.5, negative=True) == (6, 6)
    assert Policy(60, stale_if_error=60, jitter=0.5).lives(0.5, negative=True) == (45, 45)


def _entry(cost: float = 1.0) -> Entry:
    return Entry(b"", 1, 0, 0, 1, created=100.0, fresh=10.0, keep=40.0, cost=cost)


def test_a_fresh_value_is_served_and_without_early_nothing_more() -> None:
    """However near its end is, and however long its load took."""
    assert Policy(10).use(_entry(cost=100.0), Life.FRESH, 109.9, 0.001) is Use.SERVE


@pytest.mark.parametrize(
    ("early", "cost", "chance", "begins"),
    [
        (1.0, 1.0, math.exp(-1), 109.0),  # one load's time before the end
        (2.0, 1.0, math.exp(-1), 108.0),  # twice as eager
        (0.5, 2.0, math.exp(-1), 109.0),
        (1.0, 1.0, math.exp(-2), 108.0),  # a reader whose number is smaller begins sooner
        (1.0, 3.0, math.exp(-1), 107.0),  # a load that takes long is begun sooner
    ],
)
def test_a_fresh_value_is_loaded_anew_before_its_end(early: float, cost: float, chance: float, begins: float) -> None:
    """The sooner, the longer its load takes, the greater the factor and the smaller the reader's random number."""
    policy = Policy(10, early=early)
    assert policy.use(_entry(cost), Life.FRESH, begins - 0.01, chance) is Use.SERVE
    assert policy.use(_entry(cost), Life.FRESH, begins, chance) is Use.EARLY


def test_a_stale_value_is_served_while_it_is_loaded_and_then_only_in_need() -> None:
    """To the end of ``stale_while_revalidate`` it is served; after that a load comes first, and where nothing is."""
    policy = Policy(10, stale_while_revalidate=20, stale_if_error=30)
    uses = [policy.use(_entry(), Life.STALE, now, 0.5) for now in (110.0, 129.9, 130.0, 139.9)]
    assert uses == [Use.REVALIDATE, Use.REVALIDATE, Use.LOAD, Use.LOAD]
    assert policy.use(_entry(), Life.GONE, 115.0, 0.5) is Use.LOAD
    assert [policy.stands_in(_entry(), now) for now in (115.0, 139.9, 140.0)] == [True, True, False]


def test_of_two_who_load_the_shorter_life_counts_and_all_tags() -> None:
    """Of lives equally long the first one's; each tag once, in the order in which they were told."""
    short, long = Loaded(Policy(5), 1, ("a", "b")), Loaded(Policy(60), 2, ("b", "c"))
    assert short.also(long) == Loaded(Policy(5), 1, ("a", "b", "c"))
    assert long.also(short) == Loaded(Policy(5), 1, ("b", "c", "a"))
    assert short.also(Loaded(Policy(5), 3, ())) == short


def test_what_a_writer_says_goes_before_what_the_loader_says() -> None:
    """Its ttl and its versions, each for itself; all else is as for who loads."""
    loaded = Loaded(Policy(60, stale_if_error=600, version_of="number"), 2, ())
    policy = Policy(300, early=1.0, version_of="revision")
    assert Said().kept(policy, loaded) == (loaded.policy, 2)
    assert Said(ttl=300).kept(policy, loaded) == (Policy(300, stale_if_error=600, version_of="number"), 2)
    assert Said(version=0).kept(policy, loaded) == (loaded.policy, 0)
    told = (Policy(60, stale_if_error=600, version_of="revision"), 2)
    assert Said(version_of="revision").kept(policy, loaded) == told


def test_where_nobody_loads_a_writer_alone_says_how_values_are_kept() -> None:
    """Then its policy is taken as it is, and its version, or 0."""
    policy = Policy(300, early=1.0)
    assert Said().kept(policy, None) == (policy, 0)
    assert Said(version=3).kept(policy, None) == (policy, 3)
