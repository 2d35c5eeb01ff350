"""A connection of one event loop, on which the calls of all its tasks follow each other without waiting."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
from collections import deque
from collections.abc import Iterator
from itertools import chain
from typing import Any, cast

from resilient.errors import needs_extra
from resilient.wire.redis._limits import Busy, Closed, late, within
from resilient.wire.redis._parsing import ROOM, UNFINISHED, new_reader, refined
from resilient.wire.redis._reply import Reply, hand_out

with needs_extra("redis"):
    import redis.exceptions

__all__ = ["SlowStream", "Stream"]

_MOST = 10_000  # replies that may be outstanding on one connection; more is a queue, and a queue has its bound
_GRACE = 0.001  # seconds for which a late reply is still looked for, in case it is this loop that was late


class Stream(asyncio.BufferedProtocol):
    """A connection after its handshake, which takes commands while replies are outstanding.

    One timer watches over all of them. A reply that is later than ``answer`` seconds ends the connection: its caller
    gets a timeout, the others an error of the connection. A caller whose deadline comes first goes away alone.
    """

    def __init__(self, connection: Any) -> None:
        self._loop = asyncio.get_running_loop()
        self._time = self._loop.time
        self._done: asyncio.Future[None] = self._loop.create_future()
        self._done.set_result(None)
        reader: Any = new_reader(connection)
        self._feed, self._gets = reader.feed, reader.gets
        writer = connection._writer  # noqa: SLF001 - its transport is driven directly: its layers cost more than the net
        self._transport = cast("asyncio.Transport", writer.transport)
        self._write = self._transport.write
        # The writer closes its transport when it is collected, and the connection warns that it was not closed.
        self._kept = (connection, writer)
        connection._writer = connection._reader = None  # noqa: SLF001 - as above
        self._room = memoryview(bytearray(ROOM))  # a view, since TLS cuts it
        self._pending: deque[Reply] = deque()
        """Replies that are outstanding; whoever went away leaves his behind, so that the others' do not shift."""
        self._unsent: list[bytes] = []
        self._asked: dict[bytes, Reply] = {}
        """Of those unsent what only reads, and who waits for it: whoever wants the same waits along."""
        self._handing = False
        self._crowd = False
        self._retired = False
        self._wakes = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._second_look = False
        self.served = False
        self.closed = self._transport.is_closing()
        self._transport.set_protocol(self)

    # ------------------------------------------------------------------------------------------------- commands

    def send(self, wire: bytes, count: int, answer: float, reading: bool = False) -> Reply:  # noqa: FBT001, FBT002 - on the way of every hit
        """Send commands; what is returned gives the reply, or where there are several commands, the list of replies.

        Errors of the server are replies. One command that only reads is sent once for all tasks that ask for the same
        in one turn of the loop, so that a herd costs the server one.
        """
        if self.closed:
            raise Closed("Connection closed by server.")
        pending = self._pending
        if len(pending) >= _MOST:
            raise Busy
        now = self._time()
        gives_up = now + within(answer)
        reply = Reply(self._loop, gives_up, now + answer, count)
        if gives_up < self._wakes:
            self._watch(gives_up)
        if not (pending or self._handing or self._crowd):
            self._write(wire)
        elif reading and wire in self._asked:
            self._asked[wire].join(reply)
            return reply
        else:
            self._later(wire)
            if reading:
                self._asked[wire] = reply
            else:
                self._asked.clear()  # what reads after this finds what it did
        pending.append(reply)
        return reply

    def _later(self, wire: bytes) -> None:
        """Have it sent with what others say: those who are handed a reply now, or all in this turn of the loop."""
        if not self._unsent and not self._handing:
            self._loop.call_soon(self._flush)
        self._unsent.append(wire)

    def _flush(self) -> None:
        if self._unsent and not self.closed:
            self._write(b"".join(self._unsent))
        self._unsent.clear()
        self._asked.clear()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - of the protocol
        """Where the transport puts what it reads."""
        return self._room

    def buffer_updated(self, nbytes: int) -> None:
        """Hand out the replies, in the order of the commands, and send what those say to whom they are handed."""
        pending = self._pending
        ready: list[Reply] = []
        try:
            self._feed(self._room, 0, nbytes)
            while (reply := self._gets()) is not UNFINISHED:
                waiter = pending[0]
                if waiter.count == 1:
                    waiter.value = reply
                else:
                    waiter.value.append(reply)
                    if len(waiter.value) < waiter.count:
                        continue
                pending.popleft()
                if waiter.twins:
                    ready += waiter.come_to_all()
                else:
                    ready.append(waiter)
        except Exception as error:  # noqa: BLE001 - a reply that nobody asked for, or bytes that are none
            self._end(redis.exceptions.ConnectionError(f"what the server said was not understood: {error}"))
        else:
            self.served = True
            self._crowd = len(ready) > 1
            self._handing = self._crowd or bool(pending)
            if self._retired and not pending:
                self.close()
        try:
            hand_out(ready, self._done)
        finally:
            if self._handing:
                self._handing = False
                self._flush()

    # -------------------------------------------------------------------------------------------------- lateness

    def _watch(self, moment: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._wakes = moment
        self._timer = self._loop.call_at(moment, self._look)

    def _look(self) -> None:
        """Let go whoever can wait no longer; end the connection where a reply is later than it may be."""
        self._timer = None
        self._wakes = math.inf
        if self.closed or not self._pending:
            return
        now = self._time()
        first = self._first()
        if first > now or not self._second_look:
            self._second_look = first <= now
            self._watch(now + _GRACE if self._second_look else first)
            return
        self._second_look = False
        for each in self._waiting():
            if each.gives_up <= now:
                each.fail(late())
        if self._pending[0].expires <= now:
            self._end(redis.exceptions.ConnectionError("Connection dropped: a reply on it was late."))
        else:
            self._watch(self._first())

    def _waiting(self) -> Iterator[Reply]:
        return chain.from_iterable(waiter.whole() for waiter in self._pending)

    def _first(self) -> float:
        return min(each.due() for each in self._waiting())

    # --------------------------------------------------------------------------------------------------- its end

    def eof_received(self) -> None:
        """The server hung up. It is known from now on, a turn before the connection is lost: nobody sends any more."""
        self._end(Closed("Connection closed by server."))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - closed is closed
        """The server closed it, or the network did."""
        self._end(Closed("Connection closed by server."))

    def retire(self) -> None:
        """Close it when the replies that are outstanding have come."""
        self._retired = True
        if not self._pending:
            self.close()

    def close(self) -> None:
        """Hang up now."""
        self._end(redis.exceptions.ConnectionError("Connection closed by this side."))

    def forsake(self) -> None:
        """Hang up where the loop is closed already, through which it would have been done."""
        self.closed = True
        _shut(self._transport)

    def _end(self, error: redis.exceptions.ConnectionError) -> None:
        if self.closed and not self._pending:
            return
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
        waiters, self._pending = list(self._waiting()), deque()
        for waiter in waiters:
            waiter.fail(type(error)(str(error)))
        self._transport.abort()


class SlowStream:
    """The same face where hiredis is missing: one command after the other, read by redis-py's own parser."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._retired = False
        self.served = False
        self.closed = False

    def send(self, wire: bytes, count: int, answer: float, reading: bool = False) -> asyncio.Future[Any]:  # noqa: ARG002, FBT001, FBT002 - as in `Stream`
        """See `Stream.send`."""
        if self.closed:
            raise Closed("Connection closed by server.")
        if self._waiting >= _MOST:
            raise Busy
        self._waiting += 1
        return asyncio.ensure_future(self._exchange(wire, count, answer))

    async def _exchange(self, wire: bytes, count: int, answer: float) -> Any:
        try:
            async with asyncio.timeout(within(answer)), self._turn:
                if self.closed:
                    raise Closed("Connection closed by server.")
                try:
                    await self._connection.send_packed_command([wire], check_health=False)
                    replies = [await self._reply() for _ in range(count)]
                except BaseException as error:
                    self.closed = True  # what comes next would be somebody else's reply
                    await self._connection.disconnect(nowait=True)
                    if type(error) is redis.exceptions.ConnectionError:
                        raise Closed(str(error)) from error
                    raise
        except TimeoutError as error:
            raise late() from error
        finally:
            self._waiting -= 1
        self.served = True
        if self._retired and not self._waiting:
            self.close()
        return replies if count > 1 else replies[0]

    async def _reply(self) -> Any:
        try:
            return await self._connection.read_response(disconnect_on_error=False)
        except redis.exceptions.ResponseError as error:
            return refined(error)

    def retire(self) -> None:
        """See `Stream.retire`."""
        self._retired = True
        if not self._waiting:
            self.close()

    def close(self) -> None:
        """See `Stream.close`."""
        self.closed = True
        writer = self._connection._writer  # noqa: SLF001 - at once; the polite way needs a turn of the loop
        if writer is not None:
            writer.close()
        self._connection._writer = self._connection._reader = None  # noqa: SLF001 - as above

    def forsake(self) -> None:
        """See `Stream.forsake`."""
        self.closed = True
        writer = self._connection._writer  # noqa: SLF001 - as above
        if writer is not None:
            _shut(writer.transport)


def _shut(transport: asyncio.BaseTransport) -> None:
    taken = transport.get_extra_info("socket")
    if taken is not None:
        with contextlib.suppress(OSError):  # the other side was faster
            taken.shutdown(socket.SHUT_RDWR)
