"""The driver: lanes, deadlines, single flight, drain, both faces."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import resilient.health._lane
from resilient import events
from resilient.clock import SYSTEM
from resilient.errors import ConfigurationError
from resilient.health import (
    Check,
    CheckChanged,
    CheckWorsened,
    Draining,
    Health,
    MemoryBoard,
    Peers,
    Result,
    Status,
    checks,
)
from resilient.health._teller import Teller
from resilient.health.answer import probe
from resilient.health.checks._aside import Aside
from resilient.policy import deadline
from resilient.testing.clock import FakeClock

MARGIN = 0.25  # seconds of grace on a busy machine


class Gate:
    """A dependency that hangs until it is let go, and counts who came."""

    def __init__(self) -> None:
        self.calls = 0
        self.inside = threading.Semaphore(0)
        self.open = threading.Event()
        self.left = threading.Semaphore(0)

    def __call__(self) -> None:
        self.calls += 1
        self.inside.release()
        try:
            assert self.open.wait(20)
        finally:
            self.left.release()


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.open.set()


@pytest.fixture
def told() -> Iterator[events.MemorySink]:
    sink = events.MemorySink()
    end = events.subscribe(sink)
    yield sink
    end()


class Switch:
    """A check that says what it is told to, and counts its calls."""

    def __init__(self) -> None:
        self.calls = 0
        self.answer: object = None

    def __call__(self) -> object:
        self.calls += 1
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


def until(true, seconds: float = 5.0) -> None:
    """Wait for what another thread is about to do."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.002)


def settle(health: Health) -> None:
    """Wait until all is told: nobody else waits for it."""
    assert health._teller.finish(5)


# ------------------------------------------------------------------------------------------------- what is answered


def test_no_checks_pass():
    """A registry without checks is ready, live and started."""
    health = Health()
    assert [health.report(view).word for view in ("live", "ready", "startup")] == ["pass"] * 3


def test_a_critical_local_failure_takes_the_instance_out():
    """503 and the word fail."""
    health = Health()
    health.add("disk", lambda: False)
    report = health.ready()
    assert (report.http_status, report.word, report.checks["disk"].reason) == (503, "fail", "failed")


def test_a_failure_that_is_not_critical_warns():
    """200 with a warning; the check itself is told as failed."""
    health = Health()
    health.add("disk", lambda: False, critical=False)
    report = health.ready()
    assert (report.http_status, report.word) == (200, "warn")
    assert report.checks["disk"].status is Status.FAIL


@pytest.mark.parametrize(("shared", "status"), [("warn", 200), ("fail", 503)])
def test_a_shared_dependency_warns_by_default_and_fails_on_demand(shared, status):
    """shared="warn" keeps the pool full, shared="fail" is the strict behaviour."""
    health = Health(shared=shared)
    health.add("db", lambda: False, scope="shared")
    assert health.ready().http_status == status


def test_one_check_may_differ_from_the_rule_for_shared_faults():
    """shared= of a check wins over that of the registry."""
    health = Health()
    health.add("db", lambda: False, scope="shared", shared="fail")
    assert health.ready().http_status == 503


def test_an_unknown_answer_is_not_ready():
    """unknown is 503, between warn and fail."""
    health = Health()
    health.add("cache", lambda: Result.unknown("cold"))
    assert (health.ready().http_status, health.ready().word) == (503, "unknown")


def test_liveness_does_not_run_the_other_checks():
    """A dependency that is down leaves the process alive, and is not asked."""
    health, db = Health(), Switch()
    db.answer = False
    health.add("db", db)
    assert (health.live().http_status, db.calls) == (200, 0)


def test_a_local_check_may_have_a_say_in_liveness():
    """A worker loop that stands still makes the process not live."""
    clock = FakeClock()
    health, loop = Health(clock=clock), checks.heartbeat(30, clock=clock)
    health.add("worker", loop, views=["live", "ready"], ttl=0)
    assert health.live().http_status == 200
    clock.advance(31)
    assert (health.live().http_status, health.live().checks["worker"].reason) == (503, "silent")
    loop.beat()
    assert health.live().http_status == 200


