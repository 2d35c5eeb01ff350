"""What may come in between: interrupts, forks, finalizers, signal handlers, coroutines that are ended elsewhere."""

import asyncio
import contextvars
import dis
import gc
import os
import sys
import threading
import weakref

import pytest

from resilient.errors import CircuitOpen, DeadlineExceeded
from resilient.policy import (
    Breaker,
    Budget,
    Bulkhead,
    Deadline,
    Fallback,
    Hedge,
    Pipeline,
    RateLimit,
    Retry,
    deadline,
)
from resilient.policy._breaker import BreakerCore
from resilient.policy._state import State

FULL = (Deadline(5), Retry(base=0), Breaker(min_calls=1), Bulkhead(1))


def refuse():
    raise ConnectionRefusedError


# ------------------------------------------------------------------------------------------------------ interrupts


class Interrupter:
    """Raises KeyboardInterrupt in a compiled call, at the n-th moment at which the interpreter looks for signals."""

    def __init__(self, number):
        self.left = number
        self.struck = False
        self._after_call = False

    def __call__(self, frame, event, arg):
        if "resilient pipeline" not in frame.f_code.co_filename:
            return None
        frame.f_trace_opcodes = True
        return self.inside

    def inside(self, frame, event, arg):
        if event == "exception":
            self._after_call = False
        if event != "opcode":
            return self.inside
        if self._after_call:
            if self.left == 0:
                self.struck = True
                sys.settrace(None)
                raise KeyboardInterrupt
            self.left -= 1
        self._after_call = dis.opname[frame.f_code.co_code[frame.f_lasti]].startswith(("CALL", "JUMP_BACKWARD"))
        return self.inside


@pytest.mark.skipif(sys.version_info[:2] == (3, 12), reason="Python 3.12 shows tracers single steps only at times")
@pytest.mark.parametrize(
    "policies",
    [
        (Fallback(lambda error: 0), Deadline(5), RateLimit(1e9), *FULL[1:], Deadline(4)),
        (Retry(base=0), Breaker(min_calls=100, slow=1.0), Bulkhead(3), RateLimit(1e9)),
    ],
)
def test_an_interrupt_at_any_moment(policies):
    """Wherever in a call that is retried an interrupt strikes: no place is lost and no deadline stays behind."""
    moments = 0
    while True:
        pipeline = Pipeline("x", *policies)
        outcomes = [ConnectionRefusedError(), 1]

        def works(outcomes=outcomes):
            outcome = outcomes.pop(0)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        interrupter = Interrupter(moments)
        context, call, before = contextvars.copy_context(), pipeline.call, sys.gettrace()
        sys.settrace(interrupter)
        try:
            context.run(call, works)
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(before)
        if not interrupter.struck:
            break
        moments += 1
        assert pipeline.stats().running == 0, moments
        assert context.run(deadline.remaining) is None, moments
    assert moments > 5


def test_a_coroutine_that_is_closed_elsewhere():
    """A call that is given up and closed in another context ends quietly, as an interrupted one."""
    pipeline = Pipeline("x", *FULL, Deadline(4))

    async def main():
        call = pipeline.acall(asyncio.sleep, 5)
        contextvars.copy_context().run(call.send, None)
        assert pipeline.stats().running == 1
        call.close()
        stats = pipeline.stats()
        assert (stats.running, stats.failed, stats.breaker) == (0, 0, "closed")

    asyncio.run(main())


def test_an_async_call_outside_of_a_task():
    """It cannot have a timer and is refused; no deadline stays behind."""
    call = Pipeline("x", *FULL).acall(asyncio.sleep, 0)
    with pytest.raises(RuntimeError, match="no running event loop"):
        call.send(None)
    assert deadline.remaining() is None


# ----------------------------------------------------------------------------------------------------- async blocks


def test_an_async_block_is_cancelled_by_its_deadline():
    """As an async call is; it counts against the dependency, and nothing is left of the cancellation."""
    pipeline = Pipeline("x", Deadline(0.02), *FULL[1:])

    async def blocks():
        async for attempt in pipeline.attempts():
            async with attempt:
                await asyncio.sleep(5)

    async def main():
        with pytest.raises(DeadlineExceeded, match="was cancelled"):
            await blocks()
        assert asyncio.current_task().cancelling() == 0

    asyncio.run(main())
    assert (pipeline.breaker.state, pipeline.stats().running) == ("open", 0)


def test_an_async_block_is_tried_again_after_its_own_deadline():
    """Where each attempt has a deadline, the next begins when it passes."""
    pipeline = Pipeline("x", Deadline(5), Retry(base=0), Deadline(0.02))

    async def main():
        async for attempt in pipeline.idempotent.attempts():
            async with attempt:
                await asyncio.sleep(5 if attempt.number == 1 else 0)
        return attempt.number

    assert asyncio.run(main()) == 2


