"""A clock that moves only when it is told to, or when somebody sleeps on it."""

from __future__ import annotations

import asyncio
import threading

from resilient.errors import InvalidInput

__all__ = ["FakeClock"]


class FakeClock:
    """A `resilient.clock.Clock` for tests: a sleep takes no time and moves the clock on.

    The monotonic reading and the wall clock move together. All threads may use one clock.

    Args:
        start: The first monotonic reading, in seconds.
        wall: The first reading of the wall clock, in seconds since 1970-01-01 UTC.

    Examples:
        >>> clock = FakeClock()
        >>> before = clock.monotonic()
        >>> clock.sleep(5); clock.advance(2.5)
        >>> clock.monotonic() - before
        7.5
        >>> clock.slept
        [5.0]
    """

    def __init__(self, start: float = 1000.0, wall: float = 1_750_000_000.0) -> None:
        self._lock = threading.Lock()
        self._passed = 0.0
        self._start = start
        self._wall = wall
        self.slept: list[float] = []
        """Each sleep that was asked for, in seconds, in order."""

    def monotonic(self) -> float:
        """The monotonic reading, in seconds."""
        return self._start + self._passed

    def wall(self) -> float:
        """Seconds since 1970-01-01 UTC."""
        return self._wall + self._passed

    def advance(self, seconds: float) -> None:
        """Move the clock on.

        Raises:
            InvalidInput: Time would run backwards.
        """
        if not seconds >= 0:
            raise InvalidInput(f"time does not run backwards, got {seconds!r}", advice="advance by zero or more")
        with self._lock:
            self._passed += seconds

    def sleep(self, seconds: float) -> None:
        """Note the sleep, move the clock on by it and return at once."""
        self.advance(max(0.0, seconds))
        with self._lock:
            self.slept.append(float(seconds))

    async def asleep(self, seconds: float) -> None:
        """Note the sleep, move the clock on by it and let other tasks run once."""
        self.sleep(seconds)
        await asyncio.sleep(0)

    def __repr__(self) -> str:
        return f"FakeClock(monotonic={self.monotonic():g}, wall={self.wall():g})"
