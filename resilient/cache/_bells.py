"""How a change in a table of entries wakes those who wait for it: a thread, or a task.

Written twice, since a thread and a task wait in different ways.
"""

from __future__ import annotations

import contextlib
import threading
from time import monotonic
from typing import TYPE_CHECKING

from resilient.clock import SYSTEM, Clock

if TYPE_CHECKING:
    import asyncio

__all__ = ["AsyncBell", "Bell"]

_SLICE = 0.005  # seconds; a clock that is not the machine's is looked at that often by those who wait


class Bell:
    """How a thread waits for a change in a table.

    Args:
        clock: The table's clock; one that is not the machine's is looked at every few milliseconds.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._event = threading.Event()
        self.ring = self._event.set

    def wait(self, seconds: float) -> None:
        """Until it rings; so many seconds at most, by either clock."""
        if self._clock is SYSTEM:
            self._event.wait(min(seconds, threading.TIMEOUT_MAX))
            return
        until, end = self._clock.monotonic() + seconds, monotonic() + seconds
        while not self._event.wait(_SLICE) and self._clock.monotonic() < until and monotonic() < end:
            continue


class AsyncBell:
    """How a task waits for a change in a table; see `Bell`."""

    def __init__(self, clock: Clock) -> None:
        import asyncio  # who never awaits does without it

        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[None] = self._loop.create_future()

    def ring(self) -> None:
        """Wake the task, from whichever thread."""
        with contextlib.suppress(RuntimeError):  # its loop is closed, so that nobody waits
            self._loop.call_soon_threadsafe(self._set)

    def _set(self) -> None:
        if not self._future.done():
            self._future.set_result(None)

    async def wait(self, seconds: float) -> None:
        """Until it rings; so many seconds at most, by either clock."""
        import asyncio  # who never awaits does without it

        if self._clock is SYSTEM:
            await asyncio.wait([self._future], timeout=seconds)
            return
        until, end = self._clock.monotonic() + seconds, monotonic() + seconds
        while not self._future.done() and self._clock.monotonic() < until and monotonic() < end:
            await asyncio.wait([self._future], timeout=_SLICE)
