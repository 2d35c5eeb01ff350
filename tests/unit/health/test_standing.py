"""The stages of a process: coming up, serving, on its way out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient.clock import SYSTEM
from resilient.health import Status
from resilient.health._core import Check, Outcome, Result
from resilient.health._history import Terms
from resilient.health._lane import Lane
from resilient.health._registry import Entry, Group
from resilient.health._report import CheckReport
from resilient.health._standing import Standing
from resilient.health._teller import Teller

READY, STARTUP, LIVE = Group("ready", drains=True), Group("startup"), Group("live")
ENTRIES = {
    name: Entry(
        Lane(name, Check(lambda: True), Terms(timeout=0.5, ttl=1.0, failed_ttl=1.0), SYSTEM, Teller()),
        True,
        "local",
        "warn",
        frozenset(views),
    )
    for name, views in (("db", ["ready", "startup"]), ("loop", ["live", "ready"]))
}


def told(name: str, status: Status) -> CheckReport:
    return CheckReport(name, "component", Outcome(Result(status), 0.0, 0.0), status, status)


@pytest.mark.parametrize("late", [READY, STARTUP])
def test_a_report_that_ends_late_does_not_undo_the_start(late):
    """Two reports at once: the one that passed ends the start, whatever the slower one found."""
    standing = Standing(0.0)
    assert standing.answer(STARTUP, [told("db", Status.PASS)], ENTRIES, 1.0).http_status == 200
    assert standing.answer(late, [told("db", Status.FAIL)], ENTRIES, 1.0).http_status == 503
    assert standing.started
    known = standing.known(STARTUP)
    assert known is not None
    assert known.http_status == 200


@given(st.lists(st.sampled_from(["pass", "fail", "drain"]), max_size=20))
def test_stages_are_entered_once_and_never_left(steps):
    """Whatever follows: started stays started, and draining 503."""
    standing, passed = Standing(0.0), False
    for step in steps:
        if step == "drain":
            standing.draining = True
        else:
            passed = passed or step == "pass"
            report = standing.answer(READY, [told("db", Status(step))], ENTRIES, 1.0)
            assert report.http_status == (200 if step == "pass" and not standing.draining else 503)
        assert standing.started is passed
        assert (standing.known(READY) is not None) is standing.draining


def test_what_readiness_alone_asks_does_not_keep_the_start_open():
    """The start is over when its own checks pass."""
    standing = Standing(0.0)
    assert standing.answer(READY, [told("db", Status.PASS), told("loop", Status.FAIL)], ENTRIES, 1.0).http_status == 503
    assert standing.started


def test_the_grace_is_liveness_alone_and_ends():
    """Readiness says what is."""
    standing, failing = Standing(10.0), [told("loop", Status.FAIL)]
    said = [standing.answer(group, failing, ENTRIES, now).word for group, now in ((LIVE, 9), (LIVE, 10), (READY, 9))]
    assert said == ["warn", "fail", "fail"]
