"""What breakers, retries and time limits do in the cases that matter, ours and other libraries', judged from outside.

    python benchmarks/policy_correctness.py

Each cell holds what was seen and whether it is right. A breaker is judged by what reaches the dependency, never by what
it says of itself. Libraries that are not installed are left out, and those that have no such thing have a dash. Exits
with 1 where one of our own cells is wrong.

Nothing kills a thread, so a sync call ends in time only if the client below it knows the time. The dependency of the
sync rows is such a client: it asks for what is left, as this library's own clients do, and hears an answer wherever the
library round it has one to give. The dependency of the async rows knows nothing and has to be cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from resilient import events
from resilient.policy import Breaker, Deadline, Pipeline, Retry, deadline

Call = Callable[[Callable[[], Any]], Any]
ACall = Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]
WAIT = 0.15  # seconds a breaker stays open
CROWD = 20

events.silence_log()


# ------------------------------------------------------------------------------------------- breakers and retries


def ours() -> Call:
    return Pipeline("bench", Breaker(min_calls=4, wait=WAIT / 1.2)).call


def pybreaker() -> Call:
    import pybreaker

    return pybreaker.CircuitBreaker(fail_max=4, reset_timeout=WAIT).call


def circuitbreaker() -> Call:
    import circuitbreaker

    # Only what it decorates is refused; its own `call` counts and lets everything through.
    return circuitbreaker.CircuitBreaker(failure_threshold=4, recovery_timeout=WAIT)(lambda function: function())


def pyresilience() -> Call:
    from pyresilience import CircuitBreakerConfig, resilient

    config = CircuitBreakerConfig(
        sliding_window_size=10, minimum_calls=4, recovery_timeout=WAIT, success_threshold=1, failure_rate_threshold=0.5
    )
    return resilient(circuit_breaker=config)(lambda function: function())


def interlock() -> Call:
    import interlock

    config = interlock.Config(
        minimum_number_of_calls=4, window_size=10, wait_duration_in_open=WAIT, permitted_calls_in_half_open=1
    )
    return interlock.CircuitBreaker(name="bench", config=config).call


def redress() -> Call:
    import redress

    policy = redress.Policy(
        circuit_breaker=redress.CircuitBreaker(
            failure_threshold=4, window_s=10, recovery_timeout_s=WAIT, trip_on=set(redress.ErrorClass)
        )
    )
    return policy.call


def our_async() -> ACall:
    return Pipeline("bench", Breaker(min_calls=4, wait=WAIT / 1.2)).acall


def circuitbreaker_async() -> ACall:
    import circuitbreaker

    @circuitbreaker.CircuitBreaker(failure_threshold=4, recovery_timeout=WAIT)
    async def call(function: Callable[[], Awaitable[Any]]) -> Any:
        return await function()

    return call


def pyresilience_async() -> ACall:
    from pyresilience import CircuitBreakerConfig, resilient

    config = CircuitBreakerConfig(
        sliding_window_size=10, minimum_calls=4, recovery_timeout=WAIT, success_threshold=1, failure_rate_threshold=0.5
    )

    @resilient(circuit_breaker=config)
    async def call(function: Callable[[], Awaitable[Any]]) -> Any:
        return await function()

    return call


def interlock_async() -> ACall:
    import interlock

    config = interlock.Config(
        minimum_number_of_calls=4, window_size=10, wait_duration_in_open=WAIT, permitted_calls_in_half_open=1
    )
    return interlock.CircuitBreaker(name="bench", config=config).call_async


def redress_async() -> ACall:
    import redress

    breaker = redress.CircuitBreaker(
        failure_threshold=4, window_s=10, recovery_timeout_s=WAIT, trip_on=set(redress.ErrorClass)
    )
    return redress.AsyncPolicy(circuit_breaker=breaker).call


ASYNC_BREAKERS: dict[str, Callable[[], Any]] = {
    "resilient": our_async,
    "circuitbreaker": circuitbreaker_async,
    "pyresilience": pyresilience_async,
    "interlock-cb": interlock_async,
    "redress": redress_async,
}

BREAKERS: dict[str, Callable[[], Any]] = {
    "resilient": ours,
    "pybreaker": pybreaker,
    "circuitbreaker": circuitbreaker,
    "pyresilience": pyresilience,
    "interlock-cb": interlock,
    "redress": redress,
}


def our_retry() -> Call:
    return Pipeline("bench", Retry(attempts=4, base=0)).idempotent.call


def tenacity_retry() -> Call:
    import tenacity

    return tenacity.Retrying(stop=tenacity.stop_after_attempt(4), wait=tenacity.wait_none(), reraise=True)


def stamina_retry() -> Call:
    import stamina

    stamina.instrumentation.set_on_retry_hooks([])
    return stamina.RetryingCaller(attempts=4, wait_initial=0, wait_max=0, wait_jitter=0).on(ConnectionError)


def pyresilience_retry() -> Call:
    from pyresilience import RetryConfig, resilient

    return resilient(retry=RetryConfig(max_attempts=4, delay=0.0001, jitter=False))(lambda function: function())


def redress_retry() -> Call:
    import redress

    return redress.Policy(
        retry=redress.Retry(classifier=redress.default_classifier, strategy=lambda context: 0.0, max_attempts=4)
    ).call


def pyresilience_budget() -> Call:
    from pyresilience import RetryBudgetConfig, RetryConfig, resilient

    retry = RetryConfig(max_attempts=4, delay=0.0001, jitter=False)
    return resilient(retry=retry, retry_budget=RetryBudgetConfig())(lambda function: function())


def redress_budget() -> Call:
    import redress

    budget = redress.budget.Budget(max_retries=10, window_s=10)
    return redress.Policy(
        retry=redress.Retry(
            classifier=redress.default_classifier, strategy=lambda context: 0.0, max_attempts=4, budget=budget
        )
    ).call


RETRIES: dict[str, Callable[[], Any]] = {
    "resilient": our_retry,
    "tenacity": tenacity_retry,
    "stamina": stamina_retry,
    "pyresilience": pyresilience_retry,
    "redress": redress_retry,
    "pyresilience, its budget added": pyresilience_budget,
    "redress, its budget added": redress_budget,
}


# ------------------------------------------------------------------------------------------------------ time limits

TOTAL, ATTEMPT, PAUSE, HANG = 0.5, 0.2, 0.25, 1.5  # seconds: half of the study's


def our_limit() -> Call:
    return Pipeline("bench", Deadline(TOTAL), Retry(attempts=9, wait=lambda state: PAUSE)).idempotent.call


def tenacity_limit() -> Call:
    import tenacity

    return tenacity.Retrying(
        stop=tenacity.stop_after_delay(TOTAL) | tenacity.stop_after_attempt(9),
        wait=tenacity.wait_fixed(PAUSE),
        reraise=True,
    )


def stamina_limit() -> Call:
    import stamina

    stamina.instrumentation.set_on_retry_hooks([])
    caller = stamina.RetryingCaller(
        attempts=9, timeout=TOTAL, wait_initial=PAUSE, wait_max=PAUSE, wait_jitter=0, wait_exp_base=1
    )
    return caller.on(Exception)


def pyresilience_limit() -> Call:
    from pyresilience import RetryConfig, TimeoutConfig, resilient

    retry = RetryConfig(max_attempts=9, delay=PAUSE, backoff_factor=1, jitter=False)
    return resilient(retry=retry, timeout=TimeoutConfig(seconds=TOTAL, per_attempt=False))(lambda function: function())


def redress_limit() -> Call:
    import redress

    return redress.Policy(
        retry=redress.Retry(
            classifier=lambda error: redress.ErrorClass.TRANSIENT,
            strategy=lambda context: PAUSE,
            max_attempts=9,
            deadline_s=TOTAL,
        )
    ).call


LIMITS: dict[str, Callable[[], Any]] = {
    "resilient": our_limit,
    "tenacity": tenacity_limit,
    "stamina": stamina_limit,
    "pyresilience": pyresilience_limit,
    "redress": redress_limit,
}


def our_async_limit() -> ACall:
    return Pipeline("bench", Deadline(TOTAL), Retry(attempts=9, wait=lambda state: PAUSE)).idempotent.acall


def tenacity_async_limit() -> ACall:
    import tenacity

    return tenacity.AsyncRetrying(
        stop=tenacity.stop_after_delay(TOTAL) | tenacity.stop_after_attempt(9),
        wait=tenacity.wait_fixed(PAUSE),
        reraise=True,
    )


def stamina_async_limit() -> ACall:
    import stamina

    stamina.instrumentation.set_on_retry_hooks([])
    caller = stamina.AsyncRetryingCaller(
        attempts=9, timeout=TOTAL, wait_initial=PAUSE, wait_max=PAUSE, wait_jitter=0, wait_exp_base=1
    )
    return caller.on(Exception)


def pyresilience_async_limit() -> ACall:
    from pyresilience import RetryConfig, TimeoutConfig, resilient

    retry = RetryConfig(max_attempts=9, delay=PAUSE, backoff_factor=1, jitter=False)

    @resilient(retry=retry, timeout=TimeoutConfig(seconds=TOTAL, per_attempt=False))
    async def call(function: Callable[[], Awaitable[Any]]) -> Any:
        return await function()

    return call


def redress_async_limit() -> ACall:
    import redress

    return redress.AsyncPolicy(
        retry=redress.AsyncRetry(
            classifier=lambda error: redress.ErrorClass.TRANSIENT,
            strategy=lambda context: PAUSE,
            max_attempts=9,
            deadline_s=TOTAL,
        )
    ).call


ASYNC_LIMITS: dict[str, Callable[[], Any]] = {
    "resilient": our_async_limit,
    "tenacity": tenacity_async_limit,
    "stamina": stamina_async_limit,
    "pyresilience": pyresilience_async_limit,
    "redress": redress_async_limit,
}


def our_timeout() -> Call:
    return Pipeline("bench", Deadline(0.1)).call


def pyresilience_timeout() -> Call:
    from pyresilience import TimeoutConfig, resilient

    return resilient(timeout=TimeoutConfig(seconds=0.1))(lambda function: function())


def interlock_timeout() -> Call:
    from interlock.pipeline import Pipeline as Stack
    from interlock.pipeline import TimeoutStrategy

    return Stack(TimeoutStrategy(0.1)).call


TIMEOUTS: dict[str, Callable[[], Any]] = {
    "resilient": our_timeout,
    "pyresilience": pyresilience_timeout,
    "interlock-cb": interlock_timeout,
}


# ------------------------------------------------------------------------------------------------------------ cases


class Dependency:
    """Counts what reaches it; answers or fails as it is told."""

    def __init__(self, *, seconds: float = 0.0, error: type[BaseException] | None = None) -> None:
        self.seconds, self.error = seconds, error
        self.reached = 0
        self.lock = threading.Lock()

    def __call__(self) -> None:
        with self.lock:
            self.reached += 1
        time.sleep(self.seconds)
        if self.error is not None:
            raise self.error


def quietly(call: Call, function: Callable[[], Any]) -> None:
    with contextlib.suppress(Exception, KeyboardInterrupt):
        call(function)


def reaches(call: Call) -> bool:
    """Whether a call comes through now."""
    dependency = Dependency()
    quietly(call, dependency)
    return dependency.reached == 1


def trip(call: Call) -> None:
    for _ in range(6):
        quietly(call, Dependency(error=ConnectionError))


def crowd(call: Call, dependency: Dependency) -> float:
    """Many callers at once; how long until all are done."""
    start = threading.Barrier(CROWD + 1)

    def caller() -> None:
        start.wait()
        quietly(call, dependency)

    threads = [threading.Thread(target=caller) for _ in range(CROWD)]
    for thread in threads:
        thread.start()
    start.wait()
    begun = time.perf_counter()
    for thread in threads:
        thread.join()
    return time.perf_counter() - begun


def late(call: Call, error: type[BaseException] | None) -> tuple[threading.Event, threading.Thread]:
    """A call that has begun and ends when it is told to."""
    begun, end = threading.Event(), threading.Event()

    def function() -> None:
        begun.set()
        end.wait(5)
        if error is not None:
            raise error

    thread = threading.Thread(target=quietly, args=(call, function))
    thread.start()
    begun.wait(1)
    return end, thread


def half_open(call: Call) -> tuple[str, bool]:
    trip(call)
    time.sleep(WAIT * 1.3)
    dependency = Dependency(seconds=0.3)
    crowd(call, dependency)
    return f"{dependency.reached} of {CROWD}", dependency.reached == 1


def half_open_broken(call: Call) -> tuple[str, bool]:
    trip(call)
    time.sleep(WAIT * 1.3)
    dependency = Dependency(seconds=0.3, error=ConnectionError)
    crowd(call, dependency)
    return f"{dependency.reached} of {CROWD}", dependency.reached == 1


def side_by_side(call: Call) -> tuple[str, bool]:
    spent = crowd(call, Dependency(seconds=0.05))
    return f"{spent:.2f} s", spent < 0.5


def old_success(call: Call) -> tuple[str, bool]:
    end, thread = late(call, None)
    trip_thread = threading.Thread(target=trip, args=(call,))
    trip_thread.start()
    trip_thread.join(0.1)
    end.set()
    thread.join()
    trip_thread.join()
    came = reaches(call)
    return ("closed it" if came else "stays open"), not came


def old_failure(call: Call) -> tuple[str, bool]:
    end_old, old = late(call, ConnectionError)
    trip_thread = threading.Thread(target=trip, args=(call,))
    trip_thread.start()
    trip_thread.join(0.1)
    time.sleep(WAIT * 1.3)
    end_probe, probe = late(call, None)
    end_old.set()
    old.join()
    end_probe.set()
    probe.join()
    trip_thread.join()
    came = reaches(call)
    return ("ignored" if came else "reopened it"), came


def alternating(call: Call) -> tuple[str, bool]:
    good, bad = Dependency(), Dependency(error=ConnectionError)
    for _ in range(100):
        quietly(call, good)
        quietly(call, bad)
    reached = good.reached + bad.reached
    return f"{reached} of 200 came through", reached < 100


def interrupts(call: Call) -> tuple[str, bool]:
    for _ in range(10):
        quietly(call, Dependency(error=KeyboardInterrupt))
    came = reaches(call)
    return ("not counted" if came else "opened it"), came


@contextlib.contextmanager
def own_wall_clock() -> Iterator[Callable[[float], None]]:
    """A wall clock for libraries, as they see it by `time.time` and `datetime.now`; gives what sets it forward."""
    seconds = 0.0

    def set_forward(by: float) -> None:
        nonlocal seconds
        seconds = by

    class Moved(dt.datetime):
        @classmethod
        def now(cls, zone: dt.tzinfo | None = None) -> dt.datetime:
            return dt.datetime.now(zone) + dt.timedelta(seconds=seconds)

        @classmethod
        def utcnow(cls) -> dt.datetime:
            return cls.now(dt.UTC).replace(tzinfo=None)

    real = time.time

    def moved() -> float:
        return real() + seconds

    changed: list[tuple[Any, str, Any]] = []
    mine = sys.modules[__name__]
    for module in [each for each in sys.modules.values() if each is not None and each is not mine]:
        for name, value in list(vars(module).items()):
            if value is real or (value is dt.datetime and module.__name__ != "datetime"):
                changed.append((module, name, value))
                setattr(module, name, moved if value is real else Moved)
    try:
        yield set_forward
    finally:
        for module, name, value in changed:
            setattr(module, name, value)


def wall_clock(call: Call) -> tuple[str, bool]:
    with own_wall_clock() as set_forward:
        trip(call)
        set_forward(3600)
        came = reaches(call)
    return ("let a call through" if came else "stays open"), not came


async def afails() -> None:
    raise ConnectionError


async def atrip(call: ACall) -> None:
    for _ in range(6):
        with contextlib.suppress(Exception):
            await call(afails)


async def areaches(call: ACall) -> bool:
    reached = []

    async def function() -> None:
        reached.append(1)

    with contextlib.suppress(Exception):
        await call(function)
    return bool(reached)


async def cancel_one(call: ACall) -> None:
    """A call that its caller gives up."""
    began = asyncio.Event()

    async def function() -> None:
        began.set()
        await asyncio.sleep(5)

    async def caller() -> None:
        await call(function)

    task = asyncio.create_task(caller())
    waiting = asyncio.create_task(began.wait())
    await asyncio.wait({task, waiting}, timeout=1, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, Exception):
        await task


def cancelled_callers(call: ACall) -> tuple[str, bool]:
    async def main() -> bool:
        for _ in range(10):
            await cancel_one(call)
        return await areaches(call)

    came = asyncio.run(main())
    return ("not counted" if came else "opened it"), came


def cancelled_probe(call: ACall) -> tuple[str, bool]:
    async def main() -> bool:
        await atrip(call)
        await asyncio.sleep(WAIT * 1.3)
        await cancel_one(call)
        if await areaches(call):
            return True
        await asyncio.sleep(WAIT * 3)  # a breaker may take it for a failure, but must not be stuck
        return await areaches(call)

    came = asyncio.run(main())
    return ("recovers" if came else "stuck"), came


def spent(run: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    with contextlib.suppress(Exception):
        run()
    return time.perf_counter() - begun


def in_time(seconds: float) -> tuple[str, bool]:
    return f"{seconds:.2f} s", seconds <= TOTAL + 0.02


def told(seconds: float) -> float:
    """How long a client waits that asks for the time that is left."""
    remaining = deadline.remaining()
    return seconds if remaining is None else min(seconds, remaining)


def attempts_and_pauses(call: Call) -> tuple[str, bool]:
    def function() -> None:
        time.sleep(told(ATTEMPT))
        raise ConnectionError

    return in_time(min(spent(lambda: call(function)) for _ in range(3)))


def one_hangs(call: Call) -> tuple[str, bool]:
    def function() -> None:
        time.sleep(told(HANG))
        raise ConnectionError

    return in_time(min(spent(lambda: call(function)) for _ in range(2)))


def async_attempts_and_pauses(call: ACall) -> tuple[str, bool]:
    async def function() -> None:
        await asyncio.sleep(ATTEMPT)
        raise ConnectionError

    async def main() -> None:
        await call(function)

    return in_time(min(spent(lambda: asyncio.run(main())) for _ in range(3)))


def async_one_hangs(call: ACall) -> tuple[str, bool]:
    async def function() -> None:
        await asyncio.sleep(HANG)
        raise ConnectionError

    async def main() -> None:
        await call(function)

    return in_time(min(spent(lambda: asyncio.run(main())) for _ in range(2)))


def after_hung_calls(call: Call) -> tuple[str, bool]:
    """Four calls that hang and obey nothing, and then one that takes a millisecond."""
    end, begun = threading.Event(), threading.Barrier(5)

    def hangs() -> None:
        begun.wait(5)
        end.wait(5)

    callers = [threading.Thread(target=quietly, args=(call, hangs)) for _ in range(4)]
    for thread in callers:
        thread.start()
    begun.wait(5)
    time.sleep(0.3)
    try:
        call(lambda: time.sleep(0.001))
        seen, right = "ok", True
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what was seen
        seen, right = f"false {type(error).__name__}", False
    end.set()
    for thread in callers:
        thread.join()
    return seen, right


def amplification(call: Call) -> tuple[str, bool]:
    dependency = Dependency(error=ConnectionError)
    for _ in range(500):
        quietly(call, dependency)
    ratio = dependency.reached / 500
    return f"{ratio:.2f}", ratio <= 1.25


def stacked(make: Callable[[], Call]) -> tuple[str, bool]:
    one, two, three = make(), make(), make()
    dependency = Dependency(error=ConnectionError)
    for _ in range(300):
        quietly(one, lambda: two(lambda: three(dependency)))
    ratio = dependency.reached / 300
    return f"{ratio:.2f}", ratio <= 1.25


CASES: dict[str, Callable[[Call], tuple[str, bool]]] = {
    f"{CROWD} callers at a half-open breaker, dependency healthy": half_open,
    f"{CROWD} callers at a half-open breaker, dependency broken": half_open_broken,
    f"{CROWD} calls of 50 ms through a closed breaker": side_by_side,
    "a success from before it opened": old_success,
    "a failure from before it opened, while a probe runs": old_failure,
    "every second call fails": alternating,
    "ten interrupts": interrupts,
    "the wall clock is set an hour forward while it is open": wall_clock,
}

ASYNC_CASES: dict[str, Callable[[ACall], tuple[str, bool]]] = {
    "ten callers that are cancelled": cancelled_callers,
    "a probe that is cancelled": cancelled_probe,
}

LIMIT_CASES: dict[str, Callable[[Call], tuple[str, bool]]] = {
    f"attempts of {ATTEMPT} s with pauses of {PAUSE} s": attempts_and_pauses,
    f"one attempt hangs for {HANG} s": one_hangs,
}

ASYNC_LIMIT_CASES: dict[str, Callable[[ACall], tuple[str, bool]]] = {
    f"attempts of {ATTEMPT} s with pauses of {PAUSE} s": async_attempts_and_pauses,
    f"one attempt hangs for {HANG} s": async_one_hangs,
}


def table(title: str, makers: dict[str, Callable[[], Call]], rows: dict[str, Callable[[Any], tuple[str, bool]]]) -> int:
    """Print one table; returns how many of our own cells are wrong."""
    installed = {}
    for name, make in makers.items():
        with contextlib.suppress(ImportError):
            make()
            installed[name] = make
    print(f"\n## {title}\n\n| case | {' | '.join(installed)} |\n|---|{'---|' * len(installed)}")
    wrong = 0
    for what, case in rows.items():
        cells = []
        for name, make in installed.items():
            seen, right = case(make) if case is stacked else case(make())
            wrong += name == "resilient" and not right
            cells.append(seen if right else f"**{seen}**")
        print(f"| {what} | {' | '.join(cells)} |", flush=True)
    return wrong


def main() -> int:
    wrong = table("breakers (wrong in bold)", BREAKERS, CASES)
    wrong += table("breakers, asyncio (wrong in bold)", ASYNC_BREAKERS, ASYNC_CASES)
    wrong += table(f"all within {TOTAL} s, sync (wrong in bold)", LIMITS, LIMIT_CASES)
    wrong += table(f"all within {TOTAL} s, asyncio (wrong in bold)", ASYNC_LIMITS, ASYNC_LIMIT_CASES)
    hung = {"a call of 1 ms after four that hang": after_hung_calls}
    wrong += table("time limits of 0.1 s for sync calls (wrong in bold)", TIMEOUTS, hung)
    calls = {"calls per call, dependency down, one layer": amplification, "the same, three layers": stacked}
    wrong += table("retries with 4 attempts (wrong in bold)", RETRIES, calls)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
