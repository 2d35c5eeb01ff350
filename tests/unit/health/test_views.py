"""Views: groups, the start, the grace; rounds in the background; being told to end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from resilient.errors import ConfigurationError
from resilient.health import Health, Result, Status
from resilient.testing.clock import FakeClock


def until(true, seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.002)


# ----------------------------------------------------------------------------------------------------------- groups


def test_a_group_asks_its_own_checks_only():
    """By the group's list, by what it leaves out, or by the check's views."""
    health, ran = Health(), []
    for name in ("db", "mail", "disk"):
        health.add(name, lambda name=name: ran.append(name), ttl=0)
    health.group("reading", ["db"])
    health.group("most", exclude=["mail"])
    health.group("own")
    health.add("late", lambda: ran.append("late"), views=["own"], ttl=60)
    assert list(health.report("reading").checks) == ["db"]
    assert list(health.report("most").checks) == ["db", "disk", "late"]
    assert list(asyncio.run(health.areport("own")).checks) == ["late"]
    assert sorted(ran) == ["db", "db", "disk", "late"]  # the last was fresh still
    assert list(health.ready().checks) == ["db", "mail", "disk"]
    assert health.views == ("live", "ready", "startup", "all", "reading", "most", "own")


def test_a_group_of_all_but_some_asks_what_is_added_later_too():
    """All checks but these, whatever the order they are written in."""
    health = Health()
    health.add("mail", lambda: False)
    health.group("most", exclude=["mail"])
    health.group("chosen", ["mail"], exclude=["mail"])
    assert health.report("most").word == "pass"
    health.add("db", lambda: False)
    assert health.report("most").word == "fail"
    assert list(health.report("most").checks) == ["db"]
    assert list(health.report("chosen").checks) == []


def test_a_group_has_a_rule_of_its_own():
    """One balancer wants the strict behaviour, another the mild one, of the same check."""
    health = Health()
    health.add("db", lambda: False, scope="shared")
    health.group("strict", ["db"], shared="fail")
    assert (health.ready().http_status, health.report("strict").http_status) == (200, 503)


def test_a_group_drains_unless_told_otherwise():
    """A balancer that asks a group takes a leaving instance out too."""
    health = Health()
    health.group("traffic")
    health.group("watching", drains=False)
    health.drain()
    assert [health.report(view).http_status for view in ("traffic", "watching", "all", "live")] == [503, 200, 200, 200]


@pytest.mark.parametrize(
    "arguments",
    [
        {"name": "db2", "include": ["dbs"]},
        {"name": "x", "exclude": ["dbs"]},
        {"name": "x", "include": "db"},
        {"name": "ready"},
        {"name": "page"},
        {"name": "metrics"},
        {"name": "taken"},
        {"name": "a b"},
        {"name": "x", "shared": "maybe"},
    ],
)
def test_a_wrong_group_is_refused(arguments):
    """Unknown members, taken names and unknown rules are found where they are written."""
    health = Health()
    health.add("db", lambda: True)
    health.group("taken")
    with pytest.raises(ConfigurationError):
        health.group(**arguments)
    with pytest.raises(ConfigurationError):
        health.add("late", lambda: True, views=["unheard"])
    assert health.views == ("live", "ready", "startup", "all", "taken")


def test_the_answers_to_all_follow_from_one_report():
    """The same words as the reports', with no check run for them."""
    health, runs = Health(shared="fail"), []
    health.add("db", lambda: runs.append(1) or False, scope="shared")
    health.add("disk", lambda: True, views=["live", "ready"])
    health.group("mild", ["db"], shared="warn")
    said = health.statuses(health.report("all"))
    assert len(runs) == 1
    assert said == {view: health.report(view).status for view in health.views if view != "all"}
    assert {view: status.value for view, status in said.items()} == {
        "live": "pass",
        "ready": "fail",
        "startup": "fail",
        "mild": "warn",
    }


# -------------------------------------------------------------------------------------------------------- the start


