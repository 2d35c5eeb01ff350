"""The streams of each event loop to one server, opened when they are needed."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from resilient.errors import needs_extra
from resilient.runtime import after_fork
from resilient.wire.redis._addresses import Place
from resilient.wire.redis._dialing import ASYNC, Dial
from resilient.wire.redis._limits import Busy, Closed, Limits, within
from resilient.wire.redis._parsing import new_reader
from resilient.wire.redis._reply import Reply
from resilient.wire.redis._stream import SlowStream, Stream

with needs_extra("redis"):
    import redis.exceptions

__all__ = ["AsyncExchange", "AsyncNode"]


class _Lane:
    """What one event loop has: a stream for all, those that are lent to one caller each, and an opening under way."""

    def __init__(self) -> None:
        self.stream: Stream | SlowStream | None = None
        self.opening: asyncio.Task[Stream | SlowStream] | None = None
        self.spare: list[Stream | SlowStream] = []
        self.lent: set[Stream | SlowStream] = set()
        self.end: AsyncGenerator[None, None] | None = None
        """What closes them when the loop ends; begun with the first."""

    def streams(self) -> list[Stream | SlowStream]:
        """All that are open, but for those that are being opened."""
        return [*([] if self.stream is None else [self.stream]), *self.spare, *self.lent]

    def close(self) -> None:
        """Close all of them."""
        for stream in self.streams():
            stream.close()
        self.stream = None
        self.spare.clear()

    async def watch(self) -> None:
        """Have them closed when the running loop ends, whoever ends it, as `asyncio.run` does."""
        if self.end is None:
            self.end = _until_the_end(self)
            await anext(self.end)


async def _until_the_end(lane: _Lane) -> AsyncGenerator[None, None]:
    """A generator that is begun and never goes on: before a loop is closed, it ends all of those."""
    try:
        yield
    finally:
        lane.close()
        await asyncio.sleep(0)  # the loop closes the sockets in its next turn


class AsyncExchange:
    """Commands that were sent; the replies are fetched with `finish`, or given up with `abandon`."""

    __slots__ = ("_again", "_count", "_future", "_node", "_wire")

    def __init__(
        self, node: AsyncNode, future: Reply | asyncio.Future[Any], wire: bytes, count: int, *, again: bool
    ) -> None:
        self._node = node
        self._future = future
        self._wire = wire
        self._count = count
        self._again = again

    async def finish(self) -> list[Any]:
        """The replies, in order; errors of the server stand among them."""
        try:
            replies = await self._future
        except Closed:
            if not self._again:
                raise
            replies = await self._node.anew(self._wire, self._count)
        return replies if self._count > 1 else [replies]

    def abandon(self) -> None:
        """Nobody will ask for the replies."""
        if self._future.done():
            _forget_outcome(self._future)
        else:
            self._future.cancel()


class AsyncNode:
    """The connections of this process to one server; see `Node`, its sync twin."""

    kinds = ASYNC

    def __init__(
        self,
        place: Place,
        dial: Dial,
        limits: Limits,
        *,
        locate: Callable[[], Awaitable[Place]] | None = None,
        admit: Callable[[Any], Awaitable[None]] | None = None,
    ) -> None:
        self.place = place
        self._dial = dial
        self._limits = limits
        self._answer = limits.answer
        self._locate = locate
        self._admit = admit
        self._lanes: dict[asyncio.AbstractEventLoop, _Lane] = {}
        self._kept: list[dict[asyncio.AbstractEventLoop, _Lane]] = []
        after_fork(self._forget)

    def _forget(self) -> None:
        """A forked child uses none of its parent's sockets, and does not let go of them either.

        Collecting them would take them from the selector that the two share, and the parent would wait for ever.
        """
        self._kept.append(self._lanes)
        self._lanes = {}

    def _lane(self) -> _Lane:
        loop = asyncio.get_running_loop()
        try:
            return self._lanes[loop]
        except KeyError:
            pass
        for other in list(self._lanes):
            if other.is_closed():  # without having closed its connections, which nobody else would do
                lane = self._lanes.pop(other, None)
                for stream in () if lane is None else lane.streams():
                    stream.forsake()
        return self._lanes.setdefault(loop, _Lane())

    # ------------------------------------------------------------------------------------------------- commands

    async def call(self, wire: bytes, reading: bool, count: int = 1) -> Any:  # noqa: FBT001 - on the way of every hit
        """Send one command and return the reply, which may be an error of the server; of several a list of replies.

        Raises:
            redis.ConnectionError: The connection failed; what only reads was tried once more on a new one.
            redis.TimeoutError: No reply within the limit or the deadline.
        """
        try:
            stream = self._lanes[asyncio.get_running_loop()].stream
        except KeyError:
            stream = self._lane().stream
        if stream is None or stream.closed:
            stream = await self._opened()
        again = reading and stream.served
        try:
            return await stream.send(wire, count, self._answer, reading)
        except Closed:
            if not again:
                raise
        return await self.anew(wire, count)

    async def begin(self, wire: bytes, count: int, reading: bool) -> AsyncExchange:  # noqa: FBT001 - as in `call`
        """Send several commands; the replies are fetched later."""
        stream = self._lane().stream
        if stream is None or stream.closed:
            stream = await self._opened()
        future = stream.send(wire, count, self._answer, reading)
        return AsyncExchange(self, future, wire, count, again=reading and stream.served)

    async def anew(self, wire: bytes, count: int) -> Any:
        """The same on a new connection."""
        return await (await self._opened()).send(wire, count, self._answer)

    async def block(self, wire: bytes, limit: float) -> Any:
        """Send one command for whose reply the limit is another, on a connection of its own."""
        lane = self._lane()
        while lane.spare and lane.spare[-1].closed:
            lane.spare.pop()
        if len(lane.lent) >= self._limits.connections:
            raise Busy
        stream = lane.spare.pop() if lane.spare else await self._open(lane)
        lane.lent.add(stream)
        try:
            reply = await stream.send(wire, 1, limit)
        except BaseException:
            stream.close()  # its reply may still come
            raise
        finally:
            lane.lent.discard(stream)
        lane.spare.append(stream)
        return reply

    # ---------------------------------------------------------------------------------------------- connections

    async def _opened(self) -> Stream | SlowStream:
        """The loop's stream; whoever comes while it is being opened waits for the same one, as long as he can."""
        lane = self._lane()
        if lane.stream is not None and not lane.stream.closed:
            return lane.stream
        task = lane.opening
        if task is None:
            # In a context of its own: nobody's deadline cuts short what all wait for.
            task = lane.opening = asyncio.get_running_loop().create_task(
                self._open_for(lane), context=contextvars.Context()
            )
            task.add_done_callback(_forget_outcome)
        longest = self._limits.connect + 8 * self._limits.answer
        done, _ = await asyncio.wait({task}, timeout=within(longest))
        if not done:
            raise redis.exceptions.TimeoutError("Timeout connecting to server")
        return task.result()

    async def _open_for(self, lane: _Lane) -> Stream | SlowStream:
        try:
            lane.stream = await self._open(lane)
        finally:
            lane.opening = None
        return lane.stream

    async def _open(self, lane: _Lane) -> Stream | SlowStream:
        await lane.watch()
        place = self.place if self._locate is None else await self._locate()
        connection = self._dial(place)
        try:
            await connection.connect()
            if self._admit is not None:
                await self._admit(connection)
        except redis.exceptions.TimeoutError as error:
            await connection.disconnect(nowait=True)
            raise redis.exceptions.TimeoutError("Timeout connecting to server") from error
        except redis.exceptions.ConnectionError as error:
            await connection.disconnect(nowait=True)
            if "connecting to" in str(error) or type(error) is not redis.exceptions.ConnectionError:
                raise
            raise redis.exceptions.ConnectionError("Connection lost while connecting to server") from error
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return SlowStream(connection) if new_reader(connection) is None else Stream(connection)

    def renew(self) -> None:
        """Use none of the running loop's connections again: they are closed when their replies came."""
        lane = self._lane()
        for stream in (lane.stream, *lane.spare):
            if stream is not None:
                stream.retire()
        lane.stream = None
        lane.spare.clear()

    async def aclose(self) -> None:
        """Close the running loop's connections."""
        lane = self._lane()
        self._lanes.pop(asyncio.get_running_loop(), None)
        if lane.end is not None:
            await lane.end.aclose()


def _forget_outcome(future: Reply | asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()  # asked for, so that nobody complains that it was not
