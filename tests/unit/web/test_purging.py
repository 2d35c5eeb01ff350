"""A purger tells a shared cache what has changed: soon, together, again, and until it is taken."""

from __future__ import annotations

import threading

import pytest

from resilient import events
from resilient.cache import Cache
from resilient.errors import ConfigurationError
from resilient.testing import FakeClock
from resilient.web.caching import token
from resilient.web.purging import PurgeFailed, Purger


class Proxy:
    """A shared cache that takes names, unless it is told to fail."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.fails = 0
        self._came = threading.Condition()

    def __call__(self, names: list[str]) -> None:
        with self._came:
            if self.fails:
                self.fails -= 1
                self._came.notify_all()
                raise ConnectionError
            self.calls.append(list(names))
            self._came.notify_all()

    def wait(self, calls: int) -> list[list[str]]:
        with self._came:
            assert self._came.wait_for(lambda: len(self.calls) >= calls, 20)
            return self.calls


@pytest.fixture
def cache():
    with Cache(namespace="shop", ttl=100) as made:
        yield made


def test_names_are_told_soon_and_again(cache):
    """What has changed is told at once, and once more for pages that were being made of the old value."""
    proxy = Proxy()
    purger = Purger(cache, proxy, again=0.01)
    cache.set("a", 1)
    assert proxy.wait(2)[:2] == [["shop:a"], ["shop:a"]]
    assert purger.pending() == 0
    purger.close()


def test_what_is_not_taken_is_told_again(cache):
    """A shared cache that refuses is asked again, and each refusal is an event."""
    proxy, failed = Proxy(), []
    proxy.fails = 2
    end = events.subscribe(failed.append, kinds=(PurgeFailed,))
    purger = Purger(cache, proxy, again=0)
    try:
        cache.invalidate_tags("users")
        assert proxy.wait(1) == [[token("shop:tag:{users}")]]
        assert [(each.cache, each.error) for each in failed] == [("shop", "ConnectionError")] * 2
    finally:
        purger.close()
        end()


def test_closing_tells_what_waits(cache):
    """At the end what waits is told once; what is changed later is nobody's business."""
    proxy = Proxy()
    purger = Purger(cache, proxy, again=0, batch=2)
    with purger._lock:  # its thread does not come to it
        purger._thread = threading.current_thread()
    for key in "abc":
        cache.set(key, 1)
    assert purger.pending() == 3
    purger.close()
    purger.close()
    assert proxy.calls == [["shop:a", "shop:b"], ["shop:c"]]
    cache.set("d", 1)
    assert len(proxy.calls) == 2


def test_too_many_names_are_everything(cache):
    """More names than may wait are told as the one that all pages bear."""
    proxy = Proxy()
    purger = Purger(cache, proxy, again=0, size=2, clock=FakeClock())
    with purger._lock:
        purger._thread = threading.current_thread()
    cache.set_many({"a": 1, "b": 2, "c": 3})
    purger.close()
    assert proxy.calls == [[token(cache.everything)]]


def test_wrong_numbers_are_refused(cache):
    """Settings without a meaning are told where they are written."""
    for wrong in ({"again": -1}, {"size": 0}, {"batch": 0}):
        with pytest.raises(ConfigurationError):
            Purger(cache, print, **wrong)
