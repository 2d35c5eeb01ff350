"""What every cache does on a miss, whatever keeps its entries: who loads, who waits, and what is served meanwhile."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
from threads import loads_of_a_herd, start, until

from resilient.cache import AsyncCache, Cache
from resilient.cache._entry import LEASE, marker
from resilient.errors import ConfigurationError, InvalidInput, NotFound, Overloaded, Unavailable
from resilient.policy import deadline
from resilient.testing import FakeClock


class Source:
    """A source that answers when it is let, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.value: Any = "v"
        self.error: Exception | None = None
        self.open = threading.Event()
        self.started = threading.Event()
        self.open.set()

    def __call__(self) -> Any:
        self.asked += 1
        value, error = self.value, self.error
        self.started.set()
        assert self.open.wait(10)
        if error is not None:
            raise error
        return value


@pytest.fixture
def source() -> Source:
    """A source that answers at once."""
    return Source()


# ------------------------------------------------------------------------------------------------------ the lease


def test_of_several_processes_one_loads(kind: Any, at_once: Any, gathered: Any) -> None:
    """Many callers of several processes on a cold key run the loader once, and all get its value."""
    caches = [kind(), kind(), kind()]
    assert loads_of_a_herd(caches, at_once, gathered) == 1
    stats = [cache.stats() for cache in caches]
    assert sum(each.loads for each in stats) == sum(each.stores for each in stats) == 1
    assert sum(each.waits for each in stats) >= 2


def test_when_a_load_fails_a_waiting_process_tries_at_once(kind: Any, source: Source) -> None:
    """The lease of a failed load is given back, and who waits for it is woken; nobody waits for its end."""
    first, second = kind(lease=30), kind(lease=30)
    source.open.clear()
    source.error = ConnectionResetError("gone")
    loading, failed = start(lambda: first.get_or_load("k", source))
    assert source.started.wait(10)
    waiting, loaded = start(lambda: second.get_or_load("k", lambda: "mine"))
    until(lambda: second.stats().waits, "a wait for the other process")
    source.open.set()
    loading.join(10)
    waiting.join(10)
    assert isinstance(failed[0], ConnectionResetError)
    assert loaded == ["mine"]


def test_a_holder_that_died_costs_one_lease(kind: Any, clock: FakeClock) -> None:
    """Nobody ends the lease of a dead process; it ends by itself, and who waited loads."""
    cache = kind(lease=kind.lease)
    kind.put_raw(cache, "k", marker(LEASE, clock.wall(), kind.lease), int(kind.lease * 1000))
    began = time.monotonic()
    waiting, loaded = start(lambda: cache.get_or_load("k", lambda: "v"))
    if not kind.real_time:
        until(lambda: cache.stats().waits, "a wait for the dead")
        clock.advance(kind.lease + 0.01)
    waiting.join(10)
    assert loaded == ["v"]
    assert time.monotonic() - began < 3.0
    assert cache.get("k") == "v"


def test_who_waits_for_another_process_obeys_its_deadline(kind: Any, clock: FakeClock) -> None:
    """A deadline ends the wait for another process, and the lease stays that other's."""
    cache = kind(lease=30)
    kind.put_raw(cache, "k", marker(LEASE, clock.wall(), 30.0), 30_000)
    began = time.monotonic()
    with deadline(0.1), pytest.raises(TimeoutError):
        cache.get_or_load("k", lambda: "v")
    assert time.monotonic() - began < 2.0


def test_who_waited_through_an_invalidation_loads_anew(kind: Any, source: Source) -> None:
    """A process that waits for another's load does not get its value once somebody has invalidated the key."""
    first, second, third = kind(), kind(), kind()
    source.open.clear()
    source.value = "old"
    loading, old = start(lambda: first.get_or_load("k", source))
    assert source.started.wait(10)
    waiting, new = start(lambda: second.get_or_load("k", lambda: "new"))
    until(lambda: second.stats().waits, "a wait for the other process")
    third.invalidate("k")
    source.open.set()
    loading.join(10)
    waiting.join(10)
    assert (old, new) == (["old"], ["new"])
    assert third.get("k") == "new"


def test_a_value_that_cannot_be_stored_gives_the_lease_back(kind: Any) -> None:
    """The error names the reason, and the next caller loads at once."""
    cache = kind(lease=30)
    with pytest.raises(InvalidInput):
        cache.get_or_load("k", object)
    assert cache.get_or_load("k", lambda: "v") == "v"


