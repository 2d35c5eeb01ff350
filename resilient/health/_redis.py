"""Asking a Redis through a connection of its own."""

from __future__ import annotations

from typing import Any

from resilient.errors import ConfigurationError, needs_extra
from resilient.wire.redis import Connector

with needs_extra("redis"):
    import redis
    import redis.backoff
    import redis.retry

__all__ = ["RedisProbe"]

_LIMIT = 0.5  # seconds for one wait; for a client built here the check's own deadline may be nearer


class RedisProbe:
    """One connection to one Redis.

    Args:
        target: A URL, or the application's client, whose way to connect is used and whose pool is not.
    """

    def __init__(self, target: Any) -> None:
        self._connector: Connector | None = None
        self._own = True
        if isinstance(target, str):
            self._connector = Connector(target, connect_timeout=_LIMIT, timeout=_LIMIT)
            self._client = self._connector.get()
            return
        if type(target).__module__.startswith("redis.asyncio"):
            raise ConfigurationError(
                "a check runs on a thread, where an async client is of no use", advice="pass the URL, or a sync client"
            )
        if not hasattr(target, "ping"):
            raise ConfigurationError(f"a {type(target).__name__} is neither a URL nor a Redis client")
        pool = getattr(target, "connection_pool", None)
        if isinstance(pool, redis.ConnectionPool) and type(pool).__module__ == "redis.connection":
            self._client = redis.Redis(connection_pool=_twin(pool))
        else:  # a cluster, a sentinel, a look-alike: it knows best how to reach its servers
            self._client, self._own = target, False

    def run(self) -> None:
        """Ask."""
        self._client.ping()

    def close(self) -> None:
        """Close the connection, if it was made here."""
        if self._own:
            self._client.connection_pool.disconnect()


def _twin(pool: Any) -> Any:
    """A pool that connects as another does, within a time limit and without retries."""
    options = {
        **pool.connection_kwargs,
        "socket_timeout": _LIMIT,
        "socket_connect_timeout": _LIMIT,
        "retry": redis.retry.Retry(redis.backoff.NoBackoff(), 0),
    }
    for unfit in ("retry_on_timeout", "retry_on_error"):
        options.pop(unfit, None)
    return redis.ConnectionPool(connection_class=pool.connection_class, max_connections=2, **options)