def test_an_async_block_leaves_other_cancellations_alone():
    """A caller that is cancelled is cancelled, and says nothing about the dependency."""
    pipeline = Pipeline("x", *FULL)

    async def blocks():
        async for attempt in pipeline.attempts():
            async with attempt:
                await asyncio.sleep(5)

    async def main():
        task = asyncio.create_task(blocks())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert (pipeline.breaker.state, pipeline.stats().running) == ("closed", 0)


# ------------------------------------------------------------------------------------------------------------ forks


def in_child(function):
    """Whether the function returns true in a forked child."""
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if function() else 1)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*use of fork")
@pytest.mark.parametrize("probing", [False, True])
def test_a_fork_while_other_threads_call(clock, probing):
    """What threads of the parent had in hand, a place or the only probe, is free in a forked child."""
    pipeline = Pipeline("x", *FULL[2:], clock=clock)
    if probing:
        with pytest.raises(ConnectionRefusedError):
            pipeline.call(refuse)
        clock.advance(100)
    inside, leave = threading.Event(), threading.Event()
    thread = threading.Thread(target=pipeline.call, args=(lambda: inside.set() or leave.wait(10),))
    thread.start()
    assert inside.wait(10)
    try:
        assert in_child(lambda: pipeline.call(len, "abc") == 3 and pipeline.breaker.state == "closed")
        assert pipeline.stats().running == 1, "the parent's own is as it was"
    finally:
        leave.set()
        thread.join()


def test_a_child_waits_for_no_ones_turn(clock):
    """Who waited for a place in the parent is not in the queue of its child."""
    pipeline = Pipeline("x", Bulkhead(1, wait=1, queue=1), clock=clock)
    core = pipeline._slow.state.bulkhead
    core.take()
    core.enlist(lambda: None)
    core.forked()
    assert (core.waiters, core.running) == ([], 0)
    core.wake()


def test_a_probe_of_the_parent_means_nothing_in_the_child():
    """A child that was forked inside a probe goes on: the probe's result is not counted, and another may try."""
    core = BreakerCore(Breaker(min_calls=1, wait=1.0), draw=lambda: 0.5)
    core.failed(core.enter(0.0), 0.0)
    probe = core.enter(1.0)
    with pytest.raises(CircuitOpen):
        core.enter(1.0)
    core.forked()
    another = core.enter(1.0)
    core.failed(probe, 1.0)
    assert core.state == "half_open"
    another.ok()
    assert core.state == "closed"


# ------------------------------------------------------------------------------------------------ in the same thread


@pytest.mark.parametrize("part", ["breaker", "bulkhead", "budget", "limit", "state"])
def test_a_lock_that_its_thread_holds_already(clock, part):
    """A signal handler or a finalizer that makes a call while its thread is inside a core does not wait for itself."""
    pipeline = Pipeline("x", RateLimit(1000), *FULL[1:3], Bulkhead(1, wait=1), clock=clock)
    state = pipeline._slow.state
    core = {
        "breaker": state.breaker,
        "bulkhead": state.bulkhead,
        "budget": state.budget,
        "limit": next(iter(state.limits.values())),
    }.get(part)
    done = []

    def run():
        with state.lock if core is None else core._lock:
            with pytest.raises(ConnectionRefusedError):
                pipeline.call(refuse)
            state.bulkhead.wake()
        done.append(1)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(10)
    assert done


# ------------------------------------------------------------------------------------------------------- endings


def test_pipelines_that_are_dropped_are_gone():
    """Thousands of them leave nothing behind, and nothing for the cycle collector."""
    policies = (Fallback(len), Deadline(5), RateLimit(1e9), *FULL[1:], Deadline(4))
    gc.collect()
    gc.disable()
    try:
        gone = []
        for number in range(1000):
            pipeline = Pipeline(f"x{number}", *policies)
            pipeline.call(len, "")
            pipeline.idempotent.call(len, "")
            gone.append(weakref.ref(pipeline._slow.state))
            assert isinstance(gone[-1](), State)
        del pipeline
        assert not any(reference() for reference in gone)
    finally:
        gc.enable()


def test_threads_of_a_hedge_end_with_its_pipeline():
    """A pipeline that is dropped takes its threads along."""
    before = set(threading.enumerate())
    pipeline = Pipeline("x", Hedge(delay=5.0), Budget(burst=2))
    assert pipeline.idempotent.call(len, "abc") == 3
    started = set(threading.enumerate()) - before
    assert started
    del pipeline
    gc.collect()
    for thread in started:
        thread.join(10)
        assert not thread.is_alive()
