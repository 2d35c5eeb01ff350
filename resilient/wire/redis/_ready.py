"""Channels over a ready client of redis-py: its own ways, retries and limits; the replies as they came."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from resilient.errors import needs_extra
from resilient.wire.redis._async.channel import AsyncChannel
from resilient.wire.redis._commands import Argument, Unparsed, key_of, plain, slot_of
from resilient.wire.redis._connector import check_ready
from resilient.wire.redis._limits import SLACK, within
from resilient.wire.redis._sync.channel import Channel

with needs_extra("redis"):
    import redis.exceptions

__all__ = ["AsyncReadyChannel", "ReadyChannel"]


def _unparsed(args: Sequence[Argument]) -> tuple[Argument, ...]:
    return (Unparsed(args[0]), *args[1:])


def _gathered(replies: Sequence[Any], commands: Sequence[Sequence[Argument]]) -> list[Any]:
    return [plain(reply, command[0]) for reply, command in zip(replies, commands, strict=True)]


@contextlib.contextmanager
def _one_family() -> Iterator[None]:
    """Errors that redis-py raises beside its own family join it, so that whoever catches the family catches all."""
    try:
        yield
    except redis.exceptions.RedisClusterException as error:
        raise redis.exceptions.ConnectionError(f"Error connecting to the Cluster: {error}") from error
    except OSError as error:
        raise redis.exceptions.ConnectionError(f"Error while talking to the server: {type(error).__name__}") from error


def _node(client: Any, key: Argument | None) -> Any:
    """The node of a Cluster that has a key; any for none."""
    return client.nodes_manager.get_node_from_slot(slot_of("" if key is None else key))


def _aimed(client: Any, args: Sequence[Argument], key: Argument | None) -> dict[str, Any]:
    """What a Cluster's client must be told where it cannot know: the node for a command without a plain key."""
    if key is None and key_of(args) is not None:
        return {}
    return {"target_nodes": _node(client, key)}


def _dedicated(client: Any, args: Sequence[Argument], limit: float) -> Any:
    """A connection like those of the client, with a read limit of its own; not opened yet."""
    holder = client
    if hasattr(client, "nodes_manager"):
        node = _node(client, key_of(args))
        holder = node if hasattr(node, "connection_kwargs") else client.get_redis_connection(node)
    holder = getattr(holder, "connection_pool", holder)
    return holder.connection_class(**{**holder.connection_kwargs, "socket_timeout": limit})


class ReadyChannel(Channel):
    """See `Channel`; for a client that the user made."""

    def __init__(self, client: Any, *, unbounded: bool = False) -> None:
        check_ready(client, asynchronous=False, unbounded=unbounded)
        self._client = client
        self.clustered = hasattr(client, "nodes_manager")

    def call(self, *args: Argument, key: Argument | None = None) -> Any:
        """See `Channel.call`."""
        with _one_family():
            aimed = _aimed(self._client, args, key) if self.clustered else {}
            return plain(self._client.execute_command(*_unparsed(args), **aimed), args[0])

    def call_many(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        """See `Channel.call_many`."""
        options = {} if self.clustered else {"transaction": False}
        with _one_family(), self._client.pipeline(**options) as pipeline:
            for args in commands:
                pipeline.execute_command(*_unparsed(args))
            return _gathered(pipeline.execute(raise_on_error=False), commands)

    def block(self, seconds: float, *args: Argument) -> Any:
        """See `Channel.block`."""
        with _one_family():
            connection = _dedicated(self._client, args, within(seconds + SLACK))
            try:
                connection.connect()
                connection.send_command(*args)
                return plain(connection.read_response(), args[0])
            finally:
                connection.disconnect()

    def close(self) -> None:
        """Nothing: who made the client closes it."""


class AsyncReadyChannel(AsyncChannel):
    """See `AsyncChannel`; for a client that the user made."""

    def __init__(self, client: Any, *, unbounded: bool = False) -> None:
        check_ready(client, asynchronous=True, unbounded=unbounded)
        self._client = client
        self.clustered = hasattr(client, "nodes_manager")

    async def call(self, *args: Argument, key: Argument | None = None) -> Any:
        """See `AsyncChannel.call`."""
        with _one_family():
            aimed = {}
            if self.clustered:
                await self._client.initialize()
                aimed = _aimed(self._client, args, key)
            return plain(await self._client.execute_command(*_unparsed(args), **aimed), args[0])

    async def call_many(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        """See `AsyncChannel.call_many`."""
        options = {} if self.clustered else {"transaction": False}
        with _one_family():
            async with self._client.pipeline(**options) as pipeline:
                for args in commands:
                    pipeline.execute_command(*_unparsed(args))
                return _gathered(await pipeline.execute(raise_on_error=False), commands)

    async def block(self, seconds: float, *args: Argument) -> Any:
        """See `AsyncChannel.block`."""
        with _one_family():
            if self.clustered:
                await self._client.initialize()
            connection = _dedicated(self._client, args, within(seconds + SLACK))
            try:
                await connection.connect()
                await connection.send_command(*args)
                return plain(await connection.read_response(), args[0])
            finally:
                await connection.disconnect(nowait=True)

    async def aclose(self) -> None:
        """Nothing: who made the client closes it."""

    async def unbind(self) -> None:
        """Give up the connections of this event loop, which ends: the client makes new ones in the next."""
        pool = getattr(self._client, "connection_pool", None)
        await (self._client.close() if pool is None else pool.disconnect())
