"""What a pipeline remembers: the cores of its policies and a few counters. Pipelines made with options share it."""

from __future__ import annotations

import functools
import itertools
import threading
import weakref
from collections.abc import Callable
from typing import Any

from resilient import events
from resilient.clock import Clock
from resilient.policy._breaker import BreakerCore
from resilient.policy._budget import budget_of
from resilient.policy._bulkhead import BulkheadCore
from resilient.policy._hedge import Latencies
from resilient.policy.events import BreakerChanged, BreakerProbed
from resilient.policy.limiter import Gcra
from resilient.policy.policies import Breaker, Budget, Bulkhead, Hedge, Policy, RateLimit, Retry
from resilient.runtime import WorkerPool, after_fork

__all__ = ["State", "find"]


def _changed(name: str, old: str, new: str, reason: str) -> None:
    """Tell of a breaker. No method, since a breaker that held its state would be a cycle."""
    probing = {old, new} == {"open", "half_open"}  # a long outage is one line in the log, not one per probe
    kind = BreakerProbed if probing else BreakerChanged
    events.emit(kind(pipeline=name, old=old, new=new, reason=reason))


def find(policies: tuple[Policy, ...], kind: type[Any]) -> Any:
    """The first policy of a kind; ``None`` where there is none."""
    for policy in policies:
        if isinstance(policy, kind):
            return policy
    return None


class _Forks:
    """All living states, so that a fork finds them at the price of one entry in a set each."""

    def __init__(self) -> None:
        self._states: weakref.WeakSet[State] = weakref.WeakSet()
        after_fork(self._forked)

    def add(self, state: State) -> None:
        self._states.add(state)

    def _forked(self) -> None:
        for state in tuple(self._states):
            state.forked()


class State:
    """The memory of one pipeline.

    Args:
        name: The pipeline's name.
        policies: What it is made of.
        clock: Where time is read.
    """

    __slots__ = (
        "__weakref__",
        "_reads",
        "breaker",
        "budget",
        "bulkhead",
        "clock",
        "counts",
        "latencies",
        "limits",
        "lock",
        "name",
        "ok",
        "paid",
        "pool",
    )

    def __init__(self, name: str, policies: tuple[Policy, ...], clock: Clock) -> None:
        self.name = name
        self.clock = clock
        self.counts: dict[str, int] = {}  # what did not simply succeed
        self.lock = threading.RLock()  # a finalizer may make a call at any moment, also while its thread counts one
        self.paid = 0
        self.ok: Callable[[], int] = itertools.count().__next__
        self._reads = 0
        breaker: Breaker | None = find(policies, Breaker)
        self.breaker = None if breaker is None else BreakerCore(breaker, functools.partial(_changed, name))
        bulkhead: Bulkhead | None = find(policies, Bulkhead)
        self.bulkhead = None if bulkhead is None else BulkheadCore(bulkhead.limit, bulkhead.queue or bulkhead.limit)
        self.limits = {
            id(policy): Gcra(policy.per / policy.rate, policy.burst)
            for policy in policies
            if isinstance(policy, RateLimit)
        } or None
        budget: Budget | None = find(policies, Budget)
        if budget is None and (find(policies, Retry) or find(policies, Hedge)):
            budget = Budget()
        self.budget = None if budget is None else budget_of(name, budget, clock)
        hedge: Hedge | None = find(policies, Hedge)
        self.latencies = None if hedge is None or hedge.delay is not None else Latencies(hedge.min_samples)
        self.pool = None if hedge is None else WorkerPool(f"hedge-{name}", hedge.threads, backlog=hedge.threads)
        if self.pool is not None:
            weakref.finalize(self, self.pool.close).atexit = False  # else its threads would outlive the pipeline
        _forks.add(self)

    def forked(self) -> None:
        """Go on in a forked child, without what threads that do not exist here had in hand."""
        self.lock = threading.RLock()
        cores = (self.breaker, self.bulkhead, self.budget, *(self.limits or {}).values())
        for core in cores:
            if core is not None:
                core.forked()

    def add(self, what: str) -> None:
        """Count something that is not a plain success."""
        with self.lock:
            self.counts[what] = self.counts.get(what, 0) + 1

    def successes(self) -> int:
        """How many calls succeeded; those that began before the breaker changed its state are left out."""
        if self.breaker is not None:
            return self.breaker.successes()
        with self.lock:
            self._reads += 1
            return self.ok() - self._reads + 1

    def calls(self) -> int:
        """How many calls reached the dependency and ended, however often each was tried."""
        return self.successes() + self.counts.get("failed", 0)


_forks = _Forks()
