"""What the runs of a check add up to, with neither threads nor a clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient.health import Result, Status
from resilient.health._core import Outcome
from resilient.health._history import Change, History, Terms
from resilient.health._streak import Rule

OK, BAD = Result(), Result.fail("refused")


def history(**terms) -> History:
    return History(Terms(**{"timeout": 0.5, "ttl": 1.0, "failed_ttl": 2.0, **terms}))


def run(on: History, result: Result, began: float, seconds: float = 0.1, error: str | None = None) -> Change | None:
    return on.end(on.begin(began), result, now=began + seconds, wall=1e9, error=error)


def test_an_outcome_is_good_for_its_time_counted_from_its_end():
    """A failure for a time of its own; where rounds are made, until the next one may have ended."""
    known = history()
    run(known, OK, 10.0)
    assert known.fresh(11.09) is not None
    assert known.fresh(11.11) is None
    assert known.fresh(12.5, every=1.0) is not None
    run(known, BAD, 20.0)
    assert known.fresh(22.0) is not None
    assert known.fresh(22.2) is None


def test_a_failure_that_is_only_told_as_a_warning_is_good_for_the_time_of_a_failure():
    """It may only warn, but what it does is fail: it is remembered for as long, and it is the last failure."""
    known = history(at_worst=Status.WARN, ttl=300.0)
    run(known, BAD, 10.0)
    assert known.streak.told is Status.WARN
    assert known.fresh(13.0) is None
    assert known.last_failure == ("refused", 1e9)


def test_a_run_that_the_report_cut_short_is_not_counted():
    """It had a part of its time only; ended within its time, it is what it found."""
    known = history()
    run(known, OK, 10.0)
    under_way = known.begin(20.0)
    finding, change = known.give_up(under_way, until=20.1, now=20.1, wall=1e9)
    assert (finding.outcome.result.reason, finding.streak.status, change) == ("overloaded", Status.FAIL, None)
    assert (known.streak.told, known.streak.bad, known.last_failure) == (Status.PASS, 0, None)
    assert known.end(under_way, OK, now=20.4, wall=1e9) is None
    assert known.fresh(20.5) is under_way.finding
    assert under_way.finding is not None
    assert under_way.finding.outcome.result == OK


@pytest.mark.parametrize("until", [20.48, 20.5, 30.0])
def test_a_run_that_had_its_time_counts_as_a_timeout(until):
    """A report whose deadline is the check's own time is begun a moment before the run, and all the same it counts."""
    known = history()
    run(known, OK, 10.0)
    under_way = known.begin(20.0)
    finding, change = known.give_up(under_way, until=until, now=min(until, 20.5), wall=1e9)
    assert finding.outcome.result.reason == "timeout"
    assert change == Change(Status.PASS, Status.FAIL, "timeout", None)
    assert known.end(under_way, OK, now=20.6, wall=1e9) is None
    assert known.fresh(20.7) is None, "a good answer that came too late is dropped"
    assert known.streak.bad == 1


def test_what_a_late_run_raised_is_told_with_the_change():
    """Where nobody waited it is the change's own; where the timeout was told before, it stands in the next change."""
    alone = history()
    run(alone, OK, 10.0)
    change = run(alone, BAD, 20.0, seconds=0.7, error="OSError: gave up")
    assert change == Change(Status.PASS, Status.FAIL, "timeout", "OSError: gave up")

    watched = history()
    run(watched, OK, 10.0)
    under_way = watched.begin(20.0)
    assert watched.give_up(under_way, until=21.0, now=20.5, wall=1e9)[1] is not None
    assert watched.end(under_way, BAD, now=20.7, wall=1e9, error="OSError: gave up") is None
    assert run(watched, OK, 30.0) == Change(Status.FAIL, Status.PASS, None, "OSError: gave up")
    assert run(watched, BAD, 40.0) == Change(Status.PASS, Status.FAIL, "refused", None), "told once"


@given(st.floats(0.05, 2), st.floats(0, 60), st.lists(st.floats(0.01, 30), min_size=1, max_size=10))
def test_a_hung_run_counts_as_often_as_runs_would_have_come(timeout, pause, looks):
    """However often somebody looks; and never twice."""
    known = history(timeout=timeout, failed_ttl=pause, rule=Rule(fall=1000))
    run(known, OK, 0.0, seconds=0.0)
    under_way, now = known.begin(100.0), 100.0
    for wait in looks:
        now += wait
        known.give_up(under_way, until=1e9, now=now, wall=1e9)
    expected = max(1, int((now - 100.0 + pause) / (timeout + pause) + 1e-9))
    assert abs(known.streak.bad - expected) <= 1  # a look at the very edge of a run's time
    assert known.streak.began <= now


def test_a_hung_run_falls_when_its_grace_is_over():
    """Time in error is counted while it hangs, with any pause between two runs."""
    known = history(rule=Rule(grace=5.0), failed_ttl=0.0)
    run(known, OK, 0.0)
    under_way = known.begin(100.0)
    said = [known.give_up(under_way, until=1e9, now=at, wall=1e9)[0].streak.status for at in (100.5, 104.0, 106.0)]
    assert said == [Status.WARN, Status.WARN, Status.FAIL]


