"""What a cache does while its store is away, told by the fake that can be made to fail."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from resilient import events, runtime
from resilient.cache import Cache, CacheDown, CacheRead, CacheUp, ChangesUntold
from resilient.cache._guard import guard
from resilient.clock import SYSTEM
from resilient.errors import DeadlineExceeded
from resilient.policy import deadline
from resilient.testing import FakeClock
from resilient.testing.cache import AsyncMemoryCache, MemoryCache
from resilient.wire.redis import classify


@pytest.fixture
def clock() -> FakeClock:
    """A clock that moves only when told to."""
    return FakeClock()


@pytest.fixture
def cache(clock: FakeClock) -> MemoryCache:
    """A cache whose store can be away."""
    return MemoryCache(clock=clock)


def test_reads_load_and_changes_are_remembered(cache: MemoryCache, clock: FakeClock) -> None:
    """During an outage loaders answer; after it a value changed meanwhile is not served, an unchanged one is."""
    rows = {1: "old", 2: "same"}
    row = cache.lazy("row:{number}")(lambda number: rows[number])
    assert (row(1), row(2)) == ("old", "same")
    with cache.outage():
        rows[1] = "new"
        row.invalidate(1)
        assert row(1) == "new"
        assert row.lookup(2).source == "loader"
        assert cache.get("row:2") is None
        assert cache.get_many(["row:1", "row:2"]) == {}
        assert cache.add("row:3", "x") is False
        assert cache.stats().journal == 1
    clock.advance(2)
    assert row.lookup(2).source == "shared"
    assert cache.stats().journal == 0
    assert row(1) == "new"


def test_an_outage_that_several_meet_at_once_is_told_once(cache: MemoryCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """And so is its end, though each of them finds it first."""
    tier, told = cache.main.tier, []
    assert tier._breaker is not None
    tier._breaker.isolate()
    both = threading.Barrier(2)

    def monotonic() -> float:
        with contextlib.suppress(threading.BrokenBarrierError):  # only one comes here
            both.wait(0.2)
        return 1.0

    monkeypatch.setattr(tier, "_clock", SimpleNamespace(monotonic=monotonic))
    stop = events.subscribe(lambda event: told.append(type(event)) if isinstance(event, CacheDown | CacheUp) else None)
    try:
        for step in (tier._failed, tier._back):
            threads = [threading.Thread(target=step) for _ in range(2)]
            for each in threads:
                each.start()
            for each in threads:
                each.join()
            both.reset()
    finally:
        stop()
    assert told == [CacheDown, CacheUp]


def test_an_open_breaker_asks_nothing(cache: MemoryCache, clock: FakeClock) -> None:
    """After three failures the store is left alone but for one probe at a time."""
    cache.fail()
    for _ in range(100):
        cache.get("k")
    assert cache.asked == 3
    clock.advance(1)
    for _ in range(100):
        cache.get("k")
    assert cache.asked == 4


def test_an_outage_is_two_lines_in_the_log(
    cache: MemoryCache, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Down and up are told once each, however long it takes and however often it is probed."""
    seen = events.MemorySink()
    unsubscribe = events.subscribe(seen, kinds=[CacheDown, CacheUp])
    with caplog.at_level(logging.INFO):
        cache.set("k", 1)
        with cache.outage():
            for _ in range(60):
                cache.invalidate("k")
                clock.advance(1)
        clock.advance(1)
        assert cache.get("k") is None
    unsubscribe()
    down, up = seen.events
    assert isinstance(down, CacheDown)
    assert isinstance(up, CacheUp)
    assert up.seconds == pytest.approx(61, abs=2)
    assert up.replayed == 1
    assert len(caplog.records) <= 5


def test_when_the_journal_overflows_nothing_older_is_served(clock: FakeClock) -> None:
    """More changes than it holds: then every entry from before counts as gone, in this process and in the others."""
    cache = MemoryCache(clock=clock, journal=5)
    other = Cache(cache.store, namespace="test", ttl=300, clock=clock)
    cache.set_many({f"k{number}": "old" for number in range(20)})
    with cache.outage():
        for number in range(10):
            cache.invalidate(f"k{number}")
        assert 0 < cache.stats().journal <= 5
    clock.advance(2)
    assert cache.get_many(f"k{number}" for number in range(20)) == {}
    assert other.get_many(f"k{number}" for number in range(20)) == {}
    cache.set("k0", "new")
    assert cache.get("k0") == other.get("k0") == "new"
    clock.advance(60)
    assert cache.get_or_load("k1", lambda: "new") == other.get("k1") == "new"
    assert other.get("k2") is None


