"""Hysteresis and the strip: what a row of runs adds up to, against a slow and plain model."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient import events
from resilient.errors import ConfigurationError
from resilient.health import CheckChanged, Health, Status
from resilient.health._streak import SLOT_SECONDS, SLOTS, Rule, Streak, Strip, missed, step
from resilient.testing.clock import FakeClock

STATUSES = st.sampled_from(list(Status))
RUNS = st.lists(st.tuples(STATUSES, st.floats(0.1, 5)), max_size=40)


def model(runs: list[tuple[Status, float]], rule: Rule) -> Status | None:
    """What is told after some runs, worked out from the whole history by the words of the documentation."""
    told: Status | None = None
    for at in range(len(runs)):
        found, now = runs[at]
        row = 0
        while row <= at and (runs[at - row][0] > Status.WARN) is (found > Status.WARN):
            row += 1
        if told is None or (told > Status.WARN) is (found > Status.WARN):
            told = found
        elif found > Status.WARN:
            if row >= rule.fall and now - runs[at - row + 1][1] >= rule.grace:
                told = found
        elif row >= rule.rise:
            told = found
    return told


@given(RUNS, st.integers(1, 4), st.integers(1, 4), st.sampled_from([0.0, 3.0, 8.0]))
def test_a_check_falls_and_rises_as_the_rule_says(runs, fall, rise, grace):
    """fall bad runs in a row that last the grace take it down, rise good ones take it up, the first decides."""
    rule, streak, now, moments = Rule(fall, rise, grace), Streak(), 0.0, []
    for found, pause in runs:
        now += pause
        moments.append((found, now))
        streak = step(streak, found, began=now, ended=now, rule=rule)
        assert streak.told is model(moments, rule)
        if streak.wavering:
            assert streak.status is Status.WARN
        else:
            assert streak.status is streak.told
    assert not runs or (streak.bad == 0) is (runs[-1][0] <= Status.WARN)


def test_a_warning_gives_way_to_a_pass_at_once():
    """It was no failure, so there is nothing to rise from, whatever the rule."""
    warned = step(Streak(), Status.WARN, began=1, ended=1, rule=Rule(rise=3))
    assert step(warned, Status.PASS, began=2, ended=2, rule=Rule(rise=3)).told is Status.PASS


def test_a_good_run_leaves_its_beginning_and_that_of_the_failures_before():
    """The moments of a row are kept until the check has risen: they say what a peer's pass proves."""
    failed = step(Streak(), Status.FAIL, began=3, ended=4, rule=Rule(rise=2))
    rising = step(failed, Status.PASS, began=5, ended=6, rule=Rule(rise=2))
    assert rising == Streak(Status.FAIL, bad=0, good=1, first_bad=3, last_bad=3, began=5)


@given(st.integers(1, 5), st.integers(1, 5))
def test_several_runs_at_once_are_as_many(fall, times):
    """A hung run that counts as three falls as three runs do."""
    rule = Rule(fall=fall)
    worked = step(Streak(), Status.PASS, began=0, ended=0, rule=rule)
    at_once = step(worked, Status.FAIL, began=1, ended=1, rule=rule, times=times)
    assert (at_once.status is Status.FAIL) is (times >= fall)


@given(st.floats(0, 1000), st.floats(0.01, 2), st.floats(0, 5))
def test_a_hung_run_counts_as_those_it_kept_away(hung, timeout, pause):
    """None before its timeout, then one for each run that would have begun and timed out since."""
    count, ends = 0, timeout
    while ends <= hung - 1e-6 and count < 100:
        count, ends = count + 1, ends + timeout + pause
    assert count >= 100 or count <= missed(hung, timeout=timeout, pause=pause) <= count + 1


@pytest.mark.parametrize(
    "arguments", [{"fall": 0}, {"rise": 0}, {"fall": 1.5}, {"fall": True}, {"grace": -1}, {"grace": float("nan")}]
)
def test_a_rule_that_cannot_be_is_refused(arguments):
    """Also where it is written in Health.add."""
    with pytest.raises(ConfigurationError):
        Rule(**arguments)
    with pytest.raises(ConfigurationError):
        Health().add("db", lambda: True, **arguments)


@pytest.mark.parametrize("name", ["fall", "rise"])
def test_a_wrong_number_of_runs_is_told_by_its_name(name):
    """Both are counted alike; the error says which it was."""
    with pytest.raises(ConfigurationError, match=f"{name}=0 "):
        Rule(**{name: 0})


def test_a_grace_without_end_is_refused():
    """Such a check would never fail."""
    with pytest.raises(ConfigurationError, match="grace=inf "):
        Rule(grace=float("inf"))


def test_a_run_is_missed_from_the_moment_its_time_is_over():
    """Not before; and the next one after the pause and its own time."""
    said = [missed(hung, timeout=0.5, pause=1.0) for hung in (0.0, 0.25, 0.5, 1.75, 2.0)]
    assert said == [0, 0, 1, 1, 2]