def test_readiness_waits_for_what_only_the_start_asks():
    """Until it has passed once; after that it is not asked any more."""
    health, warm, runs = Health(), threading.Event(), []
    health.add("db", lambda: True)
    health.add("warm", lambda: runs.append(1) or warm.is_set(), views=["startup"], ttl=0)
    assert (health.ready().http_status, health.live().http_status) == (503, 200)
    warm.set()
    assert health.ready().http_status == 200
    warm.clear()
    count = len(runs)
    assert (health.ready().http_status, list(health.ready().checks)) == (200, ["db"])
    assert (health.startup().http_status, len(runs)) == (200, count)


def test_a_failure_of_readiness_alone_does_not_keep_the_start_open():
    """The start is over when its own checks have passed."""
    health, runs = Health(), []
    health.add("traffic", lambda: False, views=["ready"], ttl=0)
    health.add("warm", lambda: runs.append(1), views=["startup"], ttl=0)
    health.ready()
    assert (health.ready().http_status, health.startup().http_status, len(runs)) == (503, 200, 1)


def test_liveness_only_warns_while_the_process_may_still_be_coming_up():
    """startup_grace holds the supervisor off; readiness says what is."""
    clock = FakeClock()
    health = Health(startup_grace=30, clock=clock)
    health.add("loop", lambda: False, views=["live", "ready"], ttl=0)
    assert (health.live().word, health.ready().word) == ("warn", "fail")
    clock.advance(30)
    assert health.live().word == "fail"


# --------------------------------------------------------------------------------------------------- the background


def test_the_background_runs_the_checks_unasked_and_reports_wait_for_nothing():
    """A slow check costs a probe nothing; closed, it is run by probes again."""
    health, runs, gate = Health(), [], threading.Event()

    def slow() -> None:
        runs.append(1)
        if len(runs) > 1:
            gate.wait(0.3)

    health.add("slow", slow, ttl=0)
    health.background(every=0.02)
    until(lambda: len(runs) > 1)
    for _ in range(5):
        began = time.monotonic()
        assert health.ready().word == "pass"
        assert time.monotonic() - began < 0.1
    gate.set()
    count = len(runs)
    until(lambda: len(runs) > count + 3)
    health.close()
    count = len(runs)
    health.ready()
    assert len(runs) in {count + 1, count + 2}  # one round may still have been under way


def test_a_check_that_begins_to_hang_in_the_background_is_told():
    """The last good word holds for the run's time and not longer; it is not started a second time."""
    health, runs, gate = Health(), [], threading.Event()

    def hangs() -> None:
        runs.append(1)
        if len(runs) > 1:
            gate.wait(20)

    health.add("db", hangs, timeout=0.1)
    health.background(every=0.02)
    until(lambda: health.ready().http_status == 503)
    assert health.ready().checks["db"].reason == "timeout"
    assert len(runs) == 2
    gate.set()
    until(lambda: health.ready().http_status == 200)
    health.close()


def test_a_check_added_later_joins_the_rounds():
    """And a wrong interval is refused."""
    health, runs = Health(), []
    health.background(every=0.01)
    health.add("late", lambda: runs.append(1), ttl=100)
    until(lambda: len(runs) > 2)
    health.close()
    with pytest.raises(ConfigurationError):
        health.background(every=0)


def test_without_background_no_thread_is_started_by_building_a_registry():
    """Threads come with the first question, and go with its answer."""
    before = threading.active_count()
    health = Health()
    health.add("db", lambda: True)
    assert threading.active_count() == before


def test_a_forked_child_goes_its_own_rounds():
    """The thread is started anew by the child's first report."""
    health = Health()
    runs: list[int] = []
    health.add("db", lambda: runs.append(1), ttl=100)
    health.background(every=0.01)
    until(lambda: len(runs) > 1)
    child = os.fork()
    if child == 0:
        runs.clear()
        try:
            health.ready()
            until(lambda: len(runs) > 2)
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    health.close()


# --------------------------------------------------------------------------------------------------- being told to end


@pytest.fixture
def told():
    """A handler of SIGTERM that was there before, and what it was told."""
    seen: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))
    yield seen
    signal.signal(signal.SIGTERM, before)


