"""A Redis that goes away while this process writes, and one that is full: nothing old is served, and nobody notices."""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import redis

from resilient.cache import AsyncCache, Cache
from resilient.cache._entry import FENCE, TOMBSTONE, is_fence, marker
from resilient.cache._local_tier import holds_value

PATIENCE = 0.6  # seconds; the promise is 150 ms, and the machine may be busy
POLICIES = [f"{scope}-{what}" for scope in ("allkeys", "volatile") for what in ("lru", "lfu", "random")]


@pytest.fixture
def client(redis_server: Any) -> Iterator[redis.Redis]:
    """A plain client of the server, to look at what the cache did."""
    made = redis.Redis.from_url(redis_server.url, socket_timeout=5, socket_connect_timeout=5)
    yield made
    made.close()


def wait_until(probe: Callable[[], bool], seconds: float = 10.0) -> None:
    until = time.monotonic() + seconds
    while not probe():
        assert time.monotonic() < until, "it did not come true in time"
        time.sleep(0.02)


class Source:
    """Rows, and the three ways to change one."""

    def __init__(self, rows: int) -> None:
        self.rows = dict.fromkeys(range(rows), "old")

    def change(self, number: int) -> str:
        self.rows[number] = "new"
        return "new"

    def old(self, found: dict[str, str]) -> list[str]:
        """The keys of which something old was found."""
        return [key for key, value in found.items() if value != self.rows[int(key[4:])]]


def keys(source: Source) -> list[str]:
    return [f"row:{number}" for number in source.rows]