def test_a_store_that_failed_is_not_a_change(cache: MemoryCache, clock: FakeClock) -> None:
    """Loading while the store is away leaves nothing to replay: what it holds is still right."""
    with cache.outage():
        cache.get_or_load("k", lambda: 1)
    assert cache.stats().journal == 0
    clock.advance(2)
    assert cache.get_or_load("k", lambda: 1) == 1


def test_when_no_time_is_left_an_invalidation_is_remembered(cache: MemoryCache) -> None:
    """A deadline that has passed stops reads, and loses no change."""
    cache.set("k", "old")
    with deadline(0):
        with pytest.raises(DeadlineExceeded):
            cache.get("k")
        with pytest.raises(DeadlineExceeded):
            cache.set("k", "new")
        cache.invalidate("k")
    assert cache.get("k") is None


def test_a_cancelled_invalidation_is_remembered(clock: FakeClock) -> None:
    """A task that is cancelled while it tells the store of a change leaves it in the journal."""

    async def main() -> None:
        cache = AsyncMemoryCache(clock=clock)
        await cache.set("k", "old")
        stuck = asyncio.Event()

        async def never(*_: Any) -> None:
            stuck.set()
            await asyncio.Event().wait()

        exchange_many, cache.store.exchange_many = cache.store.exchange_many, never  # type: ignore[method-assign]
        task = asyncio.create_task(cache.invalidate("k"))
        await stuck.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert cache.stats().journal == 1
        cache.store.exchange_many = exchange_many  # type: ignore[method-assign]
        assert await cache.get("k") is None
        assert cache.stats().journal == 0

    asyncio.run(main())


def test_a_loader_may_read_its_own_key() -> None:
    """A loader that asks for the value it loads does not wait for itself."""
    cache = Cache(ttl=300)

    @cache.lazy("n:{n}")
    def value(n: int, depth: int = 0) -> int:
        return 1 if depth else value(n, 1) + 1

    assert value(1) == 2

    async def main() -> None:
        other = AsyncMemoryCache()

        async def load(depth: int = 0) -> int:
            return 1 if depth else await other.get_or_load("k", lambda: load(1)) + 1

        async with asyncio.timeout(5):
            assert await other.get_or_load("k", load) == 2

    asyncio.run(main())


def test_a_cancelled_leader_leaves_the_load_to_a_waiter() -> None:
    """In asyncio the task that loads may be cancelled; those who wait get their value all the same."""

    async def main() -> None:
        cache = AsyncMemoryCache()
        calls = 0
        started = asyncio.Event()

        async def load() -> str:
            nonlocal calls
            calls += 1
            started.set()
            if calls == 1:
                await asyncio.Event().wait()
            return "v"

        leader = asyncio.create_task(cache.get_or_load("k", load))
        await started.wait()
        waiter = asyncio.create_task(cache.get_or_load("k", load))
        await asyncio.sleep(0)
        leader.cancel()
        assert await asyncio.wait_for(waiter, 5) == "v"
        assert calls == 2

    asyncio.run(main())


def test_reads_are_told_to_those_who_listen(cache: MemoryCache) -> None:
    """Each read is an event with its source, without the key."""
    seen = events.MemorySink()
    unsubscribe = events.subscribe(seen, kinds=[CacheRead])
    cache.get("k")
    cache.get_or_load("k", lambda: 1)
    cache.get("k")
    unsubscribe()
    assert [event.source for event in seen.events] == ["none", "loader", "shared"]  # type: ignore[attr-defined]


def test_the_wrong_kind_of_function_is_refused() -> None:
    """Each face takes functions of its own world, and says which other face to use."""
    with pytest.raises(ValueError, match="AsyncCache for async def"):

        @Cache(ttl=1).lazy("k")
        async def load() -> int:
            return 1

    with pytest.raises(ValueError, match="Cache for def"):

        @AsyncMemoryCache().lazy("k")  # type: ignore[arg-type]
        def load_sync() -> int:
            return 1