def test_a_value_that_does_not_exist_gives_the_lease_back(kind: Any) -> None:
    """NotFound without negative_ttl is remembered nowhere, and forgets what there was."""
    first, second = kind(lease=30), kind(lease=30)

    def missing() -> str:
        raise NotFound("no such row")

    for cache in (first, second, first):
        with pytest.raises(NotFound):
            cache.get_or_load("k", missing)
    assert second.get_or_load("k", lambda: "v") == "v"


def test_a_refresh_loads_though_the_value_is_fresh_and_though_another_process_loads(kind: Any, source: Source) -> None:
    """The value is asked for now: a load that began before must not stand in for it, nor overwrite it."""
    first, second = kind(), kind()
    mine = first.lazy("k")(lambda: source.asked)
    mine()
    assert mine.refresh() == 0
    source.open.clear()
    first.invalidate("k")
    loading, old = start(lambda: second.get_or_load("k", source))
    assert source.started.wait(10)
    assert mine.refresh() == 1
    source.open.set()
    loading.join(10)
    assert old == ["v"]
    assert first.get("k") == second.get("k") == 1


# ------------------------------------------------------------------------------------------- stale while revalidate


def test_a_stale_value_is_served_while_one_process_loads_it_anew(
    kind: Any, source: Source, clock: FakeClock, at_once: Any
) -> None:
    """A hot key that ends under load blocks nobody, and is loaded once in all processes."""
    caches = [kind(), kind()]
    reads = [cache.lazy("k", ttl=10, stale_while_revalidate=60)(source) for cache in caches]
    assert reads[0]() == "v"
    source.open.clear()
    source.value = "new"
    source.started.clear()
    clock.advance(11)
    found = at_once(20, lambda index: reads[index % 2].lookup())
    assert {(each.value, each.stale, each.source) for each in found} == {("v", True, kind.source)}
    assert source.started.wait(10)
    for read in reads * 5:
        assert read() == "v"
    source.open.set()
    until(lambda: not reads[1].lookup().stale, "the new value")
    assert [read() for read in reads] == ["new", "new"]
    assert source.asked == 2
    assert sum(cache.stats().refreshes for cache in caches) >= 1


def test_after_the_window_the_reader_waits(kind: Any, source: Source, clock: FakeClock) -> None:
    """Beyond ttl and stale_while_revalidate nothing old is served."""
    read = kind().lazy("k", ttl=10, stale_while_revalidate=20)(source)
    read()
    source.value = "new"
    clock.advance(31)
    assert read.lookup().value == "new"


def test_a_failed_revalidation_is_not_tried_by_every_reader(kind: Any, source: Source, clock: FakeClock) -> None:
    """After a failure in the background the source is left alone for a moment, and the old value is served on."""
    read = kind().lazy("k", ttl=10, stale_while_revalidate=60)(source)
    read()
    source.error = ConnectionResetError("gone")
    clock.advance(11)
    assert read() == "v"
    until(lambda: source.asked == 2, "the first try")
    time.sleep(0.05)
    for _ in range(20):
        assert read() == "v"
    time.sleep(0.05)
    assert source.asked == 2
    source.error, source.value = None, "new"
    clock.advance(1.5)
    read()
    until(lambda: read() == "new", "the new value")


# ------------------------------------------------------------------------------------------------------- timeouts


def test_a_slow_load_serves_the_old_value_and_is_stored_when_it_ends(
    kind: Any, source: Source, clock: FakeClock
) -> None:
    """soft_timeout: who has an old value at hand waits no longer than that; the late value is not lost."""
    read = kind().lazy("k", ttl=10, stale_if_error=60, soft_timeout=0.05)(source)
    read()
    source.open.clear()
    source.value = "new"
    clock.advance(11)
    began = time.monotonic()
    found = read.lookup()
    assert (found.value, found.stale) == ("v", True)
    assert 0.03 < time.monotonic() - began < 2.0
    source.open.set()
    until(lambda: read() == "new", "the late value")
    assert source.asked == 2


def test_a_load_that_is_quick_enough_is_waited_for(kind: Any, source: Source, clock: FakeClock) -> None:
    """soft_timeout: a value that comes in time is served, not the old one."""
    read = kind().lazy("k", ttl=10, stale_if_error=60, soft_timeout=5.0)(source)
    read()
    source.value = "new"
    clock.advance(11)
    found = read.lookup()
    assert (found.value, found.stale, found.source) == ("new", False, "loader")


