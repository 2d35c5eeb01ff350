"""A rate limit that several processes share through a real Redis."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest
import redis

from resilient.errors import ConfigurationError, Overloaded
from resilient.limits import RedisRate
from resilient.policy import Pipeline, RateLimit, SharedRate
from resilient.testing.clock import FakeClock
from resilient.testing.servers import RedisServer


@pytest.fixture
def rate(redis_server: RedisServer) -> Iterator[RedisRate]:
    made = RedisRate(redis_server.url, timeout=0.5)
    yield made
    made.close()


CALLER = """
import sys, time
from resilient.errors import Overloaded
from resilient.policy import Pipeline, RateLimit
from resilient.limits import RedisRate

shared = RedisRate(sys.argv[1], timeout=1.0)
limited = Pipeline("shared", RateLimit(50, burst=10, shared=shared))
print("ready", flush=True)
begin, end = map(float, sys.stdin.readline().split())
time.sleep(max(0.0, begin - time.time()))
made = []
while time.time() < end:
    try:
        made.append(limited.call(time.time))
    except Overloaded:
        time.sleep(0.001)
alone = limited._slow.state.counts.get("limited_alone", 0)
shared.close()
print(alone, *made)
"""


def test_two_processes_share_one_limit(redis_server: RedisServer) -> None:
    """In sum never more than burst + rate x time, over any stretch of time; and nearly all of that is handed out."""
    callers = [
        subprocess.Popen(
            [sys.executable, "-c", CALLER, redis_server.url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    made: list[float] = []
    try:
        for caller in callers:
            assert caller.stdout is not None
            assert caller.stdout.readline() == "ready\n"
        begin = time.time() + 0.2
        each = []
        for caller in callers:
            assert caller.stdin is not None
            caller.stdin.write(f"{begin} {begin + 1.0}\n")
            caller.stdin.flush()
        for caller in callers:
            printed, _ = caller.communicate(timeout=30)
            alone, *moments = printed.split()
            assert alone == "0", "Redis answered each time"
            each.append(len(moments))
            made += map(float, moments)
    finally:
        for caller in callers:
            caller.kill()
            caller.wait()
    assert min(each) > 0
    made.sort()
    lasted = made[-1] - begin
    assert len(made) <= 10 + 50 * lasted + 1  # one for a turn taken just before the last moment was read
    assert len(made) >= 30
    half = [moment for moment in made if moment - begin >= 0.5]
    assert len(half) <= 10 + 50 * 0.5 + 2


def test_a_burst_then_evenly(rate: RedisRate) -> None:
    """The burst is free, the next turn is told to the microsecond, and a turn not taken costs nothing."""
    assert isinstance(rate, SharedRate)
    assert [rate.take("a", 10.0, 3, 0.0) for _ in range(3)] == [0.0, 0.0, 0.0]
    first, second = rate.take("a", 10.0, 3, 0.0), rate.take("a", 10.0, 3, 0.0)
    assert 9.0 < second <= first <= 10.0  # refused, so that the second is told no later moment
    waited = rate.take("a", 10.0, 3, 60.0)
    assert 9.0 < waited <= 10.0
    assert 19.0 < rate.take("a", 10.0, 3, 0.0) <= 20.0
    assert rate.take("b", 10.0, 3, 0.0) == 0.0, "another name is another limit"


def test_a_caller_that_comes_when_told_is_let_in(rate: RedisRate) -> None:
    """The moment told is the moment when there is room."""
    limited = Pipeline("told", RateLimit(20, shared=rate))
    limited.call(int)
    for _ in range(3):
        with pytest.raises(Overloaded) as refused:
            limited.call(int)
        assert refused.value.retry_after is not None
        time.sleep(refused.value.retry_after)
        limited.call(int)


def test_nothing_is_kept_for_ever(rate: RedisRate, redis_server: RedisServer) -> None:
    """The key lives until its moment has passed, and not longer."""
    rate.take("short", 0.2, 1, 0.0)
    with redis.Redis.from_url(redis_server.url) as client:
        assert 0 < client.pttl("resilient:rate:short") <= 200


def test_async_callers_share_it_too(rate: RedisRate) -> None:
    """Both faces take turns of the same limit."""

    async def main() -> float:
        try:
            assert await rate.atake("both", 10.0, 2, 0.0) == 0.0
            return await rate.atake("both", 10.0, 2, 0.0)
        finally:
            await rate.aclose()

    assert rate.take("both", 10.0, 2, 0.0) == 0.0
    assert asyncio.run(main()) > 9.0


@pytest.mark.parametrize("fault", ["kill", "freeze"])
def test_while_redis_is_away_the_process_limits_alone(
    redis_server: RedisServer, fault: str, limit: Callable[[float], float]
) -> None:
    """The limit stands, one call waits for the dead server in each pause, and sharing begins again by itself."""
    clock = FakeClock()
    rate = RedisRate(redis_server.url, timeout=limit(0.5) / 4, pause=5.0, clock=clock)
    limited = Pipeline("alone", RateLimit(0.01, burst=3, shared=rate))
    limited.call(int)
    getattr(redis_server, fault)()
    began = time.monotonic()
    for _ in range(3):
        limited.call(int)  # this process's own burst
    with pytest.raises(Overloaded):
        limited.call(int)
    assert time.monotonic() - began < limit(0.5), "the dead server was asked once"
    redis_server.heal()
    clock.advance(6.0)
    for _ in range(3):
        limited.call(int)  # the healed server is empty: a whole burst of the shared limit
    with pytest.raises(Overloaded):
        limited.call(int)
    rate.close()


def test_a_ready_client_serves_its_own_face(redis_server: RedisServer) -> None:
    """A client of the wrong face is told, and does not pass for a shared limit."""
    ready = redis.Redis.from_url(redis_server.url, socket_timeout=1.0)
    rate = RedisRate(ready)
    assert rate.take("ready", 10.0, 1, 0.0) == 0.0
    with pytest.raises(ConfigurationError, match="address of the server"):
        asyncio.run(rate.atake("ready", 10.0, 1, 0.0))
    ready.close()

    async def main() -> None:
        client = redis.asyncio.Redis.from_url(redis_server.url, socket_timeout=1.0)
        both = RedisRate(client)
        assert await both.atake("ready", 10.0, 1, 0.0) > 9.0
        with pytest.raises(ConfigurationError, match="address of the server"):
            both.take("ready", 10.0, 1, 0.0)
        await client.connection_pool.disconnect()

    asyncio.run(main())
