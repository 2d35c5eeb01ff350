"""The local tier above a real server: what is served from memory is never older than the bound, whatever happens."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from bisect import bisect_left
from contextlib import contextmanager, suppress

import pytest

from resilient.cache import AsyncCache, Cache, Local
from resilient.runtime import start_thread

BOUND = 1.0  # seconds: what the documentation promises
LONG = 50.0  # seconds that a loaded machine may take for what is done at once
PATIENT = {"timeout": 5.0, "connect_timeout": 5.0}

WRITER = """
import json, sys, threading, time
from resilient.cache import Cache

url, pause, keys = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
done, number = [], 0
with Cache(url, namespace="shop", ttl=300, timeout=5.0, connect_timeout=5.0) as cache:
    while not stop.is_set():
        number += 1
        key = f"k{number % keys}"
        began = time.monotonic()
        cache.set(key, number)
        done.append((key, number, began, time.monotonic()))
        if number == 8:
            print("ready", flush=True)
        stop.wait(pause)
json.dump(done, sys.stdout)
"""


class Writer:
    """Another process that writes rising numbers under a few keys, and notes when each was acknowledged."""

    def __init__(self, url, pause, keys):
        command = [sys.executable, "-c", WRITER, url, str(pause), str(keys)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout.readline() == "ready\n"
        self.done = []

    def end(self):
        told, _ = self._process.communicate("", timeout=LONG)
        assert self._process.returncode == 0
        self.done = json.loads(told)

    def acknowledged(self, key):
        """Moments and numbers, both rising."""
        mine = [(acked, number) for name, number, _, acked in self.done if name == key]
        return [acked for acked, _ in mine], [number for _, number in mine]


@contextmanager
def writing(url, pause=0.005, keys=8):
    writer = Writer(url, pause, keys)
    try:
        yield writer
    finally:
        writer.end()


class Reads:
    """What was read, and when it was asked for."""

    def __init__(self):
        self.found = []
        self.sources = {"local": 0, "shared": 0, "loader": 0}
        self.quick = 0
        self.stop = threading.Event()

    def note(self, key, asked, value):
        if value is not None:
            self.found.append((key, asked, value))

    def await_more(self, count):
        """Wait for that many reads that found something."""
        wanted, until = len(self.found) + count, time.monotonic() + LONG
        while len(self.found) < wanted:
            assert time.monotonic() < until
            time.sleep(0.01)

    def oldest(self, writer):
        """Seconds by which the worst of them was behind what had been acknowledged."""
        worst = 0.0
        for key in {key for key, _, _ in self.found}:
            moments, numbers = writer.acknowledged(key)
            for _, asked, value in (each for each in self.found if each[0] == key):
                newer = bisect_left(numbers, value + 1)
                if newer < len(moments):
                    worst = max(worst, asked - moments[newer])
        return worst


class AwayError(Exception):
    """What would be loaded is not to be had."""


def read(cache, reads):
    @cache.lazy("k{number}", ttl=300)
    def value(number):
        raise AwayError

    while not reads.stop.is_set():
        for number in range(8):
            asked = time.monotonic()
            found = cache.lookup(f"k{number}")
            if found is not None:
                reads.sources[found.source] += 1
                reads.note(f"k{number}", asked, found.value)
            asked = time.monotonic()
            reads.note(f"k{number}", asked, cache.get(f"k{number}"))
            with suppress(AwayError):
                asked = time.monotonic()
                reads.note(f"k{number}", asked, value(number))
        time.sleep(0.01)  # this is about what is old, not about how fast
    reads.quick = cache.stats().local_hits


def read_in_a_loop(url, reads):
    async def reader(cache, value):
        while not reads.stop.is_set():
            for number in range(8):
                asked = time.monotonic()
                found = await cache.lookup(f"k{number}")
                if found is not None:
                    reads.sources[found.source] += 1
                    reads.note(f"k{number}", asked, found.value)
                with suppress(AwayError):
                    asked = time.monotonic()
                    reads.note(f"k{number}", asked, await value(number))
            await asyncio.sleep(0.01)

    async def main():
        async with AsyncCache(url, namespace="shop", ttl=300, local=Local()) as cache:

            @cache.lazy("k{number}", ttl=300)
            async def value(number):
                raise AwayError

            await asyncio.gather(*(reader(cache, value) for _ in range(2)))
            reads.quick = cache.stats().local_hits

    asyncio.run(main())


HARMS = ("stall", "cut", "swallow_answers", "hold", "reset")


@pytest.mark.timeout(1800)
def test_under_load_nothing_from_memory_is_older_than_the_bound(redis_server, tcp_proxy, repeat):
    """Another process writes all the time while this one's channel is frozen, cut, deafened or reset, and restored.

    The other process reaches the server all the while: this is the case in which nobody can tell this one anything.
    Threads read, and tasks of an event loop.
    """
    proxy = tcp_proxy(redis_server.port)
    url, both = proxy.through(redis_server.url), (Reads(), Reads())
    with writing(redis_server.url) as writer, reading(url, *both):
        for number in range(repeat(100)):
            for reads in both:
                reads.await_more(100)
            harm = HARMS[number % len(HARMS)]
            if harm == "hold":
                proxy.stall(keep=True)
            else:
                getattr(proxy, harm)()
            time.sleep(0.1 if harm == "reset" else 1.2)
            proxy.restore()
        for reads in both:
            reads.await_more(100)
    for reads in both:
        assert reads.oldest(writer) <= BOUND
        assert reads.sources["local"] > 10
        assert reads.quick > 10


@contextmanager
def reading(url, of_threads, of_tasks):
    """Two threads, and two tasks, that read eight keys again and again."""
    with Cache(url, namespace="shop", ttl=300, local=Local()) as cache:
        threads = [start_thread(read, cache, of_threads, name="reader") for _ in range(2)]
        threads.append(start_thread(read_in_a_loop, url, of_tasks, name="reader"))
        try:
            yield
        finally:
            of_threads.stop.set()
            of_tasks.stop.set()
            for thread in threads:
                thread.join()


def test_a_frozen_server_is_not_served_from_memory_for_longer_than_the_bound(redis_server):
    """It is stopped: what is kept is served for one second at most, and then the loader answers."""
    with Cache(redis_server.url, namespace="shop", **PATIENT) as other:
        other.set("a", 1, ttl=300)
    with Cache(redis_server.url, namespace="shop", ttl=300, local=Local()) as cache:
        until_local(cache, "a")
        redis_server.freeze()
        frozen = time.monotonic()
        served = frozen
        while time.monotonic() < frozen + 1.6:
            began = time.monotonic()
            with suppress(Exception):
                if cache.lookup("a").source == "local":
                    served = began
            time.sleep(0.01)
        assert served <= frozen + BOUND
        redis_server.thaw()


def until_local(cache, key):
    """Read it until it comes from memory."""
    until = time.monotonic() + LONG
    while True:
        found = cache.lookup(key)
        if found is not None and found.source == "local":
            return found.value
        assert time.monotonic() < until, found
        time.sleep(0.002)


def test_a_change_of_another_process_is_seen_one_push_later(redis_server, figures, limit):
    """From the moment it was acknowledged there until it is read here: the 99th of a hundred."""
    sources, seen = {"local": 0, "shared": 0}, {}
    with (
        Cache(redis_server.url, namespace="shop", ttl=300, local=Local(), **PATIENT) as cache,
        writing(redis_server.url, pause=0.005, keys=1) as writer,
    ):
        until_local(cache, "k0")
        began = time.monotonic()
        while time.monotonic() < began + 1.5 or len(seen) < 50 or sources["local"] < 50:
            assert time.monotonic() < began + LONG
            found = cache.lookup("k0")
            seen.setdefault(found.value, time.monotonic())
            sources[found.source] += 1
            time.sleep(0.0002)
    late = sorted(max(0.0, seen[number] - acked) for _, number, _, acked in writer.done if number in seen)[:-1]
    p99 = late[int(len(late) * 0.99)]
    figures("coherence", seen=len(late), median_ms=f"{1000 * late[len(late) // 2]:.2f}", p99_ms=f"{1000 * p99:.2f}")
    assert len(late) > 20
    assert sources["local"] > 20
    assert p99 <= limit(0.010)


def test_two_processes_see_each_others_changes(redis_server):
    """Whoever writes, deletes, invalidates by tag or clears: the other one's memory follows."""
    with (
        Cache(redis_server.url, namespace="shop", ttl=300, local=Local(), **PATIENT) as here,
        Cache(redis_server.url, namespace="shop", ttl=300, local=Local(), **PATIENT) as there,
    ):
        here.set("a", 1, tags=["t"])
        assert until_local(there, "a") == until_local(here, "a") == 1
        for change, value in [
            (lambda: here.set("a", 2, tags=["t"]), 2),
            (lambda: there.invalidate("a"), None),
            (lambda: there.set("a", 3, tags=["t"]), 3),
            (lambda: here.invalidate_tags("t"), None),
            (lambda: there.set("a", 4, tags=["t"]), 4),
            (here.clear, None),
            (lambda: here.set("a", 5), 5),
        ]:
            change()
            for cache in (here, there):
                until = time.monotonic() + LONG
                while cache.get("a") != value:
                    assert time.monotonic() < until, (cache.get("a"), value)
            if value is not None:
                assert until_local(there, "a") == until_local(here, "a") == value


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_serves_nothing_of_what_its_parent_was_told(redis_server):
    """The child begins with an empty memory and a channel of its own; both see what a third changes."""
    options = {"namespace": "shop", "ttl": 300, "local": Local(), **PATIENT}
    with Cache(redis_server.url, **options) as cache, Cache(redis_server.url, namespace="shop", **PATIENT) as third:
        third.set("a", 1, ttl=300)
        until_local(cache, "a")
        read_end, write_end = os.pipe()
        child = os.fork()
        if not child:  # no exception may leave this block: it would run the test's end twice
            code = 1
            try:
                right = cache.lookup("a").source == "shared" and until_local(cache, "a") == 1
                os.write(write_end, b"r")
                until = time.monotonic() + LONG
                while cache.get("a") != 2 and time.monotonic() < until:
                    time.sleep(0.001)
                code = 0 if right and until_local(cache, "a") == 2 else 2
            finally:
                os._exit(code)
        assert os.read(read_end, 1) == b"r"
        third.set("a", 2, ttl=300)
        until = time.monotonic() + LONG
        while cache.get("a") != 2:
            assert time.monotonic() < until
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert until_local(cache, "a") == 2
        os.close(read_end)
        os.close(write_end)


