"""What a channel does when its server dies, hangs, closes connections or is asked too much."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import socket
import threading
import time
from contextlib import contextmanager, suppress

import pytest
import redis
from asgiref.sync import async_to_sync
from redis.exceptions import ConnectionError as LostError
from redis.exceptions import TimeoutError as LateError

from resilient.policy import deadline
from resilient.policy.classify import Failure
from resilient.wire.redis import _parsing as parsing
from resilient.wire.redis import classify, open_async_channel, open_channel


@pytest.fixture(params=["hiredis", "redis-py"])
def parser(request, monkeypatch):
    """Both ways to read replies."""
    if request.param == "redis-py":
        monkeypatch.setattr(parsing, "hiredis", None)
    return request.param


@contextmanager
def within(least, most):
    began = time.monotonic()
    yield
    assert least <= time.monotonic() - began <= most


def eventually(step):
    """Call until it does not come too late: this machine may be slower than the limits of a channel."""
    until = time.monotonic() + 10
    while True:
        try:
            return step()
        except LateError:
            if time.monotonic() > until:
                raise


async def eventually_async(step):
    until = time.monotonic() + 10
    while True:
        try:
            return await step()
        except LateError:
            if time.monotonic() > until:
                raise


def failure_of(error):
    verdict = classify(error)
    assert verdict is not None
    return verdict.failure


# -------------------------------------------------------------------------------------------------- dead and frozen


def test_a_killed_server_is_told_at_once_and_a_restarted_one_is_used(redis_server, parser):
    """The first call fails within the time to connect, writes are not sent twice, and no caller need reconnect."""
    with open_channel(redis_server.url, connect_timeout=5.0, timeout=5.0) as channel:
        channel.call("SET", "k", "v")
        redis_server.kill()
        with within(0, 0.5), pytest.raises(LostError) as failure:
            channel.call("GET", "k")
        assert failure_of(failure.value) is Failure.UNAVAILABLE
        with within(0, 0.5), pytest.raises(LostError):
            channel.call("SET", "k", "v")
        redis_server.restart()
        assert channel.call("SET", "k", "w") == b"OK"
        redis_server.restart()
        assert channel.call("GET", "k") is None  # the old connection was dead; what only reads went over a new one


def test_async_a_killed_server_is_told_at_once_and_a_restarted_one_is_used(redis_server, parser):
    """The same in an event loop."""

    async def main():
        async with open_async_channel(redis_server.url, connect_timeout=5.0, timeout=5.0) as channel:
            await channel.call("SET", "k", "v")
            redis_server.kill()
            with within(0, 0.5), pytest.raises(LostError) as failure:
                await channel.call("GET", "k")
            assert failure_of(failure.value) is Failure.UNAVAILABLE
            redis_server.restart()
            assert await channel.call("SET", "k", "w") == b"OK"
            redis_server.restart()
            assert await channel.call("GET", "k") is None

    asyncio.run(main())


def test_a_frozen_server_costs_the_limit_and_its_connection(redis_server, parser):
    """Old connections and new ones wait for the limit; the late reply of an old call is never a new one's."""
    with open_channel(redis_server.url) as channel:
        eventually(lambda: channel.call("SET", "a", "1"))
        redis_server.freeze()
        for key in ("a", "b", "c"):
            with within(0.04, 0.3), pytest.raises(LateError) as failure:
                channel.call("GET", key)
            assert failure_of(failure.value) is Failure.TIMEOUT
        redis_server.thaw()
        assert eventually(lambda: channel.call("GET", "none")) is None
        assert eventually(lambda: channel.call("GET", "a")) == b"1"


def test_async_a_frozen_server_fails_all_who_wait(redis_server, parser):
    """Fifty waiting calls end within the limit; a later call gets its own reply."""

    async def main():
        async with open_async_channel(redis_server.url) as channel:
            await eventually_async(lambda: channel.call("SET", "a", "1"))
            redis_server.freeze()
            with within(0.04, 0.5):
                found = await asyncio.gather(*(channel.call("GET", "a") for _ in range(50)), return_exceptions=True)
            assert {failure_of(error) for error in found} <= {Failure.TIMEOUT, Failure.UNAVAILABLE}
            assert any(isinstance(error, LateError) for error in found)
            redis_server.thaw()
            await asyncio.sleep(0.05)
            assert await eventually_async(lambda: channel.call("GET", "none")) is None
            assert await eventually_async(lambda: channel.call("GET", "a")) == b"1"

    asyncio.run(main())


