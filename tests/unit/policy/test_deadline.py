import asyncio
import contextvars
import math
import threading

import pytest

from resilient.errors import ConfigurationError, DeadlineExceeded, ResilientError
from resilient.policy import Breaker, Deadline, Pipeline, Retry, deadline
from resilient.runtime import WorkerPool, start_thread


def test_there_is_none_outside():
    """Without a deadline nothing is bound."""
    assert deadline.remaining() is None
    assert deadline.bound(3.0) == 3.0
    deadline.check()


def test_nearest_wins(clock):
    """A longer deadline inside a shorter one does not extend it."""
    with deadline(2, clock=clock):
        with deadline(5, clock=clock):
            assert deadline.remaining() == 2
        with deadline(0.5, clock=clock):
            assert deadline.bound(1.0) == 0.5
        assert deadline.bound(1.0) == 1.0
    assert deadline.remaining() is None


def test_nearest_wins_across_clocks(clock):
    """Deadlines on two clocks are compared by what is left of them."""
    with deadline(100), deadline(5, clock=clock):
        assert deadline.remaining() == 5
        with deadline(10):
            assert deadline.remaining() == 5


def test_never_negative_and_nothing_left(clock):
    """After it has passed, nothing remains and no call gets a time."""
    with deadline(1, clock=clock):
        clock.advance(3)
        assert deadline.remaining() == 0.0
        with pytest.raises(DeadlineExceeded):
            deadline.bound(1.0)
        with pytest.raises(DeadlineExceeded):
            deadline.check()


def test_at_the_very_moment_it_has_passed(clock):
    """With exactly nothing left no call is made; with anything left, one is."""
    with deadline(1, clock=clock):
        clock.advance(0.5)
        deadline.check()
        assert deadline.bound(9) == 0.5
        clock.advance(0.5)
        with pytest.raises(DeadlineExceeded):
            deadline.bound(9)
        with pytest.raises(DeadlineExceeded):
            deadline.check()


def test_it_expires_from_when_it_is_entered(clock):
    """A deadline that was not entered has no moment; an entered one has."""
    block = deadline(2, clock=clock)
    assert block.expires is None
    with block:
        assert block.expires == clock.monotonic() + 2


@pytest.mark.parametrize("seconds", [0.001, math.inf])
def test_a_clock_of_ones_own_cancels_nothing(clock, seconds):
    """An async block on a fake clock ends by itself, and so does one without an end."""

    async def main():
        async with deadline(seconds, clock=clock):
            await asyncio.sleep(0.02)
        async with deadline(math.inf):
            await asyncio.sleep(0)
            return deadline.remaining()

    assert asyncio.run(main()) == math.inf


@pytest.mark.parametrize("seconds", [-1, math.nan, "1", None, True])
def test_bad_time_is_refused(seconds):
    """A time that is none is refused when the deadline is made."""
    with pytest.raises(ConfigurationError, match="seconds >= 0"):
        deadline(seconds)


def test_not_entered_twice():
    """One object is one block."""
    block = deadline(1)
    with block, pytest.raises(ConfigurationError), block:
        pass
    with block:
        assert deadline.remaining() is not None


def test_crosses_threads_started_by_the_library():
    """Threads and pools of the runtime see the caller's deadline; a plain thread does not."""
    seen = {}
    pool = WorkerPool("deadline-test", size=1)
    with deadline(50):
        start_thread(lambda: seen.update(thread=deadline.remaining()), name="t").join()
        seen["pool"] = pool.submit(deadline.remaining).result()
        plain = threading.Thread(target=lambda: seen.update(plain=deadline.remaining()))
        plain.start()
        plain.join()
        seen["copied"] = contextvars.copy_context().run(deadline.remaining)
    pool.close()
    assert seen["plain"] is None
    assert all(0 < seen[way] <= 50 for way in ("thread", "pool", "copied"))


def test_async_block_is_cancelled():
    """``async with`` cancels what is still running and raises DeadlineExceeded in its place."""

    async def main():
        async with deadline(0.02):
            await asyncio.sleep(5)

    with pytest.raises(DeadlineExceeded, match="cancelled"):
        asyncio.run(main())


def test_async_block_leaves_other_cancellations_alone():
    """A cancellation by somebody else stays a cancellation."""

    async def block():
        async with deadline(5):
            await asyncio.sleep(5)

    async def main():
        task = asyncio.create_task(block())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_async_block_that_ends_in_time():
    """A block that ends in time is not touched, and the deadline ends with it."""

    async def main():
        async with deadline(5):
            await asyncio.sleep(0)
            assert deadline.remaining() is not None
        return deadline.remaining()

    assert asyncio.run(main()) is None


