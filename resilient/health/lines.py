"""A report for people at a terminal."""

from __future__ import annotations

from resilient.health._report import CheckReport, Report

__all__ = ["exit_code", "lines"]


def lines(report: Report) -> list[str]:
    """A report as lines of text: the answer, then each check.

    Examples:
        >>> from resilient.health import Health
        >>> health = Health()
        >>> health.add("disk", lambda: True)
        >>> lines(health.ready())[0]
        'ready: pass'
    """
    drained = " (draining)" if report.draining else ""
    width = max((len(name) for name in report.checks), default=0)
    return [f"{report.view}: {report.word}{drained}", *(_line(each, width) for each in report.checks.values())]


def _line(check: CheckReport, width: int) -> str:
    parts = [f"  {check.name:<{width}}  {check.status.value:<7}", f"{check.outcome.seconds * 1000:6.1f} ms"]
    if check.reason is not None:
        parts.append(check.reason)
    parts += [f"{name}={value:g}" for name, value in check.values.items()]
    return "  ".join(parts)


def exit_code(report: Report) -> int:
    """0 where traffic is welcome, 1 where it is not."""
    return 0 if report.http_status == 200 else 1