@pytest.mark.parametrize("harm", ["reset", "cut", "stall", "swallow_answers"])
def test_a_broken_network_is_an_error_in_time_and_then_forgotten(redis_server, tcp_proxy, harm, parser):
    """Cut, reset, stalled or deaf: a write fails within its limits, and works again once the network does."""
    proxy = tcp_proxy(redis_server.port)
    with open_channel(proxy.through(redis_server.url)) as channel:
        eventually(lambda: channel.call("SET", "k", "v"))
        getattr(proxy, harm)()
        if harm == "reset":
            assert (
                eventually(lambda: channel.call("GET", "k")) == b"v"
            )  # one dead connection is no failure for what only reads
        else:
            with within(0, 0.3), pytest.raises(redis.RedisError):
                channel.call("INCR", "n")
        proxy.restore()
        assert eventually(lambda: channel.call("GET", "k")) == b"v"


@pytest.mark.parametrize("harm", ["reset", "cut", "stall", "swallow_answers"])
def test_async_a_broken_network_is_an_error_in_time_and_then_forgotten(redis_server, tcp_proxy, harm, parser):
    """The same in an event loop."""
    proxy = tcp_proxy(redis_server.port)

    async def main():
        async with open_async_channel(proxy.through(redis_server.url)) as channel:
            await eventually_async(lambda: channel.call("SET", "k", "v"))
            getattr(proxy, harm)()
            if harm != "reset":
                with within(0, 0.3), pytest.raises(redis.RedisError):
                    await channel.call("INCR", "n")
            proxy.restore()
            assert await eventually_async(lambda: channel.call("GET", "k")) == b"v"

    asyncio.run(main())


def test_a_write_whose_answer_is_lost_is_not_sent_again(redis_server, tcp_proxy):
    """It took effect once: the caller is told that nobody knows, and decides."""
    proxy = tcp_proxy(redis_server.port)
    with open_channel(proxy.through(redis_server.url)) as channel:
        eventually(lambda: channel.call("SET", "n", 0))
        proxy.swallow_answers()
        with pytest.raises(LateError) as failure:
            channel.call("INCR", "n")
        assert not classify(failure.value).no_effect
        proxy.restore()
        assert eventually(lambda: channel.call("GET", "n")) == b"1"


@pytest.fixture
def dribbling():
    """A server that answers a GET a byte every 30 ms, for three seconds."""

    def serve(connection):
        with connection, suppress(OSError):
            while data := connection.recv(4096):
                if b"GET" not in data:
                    connection.sendall(b"+OK\r\n" * data.count(b"*"))
                    continue
                connection.sendall(b"$100\r\n")
                for _ in range(100):
                    time.sleep(0.03)
                    connection.sendall(b"x")

    def accept():
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        threading.Thread(target=accept, daemon=True).start()
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


def test_a_server_that_dribbles_does_not_get_the_limit_anew_for_each_drop(dribbling):
    """The limit is for the whole reply, however many pieces it comes in, on both faces."""
    with open_channel(dribbling, timeout=0.1) as channel, within(0.08, 0.6), pytest.raises(LateError):
        channel.call("GET", "k")

    async def main():
        async with open_async_channel(dribbling, timeout=0.1) as channel:
            with within(0.08, 0.6), pytest.raises(LateError):
                await channel.call("GET", "k")

    asyncio.run(main())


# ---------------------------------------------------------------------------------------------------------- deadline


def test_a_nearer_deadline_ends_a_call(redis_server, parser):
    """Connecting, waiting for a reply and a batch end with the caller's deadline, not with the channel's limit."""
    with open_channel(redis_server.url, connect_timeout=30.0, timeout=30.0) as channel:
        channel.call("PING")
        redis_server.freeze()
        for call in (lambda: channel.call("GET", "k"), lambda: channel.call_many([("GET", "k"), ("GET", "l")])):
            with deadline(0.1), within(0.05, 0.5), pytest.raises(LateError):
                call()


