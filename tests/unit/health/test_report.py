"""What leaves the process, and what never does."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilient.health import Health, MemoryBoard, Peers, Result, Status
from resilient.health._core import Outcome
from resilient.health._report import CheckReport, Report
from resilient.health.answer import PATHS, aprobe, probe
from resilient.health.lines import exit_code, lines
from resilient.policy import deadline
from resilient.testing.clock import FakeClock

SECRET = st.text(st.characters(min_codepoint=0x3B1, max_codepoint=0x3C9), min_size=4, max_size=30)  # Greek: ours is not


class Weird(Exception):
    """An exception whose every face holds the secret, and may itself break."""

    def __init__(self, secret: str, breaks: bool) -> None:
        super().__init__(secret, f"Access denied for user '{secret}'@'10.0.0.7'")
        self.secret, self.breaks = secret, breaks
        self.reason = self.status = self.output = secret

    def __str__(self) -> str:
        if self.breaks:
            raise ValueError(self.secret)
        return f"mysql://{self.secret}:{self.secret}@db\nSELECT '{self.secret}'"

    __repr__ = __str__


def raising(error: object):
    def check() -> object:
        if isinstance(error, BaseException):
            raise error
        return error

    return check


@settings(deadline=None)
@given(SECRET, st.booleans(), st.sampled_from(["raise", "cause", "reason", "value", "return", "builtin"]))
def test_nothing_of_an_exception_ever_leaves(secret, breaks, way):
    """Whatever a check raises or returns, no form of the report holds a piece of it, with details or without."""
    error: object = Weird(secret, breaks)
    if way == "cause":
        try:
            raise OSError(secret) from Weird(secret, breaks)
        except OSError as caught:
            error = caught
    elif way == "builtin":
        error = ConnectionRefusedError(111, secret)
    elif way == "return":
        error = secret

    def check() -> object:
        if way == "reason":
            return Result.fail(secret)
        if way == "value":
            return Result.ok(**{secret: 1.0})
        return raising(error)()

    board = MemoryBoard()
    health = Health(clock=FakeClock(), peers=Peers(board, service="shop"), page=True, metrics=True, details="always")
    health.add("db", check, shared="peers", scope="shared", views=["ready"])
    health.add("file", check)
    report = health.ready()
    shown = [report.to_json(), report.to_json(details=True), report.word, *lines(report), repr(report)]
    for path in (*PATHS, "/health/page", "/health/metrics", "/health/all"):
        given_ = probe(health, path)
        shown += [given_.body.decode(), str(given_.headers)]
        assert given_.status in {200, 503}
    health._party.lane.wait(health._party.lane.begin(anew=True), time.monotonic() + 5)
    shown += [str(board._words)]
    assert report.http_status == 503
    assert not any(secret in each for each in shown)
    assert report.checks["db"].reason in {"error", "unavailable", "invalid", "transient"}


def test_the_text_of_an_exception_is_in_the_log(caplog):
    """There it is, on one line, where the operators look."""
    health = Health()
    health.add("db", raising(OSError("10.0.0.7\nsaid no")))
    with caplog.at_level(logging.INFO, "resilient.health"):
        health.ready()
        health.ready()
        assert health._teller.finish(5)
    (record,) = caplog.records
    assert "10.0.0.7 said no" in record.getMessage()
    assert record.levelno == logging.WARNING


def test_the_public_body_is_the_status_alone_and_always_the_same():
    """Without details nothing changes from probe to probe while the status does not."""
    clock = FakeClock()
    health = Health(clock=clock)
    health.add("db", lambda: Result.ok(depth=clock.monotonic()), ttl=0)
    first = health.ready().to_json()
    clock.advance(5)
    assert health.ready().to_json() == first == '{"status":"pass"}'


def test_the_details_follow_the_draft():
    """application/health+json, draft 06: status, and for each measurement a list of objects."""
    clock = FakeClock(wall=1_750_000_000.25)
    health = Health(clock=clock)
    health.add("jobs", lambda: Result.warn("deep", depth=1200))
    body = json.loads(health.ready().to_json(details=True))
    assert body == {
        "status": "warn",
        "checks": {
            "jobs:responseTime": [
                {
                    "componentType": "component",
                    "status": "warn",
                    "observedValue": 0.0,
                    "observedUnit": "ms",
                    "time": "2025-06-15T15:06:40.250+00:00",
                    "output": "deep",
                }
            ],
            "jobs:depth": [{"componentType": "component", "observedValue": 1200, "status": "warn"}],
        },
    }


def one_check(outcome: Outcome, **more) -> list[dict[str, object]]:
    """The entries of a report on one check, in their order."""
    status = outcome.result.status
    report = Report("ready", status, {"db": CheckReport("db", "datastore", outcome, status, status, **more)})
    return [entry for (entry,) in json.loads(report.to_json(details=True))["checks"].values()]


def test_the_details_say_that_the_instance_is_on_its_way_out():
    """As a note, and only with the details."""
    report = Report("ready", Status.FAIL, draining=True)
    assert report.to_json(details=True) == '{"status":"fail","notes":["draining"],"checks":{}}'
    assert report.to_json() == '{"status":"fail"}'


def test_a_response_time_is_told_in_tenths_of_milliseconds():
    """What is finer is noise."""
    (entry,) = one_check(Outcome(Result(), 0.0, 0.01234))
    assert (entry["observedValue"], entry["observedUnit"]) == (12.3, "ms")


@pytest.mark.parametrize("fault", ["local", "shared"])
def test_the_details_say_whose_fault_it_is_where_that_is_known(fault):
    """Where nobody has judged it, nothing is said."""
    failed = Outcome(Result.fail("refused"), 0.0, 0.0)
    assert one_check(failed, fault=fault)[0]["fault"] == fault
    assert "fault" not in one_check(failed)[0]


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_a_measurement_that_is_not_finite_is_told_as_null(value):
    """JSON has no word for it, and readers other than Python's refuse one."""
    response_time, depth = one_check(Outcome(Result.ok(depth=value), 0.0, 0.0))
    assert depth["observedValue"] is None
    assert response_time["status"] == "pass"


