import asyncio
import gc
import threading
import time

import pytest

from resilient.errors import ConfigurationError, DeadlineExceeded, InvalidInput
from resilient.policy import Breaker, Budget, Bulkhead, Deadline, Hedge, Pipeline, Retry, deadline
from resilient.policy._hedge import Latencies, race, race_async
from resilient.runtime import WorkerPool


class Lame:
    """The first call hangs until it is released; later ones answer at once."""

    def __init__(self):
        self.release = threading.Event()
        self.calls = 0
        self.cancelled = 0
        self.lock = threading.Lock()

    def _number(self):
        with self.lock:
            self.calls += 1
            return self.calls

    def __call__(self):
        number = self._number()
        if number == 1:
            self.release.wait(5)
        return number

    async def acall(self):
        number = self._number()
        if number == 1:
            try:
                await asyncio.sleep(5)
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        return number


def test_the_second_call_answers():
    """When the first call is late, the second one's answer is taken; the async loser is cancelled."""
    pipeline = Pipeline("x", Hedge(delay=0.01), Breaker(), Bulkhead(5))
    lame = Lame()
    assert pipeline.idempotent.call(lame) == 2
    lame.release.set()
    lame = Lame()
    assert asyncio.run(pipeline.idempotent.acall(lame.acall)) == 2
    assert lame.cancelled == 1
    assert pipeline.stats().hedged == 2


def test_decorated_functions_are_hedged_too():
    """The decorated form is hedged like the others."""
    pipeline = Pipeline("x", Hedge(delay=0.01))
    lame = Lame()

    @pipeline.idempotent
    def load():
        return lame()

    @pipeline.idempotent
    async def aload():
        return await lame.acall()

    assert load() == 2
    lame.release.set()
    lame.calls = 0
    assert asyncio.run(aload()) == 2


def test_only_idempotent_calls():
    """A call that was not declared idempotent is made once, however late it is."""
    pipeline = Pipeline("x", Hedge(delay=0.001))
    assert pipeline.call(lambda: time.sleep(0.01)) is None
    assert asyncio.run(pipeline.acall(asyncio.sleep, 0.01)) is None
    assert pipeline.stats().hedged == 0


def test_inside_the_budget():
    """Hedges are paid from the retry budget; without one left, the first call is waited for."""
    pipeline = Pipeline("x", Hedge(delay=0.001), Budget(ratio=0, reserve=0, burst=1))
    for _ in range(3):
        pipeline.idempotent.call(time.sleep, 0.02)
        asyncio.run(pipeline.idempotent.acall(asyncio.sleep, 0.02))
    assert pipeline.stats().hedged == 1
    assert pipeline.stats().suppressed == 5


def test_one_failure_waits_for_the_other():
    """If one of the two fails, the other may still answer; if both fail, the caller gets an error."""
    pipeline = Pipeline("x", Hedge(delay=0.01))
    calls = []

    def first_ok_second_fails():
        calls.append(1)
        if len(calls) % 2:
            time.sleep(0.05)
            return "first"
        raise ConnectionError

    async def afirst_ok_second_fails():
        calls.append(1)
        if len(calls) % 2:
            await asyncio.sleep(0.05)
            return "first"
        raise ConnectionError

    assert pipeline.idempotent.call(first_ok_second_fails) == "first"
    assert asyncio.run(pipeline.idempotent.acall(afirst_ok_second_fails)) == "first"

    def fails():
        time.sleep(0.02)
        raise ConnectionError("both")

    async def afails():
        await asyncio.sleep(0.02)
        raise ConnectionError("both")

    with pytest.raises(ConnectionError, match="both"):
        pipeline.idempotent.call(fails)
    with pytest.raises(ConnectionError, match="both"):
        asyncio.run(pipeline.idempotent.acall(afails))


def test_a_quick_failure_is_not_hedged():
    """A call that fails before it is late is a matter for the retry, not for the hedge."""
    pipeline = Pipeline("x", Hedge(delay=1))

    def fails():
        raise ConnectionError

    with pytest.raises(ConnectionError):
        pipeline.idempotent.call(fails)
    assert pipeline.stats().hedged == 0


def test_retry_goes_round_the_race():
    """A race that failed is run again as a whole."""
    pipeline = Pipeline("x", Deadline(5), Retry(attempts=3, base=0), Hedge(delay=1))
    calls = []

    def fails_twice():
        calls.append(1)
        if len(calls) < 3:
            raise ConnectionError
        return "ok"

    assert pipeline.idempotent.call(fails_twice) == "ok"
    assert (pipeline.stats().succeeded, pipeline.stats().retried, pipeline.stats().hedged) == (1, 2, 0)


def test_the_deadline_ends_the_race():
    """A sync race does not outlast the deadline, though its threads cannot be stopped."""
    pipeline = Pipeline("x", Deadline(0.05), Hedge(delay=0.01))
    free = threading.Event()
    begun = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        pipeline.idempotent.call(free.wait, 5)
    assert time.monotonic() - begun < 1
    free.set()


def test_cancelling_the_caller_cancels_both():
    """Nothing runs on after its caller was cancelled."""
    pipeline = Pipeline("x", Hedge(delay=0.01))
    running = []
    both = asyncio.Event()

    async def hangs():
        running.append(1)
        if len(running) == 2:
            both.set()
        try:
            await asyncio.sleep(5)
        finally:
            running.pop()

    async def main():
        task = asyncio.create_task(pipeline.idempotent.acall(hangs))
        await both.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert running == []