@pytest.mark.parametrize("fault", ["kill", "freeze", "cut"])
@pytest.mark.parametrize("face", ["sync", "async"])
def test_after_an_outage_with_a_thousand_writes_nothing_old_is_served(
    redis_server: Any, tcp_proxy: Callable[[int], Any], face: str, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Killed, frozen or cut off: 1,000 writes fail nothing and wait for nothing; later no process serves an old value.

    The server is told without anybody asking, and the outage is at most five lines in the log.
    """
    proxy = tcp_proxy(redis_server.port)
    source = Source(1000)
    begin, end = {
        "kill": (redis_server.kill, redis_server.start),
        "freeze": (redis_server.freeze, redis_server.thaw),
        "cut": (proxy.cut, proxy.restore),
    }[fault]
    url = f"redis://127.0.0.1:{proxy.port}/0"
    caplog.set_level(logging.INFO)
    with Cache(redis_server.url, namespace="shop", ttl=300, timeout=5.0) as neighbour:
        neighbour.set_many(dict.fromkeys(keys(source), "old"))
        work = _sync_writes if face == "sync" else _async_writes
        slowest = work(url, source, begin, end)
        assert slowest < PATIENCE
        # What stood there before is gone, or the server itself forgot it.
        assert source.old(neighbour.get_many(keys(source))) == []
    lines = [each for each in caplog.records if each.levelno >= logging.INFO and each.name.startswith("resilient")]
    assert len(lines) <= 5, [each.getMessage() for each in lines]


def _sync_writes(url: str, source: Source, begin: Callable[[], Any], end: Callable[[], Any]) -> float:
    slowest = 0.0
    with Cache(url, namespace="shop", ttl=300) as cache:
        save = cache.write_through("row:{number}")(source.change)
        wait_until(lambda: cache.get("row:0") == "old")
        begin()
        for number in source.rows:
            began = time.monotonic()
            match number % 3:
                case 0:
                    assert save(number) == "new"
                case 1:
                    cache.set(f"row:{number}", source.change(number))
                case _:
                    source.change(number)
                    cache.invalidate(f"row:{number}")
            slowest = max(slowest, time.monotonic() - began)
        assert cache.stats().journal == len(source.rows)
        end()
        wait_until(lambda: cache.stats().journal == 0)
        assert source.old(cache.get_many(keys(source))) == []
    return slowest


def _async_writes(url: str, source: Source, begin: Callable[[], Any], end: Callable[[], Any]) -> float:
    async def main() -> float:
        slowest = 0.0
        async with AsyncCache(url, namespace="shop", ttl=300) as cache, asyncio.timeout(30):

            @cache.write_through("row:{number}")
            async def save(number: int) -> str:
                return source.change(number)

            while await cache.get("row:0") != "old":  # noqa: ASYNC110 - a busy machine may miss 50 ms
                await asyncio.sleep(0.02)
            begin()
            for number in source.rows:
                began = time.monotonic()
                match number % 3:
                    case 0:
                        assert await save(number) == "new"
                    case 1:
                        await cache.set(f"row:{number}", source.change(number))
                    case _:
                        source.change(number)
                        await cache.invalidate(f"row:{number}")
                slowest = max(slowest, time.monotonic() - began)
            assert cache.stats().journal == len(source.rows)
            end()
            while cache.stats().journal:  # noqa: ASYNC110 - nothing tells that it is empty
                await asyncio.sleep(0.02)
            assert source.old(await cache.get_many(keys(source))) == []
        return slowest

    return asyncio.run(main())


# ------------------------------------------------------------------------------------------ a server that is full


@pytest.fixture
def nearly_full(client: redis.Redis) -> Iterator[Callable[[str], None]]:
    """Gives the server room for little more than it holds, and a rule for what goes then."""

    def fill(policy: str) -> None:
        client.config_set("maxmemory-policy", policy)
        client.config_set("maxmemory", int(client.info("memory")["used_memory"]) + 300_000)

    yield fill
    client.config_set("maxmemory", "0")
    client.config_set("maxmemory-policy", "noeviction")


@pytest.mark.parametrize("policy", [*POLICIES, "volatile-ttl", "noeviction"])
def test_whatever_a_full_server_evicts_the_answers_are_right(
    redis_server: Any, client: redis.Redis, nearly_full: Callable[[str], None], policy: str, seed: int
) -> None:
    """Two processes read and write far more than fits: no error, nothing old, and every key has a ttl."""
    rows = dict.fromkeys(range(150), 0)
    chance = random.Random(seed)
    with (
        Cache(redis_server.url, namespace="one", ttl=300, timeout=5.0, lease=0.2) as cache,
        Cache(redis_server.url, namespace="one", ttl=300, timeout=5.0, lease=0.2) as other,
    ):

        def read(number: int) -> str:
            return f"{rows[number]}:".ljust(8000, "x")

        def write(number: int) -> str:
            rows[number] += 1
            return read(number)

        reads = [each.lazy("row:{number}")(read) for each in (cache, other)]
        saves = [each.write_through("row:{number}")(write) for each in (cache, other)]
        for save, reader in zip(saves, reads, strict=True):  # connections and scripts take nothing of the room
            save(0)
            reader.invalidate(0)
            assert reader(0) == read(0)
        nearly_full(policy)
        for _ in range(400):
            number, place = chance.randrange(150), chance.randrange(2)
            match chance.randrange(10):
                case 0:
                    saves[place](number)
                case 1:
                    rows[number] += 1
                    reads[place].invalidate(number)
                case 2:
                    (cache, other)[place].set(f"row:{number}", write(number))
                case _:
                    assert reads[place](number) == read(number)
        assert cache.stats().state == other.stats().state == "up"
        if policy == "noeviction":
            assert cache.stats().hits + other.stats().hits > 0
        else:
            assert client.info("stats")["evicted_keys"] > 0
        lives = [client.pttl(key) for key in client.scan_iter(count=1000)]
        assert lives
        assert all(0 <= life <= 31 * 86_400_000 for life in lives if life != -2), lives  # -2: it ended since the scan


def test_a_full_server_forgets_before_a_write_and_after_it(
    redis_server: Any, client: redis.Redis, nearly_full: Callable[[str], None]
) -> None:
    """Where there is no room the old value goes all the same, however a write ends, and the new one is stored later."""

    class Died(BaseException):
        pass

    with (
        Cache(redis_server.url, namespace="two", ttl=300, timeout=5.0) as cache,
        Cache(redis_server.url, namespace="two", ttl=300, timeout=5.0) as reader,
    ):
        row = ["old"]

        @cache.write_through("k")
        def save(*, dies: bool) -> str:
            row[0] = "new"
            if dies:
                raise Died
            return "new"

        read = partial(reader.get_or_load, "k", lambda: row[0])
        for dies in (True, False):
            row[0] = "old"
            reader.invalidate("k")
            client.delete("two:k")
            assert read() == "old"
            assert reader.get("k") == "old"
            client.config_set("maxmemory", "1")
            if dies:
                with pytest.raises(Died):
                    save(dies=True)
            else:
                assert save(dies=False) == "new"
            assert not holds_value(client.get("two:k"))
            assert read() == "new"
            client.config_set("maxmemory", "0")
            assert read() == "new"
            wait_until(lambda: cache.stats().journal == 0)
            assert read() == "new"


@pytest.mark.parametrize("flag", [FENCE, TOMBSTONE], ids=["fence", "tombstone"])
def test_a_full_server_that_has_room_again_keeps_the_mark(redis_server: Any, client: redis.Redis, flag: int) -> None:
    """What is deleted for want of room makes room for the mark: an invalidation is then worth what it always is."""
    with Cache(redis_server.url, namespace="three", ttl=300, timeout=5.0) as cache:
        cache.store.put_many({"three:k": marker(flag, time.time(), 10.0, b"x" * 400_000)}, 10_000)
        client.config_set("maxmemory", int(client.info("memory")["used_memory"]) - 100_000)
        try:
            cache.invalidate("k")
            assert is_fence(cache.store.get_many(["three:k"])[0]) is (flag == FENCE)
            assert 0 < client.pttl("three:k") <= 10_000
            assert cache.stats().journal == 0
        finally:
            client.config_set("maxmemory", "0")


# --------------------------------------------------------------------------------------------- connections are killed


class Rows:
    """Rows that count their changes, one change at a time as in a database."""

    def __init__(self, size: int) -> None:
        self._lock = threading.Lock()
        self.versions = dict.fromkeys(range(size), 0)

    def read(self, number: int) -> dict[str, int]:
        return {"id": number, "version": self.versions[number]}

    def write(self, number: int) -> dict[str, int]:
        with self._lock:
            self.versions[number] += 1
            return self.read(number)


@pytest.mark.parametrize("versions", [False, True], ids=["unversioned", "versioned"])
def test_with_connections_killed_all_the_time_nothing_old_stays(
    redis_server: Any, client: redis.Redis, versions: bool, repeat: Callable[[int], int], seed: int
) -> None:
    """Three processes write and read while requests and answers get lost: 0 old values in the end."""
    rows = Rows(8)
    option: Any = {"version_of": "version"} if versions else {}
    stop = threading.Event()
    caches = [Cache(redis_server.url, namespace="kill", ttl=300, timeout=1.0) for _ in range(3)]
    reads = [each.lazy("row:{number}", **option)(rows.read) for each in caches]
    writes = [each.write_through("row:{number}", **option)(rows.write) for each in caches]

    def work(place: int) -> None:
        chance = random.Random(seed + place)
        for _ in range(max(20, repeat(10_000) // 6)):
            number, cache = chance.randrange(8), place % 3
            match chance.randrange(6):
                case 0 | 1:
                    writes[cache](number)
                case 2:
                    rows.write(number)
                    caches[cache].invalidate(f"row:{number}")
                case _:
                    reads[cache](number)

    def kill() -> int:
        killed = 0
        while not stop.wait(0.004):
            killed += int(client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"))
        return killed

    with ThreadPoolExecutor(7) as pool:
        killer = pool.submit(kill)
        workers = [pool.submit(work, place) for place in range(6)]
        for each in workers:
            each.result(120)
        stop.set()
        assert killer.result(10) > 0
    wait_until(lambda: all(cache.stats().journal == 0 for cache in caches))
    for read in reads:
        assert [read(number) for number in rows.versions] == [rows.read(number) for number in rows.versions]
    for cache in caches:
        cache.close()


# ------------------------------------------------------------------------------------------------------- write-behind


@pytest.mark.parametrize("server", ["redis_server", "redis_cluster"])
def test_what_is_written_behind_is_stored_whatever_becomes_of_the_server(
    request: pytest.FixtureRequest, server: str
) -> None:
    """600 values of 300 keys, in batches: the last of each is stored and cached, for other processes too."""
    url = request.getfixturevalue(server).url
    stored: dict[int, int] = {}
    with (
        Cache(url, namespace="behind", ttl=300, timeout=5.0) as cache,
        Cache(url, namespace="behind", ttl=300, timeout=5.0) as other,
    ):

        @cache.write_behind("row:{id}", every=0.05, batch=50)
        def save(rows: list[dict[str, int]]) -> None:
            stored.update({row["id"]: row["at"] for row in rows})

        for at in range(600):
            save({"id": at % 300, "at": at})
        save.flush()
        assert stored == {at % 300: at for at in range(600)}
        assert save.pending == 0
        found = other.get_many(f"row:{number}" for number in range(300))
        assert all(row["at"] == stored[row["id"]] for row in found.values())
        assert found  # a key that was written anew at the moment of its storing may go uncached for a lease


def test_what_is_written_behind_while_the_server_dies_is_stored_and_nothing_old_is_served(redis_server: Any) -> None:
    """A frozen server costs time and no value."""
    stored: dict[int, int] = {}
    with Cache(redis_server.url, namespace="behind", ttl=300) as cache:

        @cache.write_behind("row:{id}", every=0.02, batch=50)
        def save(rows: list[dict[str, int]]) -> None:
            stored.update({row["id"]: row["at"] for row in rows})

        wait_until(lambda: cache.set("row:1", "old") is None and cache.get("row:1") == "old")
        redis_server.freeze()
        for at in range(500):
            save({"id": at % 100, "at": at})
        wait_until(lambda: save.pending == 0)
        assert stored == {at % 100: at for at in range(500)}
        redis_server.thaw()
        wait_until(lambda: cache.stats().journal == 0)
        assert cache.get("row:1") in (None, {"id": 1, "at": stored[1]})
