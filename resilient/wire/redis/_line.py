"""One sync connection, after its handshake."""

from __future__ import annotations

import select
import signal
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any

from resilient.clock import SYSTEM
from resilient.errors import needs_extra
from resilient.wire.redis._limits import LEAST, Closed, late
from resilient.wire.redis._parsing import ROOM, UNFINISHED, new_reader, refined

with needs_extra("redis"):
    import redis.exceptions

__all__ = ["Line"]

_AT_ONCE = getattr(socket, "MSG_DONTWAIT", 0)
_LONGEST = 3600.0  # seconds
_now = SYSTEM.monotonic


class Line:
    """A connection that is driven directly: whoever has it has it alone.

    Args:
        connection: A connection of redis-py, connected.
        era: Which connections it belongs to.
        usual: Seconds that most replies may take.
    """

    __slots__ = (
        "_connection",
        "_feed",
        "_gets",
        "_limit",
        "_receive",
        "_room",
        "_send",
        "_sock",
        "_usual",
        "era",
        "used",
    )

    def __init__(self, connection: Any, era: object, usual: float) -> None:
        self._connection = connection
        self._sock = connection._sock  # noqa: SLF001 - driven directly: the layers above it cost more than the network
        reader: Any = new_reader(connection)
        self._usual = usual if reader is not None and _watched_by_kernel(self._sock, usual) else None
        self._limit: float | None = None
        # What `ask` calls: bound here, since each look-up on the way of a hit is a cost that is seen.
        self._send: Callable[[bytes], None] = self._sock.sendall
        self._receive: Callable[..., int] = self._sock.recv_into
        self._feed: Any = getattr(reader, "feed", None)
        self._gets: Any = getattr(reader, "gets", None)
        self._room = bytearray(ROOM)
        self.era = era
        self.used = 0.0  # when a reply last came; 0 means never

    def ask(self, wire: bytes, limit: float) -> Any:
        """Send one command and return its reply."""
        feed = self._feed
        if feed is None:
            return self.ask_many(wire, 1, limit)[0]
        try:
            if limit != self._limit:
                self._bound(limit)
            self._send(wire)
            size = self._receive(room := self._room)
        except OSError as error:
            raise _failed(error) from error
        if not size:
            raise Closed("Connection closed by server.")
        feed(room, 0, size)
        reply = self._gets()
        return self._rest(limit) if reply is UNFINISHED else reply

    def _bound(self, limit: float) -> None:
        self._sock.settimeout(None if limit == self._usual else limit)
        self._limit = limit

    def ask_many(self, wire: bytes, count: int, limit: float) -> list[Any]:
        """Send several and return their replies."""
        until = _now() + limit
        if self._feed is None:
            self.send(wire, limit)
            return self.receive(count, limit)
        return self._further([self.ask(wire, limit)], count, until)

    def send(self, wire: bytes, limit: float) -> None:
        """Send, and leave the replies for later."""
        try:
            if limit != self._limit:
                self._bound(limit)
            self._send(wire)
        except OSError as error:
            raise _failed(error) from error

    def receive(self, count: int, limit: float) -> list[Any]:
        """The next replies; all of them together may take that long."""
        if self._gets is None:
            return [self._parsed() for _ in range(count)]
        first = self._gets()
        until = _now() + limit
        return self._further([self._rest(limit, fresh=True) if first is UNFINISHED else first], count, until)

    def _further(self, replies: list[Any], count: int, until: float) -> list[Any]:
        """The first replies with those that follow, before that moment."""
        while len(replies) < count:
            reply = self._gets()
            replies.append(self._rest(max(LEAST, until - _now())) if reply is UNFINISHED else reply)
        return replies

    def _rest(self, limit: float, *, fresh: bool = False) -> Any:
        """What is missing of a reply; a server that dribbles does not get the limit anew for each drop."""
        until = _now() + limit
        while True:
            try:
                size = self._receive(self._room) if fresh and limit == self._limit else self._more(until)
            except OSError as error:
                raise _failed(error) from error
            if not size:
                kind = Closed if fresh else redis.exceptions.ConnectionError
                raise kind("Connection closed by server.")
            fresh = False
            self._feed(self._room, 0, size)
            reply = self._gets()
            if reply is not UNFINISHED:
                return reply
            if _now() >= until:
                raise late()

    def _more(self, until: float) -> int:
        """Read more of a reply, before that moment: where it is there already, the limit need not change."""
        if self._usual is not None and self._limit == self._usual:  # the socket blocks
            try:
                return self._receive(self._room, 0, _AT_ONCE)
            except BlockingIOError:
                pass
        self._sock.settimeout(max(LEAST, until - _now()))
        self._limit = None
        return self._receive(self._room)

    def _parsed(self) -> Any:
        """A reply read by redis-py's own parser."""
        try:
            return self._connection.read_response(disconnect_on_error=False)
        except redis.exceptions.ConnectionError as error:
            if type(error) is redis.exceptions.ConnectionError:
                raise Closed(str(error)) from error
            raise
        except redis.exceptions.ResponseError as error:
            return refined(error)

    def stale(self) -> bool:
        """Whether something came that nobody asked for: most often the news that the server closed it."""
        if hasattr(select, "poll"):
            poll = select.poll()
            poll.register(self._sock, select.POLLIN)
            return bool(poll.poll(0))
        return bool(select.select([self._sock], [], [], 0)[0])

    def close(self) -> None:
        """Hang up."""
        self._connection.disconnect()


def _watched_by_kernel(sock: Any, limit: float) -> bool:
    """Have the kernel end waits of a blocking socket after this limit, and say whether it will.

    Python polls a socket before each read and write for which it has a limit: two more system calls, each of which
    lets another thread take the interpreter. Not for TLS, nor for sockets of other libraries, which wait in ways of
    their own; and not for what a deadline cuts short, since the kernel counts in ticks of some milliseconds. Nor where
    a timer interrupts this process again and again, as profilers do: the kernel begins to count anew each time.
    """
    if type(sock).__module__ != "socket" or sys.platform == "win32" or not 0 < limit < _LONGEST:
        return False
    if signal.getitimer(signal.ITIMER_REAL)[1]:
        return False
    whole = int(limit)
    seconds = struct.pack("ll", whole, max(1, int((limit - whole) * 1e6)))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, seconds)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, seconds)
    return True


def _failed(error: OSError) -> redis.exceptions.RedisError:
    if isinstance(error, TimeoutError | BlockingIOError):  # the latter where the kernel watched
        return late()
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return Closed("Connection closed by server.")
    return redis.exceptions.ConnectionError(f"Error while talking to the server: {type(error).__name__}")
