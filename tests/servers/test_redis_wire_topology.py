"""Clusters and sentinels by URL: moved slots, lost primaries, passwords and TLS."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import pytest
import redis

from resilient.policy.classify import Failure
from resilient.testing.servers import RedisServer, free_port
from resilient.wire.redis import Connector, classify, open_async_channel, open_channel
from resilient.wire.redis._commands import slot_of
from resilient.wire.redis._parsing import pack


def retry(step, seconds=15.0):
    """Call until it no longer fails; only errors of redis-py may come."""
    until = time.monotonic() + seconds
    while True:
        try:
            return step()
        except redis.RedisError:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)


async def retry_async(step, seconds=15.0):
    until = time.monotonic() + seconds
    while True:
        try:
            return await step()
        except redis.RedisError:
            if time.monotonic() > until:
                raise
            await asyncio.sleep(0.02)


def is_replica(server):
    if server.ask("ROLE")[0] == "master":
        raise redis.exceptions.ConnectionError("not yet")


# ----------------------------------------------------------------------------------------------------------- cluster


def test_a_lost_primary_is_replaced_under_reads_and_writes(redis_cluster, limit):
    """No call is slow, each failure is one the policies know, and the lost slots come back with the new primary."""
    keys = [f"k{number}" for number in range(30)]
    with open_channel(redis_cluster.url) as channel:
        assert channel.call_many([("SET", key, key) for key in keys]) == [b"OK"] * 30
        victim = redis_cluster.primary_of(slot_of(keys[0]))
        spared = next(key for key in keys if redis_cluster.primary_of(slot_of(key)) is not victim)
        for node in redis_cluster.primaries:
            node.command("WAIT", "1", "1000")  # replication is asynchronous: let it have happened
        victim.kill()
        until = time.monotonic() + 15
        slowest = 0.0
        failures = set()
        recovered = False
        while not recovered and time.monotonic() < until:
            with suppress(redis.exceptions.ClusterDownError):  # servers refuse all keys while some are lost, by default
                assert channel.call("GET", spared) == spared.encode()
            began = time.monotonic()
            try:
                recovered = channel.call("SET", keys[0], "new") == b"OK"
            except redis.RedisError as error:
                failures.add(classify(error).failure)
            slowest = max(slowest, time.monotonic() - began)
            time.sleep(0.02)
        assert recovered
        assert slowest < limit(0.4)
        assert failures <= {Failure.UNAVAILABLE, Failure.TIMEOUT}
        assert retry(lambda: channel.get_many(keys)) == [b"new", *(key.encode() for key in keys[1:])]


def test_async_a_lost_primary_is_replaced_under_reads_and_writes(redis_cluster, limit):
    """The same in an event loop, with a frozen primary instead of a dead one."""
    keys = [f"k{number}" for number in range(30)]

    async def main():
        async with open_async_channel(redis_cluster.url) as channel:
            assert await retry_async(lambda: channel.call_many([("SET", key, key) for key in keys])) == [b"OK"] * 30
            victim = redis_cluster.primary_of(slot_of(keys[0]))
            for node in redis_cluster.primaries:
                node.command("WAIT", "1", "1000")
            victim.freeze()
            until = time.monotonic() + 15
            slowest = 0.0
            failures = set()
            while time.monotonic() < until:
                began = time.monotonic()
                try:
                    await channel.call("SET", keys[0], "new")
                    break
                except redis.RedisError as error:
                    failures.add(classify(error).failure)
                slowest = max(slowest, time.monotonic() - began)
                await asyncio.sleep(0.02)
            assert slowest < limit(0.4)
            assert failures <= {Failure.UNAVAILABLE, Failure.TIMEOUT}
            found = await retry_async(lambda: channel.get_many(keys))
            assert found == [b"new", *(key.encode() for key in keys[1:])]

    asyncio.run(main())


@pytest.fixture
def moved(redis_cluster):
    """Moves a key's slot to another primary, after the channel has learnt the map; back again at the end."""
    done = []

    def move(key, *, finish=True):
        slot = str(slot_of(key))
        source = redis_cluster.primary_of(int(slot))
        target = next(node for node in redis_cluster.primaries if node is not source)
        target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
        for each in source.ask("CLUSTER", "GETKEYSINSLOT", slot, "100"):
            source.ask("MIGRATE", "127.0.0.1", str(target.port), each, "0", "1000")
        if finish:
            for node in (target, source):
                node.command("CLUSTER", "SETSLOT", slot, "NODE", target.id)
        done.append((slot, source, target, finish))

    yield move
    for slot, source, target, finish in reversed(done):
        for node in redis_cluster.primaries:
            node.command("FLUSHALL")
        if finish:
            for node in (source, target):
                node.command("CLUSTER", "SETSLOT", slot, "NODE", source.id)
        else:
            for node in (source, target):
                node.command("CLUSTER", "SETSLOT", slot, "STABLE")
        redis_cluster.wait_ready()


