"""A channel to one server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from resilient.wire.redis._addresses import Address
from resilient.wire.redis._async.channel import AsyncChannel
from resilient.wire.redis._commands import READS, Argument, only_reads
from resilient.wire.redis._dialing import dialer
from resilient.wire.redis._limits import SLACK, Limits
from resilient.wire.redis._nodes import AsyncNode
from resilient.wire.redis._parsing import pack, pack_any, pack_many

__all__ = ["AsyncServerChannel"]


class AsyncServerChannel(AsyncChannel):
    """See `AsyncChannel`."""

    def __init__(self, address: Address, limits: Limits) -> None:
        dial = dialer(address, limits, AsyncNode.kinds)
        self._node = AsyncNode(address.places[0], dial, limits)
        self._blocking = AsyncNode(address.places[0], dial, limits)

    async def call(self, *args: Argument, key: Argument | None = None) -> Any:  # noqa: ARG002 - there is one server
        """See `AsyncChannel.call`."""
        reply = await self._node.call(pack(args), args[0] in READS)
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def get_many(self, keys: Sequence[Argument]) -> list[Any]:
        """See `AsyncChannel.get_many`; the way of every hit of a cache."""
        if not keys:
            return []
        reply: Any = await self._node.call(pack_any(("MGET", *keys)), True)
        if reply.__class__ is not list:
            raise reply
        return reply

    async def call_many(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        """See `AsyncChannel.call_many`."""
        if not commands:
            return []
        count = len(commands)
        replies: Any = await self._node.call(pack_many(commands), only_reads(commands), count)
        return replies if count > 1 else [replies]

    async def block(self, seconds: float, *args: Argument) -> Any:
        """See `AsyncChannel.block`."""
        reply = await self._blocking.block(pack(args), seconds + SLACK)
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def aclose(self) -> None:
        """See `AsyncChannel.aclose`."""
        await self._node.aclose()
        await self._blocking.aclose()
