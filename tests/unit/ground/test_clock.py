"""The system clock."""

from __future__ import annotations

import asyncio
import time

from resilient.clock import SYSTEM, Clock


def test_the_system_clock_is_a_clock() -> None:
    """It satisfies the protocol, so that any part takes it."""
    assert isinstance(SYSTEM, Clock)
    assert repr(SYSTEM) == "SystemClock()"


def test_it_tells_the_machines_time() -> None:
    """Its readings are those of the time module."""
    assert abs(SYSTEM.wall() - time.time()) < 1
    before = time.monotonic()
    assert before <= SYSTEM.monotonic() <= time.monotonic()


def test_it_sleeps_in_both_ways() -> None:
    """sleep blocks and asleep suspends, for at least as long as asked."""
    begun = time.monotonic()
    SYSTEM.sleep(0.01)
    asyncio.run(SYSTEM.asleep(0.01))
    assert time.monotonic() - begun >= 0.02
