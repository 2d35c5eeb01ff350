"""The cache on a real Redis: what it sends, and what users see while the server is killed, frozen, cut off or full."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis

from resilient import events
from resilient.cache import AsyncCache, Cache, CacheDown, CacheUp
from resilient.cache._codecs import ABSENCE, TAGGED
from resilient.cache._entry import NEGATIVE, Entry, pack
from resilient.errors import ConfigurationError, DeadlineExceeded
from resilient.policy import deadline

# What a call may take on a machine whose cores are shared with other tests, where the promise is 150 ms.
PATIENCE = 0.6


class People:
    """The table of the people page, which counts its queries."""

    def __init__(self, path: Path) -> None:
        self._local = threading.local()
        self._path = path
        self.queries = 0
        self.connections: list[sqlite3.Connection] = []
        with self.connection() as connection:
            connection.execute("CREATE TABLE files (id INTEGER PRIMARY KEY, firstname, lastname, about)")
            rows = [(n, f"First{n}", f"Last{n % 10}", f"about {n}") for n in range(1, 101)]
            connection.executemany("INSERT INTO files VALUES (?, ?, ?, ?)", rows)

    def connection(self) -> sqlite3.Connection:
        if not hasattr(self._local, "connection"):
            self._local.connection = sqlite3.connect(self._path, check_same_thread=False)
            self.connections.append(self._local.connection)
        return self._local.connection

    def about(self, firstname: str, lastname: str) -> str | None:
        self.queries += 1
        query = "SELECT about FROM files WHERE firstname = ? AND lastname = ?"
        row = self.connection().execute(query, (firstname, lastname)).fetchone()
        return None if row is None else row[0]

    def write(self, number: int, about: str) -> None:
        with self.connection() as connection:
            connection.execute("UPDATE files SET about = ? WHERE id = ?", (about, number))


@pytest.fixture
def people(tmp_path: Path) -> Iterator[People]:
    """A hundred people, ten to each last name."""
    made = People(tmp_path / "people.db")
    yield made
    for connection in made.connections:
        connection.close()


@pytest.fixture
def client(redis_server: Any) -> Iterator[redis.Redis]:
    """A plain client of the server, to look at what the cache did."""
    made = redis.Redis.from_url(redis_server.url, socket_timeout=5, socket_connect_timeout=5)
    yield made
    made.close()


def run(face: str, work: Callable[[Any], Awaitable[Any]], url: str, **options: Any) -> Any:
    """Do some work with an async cache."""

    async def main() -> Any:
        async with AsyncCache(url, namespace="shop", ttl=300, **options) as cache:
            return await work(cache)

    assert face == "async"
    return asyncio.run(main())


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    began = time.monotonic()
    return call(), time.monotonic() - began


# ------------------------------------------------------------------------------------------------- what is sent


def test_the_people_page(redis_server: Any, people: People) -> None:
    """Loader, then shared; nobody shares an entry; a query in an argument finds nothing; a dead server answers."""
    with Cache(redis_server.url, namespace="page", ttl=300, timeout=2.0) as cache:

        @cache.lazy("about:{firstname}:{lastname}", ttl=1, negative_ttl=0.5)
        def about(firstname: str, lastname: str) -> str | None:
            return people.about(firstname, lastname)

        assert about.lookup("First7", "Last7").source == "loader"
        assert about.lookup("First7", "Last7").source == "shared"
        assert people.queries == 1
        assert about("First17", "Last7") == "about 17"
        assert about("First7", "Last7") == "about 7"
        assert about("' OR 1=1 --", "Last7") is None
        wait_until(lambda: about.lookup("First7", "Last7").source == "loader")
        redis_server.kill()
        for number in range(1, 101):
            assert about(f"First{number}", f"Last{number % 10}") == f"about {number}"


def test_a_cold_read_is_one_mget_and_one_set_and_a_warm_one_an_mget(redis_server: Any, client: redis.Redis) -> None:
    """The commands are counted on the server; every key has a ttl."""
    with Cache(redis_server.url, namespace="shop", ttl=300, timeout=2.0) as cache:
        user = cache.lazy("user:{user_id}")(lambda user_id: {"id": user_id})
        user(1)  # the connection is open and the scripts are known

        def sent(call: Callable[[], object]) -> dict[str, int]:
            client.config_resetstat()
            call()
            stats = client.info("commandstats")
            return {name[8:]: row["calls"] for name, row in stats.items() if not name.startswith("cmdstat_config")}

        # The value's key and the stamp of its namespace in one look. A SET that begins to load, where nothing is; and a
        # script that stores, unless the key was changed.
        assert sent(lambda: user(17)) == {"mget": 1, "evalsha": 1, "getrange": 1, "set": 2}
        assert sent(lambda: user(17)) == {"mget": 1}
        assert sent(lambda: user.invalidate(17)) == {"set": 1}
        assert sent(lambda: cache.get_many(["a", "b", "c"])) == {"mget": 1}
        keys = list(client.scan_iter())
        assert keys
        stamp = 30 * 86_400_000
        assert all(0 < client.pttl(key) <= (stamp if b"{" in key else 300_000) for key in keys)


def test_a_read_that_misses_takes_three_round_trips_and_two_after_others_that_missed(
    redis_server: Any, client: redis.Redis
) -> None:
    """The server counts how often it finds something to read: a look with a claim is one such."""
    with Cache(redis_server.url, namespace="shop", ttl=300, timeout=2.0) as cache:
        user = cache.lazy("user:{user_id}")(lambda user_id: {"id": user_id})
        user(0)  # the connection is open and the scripts are known
        numbers = iter(range(1, 1000))

        def trips(call: Callable[[], object]) -> int:
            before = int(client.info("stats")["total_reads_processed"])
            call()
            return int(client.info("stats")["total_reads_processed"]) - before - 1  # asking is one too

        assert trips(lambda: user(next(numbers))) == 3
        for _ in range(20):
            user(next(numbers))
        assert trips(lambda: user(next(numbers))) == 2
        assert trips(lambda: user(1)) == 1  # what is there costs no more
        for _ in range(5):
            user(1)
        assert trips(lambda: user(next(numbers))) == 3


def test_four_processes_worth_of_threads_never_store_a_value_read_before_an_invalidation(redis_server: Any) -> None:
    """Loaders race with a writer that invalidates; what is cached in the end is what the source says."""
    row = [0]
    caches = [Cache(redis_server.url, namespace="race", ttl=300, timeout=2.0) for _ in range(4)]
    stop = threading.Event()

    def read(cache: Cache) -> None:
        def load() -> int:
            value = row[0]
            time.sleep(0.0005)  # the time in which a change can be missed
            return value

        while not stop.is_set():
            cache.get_or_load("k", load)

    with ThreadPoolExecutor(8) as pool:
        readers = [pool.submit(read, cache) for cache in caches for _ in range(2)]
        try:
            for number in range(1, 101):
                row[0] = number
                caches[number % 4].invalidate("k")
                assert caches[(number + 1) % 4].get_or_load("k", lambda: row[0]) == number
        finally:
            stop.set()
        for each in readers:
            each.result(10)
    assert caches[0].get("k", row[0]) == row[0]
    for cache in caches:
        cache.close()


def test_a_ready_client_is_used_as_it_is(redis_server: Any, client: redis.Redis) -> None:
    """A client with limits of its own works and stays open; one that could wait for ever or decodes is refused."""
    with Cache(client, namespace="ready", ttl=300) as cache:
        cache.set("k", 1)
        assert cache.get("k") == 1
    assert client.ping()
    endless = redis.Redis(port=redis_server.port, socket_timeout=None)
    decoding = redis.Redis(port=redis_server.port, socket_timeout=1, decode_responses=True)
    asynchronous = redis.asyncio.Redis(port=redis_server.port, socket_timeout=1)
    with pytest.raises(ConfigurationError, match="for ever"):
        Cache(endless)
    with pytest.raises(ConfigurationError, match="decode_responses=False"):
        Cache(decoding)
    with pytest.raises(ConfigurationError, match="async"):
        Cache(asynchronous)
    with pytest.raises(ConfigurationError, match="sync"):
        AsyncCache(client)
    with pytest.raises(ConfigurationError, match="client of redis-py"):
        Cache(object())
    with pytest.raises(ConfigurationError, match="address"):
        Cache("http://127.0.0.1")
    Cache(endless, unbounded=True, ttl=1).set("k", 1)
    endless.close()


def test_a_forked_child_uses_connections_of_its_own(redis_server: Any) -> None:
    """Parent and child read different keys at the same time and get their own answers."""
    with Cache(redis_server.url, namespace="fork", ttl=300, timeout=2.0) as cache:
        cache.set_many({"parent": "p", "child": "c"})
        assert cache.get("parent") == "p"
        pid = os.fork()
        if pid == 0:
            right = all(cache.get("child") == "c" for _ in range(200))
            os._exit(0 if right else 1)
        assert all(cache.get("parent") == "p" for _ in range(200))
        assert os.waitpid(pid, 0)[1] == 0


# ------------------------------------------------------------------------------------------------------- outages


def wait_until(probe: Callable[[], bool], seconds: float = 10.0) -> float:
    """Ask until it is true; how long that took."""
    began = time.monotonic()
    while not probe():
        assert time.monotonic() - began < seconds, "it did not come true in time"
        time.sleep(0.02)
    return time.monotonic() - began


@pytest.mark.parametrize("fault", ["kill", "freeze"])
def test_a_dead_server_costs_little_and_is_used_again(
    redis_server: Any, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Killed or frozen: no error, no slow call, few log lines, and back in use soon after its return."""
    seen = events.MemorySink()
    unsubscribe = events.subscribe(seen, kinds=[CacheDown, CacheUp])
    with caplog.at_level(logging.INFO), Cache(redis_server.url, namespace="shop", ttl=300) as cache:
        user = cache.lazy("user:{user_id}")(lambda user_id: {"id": user_id})
        wait_until(lambda: user.lookup(17).source == "shared")
        getattr(redis_server, fault)()
        slowest = 0.0
        for _ in range(200):
            found, took = timed(lambda: user.lookup(17))
            assert (found.value, found.source) == ({"id": 17}, "loader")
            slowest = max(slowest, took)
        assert slowest < PATIENCE
        _, open_calls = timed(lambda: [user(17) for _ in range(100)])
        assert open_calls < PATIENCE
        assert cache.stats().state == "down"
        redis_server.start() if fault == "kill" else redis_server.thaw()
        assert wait_until(lambda: user.lookup(17).source == "shared") < 3.0
        assert cache.stats().state == "up"
    unsubscribe()
    assert [type(event) for event in seen.events] == [CacheDown, CacheUp]
    lines = [record for record in caplog.records if record.levelno >= logging.INFO and record.name != "asyncio"]
    assert len(lines) <= 5


