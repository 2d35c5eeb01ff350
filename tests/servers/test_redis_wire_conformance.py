"""Whatever a channel leads to, the same commands get the same replies."""

from __future__ import annotations

import asyncio

import fakeredis
import pytest
import redis
import redis.asyncio
import redis.asyncio.cluster
import redis.asyncio.sentinel
import redis.cluster
import redis.sentinel

from resilient.wire.redis import Script, classify, open_async_channel, open_channel

PAIR = Script("redis.call('SET', KEYS[1], ARGV[1]) return {KEYS[1], ARGV[1], 7}")
LIMITS = {"socket_timeout": 5.0, "socket_connect_timeout": 5.0}


def version(protocol):
    return {"protocol": protocol, **LIMITS}


def address(server):
    return {"host": "127.0.0.1", "port": server.port}


TARGETS = {
    "redis": ("redis_server", lambda server: (server.url, server.url)),
    "valkey": ("valkey_server", lambda server: (server.url.replace("redis://", "valkey://"),) * 2),
    "cluster": ("redis_cluster", lambda cluster: (cluster.url, cluster.url)),
    "sentinel": ("redis_sentinel", lambda watched: (watched.url, watched.url)),
    "ready-2": (
        "redis_server",
        lambda server: (
            redis.Redis(**address(server), **version(2)),
            redis.asyncio.Redis(**address(server), **version(2)),
        ),
    ),
    "ready-3": (
        "redis_server",
        lambda server: (
            redis.Redis(**address(server), **version(3)),
            redis.asyncio.Redis(**address(server), **version(3)),
        ),
    ),
    "ready-cluster": (
        "redis_cluster",
        lambda cluster: (
            redis.cluster.RedisCluster(**address(cluster.nodes[0]), **LIMITS),
            redis.asyncio.cluster.RedisCluster(**address(cluster.nodes[0]), **LIMITS),
        ),
    ),
    "ready-sentinel": (
        "redis_sentinel",
        lambda watched: (
            redis.sentinel.Sentinel(places(watched), **LIMITS).master_for(watched.service),
            redis.asyncio.sentinel.Sentinel(places(watched), **LIMITS).master_for(watched.service),
        ),
    ),
    "fake": ("tmp_path", lambda _: (fakeredis.FakeRedis(), fakeredis.FakeAsyncRedis())),
}


def places(watched):
    return [("127.0.0.1", sentinel.port) for sentinel in watched.sentinels]


def steps():
    """Methods of a channel with arguments and the reply each must give."""
    yield "call", ("SET", "k", b"v"), b"OK"
    yield "call", ("SET", "k", "w", "NX"), None
    yield "call", ("SET", "k", "w", "PX", 60000, "GET"), b"v"
    yield "call", ("GET", "k"), b"w"
    yield "call", ("GET", "none"), None
    yield "call", ("EXPIRE", "k", 100), 1
    yield "call", ("EXISTS", "k"), 1
    yield "call", ("INCR", "n"), 1
    yield "call", ("INCRBYFLOAT", "f", 1.5), b"1.5"
    yield "call", ("HSET", "h", "a", 1), 1
    yield "call", ("HGETALL", "h"), [b"a", b"1"]
    yield "call", ("ZADD", "z", 1.5, "m", 2, "o"), 2
    yield "call", ("ZRANGE", "z", 0, -1, "WITHSCORES"), [b"m", b"1.5", b"o", b"2"]
    yield "call", ("ZSCORE", "z", "m"), b"1.5"
    yield "call", ("PING",), b"PONG"
    entry = [[b"s", [[b"1-1", [b"f", b"v"]]]]]
    yield "call", ("XADD", "s", "1-1", "f", "v"), b"1-1"
    yield "call", ("XREAD", "STREAMS", "s", "0"), entry
    yield "block", (0.5, "XREAD", "BLOCK", 500, "STREAMS", "s", "0"), entry
    yield "block", (0.02, "XREAD", "BLOCK", 20, "STREAMS", "s", "$"), None
    yield "script", (PAIR, ["p"], ["1"]), [b"p", b"1", 7]
    yield "script", (PAIR, ["p"], ["2"]), [b"p", b"2", 7]
    runs = [([f"p{at}"], [str(at)]) for at in range(20)]
    yield "script_many", (PAIR, runs), [[b"p%d" % at, b"%d" % at, 7] for at in range(20)]
    yield "get_many", ([f"p{at}" for at in range(21)],), [b"%d" % at for at in range(20)] + [None]
    yield "get_many", ([],), []
    yield "get_many", (["k", "h"],), [b"w", None]
    yield "call_many", ([("SET", f"q{at}", at) for at in range(20)],), [b"OK"] * 20
    yield "call_many", ([("GET", f"q{at}") for at in range(20)],), [b"%d" % at for at in range(20)]
    yield "call_many", ([],), []
    yield "call", ("SET", b"\x00\xff{", b"\r\n$3\r\n"), b"OK"
    yield "call", ("GET", b"\x00\xff{"), b"\r\n$3\r\n"
    yield "call", ("SET", "big", b"x" * 3_000_000), b"OK"
    yield "call", ("STRLEN", "big"), 3_000_000
    yield "call", ("GET", "big"), b"x" * 3_000_000
    yield "call", ("DEL", "big"), 1


@pytest.fixture(params=TARGETS)
def targets(request):
    fixture, make = TARGETS[request.param]
    return make(request.getfixturevalue(fixture))


def fresh_scripts(channel):
    """The servers forget their scripts, so that bringing the text along is tested too."""
    return channel.call_many([("EVAL", "return redis.call('SCRIPT', 'FLUSH')", 1, key) for key in ("a", "b", "c")])


def judge(result):
    assert isinstance(result, redis.ResponseError)
    verdict = classify(result)
    assert verdict is not None
    assert verdict.failure.name == "INVALID"


def test_the_sync_face_gives_the_same_replies_everywhere(targets):
    """Each command, batch and script gets the reply of the protocol's second version; errors are redis-py's."""
    ready = targets[0]
    with open_channel(ready, connect_timeout=5.0, timeout=5.0) as channel:
        for method, args, expected in steps():
            assert getattr(channel, method)(*args) == expected, (method, args[:4])
        with pytest.raises(redis.ResponseError) as failure:
            channel.call("LPUSH", "k", "x")
        judge(failure.value)
        good, bad = channel.call_many([("GET", "k"), ("LPUSH", "k", "x")])
        assert good == b"w"
        judge(bad)
    if not isinstance(ready, str):
        assert ready.get("k") == b"w"  # who made it may go on using it
        ready.close()


def test_the_async_face_gives_the_same_replies_everywhere(targets):
    """The same, in an event loop."""

    async def main():
        ready = targets[1]
        async with open_async_channel(ready, connect_timeout=5.0, timeout=5.0) as channel:
            for method, args, expected in steps():
                assert await getattr(channel, method)(*args) == expected, (method, args[:4])
            with pytest.raises(redis.ResponseError) as failure:
                await channel.call("LPUSH", "k", "x")
            judge(failure.value)
            good, bad = await channel.call_many([("GET", "k"), ("LPUSH", "k", "x")])
            assert good == b"w"
            judge(bad)
        if not isinstance(ready, str):
            assert await ready.get("k") == b"w"
            pool = getattr(ready, "connection_pool", None)
            manager = getattr(pool, "sentinel_manager", None)
            for client in (ready, *(manager.sentinels if manager else ())):
                await getattr(client, "aclose", client.close)()  # redis-py 5.0.0 has close() only
            if pool is not None:
                await pool.disconnect()
            targets[0].close()

    asyncio.run(main())
