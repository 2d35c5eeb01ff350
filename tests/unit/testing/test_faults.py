import asyncio
import threading

import pytest

from resilient.errors import ConfigurationError
from resilient.policy import Breaker, Pipeline, Retry
from resilient.testing import faults
from resilient.testing.clock import FakeClock


@faults.point("t.sync")
def work(value=1):
    return value


@faults.point("t.async")
async def awork(value=1):
    return value


def both(value=1):
    return work(value), asyncio.run(awork(value))


def test_inert_unless_armed():
    """A point that is not armed does nothing, also while another is."""
    with faults.error("t.elsewhere", OSError):
        assert both() == (1, 1)
    assert both(2) == (2, 2)


@pytest.mark.parametrize("point", ["t.sync", "t.async"])
def test_error(point):
    """An armed error strikes as often as told, after as many calls as told, and is counted."""
    call = work if point == "t.sync" else lambda: asyncio.run(awork())
    with faults.error(point, ConnectionResetError("boom"), after=1, times=1) as fault:
        assert call() == 1
        with pytest.raises(ConnectionResetError, match="boom"):
            call()
        assert call() == 1
    assert (fault.calls, fault.hits) == (3, 1)


def test_result():
    """An armed result replaces the call, also with None."""
    with faults.result("t.sync", None), faults.result("t.async", 7):
        assert both() == (None, 7)


def test_latency():
    """An armed delay sleeps on its clock and then makes the call."""
    clock = FakeClock()
    with faults.latency("t.sync", 3, clock=clock), faults.latency("t.async", 4, clock=clock):
        assert both() == (1, 1)
    assert [seconds for seconds in clock.slept if seconds] == [3, 4]


def test_several_at_one_point():
    """Faults at one point strike in the order in which they were armed, and are disarmed one by one."""
    clock = FakeClock()
    with faults.latency("t.sync", 3, clock=clock):
        with faults.result("t.sync", "late"):
            assert work() == "late"
        assert work() == 1
    assert work() == 1
    assert clock.slept == [3, 3]


def test_strikes_exactly_as_often_in_threads():
    """Threads together are hit as often as told."""
    hit = []
    with faults.result("t.sync", "hit", times=10):
        threads = [threading.Thread(target=lambda: hit.extend(work() for _ in range(20))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert hit.count("hit") == 10


@pytest.mark.parametrize("options", [{"after": -1}, {"times": 0}, {"seconds": -1}])
def test_nonsense_is_refused(options):
    """Numbers that mean nothing are refused."""
    with pytest.raises(ConfigurationError):
        faults.Fault("x", **options)


def test_with_a_pipeline():
    """Faults at a point are seen by the pipeline round it."""
    clock = FakeClock()
    pipeline = Pipeline("t", Retry(attempts=3), Breaker(), clock=clock)
    with faults.error("t.sync", ConnectionRefusedError, times=2):
        assert pipeline.call(work) == 1
    assert pipeline.stats().retried == 2


def test_no_waiting_in_blocks_that_overlap():
    """Blocks of several threads may end in any order: waiting is back when the last has ended."""
    clock = FakeClock()
    pipeline = Pipeline("t", Retry(wait=lambda state: 9.0), clock=clock)
    first, second = faults.no_waiting(), faults.no_waiting()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    with faults.error("t.sync", ConnectionRefusedError, times=1):
        pipeline.call(work)
    assert clock.slept == []
    second.__exit__(None, None, None)
    with faults.error("t.sync", ConnectionRefusedError, times=1):
        pipeline.call(work)
    assert clock.slept == [9.0]


def test_no_waiting_is_put_back():
    """The switch is as it was after the block, also after an error."""
    clock = FakeClock()
    pipeline = Pipeline("t", Retry(wait=lambda state: 9.0), clock=clock)
    with pytest.raises(KeyError), faults.no_waiting(), faults.no_waiting():
        raise KeyError
    with faults.error("t.sync", ConnectionRefusedError, times=1):
        pipeline.call(work)
    assert clock.slept == [9.0]