@pytest.mark.parametrize("fault", ["kill", "freeze"])
def test_the_async_face_survives_the_same(redis_server: Any, fault: str) -> None:
    """The async cache answers through the outage with one load per burst, and recovers by itself."""

    async def work(cache: AsyncCache) -> None:
        loads = 0

        @cache.lazy("user:{user_id}")
        async def user(user_id: int) -> dict[str, int]:
            nonlocal loads
            loads += 1
            await asyncio.sleep(0.05)
            return {"id": user_id}

        async with asyncio.timeout(10):
            while (await user.lookup(17)).source != "shared":  # noqa: ASYNC110 - a busy machine may miss 50 ms
                await asyncio.sleep(0.02)
        getattr(redis_server, fault)()
        loads = 0
        began = time.monotonic()
        answers = await asyncio.gather(*(user(17) for _ in range(20)))
        assert answers == [{"id": 17}] * 20
        assert time.monotonic() - began < PATIENCE + 0.3
        assert loads <= 3
        for _ in range(5):
            began = time.monotonic()
            assert (await user.lookup(17)).source == "loader"
            assert time.monotonic() - began < PATIENCE
        redis_server.start() if fault == "kill" else redis_server.thaw()
        async with asyncio.timeout(10):
            while (await user.lookup(17)).source != "shared":  # noqa: ASYNC110 - a server's return sets no event
                await asyncio.sleep(0.02)

    run("async", work, redis_server.url)


