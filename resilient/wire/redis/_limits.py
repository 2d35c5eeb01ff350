"""How long things may take, and the errors that say that they took longer or went away."""

from __future__ import annotations

from dataclasses import dataclass

from resilient.errors import needs_extra
from resilient.policy._deadline import current, left_of

with needs_extra("redis"):
    import redis.exceptions

__all__ = ["CONNECTIONS", "LEAST", "SLACK", "Busy", "Closed", "Limits", "late", "within"]

CONNECTIONS = 64  # of one process to one server; whoever finds none free waits for one, briefly
SLACK = 0.5  # seconds that a reply may come later than the moment the server was told to wait for
LEAST = 0.001  # seconds: a socket limit of zero would mean "do not block", which is another thing


def within(limit: float) -> float:
    """A limit, or what the running deadline leaves of it. Whether anything is left is asked before a call, not here."""
    expires = current.get()
    return limit if expires is None else max(LEAST, min(limit, left_of(expires)))


@dataclass(frozen=True)
class Limits:
    """Of the connections to one server; seconds.

    Args:
        connect: To connect.
        answer: For each read or write.
        wait: For a connection to become free.
        connections: How many there may be at once.
    """

    connect: float
    answer: float
    wait: float
    connections: int


class Busy(redis.exceptions.ConnectionError):
    """All connections are in use: no word about the server."""

    def __init__(self, text: str = "No connection available: all are in use") -> None:
        super().__init__(text)


class Closed(redis.exceptions.ConnectionError):
    """The other side had closed the connection before anything of the reply came."""


def late() -> redis.exceptions.TimeoutError:
    """No reply in time."""
    return redis.exceptions.TimeoutError("Timeout reading from socket")
