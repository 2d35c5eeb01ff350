"""What the whole suite shares: the line at its end that says which servers were missing."""

from __future__ import annotations

import pytest

MISSING = "missing server: "


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in one plain line what was not tested on this machine, and why."""
    reasons: dict[str, int] = {}
    for report in terminalreporter.stats.get("skipped", []):
        if isinstance(report.longrepr, tuple) and MISSING in report.longrepr[2]:
            reason = report.longrepr[2].partition(MISSING)[2]
            reasons[reason] = reasons.get(reason, 0) + 1
    if reasons:
        parts = "; ".join(f"{count} with {reason}" for reason, count in sorted(reasons.items()))
        terminalreporter.write_line(f"tests skipped for want of a server: {parts}", yellow=True)
