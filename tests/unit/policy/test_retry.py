import asyncio
from types import SimpleNamespace

import pytest
import tenacity
from hypothesis import given
from hypothesis import strategies as st

from resilient import events
from resilient.errors import CircuitOpen, ConfigurationError, DeadlineExceeded, Overloaded, Unavailable
from resilient.policy import Budget, Failure, Pipeline, Retry, Verdict, classify
from resilient.policy._retry import mark, retried_below
from resilient.policy.events import Retried, RetrySuppressed
from resilient.policy.strategies import GrowingWait
from resilient.testing import faults


class Script:
    """A function that goes through a list of outcomes; the last one stays."""

    def __init__(self, *outcomes):
        self.outcomes = list(outcomes)
        self.calls = 0

    def __call__(self):
        self.calls += 1
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, BaseException) or (isinstance(outcome, type) and issubclass(outcome, BaseException)):
            raise outcome
        return outcome

    async def acall(self):
        await asyncio.sleep(0)
        return self()


def both(pipeline, make, *, idempotent=False):
    """Run a script through the sync path, the async path, the decorated forms and the block form."""
    calls = pipeline.idempotent if idempotent else pipeline

    def block(script):
        for attempt in calls.attempts():
            with attempt:
                value = script()
        return value

    async def ablock(script):
        async for attempt in calls.attempts():
            async with attempt:
                value = await script.acall()
        return value

    async def through_acall(script):
        return await calls.acall(script.acall)

    async def decorated(script):
        return await calls(script.acall)()

    ways = [
        calls.call,
        lambda script: calls(script)(),
        block,
        lambda script: asyncio.run(through_acall(script)),
        lambda script: asyncio.run(decorated(script)),
        lambda script: asyncio.run(ablock(script)),
    ]
    for way in ways:
        script = make()
        try:
            outcome = way(script)
        except BaseException as error:  # noqa: BLE001 - the outcome is what is looked at
            outcome = error
        yield outcome, script.calls


def test_recovers(clock):
    """A failure without effect is tried again, and the answer comes as if nothing had happened."""
    pipeline = Pipeline("x", Retry(attempts=3), Budget(burst=100), clock=clock)
    for outcome, calls in both(pipeline, lambda: Script(ConnectionRefusedError, ConnectionRefusedError, "ok")):
        assert (outcome, calls) == ("ok", 3)
    stats = pipeline.stats()
    assert (stats.succeeded, stats.recovered, stats.failed) == (6, 6, 0)


def test_gives_up_with_the_last_error(clock):
    """After the last attempt the caller gets the error of that attempt, as it was raised."""
    pipeline = Pipeline("x", Retry(attempts=3), Budget(burst=100), clock=clock)
    for outcome, calls in both(pipeline, lambda: Script(ConnectionRefusedError("one"), ConnectionRefusedError("last"))):
        assert str(outcome) == "last"
        assert calls == 3


def test_only_known_to_have_had_no_effect(clock):
    """A failure that may have taken effect is repeated only for calls declared idempotent."""
    pipeline = Pipeline("x", Retry(attempts=3), Budget(burst=100), clock=clock)
    for outcome, calls in both(pipeline, lambda: Script(ConnectionResetError)):
        assert isinstance(outcome, ConnectionResetError)
        assert calls == 1
    for _, calls in both(pipeline, lambda: Script(ConnectionResetError), idempotent=True):
        assert calls == 3


@pytest.mark.parametrize(
    "error",
    [
        KeyboardInterrupt(),
        SystemExit(),
        asyncio.CancelledError(),
        DeadlineExceeded("x"),
        CircuitOpen("x"),
        Overloaded("x"),
        ValueError("x"),
        RuntimeError("nobody knows it"),
    ],
)
def test_never_retried(error, clock):
    """Interrupts, cancellation, our own refusals, wrong requests and unknown errors get one attempt."""
    script = Script(error)
    with pytest.raises(type(error)):
        Pipeline("x", Retry(), clock=clock).idempotent.call(script)
    assert script.calls == 1


def test_kinds_can_be_chosen(clock):
    """Which kinds of failure are retried is the user's choice."""
    deadlock = classify.table({RuntimeError: Verdict(Failure.CONFLICT, no_effect=True)})
    script = Script(RuntimeError, "ok")
    assert Pipeline("x", Retry(on={Failure.CONFLICT}), classify=deadlock, clock=clock).call(script) == "ok"
    with pytest.raises(ConfigurationError, match="kinds of failure"):
        Retry(on={OSError})