def test_startup_is_asked_until_it_passes_once():
    """After that no check runs for it, whatever happens."""
    clock = FakeClock()
    health, migrations = Health(clock=clock), Switch()
    migrations.answer = False
    health.add("migrations", migrations, views=["startup"], ttl=0)
    assert health.startup().http_status == 503
    migrations.answer = True
    assert health.startup().http_status == 200
    migrations.answer = False
    calls = migrations.calls
    assert (health.startup().http_status, migrations.calls) == (200, calls)


def test_async_functions_are_checks_too():
    """They run on an event loop of their own, from both faces."""
    health = Health()

    @health.check("async")
    async def look() -> Result:
        await asyncio.sleep(0)
        return Result.ok(depth=3)

    assert health.ready().checks["async"].values == {"depth": 3}
    assert asyncio.run(health.aready()).word == "pass"


# ---------------------------------------------------------------------------------------------- wrong at construction


@pytest.mark.parametrize(
    "arguments",
    [
        {"name": "db"},
        {"name": "a b"},
        {"name": ""},
        {"name": "x" * 65},
        {"views": []},
        {"views": ["redy"]},
        {"views": "ready"},
        {"check": 3},
        {"timeout": 0},
        {"timeout": 0.9},
        {"timeout": float("nan")},
        {"timeout": float("inf")},
        {"ttl": -1},
        {"ttl": float("inf")},
        {"ttl": float("nan")},
        {"failed_ttl": -1},
        {"failed_ttl": float("inf")},
        {"grace": -1},
        {"grace": float("inf")},
        {"scope": "global"},
        {"shared": "peers"},
        {"views": ["live"], "scope": "shared"},
        {"name": 5},
        {"name": None},
        {"timeout": "0.5"},
        {"ttl": "1"},
        {"ttl": None},
        {"failed_ttl": "1"},
        {"grace": "1"},
    ],
)
def test_a_wrong_check_is_refused_when_it_is_added(arguments):
    """Names are unique and harmless, views known, times possible, liveness free of shared things."""
    health = Health()
    health.add("db", lambda: True)
    with pytest.raises(ConfigurationError):
        health.add(**{"name": "other", "check": lambda: True, **arguments})
    assert health.names == ("db",)


def test_liveness_refuses_a_dependency_whatever_its_scope():
    """A restart of this process would not mend it."""
    with pytest.raises(ConfigurationError, match="liveness"):
        Health().add("db", checks.callable(lambda: True, dependency=True), views=["live"])


@pytest.mark.parametrize(
    "arguments",
    [
        {"deadline": 0},
        {"deadline": float("inf")},
        {"deadline": "0.8"},
        {"startup_grace": "30"},
        {"shared": "maybe"},
        {"shared": "peers", "peers": "redis://127.0.0.1:1/0"},
        {"details": "yes"},
    ],
)
def test_a_wrong_registry_is_refused(arguments):
    """Wrong settings are found where they are written."""
    with pytest.raises(ConfigurationError):
        Health(**arguments)


def test_a_decorator_without_a_name_is_refused_and_not_forgotten():
    """``@health.check`` alone would take the function for the name, and add no check."""
    health = Health()
    with pytest.raises(ConfigurationError, match="the name first"):

        @health.check
        def templates():
            return True


@pytest.mark.parametrize(
    "wrong",
    [
        lambda health: health.background("1"),
        lambda health: health.drain_on_sigterm(delay="2"),
        lambda health: health.history("nothing"),
        lambda health: checks.heartbeat(max_age="30"),
        lambda health: Peers(MemoryBoard(), service="shop", ttl="10"),
        lambda health: Check(True),
    ],
)
def test_what_is_no_time_no_check_and_no_function_is_told_as_a_wrong_setting(wrong):
    """A text of the environment is no number, and the error says what was wrong with it."""
    with pytest.raises(ConfigurationError):
        wrong(Health())


def test_an_unknown_view_is_refused():
    """A typing mistake is not answered with pass."""
    with pytest.raises(ConfigurationError):
        Health().report("alive")  # type: ignore[arg-type]


# -------------------------------------------------------------------------------------------------------- bounded


