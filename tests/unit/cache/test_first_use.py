"""The first stamp of a namespace, made by one caller while another asks for the same key: one load all the same."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from resilient.cache import Cache, MemoryStore
from resilient.cache._memory import Table
from resilient.clock import SYSTEM


class Nodes(Table):
    """A table whose stamps stand on another node than its values: the stamp is read first, the values later."""

    between: Callable[[], None] | None = None

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """Read the last key, let something happen once, then read the others."""
        last = super().get_many(keys[-1:])
        if (happens := self.between) is not None and len(keys) > 1:
            self.between = None
            happens()
        return [*super().get_many(keys[:-1]), *last]


@pytest.fixture
def table() -> Nodes:
    """Entries in memory."""
    return Nodes(1000, SYSTEM)


def a_cache(table: Nodes) -> Cache:
    """One of several processes over the same entries."""
    store = MemoryStore()
    store.table = table
    return Cache(store, namespace="shop", ttl=300, lease=5)


READS: list[Callable[[Cache, Callable[[], str]], Any]] = [
    lambda cache, load: cache.get_or_load("k", load),
    lambda cache, load: cache.lazy("k")(load)(),
    lambda cache, load: cache.get_many(["k"], load_many=lambda keys: dict.fromkeys(keys, load()))["k"],
]
NAMES = ["get_or_load", "lazy", "get_many"]


@pytest.mark.parametrize("read", READS, ids=NAMES)
def test_a_value_seen_without_its_stamp_is_served(table: Nodes, read: Callable[..., Any]) -> None:
    """Who saw the value of somebody quicker, and asked for the stamp before it was made, does not load again."""
    loads: list[int] = []
    first, second = a_cache(table), a_cache(table)
    table.between = lambda: first.set("k", "v")
    assert read(second, lambda: loads.append(1) or "again") == "v"
    assert not loads


@pytest.mark.parametrize("read", READS, ids=NAMES)
def test_a_lease_seen_without_its_stamp_is_waited_for(table: Nodes, read: Callable[..., Any]) -> None:
    """Who saw the lease of somebody quicker, and asked for the stamp before it was made, waits for that one's load."""
    first, second = a_cache(table), a_cache(table)
    begun, end, loads = threading.Event(), threading.Event(), []

    def slow() -> str:
        loads.append("first")
        begun.set()
        assert end.wait(10)
        return "v"

    leader = threading.Thread(target=lambda: read(first, slow))

    def between() -> None:
        leader.start()
        assert begun.wait(10)
        threading.Timer(0.05, end.set).start()

    table.between = between
    try:
        assert read(second, lambda: loads.append("second") or "again") == "v"
    finally:
        end.set()
        leader.join(10)
    assert loads == ["first"]
