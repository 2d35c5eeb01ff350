"""What is known of a check: how its last run ended, and what all its runs add up to.

No I/O, no threads, no clock: whoever runs the check hands the moments in, and sees that one at a time does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from resilient.health._core import Outcome, Result, Status, capped
from resilient.health._streak import Rule, Streak, Strip, missed, step

__all__ = ["Change", "Finding", "History", "Run", "Terms"]

_TIMEOUT: Final = Result.fail("timeout")
_OVERLOADED: Final = Result.fail("overloaded")
_ENOUGH: Final = 0.95
"""The part of its time that a run must have had to be given up as a timeout of its own."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What is demanded of a check, and how long what is known of it is good.

    Args:
        timeout: Seconds after which a run counts as failed.
        ttl: Seconds for which an outcome is good, counted from the end of its run.
        failed_ttl: The same for a failure.
        rule: How many runs it takes to change its state.
        at_worst: The worst that it is told as.
    """

    timeout: float
    ttl: float
    failed_ttl: float
    rule: Rule = field(default_factory=Rule)
    at_worst: Status = Status.FAIL


@dataclass(frozen=True, slots=True)
class Finding:
    """What is known of a check.

    Args:
        outcome: How its last run ended.
        streak: What its runs add up to.
    """

    outcome: Outcome
    streak: Streak


@dataclass(frozen=True, slots=True)
class Change:
    """A check's state has changed.

    Args:
        before: The state it had; ``None`` before its first run.
        status: The state it has.
        reason: One word that says why.
        error: What was raised, as text for the log.
    """

    before: Status | None
    status: Status
    reason: str | None
    error: str | None


@dataclass(slots=True)
class Run:
    """One run of a check; its `History` alone writes it.

    Args:
        started: When it began (monotonic).
        counted: As how many failed runs it counts so far.
        finding: How it ended; ``None`` while it is under way.
    """

    started: float
    counted: int = 0
    finding: Finding | None = None


class History:
    """The runs of one check.

    Args:
        terms: What is demanded of it.

    Examples:
        >>> history = History(Terms(timeout=0.5, ttl=1.0, failed_ttl=1.0))
        >>> history.end(history.begin(10.0), Result.fail("cold"), now=10.1, wall=0.0).status
        <Status.FAIL: 'fail'>
        >>> history.fresh(11.0) is not None, history.fresh(11.2) is not None
        (True, False)
    """

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.streak = Streak()
        """What the runs so far add up to."""
        self.strip = Strip()
        """How its last minutes looked."""
        self.runs = 0
        """How many were begun."""
        self.last_failure: tuple[str, float] | None = None
        """The reason of the last failed run, and when that was (wall time)."""
        self._last: Finding | None = None
        self._failed = False  # whether the last run did, also where that is told as a warning
        self._ended = 0.0
        self._untold: str | None = None  # what a run raised that had been told as a timeout by then

    # ------------------------------------------------------------------------------------------------- what is known

    def fresh(self, now: float, every: float | None = None) -> Finding | None:
        """The last outcome, while it is good.

        Args:
            now: The moment (monotonic).
            every: Seconds between two runs that nobody has to ask for: the next is on its way, and may take its time.
        """
        good = self.terms.failed_ttl if self._failed else self.terms.ttl
        if every is not None:
            good = max(good, 2 * every + self.terms.timeout)
        return self._last if now < self._ended + good else None

    def young(self, now: float) -> Finding | None:
        """The last outcome, while it can be told to those who would otherwise crowd round the run that follows it."""
        good = self.terms.failed_ttl if self._failed else self.terms.ttl
        return self._last if now < self._ended + good + self.terms.timeout else None

    def expire(self) -> None:
        """Let the next who asks run it, however fresh the last outcome is."""
        self._last = None

    # --------------------------------------------------------------------------------------------------------- runs

    def begin(self, now: float) -> Run:
        """A run begins."""
        self.runs += 1
        return Run(now)

    def end(self, run: Run, result: Result, *, now: float, wall: float, error: str | None = None) -> Change | None:
        """A run has ended.

        Args:
            run: Which.
            result: What it found.
            now: When (monotonic).
            wall: When, in seconds since 1970.
            error: What it raised, as text for the log.
        """
        seconds = now - run.started
        failed = result.status > Status.WARN
        late = run.counted > 0 or seconds > self.terms.timeout
        outcome = Outcome(capped(_TIMEOUT if late else result, self.terms.at_worst), wall, seconds)
        if late:
            self._untold = error or self._untold
            change = self._count_hung(run, outcome, now, wall)
        else:
            change = self._count(outcome, began=run.started, now=now, wall=wall, failed=failed, error=error)
        finding = run.finding = Finding(outcome, self.streak)
        # A good answer that came too late is dropped: a check that is always too slow must not pass every other time. A
        # bad one is kept as the timeout it was, so that not every probe has to wait for one.
        self._last = None if late and not failed else finding
        self._failed = failed
        self._ended = now
        return change

    def give_up(self, run: Run, *, until: float, now: float, wall: float) -> tuple[Finding, Change | None]:
        """What is told of a run by who waited for it until a moment, and whether that changes its state.

        A run that its own time was not left for is told as ``overloaded`` and not counted: that says nothing of the
        check, and whoever asks next may find it ended in time.
        """
        if run.finding is not None:
            return run.finding, None
        seconds = max(0.0, now - run.started)
        if run.counted == 0 and until < run.started + _ENOUGH * self.terms.timeout:
            return self._none(seconds), None
        late = Outcome(capped(_TIMEOUT, self.terms.at_worst), None, seconds)
        change = self._count_hung(run, late, now, wall)
        return Finding(late, self.streak), change

    def skip(self) -> Finding:
        """What is told where there was no time to begin a run: it says nothing of the check, and is not counted."""
        return self._none(0.0)

    def refuse(self, *, now: float, wall: float, error: str) -> tuple[Finding, Change | None]:
        """What is told where a run could not be begun. It counts: a check that cannot be run is as good as failed."""
        outcome = Outcome(capped(_OVERLOADED, self.terms.at_worst), None, 0.0)
        change = self._count(outcome, began=now, now=now, wall=wall, failed=True, error=error)
        return Finding(outcome, self.streak), change

    def _none(self, seconds: float) -> Finding:
        return Finding(Outcome(capped(_OVERLOADED, self.terms.at_worst), None, seconds), Streak(self.terms.at_worst))

    # ----------------------------------------------------------------------------------------------------- counting

    def _count(
        self,
        outcome: Outcome,
        *,
        began: float,
        now: float,
        wall: float,
        failed: bool,
        error: str | None = None,
        times: int = 1,
    ) -> Change | None:
        """Add a run to the streak."""
        before = self.streak.told
        self.streak = step(
            self.streak, outcome.result.status, began=began, ended=now, rule=self.terms.rule, times=times
        )
        self.strip.add(now, self.streak.status)
        if failed:
            self.last_failure = outcome.result.reason or "failed", wall
        after = self.streak.told
        if after is None or after is before:
            return None
        error, self._untold = error or self._untold, None
        return Change(before, after, outcome.result.reason, error)

    def _count_hung(self, run: Run, late: Outcome, now: float, wall: float) -> Change | None:
        """Count a run that has not ended in time: once, and again for each run that its hanging has kept away."""
        timeout, pause = self.terms.timeout, self.terms.failed_ttl
        times = max(1, missed(now - run.started, timeout=timeout, pause=pause)) - run.counted
        if times <= 0:
            self.strip.add(now, self.streak.status)
            return None
        began = run.started + (run.counted + times - 1) * (timeout + pause)
        run.counted += times
        return self._count(late, began=began, now=now, wall=wall, failed=True, times=times)
