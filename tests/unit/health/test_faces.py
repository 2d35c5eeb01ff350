"""The page for people, the metrics, the paths; and the body against the draft."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import datetime
from html.parser import HTMLParser

import pytest
from prometheus_client.parser import text_string_to_metric_families

from resilient.health import Health, Result
from resilient.health.answer import PATHS, aprobe, probe
from resilient.testing.clock import FakeClock


class Reader(HTMLParser):
    """What a page holds: its tags, their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture
def health():
    clock = FakeClock()
    made = Health(page=True, metrics=True, details="always", clock=clock)
    made.add("db", lambda: clock.monotonic() < 1200, scope="shared", ttl=0)
    made.add("jobs", lambda: Result.warn("deep", depth=1200), ttl=0)
    made.group("reading", ["db"])
    return made


def body(health: Health, path: str) -> str:
    found = probe(health, path)
    assert found is not None
    return found.body.decode()


def test_the_page_shows_each_check_and_its_last_minutes(health):
    """Names, words, measurements, the last failure, and one strip a check with its story in words."""
    for _ in range(30):
        health.report("all")
        health.clock.advance(10)
    text = body(health, "/health/page")
    page = Reader(text)
    assert page.tags.count("svg") == 2
    assert "rect" in page.tags
    for word in ("db", "jobs", "deep", "depth 1200", "fail", "warn", "0 s ago", "reading "):
        assert word in page.text
    assert "db: pass for 3.3 minutes, fail for 1.8 minutes" in page.text


def test_the_page_brings_nothing_and_runs_nothing(health):
    """No script, no link, no picture from elsewhere; the content policy allows none either."""
    given = probe(health, "/health/page")
    page = Reader(given.body.decode())
    assert not {"script", "link", "img", "iframe", "form", "a"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on") or name in {"src", "href", "style"}]
    headers = dict(given.headers)
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert headers["Cache-Control"] == "no-store"


def test_the_page_of_nothing_and_of_a_leaving_instance():
    """There is a page without checks, and it says that the instance drains."""
    health = Health(page=True, details="always")
    assert "There are no checks." in body(health, "/health/page")
    health.drain()
    text = body(health, "/health/page")
    assert "draining" in text
    assert 'ready <b class="fail">fail</b>' in text


def test_the_metrics_are_what_prometheus_reads(health):
    """Every sample parses, and says what the report says."""
    health.report("all")
    given = probe(health, "/health/metrics")
    assert given.content_type.startswith("text/plain; version=0.0.4")
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(given.body.decode())
        for sample in family.samples
    }
    assert samples["resilient_health_view_status", "ready"] == 1
    assert samples["resilient_health_view_status", "reading"] == 0
    assert samples["resilient_health_check_status", "jobs"] == 1
    assert samples["resilient_health_check_value", "depth", "jobs"] == 1200
    assert samples["resilient_health_check_runs_total", "db"] == 2
    assert samples["resilient_health_draining",] == 0
    assert not re.search(r"[^\x00-\x7f]", given.body.decode())


@pytest.mark.parametrize("path", ["/health/page", "/health/metrics"])
def test_page_and_metrics_are_there_for_who_may_see_details_where_they_are_asked_for(health, path):
    """For all others, and where they were not switched on, there is no such path."""
    assert probe(health, path).status == 200
    assert asyncio.run(aprobe(health, path)).status == 200
    health.details = "authorized"
    for leave in (None, lambda: False, lambda: True):
        status = 200 if leave is not None and leave() else 404
        assert probe(health, path, leave=leave).status == status
        assert asyncio.run(aprobe(health, path, leave=leave)).status == status
    assert probe(Health(details="always"), path) is None


def test_every_view_and_group_has_a_path(health):
    """/health/<name> answers as JSON; what is no view is not found."""
    health.details = "never"
    assert json.loads(body(health, "/health/reading")) == {"status": "pass"}
    assert json.loads(body(health, "/health/all")) == {"status": "warn"}
    for path in ("/health/", "/health/nothing", "/reading", "/health/reading/", "/healthz", ""):
        assert probe(health, path) is None
        assert asyncio.run(aprobe(health, path)) is None
    for path in PATHS:
        assert probe(health, path).status == 200


def check_draft(text: str) -> None:
    """Draft 06 of the health check response format, section 3 and 4, as far as it binds what we send."""
    told = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert told["status"] in {"pass", "warn", "fail", "unknown"}
    assert set(told) <= {"status", "notes", "checks"}
    assert all(isinstance(note, str) for note in told.get("notes", []))
    for name, entries in told.get("checks", {}).items():
        component, _, measurement = name.partition(":")
        assert component
        assert measurement
        assert ":" not in measurement
        assert isinstance(entries, list)
        assert entries
        for each in entries:
            assert each["componentType"] in {"component", "datastore", "system"}
            assert each["status"] in {"pass", "warn", "fail", "unknown"}
            assert isinstance(each["observedValue"], int | float | None)
            assert "output" not in each or each["status"] != "pass"
            if "time" in each:
                assert datetime.fromisoformat(each["time"]).tzinfo is not None


def test_every_body_follows_the_draft(health):
    """Whatever the checks say."""
    health.add("slow", lambda: health.clock.advance(1), ttl=0)
    health.add("cold", lambda: Result.unknown("cold"), ttl=0)
    health.add("odd", lambda: Result.ok(lag=float("inf")), ttl=0)
    for advance in (0, 100, 200):
        health.clock.advance(advance)
        for view in health.views:
            for details in (True, False):
                check_draft(health.report(view).to_json(details=details))
    health.drain()
    check_draft(health.ready().to_json(details=True))
