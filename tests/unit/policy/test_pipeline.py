import asyncio
import copy
import functools
import inspect

import pytest

from resilient import events
from resilient.errors import CircuitOpen, ConfigurationError, DeadlineExceeded, InvalidInput, Unavailable
from resilient.policy import (
    Breaker,
    Budget,
    Bulkhead,
    Deadline,
    Degraded,
    Failure,
    Fallback,
    Hedge,
    Pipeline,
    RateLimit,
    Retry,
    deadline,
)
from resilient.policy.events import AttemptFailed, CallRejected, FellBack


def refuse():
    raise ConnectionRefusedError


async def arefuse():
    raise ConnectionRefusedError


def test_reads_as_a_line():
    """Printing a pipeline shows what a person would write."""
    pipeline = Pipeline(
        "orders-db",
        Fallback(refuse),
        Deadline(1.5),
        RateLimit(10),
        Retry(on={Failure.TIMEOUT}),
        Budget(ratio=0.1),
        Breaker(rate=0.25),
        Bulkhead(20, wait=0.1),
        Deadline(0.5),
    )
    assert str(pipeline) == (
        "orders-db: Fallback(refuse) > Deadline(1.5) > RateLimit(10) > Retry(attempts=3, on={timeout}) > "
        "Budget(ratio=0.1) > Breaker(rate=0.25) > Bulkhead(20, wait=0.1) > Deadline(0.5)"
    )
    assert repr(Pipeline("x", Hedge())) == "Pipeline('x', Hedge())"
    assert str(Pipeline("x")) == "x: no policies"
    assert pipeline.name == "orders-db"
    assert pipeline.policies[1] == Deadline(1.5)


@pytest.mark.parametrize(
    ("policies", "advice"),
    [
        ((Breaker(), Retry()), "Retry before Breaker"),
        ((Bulkhead(1), Retry()), "Retry before Bulkhead"),
        ((Hedge(), Retry()), "Retry before Hedge"),
        ((Breaker(), Hedge()), "Hedge before Breaker"),
        ((Bulkhead(1), Hedge()), "Hedge before Bulkhead"),
        ((RateLimit(1), Hedge()), "Hedge before RateLimit"),
        ((Retry(), Fallback(refuse)), "Fallback before Retry"),
        ((Breaker(), Fallback(refuse)), "Fallback before Breaker"),
        ((Bulkhead(1), Fallback(refuse)), "Fallback before Bulkhead"),
        ((Deadline(1), Fallback(refuse)), "Fallback before Deadline"),
        ((Hedge(), Fallback(refuse)), "Fallback before Hedge"),
        ((RateLimit(1), Fallback(refuse)), "Fallback before RateLimit"),
        ((Retry(), Retry()), "nest two pipelines"),
        ((Breaker(), Breaker()), "nest two pipelines"),
        ((Budget(),), r"add Retry\(\)"),
        ((Deadline(1), Deadline(2)), "shorter"),
        ((Deadline(1), Deadline(2), Retry()), "one before Retry"),
        ((Retry(), Deadline(1), Breaker()), "write it last"),
        ((RateLimit(1), Deadline(1)), "Deadline first"),
        ((Breaker(), Deadline(1)), "Deadline first"),
        ((Retry,), "with brackets"),
        ((deadline(2),), r"write Deadline\(2\)"),
        ((2.0,), r"write Deadline\(2.0\)"),
        (("retry",), "write one of Deadline"),
    ],
)
def test_nonsense_is_refused_with_advice(policies, advice):
    """A pipeline that makes no sense is refused when it is made, and the error says what to write."""
    with pytest.raises(ConfigurationError, match=advice):
        Pipeline("x", *policies)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Deadline(0), r"Deadline\(seconds=...\) takes a number that is more than 0, got 0$"),
        (lambda: Retry(base=-1), r"Retry\(base=...\) takes a number that is 0 or more, got -1$"),
        (lambda: Retry(attempts=0), "whole number from 1 up, got 0; attempts counts the first try too"),
        (lambda: Breaker(rate=0), r"Breaker\(rate=...\) takes a part of 1, got 0; write rate=0.5"),
        (lambda: Breaker(rate=1.5), "takes a part of 1, got 1.5"),
        (lambda: Pipeline("shop", Breaker(), Retry()), "pipeline 'shop' has Retry inside Breaker: the breaker would"),
        (lambda: Pipeline("shop", Retry(), Deadline(1), Deadline(2)), "pipeline 'shop' has several deadlines"),
        (lambda: Pipeline("shop", Retry(), Deadline(1), Breaker()), "pipeline 'shop' has a Deadline between Retry"),
        (lambda: Pipeline("shop", "retry"), "write one of Deadline, Retry, Budget, Breaker"),
    ],
)
def test_a_refusal_says_what_it_is_about(make, words):
    """The error names the owner, the parameter and what was given."""
    with pytest.raises(ConfigurationError, match=words):
        make()