def test_a_deadline_is_obeyed_against_a_frozen_server(redis_server: Any) -> None:
    """The wire waits no longer than the caller may, though the client's own limit is far longer; sync and async."""

    def refuse() -> str:
        pytest.fail("no time was left for the loader")

    with Cache(redis_server.url, namespace="shop", ttl=300, timeout=30.0, connect_timeout=30.0) as cache:
        cache.set("k", 1)
        redis_server.freeze()
        began = time.monotonic()
        with deadline(0.1), pytest.raises(DeadlineExceeded):
            cache.get_or_load("k", refuse)
        assert time.monotonic() - began < PATIENCE

    async def work(cache: AsyncCache) -> None:
        began = time.monotonic()
        with deadline(0.1), pytest.raises(DeadlineExceeded):
            await cache.get("k")
        assert time.monotonic() - began < PATIENCE

    run("async", work, redis_server.url, timeout=30.0, connect_timeout=30.0)


def test_what_changed_during_an_outage_is_deleted_before_the_server_is_trusted(
    redis_server: Any, tcp_proxy: Callable[[int], Any]
) -> None:
    """Cut off, this process invalidates, sets and writes through; afterwards no old value is served to anybody."""
    proxy = tcp_proxy(redis_server.port)
    rows = dict.fromkeys(range(30), "old")
    with (
        Cache(f"redis://127.0.0.1:{proxy.port}/0", namespace="shop", ttl=300, timeout=1.0) as cache,
        Cache(redis_server.url, namespace="shop", ttl=300, timeout=1.0) as neighbour,
    ):

        def read(number: int) -> str:
            return rows[number]

        mine, theirs = cache.lazy("row:{number}")(read), neighbour.lazy("row:{number}")(read)

        @cache.write_through("row:{number}")
        def write(number: int) -> str:
            rows[number] = "new"
            return "new"

        for number in rows:
            mine(number)
        proxy.cut()
        for number in rows:
            if number % 3 == 0:
                assert write(number) == "new"
            else:
                rows[number] = "new"
                cache.invalidate(f"row:{number}") if number % 3 == 1 else cache.set(f"row:{number}", "new")
            assert mine(number) == "new"
        assert cache.stats().journal == len(rows)
        proxy.restore()
        assert wait_until(lambda: cache.stats().state == "up" or mine.lookup(0).source == "shared") < 5.0
        wait_until(lambda: mine(0) == "new" and cache.stats().journal == 0)
        assert [mine(number) for number in rows] == ["new"] * len(rows)
        assert [theirs(number) for number in rows] == ["new"] * len(rows)


