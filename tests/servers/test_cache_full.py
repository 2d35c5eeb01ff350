"""A Redis that has no room: what says that something has changed stands there all the same."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import redis

from resilient.cache import Cache
from resilient.cache._entry import TOMBSTONE, marker
from resilient.cache._stamps import is_unsure, number


@pytest.fixture
def client(redis_server: Any) -> Iterator[redis.Redis]:
    """A plain client of the server, to look at what the cache did; in the end there is room again."""
    with redis.Redis.from_url(redis_server.url, socket_timeout=5, socket_connect_timeout=5) as made:
        yield made
        made.config_set("maxmemory", "0")


@pytest.fixture
def fill(client: redis.Redis) -> Callable[[], Any]:
    """Takes all room from the server."""
    return partial(client.config_set, "maxmemory", "1")


def test_a_full_server_keeps_readers_from_storing_what_a_writer_changes(
    redis_server: Any, client: redis.Redis, fill: Callable[[], Any]
) -> None:
    """A fence stands though there is no room for it: nothing that is loaded meanwhile outlives a writer that dies."""
    with (
        Cache(redis_server.url, namespace="full", ttl=300, timeout=5.0, lease=600) as cache,
        Cache(redis_server.url, namespace="full", ttl=300, timeout=5.0) as reader,
    ):
        row = ["old"]
        read = partial(reader.get_or_load, "k", lambda: row[0])
        assert read() == "old"
        fill()
        cache.main.commits.begin(["full:k"])
        assert read() == "old"
        client.config_set("maxmemory", "0")
        assert read() == "old"
        row[0] = "new"  # the writer has told its database, and dies
        assert read() == "new"
        assert cache.stats().journal == 0


def test_a_full_server_takes_the_stamp_of_a_tag_and_its_fence(
    redis_server: Any, client: redis.Redis, fill: Callable[[], Any]
) -> None:
    """What bears a tag is forgotten; and another writer's fence leaves a stamp that lives for one lease, no longer."""
    lease = 600
    with Cache(redis_server.url, namespace="full", ttl=300, timeout=5.0, lease=lease) as cache:
        key = cache.main.stampbook.keys(["t"])[1]

        def stamp() -> bytes | None:
            return cache.store.get_many([key])[0]

        cache.set("k", "old", tags=["t"])
        fill()
        cache.invalidate_tags("t")
        assert cache.get("k") is None
        assert number(stamp())
        assert client.pttl(key) > lease * 1000
        (fence,) = cache.main.tags.fence(["t"])
        assert stamp() == fence.mark
        cache.invalidate_tags("t")
        assert number(stamp())
        assert is_unsure(stamp())
        assert client.pttl(key) <= lease * 1000
        assert cache.stats().journal == 0


def test_a_full_server_tells_what_it_holds_though_many_reads_have_found_nothing(
    redis_server: Any, fill: Callable[[], Any]
) -> None:
    """Claims that go along with looks are refused there; what was found is served all the same."""
    with Cache(redis_server.url, namespace="full", ttl=300, timeout=5.0) as cache:
        cache.set("k", "kept")
        fill()
        for count in range(20):
            assert cache.get_or_load(f"absent:{count}", lambda: "loaded") == "loaded"
        for _ in range(10):
            assert cache.get_or_load("k", lambda: "loaded") == "kept"


@pytest.mark.parametrize("full", [False, True], ids=["room", "no room"])
def test_what_is_no_entry_of_ours_makes_room_for_a_mark(
    redis_server: Any, client: redis.Redis, fill: Callable[[], Any], full: bool
) -> None:
    """A list under a key makes room for a mark; of several keys each gets its own, and tells what was there."""
    with Cache(redis_server.url, namespace="full", ttl=300, timeout=5.0) as cache:
        client.rpush("full:list", "a")
        client.set("full:text", "b")
        marks = {f"full:{name}": marker(TOMBSTONE, time.time(), 10.0) for name in ("text", "list", "none")}
        if full:
            fill()
        assert cache.store.exchange_many(marks, 600_000) == [b"b", None, None]
        assert client.mget(marks) == list(marks.values())
        again = {key: marker(TOMBSTONE, time.time(), 10.0) for key in list(marks)[:1]}
        assert cache.store.exchange_many(again, 600_000) == [marks["full:text"]]
        assert client.mget(again) == list(again.values())
