import asyncio
import threading
import time

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from resilient.errors import CircuitOpen, ConfigurationError, Overloaded
from resilient.policy import Breaker, Bulkhead, Pipeline, deadline
from resilient.policy._bulkhead import BulkheadCore


def hold(pipeline, count=1):
    """Occupy places of the bulkhead in threads; returns what frees them and the threads."""
    free, inside = threading.Event(), threading.Semaphore(0)

    def work():
        inside.release()
        free.wait(10)

    threads = [threading.Thread(target=pipeline.call, args=(work,)) for _ in range(count)]
    for thread in threads:
        thread.start()
    for _ in threads:
        inside.acquire()
    return free, threads


def test_full_refuses_at_once():
    """Without a wait, a call that finds no place is refused in no time and not made."""
    pipeline = Pipeline("x", Bulkhead(2))
    free, threads = hold(pipeline, 2)
    assert pipeline.stats().running == 2
    with pytest.raises(Overloaded, match="2 calls run already"):
        pipeline.call(len, "abc")
    free.set()
    for thread in threads:
        thread.join()
    assert pipeline.call(len, "abc") == 3
    assert (pipeline.stats().running, pipeline.stats().rejected) == (0, 1)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, ConnectionError])
def test_every_end_gives_the_place_back(error):
    """Success, failure and interrupt all free the place, sync and async."""
    pipeline = Pipeline("x", Bulkhead(1))

    def fails():
        raise error

    async def afails():
        raise error

    for _ in range(3):
        with pytest.raises(error):
            pipeline.call(fails)
        if error is not KeyboardInterrupt:
            with pytest.raises(error):
                asyncio.run(pipeline.acall(afails))
    assert pipeline.stats().running == 0


def test_waits_for_a_place():
    """With a wait, a call gets the place that comes free in time."""
    pipeline = Pipeline("x", Bulkhead(1, wait=5))
    free, (holder,) = hold(pipeline)
    waiter = threading.Thread(target=pipeline.call, args=(len, "abc"))
    waiter.start()
    while not pipeline._slow.state.bulkhead.waiters:
        time.sleep(0.001)
    free.set()
    waiter.join(2)
    holder.join()
    assert not waiter.is_alive()
    assert pipeline.stats().succeeded == 2


def test_the_wait_is_bounded_in_time_and_number():
    """A wait ends with Overloaded at its limit or at the caller's deadline, and only so many may wait."""
    pipeline = Pipeline("x", Bulkhead(1, wait=0.05, queue=1))
    free, (holder,) = hold(pipeline)
    begun = time.monotonic()
    with pytest.raises(Overloaded, match="none ended"):
        pipeline.call(len, "abc")
    with deadline(0.01), pytest.raises(Overloaded):
        pipeline.call(len, "abc")
    assert time.monotonic() - begun < 1

    def refused():
        with pytest.raises(Overloaded):
            pipeline.call(len, "")

    waiting = threading.Thread(target=refused)
    waiting.start()
    while not pipeline._slow.state.bulkhead.waiters:
        time.sleep(0.001)
    with pytest.raises(Overloaded, match="queue is full"):
        pipeline.call(len, "abc")
    waiting.join()
    free.set()
    holder.join()


def test_tasks_and_threads_share_the_places():
    """A task waits for a place that a thread holds, without blocking its loop; a cancelled waiter leaves no trace."""
    pipeline = Pipeline("x", Bulkhead(1, wait=5, queue=3))
    free, (holder,) = hold(pipeline)

    async def quick():
        return "ok"

    async def main():
        waiter = asyncio.create_task(pipeline.acall(quick))
        cancelled = asyncio.create_task(pipeline.acall(quick))
        await asyncio.sleep(0)  # both tasks run up to their wait
        assert len(pipeline._slow.state.bulkhead.waiters) == 2
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        free.set()
        begun = time.monotonic()
        answer = await waiter
        assert time.monotonic() - begun < 2, "it was woken, and did not wait out its time"
        return answer

    assert asyncio.run(main()) == "ok"
    holder.join()
    assert pipeline.stats().running == 0
    assert pipeline._slow.state.bulkhead.waiters == []


def test_async_wait_is_bounded():
    """A task waits no longer than allowed."""
    pipeline = Pipeline("x", Bulkhead(1, wait=0.02))

    async def main():
        gate = asyncio.Event()
        holder = asyncio.create_task(pipeline.acall(gate.wait))
        await asyncio.sleep(0)
        begun = time.monotonic()
        with pytest.raises(Overloaded, match=r"1 calls run already and none ended within 0\.02 s"):
            await pipeline.acall(gate.wait)
        assert 0.02 <= time.monotonic() - begun < 2
        gate.set()
        await holder

    asyncio.run(main())