def test_a_hung_check_is_reported_in_time_and_never_started_twice(gate):
    """The answer comes within the deadline, the next at once; the check runs once, and again after it has ended."""
    health = Health()
    health.add("db", gate)
    began = time.monotonic()
    report = health.ready()
    assert time.monotonic() - began < 0.5 + MARGIN
    assert (report.http_status, report.checks["db"].reason) == (503, "timeout")
    for _ in range(20):
        began = time.monotonic()
        assert health.ready().checks["db"].reason == "timeout"
        assert time.monotonic() - began < 0.1
    assert gate.calls == 1
    gate.open.set()
    until(lambda: health.ready().word == "pass")
    assert gate.calls == 2


def test_a_hung_check_does_not_hold_up_its_neighbours(gate):
    """Each check has a lane of its own: the others are told as they are, also from further probes."""
    health = Health(shared="warn")
    health.add("hung", gate, critical=False, timeout=0.2)
    others = [Switch() for _ in range(5)]
    for number, other in enumerate(others):
        health.add(f"other{number}", other, ttl=0)
    for _ in range(3):
        report = health.ready()
        assert [report.checks[f"other{number}"].status for number in range(5)] == [Status.PASS] * 5
    assert report.word == "warn"
    assert [other.calls for other in others] == [3] * 5


def test_checks_run_side_by_side():
    """Five checks that wait for each other all pass: they run at the same time."""
    together = threading.Barrier(5)
    health = Health()
    for number in range(5):
        health.add(f"check{number}", lambda: together.wait(5) >= 0)
    assert health.ready().word == "pass"


def test_what_comes_after_its_time_is_dropped():
    """A check that is always too slow fails each time, not every other time."""
    clock = FakeClock()
    health, calls = Health(clock=clock), []

    def slow() -> None:
        calls.append(1)
        clock.advance(0.6)

    health.add("slow", slow, ttl=100)
    for count in range(1, 4):
        assert health.ready().checks["slow"].reason == "timeout"
        until(lambda: health._lanes()["slow"]._flight is None)
        assert len(calls) == count


def test_a_failure_after_its_time_is_kept_as_the_timeout_it_was():
    """Where a run gives up by itself, not every probe has to wait for one."""
    clock = FakeClock()
    health, calls = Health(clock=clock), []

    def slow() -> None:
        calls.append(1)
        clock.advance(0.6)
        raise OSError("gave up")

    health.add("slow", slow, ttl=1.0)
    for _ in range(5):
        assert health.ready().checks["slow"].reason == "timeout"
        until(lambda: health._lanes()["slow"]._flight is None)
    assert len(calls) == 1
    clock.advance(1.1)
    assert health.ready().checks["slow"].reason == "timeout"
    assert len(calls) == 2


def test_a_check_sees_its_own_deadline_and_not_the_callers():
    """The run is for everybody: a request's deadline does not bind it, its own does."""
    seen: list[float | None] = []
    health = Health()
    health.add("look", lambda: seen.append(deadline.remaining()), timeout=0.4)
    with deadline(0.001):
        assert health.ready().word == "pass"
    assert seen[0] is not None
    assert 0.1 < seen[0] <= 0.4


def test_a_machine_without_threads_still_answers(monkeypatch):
    """The check counts as failed, and is tried again at the next probe."""
    health = Health()
    health.add("db", lambda: True)

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr("resilient.health._lane.start_thread", refuse)
        assert (health.ready().http_status, health.ready().checks["db"].reason) == (503, "overloaded")
    assert health.ready().word == "pass"


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), GeneratorExit()])
def test_a_check_that_wants_to_end_the_process_only_fails(error):
    """Whatever is raised is the end of the check alone."""
    health, check = Health(), Switch()
    check.answer = error
    health.add("rude", check)
    assert health.ready().checks["rude"].reason == "error"


# --------------------------------------------------------------------------------------------------- shared by probes


def test_fifty_concurrent_probes_cost_one_run(gate):
    """All wait for the one run under way and tell the same."""
    health = Health()
    health.add("db", gate)
    with ThreadPoolExecutor(50) as threads:
        probes = [threads.submit(health.ready) for _ in range(50)]
        assert gate.inside.acquire(timeout=5)
        gate.open.set()
        assert {probe.result().word for probe in probes} == {"pass"}
    assert gate.calls == 1


