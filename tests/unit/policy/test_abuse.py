"""What nobody should do, and what happens then: absurd numbers, callbacks that fail, blocks that are torn apart."""

import asyncio
import contextvars
import copy
import math
import pickle
import time

import pytest

from resilient.errors import CircuitOpen, ConfigurationError, DeadlineExceeded, InvalidInput, Overloaded
from resilient.policy import (
    Breaker,
    Budget,
    Bulkhead,
    Deadline,
    Failure,
    Fallback,
    Hedge,
    Pipeline,
    RateLimit,
    Retry,
    Verdict,
    deadline,
)

HUGE = 10**400


def refuse():
    raise ConnectionRefusedError


@pytest.mark.parametrize(
    "make",
    [
        lambda: Deadline(HUGE),
        lambda: Deadline(math.inf),
        lambda: deadline(HUGE),
        lambda: deadline(math.nan),
        lambda: Retry(attempts=HUGE),
        lambda: Retry(base=HUGE),
        lambda: Retry(on=None),
        lambda: Retry(on=3),
        lambda: Retry(on="transient"),
        lambda: Breaker(rate=math.nan),
        lambda: Breaker(window=HUGE),
        lambda: Breaker(window=1e-9),
        lambda: Breaker(wait=1e300, max_wait=1e300),
        lambda: Breaker(counts=None),
        lambda: Breaker(metrics_only="no"),
        lambda: Bulkhead(HUGE),
        lambda: Bulkhead(10**7),
        lambda: Bulkhead(1, wait=math.inf),
        lambda: RateLimit(1e300),
        lambda: RateLimit(1, per=1e300),
        lambda: RateLimit(1, burst=HUGE),
        lambda: Hedge(delay=1e300),
        lambda: Hedge(threads=HUGE),
        lambda: Budget(burst=math.inf),
        lambda: Fallback(len, mark="no"),
        lambda: Pipeline("x", Retry(), classify=3),
        lambda: Pipeline("x", Retry(), classify=[3]),
        lambda: Pipeline("x", Retry(), clock=3),
    ],
)
def test_absurd_input_is_refused_where_it_is_written(make):
    """A number that overflows somewhere below, or a thing of another kind, is refused at once and shown shortly."""
    with pytest.raises(ConfigurationError) as caught:
        make()
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize("policies", [(Retry(),), (Breaker(),), (RateLimit(1e12),), (Bulkhead(10**6, wait=1e9),)])
def test_the_largest_numbers_work(policies):
    """What is not refused does not overflow."""
    with deadline(1e300), deadline(math.inf):
        assert Pipeline("x", Deadline(1e9), *policies).call(len, "abc") == 3


def test_a_race_without_an_end_is_waited_for():
    """A deadline that never comes is no time limit that a lock could overflow with."""
    pipeline = Pipeline("x", Hedge(delay=0.001))
    with deadline(math.inf):
        assert pipeline.idempotent.call(lambda: time.sleep(0.02) or "answer") == "answer"


def test_a_strategy_that_asks_for_ever(clock):
    """An endless wait of a strategy is cut to what a machine can sleep."""
    pipeline = Pipeline("x", Retry(attempts=2, wait=lambda state: math.inf), clock=clock)
    with pytest.raises(ConnectionRefusedError):
        pipeline.call(refuse)
    assert clock.slept == [1e9]


@pytest.mark.parametrize("hint", [math.nan, -5.0])
def test_a_hint_that_is_none(clock, hint):
    """A nonsensical Retry-After shortens no wait."""
    judge = lambda error: Verdict(Failure.THROTTLED, no_effect=True, retry_after=hint)  # noqa: E731 - short
    pipeline = Pipeline("x", Retry(attempts=2, wait=lambda state: 0.5), classify=judge, clock=clock)
    with pytest.raises(ConnectionRefusedError):
        pipeline.call(refuse)
    assert clock.slept == [0.5]


@pytest.mark.parametrize("answer", ["transient", Failure.TRANSIENT, 1, False])
def test_a_classifier_that_returns_no_verdict(answer):
    """It is told so, with the error that it should have judged as the context."""
    pipeline = Pipeline("x", Retry(), classify=lambda error: answer)
    with pytest.raises(ConfigurationError, match="return Verdict") as caught:
        pipeline.call(refuse)
    assert isinstance(caught.value.__context__, ConnectionRefusedError)


@pytest.mark.parametrize("how", ["classify", "wait", "stop", "fallback"])
def test_a_callback_that_fails_takes_nothing_along(clock, how):
    """Its error goes to the caller with the real one as its context; places, probes and deadlines are given back."""
    broken = lambda given: 1 / 0  # noqa: E731 - short
    layers = {
        "wait": (Retry(wait=broken), Breaker(min_calls=1), Bulkhead(1)),
        "stop": (Retry(stop=broken, base=0), Breaker(min_calls=1), Bulkhead(1)),
        "classify": (Retry(), Breaker(min_calls=1), Bulkhead(1)),
        "fallback": (Fallback(broken), Breaker(min_calls=1), Bulkhead(1)),
    }[how]
    at = 1 if how == "fallback" else 0
    judge = broken if how == "classify" else None
    pipeline = Pipeline("x", *layers[:at], Deadline(5), *layers[at:], classify=judge, clock=clock)
    with pytest.raises(ZeroDivisionError) as caught:
        pipeline.call(refuse)
    assert isinstance(caught.value.__context__, ConnectionRefusedError)
    caught = None  # its traceback holds the call and what it had in hand
    clock.advance(100)
    assert pipeline.call(len, "abc") == 3
    assert pipeline.stats().running == 0
    assert deadline.remaining() is None


