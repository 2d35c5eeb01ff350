"""The faces for other libraries on a real server: what is atomic, what ends, and what an outage leaves behind."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from dogpile.cache import make_region, register_backend

from resilient import cache as core
from resilient.contrib.cachelib import ResilientCache
from resilient.django.cache import Cache
from resilient.testing.servers import RedisServer

register_backend("resilient", "resilient.contrib.dogpile", "ResilientBackend")

SECRET = "a secret for tests"
PATIENT = {"connect_timeout": 10.0, "timeout": 10.0}  # a busy machine answers late, and that is not what is tested


@pytest.fixture
def backend(redis_server: RedisServer) -> Iterator[Callable[..., Cache]]:
    made: list[Cache] = []

    def make(**params: object) -> Cache:
        # An option of its own for each, so that each is as if it were in a process of its own.
        options = {**PATIENT, "journal": 10_000 + len(made), "secret": SECRET}
        made.append(Cache(redis_server.url, {"OPTIONS": options, **params}))
        return made[-1]

    yield make
    for each in made:
        each.cache.close()


def test_two_processes_of_django_share_values_prefixes_and_versions(backend: Callable[..., Cache]) -> None:
    """In both faces; what the one clears the other has not, and keys of others on the server stay."""
    one, other, prefixed = backend(), backend(), backend(KEY_PREFIX="p")

    async def visit() -> object:
        await other.aset("a", "async", 60, version=2)
        found = await other.aget_many(["k", "t"])
        await other.acache.aclose()
        return found

    one.set("k", (1, {2}), None)
    one.set("t", 1, timeout=60)
    assert asyncio.run(visit()) == {"k": (1, {2}), "t": 1}
    assert one.get("a", version=2) == "async"
    assert prefixed.get("k") is None
    channel = one.cache.store.channel  # type: ignore[attr-defined]  # that of a server
    channel.call("SET", "foreign", "1")
    ends = [channel.call("PTTL", key) for key in channel.call("KEYS", "django:*")]
    assert min(ends) > 0  # what never ends in Django has an end on the server
    one.clear()
    assert other.get("k") is None
    assert channel.call("GET", "foreign") == b"1"


def test_counting_is_one_step_and_keeps_the_end(backend: Callable[..., Cache]) -> None:
    """Whoever counts, from threads and from a loop."""
    cache = backend()
    cache.set("n", 0, 1000)

    def count() -> None:
        for _ in range(10):
            cache.incr("n")

    async def acount() -> None:
        for _ in range(10):
            await cache.aincr("n", 2)
        await cache.acache.aclose()

    threads = [threading.Thread(target=count) for _ in range(4)]
    for each in threads:
        each.start()
    asyncio.run(acount())
    for each in threads:
        each.join()
    assert cache.get("n") == 60
    channel = cache.cache.store.channel  # type: ignore[attr-defined]  # that of a server
    assert 900_000 < channel.call("PTTL", cache.cache.physical(cache.make_key("n"))) <= 1_000_000


def test_what_was_deleted_during_an_outage_is_not_there_after_it(
    redis_server: RedisServer, backend: Callable[..., Cache]
) -> None:
    """The frozen server still holds the old value, which nobody is given."""
    backend().set("k", "old", None)
    cache = backend(OPTIONS={"connect_timeout": 1.0, "timeout": 0.5, "journal": 9_999, "secret": SECRET})
    redis_server.freeze()
    try:
        cache.delete("k")
        assert cache.get("k", "nothing") == "nothing"
    finally:
        redis_server.thaw()
    deadline = time.monotonic() + 20
    while cache.cache.stats().state != "up" or cache.cache.stats().journal:
        assert cache.get("k") is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert cache.get("k") is None
    until(lambda: cache.set("k", "new", None) or cache.get("k") == "new")


def test_of_two_processes_of_dogpile_one_loads(redis_server: RedisServer) -> None:
    """The other waits for the lock on the server, is woken, and finds the value."""
    arguments = {"url": redis_server.url, "secret": SECRET, **PATIENT}
    regions = [make_region().configure("resilient", expiration_time=60, arguments=arguments) for _ in range(2)]
    begun, go, loads, found = threading.Event(), threading.Event(), [], []

    def load() -> str:
        loads.append(1)
        begun.set()
        go.wait(20)
        return "v"

    threads = [threading.Thread(target=lambda r=r: found.append(r.get_or_create("k", load))) for r in regions]
    threads[0].start()
    assert begun.wait(20)
    assert regions[1].key_is_locked("k")
    assert not regions[1].backend.get_mutex("k").acquire(wait=False)
    threads[1].start()
    go.set()
    for each in threads:
        each.join(30)
    assert found == ["v", "v"]
    assert len(loads) == 1
    assert not regions[1].key_is_locked("k")
    for each in regions:
        each.backend.cache.close()


def test_a_cachelib_cache_on_a_server(redis_server: RedisServer) -> None:
    """Values without an end, counters, and prefixes."""
    cache = ResilientCache(redis_server.url, 0, key_prefix="p:", secret=SECRET, **PATIENT)
    assert cache.set_many({"a": 1, "b": {1: 2}}) == ["a", "b"]
    assert cache.get_many("a", "b", "c") == [1, {1: 2}, None]
    assert (cache.inc("n", 5), cache.dec("n", 2)) == (5, 3)
    assert cache.add("a", 2) is False
    assert cache.clear()
    assert cache.get_dict("a", "n") == {"a": None, "n": None}
    cache.close()


@pytest.mark.parametrize("face", ["cachelib", "django", "dogpile"])
def test_what_a_face_keeps_in_memory_another_process_changes(redis_server: RedisServer, face: str) -> None:
    """With ``local=`` reads cost no round trip, and what others change is seen."""

    def make(**options: object) -> tuple[Callable[[object], object], Callable[[], object], core.Cache]:
        given = {**PATIENT, "secret": SECRET, **options}
        if face == "dogpile":
            region = make_region().configure("resilient", arguments={"url": redis_server.url, **given})
            return lambda value: region.set("k", value), lambda: region.get("k"), region.backend.cache
        made = (
            ResilientCache(redis_server.url, **given)
            if face == "cachelib"
            else Cache(redis_server.url, {"OPTIONS": {"journal": 9_000 + len(options), **given}})
        )
        return lambda value: made.set("k", value), lambda: made.get("k"), made.cache

    write, _, other = make()
    _, read, cache = make(local=core.Local())
    with other, cache:
        write("old")
        until(lambda: read() == "old" and cache.stats().local_hits > 0)
        write("new")
        until(lambda: read() == "new")


def until(happens: Callable[[], object]) -> None:
    """Ask until it is so."""
    end = time.monotonic() + 20
    while not happens():
        assert time.monotonic() < end
        time.sleep(0.005)
