"""Instances that tell each other what they reach, over a real Redis that stops, freezes and comes back."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import redis

from resilient.health import Health, Peers
from resilient.health._board import RedisBoard
from resilient.testing.servers import RedisCluster, RedisSentinel, RedisServer

DEADLINE = 0.8
MARGIN = 0.25  # seconds of grace on a busy machine


class Instance:
    """One instance of a service, and the database that it reaches or not."""

    def __init__(self, target: object, **options: float) -> None:
        self.good = True
        self.health = Health(shared="peers", peers=Peers(target, service="shop", **options), deadline=DEADLINE)
        self.health.add("db", lambda: self.good, scope="shared", ttl=0)

    def ask(self) -> str:
        time.sleep(0.02)  # balancers do not ask in a burst: what was heard last is no longer fresh
        word = self.health.ready().word
        comes_true(lambda: self.health._party.lane._flight is None)  # it may still be telling the others
        return word


@pytest.fixture
def make() -> Iterator[Callable[..., Instance]]:
    made: list[Instance] = []

    def instance(target: object, **options: float) -> Instance:
        made.append(Instance(target, **{"every": 0.01, **options}))
        return made[-1]

    yield instance
    for each in made:
        each.health.close()


def comes_true(probe: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not probe():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def tell_apart(a: Instance, b: Instance) -> None:
    """One that fails alone goes out; an outage of all takes nobody out."""
    assert [a.ask(), b.ask()] == ["pass", "pass"]
    a.good = False
    assert [a.ask(), b.ask(), a.ask(), b.ask(), a.ask()] == ["warn", "pass", "fail", "pass", "fail"]
    b.good = False
    assert [b.ask(), a.ask(), b.ask(), a.ask()] == ["warn"] * 4
    a.good = b.good = True
    assert [a.ask(), b.ask()] == ["pass", "pass"]


@pytest.mark.parametrize("given", ["url", "client"])
def test_a_fault_of_one_and_an_outage_of_all_are_told_apart(redis_server: RedisServer, make, given: str):
    """Through one Redis, by URL or by the application's client."""
    client = redis.Redis(port=redis_server.port, socket_timeout=1)
    tell_apart(*(make(redis_server.url if given == "url" else client) for _ in range(2)))
    client.close()


def test_a_cluster_and_sentinels_carry_words_too(redis_cluster: RedisCluster, redis_sentinel: RedisSentinel, make):
    """By their URLs."""
    for url in (redis_cluster.url, redis_sentinel.url):
        a, b = make(url, timeout=0.5), make(url, timeout=0.5)
        tell_apart(a, b)
        a.health.close()
        b.health.close()


def test_words_lapse_on_the_server(redis_server: RedisServer, make):
    """An instance that died without a word is not heard for long, and leaves nothing behind."""
    a, b = make(redis_server.url, ttl=0.3), make(redis_server.url, ttl=0.3)
    a.good = False
    assert [a.ask(), b.ask(), a.ask()] == ["warn", "pass", "fail"]
    comes_true(lambda: a.ask() == "warn", seconds=3)
    with redis.Redis(port=redis_server.port) as client:
        assert client.hlen("resilient:health:shop") == 1
        comes_true(lambda: client.exists("resilient:health:shop") == 0, seconds=3)


def test_what_is_published_is_a_name_a_bool_and_an_age(redis_server: RedisServer, make):
    """Nothing of an error, a host of the database, or a value."""
    a = make(redis_server.url)

    def broken() -> None:
        raise OSError("10.0.0.7 refused app:secret")

    a.health.add("mail", broken, scope="shared")
    a.ask()
    a.ask()
    with redis.Redis(port=redis_server.port) as client:
        (field,) = client.hvals("resilient:health:shop")
    _, _, words = field.split(b" ", 2)
    told = json.loads(words)
    assert {name: good for name, (good, _) in told.items()} == {"db": True, "mail": False}
    assert b"secret" not in field
    assert b"10.0.0.7" not in field


def test_a_redis_that_stops_and_returns(redis_server: RedisServer, make):
    """Without it a failure only warns, in time; with it back, faults are told apart again, without a restart."""
    a, b = make(redis_server.url), make(redis_server.url)
    a.good = False
    assert [a.ask(), b.ask(), a.ask()] == ["warn", "pass", "fail"]
    redis_server.stop()
    for each in (a, b):
        each.health._party._heard = {}  # as if the words had lapsed
        began = time.monotonic()
        each.ask()
        assert time.monotonic() - began < DEADLINE + MARGIN
    assert [a.ask(), b.ask()] == ["warn", "pass"]
    redis_server.start()

    def apart() -> bool:
        b.ask()
        return a.ask() == "fail"

    comes_true(apart)


def test_a_frozen_redis_holds_no_report_up(redis_server: RedisServer, make):
    """Each report ends in time, and most are not held up at all: a board that hangs is let be for a while."""
    a = make(redis_server.url)
    a.ask()
    a.good = False
    redis_server.freeze()
    took = []
    for _ in range(20):
        began = time.monotonic()
        assert a.health.ready().word == "warn"
        took.append(time.monotonic() - began)
        time.sleep(0.02)
    redis_server.thaw()
    assert max(took) < DEADLINE + MARGIN
    assert statistics.median(took) < 0.1