def test_a_moved_slot_is_followed(redis_cluster, moved):
    """MOVED costs one more trip and no error, for single commands, batches, scripts and blocking reads."""
    with open_channel(redis_cluster.url, connect_timeout=5.0, timeout=5.0) as channel:
        for key in ("a", "b", "c", "stream"):
            channel.call("PING")
            if key == "stream":
                channel.call("XADD", key, "1-1", "f", "v")
            else:
                channel.call("SET", key, key)
            moved(key)
        assert channel.call("GET", "a") == b"a"
        assert channel.get_many(["b", "a", "c", "none"]) == [b"b", b"a", b"c", None]
        assert channel.call_many([("SET", "b", 1), ("SET", "c", 2)]) == [b"OK", b"OK"]
        assert channel.block(0.1, "XREAD", "BLOCK", 100, "STREAMS", "stream", "0") is not None

    async def main():
        async with open_async_channel(redis_cluster.url, connect_timeout=5.0, timeout=5.0) as channel:
            await channel.call("GET", "elsewhere")
            assert await channel.get_many(["b", "c", "a"]) == [b"1", b"2", b"a"]

    asyncio.run(main())


def test_a_slot_on_the_move_is_asked_where_it_is(redis_cluster, moved):
    """While a slot migrates, ASK points to the key without changing the map, on both faces."""
    with open_channel(redis_cluster.url, connect_timeout=5.0, timeout=5.0) as channel:
        channel.call("SET", "wanderer", "here")
        moved("wanderer", finish=False)
        assert channel.call("GET", "wanderer") == b"here"
        assert channel.get_many(["wanderer", "x", "y"]) == [b"here", None, None]
        assert channel.call("SET", "wanderer", "there") == b"OK"

        async def main():
            async with open_async_channel(redis_cluster.url, connect_timeout=5.0, timeout=5.0) as channel:
                assert await channel.call("GET", "wanderer") == b"there"
                assert await channel.get_many(["x", "wanderer"]) == [None, b"there"]

        asyncio.run(main())


def test_keys_of_several_slots_in_one_command_are_refused_as_such(redis_cluster):
    """The server's word comes through; nothing is split behind the caller's back."""
    with open_channel(redis_cluster.url, connect_timeout=5.0, timeout=5.0) as channel:
        with pytest.raises(redis.exceptions.ResponseError):
            channel.call("MGET", "a", "b")
        assert channel.call("MGET", "{x}a", "{x}b") == [None, None]


def test_a_cluster_of_which_no_node_answers_is_an_error_in_time(limit):
    """Nobody there: an error of the family, within the limits, as often as one asks."""
    ports = [free_port() for _ in range(6)]
    with open_channel("redis+cluster://" + ",".join(f"127.0.0.1:{port}" for port in ports)) as channel:
        for _ in range(2):
            began = time.monotonic()
            with pytest.raises(redis.RedisError) as failure:
                channel.call("GET", "k")
            assert time.monotonic() - began < limit(0.4)
            assert classify(failure.value).no_effect


# ---------------------------------------------------------------------------------------------------------- sentinel


def test_after_a_failover_writes_go_to_the_new_primary(redis_sentinel):
    """The primary dies; the channel asks the sentinels again, and no caller need know."""
    with open_channel(redis_sentinel.url, connect_timeout=2.0, timeout=2.0) as channel:
        assert channel.call("SET", "k", "v") == b"OK"
        old = redis_sentinel.primary
        old.command("WAIT", "1", "1000")
        old.kill()
        with pytest.raises(redis.RedisError):
            channel.call("SET", "k", "w")
        assert retry(lambda: channel.call("SET", "k", "w")) == b"OK"
        assert redis_sentinel.wait_failover(old) is not old
        assert channel.call("GET", "k") == b"w"

        async def main():
            async with open_async_channel(redis_sentinel.url, connect_timeout=2.0, timeout=2.0) as channel:
                assert await channel.call("GET", "k") == b"w"

        asyncio.run(main())


