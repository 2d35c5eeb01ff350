"""The sync way to one server: connections that are free lie in a stack, and each call takes one for itself."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from resilient.clock import SYSTEM
from resilient.errors import needs_extra
from resilient.runtime import after_fork, fork_safe_lock
from resilient.wire.redis._addresses import Place
from resilient.wire.redis._dialing import SYNC, Dial
from resilient.wire.redis._limits import Busy, Closed, Limits, within
from resilient.wire.redis._line import Line

with needs_extra("redis"):
    import redis.exceptions

__all__ = ["Exchange", "Node"]

_TRUSTED = 1.0  # seconds for which a free connection is taken to be alive, by what only reads and may be sent again
_WATCHED = 0.01  # the same for what may not
_now = SYSTEM.monotonic


class Exchange:
    """Commands that were sent; the replies are fetched with `finish`, or given up with `abandon`."""

    __slots__ = ("_count", "_limit", "_line", "_node", "_reading", "_wire")

    def __init__(self, node: Node, line: Line, wire: bytes, count: int, limit: float, *, reading: bool) -> None:
        self._node = node
        self._line: Line | None = line
        self._wire = wire
        self._count = count
        self._limit = limit
        self._reading = reading

    def finish(self) -> list[Any]:
        """The replies, in order; errors of the server stand among them."""
        line, self._line = self._line, None
        if line is None:
            return []
        try:
            replies = line.receive(self._count, self._limit)
        except Closed:
            self._node.lost(line)
            if not self._reading or not line.used:
                raise
            return self._node.anew(self._wire, self._count)
        except BaseException:
            self._node.drop(line)
            raise
        self._node.release(line)
        return replies

    def abandon(self) -> None:
        """Nobody will ask for the replies."""
        line, self._line = self._line, None
        if line is not None:
            self._node.drop(line)


class Node:
    """The connections of this process to one server.

    Args:
        place: Where it is; told to ``dial``.
        dial: Makes a connection.
        limits: How long and how many.
        locate: Says where the server is now, at each new connection.
        admit: Looks at a new connection, and raises where it must not be used.
    """

    kinds = SYNC

    def __init__(
        self,
        place: Place,
        dial: Dial,
        limits: Limits,
        *,
        locate: Callable[[], Place] | None = None,
        admit: Callable[[Any], None] | None = None,
    ) -> None:
        self.place = place
        self._dial = dial
        self._limits = limits
        self._answer = limits.answer
        self._locate = locate
        self._admit = admit
        self._forget()
        after_fork(self._forget)

    def _forget(self) -> None:
        """A forked child drops the sockets, which are its parent's, without a word to the server."""
        self._free: deque[Line] = deque()
        self._turn = threading.Condition(fork_safe_lock())
        self._waiting = 0
        self._count = 0
        self._era = object()

    # ------------------------------------------------------------------------------------------------- commands

    def call(self, wire: bytes, reading: bool, count: int = 1) -> Any:  # noqa: FBT001 - on the way of every hit
        """Send one command and return the reply, which may be an error of the server; of several a list of replies.

        Raises:
            redis.ConnectionError: The connection failed; what only reads was tried once more on a new one.
            redis.TimeoutError: No reply within the limit or the deadline.
        """
        limit = within(self._answer)
        line = self._take(_TRUSTED if reading else _WATCHED)
        try:
            reply = line.ask(wire, limit) if count == 1 else line.ask_many(wire, count, limit)
        except Closed:
            self.lost(line)
            if not reading or not line.used:
                raise
            replies = self.anew(wire, count)
            return replies[0] if count == 1 else replies
        except BaseException:
            self.drop(line)
            raise
        self.release(line)
        return reply

    def begin(self, wire: bytes, count: int, reading: bool) -> Exchange:  # noqa: FBT001 - as in `call`
        """Send several commands; the replies are fetched later."""
        limit = within(self._answer)
        line = self._take(_TRUSTED if reading else _WATCHED)
        try:
            line.send(wire, limit)
        except Closed:
            self.lost(line)
            if not reading or not line.used:
                raise
            line = self._fresh()
            return self._sent(line, wire, count, limit, reading=reading)
        except BaseException:
            self.drop(line)
            raise
        return Exchange(self, line, wire, count, limit, reading=reading)

    def _sent(self, line: Line, wire: bytes, count: int, limit: float, *, reading: bool) -> Exchange:
        try:
            line.send(wire, limit)
        except BaseException:
            self.drop(line)
            raise
        return Exchange(self, line, wire, count, limit, reading=reading)

    def anew(self, wire: bytes, count: int) -> list[Any]:
        """The same on a new connection."""
        line = self._fresh()
        try:
            replies = line.ask_many(wire, count, within(self._answer))
        except BaseException:
            self.drop(line)
            raise
        self.release(line)
        return replies

    def block(self, wire: bytes, limit: float) -> Any:
        """Send one command for whose reply the limit is another."""
        line = self._take(_WATCHED)
        try:
            reply = line.ask(wire, within(limit))
        except BaseException:
            self.drop(line)
            raise
        self.release(line)
        return reply

    # ---------------------------------------------------------------------------------------------- connections

    def _take(self, trusted: float) -> Line:
        try:
            line = self._free.pop()
        except IndexError:
            return self._fresh()
        return line if _now() - line.used <= trusted else self._checked(line)

    def _checked(self, line: Line) -> Line:
        """A free connection if it is alive, or the next that is."""
        try:
            while line.stale():
                self.drop(line)
                line = self._free.pop()
        except IndexError:
            return self._fresh()
        return line

    def _fresh(self) -> Line:
        """A new connection, or where there are as many as may be, the next that becomes free."""
        era = self._era
        with self._turn:
            if self._count >= self._limits.connections:
                line = self._next()
                if line is not None:
                    return line
            self._count += 1
        try:
            return Line(self._open(), era, self._answer)
        except BaseException:
            self._gone()
            raise

    def _next(self) -> Line | None:
        until = _now() + within(self._limits.wait)
        self._waiting += 1
        try:
            while True:
                try:
                    return self._free.pop()
                except IndexError:
                    left = until - _now()
                if self._count < self._limits.connections:
                    return None
                if left <= 0:
                    raise Busy
                self._turn.wait(left)
        finally:
            self._waiting -= 1

    def _open(self) -> Any:
        connection = self._dial(self.place if self._locate is None else self._locate())
        try:
            connection.connect()
            if self._admit is not None:
                self._admit(connection)
        except redis.exceptions.TimeoutError as error:
            connection.disconnect()
            raise redis.exceptions.TimeoutError("Timeout connecting to server") from error
        except redis.exceptions.ConnectionError as error:
            connection.disconnect()
            if "connecting to" in str(error) or type(error) is not redis.exceptions.ConnectionError:
                raise
            raise redis.exceptions.ConnectionError("Connection lost while connecting to server") from error
        except BaseException:
            connection.disconnect()
            raise
        return connection

    def release(self, line: Line) -> None:
        """Give a connection back after its reply came."""
        line.used = _now()
        if line.era is not self._era:
            self.drop(line)
            return
        self._free.append(line)
        if self._waiting:
            self._wake()

    def drop(self, line: Line) -> None:
        """Close a connection that must not be used again."""
        line.close()
        self._gone()

    def lost(self, line: Line) -> None:
        """Close a connection that the server had closed, and those that went with it."""
        self.drop(line)
        alive = []
        while True:
            try:
                other = self._free.pop()
            except IndexError:
                break
            if other.stale():
                self.drop(other)
            else:
                alive.append(other)
        self._free.extend(reversed(alive))

    def renew(self) -> None:
        """Use none of the present connections again: those in use are closed when their replies came."""
        self._era = object()
        while True:
            try:
                line = self._free.pop()
            except IndexError:
                return
            self.drop(line)

    def close(self) -> None:
        """Close the connections."""
        self.renew()

    def _wake(self) -> None:
        with self._turn:
            self._turn.notify()

    def _gone(self) -> None:
        with self._turn:
            self._count -= 1
            self._turn.notify()
