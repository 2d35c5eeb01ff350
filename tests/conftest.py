"""What the whole suite shares: how often fault tests repeat, and the line that says which servers were missing."""

from __future__ import annotations

import gc
import os
from collections import Counter
from collections.abc import Callable, Generator

import pytest
from hypothesis import HealthCheck, settings

SCALE = float(os.environ.get("RESILIENT_SCALE", "0.02"))
SEED = int(os.environ.get("RESILIENT_SEED", "20261121"))

# How long an example takes tells of the machine and not of the code: pytest's time limit ends what hangs.
CLOCKLESS = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("quick", CLOCKLESS, derandomize=True, max_examples=50, print_blob=True)
settings.register_profile("full", CLOCKLESS, max_examples=1000, print_blob=True)
settings.load_profile("full" if SCALE >= 1 else "quick")

MISSING = "missing server: "
"""What the reason of a skip begins with where the machine lacks a server."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that lacks its server has failed where the environment says that no server may be missing."""
    report = yield
    required = os.environ.get("CI", "").lower() in {"1", "true"} or os.environ.get("REQUIRE_SERVERS", "0") not in {
        "",
        "0",
    }
    if required and report.skipped and isinstance(report.longrepr, tuple) and MISSING in report.longrepr[2]:
        reason = report.longrepr[2].partition(MISSING)[2]
        report.outcome = "failed"
        report.longrepr = f"{item.name}: {reason} on this machine, and CI or REQUIRE_SERVERS demands it"
    return report


@pytest.fixture
def repeat() -> Callable[[int], int]:
    """How often to do what the full-size run does that many times: all of it in `make soak`, a fiftieth otherwise."""
    return lambda full: max(1, round(full * SCALE))


@pytest.fixture
def seed() -> int:
    """The seed of this run's random schedules; RESILIENT_SEED changes it."""
    return SEED


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that have a full size, so that `make soak` runs just these."""
    for item in items:
        by_hypothesis = getattr(getattr(item, "obj", None), "is_hypothesis_test", False)
        if by_hypothesis or "repeat" in getattr(item, "fixturenames", ()):
            item.add_marker("scaled")


def pytest_collection_finish() -> None:
    """Spare the garbage collector the thousands of collected tests at each of its rounds: they live to the end."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in one plain line what was not tested on this machine, and why."""
    servers: Counter[str] = Counter()
    others: Counter[str] = Counter()
    for report in terminalreporter.stats.get("skipped", []):
        if isinstance(report.longrepr, tuple):
            before, is_server, reason = report.longrepr[2].partition(MISSING)
            (servers if is_server else others)[reason or before.removeprefix("Skipped: ")] += 1
    for title, joint, reasons in (("for want of a server", " with ", servers), ("for other reasons", ": ", others)):
        if reasons:
            parts = "; ".join(f"{count}{joint}{reason}" for reason, count in sorted(reasons.items()))
            terminalreporter.write_line(f"tests skipped {title}: {parts}", yellow=True)
