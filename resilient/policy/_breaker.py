"""The circuit breaker's core: what it counts, when it opens, who may probe.

A call asks `BreakerCore.now` for the current `Generation`, and tells that generation how it went. Each change of state
replaces the generation, so a result that began before the change reaches one nobody listens to any more. A success is
one step of an `itertools.count`, which is atomic: calls that succeed take no lock. Time is handed in; only the slow
side (a new time slice, a failure, a state other than closed) takes the lock, and never while user code runs. A signal
handler or a finalizer may run at any moment all the same, so the lock may be taken again by the thread that holds it.
"""

from __future__ import annotations

import itertools
import math
import random
import threading
from array import array
from collections.abc import Callable
from typing import NamedTuple

from resilient.errors import CircuitOpen
from resilient.policy.policies import Breaker

__all__ = ["BreakerCore", "Counts", "Generation"]

SLICES = 10
"""Into how many slices the window is cut: the oldest leaves the window as a whole."""

Listener = Callable[[str, str, str], None]


class Counts(NamedTuple):
    """What the window holds."""

    calls: int
    failures: int
    slow: int


class Generation:
    """What is counted between two changes of state. The calls of a closed breaker share one; each probe has its own.

    Attributes:
        ok: Call it after a success. One that lets nobody pass has none.
        until: From this moment on, ask `BreakerCore.enter` before a call. A probe, which was let through, has none.
    """

    __slots__ = ("ok", "until")
    ok: Callable[[], object]
    until: float


class Probe(Generation):
    """A permit to try a half-open breaker. It gives itself back if it is dropped without a result."""

    __slots__ = ("_core", "epoch", "settled")

    def __init__(self, core: BreakerCore, epoch: int) -> None:
        self._core = core
        self.epoch = epoch
        self.settled = False

    # A method, not the attribute it stands for: a bound method kept on the object would be a cycle, and a dropped probe
    # would wait for the cycle collector.
    def ok(self) -> None:
        """Count a success."""
        self._core.probe_succeeded(self)

    def __del__(self) -> None:
        # Runs at any moment, even while this thread holds the lock: no lock may be taken here.
        abandoned = self._core.abandoned
        if not self.settled and abandoned is not None:
            abandoned.append(self.epoch)


