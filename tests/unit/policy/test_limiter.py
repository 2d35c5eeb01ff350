import asyncio

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from resilient.errors import ConfigurationError, DeadlineExceeded, Overloaded
from resilient.policy import Deadline, Pipeline, RateLimit, Retry, deadline
from resilient.policy.limiter import Gcra, SharedRate
from resilient.testing import faults


def test_spaces_calls_evenly(clock):
    """Without a burst, calls are as far apart as the rate says; one that comes early learns when to come back."""
    pipeline = Pipeline("x", RateLimit(10), clock=clock)
    pipeline.call(len, "")
    with pytest.raises(Overloaded) as caught:
        pipeline.call(len, "")
    assert caught.value.retry_after == pytest.approx(0.1)
    clock.advance(caught.value.retry_after)
    pipeline.call(len, "")


def test_waits_for_its_turn(clock):
    """With a wait, calls queue up to it, sync and async, and no further."""
    pipeline = Pipeline("x", RateLimit(10, wait=0.15), clock=clock)

    async def work():
        return 1

    pipeline.call(len, "")
    pipeline.call(len, "")
    assert asyncio.run(pipeline.acall(work)) == 1
    assert clock.slept == pytest.approx([0.1, 0.1])
    with deadline(0.05, clock=clock), pytest.raises(Overloaded):
        pipeline.call(len, "")
    with faults.no_waiting():
        pipeline.call(len, "")


def test_limits_calls_or_attempts(clock):
    """Before Retry it limits calls; after it, each attempt takes a turn."""

    def fails():
        raise ConnectionRefusedError

    for policies, turns in (((RateLimit(1, burst=9), Retry()), 1), ((Retry(), RateLimit(1, burst=9)), 3)):
        pipeline = Pipeline("x", *policies, clock=clock)
        with pytest.raises(ConnectionRefusedError):
            pipeline.call(fails)
        (core,) = pipeline._slow.state.limits.values()
        assert core._due - clock.monotonic() == pytest.approx(turns - sum(clock.slept), abs=1e-6)
        clock.slept.clear()


def test_the_deadline_comes_first(clock):
    """A call whose time is up takes no turn."""
    pipeline = Pipeline("x", Deadline(1), RateLimit(1), clock=clock)
    with deadline(0, clock=clock), pytest.raises(DeadlineExceeded):
        pipeline.call(len, "")
    pipeline.call(len, "")


class Shared:
    """Shared state that answers with what it is told to."""

    def __init__(self, answer):
        self.answer = answer
        self.asked = []

    def take(self, name, interval, burst, wait):
        self.asked.append((name, interval, burst, wait))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def atake(self, name, interval, burst, wait):
        return self.take(name, interval, burst, wait)


def test_shared_state_decides(clock):
    """With shared state, it alone decides, sync and async."""
    shared = Shared(3.0)
    assert isinstance(shared, SharedRate)
    pipeline = Pipeline("x", RateLimit(10, per=2, burst=4, wait=1, shared=shared), clock=clock)
    with pytest.raises(Overloaded):
        pipeline.call(len, "")
    shared.answer = 0.5

    async def work():
        return 1

    assert asyncio.run(pipeline.acall(work)) == 1
    assert clock.slept == [0.5]
    assert shared.asked == [("x", 0.2, 4, 1.0)] * 2


def test_limits_alone_while_shared_state_fails(clock):
    """A dead store neither stops calls nor lifts the limit."""
    pipeline = Pipeline("x", RateLimit(1, shared=Shared(ConnectionError())), clock=clock)

    async def work():
        return 1

    pipeline.call(len, "")
    with pytest.raises(Overloaded):
        pipeline.call(len, "")
    with pytest.raises(Overloaded):
        asyncio.run(pipeline.acall(work))


@pytest.mark.parametrize(
    "options", [{"rate": 0}, {"rate": 1, "per": 0}, {"rate": 1, "burst": 0}, {"rate": 1, "wait": -1}]
)
def test_nonsense_is_refused(options):
    """Bad numbers are refused where they are written."""
    with pytest.raises(ConfigurationError):
        RateLimit(**options)


class RateMachine(RuleBasedStateMachine):
    """In any stretch of time at most ``burst + time / interval`` turns begin, and a turn is refused only for that."""

    @initialize(interval=st.sampled_from([0.25, 0.5, 1.0]), burst=st.integers(1, 5))
    def start(self, interval, burst):
        self.core = Gcra(interval, burst)
        self.interval, self.burst = interval, burst
        self.at = 100.0
        self.turns = []

    @rule(ticks=st.integers(0, 12))
    def pass_time(self, ticks):
        self.at += ticks * 0.25

    def fits(self, moment):
        """Whether one more turn at that moment keeps the promise for every stretch that ends there."""
        turns = [*self.turns, moment]
        return all(
            len(turns) - index <= self.burst + (moment - begin) / self.interval + 1e-9
            for index, begin in enumerate(turns)
        )

    @rule(wait=st.sampled_from([0.0, 0.25, 1.0, 5.0]))
    def take(self, wait):
        pause = self.core.take(self.at, wait)
        if pause <= wait:
            assert self.fits(self.at + pause)
            self.turns.append(self.at + pause)
        else:
            assert not self.fits(self.at + pause - 0.25), "a turn was refused that would have fitted"


TestRateMachine = RateMachine.TestCase
TestRateMachine.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