def test_async_a_nearer_deadline_ends_one_call_and_leaves_the_others(redis_server):
    """A caller in a hurry goes away alone: the connection and the others' replies stay right."""

    async def main():
        async with open_async_channel(redis_server.url, connect_timeout=5.0, timeout=5.0) as channel:
            await channel.call("SET", "a", "1")
            redis_server.freeze()
            patient = [asyncio.create_task(channel.call("GET", "a")) for _ in range(3)]
            await asyncio.sleep(0)
            with deadline(0.1), within(0.05, 0.5), pytest.raises(LateError):
                await channel.call("GET", "hurried")
            more = asyncio.create_task(channel.call("SET", "b", "2"))
            await asyncio.sleep(0.01)
            redis_server.thaw()
            assert await asyncio.gather(*patient, more) == [b"1", b"1", b"1", b"OK"]
            assert await channel.call("GET", "b") == b"2"

    asyncio.run(main())


# ------------------------------------------------------------------------------------------------------- exhaustion


def test_more_callers_than_connections_wait_and_are_then_refused(redis_server):
    """Who finds no free connection waits as long as one may take, and the refusal says nothing of the server."""
    url = f"{redis_server.url}?max_connections=2"
    with open_channel(url, timeout=0.1) as channel:
        redis_server.command("CLIENT", "PAUSE", "400", "ALL")
        outcomes = []

        def ask():
            try:
                outcomes.append(channel.call("GET", "k"))
            except redis.RedisError as error:
                outcomes.append(failure_of(error))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert Failure.THROTTLED in outcomes
        assert set(outcomes) <= {Failure.THROTTLED, Failure.TIMEOUT}
        time.sleep(0.4)
        assert channel.call("GET", "k") is None


def test_few_connections_serve_many_threads(redis_server):
    """Twenty threads over three connections: each gets its own replies, and no more connections are made."""
    with open_channel(f"{redis_server.url}?max_connections=3", connect_timeout=10.0, timeout=10.0) as channel:
        wrong = []

        def work(number):
            for turn in range(50):
                key = f"{number}:{turn}"
                channel.call("SET", key, key)
                if channel.call("GET", key) != key.encode():
                    wrong.append(key)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        clients = int(redis_server.ask("INFO", "clients").split("connected_clients:")[1].split()[0])
        for thread in threads:
            thread.join()
        assert not wrong
        assert clients <= 5  # three, and the one that asks


# ----------------------------------------------------------------------------------------------------- forks and loops


def test_a_forked_child_has_connections_of_its_own(redis_server, parser):
    """Parent and child go on with one channel: neither reads the other's replies or closes the other's sockets."""
    with open_channel(redis_server.url, connect_timeout=10.0, timeout=10.0) as channel:
        channel.call("SET", "who", "parent")
        child = os.fork()
        if child == 0:
            status = 1
            try:
                good = all(channel.call("ECHO", f"child {turn}") == f"child {turn}".encode() for turn in range(200))
                status = 0 if good else 2
            finally:
                os._exit(status)
        for turn in range(200):
            assert channel.call("ECHO", f"parent {turn}") == f"parent {turn}".encode()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert channel.call("GET", "who") == b"parent"


