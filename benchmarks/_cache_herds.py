"""Many callers of one key, in several processes: how often its loader runs, and how long they wait.

python benchmarks/_cache_herds.py cold|hot|die URL CONTENDER ...   one worker; benchmarks/cache.py starts them
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import redis

LOADING = 0.2  # seconds that the loader takes
CALLERS = 25
GAP = 0.45  # seconds from one cold key to the next
TTL = 1.0  # of the hot key
BLOCKED = 0.1  # seconds; who waits longer waited for the loader


# ------------------------------------------------------------------------------------------- one worker, as a process


def slow(url: str, counter: str) -> Callable[[], str]:
    """A loader that takes its time, and counts its calls for all processes."""
    client = redis.Redis.from_url(url)

    def load() -> str:
        client.incr(counter)
        time.sleep(LOADING)
        return "v" * 1000

    return load


def aslow(url: str, counter: str) -> Callable[[], Any]:
    client = redis.asyncio.Redis.from_url(url)

    async def load() -> str:
        await client.incr(counter)
        await asyncio.sleep(LOADING)
        return "v" * 1000

    return load


def ours(url: str, options: dict[str, Any]) -> Callable[[str, Any], Any]:
    from resilient.cache import Cache

    cache = Cache(url, namespace="herd", ttl=60)
    return lambda key, load: cache.get_or_load(key, load, **options)


def ours_async(url: str, options: dict[str, Any]) -> Callable[[str, Any], Any]:
    from resilient.cache import AsyncCache

    cache = AsyncCache(url, namespace="herd", ttl=60)
    return lambda key, load: cache.get_or_load(key, load, **options)


def dogpile(url: str, options: dict[str, Any]) -> Callable[[str, Any], Any]:
    from dogpile.cache import make_region

    def background(cache: Any, key: str, creator: Any, mutex: Any) -> None:
        def run() -> None:
            try:
                cache.set(key, creator())
            finally:
                mutex.release()

        threading.Thread(target=run).start()

    hot = "stale_while_revalidate" in options
    region = make_region(**({"async_creation_runner": background} if hot else {})).configure(
        "dogpile.cache.redis",
        expiration_time=options.get("ttl", 60),
        arguments={"url": url, "distributed_lock": True, "thread_local_lock": False, "redis_expiration_time": 60},
    )
    return region.get_or_create


def naive(url: str, options: dict[str, Any]) -> Callable[[str, Any], Any]:
    """No cache: what so many callers wait on this machine for a loader each, which a cache cannot undercut by much."""
    return lambda key, load: load()


def cashews(url: str, options: dict[str, Any]) -> Callable[[str, Any], Any]:
    from cashews import Cache as Cashews

    cache = Cashews()
    cache.setup(url)
    made: dict[str, Any] = {}

    def call(key: str, load: Any) -> Any:
        if key not in made:
            hot = "stale_while_revalidate" in options
            wrap = cache.early(ttl=30, early_ttl=TTL, key=key) if hot else cache.cache(ttl=60, key=key, lock=True)
            made[key] = wrap(_named(load))
        return made[key]()

    return call


def _named(load: Any) -> Any:
    async def loading() -> Any:
        return await load()

    return loading


CONTENDERS: dict[str, tuple[Callable[..., Any], bool]] = {
    # How it is made, and whether it is asynchronous.
    "resilient": (ours, False),
    "resilient async": (ours_async, True),
    "dogpile.cache": (dogpile, False),
    "no cache": (naive, False),
    "cashews": (cashews, True),
}


def until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.time()))


def cold(url: str, contender: str, start: float, runs: int) -> list[float]:
    """Twenty-five callers of a key that nobody has loaded, again and again; how long each waited."""
    make, asynchronous = CONTENDERS[contender]
    call = make(url, {})
    waited: list[float] = []
    if asynchronous:

        async def one(number: int, load: Any) -> None:
            await asyncio.sleep(max(0.0, start + number * GAP - time.time()))
            begun = time.perf_counter()
            await call(f"cold:{number}", load)
            waited.append(time.perf_counter() - begun)

        async def all_of_them() -> None:
            warm = aslow(url, "loads:warm")
            await call(f"warm:{random.random()}", warm)
            for number in range(runs):
                load = aslow(url, f"loads:{number}")
                await asyncio.gather(*(one(number, load) for _ in range(CALLERS)))

        asyncio.run(all_of_them())
        return waited

    gate = threading.Barrier(CALLERS)
    loads = [slow(url, f"loads:{number}") for number in range(runs)]

    def caller() -> None:
        call(f"warm:{threading.get_ident()}:{random.random()}", lambda: "v")
        for number in range(runs):
            gate.wait()
            until(start + number * GAP)
            begun = time.perf_counter()
            call(f"cold:{number}", loads[number])
            waited.append(time.perf_counter() - begun)

    _together(caller, CALLERS)
    return waited


def hot(url: str, contender: str, start: float, seconds: float) -> list[float]:
    """Ten callers of a key that expires each second."""
    make, asynchronous = CONTENDERS[contender]
    call = make(url, {"ttl": TTL, "stale_while_revalidate": 30})
    waited: list[float] = []
    if asynchronous:

        async def acaller(load: Any) -> None:
            while time.time() < start + seconds:
                begun = time.perf_counter()
                await call("hot", load)
                waited.append(time.perf_counter() - begun)
                await asyncio.sleep(0.02)

        async def all_of_them() -> None:
            load = aslow(url, "loads:hot")
            await call("hot", load)
            await asyncio.sleep(max(0.0, start - time.time()))
            await asyncio.gather(*(acaller(load) for _ in range(10)))

        asyncio.run(all_of_them())
        return waited

    load = slow(url, "loads:hot")

    def caller() -> None:
        call("hot", load)
        until(start)
        while time.time() < start + seconds:
            begun = time.perf_counter()
            call("hot", load)
            waited.append(time.perf_counter() - begun)
            time.sleep(0.02)

    _together(caller, 10)
    return waited


def die(url: str, contender: str, _: float, lease: int) -> list[float]:
    """Begin to load, say so, and never end: to be killed."""
    from resilient.cache import Cache

    def load() -> str:
        print("loading", flush=True)
        time.sleep(60)
        return ""

    Cache(url, namespace="herd", ttl=60, lease=lease).get_or_load("orphan", load)
    return []


def _together(run: Callable[[], None], count: int) -> None:
    team = [threading.Thread(target=run) for _ in range(count)]
    for thread in team:
        thread.start()
    for thread in team:
        thread.join()


# ------------------------------------------------------------------------------------------------- all workers of one


class Herd:
    """What some processes saw.

    Args:
        what: ``cold`` or ``hot``.
        url: The Redis.
        workers: The contender of each process.
        amount: How many runs, or seconds.
    """

    def __init__(self, what: str, url: str, workers: list[str], amount: int) -> None:
        client = redis.Redis.from_url(url)
        client.flushall()
        start = time.time() + 4.0
        team = [
            subprocess.Popen(
                [sys.executable, __file__, what, url, worker, str(start), str(amount)],
                stdout=subprocess.PIPE,
                text=True,
            )
            for worker in workers
        ]
        waits: list[float] = []
        for process in team:
            out = process.communicate()[0]
            if process.returncode:
                raise RuntimeError(f"a worker of {workers} failed")
            waits += json.loads(out.splitlines()[-1])
        self.loads = [int(client.get(f"loads:{number}") or 0) for number in range(amount)] if what == "cold" else []
        self.hot_loads = int(client.get("loads:hot") or 0)
        self.blocked = sum(wait > BLOCKED for wait in waits)
        self.p99 = statistics.quantiles(waits, n=100)[98] * 1000
        self.worst = max(waits) * 1000
        self.calls = len(waits)
        client.close()


def orphan(url: str, lease: int = 1) -> float:
    """Seconds that the next caller waits after the process was killed that was loading."""
    from resilient.cache import Cache

    client = redis.Redis.from_url(url)
    client.flushall()
    holder = subprocess.Popen(
        [sys.executable, __file__, "die", url, "resilient", "0", str(lease)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    holder.kill()
    holder.communicate()
    with Cache(url, namespace="herd", ttl=60, lease=lease) as cache:
        begun = time.perf_counter()
        assert cache.get_or_load("orphan", lambda: "mine") == "mine"
        return time.perf_counter() - begun


if __name__ == "__main__":
    task, url, contender, start, amount = sys.argv[1:]
    work: Any = {"cold": cold, "hot": hot, "die": die}[task]
    print(json.dumps(work(url, contender, float(start), int(amount))))
