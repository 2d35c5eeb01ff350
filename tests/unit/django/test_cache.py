"""The cache backend where Django's own tests of backends do not look: outages, sharing, safety, the event loop."""

from __future__ import annotations

import asyncio
import pickle
import threading

import pytest
from django.core import checks, signals
from django.core.cache import caches
from django.test import override_settings

from resilient.cache import MemoryStore
from resilient.errors import ConfigurationError
from resilient.testing import MemoryCache

OURS = "resilient.django.cache.Cache"
AWAY = "redis://127.0.0.1:1/0"  # nothing listens there


def setting(**more):
    return override_settings(CACHES={"default": {"BACKEND": OURS, "LOCATION": "here", **more}})


@pytest.fixture
def cache():
    with setting():
        yield caches["default"]


class Thing:
    """What only pickle takes."""

    def __init__(self, size):
        self.size = size


class Unwilling:
    """What pickle does not take."""

    def __reduce__(self):
        raise pickle.PicklingError("not me")


def test_every_thread_has_a_backend_and_all_have_one_cache(cache):
    """Django makes a backend for each thread; what is stored in one is found in another."""
    found = []

    def look():
        found.append((caches["default"], caches["default"].get("k")))

    cache.set("k", Thing(3), None)
    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found[0][0] is not cache
    assert found[0][1].size == 3


def test_the_end_of_a_request_closes_nothing_that_others_use(cache):
    """Django closes its backends then."""
    cache.set("k", 1)
    signals.request_finished.send(sender=None)
    assert caches["default"].get("k") == 1


def test_async_methods_share_what_the_sync_ones_store(cache):
    """In one loop after the other, and without a thread."""

    async def visit():
        threads = threading.active_count()
        seen = [await cache.aget("k"), await cache.aincr("n", 2), await cache.aadd("k", 2), await cache.ahas_key("x")]
        await cache.aset_many({"a": 1, "b": 2}, None)
        seen.append(await cache.aget_many(["a", "b", "c"]))
        seen += [await cache.atouch("a", 100), await cache.adelete("a"), await cache.adelete("a")]
        await cache.adelete_many(["b"])
        seen.append(await cache.aget_or_set("d", load, 10))
        with pytest.raises(ValueError, match="not found"):
            await cache.aincr("nothing")
        with pytest.raises(TypeError):
            await cache.aincr("d")
        assert threading.active_count() == threads
        return seen

    async def load():
        return "loaded"

    cache.set("k", "v", None)
    for _ in range(2):
        cache.set("n", 1)
        cache.delete("d")
        expected = ["v", 3, False, False, {"a": 1, "b": 2}, True, True, False, "loaded"]
        assert asyncio.run(visit()) == expected
        assert cache.get("n") == 3
        assert cache.get("d") == "loaded"
    asyncio.run(cache.aset("k", 1, 0))
    assert cache.get("k") is None
    cache.set("k", 1)
    asyncio.run(cache.aclear())
    assert cache.get("k") is None


def test_a_server_that_is_away_is_an_empty_cache():
    """Every method answers, sync and async; ``incr`` says that there is no such key."""
    with setting(LOCATION=AWAY):
        cache = caches["default"]
        cache.set("k", 1)
        cache.set_many({"a": 1})
        assert cache.get("k", "default") == "default"
        assert cache.get_or_set("k", lambda: 7) == 7
        assert cache.get_many(["k"]) == {}
        assert (cache.add("k", 1), cache.touch("k"), cache.delete("k"), cache.has_key("k")) == (False,) * 4
        cache.clear()
        with pytest.raises(ValueError, match="not found"):
            cache.incr("k")

        async def visit():
            return await cache.aget("k", 3), await cache.aget_or_set("k", lambda: 8)

        assert asyncio.run(visit()) == (3, 8)


def test_get_or_set_runs_its_function_once_for_all_who_wait(cache):
    """Django's own runs it for each."""
    begun, go, calls = threading.Event(), threading.Event(), []

    def load():
        calls.append(1)
        begun.set()
        go.wait(10)
        return "v"

    found = []
    threads = [
        threading.Thread(target=lambda: found.append(caches["default"].get_or_set("k", load, 60))) for _ in range(5)
    ]
    threads[0].start()
    begun.wait(10)
    for each in threads[1:]:
        each.start()
    while cache.cache.stats().waits < 4 and len(found) < 5:
        go.wait(0.001)
    go.set()
    for each in threads:
        each.join()
    assert found == ["v"] * 5
    assert len(calls) == 1


