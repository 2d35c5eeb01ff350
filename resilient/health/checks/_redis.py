"""Asking a Redis, a Cluster, or what Sentinels watch, through connections of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, Protocol

from resilient.errors import ConfigurationError, needs_extra
from resilient.health._core import Result
from resilient.policy import deadline
from resilient.wire.redis import open_channel

with needs_extra("redis"):
    import redis
    import redis.backoff
    import redis.retry
    import redis.sentinel

__all__ = ["probe_of"]

_LIMIT = 0.5  # seconds for one wait; for a client built here the check's own deadline may be nearer
_SLOTS = 16_384
_CLUSTER: Final = re.compile(r"(?P<scheme>\w+)\+cluster://(?P<user>[^@/]*@)?(?P<hosts>[^/?]+)(?P<rest>.*)", re.DOTALL)


class Probe(Protocol):
    """What is asked, and how it is closed."""

    def run(self) -> Result:
        """Ask."""
        ...

    def close(self) -> None:
        """Close the connections that were made here."""
        ...


class _Asks(Protocol):
    """One server, however it is reached."""

    def ask(self, *words: str) -> Any: ...
    def close(self) -> None: ...


def probe_of(target: Any, *, writable: bool) -> Probe:
    """The way to ask a URL or a client. Raises ConfigurationError."""
    cluster = isinstance(target, redis.RedisCluster) or (isinstance(target, str) and "+cluster://" in target)
    if cluster and writable:
        raise ConfigurationError("a Cluster is not asked whether it takes writes: its primaries change by themselves")
    if isinstance(target, str):
        return ClusterProbe(_Seeds(target)) if cluster else ServerProbe(_Address(target), writable=writable)
    if type(target).__module__.startswith("redis.asyncio"):
        raise ConfigurationError(
            "a check runs on a thread, where an async client is of no use", advice="pass the URL, or a sync client"
        )
    if not hasattr(target, "ping"):
        raise ConfigurationError(f"a {type(target).__name__} is neither a URL nor a Redis client")
    return ClusterProbe(_Nodes(target)) if cluster else ServerProbe(_Client(target), writable=writable)


class ServerProbe:
    """One server: it answers, and where that is asked, takes writes."""

    def __init__(self, server: _Asks, *, writable: bool) -> None:
        self._server = server
        self._writable = writable

    def run(self) -> Result:
        """Ask."""
        self._server.ask("PING")
        if self._writable and _text(self._server.ask("ROLE")[0]) != "master":
            return Result.fail("read_only")
        return Result()

    def close(self) -> None:
        """Close the connection, if it was made here."""
        self._server.close()


class _Several(Protocol):
    """The nodes of a Cluster."""

    def __iter__(self) -> Iterator[_Asks]: ...
    def close(self) -> None: ...


class ClusterProbe:
    """A Cluster: the first node that answers tells how the whole is."""

    def __init__(self, nodes: _Several) -> None:
        self._nodes = nodes

    def run(self) -> Result:
        """Ask."""
        failure: Exception | None = None
        for node in self._nodes:
            try:
                return _judge(_lines(node.ask("CLUSTER INFO")))
            except redis.RedisError as error:
                failure = error
                if deadline.remaining() == 0.0:
                    break
        raise failure or redis.ConnectionError("the Cluster has no nodes")

    def close(self) -> None:
        """Close the connections that were made here."""
        self._nodes.close()


def _judge(info: str) -> Result:
    """What ``CLUSTER INFO`` says."""
    told = dict(line.split(":", 1) for line in info.split("\r\n") if ":" in line)
    well = int(told.get("cluster_slots_ok", _SLOTS))
    values = {"slots": well, "nodes": int(told.get("cluster_known_nodes", 0))}
    if told.get("cluster_state") != "ok":
        return Result.fail("cluster_down", **values)
    return Result.ok(**values) if well == _SLOTS else Result.warn("slots", **values)


def _lines(info: Any) -> str:
    """What ``CLUSTER INFO`` says, as the server says it: a ready client has taken it apart."""
    if isinstance(info, dict):
        return "\r\n".join(f"{_text(name)}:{_text(value)}" for name, value in info.items())
    return _text(info)


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


# ------------------------------------------------------------------------------------------------ ways to a server


class _Address:
    """A server by its URL, or the one that Sentinels name."""

    def __init__(self, url: str) -> None:
        self._channel = open_channel(url, connect_timeout=_LIMIT, timeout=_LIMIT)

    def ask(self, *words: str) -> Any:
        words = tuple(part for word in words for part in word.split())
        try:
            return self._channel.call(*words, key="")
        except redis.TimeoutError:
            raise
        except redis.ConnectionError:
            if deadline.remaining() == 0.0:
                raise
            return self._channel.call(*words, key="")  # perhaps it was only a connection of before a restart

    def close(self) -> None:
        self._channel.close()


class _Client:
    """A ready client: its way to connect where that is known, and else itself, who knows best."""

    def __init__(self, client: Any) -> None:
        pool = getattr(client, "connection_pool", None)
        twin = _twin(pool) if isinstance(pool, redis.ConnectionPool) else None
        self._client: Any = client if twin is None else redis.Redis(connection_pool=twin)
        self._own = twin is not None

    def ask(self, *words: str) -> Any:
        if words == ("PING",):
            return self._client.ping()
        return self._client.execute_command(*words)

    def close(self) -> None:
        if self._own:
            self._client.connection_pool.disconnect()


def _twin(pool: Any) -> Any:
    """A pool that connects as another does, within a time limit and without retries; ``None`` for an unknown kind."""
    options = {
        **pool.connection_kwargs,
        "socket_timeout": _LIMIT,
        "socket_connect_timeout": _LIMIT,
        "retry": redis.retry.Retry(redis.backoff.NoBackoff(), 0),
        "connection_class": pool.connection_class,
        "max_connections": 2,
    }
    for unfit in ("retry_on_timeout", "retry_on_error"):
        options.pop(unfit, None)
    kind = type(pool)
    if kind.__module__ == "redis.connection":
        return redis.ConnectionPool(**options)
    if kind is redis.sentinel.SentinelConnectionPool:
        options.pop("connection_pool", None)  # each of these pools tells its connections of itself
        return kind(pool.service_name, pool.sentinel_manager, is_master=pool.is_master, **options)
    return None


class _Seeds:
    """The nodes that a Cluster's URL names."""

    def __init__(self, url: str) -> None:
        open_channel(url)  # a wrong address is found here; no connection is made
        found = _CLUSTER.fullmatch(url)
        if found is None:
            raise ConfigurationError("the address of this Cluster cannot be read")
        scheme, user, hosts, rest = found.group("scheme", "user", "hosts", "rest")
        self._nodes = [_Address(f"{scheme}://{user or ''}{host}{rest}") for host in hosts.split(",")]

    def __iter__(self) -> Iterator[_Asks]:
        return iter(self._nodes)

    def close(self) -> None:
        for node in self._nodes:
            node.close()


class _Nodes:
    """The nodes that a Cluster's client knows of, which change while it runs."""

    def __init__(self, client: Any) -> None:
        self._cluster = client
        self._known: dict[str, _Client] = {}

    def __iter__(self) -> Iterator[_Asks]:
        for node in list(self._cluster.get_nodes()):
            known = self._known.get(node.name)
            if known is None:
                known = self._known[node.name] = _Client(self._cluster.get_redis_connection(node))
            yield known

    def close(self) -> None:
        for node in self._known.values():
            node.close()
        self._known.clear()
