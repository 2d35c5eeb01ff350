"""What a row of runs adds up to: when a check has fallen, when it has risen, and how its last minutes looked.

Plain functions and values: no I/O, no threads, no clock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import Final

from resilient.arguments import is_number
from resilient.errors import ConfigurationError
from resilient.health._core import Status

__all__ = ["SLOTS", "SLOT_SECONDS", "Rule", "Streak", "Strip", "missed", "step"]


@dataclass(frozen=True, slots=True)
class Rule:
    """How many runs it takes to change a check's state.

    Args:
        fall: Failed runs in a row before a check that worked counts as failed.
        rise: Good runs in a row before a check that failed counts as working.
        grace: Seconds that it must have failed besides; it only warns until then.

    Raises:
        ConfigurationError: A number is out of range.
    """

    fall: int = 1
    rise: int = 1
    grace: float = 0.0

    def __post_init__(self) -> None:
        for name, count in (("fall", self.fall), ("rise", self.rise)):
            given: object = count
            if isinstance(given, bool) or not isinstance(given, int) or given < 1:
                raise ConfigurationError(f"{name}={count!r} is no number of runs", advice="use 1 or more")
        if not is_number(self.grace) or not 0 <= self.grace < float("inf"):
            raise ConfigurationError(f"grace={self.grace!r} is no time", advice="use seconds >= 0")


@dataclass(frozen=True, slots=True)
class Streak:
    """The state of a check after some runs.

    Args:
        told: The state it counts as having; ``None`` before its first run.
        bad: Failed runs since the last good one.
        good: Good runs since the last failed one.
        first_bad: When the first of the failed runs in a row began (monotonic); kept until the check has risen.
        last_bad: When the last failed run began.
        began: When the last run began.
    """

    told: Status | None = None
    bad: int = 0
    good: int = 0
    first_bad: float = 0.0
    last_bad: float = 0.0
    began: float = 0.0

    @property
    def wavering(self) -> bool:
        """It has begun to fail, and has not fallen yet."""
        return self.bad > 0 and self.told is not None and self.told <= Status.WARN

    @property
    def rising(self) -> bool:
        """It works again, and has not risen yet."""
        return self.good > 0 and self.told is not None and self.told > Status.WARN

    @property
    def status(self) -> Status:
        """What is told of it: its state, with a warning while it wavers."""
        if self.told is None:
            return Status.UNKNOWN
        return Status.WARN if self.wavering else self.told


def step(before: Streak, found: Status, *, began: float, ended: float, rule: Rule, times: int = 1) -> Streak:
    """The state after one more run.

    The first run decides at once, whatever the rule: nothing is known that could be kept.

    Args:
        before: The state before it.
        found: What the run found.
        began: When it began.
        ended: When it ended, or when it was given up.
        rule: What it takes to change the state.
        times: As how many runs it counts.

    Examples:
        >>> twice = Rule(fall=2)
        >>> worked = step(Streak(), Status.PASS, began=0, ended=0, rule=twice)
        >>> failed = step(worked, Status.FAIL, began=1, ended=1, rule=twice)
        >>> failed.status.value, step(failed, Status.FAIL, began=2, ended=2, rule=twice).status.value
        ('warn', 'fail')
    """
    if found <= Status.WARN:
        good = before.good + times
        risen = before.told is None or before.told <= Status.WARN or good >= rule.rise
        return replace(before, told=found if risen else before.told, bad=0, good=good, began=began)
    in_a_row = before.bad > 0 or before.rising
    first = before.first_bad if in_a_row else began
    bad = before.bad + times
    fallen = before.told is None or before.told > Status.WARN or (bad >= rule.fall and ended - first >= rule.grace)
    told = found if fallen else before.told
    return Streak(told, bad, 0, first_bad=first, last_bad=began, began=began)


def missed(hung: float, *, timeout: float, pause: float) -> int:
    """As how many failed runs a hung one counts: those that would have come, and timed out, in its time.

    Args:
        hung: Seconds since it began.
        timeout: Seconds that a run may take.
        pause: Seconds between two runs.

    Examples:
        >>> [missed(seconds, timeout=0.5, pause=1.0) for seconds in (0.4, 0.5, 1.9, 2.0)]
        [0, 1, 1, 2]
    """
    if hung < timeout:
        return 0
    return 1 + int((hung - timeout) / (timeout + pause))


# ------------------------------------------------------------------------------------------------------ last minutes

SLOTS: Final = 60
SLOT_SECONDS: Final = 10.0
_HOLDS: Final = 6  # slots for which a state is taken to have lasted when nobody asked


class Strip:
    """The worst state of a check in each of the last slots of time. Ten minutes, bounded.

    Examples:
        >>> strip = Strip()
        >>> strip.add(100.0, Status.PASS); strip.add(111.0, Status.FAIL)
        >>> [each.value if each else None for each in strip.read(125.0)[-3:]]
        ['pass', 'fail', 'fail']
    """

    def __init__(self) -> None:
        self._worst: deque[tuple[int, Status, Status]] = deque(maxlen=SLOTS)

    def add(self, at: float, status: Status) -> None:
        """Note a state at a moment (monotonic)."""
        slot = int(at // SLOT_SECONDS)
        if self._worst and self._worst[-1][0] >= slot:
            slot, worst, _ = self._worst.pop()
            self._worst.append((slot, max(worst, status), status))
        else:
            self._worst.append((slot, status, status))

    def read(self, now: float) -> list[Status | None]:
        """The slots up to now, oldest first; ``None`` where nothing is known."""
        first = int(now // SLOT_SECONDS) - SLOTS + 1
        slots: list[Status | None] = [None] * SLOTS
        for number, worst, last in tuple(self._worst):
            for later in range(number + 1, number + 1 + _HOLDS):  # overwritten below where more is known
                if 0 <= later - first < SLOTS:
                    slots[later - first] = last
            if 0 <= number - first < SLOTS:
                slots[number - first] = worst
        return slots