def test_a_load_that_is_too_slow_is_an_error_and_is_stored_when_it_ends(kind: Any, source: Source) -> None:
    """hard_timeout: no reader waits longer, also without an old value; the late value is not lost."""
    cache = kind()
    source.open.clear()
    began = time.monotonic()
    with pytest.raises(Unavailable, match="did not answer"):
        cache.get_or_load("k", source, hard_timeout=0.05)
    assert time.monotonic() - began < 2.0
    source.open.set()
    until(lambda: cache.get("k") == "v", "the late value")
    assert source.asked == 1


def test_an_error_of_a_timed_load_reaches_its_reader(kind: Any, source: Source) -> None:
    """A loader that fails in time fails its reader with its own error."""
    source.error = KeyError("wrong")
    with pytest.raises(KeyError):
        kind().get_or_load("k", source, hard_timeout=5.0)


# ---------------------------------------------------------------------------------------------------------- early


def test_a_value_may_be_loaded_before_its_end(kind: Any, source: Source) -> None:
    """early: now and then a reader is served the fresh value and has it loaded anew."""
    cache = kind()

    def slow() -> Any:
        if kind.real_time or source.asked == 0:
            kind.clock.advance(1.0)  # what this load takes
        return source()

    read = cache.lazy("k", ttl=10, early=1e6)(slow)
    assert read() == "v"
    source.value = "new"
    assert read.lookup().stale is False
    until(lambda: read() == "new", "the new value")
    assert cache.stats().early >= 1


# ------------------------------------------------------------------------------------------------- cached errors


class Gone(Exception):
    """An error of the application."""


class Stranger(Gone):
    """Another, of its family."""


def test_listed_errors_are_remembered_by_name_and_message(kind: Any, source: Source, clock: FakeClock) -> None:
    """cache_errors: the loader is asked once per error_ttl; what is raised then is one of the listed classes."""
    first, second = kind(), kind()
    options: dict[str, Any] = {"ttl": 60, "cache_errors": (Gone, KeyError), "error_ttl": 5}
    mine, theirs = first.lazy("k", **options)(source), second.lazy("k", **options)(source)
    source.error = Stranger("no such thing")
    with pytest.raises(Stranger):
        mine()
    for read in (mine, theirs, mine):
        with pytest.raises(Gone, match="no such thing") as failure:
            read()
        assert type(failure.value) is Gone
    assert source.asked == 1
    assert first.get("k") is None
    source.error = None
    clock.advance(6)
    assert theirs() == "v"


def test_an_error_that_is_not_listed_is_neither_written_nor_read(kind: Any, source: Source) -> None:
    """A reader whose policy does not name the class asks the source again."""
    cache = kind()
    source.error = Gone("x")
    for _ in range(2):
        with pytest.raises(Gone):
            cache.get_or_load("k", source, cache_errors=[KeyError])
    assert source.asked == 2
    with pytest.raises(Gone):
        cache.get_or_load("k", source, cache_errors=[Gone])
    source.error = None
    assert cache.get_or_load("k", source) == "v"


# ------------------------------------------------------------------------------------------------------ the options


def test_options_that_make_no_sense_are_refused(kind: Any) -> None:
    """At the definition, with a message."""
    cache = kind()
    for options in (
        {"soft_timeout": 1.0},
        {"hard_timeout": -1},
        {"stale_while_revalidate": -1},
        {"stale_if_error": 5, "soft_timeout": 2.0, "hard_timeout": 1.0},
        {"early": -1},
        {"cache_errors": [int]},
        {"error_ttl": 0},
    ):
        with pytest.raises(ConfigurationError):
            cache.lazy("k", **options)


# ------------------------------------------------------------------------------------------------------ the cap