def test_while_the_store_is_away_so_many_loaders_run_at_once_and_no_more(clock: FakeClock) -> None:
    """All that the cache would have answered falls on the loaders: 64 of them at a time; the others wait their turn."""
    cache = MemoryCache(clock=clock)
    lock, full, go = threading.Lock(), threading.Event(), threading.Event()
    running = most = 0

    def load() -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        if most == 64:
            full.set()
        assert go.wait(10)
        with lock:
            running -= 1
        return 1

    with cache.outage(), ThreadPoolExecutor(80) as pool:
        loads = [pool.submit(cache.get_or_load, f"k{number}", load) for number in range(80)]
        assert full.wait(10)
        go.set()
        assert [each.result(10) for each in loads] == [1] * 80
    assert most == 64


@pytest.mark.parametrize("away", [True, False], ids=["away", "there"])
def test_a_load_within_a_load_waits_for_none_that_waits_for_its_place(away: bool) -> None:
    """All places are taken by loads that read one more key, for which another caller waits for a place already."""
    cache = MemoryCache(max_loads=2, lease=10)
    if away:
        cache.fail()
    full, waiting = threading.Barrier(3), threading.Event()

    def page() -> str:
        full.wait(10)
        assert waiting.wait(10)
        return f"with {cache.get_or_load('config', lambda: 'config')}"

    take = cache.main.leases.cap.take

    def take_told() -> Any:
        if full.n_waiting == 0 and threading.current_thread().name == "third":
            waiting.set()
        return take()

    cache.main.leases.cap.take = take_told  # type: ignore[method-assign]
    found: list[Any] = []
    with ThreadPoolExecutor(2) as pool:
        pages = [pool.submit(cache.get_or_load, f"page{number}", page) for number in range(2)]
        full.wait(10)
        third = threading.Thread(
            target=lambda: found.append(cache.get_or_load("config", lambda: "third")), name="third"
        )
        third.start()
        began = time.monotonic()
        assert [each.result(20) for each in pages] == ["with config"] * 2
        assert time.monotonic() - began < 4
        third.join(10)
    assert found[0] in {"third", "config"}


@pytest.mark.parametrize("away", [True, False], ids=["away", "there"])
def test_a_load_within_a_load_of_a_task_waits_for_none_that_waits_for_its_place(away: bool) -> None:
    """The same with tasks."""

    async def main() -> None:
        cache = AsyncMemoryCache(max_loads=2, lease=10)
        if away:
            cache.fail()
        full, waiting = asyncio.Semaphore(0), asyncio.Event()

        async def config() -> str:
            return "config"

        async def page() -> str:
            full.release()
            await waiting.wait()
            return f"with {await cache.get_or_load('config', config)}"

        pages = [asyncio.create_task(cache.get_or_load(f"page{number}", page)) for number in range(2)]
        for _ in pages:
            await full.acquire()
        take = cache.main.leases.cap.take

        async def take_told() -> Any:
            waiting.set()
            return await take()

        cache.main.leases.cap.take = take_told  # type: ignore[method-assign]
        third = asyncio.create_task(cache.get_or_load("config", config))
        async with asyncio.timeout(4):
            assert await asyncio.gather(*pages, third) == ["with config", "with config", "config"]

    asyncio.run(main())


# ------------------------------------------------------------------------------------ what the journal holds is told


def _soon(come_true: Any) -> None:
    until = time.monotonic() + 10
    while not come_true():
        assert time.monotonic() < until, "it did not come true in time"
        time.sleep(0.005)


def test_the_journal_is_told_without_anybody_asking(cache: MemoryCache, clock: FakeClock) -> None:
    """Once the store answers again it is told of changes by a thread, which ends when all is told."""
    cache.main.tier.timer.interval = 0.005
    cache.set("k", "old")
    with cache.outage():
        cache.invalidate("k")
        assert cache.stats().journal == 1
    clock.advance(2)
    _soon(lambda: cache.stats().journal == 0)
    assert cache.stats().state == "up"
    _soon(lambda: not any(thread.name == "resilient-cache-test-journal" for thread in threading.enumerate()))


