"""Clients of redis-py with short time limits that obey deadlines, and what is demanded of a ready one."""

from __future__ import annotations

from typing import Any

from resilient.errors import ConfigurationError, needs_extra
from resilient.runtime import PerLoop, after_fork
from resilient.wire.redis._addresses import Address, single
from resilient.wire.redis._dialing import ASYNC, SYNC, dialer, limits_of, no_retry
from resilient.wire.redis._limits import CONNECTIONS

with needs_extra("redis"):
    import redis
    import redis.asyncio

__all__ = ["AsyncConnector", "Connector", "check_ready", "connection_options"]


def _pool(kind: Any, classes: dict[str, type], url: str, connect_timeout: float, timeout: float) -> Any:
    address = Address.parse(url)
    dialer(address, limits_of(address, connect_timeout, timeout), classes)  # finds words that are not known
    try:
        pool = kind.from_url(
            single(url),
            socket_connect_timeout=connect_timeout,
            socket_timeout=timeout,
            max_connections=CONNECTIONS,
            timeout=timeout,
            retry=no_retry(classes),
            protocol=2,  # the shorter handshake, understood by every server
        )
    except (ValueError, TypeError) as error:
        raise ConfigurationError("the address of this Redis server has a word that is not known") from error
    pool.connection_class = classes[address.way]
    return pool


# ----------------------------------------------------------------------------------------------------- connectors


class Connector:
    """A sync client and the answer to who closes it.

    Args:
        target: A URL (``redis://``, ``rediss://``, ``unix://``) or a ready `redis.Redis` or ``RedisCluster``.
        connect_timeout: Seconds to connect; for clients made here.
        timeout: Seconds for each read or write, and to wait for a free connection; for clients made here.
        unbounded: Accept a ready client that has no time limit of its own.

    Raises:
        ConfigurationError: The address is none, or the ready client is async, decodes answers or could wait for ever.
    """

    def __init__(
        self, target: Any, *, connect_timeout: float = 0.1, timeout: float = 0.05, unbounded: bool = False
    ) -> None:
        self.owned = isinstance(target, str)
        self._client: Any
        if self.owned:
            pool = _pool(redis.BlockingConnectionPool, SYNC, target, connect_timeout, timeout)
            self._client = redis.Redis(connection_pool=pool)
            after_fork(self._forget)
        else:
            check_ready(target, asynchronous=False, unbounded=unbounded)
            self._client = target

    def get(self) -> Any:
        """The client. Safe to share between threads, and to use in a forked child."""
        return self._client

    def _forget(self) -> None:
        self._client.connection_pool.reset()  # the sockets are the parent's: dropped here, not shut down

    def close(self) -> None:
        """Close the connections, if they were made here."""
        if self.owned:
            self._client.connection_pool.disconnect()


class AsyncConnector:
    """Like `Connector` for `redis.asyncio`: one client for each event loop, made on first use in it.

    A ready client belongs to the loop that its user runs it in.
    """

    def __init__(
        self, target: Any, *, connect_timeout: float = 0.1, timeout: float = 0.05, unbounded: bool = False
    ) -> None:
        self.owned = isinstance(target, str)
        self._ready = None if self.owned else target
        self._target = target
        self._limits = (connect_timeout, timeout)
        self._clients: PerLoop[Any] = PerLoop(self._make)
        if self.owned:
            self._make()  # a wrong address is found here; no socket is opened
            after_fork(self._forget)
        else:
            check_ready(target, asynchronous=True, unbounded=unbounded)

    def _make(self) -> Any:
        pool = _pool(redis.asyncio.BlockingConnectionPool, ASYNC, self._target, *self._limits)
        return redis.asyncio.Redis(connection_pool=pool)

    def get(self) -> Any:
        """The client of the running loop."""
        return self._ready or self._clients.get()

    def _forget(self) -> None:
        self._clients = PerLoop(self._make)

    async def aclose(self) -> None:
        """Close the running loop's connections, if they were made here."""
        if self.owned:
            await self._clients.get().connection_pool.disconnect()


def _decoding() -> ConfigurationError:
    return ConfigurationError(
        "this client turns answers into text, and entries are bytes", advice="make it with decode_responses=False"
    )


def check_ready(client: Any, *, asynchronous: bool, unbounded: bool) -> None:
    module = next((each.__module__ for each in type(client).__mro__ if each.__module__.startswith("redis.")), None)
    if module is None:
        raise ConfigurationError(
            f"a {type(client).__name__} is neither the address of a Redis server nor a client of redis-py"
        )
    if module.startswith("redis.asyncio") is not asynchronous:
        wanted, face = ("redis.asyncio", "sync") if asynchronous else ("redis", "async")
        raise ConfigurationError(f"this client has the {face} face", advice=f"pass a client of the package {wanted}")
    options = connection_options(client)
    if options.get("decode_responses"):
        raise _decoding()
    if not unbounded and options.get("socket_timeout") is None:
        raise ConfigurationError(
            "this client would wait for ever on a frozen server",
            advice="make it with socket_timeout= and socket_connect_timeout=, or pass unbounded=True",
        )


def connection_options(client: Any) -> dict[str, Any]:
    """What a client's connections are made with; a fake that lives in this process counts as bounded."""
    options = _raw_options(client)
    if type(client).__module__.partition(".")[0] == "fakeredis":
        options["socket_timeout"] = 0.0
    return options


def _raw_options(client: Any) -> dict[str, Any]:
    for holder in (getattr(client, "connection_pool", None), getattr(client, "nodes_manager", None), client):
        options = getattr(holder, "connection_kwargs", None)
        if options is not None:
            return dict(options)
    return {}
