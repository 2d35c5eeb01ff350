"""The lease between real processes: one load, nobody blocked, and a dead holder that costs one lease."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from resilient.cache import AsyncCache, Cache

COMMON = """
import asyncio, json, os, sys, threading, time
import redis
from resilient.cache import AsyncCache, Cache

url, key, start = sys.argv[1], sys.argv[2], float(sys.argv[3])
count = redis.Redis.from_url(url)

def answer(**found):
    print(json.dumps(found), flush=True)
"""

THREADS = """
cache = Cache(url, namespace="shop", ttl=60, timeout=5.0, connect_timeout=5.0)
cache.get("warm")
took = []

def load():
    count.incr("loads")
    time.sleep(0.2)
    return {"value": 1}

def one():
    time.sleep(max(0.0, start - time.time()))
    began = time.perf_counter()
    value = cache.get_or_load(key, load)
    took.append((time.perf_counter() - began, value == {"value": 1}))

threads = [threading.Thread(target=one) for _ in range(25)]
for thread in threads: thread.start()
for thread in threads: thread.join()
answer(took=took)
cache.close()
"""

TASKS = """
async def main():
    cache = AsyncCache(url, namespace="shop", ttl=60, timeout=5.0, connect_timeout=5.0)
    await cache.get("warm")
    took = []

    async def load():
        count.incr("loads")
        await asyncio.sleep(0.2)
        return {"value": 1}

    async def one():
        await asyncio.sleep(max(0.0, start - time.time()))
        began = time.perf_counter()
        value = await cache.get_or_load(key, load)
        took.append((time.perf_counter() - began, value == {"value": 1}))

    await asyncio.gather(*(one() for _ in range(25)))
    answer(took=took)
    await cache.aclose()

asyncio.run(main())
"""

HOLDER = """
cache = Cache(url, namespace="shop", ttl=60, lease=1.0, timeout=5.0)

def load():
    answer(holds=True)
    time.sleep(60)

cache.get_or_load(key, load)
"""

HOT = """
cache = Cache(url, namespace="shop", timeout=5.0, connect_timeout=5.0, jitter=0.0)

@cache.lazy("hot", ttl=0.5, stale_while_revalidate=60)
def hot() -> int:
    time.sleep(0.2)
    return count.incr("loads")

hot()
slowest, reads, stop = [0.0] * 5, [0] * 5, time.time() + float(key)

def read(index):
    while time.time() < stop:
        began = time.perf_counter()
        hot()
        slowest[index] = max(slowest[index], time.perf_counter() - began)
        reads[index] += 1
        time.sleep(0.002)

threads = [threading.Thread(target=read, args=(index,)) for index in range(5)]
for thread in threads: thread.start()
for thread in threads: thread.join()
answer(slowest=max(slowest), reads=sum(reads))
cache.close()
"""


class Processes:
    """Programs in processes of their own."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._running: list[subprocess.Popen[str]] = []

    def start(self, program: str, key: str = "k", at: float = 0.0) -> subprocess.Popen[str]:
        """Start one; it begins at that moment of the wall clock."""
        text = textwrap.dedent(COMMON) + textwrap.dedent(program)
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", text, self._url, key, str(at)], stdout=subprocess.PIPE, text=True
        )
        self._running.append(process)
        return process

    @staticmethod
    def said(process: subprocess.Popen[str]) -> Any:
        """The next thing it says."""
        assert process.stdout is not None
        return json.loads(process.stdout.readline())

    def end(self) -> None:
        """Kill whatever still runs."""
        for process in self._running:
            process.kill()
            process.communicate()


@pytest.fixture
def processes(redis_server: Any) -> Iterator[Processes]:
    """Programs on one Redis."""
    made = Processes(redis_server.url)
    yield made
    made.end()


@pytest.fixture
def client(redis_server: Any) -> Iterator[redis.Redis]:
    """A plain client of the same server."""
    with redis.Redis.from_url(redis_server.url) as made:
        yield made


def test_a_cold_key_is_loaded_once_by_four_processes(
    processes: Processes, client: redis.Redis, repeat: Callable[[int], int]
) -> None:
    """4 processes, threads and tasks mixed, with 25 callers each: one load, and all get its value soon after it."""
    for index in range(repeat(100)):
        client.flushall()
        begin = time.time() + 2.0
        started = [processes.start(THREADS if n % 2 else TASKS, f"k{index}", begin) for n in range(4)]
        took = [each for process in started for each in processes.said(process)["took"]]
        assert len(took) == 100
        assert all(right for _, right in took)
        assert int(client.get("loads") or 0) == 1
        assert max(seconds for seconds, _ in took) < 2.0
        assert [process.wait(10) for process in started] == [0] * 4