def test_numbers_and_kinds_are_shown_shortly():
    """A policy's text has numbers without needless digits, and kinds in order."""
    assert repr(Breaker(window=20.0)) == "Breaker(window=20)"
    assert repr(Retry(on=[Failure.TRANSIENT, Failure.TIMEOUT])) == "Retry(attempts=3, on={timeout, transient})"


@pytest.mark.parametrize("name", ["", None, Retry()])
def test_needs_a_name(name):
    """The first argument is the name of what is protected."""
    with pytest.raises(ConfigurationError, match="its name"):
        Pipeline(name, Retry())


def test_immutable():
    """Neither a pipeline nor a policy can be changed."""
    with pytest.raises(ConfigurationError, match="with_options"):
        Pipeline("x").name = "y"
    with pytest.raises(AttributeError):
        Retry().attempts = 5
    assert copy.copy(Retry(attempts=2)) == Retry(attempts=2)


def test_async_function_in_the_sync_path():
    """It is refused with what to write instead, it does not run, and nothing is left unawaited."""
    ran = []

    async def work():
        ran.append(1)

    for pipeline in (Pipeline("x", Retry()), Pipeline("x", Breaker(), Bulkhead(1))):
        with pytest.raises(InvalidInput, match=r"await pipeline\.acall"):
            pipeline.call(work)
        with pytest.raises(InvalidInput, match=r"await pipeline\.acall"):
            pipeline.call(work)
    assert ran == []


def test_sync_function_in_the_async_path():
    """It is refused with what to write instead."""

    async def main():
        with pytest.raises(InvalidInput, match=r"pipeline.call\(function"):
            await Pipeline("x", Retry()).acall(len, "abc")

    asyncio.run(main())


def test_any_awaitable_will_do():
    """The async path takes functions that return futures and tasks too."""

    async def main():
        return await Pipeline("x", Retry()).acall(lambda: asyncio.ensure_future(asyncio.sleep(0, "ok")))

    assert asyncio.run(main()) == "ok"


def test_decorates():
    """A decorated function keeps its name, signature and documentation; sync stays sync and async async."""
    orders = Pipeline("x", Deadline(5), Retry(), Breaker(), Bulkhead(5))

    @orders
    def load(number: int, *, upper: bool = False) -> str:
        """Load one."""
        return f"{number}{upper}"

    @orders.idempotent
    async def aload(number: int) -> int:
        return number

    assert load(1, upper=True) == "1True"
    assert asyncio.run(aload(2)) == 2
    assert inspect.iscoroutinefunction(aload)
    assert not inspect.iscoroutinefunction(load)
    assert (load.__name__, load.__doc__) == ("load", "Load one.")
    assert list(inspect.signature(load).parameters) == ["number", "upper"]


def test_decorates_methods_partials_and_objects():
    """Methods, partials and callable objects are decorated by what they are."""
    pipeline = Pipeline("x", Retry())

    class Repository:
        @pipeline
        def load(self, number):
            return (type(self).__name__, number)

        @pipeline
        async def aload(self, number):
            return number

    class Callable:
        async def __call__(self):
            return "called"

    assert Repository().load(1) == ("Repository", 1)
    assert asyncio.run(Repository().aload(2)) == 2
    assert pipeline(functools.partial(max, 3))(1) == 3
    assert asyncio.run(pipeline(functools.partial(Repository().aload, 4))()) == 4
    assert asyncio.run(pipeline(Callable())()) == "called"