def test_the_journal_of_the_async_face_is_told_by_its_loop() -> None:
    """The same without a thread, also in another loop than the one that was cut off."""

    async def cut_off(cache: AsyncMemoryCache) -> None:
        cache.main.tier.timer.interval = 0.005
        await cache.set("k", "old")
        with cache.outage():
            await cache.invalidate("k")

    async def elsewhere(cache: AsyncMemoryCache) -> None:
        async with asyncio.timeout(10):
            while cache.stats().journal:  # noqa: ASYNC110 - nothing tells that it is empty
                await asyncio.sleep(0.005)

    async def main(cache: AsyncMemoryCache) -> None:
        await cut_off(cache)
        await elsewhere(cache)

    asyncio.run(main(AsyncMemoryCache()))
    cache = AsyncMemoryCache()
    asyncio.run(cut_off(cache))
    cache.main.tier.remember(["test:k"])  # outside any loop nothing can wait
    cache.main.tier.timer.ensure()

    async def later() -> None:
        cache.main.tier.remember(["test:k"])
        await elsewhere(cache)

    asyncio.run(later())


@pytest.mark.parametrize("face", ["sync", "async"])
def test_what_is_untold_is_told_when_the_cache_is_closed(face: str, clock: FakeClock) -> None:
    """close() tells the store also where the breaker is still open; what it cannot tell is one event."""
    seen = events.MemorySink()
    unsubscribe = events.subscribe(seen, kinds=[ChangesUntold])

    async def once(cache: Any, *, restored: bool) -> None:
        steps = [partial(cache.invalidate, "a"), partial(cache.invalidate, "b")]
        steps += [cache.restore] if restored else []
        for step in (*steps, cache.aclose if face == "async" else cache.close):
            done = step()
            if done is not None:
                await done

    for restored in (True, False):
        cache = AsyncMemoryCache(clock=clock) if face == "async" else MemoryCache(clock=clock)
        cache.fail()
        asyncio.run(once(cache, restored=restored))
        assert cache.stats().journal == (0 if restored else 2)
        assert [event.keys for event in seen.events] == ([] if restored else [2])  # type: ignore[attr-defined]
    unsubscribe()


def test_a_process_that_ends_tells_what_it_has_not_told(cache: MemoryCache) -> None:
    """A cache that nobody closed is asked at the end of the process."""
    cache.set("k", "old")
    with cache.outage():
        cache.invalidate("k")
    runtime._run_at_exit()
    assert cache.stats().journal == 0


