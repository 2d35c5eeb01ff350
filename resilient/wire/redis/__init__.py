"""Connections to Redis and Valkey: short time limits, deadlines obeyed on the wire, errors classified.

Two ways lead to a server. A `Channel` (`AsyncChannel`), made by `open_channel`, sends commands and gives back what the
server said, as fast as the connection allows; the cache stands on it. A `Connector` (`AsyncConnector`) holds a client
of redis-py, for those who want its methods.

What is made here from a URL never retries a command that may have taken effect (the policies above do), waits at most
``connect_timeout`` to connect and ``timeout`` for each read or write, and less where `resilient.policy.deadline`
leaves less. A ready client is used as it is, at its own speed and with its own limits; one that could wait for ever is
refused.
"""

from __future__ import annotations

from resilient.wire.redis._async.channel import AsyncChannel
from resilient.wire.redis._commands import Script
from resilient.wire.redis._connector import AsyncConnector, Connector
from resilient.wire.redis._failures import classify
from resilient.wire.redis._opening import open_async_channel, open_channel
from resilient.wire.redis._sync.channel import Channel

__all__ = [
    "AsyncChannel",
    "AsyncConnector",
    "Channel",
    "Connector",
    "Script",
    "classify",
    "open_async_channel",
    "open_channel",
]