def test_decorates_wrappers_by_what_they_are():
    """A wrapper is judged by itself, whatever it wraps."""
    pipeline = Pipeline("x", Retry())

    async def inner():
        return "async"

    @pipeline
    @functools.wraps(inner)
    def runs_it():
        return asyncio.run(inner())

    @pipeline
    @functools.wraps(len)
    async def threaded(value):
        return len(value)

    @pipeline
    @functools.wraps(inner)
    def forgets_it():
        return inner()

    assert runs_it() == "async"
    assert asyncio.run(threaded("abc")) == 3
    with pytest.raises(InvalidInput, match="acall"):
        forgets_it()


def test_a_fork_gets_new_locks(clock):
    """In a forked child no lock is held by a thread that does not exist there."""
    from resilient.policy import _state

    pipeline = Pipeline("x", Retry(), RateLimit(1000), Breaker(min_calls=1), Bulkhead(1), clock=clock)
    state = pipeline._slow.state
    cores = [state.breaker, state.bulkhead, state.budget, *state.limits.values()]
    for core in cores:
        core._lock.acquire()
    state.lock.acquire()
    _state._forks._forked()
    with pytest.raises(ConnectionRefusedError):
        pipeline.call(refuse)
    assert pipeline.breaker.state == "open"


def test_decorator_refuses_generators_and_others():
    """A generator function would be called and not run; what is no function cannot be called."""
    with pytest.raises(ConfigurationError, match="generator"):

        @Pipeline("x")
        def numbers():
            yield 1

    with pytest.raises(ConfigurationError, match="no function"):
        Pipeline("x")(42)


def test_arguments_named_like_ours():
    """The user's keyword arguments may have any name."""
    assert Pipeline("x").call(dict, fn=1, function=2, self=3) == {"fn": 1, "function": 2, "self": 3}


def test_the_same_object_for_sync_and_async(clock):
    """Failures of sync and async callers add up in one breaker."""
    pipeline = Pipeline("x", Breaker(min_calls=4), clock=clock)
    for _ in range(2):
        with pytest.raises(ConnectionRefusedError):
            pipeline.call(refuse)
        with pytest.raises(ConnectionRefusedError):
            asyncio.run(pipeline.acall(arefuse))
    with pytest.raises(CircuitOpen):
        pipeline.call(len, "")
    with pytest.raises(CircuitOpen):
        asyncio.run(pipeline.acall(arefuse))


def test_options_share_the_state(clock):
    """A pipeline made with options has its own attempts and deadline, and the same breaker, bulkhead and counters."""
    pipeline = Pipeline("x", Deadline(2), Retry(attempts=3), Breaker(min_calls=3), Bulkhead(3), clock=clock)
    once = pipeline.with_options(attempts=1, deadline=0.5)
    assert once is pipeline.with_options(attempts=1, deadline=0.5)
    assert str(once) == "x: Deadline(0.5) > Retry(attempts=1) > Breaker(min_calls=3) > Bulkhead(3)"
    assert once.call(deadline.remaining) == 0.5
    with pytest.raises(ConnectionRefusedError):
        once.call(refuse)
    assert pipeline.stats() == once.stats()
    assert pipeline.stats().failed == 1
    with pytest.raises(ConnectionRefusedError):
        pipeline.call(refuse)
    assert once.breaker.state == "open"
    for number in range(100):
        assert pipeline.with_options(deadline=number + 1.0).name == "x"


def test_no_retry_into_a_breaker_that_just_opened(clock):
    """A failure that opens the breaker goes to the caller as it is: no wait, and no CircuitOpen in its place."""
    pipeline = Pipeline("x", Retry(attempts=5), Breaker(min_calls=2), clock=clock)
    with pytest.raises(ConnectionRefusedError):
        pipeline.call(refuse)
    assert pipeline.breaker.state == "open"
    assert len(clock.slept) == 1
    short = Pipeline("x", Retry(attempts=2, wait=lambda state: 9.0), Breaker(min_calls=1, wait=5), clock=clock)
    with pytest.raises(ConnectionRefusedError):
        short.call(refuse)
    assert (short.stats().failed, short.stats().retried) == (1, 1), "a wait that outlasts the breaker's is worth it"


