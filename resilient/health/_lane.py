"""Running one check: on a thread of its own, one run at a time, shared by all who ask, never waited for too long."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import threading
from collections.abc import Callable
from typing import Any

from resilient import events
from resilient.clock import Clock
from resilient.health._core import Check, Outcome, Result, Status, reason_of, settle
from resilient.health._events import CheckChanged, CheckWorsened
from resilient.policy import deadline
from resilient.runtime import after_fork, fork_safe_lock, start_thread

__all__ = ["Flight", "Lane"]

_TIMEOUT = Result.fail("timeout")
_MAX_ERROR = 500  # characters of an exception's text in the log


class Flight:
    """One run of a check, and those who wait for its end."""

    def __init__(self, started: float) -> None:
        self.started = started
        self.outcome: Outcome | None = None
        self.overdue = False
        self._lock = threading.Lock()
        self._wakes: set[Callable[[], object]] | None = set()

    def land(self, outcome: Outcome) -> None:
        """Tell everybody who waits."""
        with self._lock:
            self.outcome = outcome
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
        clock: Where the time comes from.
    """

    def __init__(self, name: str, check: Check, *, timeout: float, ttl: float, clock: Clock) -> None:
        self.name = name
        self.check = check
        self.timeout = timeout
        self.ttl = ttl
        self._clock = clock
        self._last: Outcome | None = None
        self._fresh_until = 0.0
        self._reported: Status | None = None
        self._lock = fork_safe_lock()
        self._forked()
        after_fork(self._forked)

    def _forked(self) -> None:
        self._flight: Flight | None = None  # its thread is the parent's

    def begin(self) -> Outcome | Flight:
        """What is known and fresh, or the run that will tell; one is started where none is under way."""
        with self._lock:
            if self._flight is not None:
                return self._flight
            now = self._clock.monotonic()
            if self._last is not None and now < self._fresh_until:
                return self._last
            flight = self._flight = Flight(now)
            try:
                # An empty context: the run is for everybody, so no caller's deadline or scope may bind it.
                contextvars.Context().run(start_thread, self._run, flight, name=f"health-{self.name}")
            except RuntimeError as error:  # the machine has no thread to spare
                self._flight = None
                failure: Exception = error
            else:
                return flight
        outcome = Outcome(Result.fail("overloaded"), None, 0.0)
        self._note(outcome, failure)
        return outcome

    def wait(self, begun: Outcome | Flight, until: float) -> Outcome:
        """How the run ended; a timeout if it has not when its time is over, or at ``until`` (monotonic)."""
        if isinstance(begun, Flight):
            begun.join(self._left(begun, until))
        return self._read(begun)

    async def await_(self, begun: Outcome | Flight, until: float) -> Outcome:
        """The async face of `wait`."""
        if isinstance(begun, Flight):
            await begun.ajoin(self._left(begun, until))
        return self._read(begun)

    def _left(self, flight: Flight, until: float) -> float:
        if flight.overdue:
            return 0.0
        return min(flight.started + self.timeout, until) - self._clock.monotonic()

    def _read(self, begun: Outcome | Flight) -> Outcome:
        if isinstance(begun, Outcome):
            return begun
        with self._lock:
            if begun.outcome is not None and not begun.overdue:
                return begun.outcome
            begun.overdue = True
        late = Outcome(_TIMEOUT, None, max(0.0, self._clock.monotonic() - begun.started))
        self._note(late, None)
        return late

    def _run(self, flight: Flight) -> None:
        result, error = self._call()
        now = self._clock.monotonic()
        outcome = Outcome(result, self._clock.wall(), now - flight.started)
        with self._lock:
            flight.outcome = outcome
            if self._flight is flight:
                self._flight = None
            late = flight.overdue or outcome.seconds > self.timeout
            flight.overdue = late
            self._last = _late(outcome) if late else outcome
            self._fresh_until = now + self.ttl
        if not late:
            self._note(outcome, error)
        flight.land(outcome)

    def _call(self) -> tuple[Result, BaseException | None]:
        try:
            with deadline(self.timeout, clock=self._clock):
                returned = self.check.run()
                if inspect.isawaitable(returned):
                    returned = asyncio.run(_awaited(returned))
                return settle(returned), None
        except BaseException as error:  # noqa: BLE001 - even an exit is only the end of this check
            return Result.fail(reason_of(error, self.check.classify)), error

    def _note(self, outcome: Outcome, error: BaseException | None) -> None:
        """Tell the log of a change, once."""
        status = outcome.result.status
        with self._lock:
            before, self._reported = self._reported, status
        if before is status or (before is None and status is Status.PASS):
            return
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


def _late(outcome: Outcome) -> Outcome | None:
    """What is remembered of a run that ended after its time.

    A good answer is dropped: a check that is always too slow must not pass every other time. A bad one is kept as the
    timeout it was, so that not every probe has to wait for one.
    """
    if outcome.result.status <= Status.WARN:
        return None
    return Outcome(_TIMEOUT, outcome.at, outcome.seconds)


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