def board_of(server: RedisServer) -> RedisBoard:
    return RedisBoard(server.url, timeout=0.2)


def test_words_that_were_held_up_are_as_old_as_they_are(redis_server: RedisServer):
    """A server that stalls runs what it was sent when it goes on; what was said before the stall is no news then."""
    a, b = board_of(redis_server), board_of(redis_server)
    a.exchange("shop", "a", b"before", 15)
    redis_server.freeze()
    said = time.monotonic()
    with pytest.raises(redis.TimeoutError):
        a.exchange("shop", "a", b"held up", 15)
    time.sleep(0.5)
    redis_server.thaw()
    heard: list[tuple[bytes, float]] = []

    def arrived() -> bool:
        heard.append(b.exchange("shop", "b", b"{}", 15)["a"])
        return heard[-1][0] == b"held up"

    comes_true(arrived)
    assert time.monotonic() - said >= heard[-1][1] - 0.01
    assert heard[-1][1] >= 0.69
    a.close()
    b.close()


def ask_again_at_once(*instances: Instance) -> None:
    """A board that failed is let be for two seconds; here it is not, so that what was held up is heard."""
    for each in instances:
        history = each.health._party.lane.history
        history.terms = replace(history.terms, failed_ttl=0.01)


def test_while_redis_is_frozen_a_lost_path_only_warns_and_after_it_the_truth_is_told(redis_server: RedisServer, make):
    """Words of before the fault live on, and prove nothing; those that come with the thaw do."""
    a, b = make(redis_server.url), make(redis_server.url)
    ask_again_at_once(a, b)
    assert [a.ask(), b.ask(), a.ask()] == ["pass"] * 3
    assert len(a.health._party._heard) == 1
    redis_server.freeze()
    a.good = False
    assert [each.ask() for each in (a, b) * 3] == ["warn", "pass"] * 3
    redis_server.thaw()

    def out() -> bool:
        assert b.ask() == "pass"
        return a.ask() == "fail"

    comes_true(out)


def test_an_outage_that_takes_the_redis_along_takes_nobody_out(redis_server: RedisServer, make):
    """Redis stalls and then the database goes: a pass from before, which Redis hears of after, proves nothing."""
    a, b = make(redis_server.url), make(redis_server.url)
    ask_again_at_once(a, b)
    assert [a.ask(), b.ask()] == ["pass", "pass"]
    redis_server.freeze()
    a.ask()  # it passes, and says so to nobody yet
    a.good = b.good = False
    assert b.ask() == "warn"
    redis_server.thaw()
    assert [b.ask() for _ in range(20)] == ["warn"] * 20
    assert [each.ask() for each in (a, b) * 3] == ["warn"] * 6


def test_older_words_do_not_replace_newer_ones(redis_server: RedisServer):
    """Of two connections the one of the older words may be read last."""
    a, b = board_of(redis_server), board_of(redis_server)
    a.exchange("shop", "a", b"newer", 15)
    now = int((time.monotonic() + a._offset) * 1000)
    a._run("shop", "a", b"older", 15_000, now - 1000)
    assert b.exchange("shop", "b", b"{}", 15)["a"][0] == b"newer"
    a._run("shop", "c", b"too old", 15_000, now - 15_000)
    assert list(b.exchange("shop", "b", b"{}", 15)) == ["a"]
    a.close()
    b.close()


def test_words_of_another_servers_time_are_dropped(redis_server: RedisServer):
    """After a failover to a server whose clock is behind, old words would be new for as long as it is."""
    a = board_of(redis_server)
    with redis.Redis(port=redis_server.port) as client:
        ahead = (client.time()[0] + 3600) * 1000
        client.hset("resilient:health:shop", "b", f"{ahead} {ahead + 15_000} words")
        assert a.exchange("shop", "a", b"{}", 15) == {}
        assert client.hkeys("resilient:health:shop") == [b"a"]
    a.close()


def test_processes_are_told_apart_by_their_words(redis_server: RedisServer, make):
    """A forked child is an instance of its own: it does not take its parent's words for its own, nor overwrite them."""
    program = f"""
        import os
        from resilient.health import Health, Peers
        health = Health(shared="peers", peers=Peers({redis_server.url!r}, service="shop", timeout=10))
        health.add("db", lambda: True, scope="shared")
        def told():
            lane = health._party.lane
            lane.wait(lane.begin(anew=True), 1e12)
        health.ready(); told()
        child = os.fork()
        if child == 0:
            health.ready(); told()
            os._exit(0)
        os.waitpid(child, 0)
        told()
        print(len(health._party._heard))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_fifty_probes_at_once_are_one_exchange(redis_server: RedisServer, make):
    """What was heard is shared, and good for a moment."""
    a = make(redis_server.url, every=5.0)
    a.ask()
    with redis.Redis(port=redis_server.port) as client:
        before = client.info("commandstats").get("cmdstat_hset", {}).get("calls", 0)
        for _ in range(50):
            a.health.ready()
        assert client.info("commandstats").get("cmdstat_hset", {}).get("calls", 0) - before <= 1
