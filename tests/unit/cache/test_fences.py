"""What fences cost: however many keys and tags a transaction changes, each of its steps is a round trip or two."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from resilient.cache import Cache, MemoryStore
from resilient.cache._stamps import UNKNOWN

KEYS = [f"shop:row:{number}" for number in range(5)]
TAGS = [f"table:{number}" for number in range(5)]


class Counted(MemoryStore):
    """A store that counts what a server would be asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name[:1] != "_" and callable(found):
            super().__getattribute__("asked").append(name)
        return found


@pytest.fixture
def cache() -> Cache:
    """A cache whose stamps are there."""
    made = Cache(Counted(), namespace="shop", ttl=60)
    for key in KEYS:
        made.set(key.partition(":")[2], "old", tags=TAGS)
    return made


def trips(cache: Cache, step: Callable[[], Any]) -> tuple[int, Any]:
    """How many round trips a step takes, and what it returns."""
    store: Any = cache.store
    store.asked.clear()
    result = step()
    return len(store.asked), result


def test_fencing_many_tags_is_one_round_trip_and_so_is_ending_them(cache: Cache) -> None:
    """Before the COMMIT one, after it one, and after a rollback one."""
    tags = cache.main.tags
    count, fences = trips(cache, lambda: tags.fence(TAGS, everything=True))
    assert (count, len(fences)) == (1, len(TAGS) + 1)
    assert trips(cache, lambda: tags.finish(fences, TAGS, UNKNOWN, everything=True))[0] == 1
    fences = tags.fence(TAGS)
    assert trips(cache, lambda: tags.cancel(fences))[0] == 1


def test_cancelling_the_fences_of_many_keys_is_one_round_trip(cache: Cache) -> None:
    """What was there is put back, all at once."""
    commits = cache.main.commits
    count, fences = trips(cache, lambda: commits.begin(KEYS))
    assert (count, cache.get("row:0")) == (1, None)
    assert trips(cache, lambda: commits.cancel(fences))[0] == 1
    assert cache.get_many(["row:0", "row:4"]) == {"row:0": "old", "row:4": "old"}


def test_two_writers_who_met_on_many_keys_end_in_one_round_trip(cache: Cache) -> None:
    """Neither knows whose values are newer: all their keys are fenced anew at once."""
    commits = cache.main.commits
    first, second = commits.begin(KEYS), commits.begin(KEYS)
    entries = {key: cache.main.entry("new", cache.plan(60)) for key in KEYS}
    assert trips(cache, lambda: commits.finish(second, entries, UNKNOWN))[0] == 1
    assert trips(cache, lambda: commits.finish(first, {}, UNKNOWN))[0] == 2  # its fences are gone: found, then told
    assert cache.get_many(["row:0", "row:4"]) == {}
