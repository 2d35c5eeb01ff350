"""Running one check: on a thread of its own, one run at a time, shared by all who ask, never waited for too long."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import math
from typing import Any, Final

from resilient.clock import Clock
from resilient.health._core import Check, Result, reason_of, settle
from resilient.health._flight import Flight
from resilient.health._history import Finding, History, Terms
from resilient.health._streak import Streak
from resilient.health._teller import Teller
from resilient.policy import deadline
from resilient.runtime import after_fork, fork_safe_lock, start_thread

__all__ = ["Lane"]

_SEATS: Final = 4  # who may wait for one run while something is known that is hardly stale
_MAX_ERROR: Final = 500  # characters of an exception's text in the log


class Lane:
    """One check and the run of it that is under way.

    Args:
        name: The check's name, for the log and the thread.
        check: What to run.
        terms: What is demanded of it.
        clock: Where the time comes from.
        teller: Tells what has changed.
    """

    def __init__(self, name: str, check: Check, terms: Terms, clock: Clock, teller: Teller) -> None:
        self.name = name
        self.check = check
        self.history = History(terms)
        self.refreshed_every: float | None = None
        """Seconds between two runs that nobody has to ask for; ``None`` where each run is asked for."""
        self._clock = clock
        self._teller = teller
        self._lock = fork_safe_lock()
        self._forked()
        after_fork(self._forked)

    def _forked(self) -> None:
        self._flight: Flight | None = None  # its thread is the parent's

    @property
    def streak(self) -> Streak:
        """What the runs so far add up to."""
        return self.history.streak

    @property
    def timeout(self) -> float:
        """Seconds after which a run counts as failed."""
        return self.history.terms.timeout

    # ------------------------------------------------------------------------------------------------------ asking

    def begin(self, *, anew: bool = False, until: float = math.inf) -> Finding | Flight:
        """What is known and fresh, or the run that will tell; one is started where none is under way.

        Args:
            anew: Run, however fresh the last outcome is.
            until: The moment (monotonic) from which no run is started any more: starting thousands takes its time too.
        """
        with self._lock:
            now = self._clock.monotonic()
            known = None if anew else self.history.fresh(now, self.refreshed_every)
            if self._flight is not None:
                return self._join(self._flight, known, now, anew=anew)
            if known is not None:
                return known
            if now >= until:
                return self.history.skip()
            flight = self._flight = Flight(self.history.begin(now))
            try:
                # An empty context: the run is for everybody, so no caller's deadline or scope may bind it.
                contextvars.Context().run(start_thread, self._run, flight, name=f"health-{self.name}")
            except RuntimeError as error:  # the machine has no thread to spare
                self._flight = None
                finding, change = self.history.refuse(now=now, wall=self._clock.wall(), error=_described(error))
                self._teller.changed(self.name, change)
                return finding
            except BaseException:  # a signal's handler raised here: whether the thread has begun is not known
                self._flight = None
                raise
            return flight

    def _join(self, flight: Flight, known: Finding | None, now: float, *, anew: bool) -> Finding | Flight:
        """What somebody gets who comes while a run is under way. Under the lock."""
        if anew or now >= flight.run.started + self.timeout:  # who comes to a run that hangs does not wait for it
            return flight
        if known is not None and self.refreshed_every is not None:  # nobody asked for it, so nobody need wait
            return known
        flight.asked += 1
        young = self.history.young(now) if flight.asked > _SEATS else None
        return flight if young is None else young  # a crowd of probes must not take all threads of a server

    def expire(self) -> None:
        """Let the next who asks run it, however fresh the last outcome is."""
        with self._lock:
            self.history.expire()

    def wait(self, begun: Finding | Flight, until: float) -> Finding:
        """How the run ended; a timeout if it has not when its time is over, or at ``until`` (monotonic)."""
        if isinstance(begun, Finding):
            return begun
        begun.join(self._left(begun, until))
        return self._read(begun, until)

    async def await_(self, begun: Finding | Flight, until: float) -> Finding:
        """The async face of `wait`."""
        if isinstance(begun, Finding):
            return begun
        await begun.ajoin(self._left(begun, until))
        return self._read(begun, until)

    def _left(self, flight: Flight, until: float) -> float:
        if flight.run.counted:
            return 0.0
        return min(flight.run.started + self.timeout, until) - self._clock.monotonic()

    def _read(self, flight: Flight, until: float) -> Finding:
        with self._lock:
            now, wall = self._clock.monotonic(), self._clock.wall()
            finding, change = self.history.give_up(flight.run, until=until, now=now, wall=wall)
            self._teller.changed(self.name, change)
        return finding

    # ------------------------------------------------------------------------------------------------------ running

    def _run(self, flight: Flight) -> None:
        with self._lock:
            if self._flight is not flight:
                return  # who started it was interrupted, and another may run by now
        result, error = self._call()
        try:
            with self._lock:
                if self._flight is flight:
                    self._flight = None
                now, wall = self._clock.monotonic(), self._clock.wall()
                change = self.history.end(flight.run, result, now=now, wall=wall, error=error)
                self._teller.changed(self.name, change)
        finally:
            flight.land()

    def _call(self) -> tuple[Result, str | None]:
        """What the check found, and what it raised."""
        try:
            with deadline(self.timeout, clock=self._clock):
                returned = self.check.run()
                if inspect.isawaitable(returned):
                    returned = asyncio.run(_awaited(returned))
                return settle(returned), None
        except BaseException as error:  # noqa: BLE001 - even an exit is only the end of this check
            return Result.fail(reason_of(error, self.check.classify)), _described(error)


async def _awaited(awaitable: Any) -> Any:
    return await awaitable


def _described(error: BaseException) -> str:
    """An exception as one line for the log."""
    try:
        text = " ".join(str(error).split())[:_MAX_ERROR]
    except BaseException:  # noqa: BLE001 - an error whose text cannot be had is told by its class
        text = ""
    kind = f"{type(error).__module__}.{type(error).__qualname__}"
    return f"{kind}: {text}" if text else kind