class _Slow:
    """What a store does that is gone: each call waits, then fails."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class _SlowStore(_Slow):
    def get_many(self, _: Any) -> Any:
        self.calls += 1
        time.sleep(0.02)
        raise ConnectionError

    def exchange_many(self, *_: Any) -> Any:
        return self.get_many(())


class _AsyncSlowStore(_Slow):
    async def get_many(self, _: Any) -> Any:
        self.calls += 1
        await asyncio.sleep(0.02)
        raise ConnectionError

    def exchange_many(self, *_: Any) -> Any:
        return self.get_many(())


def test_one_key_in_the_journal_keeps_the_breaker_from_nothing(at_once: Any) -> None:
    """Callers who find that another tells the journal make no call, which is no success: the breaker opens."""
    cache = MemoryCache()
    store = cache.main.tier.store = _SlowStore(cache.store)  # type: ignore[assignment]
    cache.invalidate("k")
    end = time.monotonic() + 1

    def read(_: int) -> None:
        while cache.stats().state == "up" and time.monotonic() < end:
            assert cache.get("k") is None

    at_once(6, read)
    assert cache.stats().state == "down"
    assert store.calls <= 6


def test_one_key_in_the_journal_keeps_the_breaker_of_tasks_from_nothing() -> None:
    """The same with tasks."""

    async def main() -> None:
        cache = AsyncMemoryCache()
        store = cache.main.tier.store = _AsyncSlowStore(cache.store)  # type: ignore[assignment]
        await cache.invalidate("k")
        end = time.monotonic() + 1

        async def read() -> None:
            while cache.stats().state == "up" and time.monotonic() < end:
                assert await cache.get("k") is None
                await asyncio.sleep(0)

        await asyncio.gather(*(read() for _ in range(6)))
        assert cache.stats().state == "down"
        assert store.calls <= 6

    asyncio.run(main())


def test_a_replay_that_is_refused_leaves_the_turn_to_the_next(cache: MemoryCache, clock: FakeClock) -> None:
    """A caller without time, or an open breaker, does not keep the journal for itself."""
    cache.fail()
    cache.invalidate("k")
    with deadline(0), pytest.raises(DeadlineExceeded):
        cache.get("k")
    for _ in range(5):
        cache.get("k")
    cache.restore()
    clock.advance(2)
    cache.get("k")
    assert cache.stats().journal == 0
    assert cache.stats().state == "up"


def test_another_store_is_not_told_what_the_first_one_missed(cache: MemoryCache, clock: FakeClock) -> None:
    """A change that waits to be told is told to the store that missed it, whatever store stands in meanwhile."""
    cache.set("k", "old")
    cache.fail()
    cache.invalidate("k")
    with cache.use(MemoryCache(clock=clock)):
        assert cache.stats().journal == 0
        cache.set("k", "borrowed")
        assert cache.get("k") == "borrowed"
    assert cache.stats().journal == 1
    cache.restore()
    clock.advance(2)
    assert cache.get("k") is None
    assert cache.stats().journal == 0


def test_another_store_of_tasks_is_not_told_what_the_first_one_missed(clock: FakeClock) -> None:
    """The same with tasks."""

    async def main() -> None:
        cache = AsyncMemoryCache(clock=clock)
        await cache.set("k", "old")
        cache.fail()
        await cache.invalidate("k")
        with cache.use(AsyncMemoryCache(clock=clock)):
            await cache.set("k", "borrowed")
            assert await cache.get("k") == "borrowed"
        cache.restore()
        clock.advance(2)
        assert await cache.get("k") is None

    asyncio.run(main())


def test_callers_in_a_hurry_do_not_open_the_breaker_for_everybody() -> None:
    """A call that the caller's own deadline cut short says nothing of the server; one of the full limit does."""
    cache = MemoryCache()

    def get_many(_: Any) -> Any:
        time.sleep(min(0.03, deadline.remaining() or 0.0))
        raise TimeoutError

    cache.store.get_many = get_many  # type: ignore[method-assign]
    for _ in range(6):
        with deadline(0.01), pytest.raises(DeadlineExceeded):
            cache.get("k")
    assert cache.stats().state == "up"
    for _ in range(3):
        with deadline(5):
            assert cache.get("k") is None
    assert cache.stats().state == "down"


def test_tasks_in_a_hurry_do_not_open_the_breaker_for_everybody() -> None:
    """The same with tasks."""

    async def main() -> None:
        cache = AsyncMemoryCache()

        async def get_many(_: Any) -> Any:
            end = time.monotonic() + min(0.03, deadline.remaining() or 0.0)
            while time.monotonic() < end:  # the call ends before the task is told that its time is over
                pass
            raise TimeoutError

        cache.store.get_many = get_many  # type: ignore[method-assign]
        for _ in range(6):
            with pytest.raises(DeadlineExceeded):
                async with deadline(0.01):
                    await cache.get("k")
        assert cache.stats().state == "up"
        for _ in range(3):
            async with deadline(5):
                assert await cache.get("k") is None
        assert cache.stats().state == "down"

    asyncio.run(main())


def test_what_a_server_of_redis_did_not_answer_in_a_hurry_is_not_counted() -> None:
    """The same with the errors of redis-py."""
    pipeline = guard("test", classify, SYSTEM)

    def late() -> None:
        raise redis.exceptions.TimeoutError("Timeout reading from socket")

    for _ in range(6):
        with deadline(0.001), contextlib.suppress(redis.exceptions.TimeoutError, DeadlineExceeded):
            pipeline.call(late)
    assert pipeline.breaker is not None
    assert pipeline.breaker.state == "closed"
    for _ in range(3):
        with deadline(5), pytest.raises(redis.exceptions.TimeoutError):
            pipeline.call(late)
    assert pipeline.breaker.state == "open"
