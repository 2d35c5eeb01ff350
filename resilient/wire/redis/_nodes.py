"""The two ways to one server under one import, for the code that is written once for both worlds."""

from __future__ import annotations

from resilient.wire.redis._lanes import AsyncExchange, AsyncNode
from resilient.wire.redis._pool import Exchange, Node

__all__ = ["AsyncExchange", "AsyncNode", "Exchange", "Node"]
