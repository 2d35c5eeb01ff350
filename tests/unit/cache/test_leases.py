"""What becomes of a claim whose answer is lost: nobody waits for a process that does not know that it has it."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from resilient.cache import AsyncCache, AsyncMemoryStore, Cache, MemoryStore
from resilient.cache._failures import another
from resilient.policy import deadline

LEASE = 6.0
AT_ONCE = LEASE / 2
"""Seconds in which a reader must have its value: one that waits for a lease takes longer."""


class Lossy(MemoryStore):
    """A store that does what it is asked, and loses the answer to the next claim."""

    local = False
    failures = (ConnectionError,)
    loses = False
    misses = False
    """The next swap does not reach it."""

    def _lose(self) -> None:
        if self.loses:
            self.loses = False
            raise ConnectionError

    def claim(self, *args: Any) -> Any:
        done = super().claim(*args)
        self._lose()
        return done

    def get_or_claim(self, *args: Any) -> Any:
        done = super().get_or_claim(*args)
        self._lose()
        return done

    def claim_many(self, *args: Any) -> Any:
        done = super().claim_many(*args)
        self._lose()
        return done

    def swap(self, *args: Any) -> Any:
        self._miss()
        return super().swap(*args)

    def swap_many(self, *args: Any) -> Any:
        self._miss()
        return super().swap_many(*args)

    def _miss(self) -> None:
        if self.misses:
            self.misses = False
            raise ConnectionError


class AsyncLossy(AsyncMemoryStore):
    """The same for tasks; or one that never answers the next claim."""

    local = False
    failures = (ConnectionError,)
    loses = False
    hangs: asyncio.Event | None = None

    async def _lose(self) -> None:
        if self.loses:
            self.loses = False
            raise ConnectionError
        if self.hangs is not None:
            event, self.hangs = self.hangs, None
            event.set()
            await asyncio.Event().wait()

    async def claim(self, *args: Any) -> Any:
        done = await super().claim(*args)
        await self._lose()
        return done

    async def get_or_claim(self, *args: Any) -> Any:
        done = await super().get_or_claim(*args)
        await self._lose()
        return done

    async def claim_many(self, *args: Any) -> Any:
        done = await super().claim_many(*args)
        await self._lose()
        return done


def loaded() -> str:
    """What is loaded."""
    return "new"


async def aloaded() -> str:
    """The same for tasks."""
    return "new"


MISSES = 20
"""Reads that find nothing, after which the claim of a key is sent along with the look."""


@pytest.mark.parametrize("stale", [False, True], ids=["nothing", "a value"])
@pytest.mark.parametrize("way", ["one", "with the look", "many"])
def test_a_claim_whose_answer_is_lost_is_given_back(stale: bool, way: str) -> None:
    """The next process loads at once, whether the key was empty or held an old value."""
    store = Lossy()
    mine, theirs = (Cache(store, namespace="n", ttl=300, lease=LEASE) for _ in range(2))
    for number in range(MISSES if way == "with the look" else 0):
        mine.get_or_load(f"other {number}", loaded)
    if stale:
        mine.get_or_load("k", lambda: "old", ttl=0.01, stale_if_error=60)
        time.sleep(0.02)
    store.loses = True
    if way == "many":
        assert mine.get_many(["k"], load_many=lambda keys: dict.fromkeys(keys, "new"), stale_if_error=60) == {
            "k": "new"
        }
    else:
        assert mine.get_or_load("k", loaded, stale_if_error=60) == "new"
    assert not store.loses
    began = time.monotonic()
    assert theirs.get_or_load("k", loaded, stale_if_error=60) == "new"
    assert time.monotonic() - began < AT_ONCE
    mine.close()


@pytest.mark.parametrize("how", ["lost", "cancelled", "late"])
@pytest.mark.parametrize("way", ["one", "with the look", "many"])
def test_a_claim_of_a_task_that_does_not_get_it_is_given_back(how: str, way: str) -> None:
    """The same with tasks, and where the one who claims is cancelled or runs out of time."""

    async def main() -> None:
        store = AsyncLossy()
        mine, theirs = (AsyncCache(store, namespace="n", ttl=300, lease=LEASE) for _ in range(2))
        await mine.set("other", "value")  # so that the claim is soon reached
        for number in range(MISSES if way == "with the look" else 0):
            await mine.get_or_load(f"other {number}", aloaded)
        asked = asyncio.Event()
        if how == "lost":
            store.loses = True
        else:
            store.hangs = asked

        async def read(seconds: float) -> Any:
            async with deadline(seconds):
                if way == "many":
                    return await mine.get_many(["k", "l"], load_many=load_many)
                return await mine.get_or_load("k", aloaded)

        async def load_many(keys: list[str]) -> dict[str, str]:
            return dict.fromkeys(keys, "new")

        for seconds in (0.3, 3.0, 30.0) if how == "late" else (60.0,):
            task = asyncio.create_task(read(seconds))
            if how == "cancelled":
                await asked.wait()
                task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            if how == "lost" or asked.is_set():
                break  # else the machine was too busy to come to the claim in that time
        assert store.hangs is None
        began = time.monotonic()
        assert await theirs.get_or_load("k", aloaded) == "new"
        assert time.monotonic() - began < AT_ONCE
        await mine.aclose()

    asyncio.run(main())


class Changing(MemoryStore):
    """A store in which a value is invalidated after it was looked at, and before its key is claimed."""

    local = False

    def get_or_claim(self, keys: Any, header: bytes, life: int) -> Any:
        found = self.get_many(keys)
        self.swap(keys[0], found[0], None, 0)
        return found, super().get_or_claim(keys, header, life)[1]


def test_a_claim_that_came_with_a_value_is_given_back() -> None:
    """What ended between the look and the claim is served once more, to who looked before; the next one loads."""
    store = Changing()
    mine, theirs = (Cache(store, namespace="n", ttl=300, lease=LEASE) for _ in range(2))
    for number in range(MISSES):
        mine.get_or_load(f"other {number}", loaded)
    mine.set("k", "old")
    assert mine.get_or_load("k", loaded) == "old"
    began = time.monotonic()
    assert theirs.get_or_load("k", loaded) == "new"
    assert time.monotonic() - began < AT_ONCE
    mine.close()


@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
def test_what_ends_a_claim_is_sent_once_more_where_it_was_lost(many: bool) -> None:
    """The next process finds the value, and waits for no lease."""
    store = Lossy()
    mine, theirs = (Cache(store, namespace="n", ttl=300, lease=LEASE) for _ in range(2))
    mine.set("other", "value")  # so that the namespace's stamp is there, and the next swap is that of a load
    store.misses = True
    if many:
        assert mine.get_many(["k"], load_many=lambda keys: dict.fromkeys(keys, "mine")) == {"k": "mine"}
    else:
        assert mine.get_or_load("k", lambda: "mine") == "mine"
    assert not store.misses
    began = time.monotonic()
    assert theirs.get_or_load("k", lambda: "theirs") == "mine"
    assert time.monotonic() - began < AT_ONCE
    mine.close()


def test_what_an_open_breaker_keeps_back_is_not_given_back() -> None:
    """While the store is away a load sends nothing, also not afterwards."""
    store = Lossy()
    cache = Cache(store, namespace="n", ttl=300, lease=LEASE)
    swaps = 0

    def gone(*_: Any) -> Any:
        raise ConnectionError

    def swap(*_: Any) -> Any:
        nonlocal swaps
        swaps += 1
        raise ConnectionError

    store.get_many = store.claim = gone  # type: ignore[method-assign]
    store.swap = store.swap_many = swap  # type: ignore[method-assign]
    for number in range(20):
        assert cache.get_or_load(f"k{number}", loaded) == "new"
    cache.close()
    assert swaps <= 3


@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
def test_loads_within_loads_of_two_processes_do_not_wait_for_each_other(many: bool) -> None:
    """Who waits for a place under max_loads holds no lease, for which a load that has one may wait elsewhere."""
    store = Lossy()
    here, there = (Cache(store, namespace="n", ttl=300, lease=LEASE, max_loads=1) for _ in range(2))
    places = {"here": threading.Event(), "there": threading.Event()}
    queues = {"here": threading.Event(), "there": threading.Event()}
    go = threading.Event()

    def read(cache: Cache, key: str) -> Any:
        if many:
            return cache.get_many([key], load_many=lambda keys: dict.fromkeys(keys, "inner"))[key]
        return cache.get_or_load(key, lambda: "inner")

    def outer(cache: Cache, name: str, key: str) -> Any:
        def load() -> Any:
            places[name].set()
            assert go.wait(10)
            return read(cache, key)  # which somebody of the other process is about to load

        return cache.get_or_load(f"outer {name}", load)

    def watched(cache: Cache, name: str) -> None:
        take = cache.main.leases.cap.take

        def taking() -> Any:
            queues[name].set()
            return take()

        cache.main.leases.cap.take = taking  # type: ignore[method-assign]

    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(outer, here, "here", "theirs"), pool.submit(outer, there, "there", "ours")]
        assert all(event.wait(10) for event in places.values())
        watched(here, "here")
        watched(there, "there")
        calls += [pool.submit(read, here, "ours"), pool.submit(read, there, "theirs")]
        assert all(event.wait(10) for event in queues.values())
        began = time.monotonic()
        go.set()
        assert [call.result(20) for call in calls] == ["inner"] * 4
        assert time.monotonic() - began < AT_ONCE


def test_a_lease_is_given_back_also_where_all_threads_load() -> None:
    """There is room for what ends a load, however many run in the background; and closing waits for it."""
    cache = Cache(Lossy(), namespace="n", ttl=300, lease=LEASE, max_loads=1)
    background = cache.main.leases.background
    go, done = threading.Event(), threading.Event()
    assert background.start(go.wait, 10)
    assert not background.start(go.wait, 10)
    background.finish(done.set)
    assert done.wait(3)
    ended: list[int] = []
    for number in range(20):
        background.finish(lambda number: (time.sleep(0.001), ended.append(number)), number)
    go.set()
    cache.close()
    assert ended == list(range(20))


def test_a_closed_cache_starts_no_threads() -> None:
    """What still ends after the closing ends where it runs; nothing is begun in the background any more."""
    cache = Cache(Lossy(), namespace="closed", ttl=300, lease=LEASE)
    background = cache.main.leases.background
    done = threading.Event()
    assert background.start(done.set)
    background.finish(done.wait, 10)
    assert done.wait(3)
    cache.close()
    before = set(threading.enumerate())
    ran_on: list[threading.Thread] = []
    assert not background.start(done.set)
    background.finish(lambda: ran_on.append(threading.current_thread()))
    assert ran_on == [threading.current_thread()]
    assert cache.get_or_load("k", loaded) == "new"
    assert set(threading.enumerate()) <= before


def test_each_caller_gets_an_error_of_its_own(gathered: Any, at_once: Any) -> None:
    """Those who wait for a load that fails do not share one object, whose traceback would be that of all."""
    cache = Cache(Lossy(), namespace="n", ttl=300)
    cause = OSError("the source is away")

    def load() -> str:
        gathered(2, cache)
        raise LookupError("no row") from cause

    def ask(_: int) -> Any:
        return cache.get_or_load("k", load)

    errors = at_once(3, ask)
    assert [str(each) for each in errors] == ["no row"] * 3
    assert len({id(each) for each in errors}) == 3
    assert {each.__cause__ for each in errors} == {cause}
    cache.close()


def test_each_task_gets_an_error_of_its_own() -> None:
    """The same with tasks."""

    async def main() -> None:
        cache = AsyncCache(AsyncLossy(), namespace="n", ttl=300)

        async def load() -> str:
            while cache.stats().waits < 2:  # noqa: ASYNC110 - a count tells of no event
                await asyncio.sleep(0)
            raise LookupError("no row")

        errors = await asyncio.gather(*(cache.get_or_load("k", load) for _ in range(3)), return_exceptions=True)
        assert [str(each) for each in errors] == ["no row"] * 3
        assert len({id(each) for each in errors}) == 3
        await cache.aclose()

    asyncio.run(main())


class Odd(Exception):
    """An error whose constructor wants what it does not keep."""

    def __init__(self, row: int, table: str) -> None:
        super().__init__(f"no row {row} in {table}")


def test_an_error_that_cannot_be_copied_is_raised_as_it_is() -> None:
    """Rather than another one."""
    error = Odd(17, "user")
    assert another(error) is error
