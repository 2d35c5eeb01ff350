"""What is told of health: changes of state only, each once."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import ClassVar

from resilient.events import Event, Metric

__all__ = ["CheckChanged", "CheckWorsened", "Draining", "FaultHere", "FaultOver"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckChanged(Event):
    """A check has another status than before.

    Args:
        check: Its name.
        before: The status it had.
        status: The status it has.
        reason: One word that says why.
        error: The exception as text, where one was raised. It is in the log and nowhere else. What a run raises after
            its timeout was told stands in the change that comes next.
        severity: The new status as a number: 0 pass, 1 warn, 2 unknown, 3 fail.
    """

    level: ClassVar[int] = logging.INFO
    metric: ClassVar[Metric | None] = Metric(
        "resilient.health.status", "gauge", "1", value="severity", labels=(("resilient.health.check", "check"),)
    )
    check: str
    before: str
    status: str
    reason: str | None = None
    error: str | None = None
    severity: int = field(default=0, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckWorsened(CheckChanged):
    """A check has a worse status than before."""

    level: ClassVar[int] = logging.WARNING


@dataclass(frozen=True, slots=True, kw_only=True)
class Draining(Event):
    """Readiness was withdrawn for good: the instance is on its way out."""

    level: ClassVar[int] = logging.INFO


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultHere(Event):
    """A dependency fails here while a peer reaches it: the fault is this instance's own, and takes it out.

    Args:
        check: The check's name.
    """

    level: ClassVar[int] = logging.WARNING
    check: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultOver(Event):
    """What failed here alone no longer does: it works again, or fails everywhere, or no peer says anything.

    Args:
        check: The check's name.
    """

    level: ClassVar[int] = logging.INFO
    check: str
