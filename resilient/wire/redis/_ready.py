"""Channels over a ready client of redis-py: its own ways, retries and limits; the replies as they came."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from resilient.wire.redis._async.channel import AsyncChannel
from resilient.wire.redis._commands import Argument, Unparsed, key_of, plain, slot_of
from resilient.wire.redis._connector import check_ready
from resilient.wire.redis._limits import SLACK, within
from resilient.wire.redis._sync.channel import Channel

__all__ = ["AsyncReadyChannel", "ReadyChannel"]


def _unparsed(args: Sequence[Argument]) -> tuple[Argument, ...]:
    return (Unparsed(args[0]), *args[1:])


def _gathered(replies: Sequence[Any], commands: Sequence[Sequence[Argument]]) -> list[Any]:
    return [plain(reply, command[0]) for reply, command in zip(replies, commands, strict=True)]


def _node(client: Any, key: Argument) -> dict[str, Any]:
    return {"target_nodes": client.nodes_manager.get_node_from_slot(slot_of(key))}


def _dedicated(client: Any, args: Sequence[Argument], limit: float) -> Any:
    """A connection like those of the client, with a read limit of its own; not opened yet."""
    holder = client
    if hasattr(client, "nodes_manager"):
        key = key_of(args)
        node = client.nodes_manager.get_node_from_slot(slot_of("" if key is None else key))
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
        node = _node(self._client, key) if self.clustered and key is not None else {}
        return plain(self._client.execute_command(*_unparsed(args), **node), args[0])

    def call_many(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        """See `Channel.call_many`."""
        with self._client.pipeline(**({} if self.clustered else {"transaction": False})) as pipeline:
            for args in commands:
                pipeline.execute_command(*_unparsed(args))
            return _gathered(pipeline.execute(raise_on_error=False), commands)

    def block(self, seconds: float, *args: Argument) -> Any:
        """See `Channel.block`."""
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
        client = self._client
        node = {}
        if self.clustered and key is not None:
            await client.initialize()
            node = _node(client, key)
        return plain(await client.execute_command(*_unparsed(args), **node), args[0])

    async def call_many(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        """See `AsyncChannel.call_many`."""
        client = self._client
        async with client.pipeline(**({} if self.clustered else {"transaction": False})) as pipeline:
            for args in commands:
                await pipeline.execute_command(*_unparsed(args))
            return _gathered(await pipeline.execute(raise_on_error=False), commands)

    async def block(self, seconds: float, *args: Argument) -> Any:
        """See `AsyncChannel.block`."""
        client = self._client
        if self.clustered:
            await client.initialize()
        connection = _dedicated(client, args, within(seconds + SLACK))
        try:
            await connection.connect()
            await connection.send_command(*args)
            return plain(await connection.read_response(), args[0])
        finally:
            await connection.disconnect(nowait=True)

    async def aclose(self) -> None:
        """Nothing: who made the client closes it."""
