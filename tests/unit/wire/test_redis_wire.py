"""How errors of redis-py are judged, and what a connector is made of."""

from __future__ import annotations

import asyncio
import socket
import time

import fakeredis
import pytest
import redis

from resilient.errors import ConfigurationError
from resilient.policy import deadline
from resilient.policy.classify import Failure
from resilient.wire.redis import AsyncConnector, Connector, classify


@pytest.mark.parametrize(
    ("error", "failure", "no_effect"),
    [
        (redis.exceptions.ReadOnlyError("x"), Failure.READ_ONLY, True),
        (redis.exceptions.AuthenticationError("x"), Failure.AUTH, True),
        (redis.exceptions.NoPermissionError("x"), Failure.AUTH, True),
        (redis.exceptions.OutOfMemoryError("x"), Failure.THROTTLED, True),
        (redis.exceptions.BusyLoadingError("x"), Failure.UNAVAILABLE, True),
        (redis.exceptions.ClusterDownError("x"), Failure.UNAVAILABLE, True),
        (redis.exceptions.WatchError("x"), Failure.CONFLICT, True),
        (redis.exceptions.ResponseError("WRONGTYPE"), Failure.INVALID, True),
        (redis.exceptions.TimeoutError("Timeout reading from socket"), Failure.TIMEOUT, False),
        (redis.exceptions.TimeoutError("Timeout connecting to server"), Failure.TIMEOUT, True),
        (redis.exceptions.ConnectionError("Connection closed by server."), Failure.UNAVAILABLE, False),
        (redis.exceptions.ConnectionError("Error 111 connecting to localhost:1."), Failure.UNAVAILABLE, True),
        (redis.exceptions.ConnectionError("No connection available."), Failure.THROTTLED, True),
        (redis.exceptions.RedisError("x"), Failure.PERMANENT, False),
    ],
    ids=lambda value: repr(value) if isinstance(value, Exception) else "",
)
def test_errors_are_judged(error: Exception, failure: Failure, no_effect: bool) -> None:
    """Each error of redis-py says what kind it is, and whether the command can have taken effect."""
    verdict = classify(error)
    assert verdict is not None
    assert (verdict.failure, verdict.no_effect) == (failure, no_effect)


def test_other_errors_are_left_to_others() -> None:
    """A classifier answers only for its own library."""
    assert classify(ValueError()) is None


def test_a_refused_connection_is_known_to_have_done_nothing() -> None:
    """The error as redis-py raises it for a closed port: the command never left, and there was no retry."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        client = Connector(f"redis://127.0.0.1:{taken.getsockname()[1]}/0").get()
        with pytest.raises(redis.exceptions.ConnectionError) as failure:
            client.get("k")
    verdict = classify(failure.value)
    assert verdict is not None
    assert verdict.no_effect


@pytest.fixture
def silent() -> socket.socket:
    """A port that accepts and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(20)
        yield server  # type: ignore[misc]


def test_a_silent_server_costs_the_limit_or_what_the_deadline_leaves(silent: socket.socket) -> None:
    """Both faces wait for their own limit, and for less where the caller has less."""
    url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"

    def spent(client: redis.Redis) -> float:
        began = time.monotonic()
        with pytest.raises(redis.exceptions.TimeoutError):
            client.get("k")
        return time.monotonic() - began

    assert 0.04 <= spent(Connector(url).get()) < 0.5
    patient = Connector(url, timeout=30.0).get()
    with deadline(0.1):
        assert 0.05 <= spent(patient) < 0.5

    async def main() -> None:
        connector = AsyncConnector(url, timeout=30.0)
        began = time.monotonic()
        with deadline(0.1), pytest.raises(redis.exceptions.TimeoutError):
            await connector.get().get("k")
        assert 0.05 <= time.monotonic() - began < 0.5
        await connector.aclose()

    asyncio.run(main())


def test_a_connector_says_who_closes_the_client() -> None:
    """A ready client stays open when its connector is closed; a fake in this process counts as bounded."""
    ready = fakeredis.FakeRedis()
    connector = Connector(ready)
    assert connector.get() is ready
    assert not connector.owned
    connector.close()
    ready.set("k", 1)
    assert Connector("redis://127.0.0.1:1").owned

    async def main() -> None:
        ready = fakeredis.FakeAsyncRedis()
        connector = AsyncConnector(ready)
        await connector.aclose()
        assert connector.get() is ready
        await ready.set("k", 1)
        await getattr(ready, "aclose", ready.close)()  # redis-py 5.0.0 has close() only

    asyncio.run(main())


def test_each_event_loop_has_a_client_of_its_own() -> None:
    """One connector serves several loops, one after the other, without sharing sockets between them."""
    connector = AsyncConnector("redis://127.0.0.1:1")

    async def client() -> object:
        assert connector.get() is connector.get()
        return connector.get()

    first, second = asyncio.run(client()), asyncio.run(client())
    assert first is not second


@pytest.mark.parametrize("target", ["localhost:6379", "http://x", "redis://x/0?decode_responses=yes", "redis://x?no=1"])
def test_a_wrong_address_is_found_where_it_is_given(target: str) -> None:
    """No socket is needed to refuse it; the message holds no address, which might hold a password."""
    for face in (Connector, AsyncConnector):
        with pytest.raises(ConfigurationError) as failure:
            face(target)
        assert target not in str(failure.value)
