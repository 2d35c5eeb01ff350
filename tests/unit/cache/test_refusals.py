"""A server that answers and refuses is told of: no caller sees it, and no breaker opens."""

from __future__ import annotations

import logging

import pytest
import redis

from resilient import events
from resilient.cache import CacheDown, CacheRefused
from resilient.cache._refusals import Refusals, root_name
from resilient.testing import FakeClock, MemoryCache
from resilient.wire.redis import classify


@pytest.fixture
def seen():
    """What was told."""
    sink = events.MemorySink()
    unsubscribe = events.subscribe(sink, kinds=[CacheRefused, CacheDown])
    yield sink
    unsubscribe()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (redis.AuthenticationError("invalid username-password pair"), "invalid username-password pair"),
        (redis.exceptions.NoPermissionError("this user has no permissions"), "this user has no permissions"),
        (redis.ResponseError("DB index is out of range"), "DB index is out of range"),
        (redis.ReadOnlyError("You can't write against a read only replica."), "You can't write against a read only"),
    ],
    ids=["password", "right", "database", "replica"],
)
def test_what_a_server_refuses_is_told_once_a_minute(error, reason, seen, caplog):
    """As an error, with what the server said; however many calls meet it."""
    clock = FakeClock()
    refusals = Refusals("shop", classify, clock)
    with caplog.at_level(logging.INFO):
        for _ in range(100):
            refusals.note(error)
        clock.advance(61)
        refusals.note(error)
    assert [(each.cache, each.error) for each in seen.events] == [("shop", type(error).__qualname__)] * 2
    assert all(each.reason.startswith(reason) for each in seen.events)
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2


def test_kinds_are_told_apart(seen):
    """A second mistake is not hidden behind the first."""
    refusals = Refusals("shop", classify, FakeClock())
    for error in (redis.AuthenticationError("one"), redis.ResponseError("two"), redis.AuthenticationError("three")):
        refusals.note(error)
    assert [each.reason for each in seen.events] == ["one", "two"]


@pytest.mark.parametrize(
    "error", [redis.ConnectionError("gone"), redis.TimeoutError("late"), redis.exceptions.OutOfMemoryError("full")]
)
def test_an_outage_and_a_full_server_are_no_refusals(error, seen):
    """They have words of their own, or need none."""
    Refusals("shop", classify, FakeClock()).note(error)
    assert list(seen.events) == []


def test_keys_and_values_that_a_server_repeats_are_not_told(seen):
    """A proxy that knows a command not says with which arguments it came."""
    text = "unknown command 'EVALSHA', with args beginning with: 'shop:user:17' 'ada@example.com'\nmore"
    refusals = Refusals("shop", classify, FakeClock())
    refusals.note(redis.ResponseError(text))
    assert [each.reason for each in seen.events] == ["unknown command 'EVALSHA'"]


def test_the_error_of_an_outage_is_the_one_behind_it(seen):
    """The class of the system's error, also where another call found the breaker open."""
    cache = MemoryCache()
    cache.fail()
    for _ in range(5):
        cache.get("k")
    assert [type(each) for each in seen.events] == [CacheDown]
    assert seen.events[0].error not in ("", "CircuitOpen", "Unavailable")
    circle = ValueError()
    circle.__cause__ = circle
    assert root_name(circle) == "ValueError"
