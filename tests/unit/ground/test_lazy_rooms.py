"""Rooms whose names are loaded when they are first used: complete, and no heavier than what is used of them."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

ROOMS = ["resilient.cache", "resilient.cache.rooms", "resilient.policy"]

HEAVY = ("asyncio", "opentelemetry", "orjson", "pydantic", "redis", "sqlalchemy", "tenacity")


def run(code: str) -> list[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


def loaded(code: str, *more: str) -> list[str]:
    """Which of the heavy modules a fresh interpreter has loaded when it has run this."""
    return run(f"{code}\nimport sys\nprint(*[each for each in {(*HEAVY, *more)!r} if each in sys.modules])")


@pytest.mark.parametrize("room", ROOMS)
def test_every_name_of_a_room_can_be_loaded(room: str) -> None:
    """What a room exports is what it can load, and dir() shows it."""
    module = importlib.import_module(room)
    for name in module.__all__:
        assert getattr(module, name) is not None
        assert name in dir(module)
    assert set(module._HOMES) == set(module.__all__) - {"classify"}  # which is a module


@pytest.mark.parametrize("room", ROOMS)
def test_a_misspelt_name_is_an_attribute_error(room: str) -> None:
    """A name that a room has not fails like any other attribute."""
    with pytest.raises(AttributeError, match="no attribute 'Cahce'"):
        importlib.import_module(room).Cahce  # noqa: B018 - the look-up is the point


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_alone_loads_the_standard_library_only(room: str) -> None:
    """Importing a room brings no other package, not even one that is always installed."""
    code = f"import sys; before = set(sys.modules); import {room}; after = set(sys.modules) - before"
    tops = run(f"{code}\nprint(*sorted({{each.partition('.')[0] for each in after}} - set(sys.stdlib_module_names)))")
    assert tops == ["resilient"]


def test_a_cache_in_this_process_needs_neither_a_driver_nor_an_event_loop() -> None:
    """A sync cache without a server is made and used with none of the optional packages, asyncio or policies loaded."""
    code = """
from resilient.cache import Cache
cache = Cache(namespace="shop", ttl=60)

@cache.lazy("square:{number}")
def square(number: int) -> int:
    return number * number

assert square(3) == square(3) == 9
cache.set("a", [1])
assert cache.get("a") == [1]
cache.close()
"""
    assert loaded(code, "resilient.policy.pipeline", "resilient.cache._async.cache") == []


def test_the_tests_own_cache_needs_no_driver() -> None:
    """The cache for users' tests works without redis-py."""
    code = """
import sys
sys.modules["redis"] = None
from resilient.testing import MemoryCache
cache = MemoryCache()
cache.set("a", 1)
print(cache.get("a"))
"""
    assert run(code) == ["1"]


@pytest.mark.parametrize("face", ["Cache", "AsyncCache"])
def test_the_missing_driver_is_named_where_a_server_is(face: str) -> None:
    """Without redis-py a cache in this process works, and one with an address names the extra that is missing."""
    code = f"""
import sys
sys.modules["redis"] = None
from resilient.cache import {face}
from resilient.errors import MissingExtra
{face}(namespace="shop")
try:
    {face}("redis://127.0.0.1:6379/0", namespace="shop")
except MissingExtra as error:
    print(error.extra)
"""
    assert run(code) == ["redis"]


def test_policies_are_loaded_without_an_event_loop() -> None:
    """A pipeline that only sync code calls loads no asyncio, nor tenacity before something has failed."""
    code = """
from resilient.policy import Breaker, Bulkhead, Deadline, Pipeline, Retry
assert Pipeline("orders", Deadline(2.0), Retry(attempts=3), Breaker(), Bulkhead(20)).call(len, "abc") == 3
"""
    assert loaded(code) == []
