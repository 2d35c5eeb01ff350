"""What time is: a monotonic reading, the wall clock, and two ways to sleep.

Nothing else in this library reads a clock. Whoever needs time is given a `Clock`; tests give
`resilient.testing.FakeClock`.
"""

from __future__ import annotations

import time
from typing import Protocol, runtime_checkable

__all__ = ["SYSTEM", "Clock", "SystemClock"]


@runtime_checkable
class Clock(Protocol):
    """A source of time. All values are seconds."""

    def monotonic(self) -> float:
        """Seconds since some moment in the past; never runs backwards. For durations and deadlines."""
        ...

    def wall(self) -> float:
        """Seconds since 1970-01-01 UTC. For moments that other machines must understand."""
        ...

    def sleep(self, seconds: float, /) -> None:
        """Block this thread for that long."""
        ...

    async def asleep(self, seconds: float, /) -> None:
        """Suspend this task for that long."""
        ...


class SystemClock:
    """The machine's own clock.

    Examples:
        >>> before = SYSTEM.monotonic()
        >>> SYSTEM.sleep(0.001)
        >>> SYSTEM.monotonic() > before
        True
    """

    __slots__ = ()

    # The C functions themselves, so that reading the time costs no Python frame.
    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(time.time)
    sleep = staticmethod(time.sleep)

    async def asleep(self, seconds: float, /) -> None:
        """Suspend this task for that long."""
        import asyncio  # who never awaits does without it, which is a good part of what importing a room costs

        await asyncio.sleep(seconds)

    def __repr__(self) -> str:
        return "SystemClock()"


SYSTEM: Clock = SystemClock()
"""The clock used wherever none is given."""