class BreakerCore:
    """The state of one breaker.

    Args:
        policy: What it obeys.
        tell: Called with the old state, the new one and the reason, after each change, without the lock.
        draw: A random number from 0 to 1, for the jitter.
    """

    __slots__ = (
        "_changes",
        "_done",
        "_failures",
        "_lock",
        "_marks",
        "_out",
        "_reads",
        "_reopen",
        "_row",
        "_row_began",
        "_slow",
        "_streak",
        "_trips",
        "abandoned",
        "draw",
        "epoch",
        "now",
        "policy",
        "rejected",
        "state",
        "tell",
    )

    def __init__(
        self,
        policy: Breaker,
        tell: Listener | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.policy = policy
        self.tell = tell
        self.draw = draw
        self.state = "closed"
        self.epoch = 0  # grows with each change of state
        self.rejected = 0
        self.abandoned: list[int] | None = None  # epochs of probes that were dropped without a result
        self._trips = 0  # how often it opened since it was last closed
        self._reopen = 0.0
        self._out = 0  # probes that run
        self._streak = 0  # probes that succeeded
        self._done = 0  # successes of earlier generations
        self._changes: tuple[tuple[str, str, str], ...] = ()
        self._lock = threading.RLock()
        self._start_closed()

    def forked(self) -> None:
        """Go on in a forked child: the threads that held the lock, or run probes, do not exist here."""
        self._lock = threading.RLock()
        if self.state == "half_open":
            self.epoch += 1  # whatever the parent's probes say here, it is not waited for
            self._begin_probing()

    # ------------------------------------------------------------------------------------------------ before a call

    def enter(self, now: float) -> Generation:
        """The generation for a call that starts now: the closed one, or a probe's.

        Raises:
            CircuitOpen: The call may not be made.
        """
        with self._lock:
            generation = self._enter(now)
            wait = max(0.0, self._reopen - now) if self.state == "open" else None
        self._tell()
        if generation is None:
            raise CircuitOpen(
                f"the call was not made: the breaker is {self.state.replace('_', '-')}",
                advice="the dependency failed lately; serve a substitute or come back later",
                retry_after=wait,
            )
        return generation

    def _enter(self, now: float) -> Generation | None:
        if self.state == "closed":
            self._rotate(now)
            return self.now
        if self.state == "open" and now >= self._reopen:
            self._change("half_open", "the wait is over")
            self._begin_probing()
        if self.state == "half_open":
            while self.abandoned:
                if self.abandoned.pop() == self.epoch:
                    self._out -= 1
            if self._out < self.policy.probes:
                self._out += 1
                return Probe(self, self.epoch)
        self.rejected += 1
        return None

    # ------------------------------------------------------------------------------------------------- after a call

    def failed(self, generation: Generation, now: float, *, slow: bool = False) -> None:
        """Count a failure, unless the state has changed since its call began."""
        with self._lock:
            if isinstance(generation, Probe):
                if self._settle(generation):
                    self._open(now, "a probe failed")
            elif generation is self.now:
                self._rotate(now)
                self._failures += 1
                self._slow += slow
                self._count_row()
                self._judge(now)
        self._tell()

    def slow(self, generation: Generation, now: float) -> None:
        """Count a call that succeeded and was slow; said instead of its success where it is a probe's."""
        with self._lock:
            if isinstance(generation, Probe):
                if self._settle(generation):
                    self._open(now, "a probe was slow")
            elif generation is self.now:
                generation.ok()
                self._rotate(now)
                self._slow += 1
                self._judge(now)
        self._tell()

    def released(self, generation: Generation) -> None:
        """Count nothing: the call was cancelled, refused further in, or says nothing about the dependency."""
        if isinstance(generation, Probe):
            with self._lock:
                self._settle(generation)

    def probe_succeeded(self, probe: Probe) -> None:
        """Count a probe's success; enough of them close the breaker."""
        with self._lock:
            if self._settle(probe):
                self._streak += 1
                self._done += 1
                if self._streak >= self.policy.successes:
                    self._change("closed", f"{self._streak} of {self.policy.successes} probes succeeded")
                    self._trips = 0
                    self._start_closed()
        self._tell()

    def _settle(self, probe: Probe) -> bool:
        """Take a probe back. Says whether its result still counts."""
        if probe.settled:
            return False
        probe.settled = True
        if probe.epoch != self.epoch:
            return False
        self._out -= 1
        return True

    # --------------------------------------------------------------------------------------------------- by hand

    def isolate(self) -> None:
        """Refuse all calls until `close`."""
        with self._lock:
            if self.state != "isolated":
                self._change("isolated", "isolated by hand")
                self._stop()
        self._tell()

    def close(self) -> None:
        """Allow all calls and forget what was counted."""
        with self._lock:
            if self.state == "closed":
                self._done += self._read()
            else:
                self._change("closed", "closed by hand")
            self._trips = 0
            self._start_closed()
        self._tell()

    def counts(self, now: float) -> Counts:
        """What the window holds at this moment."""
        with self._lock:
            if self.state != "closed":
                return Counts(0, 0, 0)
            self._rotate(now)
            return self._window()

    def successes(self) -> int:
        """How many calls succeeded in all."""
        with self._lock:
            return self._done + (self._read() if self.state == "closed" else 0)

    def retry_after(self, now: float) -> float | None:
        """Seconds until the first probe may be made; ``None`` where calls are allowed or only a hand may allow them."""
        return max(0.0, self._reopen - now) if self.state == "open" else None

    # ------------------------------------------------------------------------- inside: the lock is held from here on

    def _start_closed(self) -> None:
        """A new closed generation, whose first slice starts with its first call."""
        generation = Generation()
        generation.ok = itertools.count().__next__
        generation.until = -math.inf
        self._reads = 0
        self._failures = 0
        self._slow = 0
        self._row = 0  # failures with no success between them
        self._row_began = 0  # successes counted before them
        self._marks = array("d")  # four numbers each: a slice, and what had been counted before it
        self.now: Generation = generation

    def _begin_probing(self) -> None:
        self._streak = self._out = 0
        self.abandoned = []

    def _stop(self) -> None:
        """A generation that lets nobody pass without asking."""
        generation = Generation()
        generation.until = -math.inf
        self.now = generation

    def _read(self) -> int:
        """How many successes this generation counted. Reading is a step too, so steps taken here are subtracted."""
        steps = self.now.ok()
        assert isinstance(steps, int)  # noqa: S101 - a closed generation's ok is a count
        self._reads += 1
        return steps - self._reads + 1

    def _rotate(self, now: float) -> None:
        """Begin a new slice where the last has ended, and let go of those outside the window."""
        if now < self.now.until:
            return
        width = self.policy.window / SLICES
        index = math.floor(now / width)
        kept = self._marks
        while kept and kept[0] <= index - SLICES:
            kept = kept[4:]
        self._marks = array("d", (*kept, index, self._read(), self._failures, self._slow))  # no larger than it must be
        self.now.until = (index + 1) * width

    def _window(self) -> Counts:
        _, successes, failures, slow = self._marks[:4]
        failed = self._failures - int(failures)
        return Counts(self._read() - int(successes) + failed, failed, self._slow - int(slow))

    def _count_row(self) -> None:
        if self.policy.consecutive is None:
            return
        successes = self._read()
        self._row = self._row + 1 if successes == self._row_began else 1
        self._row_began = successes

    def _judge(self, now: float) -> None:
        calls, failures, slow = self._window()
        policy = self.policy
        if policy.consecutive is not None and self._row >= policy.consecutive:
            reason = f"{self._row} calls failed in a row"
        elif calls < policy.min_calls:
            return
        elif failures >= calls * policy.rate and failures:
            reason = f"{failures} of {calls} calls failed in {policy.window:g} s"
        elif policy.slow is not None and slow >= calls * policy.slow_rate:
            reason = f"{slow} of {calls} calls took longer than {policy.slow:g} s"
        else:
            return
        if policy.metrics_only:
            if now >= self._reopen:  # said once in each window, not with each failure
                self._reopen = now + policy.window
                self._changes += (("closed", "would_open", reason),)
        else:
            self._open(now, reason)

    def _open(self, now: float, reason: str) -> None:
        try:
            length = min(self.policy.max_wait, self.policy.wait * 2.0**self._trips)
        except OverflowError:
            length = self.policy.max_wait
        self._trips += 1
        self._reopen = now + length * (0.8 + 0.4 * self.draw())
        self._change("open", reason)
        self._stop()

    def _change(self, state: str, reason: str) -> None:
        if self.state == "closed":
            self._done += self._read()
        self._changes += ((self.state, state, reason),)
        self.state = state
        self.epoch += 1

    def _tell(self) -> None:
        """Tell of changes, without the lock: a listener may do anything."""
        if not self._changes:
            return
        with self._lock:
            changes, self._changes = self._changes, ()
        if self.tell is not None:
            for change in changes:
                self.tell(*change)
