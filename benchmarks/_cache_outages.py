"""What callers see when Redis is killed, frozen, comes back, or holds what it should not."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import redis

from resilient.cache import Cache
from resilient.testing.servers import RedisServer

Source = dict[str, int]


class Lines(logging.Handler):
    """Counts what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += 1


@contextlib.contextmanager
def logged() -> Iterator[Lines]:
    lines = Lines()
    logger = logging.getLogger("resilient")
    before, logger.propagate = logger.propagate, False
    logger.addHandler(lines)
    try:
        yield lines
    finally:
        logger.removeHandler(lines)
        logger.propagate = before


def milliseconds(call: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    call()
    return (time.perf_counter() - begun) * 1000


@dataclass
class Outage:
    """Figures of one outage, in milliseconds but where named otherwise."""

    first: float = 0.0
    added: float = 0.0
    """Microseconds for each call, once the breaker is open."""
    crowd_loads: int = 0
    """How often the loader ran for twenty threads on one key."""
    back: float = 0.0
    lines: int = 0
    worst: float = 0.0
    slow: int = 0
    """Calls that waited for the server before the breaker opened."""
    errors: list[str] = field(default_factory=list)


def killed(server: RedisServer) -> Outage:
    """The server dies, its port is closed, and it comes back."""
    seen = Outage()
    with logged() as lines, Cache(server.url, namespace="outage", ttl=60) as cache:
        assert cache.get_or_load("k", lambda: 1) == 1
        server.kill()
        seen.first = milliseconds(lambda: cache.get_or_load("k", lambda: 1))
        for number in range(30):
            cache.get_or_load(f"k{number}", lambda: 1)
        seen.added = _added(cache)
        seen.crowd_loads = _crowd(cache)
        server.start()
        seen.back = _until_used(cache)
        seen.lines = lines.count
    return seen


def _added(cache: Any) -> float:
    """Microseconds that a call takes longer than its loader while the breaker is open: the least of some slices."""

    def slice_of(call: Callable[[], Any]) -> float:
        begun = time.thread_time()
        for _ in range(100):
            call()
        return (time.thread_time() - begun) / 100

    def load() -> int:
        return 1

    def asked() -> Any:
        return cache.get_or_load("open", load)

    best = min(slice_of(asked) for _ in range(30)) - min(slice_of(load) for _ in range(30))
    return best * 1e6


def _crowd(cache: Any) -> int:
    calls: list[int] = []
    gate = threading.Barrier(20)

    def load() -> int:
        calls.append(1)
        time.sleep(0.1)
        return 1

    def call() -> None:
        gate.wait()
        cache.get_or_load("crowd", load)

    team = [threading.Thread(target=call) for _ in range(20)]
    for thread in team:
        thread.start()
    for thread in team:
        thread.join()
    return len(calls)


def _until_used(cache: Any) -> float:
    """Milliseconds until a value is served from the server again."""
    begun = time.perf_counter()
    while time.perf_counter() - begun < 10:
        cache.get_or_load("back", lambda: 1)
        if cache.lookup("back") is not None:
            break
        time.sleep(0.01)
    return (time.perf_counter() - begun) * 1000


def frozen(server: RedisServer) -> Outage:
    """The server accepts connections, and answers nothing."""
    seen = Outage()
    with logged(), Cache(server.url, namespace="outage", ttl=60) as cache:
        assert cache.get_or_load("k", lambda: 1) == 1
        server.freeze()
        try:
            waits = [milliseconds(lambda: cache.get_or_load("k", lambda: 1)) for _ in range(200)]
        finally:
            server.thaw()
        seen.worst = max(waits)
        seen.slow = sum(wait > 20 for wait in waits)
        seen.back = _until_used(cache)
    return seen


def changed_meanwhile(server: RedisServer, outages: int, keys: int = 40) -> tuple[int, int]:
    """Sources that change while the server does not answer: how many reads were made afterwards, how many were old."""
    source: Source = dict.fromkeys((f"key:{number}" for number in range(keys)), 0)
    old = reads = 0
    with (
        logged(),
        Cache(server.url, namespace="changed", ttl=600) as cache,
        Cache(server.url, namespace="changed", ttl=600) as other,
    ):
        for outage in range(outages):
            for key in source:
                cache.get_or_load(key, lambda key=key: source[key])
            server.freeze()
            try:
                for key in source:
                    source[key] += 1
                    cache.invalidate(key)
            finally:
                server.thaw()
            _until_used(cache)
            for key in random.Random(outage).sample(sorted(source), keys):
                for reader in (cache, other):
                    reads += 1
                    old += reader.get_or_load(key, lambda key=key: source[key]) != source[key]
    return reads, old


# ------------------------------------------------------------------------------------------------------- bad bytes


class Bomb:
    """What runs code in whoever unpickles it."""

    def __reduce__(self) -> Any:
        return os.putenv, ("RESILIENT_BENCH_BOMB", "1")


def fuzzed(server: RedisServer, count: int) -> tuple[int, int]:
    """Entries with bytes turned, cut or replaced: how many were read as a wrong value, how many raised."""
    rng = random.Random(7)
    wrong = raised = 0
    client = redis.Redis.from_url(server.url)
    client.flushall()
    value = {"id": 17, "name": "ada", "tags": ["a", "b"]}
    with logged(), Cache(server.url, namespace="fuzz", ttl=600) as cache:
        cache.get_or_load("k", lambda: value)
        key = next(key for key in client.keys("fuzz:*") if key.endswith(b"k"))
        good = client.get(key)
        assert good is not None
        for number in range(count):
            bad = _damaged(good, rng) if number else pickle.dumps(Bomb())
            client.set(key, bad)
            try:
                found = cache.get("k")
            except Exception:  # noqa: BLE001 - whatever it is, it is counted
                raised += 1
                continue
            wrong += found is not None and found != value
    client.close()
    return wrong, raised


def _damaged(good: bytes, rng: random.Random) -> bytes:
    kind = rng.randrange(4)
    if kind == 0:
        return rng.randbytes(rng.randrange(200))
    if kind == 1:
        return good[: rng.randrange(len(good))]
    raw = bytearray(good)
    for _ in range(1 if kind == 2 else 8):
        raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    return bytes(raw)


# ------------------------------------------------------------------------------------------------------------ at rest


def import_time(module: str, name: str = "", times: int = 7) -> float:
    """Milliseconds of CPU to import a module, or a name of it: the least of some processes, compiled before."""
    wanted = f"from {module} import {name}" if name else f"import {module}"
    code = f"import time; t = time.thread_time(); {wanted}; print((time.thread_time() - t) * 1000)"
    with tempfile.TemporaryDirectory() as compiled:
        plain = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environment = {**plain, "PYTHONPYCACHEPREFIX": compiled}
        return min(
            float(subprocess.check_output([sys.executable, "-c", code], text=True, env=environment))
            for _ in range(times)
        )


def threads_at_rest(server: RedisServer) -> int:
    """Threads beyond the main one, after a cache was read, written and invalidated."""
    code = (
        "import threading; from resilient.cache import Cache; "
        f"cache = Cache({server.url!r}, namespace='rest', ttl=60); "
        "cache.get_or_load('k', lambda: 1); cache.get('k'); cache.set('k', 2); cache.invalidate('k'); "
        "print(threading.active_count() - 1)"
    )
    return int(subprocess.check_output([sys.executable, "-c", code], text=True))


# ------------------------------------------------------------------------------------- an invalidation while one loads


def races(url: str) -> dict[str, str]:
    """The source changes, and its key is forgotten, while a reader still loads: what the cache holds afterwards."""
    from _cache_peers import configured

    ours = Cache(url, namespace="race", ttl=60)
    found = {"resilient": _race(partial(ours.get_or_load, "race"), partial(ours.invalidate, "race"))}
    ours.close()
    with contextlib.suppress(ImportError):
        from dogpile.cache import make_region

        region = make_region().configure("dogpile.cache.redis", arguments={"url": url, "distributed_lock": True})
        found["dogpile.cache"] = _race(partial(region.get_or_create, "r"), partial(region.delete, "r"))
    with contextlib.suppress(ImportError):
        configured(url)
        from django.core.cache import caches

        for name, alias in (("Django core", "default"), ("django-redis", "django-redis")):
            cache = caches[alias]
            found[name] = _race(partial(cache.get_or_set, "race"), partial(cache.delete, "race"))
    with contextlib.suppress(ImportError):
        configured(url)
        from cacheops import cached

        loaders: list[Any] = []

        @cached(timeout=60, extra="race")
        def raced() -> str:
            return str(loaders[-1]())

        def through(load: Any) -> str:
            loaders.append(load)
            return str(raced())

        def forget() -> None:
            raced.invalidate()

        found["cacheops"] = _race(through, forget)
    return found


def _race(get: Callable[[Any], Any], forget: Callable[[], Any]) -> str:
    loading, go = threading.Event(), threading.Event()

    def late() -> str:
        loading.set()
        go.wait(10)
        return "old"

    reader = threading.Thread(target=lambda: get(late))
    reader.start()
    loading.wait(10)
    forget()
    go.set()
    reader.join()
    return "STALE" if get(lambda: "new") == "old" else "right"
