"""The fixtures that pytest finds by itself once the library is installed.

``resilient_clock``, ``resilient_cache``, ``resilient_sqs`` and ``resilient_s3`` give each test a fake of its own. All
of one test tell the time by the same clock, so that ``resilient_clock.advance(60)`` makes entries of the cache expire,
messages of the queue visible again, and signed links stale.

This module is loaded in every run of pytest in the environment, so it imports nothing but pytest until a fixture is
used.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from resilient.testing.cache import MemoryCache
    from resilient.testing.clock import FakeClock
    from resilient.testing.s3 import FakeS3
    from resilient.testing.sqs import FakeSqs

__all__ = ["resilient_cache", "resilient_clock", "resilient_s3", "resilient_sqs"]


@pytest.fixture
def resilient_clock() -> FakeClock:
    """A clock that moves only when told to, or when something sleeps on it."""
    from resilient.testing.clock import FakeClock

    return FakeClock()


@pytest.fixture
def resilient_cache(resilient_clock: FakeClock) -> Iterator[MemoryCache]:
    """An empty cache in memory, on the clock of the test; closed after it."""
    from resilient.testing.cache import MemoryCache

    yield from _closing(MemoryCache(clock=resilient_clock))


@pytest.fixture
def resilient_sqs(resilient_clock: FakeClock) -> Iterator[FakeSqs]:
    """An SQS client with no queues, in memory, on the clock of the test."""
    from resilient.testing.sqs import FakeSqs

    yield from _closing(FakeSqs(clock=resilient_clock))


@pytest.fixture
def resilient_s3(resilient_clock: FakeClock) -> Iterator[FakeS3]:
    """An S3 client with no buckets, in memory, on the clock of the test."""
    from resilient.testing.s3 import FakeS3

    yield from _closing(FakeS3(clock=resilient_clock))


def _closing(value: Any) -> Iterator[Any]:
    yield value
    close = getattr(value, "close", None)
    if close is not None:
        close()
