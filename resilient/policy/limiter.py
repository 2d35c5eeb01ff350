"""GCRA, the generic cell rate algorithm: a rate limit whose whole state is one moment."""

from __future__ import annotations

import threading
from typing import Protocol, runtime_checkable

__all__ = ["Gcra", "SharedRate"]


@runtime_checkable
class SharedRate(Protocol):
    """The state of a rate limit that several processes share."""

    def take(self, name: str, interval: float, burst: int, wait: float) -> float:
        """Take a turn.

        Args:
            name: The pipeline that limits.
            interval: Seconds between two turns.
            burst: How many turns may be taken at once after a pause.
            wait: The longest the caller will wait.

        Returns:
            Seconds until the turn that was taken; above ``wait``, no turn was taken and this is when to come back.
        """
        ...

    async def atake(self, name: str, interval: float, burst: int, wait: float) -> float:
        """The same for async callers."""
        ...


class Gcra:
    """The limit of one process: pure but for a lock that is held for a few additions.

    Args:
        interval: Seconds between two turns.
        burst: How many turns may be taken at once after a pause.
    """

    __slots__ = ("_due", "_interval", "_lock", "_slack")

    def __init__(self, interval: float, burst: int) -> None:
        self._interval = interval
        self._slack = interval * (burst - 1)
        self._due = float("-inf")  # when the next turn is due if none is saved up
        self.forked()

    def forked(self) -> None:
        """Make a new lock: in a forked child the old one may be held by a thread that does not exist."""
        self._lock = threading.RLock()

    def take(self, now: float, wait: float) -> float:
        """Take a turn.

        Args:
            now: The moment.
            wait: The longest the caller will wait, in seconds.

        Returns:
            Seconds until the turn; above ``wait``, no turn was taken.
        """
        with self._lock:
            due = max(self._due, now)
            pause = due - self._slack - now
            # A rounding error must not turn a caller away that came exactly when it was told to.
            if pause <= 1e-9:
                pause = 0.0
            if pause <= wait:
                self._due = due + self._interval
            return pause
