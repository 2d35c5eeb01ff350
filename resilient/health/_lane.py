"""Running one check: on a thread of its own, one run at a time, shared by all who ask, never waited for too long."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from resilient import events
from resilient.clock import Clock
from resilient.health._core import Check, Outcome, Result, Status, capped, reason_of, settle
from resilient.health._events import CheckChanged, CheckWorsened
from resilient.health._streak import Rule, Streak, Strip, missed, step
from resilient.policy import deadline
from resilient.runtime import after_fork, fork_safe_lock, start_thread

__all__ = ["Finding", "Flight", "Lane"]

_TIMEOUT = Result.fail("timeout")
_OVERLOADED = Result.fail("overloaded")
_MAX_ERROR = 500  # characters of an exception's text in the log


@dataclass(frozen=True, slots=True)
class Finding:
    """What is known of a check.

    Args:
        outcome: How its last run ended.
        streak: What its runs add up to.
    """

    outcome: Outcome
    streak: Streak


class Flight:
    """One run of a check, and those who wait for its end."""

    def __init__(self, started: float) -> None:
        self.started = started
        self.finding: Finding | None = None
        self.overdue = False
        self.counted = 0  # as how many failed runs it counts so far
        self._lock = threading.Lock()
        self._wakes: set[Callable[[], object]] | None = set()

    def land(self, finding: Finding) -> None:
        """Tell everybody who waits."""
        with self._lock:
            self.finding = finding
            wakes, self._wakes = self._wakes or set(), None
        for wake in wakes:
            with contextlib.suppress(RuntimeError):  # that waiter's event loop is closed: nobody waits there any more
                wake()

    def join(self, seconds: float) -> None:
        """Block until the run has ended, at most that long."""
        done = threading.Event()
        if seconds > 0 and self._enlist(done.set):
            done.wait(seconds)
            self._dismiss(done.set)

    async def ajoin(self, seconds: float) -> None:
        """Suspend this task until the run has ended, at most that long."""
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            loop.call_soon_threadsafe(done.set)

        if seconds > 0 and self._enlist(wake):
            try:
                async with asyncio.timeout(seconds):
                    await done.wait()
            except TimeoutError:
                pass  # whoever waited looks at the outcome, and finds none
            finally:
                self._dismiss(wake)

    def _enlist(self, wake: Callable[[], object]) -> bool:
        with self._lock:
            if self._wakes is None:
                return False
            self._wakes.add(wake)
            return True

    def _dismiss(self, wake: Callable[[], object]) -> None:
        with self._lock:
            if self._wakes is not None:
                self._wakes.discard(wake)


class Lane:
    """One check with its last outcome.

    Args:
        name: The check's name, for the log and the thread.
        check: What to run.
        timeout: Seconds after which a run counts as failed.
        ttl: Seconds for which an outcome is good, counted from the end of its run.
        failed_ttl: The same for a failure.
        rule: How many runs it takes to change its state.
        at_worst: The worst that it is told as; by default what the check says of itself.
        clock: Where the time comes from.
    """

    def __init__(
        self,
        name: str,
        check: Check,
        *,
        timeout: float,
        ttl: float,
        clock: Clock,
        failed_ttl: float | None = None,
        rule: Rule = Rule(),  # noqa: B008 - an immutable value
        at_worst: Status | None = None,
    ) -> None:
        self.name = name
        self.check = check
        self.at_worst = check.at_worst if at_worst is None else at_worst
        self.timeout = timeout
        self.ttl = ttl
        self.failed_ttl = ttl if failed_ttl is None else failed_ttl
        self.rule = rule
        self.refreshed_every: float | None = None
        """Seconds between two runs that nobody has to ask for; ``None`` where each run is asked for."""
        self.strip = Strip()
        self.last_failure: tuple[str, float] | None = None
        """The reason of the last failed run, and when that was (wall time)."""
        self.runs = 0
        self._clock = clock
        self._last: Finding | None = None
        self._ended = 0.0
        self._streak = Streak()
        self._lock = fork_safe_lock()
        self._forked()
        after_fork(self._forked)

    def _forked(self) -> None:
        self._flight: Flight | None = None  # its thread is the parent's

    @property
    def streak(self) -> Streak:
        """What the runs so far add up to."""
        return self._streak

    # ------------------------------------------------------------------------------------------------------ running

    def begin(self, *, anew: bool = False, until: float = math.inf) -> Finding | Flight:
        """What is known and fresh, or the run that will tell; one is started where none is under way.

        Args:
            anew: Run, however fresh the last outcome is.
            until: The moment (monotonic) from which no run is started any more: starting thousands takes its time too.
        """
        with self._lock:
            now = self._clock.monotonic()
            known = None if anew else self._known(now)
            if self._flight is not None:
                # A run that nobody asked for need not be waited for while it is in time.
                early = self.refreshed_every is not None and now < self._flight.started + self.timeout
                return known if known is not None and early else self._flight
            if known is not None:
                return known
            if now >= until:  # it says nothing of the check, so it is not counted
                return Finding(Outcome(capped(_OVERLOADED, self.at_worst), None, 0.0), Streak(self.at_worst))
            flight = self._flight = Flight(now)
            try:
                # An empty context: the run is for everybody, so no caller's deadline or scope may bind it.
                contextvars.Context().run(start_thread, self._run, flight, name=f"health-{self.name}")
            except RuntimeError as error:  # the machine has no thread to spare
                self._flight = None
                failure: Exception = error
            else:
                self.runs += 1
                return flight
            outcome = Outcome(capped(_OVERLOADED, self.at_worst), None, 0.0)
            told = self._count(outcome, now, now)
        self._tell(told, outcome, failure)
        return Finding(outcome, self._streak)

    def _known(self, now: float) -> Finding | None:
        """The last outcome, while it is fresh."""
        if self._last is None:
            return None
        good = self._last.outcome.result.status <= Status.WARN
        fresh = self.ttl if good else self.failed_ttl
        if self.refreshed_every is not None:  # the next run is on its way, and may take its time
            fresh = max(fresh, 2 * self.refreshed_every + self.timeout)
        return self._last if now < self._ended + fresh else None

    def expire(self) -> None:
        """Let the next who asks run it, however fresh the last outcome is."""
        with self._lock:
            self._last = None

    def wait(self, begun: Finding | Flight, until: float) -> Finding:
        """How the run ended; a timeout if it has not when its time is over, or at ``until`` (monotonic)."""
        if isinstance(begun, Flight):
            begun.join(self._left(begun, until))
        return self._read(begun)

    async def await_(self, begun: Finding | Flight, until: float) -> Finding:
        """The async face of `wait`."""
        if isinstance(begun, Flight):
            await begun.ajoin(self._left(begun, until))
        return self._read(begun)

    def _left(self, flight: Flight, until: float) -> float:
        if flight.overdue:
            return 0.0
        return min(flight.started + self.timeout, until) - self._clock.monotonic()

    def _read(self, begun: Finding | Flight) -> Finding:
        if isinstance(begun, Finding):
            return begun
        with self._lock:
            if begun.finding is not None and not begun.overdue:
                return begun.finding
            begun.overdue = True
            now = self._clock.monotonic()
            late = Outcome(capped(_TIMEOUT, self.at_worst), None, max(0.0, now - begun.started))
            told = None if begun.finding is not None else self._count_hung(begun, late, now)
            finding = Finding(late, self._streak)
        self._tell(told, late, None)
        return finding

    def _run(self, flight: Flight) -> None:
        result, error = self._call()
        with self._lock:
            now = self._clock.monotonic()
            outcome = Outcome(capped(result, self.at_worst), self._clock.wall(), now - flight.started)
            if self._flight is flight:
                self._flight = None
            late = flight.overdue or outcome.seconds > self.timeout
            if late:
                outcome, error = Outcome(capped(_TIMEOUT, self.at_worst), outcome.at, outcome.seconds), None
                told = self._count_hung(flight, outcome, now)
            else:
                told = self._count(outcome, flight.started, now)
            flight.overdue = late
            finding = flight.finding = Finding(outcome, self._streak)
            # A good answer that came too late is dropped: a check that is always too slow must not pass every other
            # time. A bad one is kept as the timeout it was, so that not every probe has to wait for one.
            self._last = None if late and result.status <= Status.WARN else finding
            self._ended = now
        self._tell(told, outcome, error)
        flight.land(finding)

    def _call(self) -> tuple[Result, BaseException | None]:
        try:
            with deadline(self.timeout, clock=self._clock):
                returned = self.check.run()
                if inspect.isawaitable(returned):
                    returned = asyncio.run(_awaited(returned))
                return settle(returned), None
        except BaseException as error:  # noqa: BLE001 - even an exit is only the end of this check
            return Result.fail(reason_of(error, self.check.classify)), error

    # ----------------------------------------------------------------------------------------------------- counting

    def _count(self, outcome: Outcome, began: float, now: float, times: int = 1) -> tuple[Status | None, Status] | None:
        """Add a run to the streak; its state before and after where that has changed. Under the lock."""
        status = outcome.result.status
        before = self._streak
        self._streak = step(before, status, began=began, ended=now, rule=self.rule, times=times)
        self.strip.add(now, self._streak.status)
        if status > Status.WARN:
            self.last_failure = outcome.result.reason or "failed", self._clock.wall()
        after = self._streak.told
        return None if after is None or after is before.told else (before.told, after)

    def _count_hung(self, flight: Flight, late: Outcome, now: float) -> tuple[Status | None, Status] | None:
        """Count a run that has not ended in time: once, and again for each run that its hanging has kept away."""
        times = max(1, missed(now - flight.started, timeout=self.timeout, pause=self.failed_ttl)) - flight.counted
        if times <= 0:
            self.strip.add(now, self._streak.status)
            return None
        began = flight.started + (flight.counted + times - 1) * (self.timeout + self.failed_ttl)
        flight.counted += times
        return self._count(late, began, now, times)

    def _tell(self, told: tuple[Status | None, Status] | None, outcome: Outcome, error: BaseException | None) -> None:
        """Tell the log of a change, once."""
        if told is None or told == (None, Status.PASS):
            return
        before, status = told
        kind = CheckWorsened if status > (before or Status.PASS) else CheckChanged
        events.emit(
            kind(
                check=self.name,
                before=before.value if before is not None else "none",
                status=status.value,
                reason=outcome.result.reason,
                error=None if error is None else _described(error),
                severity=status.severity,
            )
        )


async def _awaited(awaitable: Any) -> Any:
    return await awaitable


def _described(error: BaseException) -> str:
    """An exception as one line for the log."""
    try:
        text = " ".join(str(error).split())[:_MAX_ERROR]
    except Exception:  # noqa: BLE001 - an error whose text cannot be had is told by its class
        text = ""
    kind = f"{type(error).__module__}.{type(error).__qualname__}"
    return f"{kind}: {text}" if text else kind
