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
from resilient.health._report import CheckReport, Report
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


def test_what_is_known_without_a_check_says_which_question_it_answers():
    """The start is over and stays so, also of an instance on its way out, which every answer tells."""
    standing = Standing(0.0)
    assert standing.known(STARTUP) is None
    standing.started = True
    assert standing.known(STARTUP) == Report("startup", Status.PASS)
    standing.draining = True
    assert standing.known(STARTUP) == Report("startup", Status.PASS, draining=True)
    assert standing.known(READY) == Report("ready", Status.FAIL, draining=True)
    assert standing.known(LIVE) is None


def test_an_answer_of_the_checks_says_that_the_instance_drains():
    """Liveness does not fail for it, and tells it all the same; so does a readiness that was under way."""
    standing, passing = Standing(0.0), told("loop", Status.PASS)
    assert standing.answer(LIVE, [passing], ENTRIES, 1.0) == Report("live", Status.PASS, {"loop": passing})
    standing.draining = True
    for group, status in ((LIVE, Status.PASS), (READY, Status.FAIL)):
        said = standing.answer(group, [passing], ENTRIES, 1.0)
        assert said == Report(group.name, status, {"loop": passing}, draining=True)


def asked(*groups: Group) -> list[tuple[Group, list[Entry]]]:
    return [(group, [each for each in ENTRIES.values() if group.asks(each)]) for group in groups]


def test_each_question_has_the_worst_of_the_checks_that_have_a_say_in_it():
    """A check of which nothing is known yet says nothing."""
    standing, db, loop = Standing(0.0), told("db", Status.FAIL), told("loop", Status.WARN)
    groups = asked(READY, STARTUP, LIVE)
    both = standing.statuses(groups, {"db": db, "loop": loop}, 1.0)
    assert both == {"ready": Status.FAIL, "startup": Status.FAIL, "live": Status.WARN}
    one = standing.statuses(groups, {"loop": loop}, 1.0)
    assert one == {"ready": Status.WARN, "startup": Status.PASS, "live": Status.WARN}


def test_each_question_has_the_answer_that_its_report_would_have():
    """A start that is over stays over, an instance that drains is not ready, and the grace is liveness's."""
    standing, failing = Standing(10.0), {name: told(name, Status.FAIL) for name in ENTRIES}
    groups = asked(READY, STARTUP, LIVE)
    standing.started = True
    early = standing.statuses(groups, failing, 9.0)
    assert early == {"ready": Status.FAIL, "startup": Status.PASS, "live": Status.WARN}
    assert standing.statuses(groups, failing, 10.0)["live"] is Status.FAIL
    standing.draining = True
    assert standing.statuses(groups, {}, 9.0) == {"ready": Status.FAIL, "startup": Status.PASS, "live": Status.PASS}
