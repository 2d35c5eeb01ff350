"""What fences cost: however many keys and tags a transaction changes, each of its steps is a round trip or two."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from resilient import causality
from resilient.cache import Cache, MemoryStore
from resilient.cache._entry import is_fence
from resilient.cache._stamps import UNKNOWN, is_unsure

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


class Crowded(MemoryStore):
    """A store in which another writer begins between the two steps of an invalidation."""

    def __init__(self) -> None:
        super().__init__()
        self.comes: Callable[[], Any] | None = None

    def exchange_many(self, marks: Any, life: int) -> Any:
        """The same; then the other comes."""
        before = super().exchange_many(marks, life)
        comes, self.comes = self.comes, None
        if comes is not None:
            comes()
        return before


def test_a_writer_who_begins_during_an_invalidation_keeps_its_key_fenced() -> None:
    """Else a reader could store what it read before that commit; and should the writer die, nobody would tell."""
    store = Crowded()
    mine, theirs = (Cache(store, namespace="shop", ttl=60) for _ in range(2))
    with causality.scope("1!app:t1700000000.000000"):
        theirs.invalidate("k")  # what it had seen is to be kept by who comes next, in a second step
    store.comes = lambda: theirs.main.commits.begin(["shop:k"])
    mine.invalidate("k")
    assert store.comes is None
    assert is_fence(store.get_many(["shop:k"])[0])
    assert mine.get_or_load("k", lambda: "old") == "old"
    assert theirs.get("k") is None


def test_a_writer_who_begins_while_a_tag_is_invalidated_is_heeded() -> None:
    """The tag's stamp lives no longer than a lease: that writer may die, and nobody would tell of what it wrote."""
    store = Crowded()
    mine, theirs = (Cache(store, namespace="shop", ttl=60) for _ in range(2))
    key = mine.main.stampbook.keys(("t",))[1]
    with causality.scope("1!app:t1700000000.000000"):
        theirs.invalidate_tags("t")
    store.comes = lambda: theirs.main.tags.fence(["t"])
    mine.invalidate_tags("t")
    assert store.comes is None
    assert is_unsure(store.get_many([key])[0])
