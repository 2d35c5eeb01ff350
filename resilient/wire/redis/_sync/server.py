# Generated from resilient/wire/redis/_async/server.py by tools/unasync.py: do not edit.
"""A channel to one server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from resilient.wire.redis._addresses import Address
from resilient.wire.redis._commands import READS, Argument, only_reads
from resilient.wire.redis._dialing import dialer
from resilient.wire.redis._limits import SLACK, Limits
from resilient.wire.redis._nodes import Node
from resilient.wire.redis._parsing import pack, pack_any, pack_many
from resilient.wire.redis._sync.channel import Channel

__all__ = ["ServerChannel"]


class ServerChannel(Channel):
    """See `Channel`."""

    def __init__(self, address: Address, limits: Limits) -> None:
        dial = dialer(address, limits, Node.kinds)
        self._node = Node(address.places[0], dial, limits)
        self._blocking = Node(address.places[0], dial, limits)

    def call(self, *args: Argument, key: Argument | None = None) -> Any:  # noqa: ARG002 - there is one server
        """See `Channel.call`."""
        reply = self._node.call(pack(args), args[0] in READS)
        if isinstance(reply, Exception):
            raise reply
        return reply

    def get_many(self, keys: Sequence[Argument]) -> list[Any]:
        """See `Channel.get_many`; the way of every hit of a cache."""
        if not keys:
            return []
        reply: Any = self._node.call(pack_any(("MGET", *keys)), True)
        if reply.__class__ is not list:
            raise reply
        return reply

    def call_many(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        """See `Channel.call_many`."""
        if not commands:
            return []
        count = len(commands)
        replies: Any = self._node.call(pack_many(commands), only_reads(commands), count)
        return replies if count > 1 else [replies]

    def block(self, seconds: float, *args: Argument) -> Any:
        """See `Channel.block`."""
        reply = self._blocking.block(pack(args), seconds + SLACK)
        if isinstance(reply, Exception):
            raise reply
        return reply

    def close(self) -> None:
        """See `Channel.aclose`."""
        self._node.close()
        self._blocking.close()