def test_no_more_loads_run_at_once_than_allowed(kind: Any, source: Source) -> None:
    """max_loads: one more waits its turn, within its deadline."""
    cache = kind(max_loads=1)
    source.open.clear()
    loading, first = start(lambda: cache.get_or_load("a", source))
    assert source.started.wait(10)
    if kind.face == "sync":  # a deadline does not cross into the loop of these tests
        with deadline(0.1), pytest.raises(Overloaded, match="1 loads"):
            cache.get_or_load("b", lambda: "b")
    waiting, second = start(lambda: cache.get_or_load("b", lambda: "b"))
    source.open.set()
    loading.join(10)
    waiting.join(10)
    assert (first, second) == (["v"], ["b"])


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("one_cache", [True, False])
def test_two_loaders_that_read_each_others_keys_both_end(many: bool, one_cache: bool) -> None:
    """Neither waits for the other's flight, which would never land: the one that finds out loads for itself."""
    first: Cache = Cache(namespace="first", ttl=60)
    second = first if one_cache else Cache(namespace="second", ttl=60)
    both, runs = threading.Barrier(2), {"a": 0, "b": 0}

    def loader(mine: str, other: str, cache: Cache) -> str:
        runs[mine] += 1
        if runs[mine] > 1:
            return mine  # it needs the other one only at first
        both.wait(30)
        return mine + read(cache, other, mine)

    def read(cache: Cache, key: str, other: str) -> str:
        beyond = second if cache is first else first
        if many:
            return str(cache.get_many([key], load_many=lambda keys: {key: loader(key, other, beyond)})[key])
        return str(cache.get_or_load(key, lambda: loader(key, other, beyond)))

    found: list[str] = []
    jobs = [(first, "a", "b"), (second, "b", "a")]
    threads = [threading.Thread(target=lambda job=job: found.append(read(*job)), daemon=True) for job in jobs]
    for each in threads:
        each.start()
    for each in threads:
        each.join(30)
    assert sorted(found) in (["ab", "bab"], ["aba", "ba"])
    first.close()
    second.close()


def test_two_tasks_whose_loaders_read_each_others_keys_both_end() -> None:
    """The same in an event loop."""

    async def main() -> list[str]:
        cache: AsyncCache = AsyncCache(namespace="shop", ttl=60)
        both, runs = asyncio.Barrier(2), {"a": 0, "b": 0}

        async def loader(mine: str, other: str) -> str:
            runs[mine] += 1
            if runs[mine] > 1:
                return mine
            await both.wait()
            return mine + await read(other, mine)

        async def read(key: str, other: str) -> str:
            return str(await cache.get_or_load(key, lambda: loader(key, other)))

        async with asyncio.timeout(30):
            return sorted(await asyncio.gather(read("a", "b"), read("b", "a")))

    assert asyncio.run(main()) in (["ab", "bab"], ["aba", "ba"])


def test_a_loader_that_loads_needs_no_second_place() -> None:
    """max_loads: a loader may read other keys of the same cache."""
    from resilient.cache import Cache

    cache = Cache(ttl=60, max_loads=1)
    assert cache.get_or_load("outer", lambda: cache.get_or_load("inner", lambda: 1) + 1) == 2
    with pytest.raises(ConfigurationError):
        Cache(ttl=60, max_loads=0)


# ------------------------------------------------------------------------------------------------------ many keys


class Table:
    """Rows that are loaded many at a time."""

    def __init__(self, *names: str) -> None:
        self.rows = {name: name.upper() for name in names}
        self.asked: list[list[str]] = []
        self.error: Exception | None = None

    def __call__(self, names: list[str]) -> dict[str, Any]:
        self.asked.append(names)
        if self.error is not None:
            raise self.error
        return {name: self.rows[name] for name in names if name in self.rows}


def test_what_is_missing_is_loaded_with_one_call(kind: Any) -> None:
    """get_many asks the loader once for all that is missing, keeps the order, and leaves out what does not exist."""
    cache, table = kind(), Table("a", "b", "c")
    cache.set("b", "set")
    keys = ["c", "x", "b", "a", "c"]
    expected = [("c", "C"), ("b", "set"), ("a", "A")]
    assert list(cache.get_many(keys, load_many=table).items()) == expected
    assert table.asked == [["c", "x", "a"]]
    assert list(cache.get_many(keys, load_many=table).items()) == expected
    assert table.asked[1:] == [["x"]]
    assert cache.get("a") == "A"


def test_what_does_not_exist_is_remembered(kind: Any) -> None:
    """With negative_ttl what the loader leaves out is not asked for again."""
    cache, table = kind(), Table("a")
    for _ in range(2):
        assert cache.get_many(["a", "x"], load_many=table, negative_ttl=30) == {"a": "A"}
    assert table.asked == [["a", "x"]]
    with pytest.raises(NotFound):
        cache.get_or_load("x", lambda: 1, negative_ttl=30)


def test_what_others_load_is_waited_for(kind: Any, source: Source) -> None:
    """Keys that another caller or another process loads are not loaded here, and keep their place."""
    cache, other, table = kind(), kind(), Table("a", "b", "c")
    source.open.clear()
    near, _ = start(lambda: cache.get_or_load("a", source))
    assert source.started.wait(10)
    source.started.clear()
    far, _ = start(lambda: other.get_or_load("c", source))
    assert source.started.wait(10)
    reading, found = start(lambda: list(cache.get_many(["a", "b", "c"], load_many=table).items()))
    until(lambda: table.asked, "the load of what nobody else loads")
    until(lambda: cache.stats().waits, "a wait")
    source.open.set()
    for thread in (near, far, reading):
        thread.join(10)
    assert found == [[("a", "v"), ("b", "B"), ("c", "v")]]
    assert table.asked == [["b"]]


