"""Each row of the table of things that other libraries get wrong, in sync code, threads and asyncio."""

import asyncio
import contextlib
import itertools
import threading
import time

import pytest

from resilient.errors import CircuitOpen, DeadlineExceeded
from resilient.policy import Breaker, Bulkhead, Deadline, Pipeline, Retry, deadline
from resilient.testing import faults

CALLERS = 20


def opened(clock, **options):
    """A pipeline whose breaker has just opened and whose wait is over."""
    pipeline = Pipeline("x", Breaker(min_calls=2, **options), clock=clock)

    def fails():
        raise ConnectionError

    for _ in range(2):
        with pytest.raises(ConnectionError):
            pipeline.call(fails)
    assert pipeline.breaker.state == "open"
    clock.advance(30)
    return pipeline


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("probes", [1, 3])
def test_half_open_threads(clock, broken, probes):
    """Of 20 threads at once, only as many as there are probes reach the dependency, healthy or broken."""
    pipeline = opened(clock, probes=probes)
    reached, gate, start = [], threading.Event(), threading.Barrier(CALLERS)
    answers = []

    def work():
        reached.append(1)
        gate.wait(5)
        if broken:
            raise ConnectionError

    def caller():
        start.wait()
        try:
            pipeline.call(work)
            answers.append("ok")
        except (CircuitOpen, ConnectionError) as error:
            answers.append(type(error).__name__)
        if answers.count("CircuitOpen") == CALLERS - probes:
            gate.set()

    threads = [threading.Thread(target=caller) for _ in range(CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reached) == probes
    assert pipeline.breaker.state == ("open" if broken else "closed")


@pytest.mark.parametrize("broken", [False, True])
def test_half_open_tasks(clock, broken):
    """Of 20 tasks at once, one reaches the dependency."""
    pipeline = opened(clock)
    reached = []

    async def work():
        reached.append(1)
        await asyncio.sleep(0)
        if broken:
            raise ConnectionError

    async def main():
        return await asyncio.gather(*(pipeline.acall(work) for _ in range(CALLERS)), return_exceptions=True)

    answers = asyncio.run(main())
    assert len(reached) == 1
    assert sum(isinstance(answer, CircuitOpen) for answer in answers) == CALLERS - 1


def test_nothing_is_held_while_user_code_runs():
    """20 threads through a closed breaker run side by side, not one after the other."""
    pipeline = Pipeline("x", Deadline(5), Retry(), Breaker(), Bulkhead(CALLERS))
    together = threading.Barrier(CALLERS, timeout=5)
    threads = [threading.Thread(target=pipeline.call, args=(together.wait,)) for _ in range(CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert pipeline.stats().succeeded == CALLERS, "a barrier opens only if all are inside at once"


def test_old_success_leaves_it_open(clock):
    """A success that began before it opened does not close it."""
    pipeline = Pipeline("x", Breaker(min_calls=2), clock=clock)
    old = pipeline.breaker.permit()
    for _ in range(2):
        pipeline.breaker.permit().failure(ConnectionError())
    old.success()
    assert pipeline.breaker.state == "open"


def test_old_failure_leaves_the_probe_alone(clock):
    """A failure that began before it opened does not end the probing."""
    pipeline = Pipeline("x", Breaker(min_calls=2), clock=clock)
    old = pipeline.breaker.permit()
    for _ in range(2):
        pipeline.breaker.permit().failure(ConnectionError())
    clock.advance(30)
    probe = pipeline.breaker.permit()
    old.failure(ConnectionError())
    assert pipeline.breaker.state == "half_open"
    probe.success()
    assert pipeline.breaker.state == "closed"


def test_old_async_results_count_nothing(clock):
    """The same for tasks that began before the change and end after it."""
    pipeline = Pipeline("x", Breaker(min_calls=2), clock=clock)

    async def slow(gate, error):
        await gate.wait()
        if error:
            raise ConnectionError

    async def fails():
        raise ConnectionError

    async def main():
        gates = [asyncio.Event(), asyncio.Event()]
        success, failure = (asyncio.create_task(pipeline.acall(slow, gate, at)) for at, gate in enumerate(gates))
        await asyncio.sleep(0)
        for _ in range(2):
            with pytest.raises(ConnectionError):
                await pipeline.acall(fails)
        gates[0].set()
        await success
        assert pipeline.breaker.state == "open"
        clock.advance(30)
        probe_gate = asyncio.Event()
        probe = asyncio.create_task(pipeline.acall(slow, probe_gate, 0))
        await asyncio.sleep(0)
        gates[1].set()
        with pytest.raises(ConnectionError):
            await failure
        assert pipeline.breaker.state == "half_open"
        probe_gate.set()
        await probe
        assert pipeline.breaker.state == "closed"

    asyncio.run(main())


def test_every_second_call_fails(clock):
    """A dependency that fails every second call opens it: successes in between do not reset anything."""
    pipeline = Pipeline("x", Breaker(rate=0.5), clock=clock)
    calls = 0

    def alternates():
        nonlocal calls
        calls += 1
        if calls % 2:
            raise ConnectionError

    for _ in range(200):
        with contextlib.suppress(ConnectionError, CircuitOpen):
            pipeline.call(alternates)
    assert pipeline.breaker.state == "open"
    assert calls == 11


@pytest.mark.parametrize("how", ["threads", "asyncio"])
def test_every_second_call_of_many_at_once_fails(clock, how):
    """The same where callers come at once: it opens, and few calls reach the dependency after that."""
    pipeline = Pipeline("x", Breaker(rate=0.5), clock=clock)
    numbers = itertools.count()

    def alternates():
        if next(numbers) % 2 == 0:
            raise ConnectionError

    async def aalternates():
        await asyncio.sleep(0)
        alternates()

    def caller():
        for _ in range(50):
            with contextlib.suppress(ConnectionError, CircuitOpen):
                pipeline.call(alternates)

    async def acaller():
        for _ in range(50):
            with contextlib.suppress(ConnectionError, CircuitOpen):
                await pipeline.acall(aalternates)

    async def main():
        await asyncio.gather(*(acaller() for _ in range(8)))

    if how == "asyncio":
        asyncio.run(main())
    else:
        threads = [threading.Thread(target=caller) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert pipeline.breaker.state == "open"
    assert next(numbers) <= 11 + 8, "those that were on their way when it opened"


def test_old_results_of_threads_count_nothing(clock):
    """A success and a failure of threads that began before the change neither close nor reopen it."""
    pipeline = Pipeline("x", Breaker(min_calls=2), clock=clock)
    gates = {"success": threading.Event(), "failure": threading.Event(), "probe": threading.Event()}
    begun = threading.Barrier(3, timeout=5)
    probing = threading.Event()

    def old(name):
        begun.wait()
        gates[name].wait(5)
        if name == "failure":
            raise ConnectionError

    def probe():
        probing.set()
        gates["probe"].wait(5)

    def caller(function, *args):
        with contextlib.suppress(ConnectionError):
            pipeline.call(function, *args)

    def fails():
        raise ConnectionError

    threads = {name: threading.Thread(target=caller, args=(old, name)) for name in ("success", "failure")}
    threads["probe"] = threading.Thread(target=caller, args=(probe,))
    threads["success"].start()
    threads["failure"].start()
    begun.wait()
    for _ in range(2):
        caller(fails)
    gates["success"].set()
    threads["success"].join()
    assert pipeline.breaker.state == "open"
    clock.advance(30)
    threads["probe"].start()
    assert probing.wait(5)
    gates["failure"].set()
    threads["failure"].join()
    assert pipeline.breaker.state == "half_open"
    gates["probe"].set()
    threads["probe"].join()
    assert pipeline.breaker.state == "closed"


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_interrupt_is_no_failure(interrupt, clock):
    """An interrupt is the user's, and says nothing about the dependency."""
    pipeline = Pipeline("x", Breaker(min_calls=1), clock=clock)

    def stops():
        raise interrupt

    for _ in range(5):
        with pytest.raises(interrupt):
            pipeline.call(stops)
    assert pipeline.breaker.counts() == (0, 0, 0)


def test_a_cancelled_caller_is_no_failure(clock):
    """A caller that is cancelled says nothing about the dependency."""
    pipeline = Pipeline("x", Retry(), Breaker(min_calls=1), clock=clock)

    async def main():
        task = asyncio.create_task(pipeline.acall(asyncio.sleep, 5))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert (pipeline.breaker.state, pipeline.breaker.counts()) == ("closed", (0, 0, 0))


def test_a_cancelled_probe_gives_its_place_back(clock):
    """A probe that is cancelled or interrupted counts nothing, and the next caller may probe."""
    pipeline = opened(clock)

    async def main():
        task = asyncio.create_task(pipeline.acall(asyncio.sleep, 5))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert pipeline.breaker.state == "half_open"
        return await pipeline.acall(asyncio.sleep, 0, "ok")

    assert asyncio.run(main()) == "ok"
    assert pipeline.breaker.state == "closed"


def test_a_call_cut_off_by_the_deadline_is_a_failure():
    """A dependency that hangs until the deadline cancels it opens the breaker, though tasks are cancelled."""
    pipeline = Pipeline("x", Deadline(0.01), Breaker(min_calls=3))

    async def main():
        for _ in range(3):
            with pytest.raises(DeadlineExceeded):
                await pipeline.acall(asyncio.sleep, 5)

    asyncio.run(main())
    assert pipeline.breaker.state == "open"


def test_time_is_monotonic():
    """A wall clock that jumps changes nothing: the breaker and the deadline never read it."""

    class Jumps:
        def __init__(self):
            self.now = 0.0

        def monotonic(self):
            return self.now

        def wall(self):
            raise AssertionError("nobody may look at the wall")

        def sleep(self, seconds):
            self.now += seconds

        async def asleep(self, seconds):
            self.now += seconds

    clock = Jumps()
    pipeline = Pipeline("x", Deadline(5), Retry(), Breaker(min_calls=3), clock=clock)

    def fails():
        raise ConnectionRefusedError

    with pytest.raises(ConnectionRefusedError):
        pipeline.call(fails)
    assert pipeline.breaker.state == "open"
    clock.now += 30
    assert pipeline.call(len, "abc") == 3


@pytest.mark.parametrize("ambient", [False, True])
def test_total_deadline_over_attempts_and_waits(ambient):
    """Attempts of 0.04 s with waits of 0.05 s end within a deadline of 0.1 s, whoever set it."""
    policies = (Retry(attempts=9, wait=lambda state: 0.05),)
    pipeline = Pipeline("x", *policies) if ambient else Pipeline("x", Deadline(0.1), *policies)

    def works():
        time.sleep(deadline.bound(0.04))
        raise ConnectionRefusedError

    def taken():
        begun = time.monotonic()
        with pytest.raises((ConnectionRefusedError, DeadlineExceeded)), deadline(0.1 if ambient else 9):
            pipeline.call(works)
        return time.monotonic() - begun

    assert min(taken() for _ in range(5)) <= 0.12


@pytest.mark.parametrize("ambient", [False, True])
def test_total_deadline_of_a_task(ambient):
    """Async attempts of 0.04 s with waits of 0.05 s that know of no deadline end within 0.1 s all the same."""
    retry = Retry(attempts=9, wait=lambda state: 0.05)
    pipeline = Pipeline("x", Deadline(5), retry) if ambient else Pipeline("x", Deadline(0.1), retry)

    async def works():
        await asyncio.sleep(0.04)
        raise ConnectionRefusedError

    async def main():
        begun = time.monotonic()
        with pytest.raises((ConnectionRefusedError, DeadlineExceeded)), deadline(0.1 if ambient else 9):
            await pipeline.acall(works)
        return time.monotonic() - begun

    assert min(asyncio.run(main()) for _ in range(5)) <= 0.12


def test_one_sync_attempt_that_hangs():
    """A client that asks for the time that is left, as ours do, ends a hung call in time, and it is not retried."""
    pipeline = Pipeline("x", Deadline(0.05), Retry(), Breaker(), Bulkhead(2))
    tries = []

    def hangs():
        tries.append(1)
        time.sleep(deadline.bound(3))
        raise TimeoutError

    begun = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        pipeline.idempotent.call(hangs)
    assert time.monotonic() - begun < 1.5
    assert (len(tries), pipeline.stats().running) == (1, 0)


def test_one_async_attempt_that_hangs():
    """An async attempt that hangs is cancelled at the deadline, and no task is left."""
    pipeline = Pipeline("x", Deadline(0.05), Retry(), Breaker(), Bulkhead(2))

    async def main():
        begun = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            await pipeline.acall(asyncio.sleep, 3)
        assert time.monotonic() - begun < 1.5
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())
    assert pipeline.stats().running == 0


def test_hung_calls_starve_nobody():
    """Deadlines of sync calls use no threads, so hung calls cannot make a quick one time out."""
    before = threading.active_count()
    pipeline = Pipeline("x", Deadline(0.02), Retry())

    def hangs():
        time.sleep(deadline.bound(5))
        raise TimeoutError

    for _ in range(4):
        with pytest.raises(DeadlineExceeded):
            pipeline.idempotent.call(hangs)
    assert pipeline.call(len, "abc") == 3
    assert threading.active_count() == before


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("how", ["sync", "threads", "asyncio"])
def test_amplification(layers, how, clock):
    """A dead dependency at 100 calls per second gets at most a quarter more calls, however many layers retry."""
    reached = 0
    lock = threading.Lock()
    stack = [Pipeline(f"layer{number}", Retry(attempts=4), clock=clock) for number in range(layers)]

    def dependency():
        nonlocal reached
        with lock:
            reached += 1
        raise ConnectionRefusedError

    async def adependency():
        dependency()

    def call(depth=0):
        if depth == layers:
            return dependency()
        return stack[depth].idempotent.call(call, depth + 1)

    async def acall(depth=0):
        if depth == layers:
            return await adependency()
        return await stack[depth].idempotent.acall(acall, depth + 1)

    def many(count):
        for _ in range(count):
            clock.advance(0.01)
            with pytest.raises(ConnectionRefusedError), faults.no_waiting():
                call()

    async def amany(count):
        for _ in range(count):
            clock.advance(0.01)
            with pytest.raises(ConnectionRefusedError), faults.no_waiting():
                await acall()

    if how == "sync":
        many(1000)
    elif how == "threads":
        threads = [threading.Thread(target=many, args=(1000 // 4,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    else:
        asyncio.run(amany(1000))
    assert 1000 <= reached <= 1250