def test_fifty_concurrent_async_probes_cost_one_run(gate):
    """The same on an event loop, which stays free while they wait."""
    health = Health()
    health.add("db", gate)

    async def probe_all() -> set[str]:
        probes = [asyncio.create_task(health.aready()) for _ in range(50)]
        await asyncio.sleep(0.01)
        gate.open.set()
        return {(await probe).word for probe in probes}

    assert asyncio.run(probe_all()) == {"pass"}
    assert gate.calls == 1


def test_an_async_probe_of_a_hung_check_ends_in_time(gate):
    """And what the loop left behind does no harm when the check ends after the loop has."""
    health = Health()
    health.add("db", gate, timeout=0.1)
    began = time.monotonic()
    assert asyncio.run(health.aready()).checks["db"].reason == "timeout"
    assert time.monotonic() - began < 0.1 + MARGIN
    gate.open.set()
    assert gate.left.acquire(timeout=5)
    until(lambda: health.ready().word == "pass")


def test_a_cancelled_probe_leaves_the_run_to_the_others(gate):
    """One client goes away; the other still gets the answer of the same run."""
    health = Health()
    health.add("db", gate)

    async def story() -> str:
        gone, patient = asyncio.create_task(health.aready()), asyncio.create_task(health.aready())
        await asyncio.sleep(0.01)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        gate.open.set()
        return (await patient).word

    assert asyncio.run(story()) == "pass"
    assert gate.calls == 1


def test_an_outcome_is_good_for_its_ttl_counted_from_its_end():
    """Within a second nothing is asked again; after it once."""
    clock = FakeClock()
    health, calls = Health(clock=clock), []

    def slow() -> None:
        calls.append(1)
        clock.advance(0.1)

    health.add("db", slow, ttl=1.0)
    health.ready()
    clock.advance(0.99)
    health.ready()
    assert len(calls) == 1
    clock.advance(0.02)
    health.ready()
    assert len(calls) == 2


def test_a_failure_is_kept_as_long_as_a_success():
    """A dependency in trouble is not asked more often."""
    clock = FakeClock()
    health, check = Health(clock=clock), Switch()
    check.answer = OSError("down")
    health.add("db", check)
    for _ in range(10):
        assert health.ready().word == "fail"
    assert check.calls == 1


class Wordless(Exception):
    """An error that ends the process when its text is asked for."""

    def __str__(self) -> str:
        raise SystemExit


def test_a_check_whose_error_cannot_be_told_fails_and_runs_again():
    """The run ends, with its class for a text, and the next probe that may begins another."""
    calls = []

    def check() -> None:
        calls.append(1)
        raise Wordless

    health = Health(deadline=20)
    health.add("odd", check, timeout=20, ttl=0)
    for _ in range(2):
        assert health.ready().checks["odd"].reason == "error"
    assert len(calls) == 2


def test_a_result_that_is_none_fails_at_once():
    """A status that is a mere word is the check's mistake, and no timeout."""
    health = Health(deadline=20)
    health.add("odd", lambda: Result("pass"), timeout=20)
    assert health.ready().checks["odd"].reason == "invalid"


# -------------------------------------------------------------------------------------------------------- draining


def test_drain_withdraws_readiness_at_once_and_nothing_else(told):
    """Ready is 503 without a check being asked, live stays 200, and the log has it once."""
    health, check = Health(), Switch()
    health.add("db", check)
    health.drain()
    health.drain()
    report = health.ready()
    assert (report.http_status, report.word, report.draining, check.calls) == (503, "fail", True, 0)
    assert json.loads(report.to_json(details=True))["notes"] == ["draining"]
    assert (health.live().http_status, health.startup().http_status) == (200, 200)
    assert len(told.of(Draining)) == 1


def test_drain_is_seen_by_a_probe_under_way(gate):
    """A report that was begun before and ends after is not ready."""
    health = Health()
    health.add("db", gate)
    with ThreadPoolExecutor(1) as threads:
        probe = threads.submit(health.ready)
        assert gate.inside.acquire(timeout=5)
        health.drain()
        gate.open.set()
        assert probe.result().http_status == 503


# ------------------------------------------------------------------------------------------------------- at worst


def unwell(kind: str, gate: Gate) -> object:
    """A check that does what nobody wishes for."""
    error = OSError("10.0.0.7 said no")
    answers = {"hangs": gate, "raises": lambda: (_ for _ in ()).throw(error), "fails": lambda: False}
    return answers[kind]


