"""What one test has still to tell is not heard by the next."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest


def _busy(name: str) -> bool:
    return any(each.name.startswith(name) for each in threading.enumerate())


@pytest.fixture(autouse=True)
def told_to_the_end() -> Iterator[None]:
    """Runs that were let go at the end of a test end, and the log has what they changed, before the next one begins."""
    yield
    for name, seconds in (("resilient-health", 0.3), ("resilient-health-log", 5.0)):
        end = time.monotonic() + seconds  # a run may be left hanging on purpose, the log never is
        while _busy(name) and time.monotonic() < end:
            time.sleep(0.001)