def test_the_strip_remembers_no_more_than_it_shows():
    """A process that runs for years keeps ten minutes."""
    strip = Strip()
    for slot in range(3 * SLOTS):
        strip.add(slot * SLOT_SECONDS, Status.PASS)
    assert len(strip._worst) == SLOTS
    assert strip.read((3 * SLOTS - 1) * SLOT_SECONDS) == [Status.PASS] * SLOTS


def test_a_clock_may_begin_anywhere():
    """Slots before its zero are as long as those after it."""
    strip = Strip()
    for at, status in ((-15.0, Status.FAIL), (-5.0, Status.PASS), (5.0, Status.WARN)):
        strip.add(at, status)
    assert strip.read(5.0)[-4:] == [None, Status.FAIL, Status.PASS, Status.WARN]
    assert strip.read(-5.0)[-3:] == [None, Status.FAIL, Status.PASS]


def test_what_came_after_the_moment_that_is_asked_for_is_not_shown():
    """Who reads may have looked at the clock before a run that ended meanwhile."""
    strip = Strip()
    strip.add(100.0, Status.PASS)
    strip.add(110.0, Status.FAIL)
    assert strip.read(109.0)[-2:] == [None, Status.PASS]


@given(st.lists(st.tuples(st.floats(0, 900), STATUSES), max_size=60))
def test_the_strip_shows_the_worst_of_each_slot(found):
    """A slot with runs shows their worst; a slot without repeats what came last, for a minute, then nothing."""
    strip, end = Strip(), 900.0
    found = sorted(found, key=lambda each: each[0])
    for at, status in found:
        strip.add(at, status)
    shown = strip.read(end)
    assert len(shown) == SLOTS
    first = int(end // SLOT_SECONDS) - SLOTS + 1
    for place, status in enumerate(shown):
        inside = [each for at, each in found if int(at // SLOT_SECONDS) == first + place]
        recent = [each for at, each in found if 0 < first + place - int(at // SLOT_SECONDS) <= 6]
        if inside:
            assert status is max(inside)
        else:
            assert status is (recent[-1] if recent else None)


# ------------------------------------------------------------------------------------------------------ in a Health


class Switch:
    def __init__(self) -> None:
        self.good = True

    def __call__(self) -> bool:
        return self.good


def test_a_blip_warns_and_only_a_row_of_failures_fails():
    """fall=3: two failures warn with 200, the third is 503; rise=2: the first good run is told as rising."""
    health, db = Health(), Switch()
    health.add("db", db, fall=3, rise=2, ttl=0)
    told = [health.ready()]
    db.good = False
    told += [health.ready() for _ in range(3)]
    db.good = True
    told += [health.ready() for _ in range(2)]
    assert [each.word for each in told] == ["pass", "warn", "warn", "fail", "fail", "pass"]
    assert [each.checks["db"].reason for each in told] == [None, "failed", "failed", "failed", "rising", None]
    assert '"output":"rising"' in told[4].to_json(details=True)


def test_the_log_has_one_line_for_a_fall():
    """What only wavers is not told; the fall and the rise are, once each."""
    sink, health, db = events.MemorySink(), Health(), Switch()
    end = events.subscribe(sink)
    health.add("db", db, fall=2, rise=2, ttl=0)
    for good in (True, False, True, False, False, False, True, True):
        db.good = good
        health.ready()
    assert health._teller.finish(5)
    end()
    assert [(each.before, each.status) for each in sink.of(CheckChanged)] == [("pass", "fail"), ("fail", "pass")]


def test_grace_is_time_in_error():
    """With a grace of 10 s a failure warns until it has lasted that long."""
    clock, db = FakeClock(), Switch()
    health = Health(clock=clock)
    health.add("db", db, grace=10, ttl=0)
    words = [health.ready().word]
    db.good = False
    for _ in range(4):
        words.append(health.ready().word)
        clock.advance(4)
    assert words == ["pass", "warn", "warn", "warn", "fail"]


def test_a_hung_check_falls_though_it_is_run_once():
    """The runs that its hanging keeps away count as failed, so fall=2 is reached without a second run."""
    clock, gate, runs = FakeClock(), threading.Event(), []
    health = Health(clock=clock)

    def db() -> None:
        runs.append(1)
        if len(runs) > 1:
            assert gate.wait(20)

    health.add("db", db, fall=2, ttl=1.0, timeout=0.05)
    assert health.ready().word == "pass"
    clock.advance(1.1)
    assert (health.ready().word, health.ready().word) == ("warn", "warn")
    clock.advance(1.2)
    assert health.ready().word == "fail"
    assert len(runs) == 2
    gate.set()


def test_a_failure_may_be_remembered_for_another_time_than_a_success():
    """failed_ttl is for failures, ttl for the rest."""
    clock, runs, db = FakeClock(), [], Switch()
    health = Health(clock=clock)
    health.add("db", lambda: runs.append(1) or db(), ttl=10, failed_ttl=1)
    health.ready()
    clock.advance(5)
    health.ready()
    assert len(runs) == 1
    clock.advance(5)
    db.good = False
    health.ready()
    clock.advance(1.5)
    health.ready()
    assert len(runs) == 3
