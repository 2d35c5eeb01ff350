"""The bulkhead's core: permits that are taken and given back in one atomic step each, and the few who wait for one.

The permits are the bytes of a `bytearray`: ``pop`` takes one or raises IndexError, ``append`` gives one back, and both
are single steps of the interpreter. Only a caller that finds none takes a lock.

Nobody is overlooked: a waiter first enters the queue and then looks once more for a permit; whoever gives one back
does so first and then looks at the queue. The permit itself stays in the open, so a waiter that is woken and finds it
gone waits on.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

from resilient.errors import Overloaded

__all__ = ["BulkheadCore"]


class BulkheadCore:
    """Permits for one pipeline, for threads and tasks alike.

    Args:
        limit: How many there are.
        queue: How many callers may wait at once.

    Attributes:
        take: Takes a permit; raises IndexError where there is none.
        give: Gives one back; call ``wake`` after it where ``waiters`` is not empty.
        waiters: What wakes each of those who wait, the longest first.
    """

    __slots__ = ("_lock", "_permits", "give", "limit", "queue", "take", "waiters")

    def __init__(self, limit: int, queue: int) -> None:
        self.limit = limit
        self.queue = queue
        self.waiters: list[Callable[[], object]] = []
        self._permits = bytearray(limit)
        self.take: Callable[[], int] = self._permits.pop
        self.give: Callable[[int], None] = self._permits.append
        self._lock = threading.RLock()

    def forked(self) -> None:
        """Go on in a forked child: the threads that held permits, or the lock, or waited, do not exist here."""
        self._lock = threading.RLock()
        self.waiters.clear()
        self._permits[:] = bytes(self.limit)

    @property
    def running(self) -> int:
        """How many permits are taken."""
        return self.limit - len(self._permits)

    def wake(self) -> None:
        """Tell the first who waits that a permit may be free."""
        with self._lock:
            if self.waiters:
                self.waiters[0]()

    def enlist(self, wake: Callable[[], object]) -> None:
        """Stand in the queue.

        Raises:
            Overloaded: It is full.
        """
        with self._lock:
            if len(self.waiters) >= self.queue:
                raise self.refusal("and its queue is full")
            self.waiters.append(wake)

    def leave(self, wake: Callable[[], object]) -> None:
        """Leave the queue; if a permit is free then, it is the next one's turn to look."""
        with self._lock:
            self.waiters.remove(wake)
            if self.waiters and self._permits:
                self.waiters[0]()

    def refusal(self, why: str) -> Overloaded:
        """The error for a caller that gets no permit."""
        return Overloaded(
            f"the call was not made: {self.limit} calls run already {why}",
            advice="answer 429 or 503, or raise the limit of the bulkhead",
        )

    def wait(self, seconds: float, now: Callable[[], float]) -> None:
        """Take a permit, or block for one.

        Raises:
            Overloaded: None came free in time, or too many wait.
        """
        until = now() + seconds
        signal = threading.Event()
        waiting = True
        self.enlist(signal.set)
        try:
            while True:
                signal.clear()
                with contextlib.suppress(IndexError):
                    self.take()
                    return
                left = until - now()
                if left <= 0 or not waiting:
                    raise self.refusal(f"and none ended within {seconds:g} s")
                waiting = signal.wait(left)
        finally:
            self.leave(signal.set)

    async def await_(self, seconds: float, now: Callable[[], float]) -> None:
        """The same for a task: it suspends instead of blocking its thread."""
        import asyncio  # who never awaits does without it

        until = now() + seconds
        loop = asyncio.get_running_loop()
        signal = asyncio.Event()
        waiting = True

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # its loop is closed: nobody waits there
                loop.call_soon_threadsafe(signal.set)

        self.enlist(wake)
        try:
            while True:
                signal.clear()
                with contextlib.suppress(IndexError):
                    self.take()
                    return
                left = until - now()
                if left <= 0 or not waiting:
                    raise self.refusal(f"and none ended within {seconds:g} s")
                try:
                    async with asyncio.timeout(left):
                        await signal.wait()
                except TimeoutError:
                    waiting = False
        finally:
            self.leave(wake)