def test_no_free_thread_means_no_hedge():
    """When all threads of the hedge are busy, the call is made where it is."""
    pipeline = Pipeline("x", Hedge(delay=0.001, threads=1))
    free = threading.Event()
    pool = pipeline._slow.state.pool
    jobs = [pool.submit(free.wait, 5) for _ in range(2)]
    assert pipeline.idempotent.call(threading.get_ident) == threading.get_ident()
    free.set()
    for job in jobs:
        job.result(2)


def test_misuse_is_refused():
    """An async function in the sync path, and a block that cannot be run twice at once, are refused with advice."""
    pipeline = Pipeline("x", Hedge(delay=0.01))
    with pytest.raises(InvalidInput, match="acall"):
        pipeline.idempotent.call(asyncio.sleep, 0)
    with pytest.raises(ConfigurationError, match="hedged"):
        pipeline.attempts()
    for options in ({"delay": 0}, {"min_samples": 0}, {"threads": 0}):
        with pytest.raises(ConfigurationError):
            Hedge(**options)


def test_the_percentile_follows_the_durations():
    """The delay is unknown until there are enough samples, then their 95th percentile, and follows a change."""
    latencies = Latencies(100)
    for number in range(99):
        latencies.add(number / 1000)
    assert latencies.delay is None
    latencies.add(0.099)
    assert latencies.delay == pytest.approx(0.095)
    for number in range(60):
        latencies.add(2.0)
        assert latencies.delay == pytest.approx(2.0 if number >= 27 else 0.095), "anew at 128, and not before"
    for _ in range(128 + 32):
        latencies.add(1.0)
    assert latencies.delay == pytest.approx(1.0), "what is 128 calls old is forgotten"
    assert len(latencies._samples) == 128


def test_more_samples_than_are_kept():
    """Where more samples are asked for than are kept by default, so many are kept."""
    latencies = Latencies(1000)
    for number in range(1500):
        latencies.add(number)
        assert (latencies.delay is None) == (number < 999)
    assert len(latencies._samples) == 1000


def test_learns_when_to_hedge(clock):
    """Without a delay of its own, a pipeline hedges once it knows how long calls take."""
    pipeline = Pipeline("x", Hedge(min_samples=20))
    for _ in range(20):
        pipeline.idempotent.call(len, "")
    assert 0 < pipeline._slow.state.latencies.delay < 0.5
    lame = Lame()
    assert pipeline.idempotent.call(lame) == 2
    lame.release.set()


def test_no_time_left_starts_no_race():
    """Where the deadline has passed, neither a thread nor a task is started."""
    reached = []

    async def acall():
        reached.append(1)

    with deadline(0):
        with pytest.raises(DeadlineExceeded):
            race(WorkerPool("none", 1), 0.01, lambda: True, lambda: reached.append(1))
        with pytest.raises(DeadlineExceeded):
            asyncio.run(race_async(0.01, lambda: True, acall))
    assert not reached


def test_a_racer_that_never_began_is_taken_back():
    """When the caller's time is up, a call that still waits for a thread is not made any more."""
    pool, gate, reached = WorkerPool("busy", 1), threading.Event(), []
    busy = pool.submit(gate.wait, 5)
    with pytest.raises(DeadlineExceeded), deadline(0.02):
        race(pool, 0.005, lambda: False, lambda: reached.append(1))
    gate.set()
    busy.result(5)
    assert pool.close(5)
    assert not reached


def test_the_error_of_a_loser_is_looked_at(caplog):
    """If both end at once and one failed, asyncio has nothing to complain of."""
    gate = None
    calls = []

    async def call():
        calls.append(1)
        mine = len(calls)
        await gate.wait()
        if mine == 1:
            raise ConnectionError
        return mine

    async def main():
        nonlocal gate
        gate = asyncio.Event()

        def go():
            asyncio.get_running_loop().call_later(0.01, gate.set)
            return True

        assert await race_async(0.001, go, call) == 2

    asyncio.run(main())
    gc.collect()
    assert not caplog.records


def test_without_a_thread_for_the_second_the_first_is_waited_for():
    """Where no thread is free for a hedge, the first call's answer is the answer."""
    pool = WorkerPool("one", 1, backlog=0)
    assert race(pool, 0.001, lambda: True, lambda: time.sleep(0.02) or "first") == "first"
    pool.close()


def test_an_async_loser_has_ended_when_the_answer_comes():
    """The loser is cancelled and waited for, so that nothing of it runs on behind the caller's back."""
    ended = []

    async def call():
        number = len(started)
        started.append(1)
        if number:
            return "second"
        try:
            return await asyncio.sleep(5, "first")
        finally:
            await asyncio.sleep(0.005)
            ended.append(1)

    async def main():
        assert await race_async(0.001, lambda: True, call) == "second"
        assert ended
        assert len(asyncio.all_tasks()) == 1

    started = []
    asyncio.run(main())


def test_a_caller_that_goes_before_the_hedge_takes_its_call_along():
    """A caller that is cancelled while it waits for the first call leaves no task."""

    async def main():
        started = asyncio.Event()

        async def call():
            started.set()
            await asyncio.sleep(5)

        task = asyncio.create_task(race_async(1, lambda: True, call))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())