def test_when_the_holder_is_killed_another_takes_over_within_the_lease(processes: Processes, redis_server: Any) -> None:
    """The process that loads is killed; who waits for it loads when its lease ends, not later, without an error."""
    holder = processes.start(HOLDER)
    assert processes.said(holder) == {"holds": True}
    with Cache(redis_server.url, namespace="shop", ttl=60, lease=1.0, timeout=5.0) as cache:
        os.kill(holder.pid, signal.SIGKILL)
        began = time.monotonic()
        assert cache.get_or_load("k", lambda: "mine") == "mine"
        assert time.monotonic() - began < 1.2
        assert cache.get("k") == "mine"


def test_a_hot_key_that_ends_under_load_blocks_nobody(processes: Processes, client: redis.Redis) -> None:
    """While it is loaded anew, by one process for all, every reader is served what there is."""
    seconds = 3.0
    started = [processes.start(HOT, str(seconds)) for _ in range(2)]
    found = [processes.said(process) for process in started]
    assert max(each["slowest"] for each in found) < 0.19  # a load takes 0.2
    assert sum(each["reads"] for each in found) > 500
    # One load for each half second and the time it takes, and the cold one of each process that came first.
    assert int(client.get("loads") or 0) <= seconds / 0.5 + 2


def test_short_ttls_keep_reads_away_from_the_source(redis_server: Any) -> None:
    """With a ttl of 2 s a thousand reads a second ask the source once in two seconds."""
    with Cache(redis_server.url, namespace="shop", timeout=5.0) as cache:
        asked = []

        @cache.lazy("k", ttl=2.0)
        def load() -> int:
            asked.append(1)
            return 1

        end, reads = time.monotonic() + 2.5, 0
        while time.monotonic() < end:
            load()
            reads += 1
        assert len(asked) <= 3
        assert reads / len(asked) > 300


def test_waiters_are_woken_and_do_not_ask_again_and_again(redis_server: Any, client: redis.Redis) -> None:
    """Who waits for another process sends one blocking read, and is answered when the value is there."""
    loading, let = threading.Event(), threading.Event()

    def load() -> str:
        loading.set()
        assert let.wait(10)
        return "v"

    with (
        Cache(redis_server.url, namespace="shop", ttl=60, timeout=5.0) as first,
        Cache(redis_server.url, namespace="shop", ttl=60, timeout=5.0) as second,
    ):
        leader = threading.Thread(target=lambda: first.get_or_load("k", load))
        leader.start()
        assert loading.wait(10)
        client.config_resetstat()
        found: list[tuple[str, float]] = []
        waiter = threading.Thread(
            target=lambda: found.append((second.get_or_load("k", lambda: "mine"), time.perf_counter()))
        )
        waiter.start()
        time.sleep(0.5)
        let.set()
        released = time.perf_counter()
        for thread in (leader, waiter):
            thread.join(10)
        value, at = found[0]
        assert value == "v"
        assert at - released < 0.2
        calls = {name[8:]: row["calls"] for name, row in client.info("commandstats").items()}
        assert calls["xread"] == 1
        assert calls["get"] <= 3  # one look, one by the claim, one when woken


def test_every_key_of_ours_has_an_end(redis_server: Any, client: redis.Redis) -> None:
    """Leases, values, what wakes those who wait, the stamp of the namespace: nothing stays for ever."""
    gate = threading.Event()
    with (
        Cache(redis_server.url, namespace="shop", ttl=60, timeout=5.0) as first,
        Cache(redis_server.url, namespace="shop", ttl=60, timeout=5.0) as second,
    ):
        leader = threading.Thread(target=lambda: first.get_or_load("k", lambda: gate.wait(10)))
        leader.start()
        while not client.exists("shop:k"):
            time.sleep(0.005)
        waiter = threading.Thread(target=lambda: second.get_or_load("k", lambda: True))
        waiter.start()
        while not second.stats().waits:
            time.sleep(0.005)
        gate.set()
        for thread in (leader, waiter):
            thread.join(10)
    left = list(client.scan_iter())
    assert {key.split(b":")[1] for key in left} == {b"k", b"wake", b"all"}
    assert all(client.pttl(key) > 0 for key in left)


def test_tasks_of_one_loop_and_threads_share_a_load(redis_server: Any) -> None:
    """Both faces speak one protocol: a thread waits for a task's load."""
    import asyncio

    loading, let = threading.Event(), threading.Event()

    async def main() -> str:
        async with AsyncCache(redis_server.url, namespace="shop", ttl=60, timeout=5.0) as cache:

            async def load() -> str:
                loading.set()
                await asyncio.to_thread(let.wait, 10)
                return "task"

            return str(await cache.get_or_load("k", load))

    results: list[str] = []
    runner = threading.Thread(target=lambda: results.append(asyncio.run(main())))
    runner.start()
    assert loading.wait(10)
    with Cache(redis_server.url, namespace="shop", ttl=60, timeout=5.0) as cache:
        waiter = threading.Thread(target=lambda: results.append(cache.get_or_load("k", lambda: "thread")))
        waiter.start()
        while not cache.stats().waits:
            time.sleep(0.005)
        let.set()
        waiter.join(10)
    runner.join(10)
    assert results == ["task", "task"]