def test_full_jitter_within_bounds(clock):
    """Waits are drawn between zero and a range that doubles up to the cap."""
    pipeline = Pipeline("x", Retry(attempts=8, base=1, cap=5), Budget(burst=1000), clock=clock)
    for _ in range(50):
        clock.slept.clear()
        with pytest.raises(ConnectionRefusedError):
            pipeline.call(Script(ConnectionRefusedError))
        assert len(clock.slept) <= 7
        padded = [*clock.slept, *[0.0] * 7]
        assert all(wait <= limit for wait, limit in zip(padded, [1, 2, 4, 5, 5, 5, 5], strict=False))
    assert len({round(wait, 6) for wait in clock.slept}) > 1


def test_tenacitys_strategies(clock):
    """Any wait and stop of tenacity's works, with the numbers it expects."""
    retry = Retry(
        attempts=10,
        wait=tenacity.wait_fixed(1) + tenacity.wait_incrementing(start=0, increment=1),
        stop=tenacity.stop_after_delay(5.5) | tenacity.stop_after_attempt(9),
    )
    pipeline = Pipeline("x", retry, clock=clock)
    script = Script(ConnectionRefusedError)
    with pytest.raises(ConnectionRefusedError):
        pipeline.call(script)
    assert clock.slept == [1, 2, 3]  # after six seconds it stops

    seen = []

    def looks(state):
        seen.append((state.attempt_number, type(state.outcome.exception()), state.seconds_since_start))
        return 1.0

    with pytest.raises(ConnectionRefusedError):
        Pipeline("x", Retry(wait=looks), clock=clock).call(Script(ConnectionRefusedError))
    assert seen == [(1, ConnectionRefusedError, 0), (2, ConnectionRefusedError, 1)]


def test_retry_after_is_honoured_and_bounded(clock):
    """The dependency is not called before the time it asked for; a wait that is too long is not begun."""
    pipeline = Pipeline("x", Retry(attempts=2, base=0.001, max_retry_after=10), clock=clock)
    assert pipeline.call(Script(Unavailable("x", retry_after=4), "ok")) == "ok"
    assert clock.slept == [4]
    script = Script(Unavailable("x", retry_after=11))
    with pytest.raises(Unavailable):
        pipeline.call(script)
    assert script.calls == 1


def test_not_retried_above_what_was_retried_below(clock):
    """An error that an inner pipeline dealt with gets no more attempts from the layers above it, wrapped or not."""
    inner = Pipeline("inner", Retry(attempts=3), clock=clock)
    outer = Pipeline("outer", Retry(attempts=3), clock=clock)
    script = Script(ConnectionRefusedError)
    with pytest.raises(ConnectionRefusedError):
        outer.idempotent.call(lambda: inner.call(script))
    assert script.calls == 3
    assert outer.stats().suppressed == 1

    def wraps():
        try:
            return inner.call(script)
        except ConnectionRefusedError as error:
            raise Unavailable("wrapped") from error

    with pytest.raises(Unavailable):
        outer.idempotent.call(wraps)
    assert script.calls == 6


def test_the_mark_is_found_behind_other_errors():
    """An error that was raised while a marked one was handled bears the mark; ``from None`` says it is another."""
    inner = ConnectionRefusedError()
    mark(inner, owner=1)

    def behind(*, hidden=False, depth=1):
        error = inner
        for _ in range(depth):
            outer = Unavailable("x")
            outer.__context__, outer.__suppress_context__ = error, hidden
            error = outer
        return error

    assert retried_below(behind(), owner=2)
    assert not retried_below(behind(), owner=1)
    assert not retried_below(behind(hidden=True), owner=2)
    assert retried_below(behind(depth=9), owner=2)
    assert not retried_below(behind(depth=10), owner=2), "no further than ten errors are looked at"
    assert not retried_below(Unavailable("x"), owner=2)


def test_strategies_see_what_tenacity_shows_them(clock):
    """Strategies find the attempts, the waits so far, the next wait and the outcome where tenacity puts them."""
    seen = []

    def stop(state):
        seen.append((state.attempt_number, state.idle_for, state.upcoming_sleep, state.outcome.failed))
        assert state.retry_object is not None
        assert (state.args, state.kwargs) == ((), {})
        return False

    retry = Retry(attempts=4, wait=tenacity.wait_incrementing(start=1, increment=1), stop=stop)
    with pytest.raises(ConnectionRefusedError):
        Pipeline("x", retry, clock=clock).call(Script(ConnectionRefusedError))
    assert seen == [(1, 0.0, 1.0, True), (2, 1.0, 2.0, True), (3, 3.0, 3.0, True)]


def test_retried_above_what_was_not_safe_below(clock):
    """Where the layer below could not know that the call may be repeated, the layer that knows repeats it."""
    inner = Pipeline("inner", Retry(attempts=3), clock=clock)
    outer = Pipeline("outer", Retry(attempts=3), clock=clock)
    script = Script(ConnectionResetError)
    with pytest.raises(ConnectionResetError):
        outer.idempotent.call(lambda: inner.call(script))
    assert script.calls == 3


