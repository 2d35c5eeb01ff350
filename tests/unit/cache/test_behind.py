"""Write-behind: cached at once, stored later and together; bounded, retried, drained, and never lost in silence."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from resilient import events, runtime
from resilient.cache import Cache, WritesLost
from resilient.errors import ConfigurationError, DeadlineExceeded, InvalidInput, Overloaded, Unavailable
from resilient.policy import Pipeline, Retry, deadline
from resilient.testing import FakeClock
from resilient.testing.cache import AsyncMemoryCache, MemoryCache

NEVER = 3600.0  # the test says when


@dataclasses.dataclass
class Seen:
    user_id: int
    at: int


class Database:
    """What was stored, in which batches."""

    def __init__(self) -> None:
        self.rows: dict[int, int] = {}
        self.batches: list[int] = []
        self.fails: list[Exception] = []
        self.stored = threading.Event()

    def save(self, seen: list[Seen]) -> None:
        if self.fails:
            raise self.fails.pop(0)
        if any(each.at < 0 for each in seen):
            raise ValueError("a row that no table takes")
        self.rows.update((each.user_id, each.at) for each in seen)
        self.batches.append(len(seen))
        self.stored.set()


@pytest.fixture
def clock() -> FakeClock:
    """A clock that moves only when told to."""
    return FakeClock()


@pytest.fixture
def cache(clock: FakeClock) -> Iterator[MemoryCache]:
    """A cache whose store can be away."""
    made = MemoryCache(clock=clock, jitter=0.0)
    yield made
    made.close()


@pytest.fixture
def database() -> Database:
    """An empty table."""
    return Database()


@pytest.fixture
def lost() -> Iterator[Any]:
    """The events of writes that were lost."""
    sink = events.MemorySink()
    unsubscribe = events.subscribe(sink, kinds=[WritesLost])
    yield sink
    unsubscribe()


def behind(cache: Any, database: Database, **options: Any) -> Any:
    @cache.write_behind("seen:{user_id}", **{"every": NEVER, **options})
    def save(seen: list[Seen]) -> None:
        """Store many."""
        database.save(seen)

    return save


def test_values_are_cached_at_once_and_stored_together(cache: MemoryCache, database: Database) -> None:
    """The last value of each key is stored, many in one call; readers see it before and after."""
    save = behind(cache, database)
    for at in range(3):
        for user_id in range(5):
            save(Seen(user_id, at))
    assert save.key(Seen(4, 0)) == "seen:4"
    assert (save.pending, database.rows) == (5, {})
    assert cache.get("seen:4", type=Seen) == Seen(4, 2)
    save.flush()
    assert database.batches == [5]
    assert database.rows == dict.fromkeys(range(5), 2)
    assert save.pending == 0
    assert cache.get("seen:4", type=Seen) == Seen(4, 2)
    save.flush()
    assert database.batches == [5]


def test_time_and_a_full_batch_start_a_round(database: Database) -> None:
    """Whichever comes first, and without anybody asking."""
    with MemoryCache() as cache:
        save = behind(cache, database, every=0.01)
        save(Seen(1, 1))
        assert database.stored.wait(10)
    database.stored.clear()
    with MemoryCache() as cache:
        save = behind(cache, database, batch=3)
        for user_id in range(3):
            save(Seen(user_id, 2))
        assert database.stored.wait(10)
        assert database.rows == dict.fromkeys(range(3), 2)


def test_one_too_many_is_refused(cache: MemoryCache, database: Database) -> None:
    """A new key is not taken where so many wait, and not cached either; a newer value of one that waits is."""
    save = behind(cache, database, size=2)
    save(Seen(1, 1))
    save(Seen(2, 1))
    with pytest.raises(Overloaded, match="2 values"):
        save(Seen(3, 1))
    assert cache.get("seen:3") is None
    save(Seen(1, 9))
    save.flush()
    save(Seen(3, 1))
    save.flush()
    assert database.rows == {1: 9, 2: 1, 3: 1}


def test_while_the_source_is_away_values_wait(cache: MemoryCache, database: Database, lost: Any) -> None:
    """A batch that fails is tried again, with what came since; readers go on seeing the new values."""
    save = behind(cache, database, tries=5)
    save(Seen(1, 1))
    save(Seen(2, 1))
    database.fails = [ConnectionResetError("gone"), TimeoutError("slow")]
    with pytest.raises(Unavailable, match="2 values") as failure:
        save.flush()
    assert isinstance(failure.value.__cause__, ConnectionResetError)
    assert cache.get("seen:1", type=Seen) == Seen(1, 1)
    save(Seen(1, 2))
    with pytest.raises(Unavailable):
        save.flush()
    save.flush()
    assert database.rows == {1: 2, 2: 1}
    assert lost.events == ()


def test_what_fails_again_and_again_is_given_up_and_told(
    cache: MemoryCache, clock: FakeClock, database: Database, lost: Any
) -> None:
    """After so many tries a value is lost: an event names it, and the cache forgets it within its short life."""
    save = behind(cache, database, tries=2, every=1.0)
    save(Seen(1, 1))
    database.fails = [ConnectionResetError("gone")] * 2
    with pytest.raises(Unavailable):
        save.flush()
    save.flush()
    assert [(each.count, each.error, each.keys) for each in lost.events] == [
        (1, "ConnectionResetError", ("test:seen:1",))
    ]
    assert save.pending == 0
    assert cache.get("seen:1", type=Seen) == Seen(1, 1)
    clock.advance(2 * 1.0 + 10.1)
    assert cache.get("seen:1") is None


def test_one_wrong_value_does_not_stop_the_others(cache: MemoryCache, database: Database, lost: Any) -> None:
    """A mistake is not tried again: the batch is stored one by one, and the wrong value is told."""
    save = behind(cache, database)
    for user_id in range(4):
        save(Seen(user_id, -1 if user_id == 2 else 7))
    save.flush()
    assert database.rows == {0: 7, 1: 7, 3: 7}
    assert [(each.count, each.error, each.keys) for each in lost.events] == [(1, "ValueError", ("test:seen:2",))]
    assert save.pending == 0


def test_a_value_that_comes_while_one_is_stored_is_stored_after_it(cache: MemoryCache, database: Database) -> None:
    """Nothing that was taken is forgotten: the newer value stays cached, and is stored in the next round."""

    @cache.write_behind("seen:{user_id}", every=NEVER)
    def save(seen: list[Seen]) -> None:
        if seen[0].at == 1:
            save(Seen(1, 2))
        database.save(seen)

    save(Seen(1, 1))
    save.flush()
    assert database.rows == {1: 2}
    assert database.batches == [1, 1]
    assert cache.get("seen:1", type=Seen) == Seen(1, 2)


def test_closing_stores_what_waits(cache: MemoryCache, database: Database, lost: Any) -> None:
    """close() is the last round; what fails in it is lost, and told; nothing is taken after it."""
    save = behind(cache, database)
    save(Seen(1, 1))
    cache.close()
    assert database.rows == {1: 1}
    with pytest.raises(Unavailable, match="closed"):
        save(Seen(1, 2))
    with MemoryCache() as other:
        save = behind(other, database)
        save(Seen(2, 1))
        save(Seen(3, 1))
        database.fails = [ConnectionResetError("gone")]
    assert database.rows == {1: 1}
    assert [(each.count, each.error, each.keys) for each in lost.events] == [(2, "", ("test:seen:2", "test:seen:3"))]


def test_the_end_of_the_process_stores_what_waits(cache: MemoryCache, database: Database) -> None:
    """Nobody has to close the cache."""
    save = behind(cache, database)
    save(Seen(1, 1))
    runtime._run_at_exit()
    assert database.rows == {1: 1}


PROGRAM = """
import signal, sys, time
from resilient.cache import Cache

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
cache = Cache(ttl=300)