def test_where_tracking_is_forbidden_the_bound_holds_against_those_who_tell_nothing(redis_server):
    """A writer that may not, or does not, publish is seen within a second; one that does, at once."""
    rules = ("on", ">pw", "~*", "&*", "+@all", "-client")
    redis_server.command("ACL", "SETUSER", "limited", *rules)
    url = redis_server.url.replace("redis://", "redis://limited:pw@")
    try:
        with (
            Cache(url, namespace="shop", ttl=300, local=Local(), **PATIENT) as here,
            Cache(url, namespace="shop", ttl=300, local=Local(), **PATIENT) as there,
            Cache(redis_server.url, namespace="shop", ttl=300, **PATIENT) as silent,
        ):
            here.set("a", 1)
            assert until_local(here, "a") == until_local(there, "a") == 1
            for number in range(2, 4):
                silent.set("a", number)
                acked = time.monotonic()
                while (asked := time.monotonic()) and here.get("a") != number:
                    assert asked - acked <= BOUND
                until_local(here, "a")
            until_local(there, "a")
            here.set("a", 9)
            until = time.monotonic() + LONG
            while there.get("a") != 9:
                assert time.monotonic() < until
    finally:
        redis_server.command("ACL", "DELUSER", "limited")


def test_in_a_cluster_memory_follows_through_a_failover(redis_cluster):
    """A killed primary empties it; when another has taken over it is filled and kept right again."""
    with (
        Cache(redis_cluster.url, namespace="shop", ttl=300, local=Local(), **PATIENT) as here,
        Cache(redis_cluster.url, namespace="shop", ttl=300, **PATIENT) as there,
    ):
        keys = [f"k{number}" for number in range(20)]
        there.set_many(dict.fromkeys(keys, 1))
        for key in keys:
            assert until_local(here, key) == 1
        lost = redis_cluster.primary_of(0)
        lost.kill()
        redis_cluster.wait_failover(lost)
        until = time.monotonic() + LONG
        while here.get_many(keys) != dict.fromkeys(keys, 2):
            assert time.monotonic() < until
            there.set_many(dict.fromkeys(keys, 2))
            time.sleep(0.1)
        for key in keys:
            assert until_local(here, key) == 2
        there.set_many(dict.fromkeys(keys, 3))
        until = time.monotonic() + LONG
        while here.get_many(keys) != dict.fromkeys(keys, 3):
            assert time.monotonic() < until