def test_a_check_that_has_not_ended_has_no_time():
    """An outcome that never was is not dated."""
    clock, told = FakeClock(), threading.Event()
    health = Health(clock=clock)

    def slow() -> None:
        clock.advance(0.6)
        assert told.wait(30)

    health.add("slow", slow)
    try:
        body = json.loads(health.ready().to_json(details=True))
        assert "time" not in body["checks"]["slow:responseTime"][0]
    finally:
        told.set()


def test_reports_are_immutable():
    """A report may be handed around."""
    report = Health().ready()
    with pytest.raises(TypeError):
        report.checks["x"] = None  # type: ignore[index]
    with pytest.raises(AttributeError):
        report.status = None  # type: ignore[misc,assignment]


@pytest.mark.parametrize("path", list(PATHS))
def test_no_answer_may_be_kept(path):
    """Every response says no-store and how long it is."""
    given_ = probe(Health(), path, accept="*/*")
    assert dict(given_.headers)["Cache-Control"] == "no-store"
    assert dict(given_.headers)["Content-Length"] == str(len(given_.body))
    assert given_.content_type.startswith("application/health+json" if path == "/health" else "text/plain")


@pytest.mark.parametrize(
    ("details", "said", "seen"),
    [
        ("never", True, False),
        ("always", False, True),
        ("authorized", True, True),
        ("authorized", False, False),
        ("authorized", None, False),
        ("authorized", "yes", False),
        ("authorized", 1, False),
    ],
)
def test_details_are_seen_by_whom_the_policy_names(details, said, seen):
    """Only True opens the door, and only where the policy asks at all."""
    health = Health(details=details)
    assert (b"checks" in probe(health, "/health", leave=lambda: said).body) is seen
    assert (b"checks" in asyncio.run(aprobe(health, "/health", leave=lambda: said)).body) is seen


def test_a_door_that_breaks_stays_shut():
    """An authoriser that raises has said no."""
    health = Health(details="authorized")
    assert probe(health, "/health", leave=raising(KeyError("user"))).body == b'{"status":"pass"}'
    assert asyncio.run(aprobe(health, "/health", leave=raising(KeyError("user")))).body == b'{"status":"pass"}'


def test_nobody_is_asked_for_leave_where_no_details_are_shown():
    """One word is for everybody, and a policy that has decided needs no answer."""
    for details, path in (("authorized", "/readyz"), ("never", "/health"), ("always", "/health")):
        probe(Health(details=details), path, leave=lambda: pytest.fail("it was asked"))


def test_who_is_asked_for_leave_has_what_the_report_has_left():
    """A report and its authoriser end within the report's deadline; one that obeys it no longer finds any time."""
    clock = FakeClock()
    health, left = Health(deadline=0.8, details="authorized", clock=clock), []
    health.add("db", lambda: clock.advance(0.3))
    probe(health, "/health", leave=lambda: left.append(deadline.remaining()))
    assert 0.4 < left[0] <= 0.5


def test_an_async_authoriser_that_hangs_is_cancelled_and_has_said_no():
    """The answer comes within the deadline, without the details."""

    async def hangs() -> bool:
        await asyncio.sleep(30)
        return True

    health = Health(deadline=0.1, details="authorized")
    health.add("db", lambda: True)
    began = time.monotonic()
    assert asyncio.run(aprobe(health, "/health", leave=hangs)).body == b'{"status":"pass"}'
    assert time.monotonic() - began < 5.0


@pytest.mark.parametrize("path", [*PATHS, "/health/live", "/health/page"])
def test_other_methods_are_refused_with_those_that_are_taken(path):
    """405 names what is allowed, and no check is run for it."""
    health = Health(page=True, details="always")
    health.add("db", lambda: pytest.fail("it was run"))
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "get", ""):
        given_ = probe(health, path, method)
        assert (given_.status, dict(given_.headers)["Allow"]) == (405, "GET, HEAD")
        assert asyncio.run(aprobe(health, path, method)) == given_


@pytest.mark.parametrize("path", [*PATHS, "/health/live", "/health/page"])
def test_head_gets_the_headers_of_get_and_no_body(path):
    """The length told is that of the body that GET would get."""
    health = Health(page=True, details="always", clock=FakeClock())
    full, bare = probe(health, path, "GET"), probe(health, path, "HEAD")
    assert (bare.body, bare.status, bare.headers) == (b"", full.status, full.headers)
    assert asyncio.run(aprobe(health, path, "HEAD")) == bare


def test_people_see_a_line_for_each_check():
    """The answer first, then name, status, time, reason and measurements."""
    health = Health(clock=FakeClock())
    health.add("db", lambda: True)
    health.add("jobs", lambda: Result.warn("deep", depth=12))
    report = health.ready()
    assert lines(report) == [
        "ready: warn",
        "  db    pass        0.0 ms",
        "  jobs  warn        0.0 ms  deep  depth=12",
    ]
    assert exit_code(report) == 0
    health.drain()
    assert lines(health.ready()) == ["ready: fail (draining)"]
    assert exit_code(health.ready()) == 1