@cache.write_behind("seen:{id}", every=3600)
def save(seen: list) -> None:
    print("stored", len(seen), flush=True)

for number in range(3):
    save({"id": number})
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_that_ends_the_process_in_order_loses_nothing(number: signal.Signals) -> None:
    """SIGTERM, handled as servers do, stores what waits; kill -9 loses it, as is documented."""
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stdout.read() == ("stored 3\n" if number == signal.SIGTERM else "")


def test_a_forked_child_leaves_its_parents_values_alone(cache: MemoryCache, database: Database) -> None:
    """What the parent has taken the parent stores."""
    save = behind(cache, database)
    save(Seen(1, 1))
    pid = os.fork()
    if pid == 0:
        os._exit(save.pending)
    assert os.waitpid(pid, 0)[1] == 0
    assert save.pending == 1
    save.flush()
    assert database.rows == {1: 1}


def test_a_cache_that_is_away_does_not_keep_values_from_being_stored(
    cache: MemoryCache, clock: FakeClock, database: Database
) -> None:
    """During an outage values are taken and stored; after it nothing old is served."""
    save = behind(cache, database)
    cache.set("seen:1", "old")
    with cache.outage():
        save(Seen(1, 1))
        save.flush()
        assert database.rows == {1: 1}
    clock.advance(2)
    assert cache.get("seen:1") is None
    assert cache.stats().journal == 0