def test_a_probe_whose_judge_fails_gives_its_place_back(clock):
    """Half open, an error in the classifier does not lock everybody out for ever."""
    pipeline = Pipeline("x", Breaker(min_calls=1), clock=clock)
    strict = Pipeline("x", Breaker(min_calls=1), classify=lambda error: 1 / 0, clock=clock, _state=pipeline._slow.state)
    with pytest.raises(ConnectionRefusedError):
        pipeline.call(refuse)
    clock.advance(100)
    with pytest.raises(ZeroDivisionError):
        strict.call(refuse)
    assert pipeline.breaker.state == "half_open"
    assert pipeline.call(len, "abc") == 3
    assert pipeline.breaker.state == "closed"


def test_an_async_fallback_in_the_sync_path():
    """It is refused with what to write instead, it does not run, and nothing is left unawaited."""

    async def substitute(error):
        raise AssertionError("it must not run")

    pipeline = Pipeline("x", Fallback(substitute))
    with pytest.raises(InvalidInput, match=r"await pipeline\.acall") as caught:
        pipeline.call(refuse)
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)


def test_a_block_has_no_substitute():
    """The block form of a pipeline with a fallback is refused: there is no answer to replace."""
    with pytest.raises(ConfigurationError, match=r"pipeline\.call"):
        Pipeline("x", Fallback(lambda error: 1), Retry()).attempts()


@pytest.mark.parametrize("policies", [(Deadline(5), Retry()), (Retry(), Deadline(5))])
def test_the_callers_deadline_cancels_a_task(policies):
    """A pipeline with a longer deadline of its own cancels an async call when its caller's is over."""
    pipeline = Pipeline("x", *policies)

    async def main():
        begun = time.monotonic()
        with pytest.raises(DeadlineExceeded), deadline(0.03):
            await pipeline.acall(asyncio.sleep, 5)
        assert time.monotonic() - begun < 1
        assert asyncio.current_task().cancelling() == 0

        begun = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            async with deadline(0.03):
                await pipeline.acall(asyncio.sleep, 5)
        assert time.monotonic() - begun < 1
        assert asyncio.current_task().cancelling() == 0

    asyncio.run(main())


def test_a_fake_deadline_outside_moves_no_event_loop(clock):
    """A caller's deadline on a fake clock does not cancel a call of the machine's clock."""
    pipeline = Pipeline("x", Deadline(5))

    async def main():
        with deadline(0.001, clock=clock):
            return await pipeline.acall(asyncio.sleep, 0.02, "slept")

    assert asyncio.run(main()) == "slept"


def test_a_generator_that_is_ended_elsewhere():
    """A generator with a deadline or an attempt inside may be ended in another context than it began in."""
    pipeline = Pipeline("x", Deadline(5), Retry(), Breaker(), Bulkhead(1))

    def bounded():
        with deadline(5):
            yield

    def tried():
        for attempt in pipeline.attempts():
            with attempt:
                yield

    for make in (bounded, tried):
        generator = make()
        contextvars.copy_context().run(next, generator)
        assert next(generator, None) is None
        generator = make()
        contextvars.copy_context().run(next, generator)
        generator.close()
    assert deadline.remaining() is None
    assert (pipeline.stats().succeeded, pipeline.stats().running) == (1, 0)


def test_copies_are_the_same_and_pickles_are_refused():
    """A copy of what holds a pipeline holds the same one; a pickle is refused with what to do instead."""
    pipeline = Pipeline("x", Retry())
    assert copy.copy(pipeline) is pipeline
    assert copy.deepcopy({"pipeline": [pipeline]})["pipeline"][0] is pipeline
    with pytest.raises(ConfigurationError, match="at import time, in each process"):
        pickle.dumps(pipeline)


def test_a_pipeline_inside_itself():
    """Calls may nest in one pipeline; a full bulkhead refuses the inner one, does not hang, and says whose it is."""
    pipeline = Pipeline("orders", Deadline(5), Retry(base=0), Breaker(), Bulkhead(2))
    assert pipeline.call(lambda: pipeline.call(len, "abc")) == 3
    with pytest.raises(Overloaded, match=r"^orders: the call was not made"):
        pipeline.call(lambda: pipeline.call(lambda: pipeline.call(len, "abc")))
    assert pipeline.stats().running == 0


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_interrupt_while_it_waits(interrupt):
    """An interrupt in the wait between two attempts goes straight through and leaves nothing behind."""

    class Interrupted:
        monotonic = staticmethod(time.monotonic)
        wall = staticmethod(time.time)

        def sleep(self, seconds):
            raise interrupt

        async def asleep(self, seconds):
            raise interrupt

    pipeline = Pipeline(
        "x", Fallback(lambda error: 1), Deadline(5), Retry(base=1), Breaker(), Bulkhead(1), clock=Interrupted()
    )
    with pytest.raises(interrupt):
        pipeline.call(refuse)
    assert pipeline.stats().running == 0
    assert deadline.remaining() is None
    assert pipeline.call(len, "abc") == 3


def test_a_refusal_of_the_breaker_inside_another_pipeline_counts_nothing_there(clock):
    """An open breaker further in is no failure of the dependency further out."""
    inner = Pipeline("inner", Breaker(min_calls=1), clock=clock)
    outer = Pipeline("outer", Retry(base=0), Breaker(min_calls=1), clock=clock)
    inner.breaker.isolate()
    for _ in range(5):
        with pytest.raises(CircuitOpen, match=r"^inner: "):
            outer.call(inner.call, len, "abc")
    assert outer.breaker.state == "closed"
    assert outer.stats().retried == 0
