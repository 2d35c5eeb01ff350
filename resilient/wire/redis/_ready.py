"""Channels over a ready client of redis-py: its own ways, retries and limits; the replies as they came."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from resilient.wire.redis._channel import AsyncChannel, Channel
from resilient.wire.redis._commands import Argument, Unparsed, key_of, plain, slot_of
from resilient.wire.redis._connector import AsyncConnector, Connector, within

__all__ = ["AsyncReadyChannel", "ReadyChannel"]

_SLACK = 0.5  # seconds that a reply may come later than the moment the server was told to wait for


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

    def __init__(self, connector: Connector) -> None:
        self._connector = connector
        self._client: Any = connector.get()
        self.clustered = hasattr(self._client, "nodes_manager")

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
        connection = _dedicated(self._client, args, within(seconds + _SLACK))
        try:
            connection.connect()
            connection.send_command(*args)
            return plain(connection.read_response(), args[0])
        finally:
            connection.disconnect()

    def close(self) -> None:
        """See `Channel.close`."""
        self._connector.close()


class AsyncReadyChannel(AsyncChannel):
    """See `AsyncChannel`; for a client that the user made."""

    def __init__(self, connector: AsyncConnector, *, clustered: bool) -> None:
        self._connector = connector
        self.clustered = clustered

    async def call(self, *args: Argument, key: Argument | None = None) -> Any:
        """See `AsyncChannel.call`."""
        client = self._connector.get()
        node = {}
        if self.clustered and key is not None:
            await client.initialize()
            node = _node(client, key)
        return plain(await client.execute_command(*_unparsed(args), **node), args[0])

    async def call_many(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        """See `AsyncChannel.call_many`."""
        client = self._connector.get()
        async with client.pipeline(**({} if self.clustered else {"transaction": False})) as pipeline:
            for args in commands:
                queued = pipeline.execute_command(*_unparsed(args))
                if inspect.isawaitable(queued):
                    await queued
            return _gathered(await pipeline.execute(raise_on_error=False), commands)

    async def block(self, seconds: float, *args: Argument) -> Any:
        """See `AsyncChannel.block`."""
        client = self._connector.get()
        if self.clustered:
            await client.initialize()
        connection = _dedicated(client, args, within(seconds + _SLACK))
        try:
            await connection.connect()
            await connection.send_command(*args)
            return plain(await connection.read_response(), args[0])
        finally:
            await connection.disconnect(nowait=True)

    async def aclose(self) -> None:
        """See `AsyncChannel.aclose`."""
        await self._connector.aclose()