def test_options_that_do_not_fit():
    """An option for a policy that is not there is refused with advice."""
    with pytest.raises(ConfigurationError, match=r"add Retry\(\)"):
        Pipeline("x").with_options(attempts=2)
    with pytest.raises(ConfigurationError, match=r"with deadline\(2\)"):
        Pipeline("x", Retry(), Deadline(1)).with_options(deadline=2)
    with pytest.raises(ConfigurationError, match="attempts"):
        Pipeline("x", Retry()).with_options(attempts=0)


def test_no_breaker_to_look_at():
    """Asking for the breaker of a pipeline without one is refused with advice."""
    with pytest.raises(ConfigurationError, match=r"add Breaker\(\)"):
        _ = Pipeline("x").breaker


def test_fallback_is_marked(clock):
    """A substitute is wrapped, carries its reason, and is counted."""
    pipeline = Pipeline("x", Fallback(lambda error: "stale"), Retry(attempts=2), Breaker(min_calls=2), clock=clock)
    answer = pipeline.call(refuse)
    assert isinstance(answer, Degraded)
    assert (answer.value, type(answer.error)) == ("stale", ConnectionRefusedError)
    assert isinstance(pipeline.call(len, "abc").error, CircuitOpen)
    assert asyncio.run(pipeline.acall(arefuse)) == Degraded("stale", answer.error)
    assert pipeline.stats().fell_back == 3


def test_fallback_may_be_async_and_bare(clock):
    """An async fallback is awaited; ``mark=False`` hands the substitute out as it is."""

    async def substitute(error):
        await asyncio.sleep(0)
        return type(error).__name__

    pipeline = Pipeline("x", Fallback(substitute, mark=False), clock=clock)
    assert asyncio.run(pipeline.acall(arefuse)) == "ConnectionRefusedError"
    assert Pipeline("x", Fallback(lambda error: 1, mark=False)).call(refuse) == 1


def test_fallback_does_not_hide_bugs(clock):
    """A wrong request and an error nobody knows go to the caller; so does an interrupt."""
    pipeline = Pipeline("x", Fallback(lambda error: "stale"), clock=clock)
    for error in (ValueError, RuntimeError, KeyboardInterrupt):

        def fails(error=error):
            raise error

        with pytest.raises(error):
            pipeline.call(fails)
    with pytest.raises(ConfigurationError, match="lambda error: 42"):
        Fallback(42)


def test_fallback_that_fails():
    """What the fallback raises goes to the caller, with the first error as its context."""

    def broken(error):
        raise Unavailable("no copy either")

    with pytest.raises(Unavailable) as caught:
        Pipeline("x", Fallback(broken)).call(refuse)
    assert isinstance(caught.value.__context__, ConnectionRefusedError)


def test_fallback_answers_after_the_deadline():
    """A cancelled async call is answered by the fallback too."""
    pipeline = Pipeline("x", Fallback(lambda error: "stale", mark=False), Deadline(0.01))
    assert asyncio.run(pipeline.acall(asyncio.sleep, 5)) == "stale"


def test_tells_what_happens(clock):
    """Failed attempts, refusals and substitutes are events with the pipeline's name and no value of the user's."""
    sink = events.MemorySink()
    unsubscribe = events.subscribe(sink, kinds=(AttemptFailed, CallRejected, FellBack))
    try:
        pipeline = Pipeline("x", Fallback(lambda error: 0), Breaker(min_calls=1), clock=clock)
        pipeline.call(refuse)
        pipeline.call(refuse)
    finally:
        unsubscribe()
    assert list(sink.events) == [
        AttemptFailed(pipeline="x", failure="unavailable", error="ConnectionRefusedError", attempt=1),
        FellBack(pipeline="x", error="ConnectionRefusedError"),
        CallRejected(pipeline="x", reason="breaker"),
        FellBack(pipeline="x", error="CircuitOpen"),
    ]