def test_one_error_object_raised_again_and_again(clock):
    """The mark of an earlier call on the same error object does not stop a later call."""
    pipeline = Pipeline("x", Retry(attempts=2), clock=clock)
    script = Script(ConnectionRefusedError("the same object"))
    for expected in (2, 4):
        with pytest.raises(ConnectionRefusedError):
            pipeline.call(script)
        assert script.calls == expected


def test_tells_what_it_does(clock):
    """Each retry, and each retry that was wanted and not made, is an event."""
    sink = events.MemorySink()
    unsubscribe = events.subscribe(sink, kinds=(Retried, RetrySuppressed))
    try:
        pipeline = Pipeline("x", Retry(attempts=2, wait=lambda state: 0.5), clock=clock)
        with pytest.raises(ConnectionRefusedError):
            pipeline.call(Script(ConnectionRefusedError))
        with pytest.raises(ConnectionResetError):
            pipeline.call(Script(ConnectionResetError))
    finally:
        unsubscribe()
    assert list(sink.events) == [
        Retried(pipeline="x", attempt=1, wait=0.5),
        RetrySuppressed(pipeline="x", reason="attempts"),
        RetrySuppressed(pipeline="x", reason="not_idempotent"),
    ]


def test_waiting_can_be_turned_off(clock):
    """The switch for tests takes the waits away and changes nothing else."""
    pipeline = Pipeline("x", Retry(attempts=3, wait=lambda state: 60.0), clock=clock)
    script = Script(ConnectionRefusedError, ConnectionRefusedError, "ok")
    with faults.no_waiting():
        assert pipeline.call(script) == "ok"
    assert clock.slept == []
    assert pipeline.call(Script(ConnectionRefusedError, "ok")) == "ok"
    assert clock.slept == [60.0]


def test_tenacity_is_not_imported_without_a_failure():
    """A process whose calls succeed never loads tenacity."""
    import subprocess
    import sys

    code = (
        "import sys; from resilient.policy import *; Pipeline('x', Retry(), Breaker()).call(len, 'a');"
        "assert 'tenacity' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@given(first=st.floats(0.001, 100), rate=st.floats(1, 5), longest=st.floats(0.001, 1000), attempt=st.integers(1, 2000))
def test_growing_wait_is_bounded_and_never_shrinks(first, rate, longest, attempt):
    """The waits of Step Functions grow by their rate and stop at the longest."""

    class State:
        attempt_number = attempt

    class Next:
        attempt_number = attempt + 1

    wait = GrowingWait(first, rate, longest)
    assert 0 < wait(State) <= wait(Next) <= longest
    assert 0 <= GrowingWait(first, rate, longest, jitter=True)(State) <= wait(State)


def test_step_functions_names(clock):
    """The names of Step Functions make the same waits as there."""
    retry = Retry.step_functions(IntervalSeconds=3, MaxAttempts=4, BackoffRate=1.5, MaxDelaySeconds=6)
    script = Script(ConnectionRefusedError)
    with pytest.raises(ConnectionRefusedError):
        Pipeline("x", retry, clock=clock).call(script)
    assert clock.slept == [3, 4.5, 6, 6]
    assert script.calls == 5


@pytest.mark.parametrize(
    "options",
    [
        {"IntervalSeconds": 0},
        {"IntervalSeconds": -1},
        {"MaxAttempts": -1},
        {"MaxAttempts": 1.5},
        {"BackoffRate": 0.5},
        {"MaxDelaySeconds": 0},
        {"JitterStrategy": "SOME"},
    ],
)
def test_step_functions_refuses_nonsense(options):
    """What Step Functions would not take is not taken here."""
    with pytest.raises(ConfigurationError):
        Retry.step_functions(**options)


@pytest.mark.parametrize(
    "options",
    [{"attempts": 0}, {"attempts": 2.5}, {"attempts": True}, {"base": -1}, {"cap": float("nan")}, {"wait": 0.1}],
)
def test_nonsense_is_refused(options):
    """Bad numbers are refused where they are written."""
    with pytest.raises(ConfigurationError):
        Retry(**options)


def test_step_functions_jitter_draws_below_the_length():
    """``FULL`` draws each wait between zero and its length; ``NONE`` takes its length."""
    state = SimpleNamespace(attempt_number=2)
    drawn = {Retry.step_functions(JitterStrategy="FULL").wait(state) for _ in range(20)}
    assert len(drawn) > 1
    assert all(0 <= each <= 2 for each in drawn)
    assert Retry.step_functions(JitterStrategy="NONE").wait(state) == 2