def test_two_that_want_the_same_keys_do_not_wait_for_each_other(kind: Any, at_once: Any) -> None:
    """However the keys of two bulk loads overlap, and in whichever order, both end and each row is loaded once."""
    caches, table = [kind(), kind()], Table("a", "b", "c", "d")
    orders = [["a", "b", "c"], ["c", "b", "a", "d"], ["d", "a"], ["b", "d", "c"]]
    found = at_once(8, lambda index: caches[index % 2].get_many(orders[index % 4], load_many=table))
    assert [set(each) for each in found] == [set(orders[index % 4]) for index in range(8)]
    asked = [name for names in table.asked for name in names]
    assert sorted(asked) == sorted(set(asked))


def test_while_the_source_of_many_fails_the_old_values_are_served(kind: Any, clock: FakeClock) -> None:
    """stale_if_error holds for each key; a key without an old value fails the call."""
    cache, table = kind(), Table("a", "b", "c")
    options: dict[str, Any] = {"load_many": table, "ttl": 10, "stale_if_error": 60}
    cache.get_many(["a", "b"], **options)
    clock.advance(11)
    table.error = ConnectionResetError("gone")
    assert cache.get_many(["a", "b"], **options) == {"a": "A", "b": "B"}
    with pytest.raises(Unavailable):
        cache.get_many(["a", "c"], **options)
    table.error = None
    clock.advance(1.5)
    assert cache.get_many(["a", "b", "c"], **options) == {"a": "A", "b": "B", "c": "C"}


def test_many_stale_values_are_served_while_they_are_loaded_anew(kind: Any, clock: FakeClock) -> None:
    """stale_while_revalidate: one load in the background for all of them."""
    cache, table = kind(), Table("a", "b")
    options: dict[str, Any] = {"load_many": table, "ttl": 10, "stale_while_revalidate": 60}
    cache.get_many(["a", "b"], **options)
    table.rows = {"a": "new", "b": "newer"}
    clock.advance(11)
    assert cache.get_many(["a", "b"], **options) == {"a": "A", "b": "B"}
    until(lambda: cache.get_many(["a", "b"]) == {"a": "new", "b": "newer"}, "the new values")
    assert table.asked[1:] == [["a", "b"]]


def test_many_of_which_one_cannot_be_stored(kind: Any) -> None:
    """The error names the reason, and all leases are given back."""
    cache = kind(lease=30)
    with pytest.raises(InvalidInput):
        cache.get_many(["a", "b"], load_many=lambda _: {"a": 1, "b": object()})
    assert cache.get_many(["a", "b"], load_many=Table("a", "b")) == {"a": "A", "b": "B"}


def test_many_are_loaded_past_a_cache_in_a_bypass(kind: Any) -> None:
    """In a bypass the loader answers for all."""
    cache, table = kind(), Table("a")
    cache.set("a", "set")
    with cache.bypass():
        assert cache.get_many(["a", "x"], load_many=table) == {"a": "A"}
    assert cache.get("a") == "set"


def test_a_load_that_outlives_the_old_value_is_stored(kind: Any, clock: FakeClock) -> None:
    """The old value is served no longer than it lives; what takes its place is not thrown away, nor loaded twice."""
    cache, other = kind(), kind()
    passes = time.sleep if kind.real_time else clock.advance

    def load() -> str:
        passes(0.3)
        if not kind.real_time:
            assert other.get("k") is None
        return "new"

    value = cache.lazy("k", ttl=0.4)(load)
    cache.set("k", "old", ttl=0.4)
    passes(0.2)
    assert value.refresh() == "new"
    assert other.get("k") == "new"
    assert cache.stats().refused == 0


@pytest.mark.parametrize("options", [{"cache_errors": [LookupError]}, {"error_ttl": 30}], ids=repr)
def test_one_load_for_many_keys_remembers_no_error(kind: Any, options: Any) -> None:
    """It is refused in words, rather than accepted and ignored."""
    with pytest.raises(ConfigurationError, match="get_many remembers no errors"):
        kind().get_many(["k"], load_many=lambda keys: dict.fromkeys(keys, 1), **options)