def test_a_primary_that_became_a_replica_is_left(redis_sentinel):
    """A planned switch: the old server says READONLY or hangs up; the same call is answered by the new one."""

    async def main():
        async with open_async_channel(redis_sentinel.url, connect_timeout=2.0, timeout=2.0) as channel:
            with open_channel(redis_sentinel.url, connect_timeout=2.0, timeout=2.0) as other:
                assert await channel.call("SET", "k", "v") == b"OK"
                assert other.call("SET", "k", "v") == b"OK"
                old = redis_sentinel.primary
                old.command("WAIT", "1", "1000")
                redis_sentinel.sentinels[0].command("SENTINEL", "FAILOVER", redis_sentinel.service)
                new = redis_sentinel.wait_failover(old)
                await asyncio.to_thread(retry, lambda: is_replica(old))
                replies = other.call_many([("SET", "a", 1), ("SET", "b", 2)])
                assert replies == [b"OK", b"OK"]
                assert await channel.call("SET", "k", "w") == b"OK"
                assert new.ask("GET", "k") == "w"

    asyncio.run(main())


def test_whoever_finds_the_primary_silent_has_all_ask_for_it_anew(redis_sentinel):
    """A look that gets no answer in time leaves no other connection to a server that may be a replica soon."""
    with open_channel(redis_sentinel.url, connect_timeout=2.0, timeout=0.3) as channel:
        asked = [channel._node.begin(pack(("PING",)), 1, True) for _ in range(2)]  # at once, over two connections
        assert [each.finish() for each in asked] == [[b"PONG"], [b"PONG"]]
        assert len(channel._node._free) == 2
        silent = redis_sentinel.primary
        silent.freeze()
        try:
            with pytest.raises(redis.exceptions.TimeoutError):
                channel.get_many(["k"])
            assert not channel._node._free
        finally:
            silent.thaw()


def test_no_sentinel_is_an_error_in_time(limit):
    """Nobody to ask: an error of the family, within the limits."""
    with open_channel(f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{free_port()}/shop") as channel:
        began = time.monotonic()
        with pytest.raises(redis.exceptions.ConnectionError) as failure:
            channel.call("GET", "k")
        assert time.monotonic() - began < limit(0.4)
        assert classify(failure.value).no_effect


# ---------------------------------------------------------------------------------------------------- password and TLS


@pytest.mark.usefixtures("redis_server")  # says what is done where there is none
def test_a_password_is_said_and_never_shown():
    """The right one opens both faces; a wrong one is an error of authentication that does not repeat it."""
    with RedisServer(options={"requirepass": "right"}) as server:
        with open_channel(server.url, connect_timeout=5.0, timeout=5.0) as channel:
            assert channel.call("PING") == b"PONG"
            assert "right" not in repr(channel)

        async def main():
            async with open_async_channel(server.url, connect_timeout=5.0, timeout=5.0) as channel:
                assert await channel.call("PING") == b"PONG"
            async with open_async_channel(
                server.url.replace("right", "wrong-one"), connect_timeout=5.0, timeout=5.0
            ) as channel:
                with pytest.raises(redis.RedisError) as failure:
                    await channel.call("PING")
                assert classify(failure.value).failure is Failure.AUTH

        asyncio.run(main())
        with open_channel(server.url.replace("right", "wrong-one"), connect_timeout=5.0, timeout=5.0) as channel:
            with pytest.raises(redis.RedisError) as failure:
                channel.call("PING")
            assert classify(failure.value).failure is Failure.AUTH
            assert "wrong-one" not in str(failure.value)


def test_tls_works_on_both_faces(tls_server):
    """The certificate is checked by redis-py's own connection; large values cross in many pieces."""
    big = b"x" * 2_000_000
    with open_channel(tls_server, connect_timeout=5.0, timeout=5.0) as channel:
        assert channel.call("SET", "k", big) == b"OK"
        assert channel.call("GET", "k") == big
        time.sleep(1.1)  # an idle connection is looked at before it is used
        assert channel.call_many([("STRLEN", "k"), ("GET", "none")]) == [len(big), None]

    async def main():
        async with open_async_channel(tls_server, connect_timeout=5.0, timeout=5.0) as channel:
            assert await channel.call("GET", "k") == big
            assert await asyncio.gather(*(channel.call("STRLEN", "k") for _ in range(50))) == [len(big)] * 50

    asyncio.run(main())
    with open_channel(tls_server.partition("?")[0]) as channel, pytest.raises(redis.RedisError):
        channel.call("PING")  # nobody vouches for the certificate


def test_a_socket_file_works(redis_server, tmp_path):
    """A server behind a socket file, with a database, by both channel and plain client."""
    path = tmp_path / "redis.sock"
    with RedisServer(options={"unixsocket": str(path)}):
        with open_channel(f"unix://{path}?db=1", connect_timeout=5.0, timeout=5.0) as channel:
            assert channel.call("SET", "k", "v") == b"OK"
        connector = Connector(f"unix://{path}?db=1")
        assert connector.get().get("k") == b"v"
        connector.close()
