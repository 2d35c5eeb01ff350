"""Clients of redis-py with short time limits that obey deadlines, and what is demanded of a ready one."""

from __future__ import annotations

from typing import Any

from resilient.errors import ConfigurationError, needs_extra
from resilient.policy import deadline
from resilient.runtime import PerLoop, after_fork

with needs_extra("redis"):
    import redis
    import redis.asyncio
    import redis.asyncio.connection
    import redis.asyncio.retry
    import redis.backoff
    import redis.connection
    import redis.retry

__all__ = ["AsyncConnector", "Connector", "check_ready", "connection_options", "within"]

_LEAST = 0.001  # seconds: a socket limit of zero would mean "do not block", which is another thing
_POOL = 64  # connections of one process to one server; whoever finds none free waits for one, briefly


# ---------------------------------------------------------------------------------------------------- connections


def within(limit: float) -> float:
    """A limit, or what the running deadline leaves of it. Whether anything is left is asked before a call, not here."""
    left = deadline.remaining()
    return limit if left is None else max(_LEAST, min(limit, left))


class _Bounded:
    """Sets a sync connection's limits anew for each command, so that they never reach past the caller's deadline."""

    _limits: tuple[float, float]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limits = (self.socket_connect_timeout, self.socket_timeout)

    def _connect(self) -> Any:
        self.socket_connect_timeout, self.socket_timeout = map(within, self._limits)
        return super()._connect()  # type: ignore[misc]  # a mixin: the class beside it connects

    def send_packed_command(self, command: Any, check_health: bool = True) -> Any:  # noqa: FBT001, FBT002 - redis-py's
        limit = within(self._limits[1])
        if limit != self.socket_timeout:
            self.socket_timeout = limit
            if self._sock is not None:  # type: ignore[attr-defined]  # a mixin
                self._sock.settimeout(limit)  # type: ignore[attr-defined]  # a mixin
        return super().send_packed_command(command, check_health)  # type: ignore[misc]  # a mixin


class _AsyncBounded:
    """The same for an async connection, which reads its limit from an attribute at each command."""

    _limits: tuple[float, float]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limits = (self.socket_connect_timeout, self.socket_timeout)

    async def _connect(self) -> Any:
        self.socket_connect_timeout, self.socket_timeout = map(within, self._limits)
        return await super()._connect()  # type: ignore[misc]  # a mixin: the class beside it connects

    async def send_packed_command(self, command: Any, check_health: bool = True) -> Any:  # noqa: FBT001, FBT002 - same
        self.socket_timeout = within(self._limits[1])
        return await super().send_packed_command(command, check_health)  # type: ignore[misc]  # a mixin


def _bounded(mixin: type, kinds: tuple[type, ...]) -> dict[type, type]:
    return {kind: type(f"Bounded{kind.__name__}", (mixin, kind), {}) for kind in kinds}


_SYNC = _bounded(
    _Bounded, (redis.connection.Connection, redis.connection.SSLConnection, redis.connection.UnixDomainSocketConnection)
)
_ASYNC = _bounded(
    _AsyncBounded,
    (
        redis.asyncio.connection.Connection,
        redis.asyncio.connection.SSLConnection,
        redis.asyncio.connection.UnixDomainSocketConnection,
    ),
)


def _options(retry: Any, connect_timeout: float, timeout: float) -> dict[str, Any]:
    return {
        "socket_connect_timeout": connect_timeout,
        "socket_timeout": timeout,
        "max_connections": _POOL,
        "timeout": timeout,
        "retry": retry(redis.backoff.NoBackoff(), 0),
        "protocol": 2,  # the shorter handshake, understood by every server
    }


def _pool(kind: Any, classes: dict[type, type], url: str, options: dict[str, Any]) -> Any:
    try:
        pool = kind.from_url(url, **options)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(
            "this is no address of a Redis server",
            advice="write redis://host:6379/0, rediss://... or unix://...; for Valkey too: valkey:// is written redis://",
        ) from error
    if pool.connection_kwargs.get("decode_responses"):
        raise _decoding()
    pool.connection_class = classes[pool.connection_class]
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
            options = _options(redis.retry.Retry, connect_timeout, timeout)
            pool = _pool(redis.BlockingConnectionPool, _SYNC, target, options)
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
        options = _options(redis.asyncio.retry.Retry, *self._limits)
        pool = _pool(redis.asyncio.BlockingConnectionPool, _ASYNC, self._target, options)
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
        raise ConfigurationError(f"this client has the {face} face", advice=f"pass one of {wanted}")
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