def test_bytes_that_others_wrote_are_never_unpickled():
    """A server's entries are read only where the signature is that of SECRET_KEY, or of one that it replaced."""
    from resilient.cache import Cache

    class Bomb:
        def __reduce__(self):
            return pytest.fail, ("it was run",)

    def store(secret):
        cache = Cache(table, namespace="django", ttl=60, codec="pickle", secret=secret)
        cache.set(":1:k", Bomb() if secret == "somebody else's secret" else "v")

    table = MemoryStore()
    mine = ["a new secret for tests", "an old secret for tests"]
    with override_settings(SECRET_KEY=mine[0], SECRET_KEY_FALLBACKS=mine[1:]), setting(LOCATION=AWAY):
        backend = caches["default"]
        with backend.cache.use(table):
            store("somebody else's secret")
            assert backend.get("k") is None
            for ours in mine:
                store(ours)
                assert backend.get("k") == "v"


def test_the_safe_codec_takes_plain_values_only():
    """And says so where a value is none, as pickle does where it cannot."""
    with setting(OPTIONS={"codec": "safe"}):
        cache = caches["default"]
        cache.set("k", {1: ("a", {2})})
        assert cache.get("k") == {1: ("a", {2})}
        with pytest.raises(ValueError, match="cannot be cached"):
            cache.set("k", Thing(1))
    with setting(), pytest.raises(pickle.PicklingError, match="not me"):
        caches["default"].set("k", Unwilling())


def test_tags_of_the_cache_behind_forget_what_django_stored(cache):
    """The cache behind is an ordinary one."""
    with cache.cache.use(MemoryCache()):
        cache.cache.set(cache.make_key("k"), 1, 60, tags=["t"])
        assert cache.get("k") == 1
        cache.cache.invalidate_tags("t")
        assert cache.get("k") is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"OPTIONS": {"nonsense": 1}},
        {"OPTIONS": {"codec": "nonsense"}},
        {"OPTIONS": {"ttl": 5}},
        {"OPTIONS": {"namespace": "a:b"}},
        {"LOCATION": "nonsense://here"},
        {"LOCATION": ["redis://a/0", "redis://b/0"]},
        {"LOCATION": AWAY, "OPTIONS": {"secret": "short"}},
        {"LOCATION": "127.0.0.1:6379"},
        {"LOCATION": "redis:/127.0.0.1"},
        {"LOCATION": AWAY, "OPTIONS": {"local": True}},
        {"LOCATION": AWAY, "OPTIONS": {"timeout": "5"}},
    ],
    ids=[
        "option",
        "codec",
        "ttl",
        "namespace",
        "scheme",
        "two servers",
        "secret",
        "no scheme",
        "half a scheme",
        "local",
        "timeout",
    ],
)
def test_wrong_settings_are_told_by_the_check_and_at_first_use(wrong):
    """With what to do instead."""
    with setting(**wrong):
        (found,) = checks.run_checks()
        assert found.id == "resilient.E003"
        with pytest.raises(ConfigurationError):
            caches["default"].get("k")


def test_what_django_gives_every_backend_is_no_unknown_option():
    """MAX_ENTRIES bounds an in-process cache; CULL_FREQUENCY has no meaning here."""
    with setting(OPTIONS={"MAX_ENTRIES": 2, "CULL_FREQUENCY": 3}):
        cache = caches["default"]
        for each in "abcd":
            cache.set(each, 1)
        assert len(cache.get_many("abcd")) < 4
        assert not checks.run_checks()


@pytest.mark.parametrize(("frequency", "left"), [(None, 29), (5, 25), (0, 19)])
def test_a_full_cache_in_the_process_makes_room_as_django_says(frequency, left):
    """With MAX_ENTRIES a part of the values goes at once, those that were used longest ago; tags take no place."""
    more = {} if frequency is None else {"CULL_FREQUENCY": frequency}
    with setting(OPTIONS={"MAX_ENTRIES": 30, **more}):
        cache = caches["default"]
        cache.cache.invalidate_tags(*(f"tag {number}" for number in range(100)))
        for number in range(1, 50):
            cache.set(f"key:{number}", number)
        there = [number for number in range(1, 50) if f"key:{number}" in cache]
        assert len(there) == left
        assert there == list(range(50 - left, 50))