def test_pipeline_refuses_a_call_when_nothing_is_left(clock):
    """A call that begins after the deadline is not made."""
    called = []
    for pipeline in (Pipeline("x", clock=clock), Pipeline("x", Deadline(5), Retry(), Breaker(), clock=clock)):
        with deadline(1, clock=clock):
            clock.advance(1)
            with pytest.raises(DeadlineExceeded, match="not made"):
                pipeline.call(called.append, 1)
        assert pipeline.stats().rejected == 1
    assert called == []


def test_pipeline_sets_the_deadline_for_what_it_calls(clock):
    """What is called sees the pipeline's deadline, or the caller's if that is nearer."""
    pipeline = Pipeline("x", Deadline(2), clock=clock)
    assert pipeline.call(deadline.remaining) == 2
    with deadline(1, clock=clock):
        assert pipeline.call(deadline.remaining) == 1
    assert deadline.remaining() is None


def test_attempts_have_their_own_deadline(clock):
    """A deadline after Retry bounds each attempt, inside that of the whole call."""
    pipeline = Pipeline("x", Deadline(1.0), Retry(attempts=3, base=0), Deadline(0.4), clock=clock)
    seen = []

    def hangs():
        seen.append(round(deadline.remaining(), 6))
        clock.advance(deadline.remaining())
        raise TimeoutError

    with pytest.raises(DeadlineExceeded):
        pipeline.idempotent.call(hangs)
    assert seen == [0.4, 0.4, 0.2]


def test_async_attempt_is_cancelled_and_tried_again():
    """An async attempt that hangs is cancelled at its own limit, and the next may succeed."""
    pipeline = Pipeline("x", Deadline(5.0), Retry(base=0), Deadline(0.02))
    tries = []

    async def hangs_once():
        tries.append(1)
        if len(tries) == 1:
            await asyncio.sleep(5)
        return "ok"

    assert asyncio.run(pipeline.idempotent.acall(hangs_once)) == "ok"
    assert len(tries) == 2


def test_swallowed_cancellation_is_taken_back():
    """A call that swallows the cancellation leaves its task able to go on."""
    pipeline = Pipeline("x", Deadline(0.01))

    async def stubborn():
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            return "late"

    async def main():
        result = await pipeline.acall(stubborn)
        return result, asyncio.current_task().cancelling()

    assert asyncio.run(main()) == ("late", 0)


def test_nested_async_deadlines_raise_once():
    """Of two deadlines on one task, the outer one's error comes out, and the task is not left cancelled."""
    inner = Pipeline("inner", Deadline(5))

    async def main():
        with pytest.raises(DeadlineExceeded):
            async with deadline(0.02):
                await inner.acall(asyncio.sleep, 5)
        return asyncio.current_task().cancelling()

    assert asyncio.run(main()) == 0


def test_never_slept_past(clock):
    """A wait that would reach the deadline is not begun: the error goes to the caller at once."""
    pipeline = Pipeline("x", Deadline(1.0), Retry(attempts=9, wait=lambda state: 0.3), clock=clock)
    start = clock.monotonic()

    def fails():
        clock.advance(0.2)
        raise ConnectionRefusedError

    with pytest.raises(ConnectionRefusedError):
        pipeline.call(fails)
    assert clock.monotonic() - start <= 1.0
    assert clock.slept == [0.3]  # a second wait would have ended at the deadline


def test_late_timeout_becomes_deadline_exceeded(clock):
    """A timeout that comes out when the deadline has passed is told as what it is."""
    pipeline = Pipeline("x", Deadline(1.0), clock=clock)

    def times_out():
        clock.advance(1.0)
        raise TimeoutError("socket")

    with pytest.raises(DeadlineExceeded) as caught:
        pipeline.call(times_out)
    assert isinstance(caught.value, ResilientError)
    assert caught.value.caused_by == "builtins.TimeoutError"


def test_other_late_errors_stay(clock):
    """An error that says more than that time ran out is not hidden."""
    pipeline = Pipeline("x", Deadline(1.0), clock=clock)

    def fails():
        clock.advance(1.0)
        raise KeyError("user")

    with pytest.raises(KeyError):
        pipeline.call(fails)