def test_policies_go_round_each_call(cache: MemoryCache, database: Database) -> None:
    """A pipeline retries at once, where a round would come later."""
    save = behind(cache, database, pipeline=Pipeline("seen", Retry(attempts=3, base=0.0)))
    save(Seen(1, 1))
    database.fails = [ConnectionResetError("gone")] * 2
    save.flush()
    assert database.rows == {1: 1}


def test_what_cannot_be_is_refused_at_once(cache: MemoryCache, database: Database) -> None:
    """Wrong numbers and templates at the decorator; wrong values and a call without time at the call."""
    for wrong in ({"every": 0}, {"batch": 0}, {"size": 0}, {"tries": 0}):
        with pytest.raises(ConfigurationError):
            behind(cache, database, **wrong)
    with pytest.raises(ConfigurationError, match="names nothing"):
        cache.write_behind("all")(lambda values: None)
    with pytest.raises(ConfigurationError, match="ttl"):
        Cache().write_behind("seen:{user_id}")
    save = behind(cache, database)
    with pytest.raises(InvalidInput, match="user_id"):
        save({"id": 1})
    with pytest.raises(InvalidInput):
        save({"user_id": object()})
    with deadline(0), pytest.raises(DeadlineExceeded):
        save(Seen(1, 1))
    assert save.pending == 0


def test_tags_come_from_the_value(cache: MemoryCache, database: Database) -> None:
    """A value written behind is forgotten by its tag, before it is stored and after."""
    save = behind(cache, database, tags=["user:{user_id}", "all"])
    save(Seen(1, 1))
    cache.invalidate_tags("user:1")
    assert cache.get("seen:1") is None
    save(Seen(1, 2))
    save.flush()
    assert cache.get("seen:1", type=Seen) == Seen(1, 2)
    cache.invalidate_tags("all")
    assert cache.get("seen:1") is None


def test_the_async_face_does_the_same(database: Database, lost: Any) -> None:
    """Stored in time, at flush and at aclose; what nobody closed is told when the process ends."""

    async def main() -> Any:
        cache = AsyncMemoryCache()

        @cache.write_behind("seen:{user_id}", every=0.01)
        async def soon(seen: list[Seen]) -> None:
            database.save(seen)

        @cache.write_behind("late:{user_id}", every=NEVER, batch=2)
        async def late(seen: list[Seen]) -> None:
            database.save(seen)

        await soon(Seen(1, 1))
        assert await cache.get("seen:1", type=Seen) == Seen(1, 1)
        async with asyncio.timeout(10):
            while not database.rows:  # noqa: ASYNC110 - the fake is not told by the loop
                await asyncio.sleep(0.005)
        await late(Seen(2, 1))
        await late.flush()
        assert database.rows == {1: 1, 2: 1}
        for user_id in (3, 4):
            await late(Seen(user_id, 1))
        async with asyncio.timeout(10):
            while len(database.rows) < 4:  # noqa: ASYNC110 - same
                await asyncio.sleep(0.005)
        await late(Seen(5, 1))
        database.fails = [ConnectionResetError("gone")]
        with pytest.raises(Unavailable):
            await late.flush()
        await cache.aclose()
        assert database.rows == dict.fromkeys(range(1, 6), 1)
        other = AsyncMemoryCache()

        @other.write_behind("seen:{user_id}", every=NEVER)
        async def never(seen: list[Seen]) -> None:
            database.save(seen)

        await never(Seen(9, 1))
        return never

    forgotten = asyncio.run(main())
    assert lost.events == ()
    runtime._run_at_exit()
    assert [each.keys for each in lost.events] == [("test:seen:9",)]
    assert forgotten.pending == 0


def test_a_store_that_hangs_does_not_keep_close_from_ending(database: Database, lost: Any) -> None:
    """close() waits for its last round so long and no longer."""
    release = threading.Event()
    cache = MemoryCache()

    @cache.write_behind("seen:{user_id}", every=0.001)
    def save(seen: list[Seen]) -> None:
        database.stored.set()
        release.wait(30)

    try:
        save(Seen(1, 1))
        assert database.stored.wait(10)
        began = time.monotonic()
        save.drain(0.05)
        assert time.monotonic() - began < 5
        assert [each.count for each in lost.events] == [1]
    finally:
        release.set()
        cache.close()
