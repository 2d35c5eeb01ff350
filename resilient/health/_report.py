"""A finished report and the two forms it is written in: one word, and ``application/health+json``."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from resilient.health._core import Fault, Outcome, Status, View, http_status

__all__ = ["CheckReport", "Report", "written"]


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What one check adds to a report.

    Args:
        name: Its name.
        kind: What is checked: ``component``, ``datastore`` or ``system``.
        outcome: How its last run ended.
        effect: What it does to the report: a failure that only warns is a ``WARN`` here.
        status: How well the thing itself is: what its last runs add up to (see ``fall`` and ``rise``).
        fault: Whose failure it is, as far as the peers know: ``"local"``, ``"shared"``, or ``None`` where nobody said.
        rising: Whether it works again, but not for long enough.
    """

    name: str
    kind: str
    outcome: Outcome
    effect: Status
    status: Status
    fault: Fault | None = None
    rising: bool = False

    @property
    def reason(self) -> str | None:
        """One word that says why, such as ``timeout``."""
        return "rising" if self.rising else self.outcome.result.reason

    @property
    def values(self) -> Mapping[str, float]:
        """What was measured."""
        return self.outcome.result.values


@dataclass(frozen=True, slots=True)
class Report:
    """The answer to one view at one moment. An immutable value.

    Args:
        view: Which question was asked.
        status: The answer.
        checks: What each check adds to it, by name.
        draining: Whether the instance is on its way out.
    """

    view: View
    status: Status
    checks: Mapping[str, CheckReport] = field(default_factory=dict)
    draining: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "checks", MappingProxyType(dict(self.checks)))

    @property
    def http_status(self) -> int:
        """200 while traffic is welcome, 503 when it is not."""
        return http_status(self.status)

    @property
    def word(self) -> str:
        """The answer as one word for a balancer: ``pass``, ``warn``, ``unknown`` or ``fail``."""
        return self.status.value

    def to_json(self, details: bool = False) -> str:  # noqa: FBT001, FBT002 - reads well by position too
        """The answer as ``application/health+json`` (draft 06).

        Args:
            details: Whether to tell each check. Without them the text is the status alone, the same each time.

        Names, statuses, reasons of one word and measurements are told; never an exception's text, a host, a user or a
        statement.
        """
        body: dict[str, Any] = {"status": self.status.value}
        if details:
            if self.draining:
                body["notes"] = ["draining"]
            body["checks"] = dict(part for each in self.checks.values() for part in _entries(each))
        return json.dumps(body, separators=(",", ":"))


def _entries(check: CheckReport) -> list[tuple[str, list[dict[str, Any]]]]:
    outcome = check.outcome
    entry: dict[str, Any] = {
        "componentType": check.kind,
        "status": check.status.value,
        "observedValue": round(outcome.seconds * 1000, 1),
        "observedUnit": "ms",
    }
    moment = None if outcome.at is None else written(outcome.at, timespec="milliseconds")
    if moment is not None:
        entry["time"] = moment
    if check.reason is not None:
        entry["output"] = check.reason
    if check.fault is not None:
        entry["fault"] = check.fault
    measured = [
        (
            f"{check.name}:{name}",
            [{"componentType": check.kind, "observedValue": _number(value), "status": check.status.value}],
        )
        for name, value in check.values.items()
    ]
    return [(f"{check.name}:responseTime", [entry]), *measured]


def written(moment: float, *, timespec: str) -> str | None:
    """A wall time as ISO 8601; ``None`` where the clock is so wrong that no calendar has its day."""
    try:
        return datetime.fromtimestamp(moment, UTC).isoformat(timespec=timespec)
    except (ValueError, OverflowError, OSError):
        return None


def _number(value: float) -> float | None:
    """A measurement as JSON can tell it: it knows neither the infinite nor what is no number."""
    return value if math.isfinite(value) else None
