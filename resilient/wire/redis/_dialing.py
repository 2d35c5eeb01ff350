"""Connections of redis-py, made for an address: handshake, TLS, password and database are its work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from resilient.errors import ConfigurationError, needs_extra
from resilient.wire.redis._addresses import Address, Place
from resilient.wire.redis._limits import CONNECTIONS, Limits, within

with needs_extra("redis"):
    import redis.asyncio.connection
    import redis.asyncio.retry
    import redis.backoff
    import redis.connection
    import redis.retry

__all__ = ["ASYNC", "SYNC", "Dial", "dialer", "limits_of", "no_retry"]

Dial = Callable[[Place], Any]
"""Makes a connection to a place, not opened yet."""


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


def _bounded(mixin: type, kinds: dict[str, type]) -> dict[str, type]:
    return {way: type(f"Bounded{kind.__name__}", (mixin, kind), {}) for way, kind in kinds.items()}


SYNC = _bounded(
    _Bounded,
    {
        "tcp": redis.connection.Connection,
        "tls": redis.connection.SSLConnection,
        "unix": redis.connection.UnixDomainSocketConnection,
    },
)
ASYNC = _bounded(
    _AsyncBounded,
    {
        "tcp": redis.asyncio.connection.Connection,
        "tls": redis.asyncio.connection.SSLConnection,
        "unix": redis.asyncio.connection.UnixDomainSocketConnection,
    },
)

_OF_POOLS = ("max_connections", "timeout")


def no_retry(kinds: dict[str, type]) -> Any:
    """The policy of a connection that never tries again by itself: the policies above do."""
    module = redis.asyncio.retry if kinds is ASYNC else redis.retry
    return module.Retry(redis.backoff.NoBackoff(), 0)


def limits_of(address: Address, connect: float, answer: float) -> Limits:
    """What is given, unless the address itself says otherwise."""
    said = address.options
    answer = float(said.get("socket_timeout", answer))
    return Limits(
        connect=float(said.get("socket_connect_timeout", connect)),
        answer=answer,
        wait=float(said.get("timeout", answer)),
        connections=int(said.get("max_connections", CONNECTIONS)),
    )


def dialer(address: Address, limits: Limits, kinds: dict[str, type], *, sentinels: bool = False) -> Dial:
    """What makes connections to the places of an address.

    Raises:
        ConfigurationError: The address has a word that redis-py's connections do not know.
    """
    said = address.sentinel_options if sentinels else address.options
    options = {name: value for name, value in said.items() if name not in _OF_POOLS}
    options |= {
        "socket_connect_timeout": limits.connect,
        "socket_timeout": limits.answer,
        "retry": no_retry(kinds),
        "protocol": 2,  # the shorter handshake, understood by every server
    }
    kind = kinds[address.way]

    def dial(place: Place) -> Any:
        where = {} if address.way == "unix" else {"host": place[0], "port": place[1]}
        return kind(**where, **options)

    try:
        dial(address.places[0])
    except (TypeError, ValueError) as error:
        raise ConfigurationError("the address of this Redis server has a word that is not known") from error
    return dial