def test_sigterm_drains_at_once_and_is_passed_on_later(told):
    """Readiness is 503 within 100 ms, liveness 200; the former handler is called after the delay."""
    health = Health()
    health.drain_on_sigterm(delay=0.3)
    os.kill(os.getpid(), signal.SIGTERM)
    began = time.monotonic()
    until(lambda: health.ready().http_status == 503, seconds=0.1)
    assert (health.live().http_status, told) == (200, [])
    until(lambda: told == [signal.SIGTERM])
    assert time.monotonic() - began >= 0.25


def test_a_second_sigterm_is_passed_on_at_once_and_once(told):
    """Who insists need not wait; and the delayed one is then not passed on as well, which might force the end."""
    clock = Sleeper()
    health = Health(clock=clock)
    undo = health.drain_on_sigterm(delay=5.0)
    os.kill(os.getpid(), signal.SIGTERM)
    assert clock.asleep_now.wait(5)
    assert told == []
    os.kill(os.getpid(), signal.SIGTERM)
    until(lambda: told == [signal.SIGTERM], seconds=1.0)
    clock.wake.set()
    until(lambda: not any(each.name == "resilient-health-drain" for each in threading.enumerate()))
    assert told == [signal.SIGTERM]
    undo()
    os.kill(os.getpid(), signal.SIGTERM)
    until(lambda: len(told) == 2)


class Sleeper(FakeClock):
    """A clock whose sleepers wait to be woken."""

    def __init__(self) -> None:
        super().__init__()
        self.asleep_now, self.wake = threading.Event(), threading.Event()

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        self.asleep_now.set()
        assert self.wake.wait(20)


def test_the_hook_gives_its_place_back_only_while_it_has_it(told):
    """A handler that somebody set later stays."""
    undo = Health().drain_on_sigterm(delay=1)
    later = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    undo()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    signal.signal(signal.SIGTERM, later)
    undo()
    assert signal.getsignal(signal.SIGTERM) is not later


def test_a_hook_that_cannot_be_is_refused(told):
    """Off the main thread, or with a delay that is none."""
    with pytest.raises(ConfigurationError):
        Health().drain_on_sigterm(delay=-1)
    raised: list[BaseException] = []

    def elsewhere() -> None:
        try:
            Health().drain_on_sigterm()
        except ConfigurationError as error:
            raised.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert len(raised) == 1


@pytest.mark.parametrize("before", ["SIG_DFL", "SIG_IGN"])
def test_a_process_without_a_handler_ends_as_it_would_have(before):
    """By the signal, after the delay; and where it was ignored, it goes on."""
    program = f"""
        import signal, time
        from resilient.health import Health
        signal.signal(signal.SIGTERM, signal.{before})
        health = Health()
        health.drain_on_sigterm(delay=0.2)
        began = time.monotonic()
        signal.raise_signal(signal.SIGTERM)
        while time.monotonic() - began < 1.0:
            time.sleep(0.01)
        print("went on", health.ready().word)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=30, check=False
    )
    if before == "SIG_DFL":
        assert (done.returncode, done.stdout) == (-signal.SIGTERM, "")
    else:
        assert (done.returncode, done.stdout) == (0, "went on fail\n")


# ------------------------------------------------------------------------------------------------------- in figures


def test_two_thousand_probes_in_six_seconds_cost_seven_runs_at_most():
    """An outcome is good for a second from its end."""
    clock = FakeClock()
    health, runs = Health(clock=clock), []
    health.add("db", lambda: runs.append(1))
    for _ in range(2000):
        assert health.ready().word == "pass"
        clock.advance(6 / 2000)
    assert len(runs) <= 7


def test_a_report_of_five_checks_takes_as_long_as_the_slowest():
    """Five checks of 100 ms are told in little more than that."""
    health = Health()
    for number in range(5):
        health.add(f"check{number}", lambda: time.sleep(0.1), ttl=0)

    def took() -> float:
        began = time.monotonic()
        assert health.ready().word == "pass"
        return time.monotonic() - began

    assert any(took() <= 0.115 for _ in range(30))  # a busy machine has a quiet moment


def test_what_is_infinite_is_told_in_json():
    """A measurement that is infinite is null in JSON, which does not know it."""
    health = Health()
    health.add("lag", lambda: Result(Status.WARN, "behind", {"lag": float("inf"), "nan": float("nan")}))
    body = health.ready().to_json(details=True)
    assert body.count('"observedValue":null') == 2