@pytest.mark.parametrize("kind", ["hangs", "raises", "fails"])
@pytest.mark.parametrize("by", ["check", "keyword"])
def test_a_check_is_told_as_no_worse_than_it_may_be(kind, by, gate):
    """Whether it hangs, raises or fails: a critical local check that may only warn takes nobody out."""
    health, run = Health(), unwell(kind, gate)
    if by == "check":
        health.add("date", Check(run, at_worst=Status.WARN), timeout=0.05)
    else:
        health.add("date", run, at_worst=Status.WARN, timeout=0.05)
    for _ in range(2):
        report = health.ready()
        assert (report.http_status, report.word, report.checks["date"].status) == (200, "warn", Status.WARN)
        assert report.checks["date"].reason == {"hangs": "timeout", "raises": "error", "fails": "failed"}[kind]


def test_what_cannot_be_started_is_told_as_no_worse_than_it_may_be(monkeypatch):
    """No thread to spare, or no time: it warns."""

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    health = Health()
    health.add("date", Check(lambda: True, at_worst=Status.WARN))
    with monkeypatch.context() as patched:
        patched.setattr("resilient.health._lane.start_thread", refuse)
        assert (health.ready().word, health.ready().checks["date"].reason) == ("warn", "overloaded")
    hasty = Health(clock=Crawling())
    for number in range(100):
        hasty.add(f"date{number}", lambda: True, at_worst=Status.WARN, ttl=60)
    assert hasty.ready().checks["date99"].reason == "overloaded"
    assert hasty.ready().http_status == 200


def test_the_keyword_wins_over_what_the_check_says_of_itself():
    """Whoever wants to be taken out by it may say so."""
    health = Health()
    health.add("date", Check(lambda: False, at_worst=Status.WARN), at_worst=Status.FAIL)
    assert health.ready().http_status == 503


@pytest.mark.parametrize("worst", [Status.PASS, "warn", 1])
def test_a_failure_cannot_be_hidden(worst):
    """It is told as a warning at least; anything but a status is refused where it is written."""
    with pytest.raises(ConfigurationError):
        Check(lambda: True, at_worst=worst)
    with pytest.raises(ConfigurationError):
        Health().add("date", lambda: True, at_worst=worst)


# ------------------------------------------------------------------------------------------------------------- told


def test_the_log_has_each_change_once(told):
    """Twenty failing probes are one line; so is the recovery, and a first pass is none."""
    clock = FakeClock()
    health, check = Health(clock=clock), Switch()
    health.add("db", check, ttl=0)
    health.ready()
    settle(health)
    assert told.events == ()
    check.answer = OSError("10.0.0.7 said no")
    for _ in range(20):
        health.ready()
    check.answer = None
    health.ready()
    settle(health)
    worse, better = told.of(CheckChanged)
    assert isinstance(worse, CheckWorsened)
    assert (worse.check, worse.before, worse.status, worse.severity) == ("db", "pass", "fail", 3)
    assert worse.error == "builtins.OSError: 10.0.0.7 said no"
    assert not isinstance(better, CheckWorsened)
    assert (better.before, better.status, better.error) == ("fail", "pass", None)


def test_a_timeout_is_told_once(told, gate):
    """A hung check makes one line however often it is asked for."""
    health = Health()
    health.add("db", gate, timeout=0.05)
    for _ in range(5):
        health.ready()
    settle(health)
    assert [(each.status, each.reason) for each in told.of(CheckChanged)] == [("fail", "timeout")]


def test_close_lets_go_of_what_the_checks_hold():
    """Each check's close is called."""
    closed: list[str] = []
    health = Health()
    health.add("a", Check(lambda: True, close=lambda: closed.append("a")))
    health.add("b", lambda: True)
    health.close()
    assert closed == ["a"]


def test_what_cannot_be_closed_keeps_nothing_else_open():
    """All are closed, in their order; then it is raised."""
    closed: list[str] = []

    def stuck() -> None:
        closed.append("stuck")
        raise OSError("no")

    health = Health()
    health.add("a", Check(lambda: True, close=stuck))
    health.add("b", Check(lambda: True, close=lambda: closed.append("b")))
    with pytest.raises(OSError, match="no"):
        health.close()
    assert closed == ["stuck", "b"]


