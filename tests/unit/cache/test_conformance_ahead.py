"""Where most reads find nothing, the claim of a key is sent along with the look: what that changes is a round trip."""

from __future__ import annotations

from typing import Any

import pytest
from threads import loads_of_a_herd

from resilient.errors import NotFound

MANY = 20
"""Reads that find nothing, one after the other: more than it takes."""


def used_to_misses(kind: Any, **options: Any) -> Any:
    """A cache whose reads of late all found nothing."""
    cache = kind(**options)
    for number in range(MANY):
        assert cache.get_or_load(f"miss:{number}", lambda: "v") == "v"
    return cache


def test_the_claim_goes_along_with_the_look(kind: Any) -> None:
    """The store is not asked a second time; without this all that follows would tell nothing."""
    cache = used_to_misses(kind)
    cache.store.claim = lambda *_: pytest.fail("the key was claimed apart")
    assert cache.get_or_load("k", lambda: "v") == "v"
    assert cache.stats().loads == MANY + 1


def test_of_several_processes_used_to_misses_one_loads(kind: Any, at_once: Any, gathered: Any) -> None:
    """Many callers of several processes on a cold key run the loader once, and all get its value."""
    caches = [used_to_misses(kind) for _ in range(3)]
    before = sum(cache.stats().loads for cache in caches)
    assert loads_of_a_herd(caches, at_once, gathered) == 1
    assert sum(cache.stats().loads for cache in caches) == before + 1


def test_what_is_there_is_served_and_not_claimed(kind: Any) -> None:
    """A reader used to misses finds what another process has stored, and leaves it as it is."""
    mine, theirs = used_to_misses(kind), kind()
    theirs.set("k", [1, 2])
    assert mine.get_or_load("k", lambda: pytest.fail("it is there")) == [1, 2]
    assert mine.stats().hits == 1
    assert theirs.get("k") == [1, 2]


def test_what_was_invalidated_is_loaded_once_more(kind: Any) -> None:
    """A tombstone is nothing that a claim could go over unseen: the reader looks at it first, and loads."""
    mine, theirs = used_to_misses(kind), kind()
    theirs.set("k", "old")
    theirs.invalidate("k")
    assert mine.get_or_load("k", lambda: "new") == "new"
    assert theirs.get("k") == "new"


def test_after_a_clear_elsewhere_what_is_loaded_is_served_to_all(kind: Any) -> None:
    """A claim under the namespace's old stamp is given back, and made anew under that which stands."""
    mine, theirs = used_to_misses(kind), kind()
    theirs.clear()
    assert mine.get_or_load("k", lambda: "v") == "v"
    assert theirs.get("k") == "v"
    assert theirs.get("miss:1") is None


@pytest.mark.parametrize("error", [ConnectionResetError("gone"), NotFound("no such thing")], ids=["failure", "absence"])
def test_a_failed_load_gives_the_claim_back(kind: Any, error: Exception) -> None:
    """The next caller, in another process too, tries at once."""
    mine, theirs = used_to_misses(kind, lease=30), kind(lease=30)

    def fail() -> str:
        raise error

    with pytest.raises(type(error)):
        mine.get_or_load("k", fail)
    assert theirs.get_or_load("k", lambda: "v") == "v"
    assert theirs.stats().waits == 0
