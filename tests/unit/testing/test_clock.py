import asyncio
import threading

import pytest

from resilient.clock import Clock
from resilient.errors import InvalidInput
from resilient.testing.clock import FakeClock


def test_is_a_clock():
    """It can be given wherever a clock is asked for."""
    assert isinstance(FakeClock(), Clock)


def test_readings_move_together():
    """Advancing moves the monotonic reading and the wall clock by the same time."""
    clock = FakeClock(start=5, wall=100)
    clock.advance(2.5)
    assert (clock.monotonic(), clock.wall()) == (7.5, 102.5)
    assert repr(clock) == "FakeClock(monotonic=7.5, wall=102.5)"


def test_sleeping_takes_no_time():
    """A sleep moves the clock and is noted; a negative one is none."""
    clock = FakeClock(start=0)
    clock.sleep(3)
    clock.sleep(-1)
    assert (clock.monotonic(), clock.slept) == (3, [3, -1])


def test_async_sleep_lets_others_run():
    """A sleeping task yields, so that others come on."""
    clock = FakeClock(start=0)
    order = []

    async def sleeper():
        await clock.asleep(10)
        order.append("sleeper")

    async def other():
        order.append("other")

    async def main():
        await asyncio.gather(sleeper(), other())

    asyncio.run(main())
    assert order == ["other", "sleeper"]
    assert clock.monotonic() == 10


@pytest.mark.parametrize("seconds", [-1, float("nan")])
def test_time_does_not_run_backwards(seconds):
    """It cannot be turned back."""
    with pytest.raises(InvalidInput, match="backwards"):
        FakeClock().advance(seconds)


def test_threads_share_it():
    """Sleeps of many threads add up exactly."""
    clock = FakeClock(start=0)
    threads = [threading.Thread(target=lambda: [clock.sleep(1) for _ in range(500)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clock.monotonic() == 4000
    assert len(clock.slept) == 4000
