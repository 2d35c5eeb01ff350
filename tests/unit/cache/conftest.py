"""Caches of every kind under one face, so that one test holds for all of them."""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import fakeredis
import pytest
from people import Database

from resilient.cache import AsyncCache, Cache
from resilient.testing import FakeClock
from resilient.testing.cache import AsyncMemoryCache, MemoryCache


class Loop:
    """An event loop on a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)

    def close(self) -> None:
        self.run(self.loop.shutdown_default_executor())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(5)
        self.loop.close()


class Blocking:
    """An `AsyncCache` that is used like a `Cache`: loaders are plain functions, run on threads."""

    def __init__(self, cache: AsyncCache, loop: Loop) -> None:
        self._cache = cache
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._cache, name)
        if asyncio.iscoroutinefunction(found):
            return lambda *args, **kwargs: self._loop.run(found(*args, **kwargs))
        return found

    def get_or_load(self, key: str, loader: Callable[[], Any], *args: Any, **kwargs: Any) -> Any:
        return self._loop.run(self._cache.get_or_load(key, _lifted(loader), *args, **kwargs))

    def get_many(self, keys: Any, *, load_many: Any = None, **kwargs: Any) -> Any:
        lifted = None if load_many is None else _lifted(load_many)
        return self._loop.run(self._cache.get_many(keys, load_many=lifted, **kwargs))

    def lazy(self, *args: Any, **kwargs: Any) -> Any:
        decorate = self._cache.lazy(*args, **kwargs)
        return lambda function: BlockingFunction(decorate(_lifted(function)), self._loop)

    def write_through(self, *args: Any, **kwargs: Any) -> Any:
        decorate = self._cache.write_through(*args, **kwargs)
        return lambda function: BlockingFunction(decorate(_lifted(function)), self._loop)

    def use(self, other: Any) -> Any:
        return self._cache.use(other._cache if isinstance(other, Blocking) else other)

    def close(self) -> None:
        self._loop.run(self._cache.aclose())


class BlockingFunction:
    def __init__(self, function: Any, loop: Loop) -> None:
        self._function = function
        self._loop = loop

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._loop.run(self._function(*args, **kwargs))

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._function, name)
        if asyncio.iscoroutinefunction(found):
            return lambda *args, **kwargs: self._loop.run(found(*args, **kwargs))
        return found

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return BlockingFunction(self._function.__get__(instance, owner), self._loop)


def _lifted(function: Callable[..., Any]) -> Any:
    @functools.wraps(function)
    async def lifted(*args: Any, **kwargs: Any) -> Any:
        return await asyncio.to_thread(function, *args, **kwargs)

    return lifted


class Kind:
    """One kind of store; the caches made of it share its entries, as several processes would."""

    def __init__(self, name: str, face: str, clock: FakeClock, url: str | None = None) -> None:
        self.face = face
        self.clock = clock
        self.source = "local" if name == "local" else "shared"
        self.real_time = name in {"fakeredis", "redis"}
        """Whether the store ends entries by the machine's clock."""
        self.loop = Loop() if face == "async" else None
        self.lease = 0.3 if self.real_time else 10.0
        """Seconds that a lease takes in a test that waits for its end."""
        self._made: list[Any] = []
        self.name = name
        self._url = url
        self._server = fakeredis.FakeServer() if name == "fakeredis" else None
        self._first: Any = None

    def __call__(self, **options: Any) -> Any:
        """A cache; each call stands for one process more."""
        options = {"namespace": "shop", "ttl": 300, "jitter": 0.0, "clock": self.clock, **options}
        made = self._async(options) if self.loop is not None else self._sync(options)
        self._made.append(made)
        return made

    def _sync(self, options: dict[str, Any]) -> Any:
        if self.name == "fakeredis":
            return Cache(fakeredis.FakeRedis(server=self._server), **options)
        if self.name == "redis":
            return Cache(self._url, connect_timeout=2.0, timeout=2.0, **options)
        if self._first is None:
            self._first = (Cache if self.name == "local" else MemoryCache)(**options).store
        return Cache(self._first, **options)

    def _async(self, options: dict[str, Any]) -> Any:
        assert self.loop is not None
        if self.name == "fakeredis":
            made = AsyncCache(fakeredis.FakeAsyncRedis(server=self._server), **options)
        elif self.name == "redis":
            made = AsyncCache(self._url, connect_timeout=2.0, timeout=2.0, **options)
        else:
            if self._first is None:
                self._first = (AsyncCache if self.name == "local" else AsyncMemoryCache)(**options).store
            made = AsyncCache(self._first, **options)
        return Blocking(made, self.loop)

    def done(self, value: Any) -> Any:
        """What a call of a cache's inside gives, under either face."""
        return value if self.loop is None else self.loop.run(value)

    def a_lease_later(self) -> None:
        """Let a lease of such a test pass, by the clock that the store goes by."""
        self.clock.advance(self.lease + 0.1)
        if self.real_time:
            time.sleep(self.lease + 0.1)

    def put_raw(self, cache: Any, key: str, raw: bytes, life: int = 60_000) -> None:
        """Put bytes under a key of the store, past the cache."""
        self.done(cache.store.put_many({f"shop:{key}": raw}, life))

    def get_raw(self, cache: Any, key: str) -> bytes | None:
        """The bytes under a key of the store."""
        found: bytes | None = self.done(cache.store.get_many([f"shop:{key}"]))[0]
        return found

    def close(self) -> None:
        for cache in self._made:
            cache.close()
        if self.loop is not None:
            self.loop.close()


def together(count: int, call: Callable[[int], Any]) -> list[Any]:
    """Call it on so many threads at once; what each returned or raised."""
    gate = threading.Barrier(count)

    def one(index: int) -> Any:
        gate.wait(10)
        try:
            return call(index)
        except Exception as error:  # noqa: BLE001 - handed to the test
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


@pytest.fixture
def clock() -> FakeClock:
    """A clock that moves only when told to."""
    return FakeClock()


@pytest.fixture(params=["local", "fake", "fakeredis"])
def store_name(request: pytest.FixtureRequest) -> str:
    """The kinds of store that need no server."""
    return request.param


@pytest.fixture
def store_url() -> str | None:
    """The address of a server, where the tests run against one."""
    return None


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest, clock: FakeClock, store_name: str, store_url: str | None) -> Iterator[Kind]:
    """A kind of store under each face."""
    made = Kind(store_name, request.param, clock, store_url)
    yield made
    made.close()


@pytest.fixture
def at_once() -> Callable[[int, Callable[[int], Any]], list[Any]]:
    """Calls a function on several threads at once."""
    return together


@pytest.fixture
def gathered() -> Callable[..., None]:
    """Holds a loader up until so many others wait for what it loads, or for five seconds."""

    def wait(count: int, *caches: Any) -> None:
        end = time.monotonic() + 5
        while sum(cache.stats().waits for cache in caches) < count and time.monotonic() < end:
            time.sleep(0.002)

    return wait


@pytest.fixture
def database() -> Database:
    """A database with two users."""
    return Database()