def test_nobody_is_overlooked():
    """Many threads over few places with a long wait all get their turn, and never more run than allowed."""
    pipeline = Pipeline("x", Bulkhead(2, wait=20, queue=64))
    running, most, lock = 0, 0, threading.Lock()

    def work():
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.0005)
        with lock:
            running -= 1

    threads = [threading.Thread(target=lambda: [pipeline.call(work) for _ in range(20)]) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert most == 2
    assert pipeline.stats().succeeded == 320


@pytest.mark.parametrize("order", [(Breaker(min_calls=1), Bulkhead(1)), (Bulkhead(1), Breaker(min_calls=1))])
def test_a_refusal_further_in_gives_back_what_was_taken(order, clock):
    """A full bulkhead frees the breaker's probe, and an open breaker frees the place, in either order."""
    pipeline = Pipeline("x", *order, clock=clock)
    with pytest.raises(ConnectionError), pipeline.breaker.permit():
        raise ConnectionError
    for _ in range(3):
        with pytest.raises(CircuitOpen):
            pipeline.call(len, "abc")
        assert pipeline.stats().running == 0
    clock.advance(60)
    core = pipeline._slow.state.bulkhead
    core.take()
    for _ in range(3):
        with pytest.raises(Overloaded):
            pipeline.call(len, "abc")
    core.give(0)
    assert pipeline.call(len, "abc") == 3
    assert pipeline.breaker.state == "closed"


def test_waits_end_by_either_clock():
    """A wait ends when the pipeline's clock says so, and also when that clock stands still."""

    async def both(now):
        core = BulkheadCore(1, 1)
        core.take()
        with pytest.raises(Overloaded):
            core.wait(0.02, now)
        with pytest.raises(Overloaded):
            await core.await_(0.02, now)
        assert core.waiters == []

    begun = time.monotonic()
    asyncio.run(both(lambda: 0.0))
    runs = iter(range(1000))
    asyncio.run(both(lambda: float(next(runs))))
    assert time.monotonic() - begun < 2


def test_a_waiter_whose_loop_is_gone():
    """Waking a task whose loop was closed is no error for whoever gives the place back."""
    core = BulkheadCore(1, 2)
    core.take()
    loop = asyncio.new_event_loop()
    waiter = core.await_(5.0, time.monotonic)
    task = loop.create_task(waiter)
    loop.run_until_complete(asyncio.sleep(0))
    wakes = list(core.waiters)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.close()
    assert len(wakes) == 1
    wakes[0]()
    assert core.waiters == []


@pytest.mark.parametrize(
    ("limit", "options"), [(0, {}), (-1, {}), (1.5, {}), (True, {}), (1, {"wait": -1}), (1, {"queue": 0})]
)
def test_nonsense_is_refused(limit, options):
    """Bad numbers are refused where they are written."""
    with pytest.raises(ConfigurationError):
        Bulkhead(limit, **options)


class BulkheadMachine(RuleBasedStateMachine):
    """Permits and waiters against plain numbers: none is lost, and who waits while one is free was told."""

    @initialize(limit=st.integers(1, 4), queue=st.integers(1, 3))
    def start(self, limit, queue):
        self.core = BulkheadCore(limit, queue)
        self.held = 0
        self.waiting = []  # [woken] for each, with its callback

    @rule()
    def take(self):
        try:
            self.core.take()
        except IndexError:
            assert self.held == self.core.limit
        else:
            self.held += 1

    @precondition(lambda self: self.held)
    @rule()
    def give(self):
        self.core.give(0)
        self.held -= 1
        if self.core.waiters:
            self.core.wake()

    @rule()
    def wait(self):
        entry = {"woken": False}

        def wake():
            entry["woken"] = True

        entry["wake"] = wake
        if len(self.waiting) == self.core.queue:
            with pytest.raises(Overloaded):
                self.core.enlist(wake)
            return
        self.core.enlist(wake)
        self.waiting.append(entry)
        self.look(entry)

    def look(self, entry):
        """What a waiter does when it enters the queue and whenever it is woken."""
        entry["woken"] = False
        try:
            self.core.take()
        except IndexError:
            return
        self.held += 1
        self.waiting.remove(entry)
        self.core.leave(entry["wake"])

    @precondition(lambda self: any(entry["woken"] for entry in self.waiting))
    @rule()
    def one_that_was_told_looks(self):
        self.look(next(entry for entry in self.waiting if entry["woken"]))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def give_up(self, data):
        entry = data.draw(st.sampled_from(self.waiting))
        self.waiting.remove(entry)
        self.core.leave(entry["wake"])

    @invariant()
    def permits_add_up(self):
        if hasattr(self, "core"):
            assert self.core.running == self.held

    @invariant()
    def somebody_was_told(self):
        if hasattr(self, "core") and self.waiting and self.held < self.core.limit:
            assert any(entry["woken"] for entry in self.waiting)


TestBulkheadMachine = BulkheadMachine.TestCase
TestBulkheadMachine.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