def test_what_is_hardly_stale_can_be_told_to_a_crowd():
    """For the time of a run beyond its own; nothing where it was told to expire."""
    known = history()
    assert known.young(0.0) is None
    run(known, OK, 10.0)
    assert known.young(11.5) is not None
    assert known.young(11.7) is None
    known.expire()
    assert known.young(10.2) is None


def test_what_could_not_begin_counts_only_where_it_says_something():
    """No time in this report says nothing of the check; no thread in the whole machine does."""
    known = history()
    assert known.skip().outcome.result.reason == "overloaded"
    assert known.streak.told is None
    finding, change = known.refuse(now=1.0, wall=1e9, error="RuntimeError: no thread")
    assert finding.streak.told is Status.FAIL
    assert change == Change(None, Status.FAIL, "overloaded", "RuntimeError: no thread")


def test_every_run_is_numbered_from_the_first():
    """Whether it ends or not: it was begun."""
    known = history()
    assert known.runs == 0
    known.begin(10.0)
    assert known.runs == 1
    known.begin(11.0)
    assert known.runs == 2


def test_the_first_run_is_a_change_from_nothing():
    """It passed, so there is neither a reason nor an error."""
    assert run(history(), OK, 10.0) == Change(None, Status.PASS, None, None)


def test_where_rounds_are_made_an_outcome_is_good_for_two_of_them():
    """And for the time that the run of the second may take."""
    known = history()
    run(known, OK, 10.0, seconds=0.25)
    assert known.fresh(18.5, every=4.0) is not None
    assert known.fresh(18.75, every=4.0) is None


def test_a_failure_is_young_for_its_own_time_and_that_of_a_run():
    """A crowd may be told it as long as that: from its end, and not a moment longer."""
    known = history()
    run(known, BAD, 20.0, seconds=0.25)
    assert known.young(22.5) is not None
    assert known.young(22.75) is None


def test_a_warning_is_no_failure():
    """It is good for as long as a pass, and it is not remembered as the last failure."""
    known = history()
    run(known, Result.warn("deep"), 10.0, seconds=0.25)
    assert known.last_failure is None
    assert known.fresh(11.0) is not None
    assert known.fresh(11.25) is None


def test_a_run_that_takes_just_its_time_is_in_time():
    """It counts as a timeout only after that."""
    known = history()
    assert run(known, OK, 16.0, seconds=0.5) == Change(None, Status.PASS, None, None)
    assert run(known, OK, 20.0, seconds=0.625) == Change(Status.PASS, Status.FAIL, "timeout", None)
    assert known.last_failure == ("timeout", 1e9)


def test_what_was_told_as_a_timeout_stays_one():
    """Who waited had been told so a moment before the end of its time: a good answer within it comes too late."""
    known = history()
    run(known, OK, 10.0)
    under_way = known.begin(20.0)
    known.give_up(under_way, until=20.48, now=20.48, wall=1e9)
    assert known.end(under_way, OK, now=20.49, wall=1e9) is None
    assert known.streak.told is Status.FAIL
    assert known.fresh(20.5) is None


def test_what_is_told_of_a_run_under_way_says_for_how_long_it_has_run():
    """Whether it is given up as a timeout or for want of time; it has not ended, so it has no moment."""
    known = history()
    cut_short, _ = known.give_up(known.begin(20.0), until=20.25, now=20.25, wall=1e9)
    assert cut_short.outcome == Outcome(Result.fail("overloaded"), None, 0.25)
    timed_out, _ = known.give_up(known.begin(30.0), until=40.0, now=30.5, wall=1e9)
    assert timed_out.outcome == Outcome(Result.fail("timeout"), None, 0.5)
    assert known.skip().outcome == Outcome(Result.fail("overloaded"), None, 0.0)


def test_a_failure_is_dated_when_it_is_counted():
    """Whoever looks at the hung run later, and finds nothing more to count, does not date it anew."""
    known = history()
    under_way = known.begin(20.0)
    known.give_up(under_way, until=21.0, now=20.5, wall=100.0)
    assert known.last_failure == ("timeout", 100.0)
    known.give_up(under_way, until=21.0, now=20.75, wall=200.0)
    assert known.last_failure == ("timeout", 100.0)
    assert known.streak.bad == 1


def test_a_hung_run_counts_as_begun_when_the_last_it_kept_away_would_have():
    """Each of them would have taken its time, and a pause after it."""
    known = history(timeout=0.5, failed_ttl=2.0)
    finding, _ = known.give_up(known.begin(100.0), until=1e9, now=105.5, wall=1e9)
    assert (finding.streak.bad, finding.streak.began, finding.streak.last_bad) == (3, 105.0, 105.0)


def test_what_could_not_begin_is_a_failure_like_any_other():
    """It has its moment in the row and its date, and took no time."""
    known = history()
    finding, _ = known.refuse(now=8.0, wall=100.0, error="RuntimeError: no thread")
    assert finding.outcome == Outcome(Result.fail("overloaded"), None, 0.0)
    assert (finding.streak.first_bad, finding.streak.began) == (8.0, 8.0)
    assert known.last_failure == ("overloaded", 100.0)


def test_a_failure_without_a_reason_is_remembered_in_a_word():
    """The last failure always says something."""
    known = history()
    run(known, Result(Status.FAIL), 10.0)
    assert known.last_failure == ("failed", 1e9)
