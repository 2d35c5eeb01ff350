"""What the nodes of a Cluster say about who has which slot."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from resilient.wire.redis._addresses import Place

__all__ = ["forwarded", "read_slots"]


def read_slots(reply: list[Any], asked: Place) -> Iterator[tuple[int, int, Place]]:
    """First slot, last slot and primary of each range, from the reply to ``CLUSTER SLOTS``.

    Args:
        reply: The reply.
        asked: Who gave it; a node that does not know its own name leaves it out.

    Examples:
        >>> list(read_slots([[0, 5, [b"10.0.0.1", 7000, b"id"], [b"10.0.0.2", 7001, b"id"]]], ("h", 1)))
        [(0, 5, ('10.0.0.1', 7000))]
        >>> list(read_slots([[0, 5, [b"", 7000, b"id"]]], ("h", 1)))
        [(0, 5, ('h', 7000))]
    """
    for first, last, primary, *_replicas in reply:
        yield int(first), int(last), _place(primary[0], int(primary[1]), asked)


def forwarded(redirect: Any, asked: Place) -> Place:
    """Where a ``MOVED`` or ``ASK`` of redis-py points.

    Examples:
        >>> import redis
        >>> forwarded(redis.exceptions.MovedError("3999 10.0.0.1:7002"), ("h", 1))
        ('10.0.0.1', 7002)
    """
    return _place(redirect.host, int(redirect.port), asked)


def _place(host: Any, port: int, asked: Place) -> Place:
    name = host.decode() if isinstance(host, bytes) else host
    return (name if name not in {None, "", "?"} else asked[0], port)
