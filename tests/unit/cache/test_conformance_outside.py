"""What every cache does at its borders: bypassed, over another store, counted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from people import Database, writer

from resilient.cache import AsyncCache, AsyncMemoryStore, Cache, MemoryStore
from resilient.errors import ConfigurationError


def test_a_bypassed_cache_answers_nothing_and_writes_invalidate(kind: Any, database: Database) -> None:
    """In a bypass reads load and writes leave nothing old behind; after it the cache is used again."""
    cache = kind()
    get_user, save_user = writer(cache, database)
    get_user(17)
    cache.set("k", 1)
    with cache.bypass():
        assert get_user.lookup(17).source == "loader"
        assert cache.get("k") is None
        save_user(17, "Eve")
        cache.set("k", 2)
    assert get_user.lookup(17).source == "loader"
    assert get_user(17).name == "Eve"
    assert cache.get("k") is None


def test_another_store_can_be_used_for_a_while(kind: Any) -> None:
    """use() swaps the store for a test, and back."""
    cache, other = kind(), kind(namespace="other")
    cache.set("k", 1)
    with cache.use(other):
        cache.set("k2", 2)
        assert cache.get("k2") == 2
    assert cache.get("k") == 1


def test_stats_count_what_happened(kind: Any, database: Database) -> None:
    """Hits, misses, loads and stores are counted, and the ratio follows from them."""
    cache = kind()
    get_user = cache.lazy("user:{user_id}")(database.read)
    database.rows[17] = "Ada"
    for _ in range(4):
        get_user(17)
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.loads, stats.stores) == (3, 1, 1, 1)
    assert stats.hit_ratio == 0.75
    assert stats.state == "up"


def test_only_what_keeps_entries_is_used_as_a_store() -> None:
    """A mistake in a test is found where it stands, and the cache goes on with its own store."""
    cache: Cache = Cache(ttl=60)
    before = cache.store
    for wrong in (3, "redis://127.0.0.1:6379", None):
        with pytest.raises(ConfigurationError, match="cannot keep entries"), cache.use(wrong):  # type: ignore[arg-type]  # on purpose
            pass
    assert cache.store is before


@pytest.mark.parametrize("part", ["get_many", "exchange_many", "failures"])
def test_a_store_that_lacks_a_part_is_told_which(part: str) -> None:
    """Where the cache is made, or where the store is used: not when the part is missed."""
    parts = {name: getattr(MemoryStore(), name) for name in dir(MemoryStore) if name[0] != "_" and name != part}
    store: Any = SimpleNamespace(**parts)
    with pytest.raises(ConfigurationError, match=rf"it has no {part}\b"):
        Cache(store, ttl=60)
    with pytest.raises(ConfigurationError, match=rf"it has no {part}\b"), Cache(ttl=60).use(store):
        pass


def test_a_store_of_the_other_face_is_refused() -> None:
    """An async cache awaits what its store does; what it closes tells the two apart."""
    with pytest.raises(ConfigurationError, match="it has no aclose"):
        AsyncCache(MemoryStore(), ttl=60)
    with pytest.raises(ConfigurationError, match="it has no close"):
        Cache(AsyncMemoryStore(), ttl=60)