def test_stats_add_up(clock):
    """The counters tell what happened."""
    pipeline = Pipeline("x", Retry(attempts=2), clock=clock)
    for function in (len, len):
        pipeline.call(function, "")
    with pytest.raises(ConnectionRefusedError):
        pipeline.call(refuse)
    stats = pipeline.stats()
    assert (stats.succeeded, stats.failed, stats.retried, stats.recovered) == (2, 1, 1, 0)
    assert (stats.running, stats.breaker, stats.window) == (None, None, None)
    assert pipeline.stats() == stats


def test_compiled_callables_are_found_in_tracebacks(clock):
    """A traceback through a pipeline shows the line of the compiled source."""
    import traceback

    try:
        Pipeline("x", Retry(attempts=1), clock=clock).call(refuse)
    except ConnectionRefusedError as error:
        text = "".join(traceback.format_exception(error))
    assert "result = fn(*args, **kwargs)" in text


def test_blocks(clock):
    """The block form takes the same layers: bulkhead, breaker, rate limit and both deadlines."""
    pipeline = Pipeline(
        "x",
        Deadline(2),
        Retry(attempts=3, base=0),
        RateLimit(1000, wait=1),
        Breaker(min_calls=4),
        Bulkhead(1),
        Deadline(0.5),
        clock=clock,
    )
    seen = []
    for attempt in pipeline.attempts():
        with attempt:
            seen.append((attempt.number, deadline.remaining(), pipeline.stats().running))
            if attempt.number < 3:
                raise ConnectionRefusedError
    assert [(number, running) for number, _, running in seen] == [(1, 1), (2, 1), (3, 1)]
    assert all(0.49 < left <= 0.5 for _, left, _ in seen)
    assert deadline.remaining() is None
    stats = pipeline.stats()
    assert (stats.succeeded, stats.recovered, stats.retried, stats.running) == (1, 1, 2, 0)

    def fails():
        for attempt in pipeline.attempts():
            with attempt:
                raise ConnectionError

    with pytest.raises(ConnectionError):
        fails()
    with pytest.raises(CircuitOpen):
        fails()
    assert pipeline.stats().running == 0


def test_async_blocks(clock):
    """The async block form waits without blocking and refuses like the sync one."""
    pipeline = Pipeline(
        "x", Retry(attempts=2), RateLimit(1000, wait=1), Breaker(min_calls=2, slow=1.0), Bulkhead(1), clock=clock
    )

    async def main():
        async for attempt in pipeline.attempts():
            async with attempt:
                if attempt.number == 1:
                    raise ConnectionRefusedError
                clock.advance(2)
        async for attempt in pipeline.attempts():
            async with attempt:
                raise AssertionError("not reached")

    with pytest.raises(CircuitOpen):
        asyncio.run(main())
    assert pipeline.stats().running == 0


def test_a_block_that_runs_into_its_own_deadline_is_tried_again(clock):
    """As a call is: what is left of the time for all attempts counts, not what is left for this one."""
    pipeline = Pipeline("x", Deadline(5), Retry(attempts=3, base=0), Deadline(0.5), clock=clock)
    numbers = []
    for attempt in pipeline.idempotent.attempts():
        with attempt:
            numbers.append(attempt.number)
            if attempt.number < 3:
                clock.advance(0.6)
                raise TimeoutError
    assert numbers == [1, 2, 3]
    assert deadline.remaining() is None

    def late():
        for attempt in pipeline.idempotent.attempts():
            with attempt:
                clock.advance(6)
                raise TimeoutError

    with pytest.raises(DeadlineExceeded):
        late()
    assert pipeline.stats().retried == 2


def test_block_left_early(clock):
    """Leaving the loop from inside a block ends it as a success."""
    pipeline = Pipeline("x", Retry(), Bulkhead(1), clock=clock)
    for attempt in pipeline.attempts():
        with attempt:
            break
    assert (pipeline.stats().succeeded, pipeline.stats().running) == (1, 0)


def test_block_not_entered():
    """A loop without a block is refused instead of running for ever."""

    def loops():
        for _attempt in Pipeline("x", Retry()).attempts():
            continue

    with pytest.raises(ConfigurationError, match="with attempt"):
        loops()
