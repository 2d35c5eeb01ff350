"""Where a URL or a ready client leads: to one server, a Cluster, or whom sentinels name."""

from __future__ import annotations

from typing import Any, NamedTuple

from resilient.wire.redis._addresses import Address
from resilient.wire.redis._async.channel import AsyncChannel
from resilient.wire.redis._async.cluster import AsyncClusterChannel
from resilient.wire.redis._async.sentinel import AsyncSentinelChannel
from resilient.wire.redis._async.server import AsyncServerChannel
from resilient.wire.redis._dialing import limits_of
from resilient.wire.redis._ready import AsyncReadyChannel, ReadyChannel
from resilient.wire.redis._sync.channel import Channel
from resilient.wire.redis._sync.cluster import ClusterChannel
from resilient.wire.redis._sync.sentinel import SentinelChannel
from resilient.wire.redis._sync.server import ServerChannel

__all__ = ["open_async_channel", "open_channel"]


class _Kinds(NamedTuple):
    """The channels of one face."""

    ready: Any
    server: Any
    cluster: Any
    sentinel: Any


_SYNC = _Kinds(ReadyChannel, ServerChannel, ClusterChannel, SentinelChannel)
_ASYNC = _Kinds(AsyncReadyChannel, AsyncServerChannel, AsyncClusterChannel, AsyncSentinelChannel)


def open_channel(
    target: Any, *, connect_timeout: float = 0.1, timeout: float = 0.05, unbounded: bool = False
) -> Channel:
    """A channel to a URL or through a ready client. No connection is made yet.

    Args:
        target: A URL (``redis://``, ``rediss://``, ``unix://``, ``redis+cluster://host:port,host:port``,
            ``redis+sentinel://host:port,host:port/service/0``; ``valkey`` for ``redis`` is the same) or a ready client
            of redis-py.
        connect_timeout: Seconds to connect; for channels to a URL.
        timeout: Seconds for each read or write, and to wait for a free connection; for channels to a URL.
        unbounded: Accept a ready client that has no time limit of its own.

    Raises:
        ConfigurationError: The address is none, or the ready client has the other face, decodes answers or could wait
            for ever.
    """
    channel: Channel = _opened(_SYNC, target, connect_timeout, timeout, unbounded=unbounded)
    return channel


def open_async_channel(
    target: Any, *, connect_timeout: float = 0.1, timeout: float = 0.05, unbounded: bool = False
) -> AsyncChannel:
    """The same with the async face; see `open_channel`."""
    channel: AsyncChannel = _opened(_ASYNC, target, connect_timeout, timeout, unbounded=unbounded)
    return channel


def _opened(kinds: _Kinds, target: Any, connect_timeout: float, timeout: float, *, unbounded: bool) -> Any:
    if not isinstance(target, str):
        return kinds.ready(target, unbounded=unbounded)
    address = Address.parse(target)
    return getattr(kinds, address.kind)(address, limits_of(address, connect_timeout, timeout))
