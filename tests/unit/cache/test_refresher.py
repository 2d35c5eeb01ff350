"""Refreshers keep values warm, one of several at a time."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import sessionmaker

from resilient import events
from resilient.cache import AsyncCache, AsyncRefresher, Cache, LoadFailed, Refresher
from resilient.errors import ConfigurationError
from resilient.testing import FakeClock
from resilient.testing.cache import MemoryCache


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def cache(clock: FakeClock) -> MemoryCache:
    return MemoryCache(namespace="shop", ttl=100, jitter=0.0, clock=clock)


class Worker:
    """One process with a cache over the shared store, a value and a refresher."""

    def __init__(self, shared: Cache, clock: FakeClock, **options: Any) -> None:
        self.cache = Cache(shared.store, namespace="shop", ttl=100, jitter=0.0, clock=clock)
        self.loads = 0
        self.refresher = Refresher(self.cache, every=60, **options)

        @self.cache.lazy("best:{count}")
        def best(count: int) -> int:
            self.loads += 1
            return count

        self.best = best
        self.refresher.add(best, 10)


def test_one_of_three_refreshes(cache: MemoryCache, clock: FakeClock) -> None:
    """Every 60 s one load, by the same process, and no reader ever loads."""
    workers = [Worker(cache, clock) for _ in range(3)]
    for second in range(0, 600, 20):
        for worker in workers:
            worker.refresher.run_once()
        for worker in workers:
            assert worker.best.lookup(10).source != "loader"
        assert sum(worker.loads for worker in workers) == second // 60 + 1
        clock.advance(20)
    assert sorted(worker.loads for worker in workers) == [0, 0, 10]


def test_the_death_of_the_one_costs_one_lease(cache: MemoryCache, clock: FakeClock) -> None:
    """Then another takes over, and refreshes at once."""
    first, second = Worker(cache, clock, lease=30), Worker(cache, clock, lease=30)
    assert first.refresher.run_once()
    clock.advance(29)
    assert not second.refresher.run_once()
    clock.advance(2)
    assert second.refresher.run_once()
    assert (first.loads, second.loads) == (1, 1)
    assert not first.refresher.run_once()  # it was only slow, and finds that it was replaced


def test_closing_leaves_the_lease_to_another(cache: MemoryCache, clock: FakeClock) -> None:
    """Nobody waits for it to end."""
    first, second = Worker(cache, clock), Worker(cache, clock)
    assert first.refresher.run_once()
    first.refresher.close()
    assert second.refresher.run_once()


def test_names_have_leases_of_their_own(cache: MemoryCache, clock: FakeClock) -> None:
    """Two refreshers with two names do not wait for each other."""
    one, two = Worker(cache, clock, name="one"), Worker(cache, clock, name="two")
    assert one.refresher.run_once()
    assert two.refresher.run_once()


def test_an_error_of_one_loader_stops_no_other(cache: MemoryCache) -> None:
    """It is told as an event."""
    done: list[str] = []
    seen: list[Any] = []

    def broken() -> None:
        raise LookupError

    refresher = Refresher(cache)
    refresher.add(broken)
    refresher.add(done.append, "other")
    unsubscribe = events.subscribe(seen.append, kinds=(LoadFailed,))
    assert refresher.run_once()
    unsubscribe()
    assert done == ["other"]
    assert [event.error for event in seen] == ["LookupError"]


def test_while_the_server_is_away_nobody_refreshes(cache: MemoryCache, clock: FakeClock) -> None:
    """There is nothing to keep warm; when it is back, it goes on."""
    worker = Worker(cache, clock)
    shared = Refresher(cache)
    shared.add(worker.best, 10)
    with cache.outage():
        assert not shared.run_once()
    clock.advance(1)
    assert shared.run_once()
    assert worker.loads == 1


def test_queries_are_refreshed(cache: MemoryCache, clock: FakeClock) -> None:
    """Each with a session of its own."""
    engine = sa.create_engine("sqlite://", poolclass=sa.StaticPool)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE t (id INTEGER)"))
        connection.execute(sa.text("INSERT INTO t VALUES (1)"))
    statement = sa.select(sa.column("id", sa.Integer)).select_from(sa.table("t"))
    make = sessionmaker(engine)
    refresher = Refresher(cache, every=60)
    refresher.add_query(make, statement, 100)
    assert refresher.run_once()
    with engine.begin() as connection:
        connection.execute(sa.text("INSERT INTO t VALUES (2)"))
    with make() as session:
        assert cache.query(session, statement, 100) == [(1,)]
    clock.advance(61)
    assert refresher.run_once()
    with make() as session:
        assert cache.query(session, statement, 100) == [(1,), (2,)]
    engine.dispose()


def test_it_runs_on_a_thread_of_its_own() -> None:
    """From start to close."""
    cache = Cache(namespace="shop", ttl=100)
    twice = threading.Barrier(2)
    refresher = Refresher(cache, every=0.01)
    refresher.add(twice.wait, 5)
    with refresher:
        twice.wait(5)
        twice.wait(5)
    assert not any("refresher" in thread.name for thread in threading.enumerate())


def test_the_async_one_runs_in_a_task() -> None:
    """From start to close."""

    async def story() -> None:
        cache = AsyncCache(namespace="shop", ttl=100)
        loads = asyncio.Semaphore(0)

        @cache.lazy("best")
        async def best() -> int:
            loads.release()
            return 7

        refresher = AsyncRefresher(cache, every=0.01)
        refresher.add(best)
        async with refresher:
            async with asyncio.timeout(5):
                await loads.acquire()
                await loads.acquire()
        assert await cache.get("best") == 7
        await cache.aclose()

    asyncio.run(story())


def test_wrong_arguments_are_refused(cache: MemoryCache) -> None:
    """Times that are none, and functions of the other face."""

    async def other() -> None: ...

    with pytest.raises(ConfigurationError):
        Refresher(cache, every=0)
    with pytest.raises(ConfigurationError):
        Refresher(cache, lease=-1)
    with pytest.raises(ConfigurationError):
        Refresher(cache).add(other)
    for function in (cache.lazy("user:{user_id}")(lambda user_id: user_id), lambda user_id: user_id):
        with pytest.raises(TypeError, match="user_id"):
            Refresher(cache).add(function)
        with pytest.raises(TypeError):
            Refresher(cache).add(function, 1, 2)
        Refresher(cache).add(function, 17)