def test_each_event_loop_has_connections_of_its_own(redis_server, parser):
    """One channel serves two loops, one after the other and at the same time."""
    channel = open_async_channel(redis_server.url, connect_timeout=10.0, timeout=10.0)

    async def use(name):
        for turn in range(20):
            assert await channel.call("ECHO", f"{name} {turn}") == f"{name} {turn}".encode()
        await channel.aclose()

    asyncio.run(use("first"))
    asyncio.run(use("second"))
    threads = [threading.Thread(target=asyncio.run, args=(use(f"thread {number}"),)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("run", [lambda use: asyncio.run(use()), lambda use: async_to_sync(use)()], ids=["run", "view"])
def test_a_loop_that_ends_takes_its_connections_along(redis_server, parser, run):
    """One loop per request, as async views have under WSGI: each closes what it has opened, and nothing complains."""
    channel = open_async_channel(redis_server.url, connect_timeout=10.0, timeout=10.0)

    async def use():
        assert await channel.call("PING") == b"PONG"
        assert await channel.block(5.0, "BLPOP", "nothing", "0.01") is None
        return [stream for node in (channel._node, channel._blocking) for stream in node._lane().streams()]

    streams = [stream for _ in range(5) for stream in run(use)]
    assert len(streams) == 10
    assert all(stream.closed for stream in streams)
    gc.collect()


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_loop_that_is_closed_as_it_stands_leaves_no_connection(redis_server, parser):
    """Loops that are closed without ending what runs in them: the server sees one connection, not one for each."""
    channel = open_async_channel(redis_server.url, connect_timeout=10.0, timeout=10.0)

    async def use():
        assert await channel.call("PING") == b"PONG"

    for _ in range(10):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(use())
        loop.close()
    clients = int(redis_server.ask("INFO", "clients").split("connected_clients:")[1].split()[0])
    assert clients <= 3

    async def end():
        await channel.call("PING")
        await channel.aclose()

    asyncio.run(end())
    gc.collect()


def test_async_a_forked_child_does_not_disturb_the_parent(redis_server, parser):
    """A child that collects its copies of the parent's connections takes none from the loop that waits on them."""

    async def main():
        async with open_async_channel(redis_server.url, connect_timeout=10.0, timeout=10.0) as channel:
            assert await channel.call("PING") == b"PONG"
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    gc.collect()
                    status = 0
                finally:
                    os._exit(status)
            _, status = await asyncio.to_thread(os.waitpid, child, 0)
            assert os.waitstatus_to_exitcode(status) == 0
            assert await channel.call("PING") == b"PONG"

    asyncio.run(main())


def test_async_cancelled_callers_never_shift_replies(redis_server, parser):
    """Thousands of calls, a third of them cancelled at any moment: whoever stays gets his own reply."""
    calls = 10_000 if parser == "hiredis" else 1_000

    async def main():
        chance = random.Random(7)
        async with open_async_channel(redis_server.url, connect_timeout=10.0, timeout=10.0) as channel:

            async def ask(text):
                return await channel.call("ECHO", text)

            async def ask_many(text):
                return await channel.call_many([("ECHO", text), ("ECHO", text + "'")])

            wrong = 0
            for _ in range(calls // 100):
                batch = [f"{chance.random()}" for _ in range(100)]
                many = [chance.random() < 0.2 for _ in batch]
                tasks = [
                    asyncio.create_task(ask_many(text) if several else ask(text))
                    for text, several in zip(batch, many, strict=True)
                ]
                for _ in range(chance.randrange(4)):
                    await asyncio.sleep(0 if chance.random() < 0.7 else 0.0005)
                for task in tasks:
                    if chance.random() < 0.33:
                        task.cancel()
                found = await asyncio.gather(*tasks, return_exceptions=True)
                for text, several, reply in zip(batch, many, found, strict=True):
                    expected = [text.encode(), f"{text}'".encode()] if several else text.encode()
                    # Without hiredis a cancelled call may take its connection with it: an error, no wrong reply.
                    lost = isinstance(reply, asyncio.CancelledError) or (
                        parser != "hiredis" and isinstance(reply, LostError)
                    )
                    wrong += not lost and reply != expected
            assert wrong == 0
            assert await channel.call("ECHO", "end") == b"end"

    asyncio.run(main())


def test_async_a_blocking_read_does_not_hold_up_the_others(redis_server):
    """Who waits on the server has a connection of his own, wakes when something comes, and may be cancelled."""

    async def main():
        async with open_async_channel(redis_server.url, timeout=1.0) as channel:
            waiting = asyncio.create_task(channel.block(2.0, "XREAD", "BLOCK", 2000, "STREAMS", "s", "0"))
            given_up = asyncio.create_task(channel.block(2.0, "XREAD", "BLOCK", 2000, "STREAMS", "other", "0"))
            await asyncio.sleep(0.05)
            with within(0, 0.5):
                assert await channel.call("GET", "k") is None
                given_up.cancel()
                await channel.call("XADD", "s", "1-1", "f", "v")
                assert await waiting == [[b"s", [[b"1-1", [b"f", b"v"]]]]]
            assert await channel.block(0.02, "XREAD", "BLOCK", 20, "STREAMS", "other", "0") is None

    asyncio.run(main())


def test_a_blocking_read_may_last_longer_than_the_limit_of_a_call(redis_server):
    """The limit of a waiting command is the time it waits; a frozen server ends it a little later."""
    with open_channel(redis_server.url) as channel:
        with within(0.2, 0.5):
            assert channel.block(0.2, "XREAD", "BLOCK", 200, "STREAMS", "s", "0") is None
        redis_server.freeze()
        with within(0.5, 1.5), pytest.raises(LateError):
            channel.block(0.1, "XREAD", "BLOCK", 100, "STREAMS", "s", "0")
