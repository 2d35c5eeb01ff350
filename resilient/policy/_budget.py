"""The retry budget: a bucket that calls and time fill and that extra calls empty, worked out when something failed."""

from __future__ import annotations

import threading

__all__ = ["BudgetCore"]


class BudgetCore:
    """Extra calls over any stretch of time are at most ``burst + ratio * calls + reserve * seconds``.

    Nothing happens here while calls succeed: the number of calls is read when an extra one is asked for.

    Args:
        ratio: What each call adds.
        reserve: What each second adds.
        burst: What the bucket holds, and holds at first.
        now: The moment it is made.
    """

    __slots__ = ("_calls", "_lock", "_seen", "burst", "granted", "ratio", "refused", "reserve", "tokens")

    def __init__(self, ratio: float, reserve: float, burst: float, now: float) -> None:
        self.ratio = ratio
        self.reserve = reserve
        self.burst = burst
        self.tokens = burst
        self.granted = 0
        self.refused = 0
        self._calls = 0
        self._seen = now
        self.forget_lock()

    def forget_lock(self) -> None:
        """Make a new lock: in a forked child the old one may be held by a thread that does not exist."""
        self._lock = threading.Lock()

    def take(self, now: float, calls: int) -> bool:
        """Ask for one extra call.

        Args:
            now: The moment.
            calls: How many calls there have been in all.

        Returns:
            Whether it may be made.
        """
        with self._lock:
            earned = self.ratio * max(0, calls - self._calls) + self.reserve * max(0.0, now - self._seen)
            self.tokens = min(self.burst, self.tokens + earned)
            self._calls = max(calls, self._calls)
            self._seen = max(now, self._seen)
            if self.tokens < 1:
                self.refused += 1
                return False
            self.tokens -= 1
            self.granted += 1
            return True