class Blocked:
    """A log over a network that is down: it blocks until it is let go."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.heard: list[tuple[str, str]] = []

    def __call__(self, event: CheckChanged) -> None:
        assert self.open.wait(20)
        self.heard.append((event.check, event.status))


@pytest.fixture
def log() -> Iterator[Blocked]:
    made = Blocked()
    end = events.subscribe(made, kinds=[CheckChanged])
    yield made
    end()
    made.open.set()


@pytest.mark.parametrize("kind", ["hangs", "raises", "cannot start"])
@pytest.mark.parametrize("face", ["sync", "async"])
def test_nobody_waits_for_the_log(kind, face, gate, log, monkeypatch):
    """Whatever changes, the report is there while the log is not; all is told in its order, once."""
    health, second = Health(), Switch()
    health.add("db", Switch() if kind == "cannot start" else unwell(kind, gate), timeout=0.1, ttl=60)
    health.add("mail", second, ttl=0)
    second.answer = False

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    def ask() -> str:
        return health.ready().word if face == "sync" else asyncio.run(health.aready()).word

    with monkeypatch.context() as patched:
        if kind == "cannot start":
            patched.setattr("resilient.health._lane.start_thread", refuse)
        began = time.monotonic()
        assert ask() == "fail"
        assert time.monotonic() - began < 5, "it waited for the log"
    assert log.heard == []
    second.answer = True
    ask()
    log.open.set()
    settle(health)
    assert sorted(log.heard[:2]) == [("db", "fail"), ("mail", "fail")]
    mended = [("mail", "pass")] if kind != "cannot start" else [("db", "pass"), ("mail", "pass")]
    assert sorted(log.heard[2:]) == mended


def test_the_log_is_told_when_there_are_threads_again(told, monkeypatch):
    """With none to spare it waits; nothing is lost."""

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    health, db = Health(), Switch()
    health.add("db", db, ttl=0)
    db.answer = False
    with monkeypatch.context() as patched:
        patched.setattr("resilient.health._teller.start_thread", refuse)
        health.ready()
        settle(health)
        assert told.of(CheckChanged) == ()
    db.answer = True
    health.ready()
    settle(health)
    assert [each.status for each in told.of(CheckChanged)] == ["fail", "pass"]


# -------------------------------------------------------------------------------------------------- a crowd of probes


def test_a_crowd_of_probes_does_not_take_all_threads(gate):
    """32 threads, 40 probes of a check that begins to hang: four wait for it, the others tell what was known."""
    clock = FakeClock()
    health, hangs = Health(clock=clock), threading.Event()
    health.add("db", lambda: gate() if hangs.is_set() else None, timeout=0.8)
    assert health.ready().word == "pass"
    hangs.set()
    clock.advance(1.1)
    with ThreadPoolExecutor(32) as threads:
        first = threads.submit(health.ready)
        assert gate.inside.acquire(timeout=5)
        probes = [first, *(threads.submit(health.ready) for _ in range(39))]
        ordinary = threads.submit(lambda: "hello")
        assert ordinary.result(5) == "hello"
        until(lambda: sum(each.done() for each in probes) >= 36 or gate.open.is_set(), seconds=0.6)
        assert {each.result().word for each in probes if each.done()} == {"pass"}
        gate.open.set()
        assert [each.result().word for each in probes] == ["pass"] * 40
    assert gate.calls == 1


def test_what_a_crowd_is_told_is_hardly_stale(gate):
    """What is older than a run takes is told to nobody: all wait for the truth."""
    clock = FakeClock()
    health, hangs = Health(clock=clock), threading.Event()
    health.add("db", lambda: gate() if hangs.is_set() else None, timeout=0.2, ttl=1.0)
    assert health.ready().word == "pass"
    hangs.set()
    clock.advance(1.3)
    with ThreadPoolExecutor(10) as threads:
        probes = [threads.submit(health.ready) for _ in range(10)]
        assert {each.result().checks["db"].reason for each in probes} == {"timeout"}


def test_nobody_waits_for_a_run_that_hangs(gate):
    """A crowd that comes after its time is told the timeout, not what was known before."""
    clock = FakeClock()
    health, hangs = Health(clock=clock), threading.Event()
    health.add("db", lambda: gate() if hangs.is_set() else None, timeout=0.1, ttl=60)
    assert health.ready().word == "pass"
    hangs.set()
    clock.advance(60.1)
    assert health.ready().checks["db"].reason == "timeout"
    clock.advance(0.1)
    assert {health.ready().checks["db"].reason for _ in range(10)} == {"timeout"}


# ------------------------------------------------------------------------------------------------- out of the ordinary


class Crawling(FakeClock):
    """A machine so slow that each look at the clock takes a twentieth of a second."""

    def monotonic(self) -> float:
        self.advance(0.05)
        return super().monotonic()


def test_checks_that_cannot_be_begun_in_time_are_told_and_not_waited_for():
    """With thousands of them, or on a machine with no time to spare, the report ends all the same; none is counted."""
    clock, runs = Crawling(), []
    health = Health(clock=clock, details="always")
    for number in range(100):
        health.add(f"check{number}", lambda: runs.append(1), ttl=60)
    report = health.ready()
    assert report.http_status == 503
    reasons = [each.reason for each in report.checks.values()]
    begun = sum(lane.history.runs for lane in health._lanes().values())
    assert 0 < begun < 20
    assert set(reasons[begun:]) == {"overloaded"}
    assert reasons[0] != "overloaded"
    assert health._lanes()["check99"].streak.told is None


@pytest.mark.parametrize("wall", [-1e12, 1e18, float("inf"), float("nan")])
def test_a_clock_that_is_out_of_every_calendar_breaks_no_report(wall):
    """The time is left out; the rest is told."""
    health = Health(clock=FakeClock(wall=wall), details="always", page=True, metrics=True)
    health.add("db", lambda: False)
    for path in ("/health", "/health/all", "/health/page", "/health/metrics"):
        assert b"db" in probe(health, path).body


def test_a_check_that_forks_harms_nobody():
    """The child is the check's own affair."""

    def forks() -> None:
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)

    health = Health()
    health.add("forks", forks, ttl=0)
    assert [health.ready().word for _ in range(3)] == ["pass"] * 3