def test_one_strange_key_does_not_spoil_the_others(redis_server: Any) -> None:
    """Text that is no UTF-8 is a key like any other: read, written, and nothing that the journal chokes on."""
    with Cache(redis_server.url, namespace="odd", ttl=300, timeout=2.0) as cache:
        cache.set("plain", 1)
        for key in ("\udc80", "a\0b", "x\r\nFLUSHALL\r\n", " "):
            cache.set(key, 2)
            assert cache.get(key) == 2
            assert cache.get_many([key, "plain"]) == {key: 2, "plain": 1}
            cache.invalidate(key)
            assert cache.get(key) is None
        assert cache.get("plain") == 1
        assert cache.stats().journal == 0


@pytest.mark.parametrize("server", ["redis_server", "redis_cluster"])
def test_what_somebody_else_keeps_under_a_key_of_ours_spoils_nothing(server: str, request: Any) -> None:
    """It is no value: it is loaded past it, and replaced by whoever changes the key. The other keys stay cached."""
    url = request.getfixturevalue(server).url
    with Cache(url, namespace="shared", ttl=300, lease=0.2, timeout=2.0) as cache:
        call = cache.store.channel.call

        @cache.lazy("row:{number}")
        def row(number: int) -> str:
            return "loaded"

        @cache.write_through("row:{number}")
        def save(number: int) -> str:
            return "saved"

        assert row(0) == "loaded"
        changes = [
            lambda: cache.invalidate("row:1"),
            lambda: cache.invalidate("row:1", "row:2"),
            lambda: cache.set("row:1", "set"),
            lambda: cache.set("row:1", "set", version=2),
            lambda: save(1),
        ]
        for change in changes:
            for key in ("shared:row:1", "shared:row:2"):
                call("DEL", key)
                call("RPUSH", key, "a line of somebody's")
            assert row(1) == "loaded"
            change()
            assert wait_until(lambda: cache.stats().journal == 0) < 5.0
            assert row(0) == "loaded"
            assert row.lookup(0).source == "shared"
            assert wait_until(lambda: row(1) and row.lookup(1).source == "shared") < 5.0
        call("DEL", "shared:all:{shared}")
        call("RPUSH", "shared:all:{shared}", "a line of somebody's")
        assert row(0) == "loaded"
        cache.clear()
        assert (row.lookup(0).source, row.lookup(0).source) == ("loader", "shared")


