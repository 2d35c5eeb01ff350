"""What a task waits for on a stream, and how it goes on in the very turn of the loop that read its reply.

A future of asyncio wakes its task by way of the loop's queue: each reply costs a handle, and each batch of replies one
more turn of the loop, which asks the system for news again. On the way of every hit that is a third of the time. A
`Reply` follows the protocol by which tasks wait for anything that is no future of asyncio's own (`asyncio.isfuture`),
so that whoever reads the replies can step the tasks himself.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
from collections.abc import Callable, Generator, Sequence
from typing import Any

__all__ = ["Reply", "hand_out"]


class Reply:
    """One reply, or several to as many commands, for one task.

    Args:
        loop: The loop of the task.
        gives_up: When the task can wait no longer, on the loop's clock.
        expires: When the reply is late, on the loop's clock.
        count: How many replies it takes.
    """

    # Of the class until they change, since most of them never do: making one of these is on the way of every hit.
    _asyncio_future_blocking = False
    value: Any = None
    """What came: the reply, or the list of them."""
    _error: BaseException | None = None
    step: Callable[[Any], object] | None = None
    context: contextvars.Context
    settled = False
    """Whether it came, failed, or is waited for no more."""
    twins: list[Reply] | tuple[()] = ()
    """Those of other tasks that the same command brings."""

    def __init__(self, loop: asyncio.AbstractEventLoop, gives_up: float, expires: float, count: int) -> None:
        self._loop = loop
        self.gives_up = gives_up
        self.expires = expires
        self.count = count
        if count > 1:
            self.value = []

    # --------------------------------------------------------------------------------------------- who reads replies

    def join(self, twin: Reply) -> None:
        """Have the reply brought to another task too."""
        if self.twins:
            self.twins.append(twin)
        else:
            self.twins = [twin]

    def whole(self) -> Sequence[Reply]:
        """It and its twins."""
        return (self, *self.twins)

    def come_to_all(self) -> list[Reply]:
        """Give the twins what came, to each a copy of his own: what one does to it is nothing to the others."""
        for twin in self.twins:
            twin.value = _copied(self.value) if self.count == 1 else [_copied(each) for each in self.value]
        return [self, *self.twins]

    def due(self) -> float:
        """When its task can wait no longer; where none waits, when it is late."""
        return self.expires if self.settled else self.gives_up

    def fail(self, error: BaseException) -> None:
        """Let the task go on with an error, in the next turn of the loop."""
        if not self.settled:
            self.settled = True
            self._error = error
            self.wake_soon()

    def wake_soon(self) -> None:
        """Let the task go on in the next turn of the loop."""
        self.settled = True
        step, self.step = self.step, None
        if step is not None:
            self._loop.call_soon(step, self, context=self.context)

    # ------------------------------------------------------------------------------------------------- the task's side

    def __await__(self) -> Generator[Any, None, Any]:
        if not self.settled:
            self._asyncio_future_blocking = True
            yield self
            if self._error is None:  # as `result` tells, which the task has asked before it went on
                return self.value
        return self.result()

    def add_done_callback(
        self, callback: Callable[[Any], object], *, context: contextvars.Context | None = None
    ) -> None:
        """What steps the task; a task calls this itself, once."""
        self.step = callback
        self.context = contextvars.copy_context() if context is None else context
        if self.settled:
            self.wake_soon()

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """The loop of the task."""
        return self._loop

    def result(self) -> Any:
        """The reply. Raises what it failed with."""
        if self._error is not None:
            raise self._error
        if not self.settled:
            raise asyncio.InvalidStateError("the reply has not come yet")
        return self.value

    def exception(self) -> BaseException | None:
        """What it failed with."""
        return self._error

    def done(self) -> bool:
        """Whether there is nothing to wait for."""
        return self.settled

    def cancelled(self) -> bool:
        """Whether its task was cancelled."""
        return isinstance(self._error, asyncio.CancelledError)

    def cancel(self, msg: Any = None) -> bool:
        """Wait no more. The reply that still comes is dropped."""
        if self.settled:
            return False
        self.fail(asyncio.CancelledError() if msg is None else asyncio.CancelledError(msg))
        return True


def _copied(reply: Any) -> Any:
    return reply.copy() if reply.__class__ is list else copy.copy(reply)


def hand_out(ready: Sequence[Reply], done: asyncio.Future[None]) -> None:
    """Let the tasks of these go on, one after the other. To be called by the loop itself, not by a task.

    Args:
        ready: Their replies.
        done: A future that is done, for the tasks to ask in their stead: they ask a future without a call of Python
            code, and what came is told by the reply to whoever awaits it.
    """
    for at, reply in enumerate(ready):
        reply.settled = True
        step, reply.step = reply.step, None
        if step is not None:
            try:
                reply.context.run(step, done)
            except BaseException:  # an interrupt, which ends the loop: should it run again, the others must not hang
                for other in ready[at + 1 :]:
                    other.wake_soon()
                raise