def test_draining_before_the_start_is_over():
    """Readiness stays withdrawn when the start comes to its end; liveness is as it was."""
    health, warm = Health(), []
    health.add("warm", lambda: bool(warm), views=["startup"], ttl=0)
    assert health.ready().http_status == 503
    health.drain()
    warm.append(1)
    assert (health.startup().http_status, health.ready().http_status, health.live().http_status) == (200, 503, 200)


def test_a_start_that_a_signal_interrupted_leaves_the_check_free(monkeypatch):
    """Whatever a signal's handler raises while a run is started, the next report runs the check, and once."""
    started: list[threading.Thread] = []
    ran: list[int] = []
    real = resilient.health._lane.start_thread

    def interrupted(*args, **options):
        monkeypatch.setattr("resilient.health._lane.start_thread", real)
        started.append(real(*args, **options))
        raise KeyboardInterrupt

    health = Health()
    health.add("db", lambda: bool(ran.append(1)) or True)
    monkeypatch.setattr("resilient.health._lane.start_thread", interrupted)
    with pytest.raises(KeyboardInterrupt):
        health.ready()
    started[0].join(10)
    assert health.ready().status is Status.PASS
    assert ran == [1]


def test_a_start_that_a_signal_interrupted_leaves_the_log_and_questions_free(monkeypatch):
    """What is told next is told, together with what was told before; what is asked next is asked."""

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    teller, aside = Teller(), Aside("age", lambda: 3.0, keep=60.0, clock=SYSTEM)
    told: list[events.Event] = []
    unsubscribe = events.subscribe(told.append, kinds=[Draining])
    with monkeypatch.context() as patched:
        patched.setattr("resilient.health._teller.start_thread", interrupted)
        patched.setattr("resilient.health.checks._aside.start_thread", interrupted)
        with pytest.raises(KeyboardInterrupt):
            teller.tell(Draining())
        with pytest.raises(KeyboardInterrupt):
            aside.begin()
        assert aside.known(within=5.0) is None
    teller.tell(Draining())
    aside.begin()
    assert teller.finish(10)
    assert aside.known(within=10.0) == (3.0,)
    assert len(told) == 2
    unsubscribe()