@pytest.mark.parametrize("flags", [0, NEGATIVE])
def test_absence_and_values_are_not_mistaken_for_each_other(redis_server: Any, client: redis.Redis, flags: int) -> None:
    """An entry that says it is a value and has the body of an absence, or the other way round, is a miss."""
    codec = TAGGED if flags else ABSENCE
    body = msgspec.msgpack.encode("old") if flags else b"old"
    client.set("mixed:k", pack(Entry(body, codec, 0, flags, 1, time.time(), 60.0, 60.0, 0.0)))
    with Cache(redis_server.url, namespace="mixed", ttl=300, timeout=2.0) as cache:
        assert cache.get_or_load("k", lambda: "new") == "new"


def test_a_full_server_is_no_error(redis_server: Any, client: redis.Redis) -> None:
    """Under noeviction a store is refused, the caller gets its value, and an invalidation still takes effect."""
    with Cache(redis_server.url, namespace="full", ttl=300, timeout=2.0) as cache:
        user = cache.lazy("user:{user_id}")(lambda user_id: "x" * 1000)
        cache.set("user:1", "old")
        assert user(1) == "old"
        client.config_set("maxmemory", "1")
        client.config_set("maxmemory-policy", "noeviction")
        try:
            assert user(2) == user(2) == "x" * 1000
            assert cache.stats().state == "up"
            cache.set("k", 1)
            cache.invalidate("user:1")
            assert user(1) == "x" * 1000
        finally:
            client.config_set("maxmemory", "0")
        wait_until(lambda: cache.stats().journal == 0)  # what the full server could not take is told from a timer
        assert user(1) == "x" * 1000
        assert user.lookup(1).source == "shared"


def test_a_server_that_refuses_is_told_in_the_log(redis_server: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A wrong password, a database that is not there: functions answer, and one line says why."""
    url = redis_server.url
    for wrong, error in ((url.replace("//", "//:no@"), "AuthenticationError"), (f"{url[:-1]}99", "ResponseError")):
        caplog.clear()
        with caplog.at_level(logging.INFO), Cache(wrong, namespace="shop", ttl=300, timeout=1.0) as cache:
            assert [cache.get_or_load("k", lambda: 42) for _ in range(10)] == [42] * 10
        (line,) = [record for record in caplog.records if record.name == "resilient.cache"]
        assert (line.levelno, f"error={error}" in line.getMessage()) == (logging.ERROR, True)
