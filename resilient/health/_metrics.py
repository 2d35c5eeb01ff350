"""A report as Prometheus reads it: its text format, version 0.0.4. Nothing needs to be installed for it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from resilient.health._health import Health
from resilient.health._report import Report

__all__ = ["METRICS", "metrics"]

METRICS: Final = "text/plain; version=0.0.4; charset=utf-8"


def metrics(health: Health, report: Report) -> str:
    """The samples of a report of the view ``all``, and the answers to ``live`` and ``ready`` that follow from it.

    Args:
        health: Whose report it is.
        report: The report.

    Examples:
        >>> health = Health()
        >>> health.add("db", lambda: True)
        >>> [line for line in metrics(health, health.report("all")).splitlines() if "check_status" in line][-1]
        'resilient_health_check_status{check="db"} 0'
    """
    return "\n".join([*_views(health, report), *_checks(health, report), ""])


def _head(name: str, meaning: str, kind: str = "gauge") -> list[str]:
    return [f"# HELP resilient_health_{name} {meaning}", f"# TYPE resilient_health_{name} {kind}"]


def _views(health: Health, report: Report) -> Iterator[str]:
    yield from _head("view_status", "The answer to a question: 0 pass, 1 warn, 2 unknown, 3 fail.")
    for view, status in health.statuses(report).items():
        yield f'resilient_health_view_status{{view="{view}"}} {status.severity}'
    yield from _head("draining", "Whether readiness was withdrawn.")
    yield f"resilient_health_draining {int(health.draining)}"


def _checks(health: Health, report: Report) -> Iterator[str]:
    checks = list(report.checks.values())
    yield from _head("check_status", "How well a thing is: 0 pass, 1 warn, 2 unknown, 3 fail.")
    for each in checks:
        yield f'resilient_health_check_status{{check="{each.name}"}} {each.status.severity}'
    yield from _head("check_seconds", "How long the last run of a check took.")
    for each in checks:
        yield f'resilient_health_check_seconds{{check="{each.name}"}} {_number(each.outcome.seconds)}'
    yield from _head("check_runs_total", "Runs of a check.", "counter")
    for each in checks:
        yield f'resilient_health_check_runs_total{{check="{each.name}"}} {health.history(each.name).runs}'
    yield from _head("check_value", "What a check measured.")
    for each in checks:
        for name, value in each.values.items():
            yield f'resilient_health_check_value{{check="{each.name}",name="{name}"}} {_number(value)}'


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(value)
