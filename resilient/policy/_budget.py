"""The retry budget: a bucket that calls and time fill and that extra calls empty, worked out when something failed.

There is one for each dependency: pipelines of one name share it for as long as one of them lives.
"""

from __future__ import annotations

import threading
import weakref
from typing import Protocol

from resilient.clock import Clock
from resilient.policy.policies import Budget
from resilient.runtime import fork_safe_lock

__all__ = ["BudgetCore", "SharedBudget", "budget_of"]


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
        self.forked()

    def forked(self) -> None:
        """Make a new lock: in a forked child the old one may be held by a thread that does not exist."""
        self._lock = threading.RLock()

    def take(self, now: float, calls: int) -> bool:
        """Ask for one extra call.

        Args:
            now: The moment.
            calls: How many calls there have been in all.

        Returns:
            Whether it may be made.
        """
        with self._lock:
            return self._take(now, calls)

    def _take(self, now: float, calls: int) -> bool:
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


class Payer(Protocol):
    """Whoever pays into a budget with its calls.

    Attributes:
        paid: How many of its calls have been paid in.
    """

    paid: int

    def calls(self) -> int:
        """How many calls it has made in all."""
        ...


class SharedBudget(BudgetCore):
    """The budget of one dependency. Whoever asks pays in its own calls since it last did.

    Pipelines that never ask pay nothing: of several that stand inside each other, the innermost asks, and a call that
    passes all of them counts once.

    Args:
        policy: Its numbers.
        clock: Where time is read.
    """

    __slots__ = ("__weakref__", "_clock", "_total")

    def __init__(self, policy: Budget, clock: Clock) -> None:
        super().__init__(policy.ratio, policy.reserve, policy.burst, clock.monotonic())
        self._clock = clock
        self._total = 0

    def ask(self, payer: Payer) -> bool:
        """Ask for one extra call.

        Args:
            payer: The pipeline that asks.
        """
        now = self._clock.monotonic()
        with self._lock:
            fresh = max(0, payer.calls() - payer.paid)
            payer.paid += fresh
            self._total += fresh
            return self._take(now, self._total)


_lock = fork_safe_lock()
_budgets: weakref.WeakValueDictionary[tuple[str, int, Budget], SharedBudget] = weakref.WeakValueDictionary()


def budget_of(name: str, policy: Budget, clock: Clock) -> SharedBudget:
    """The budget that a dependency has under these numbers.

    Args:
        name: The dependency's, which is that of its pipelines.
        policy: The numbers. Pipelines that want others share nothing.
        clock: Where time is read. Pipelines on different clocks share nothing.
    """
    key = (name, id(clock), policy)  # a budget holds its clock, so while it lives the number is not another's
    with _lock:
        budget = _budgets.get(key)
        if budget is None:
            budget = _budgets[key] = SharedBudget(policy, clock)
        return budget
