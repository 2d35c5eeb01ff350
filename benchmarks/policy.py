"""What policies cost, against a bare call and against other libraries, in one interleaved run.

    python benchmarks/policy.py [--rounds 15] [--threads 8]

Every contender makes the same number of calls in each round, one after the other, so that a busy machine slows all
alike; the least CPU time of a contender counts. Compare ratios, not nanoseconds. A library that is not installed is
left out (``pip install --group bench``). Exits with 1 where one of our own goals is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

from resilient import events
from resilient.policy import Breaker, Budget, Bulkhead, Deadline, Pipeline, Retry

Maker = Callable[[], Callable[[Any], Any]]
FULL = (Deadline(2.0), Retry(), Budget(), Breaker(), Bulkhead(20))


def work(value: int) -> int:
    return value


async def awork(value: int) -> int:
    return value


def ours(*policies: Any) -> Callable[[Any], Any]:
    return Pipeline("bench", *policies)


# ------------------------------------------------------------------------------------------------------ contenders


def bare() -> Any:
    return lambda function: function


def loop() -> Any:
    def decorate(function: Any) -> Any:
        def call(value: int) -> int:
            for left in (2, 1, 0):
                try:
                    return function(value)
                except ConnectionError:
                    if not left:
                        raise
            raise AssertionError

        return call

    return decorate


def tenacity_retry() -> Any:
    import tenacity

    return tenacity.retry(
        stop=tenacity.stop_after_attempt(3),
        wait=tenacity.wait_random_exponential(0.05, 5),
        retry=tenacity.retry_if_exception_type(ConnectionError),
        reraise=True,
    )


def stamina_retry() -> Any:
    import stamina

    return stamina.retry(on=ConnectionError, attempts=3)


def pyresilience_retry() -> Any:
    from pyresilience import RetryConfig, resilient

    return resilient(retry=RetryConfig(max_attempts=3, retry_on=(ConnectionError,)))


def redress_retry() -> Any:
    import redress
    from redress.strategies import decorrelated_jitter

    return redress.retry(classifier=redress.default_classifier, strategy=decorrelated_jitter(max_s=5.0))


def pybreaker_breaker() -> Any:
    import pybreaker

    return pybreaker.CircuitBreaker(fail_max=10, reset_timeout=5)


def circuitbreaker_breaker() -> Any:
    import circuitbreaker

    return circuitbreaker.CircuitBreaker(failure_threshold=10, recovery_timeout=5)


def pyresilience_breaker() -> Any:
    from pyresilience import CircuitBreakerConfig, resilient

    return resilient(circuit_breaker=CircuitBreakerConfig(sliding_window_size=100, minimum_calls=10))


def interlock_breaker() -> Any:
    import interlock

    config = interlock.Config(window_type=interlock.WindowType.TIME_BASED, window_size=10)
    return interlock.CircuitBreaker(name="bench", config=config)


def pyresilience_stack() -> Any:
    from pyresilience import BulkheadConfig, CircuitBreakerConfig, FallbackConfig, RetryConfig, resilient

    return resilient(
        retry=RetryConfig(max_attempts=3, retry_on=(ConnectionError,)),
        circuit_breaker=CircuitBreakerConfig(failure_threshold=10),
        bulkhead=BulkheadConfig(max_concurrent=20),
        fallback=FallbackConfig(handler=lambda error: None, fallback_on=[KeyError]),
    )


def interlock_stack() -> Any:
    from interlock.pipeline import BulkheadStrategy, CircuitBreakerStrategy
    from interlock.pipeline import Pipeline as Stack

    return Stack(CircuitBreakerStrategy(interlock_breaker()), BulkheadStrategy(20))


def redress_stack() -> Any:
    import redress
    from redress.strategies import decorrelated_jitter

    policy = redress.Policy(
        retry=redress.Retry(
            classifier=redress.default_classifier, strategy=decorrelated_jitter(max_s=5.0), max_attempts=3
        ),
        circuit_breaker=redress.CircuitBreaker(failure_threshold=10, window_s=10.0, recovery_timeout_s=5.0),
    )
    return lambda function: lambda value: policy.call(lambda: function(value))


def tenacity_stack() -> Any:
    breaker, retry, places = pybreaker_breaker(), tenacity_retry(), threading.BoundedSemaphore(20)

    def decorate(function: Any) -> Any:
        @retry
        @breaker
        def call(value: int) -> int:
            with places:
                return function(value)

        return call

    return decorate


def asyncio_timeout() -> Any:
    def decorate(function: Any) -> Any:
        async def call(value: int) -> int:
            async with asyncio.timeout(2.0):
                return await function(value)

        return call

    return decorate


SYNC: dict[str, tuple[str, Any]] = {
    "bare call": ("-", bare),
    "hand-written loop": ("retry", loop),
    "resilient: retry": ("retry", lambda: ours(Retry())),
    "tenacity": ("retry", tenacity_retry),
    "stamina": ("retry", stamina_retry),
    "pyresilience: retry": ("retry", pyresilience_retry),
    "redress: retry": ("retry", redress_retry),
    "resilient: breaker": ("breaker", lambda: ours(Breaker())),
    "circuitbreaker": ("breaker", circuitbreaker_breaker),
    "pybreaker": ("breaker", pybreaker_breaker),
    "pyresilience: breaker": ("breaker", pyresilience_breaker),
    "interlock: breaker": ("breaker", interlock_breaker),
    "resilient: full stack": ("stack", lambda: ours(*FULL)),
    "pyresilience: retry+breaker+bulkhead+fallback": ("stack", pyresilience_stack),
    "redress: retry+breaker": ("stack", redress_stack),
    "interlock: breaker+bulkhead": ("stack", interlock_stack),
    "tenacity(pybreaker(semaphore))": ("stack", tenacity_stack),
}

ASYNC: dict[str, tuple[str, Any]] = {
    "bare call": ("-", bare),
    "resilient: retry": ("retry", lambda: ours(Retry())),
    "tenacity": ("retry", tenacity_retry),
    "stamina": ("retry", stamina_retry),
    "pyresilience: retry": ("retry", pyresilience_retry),
    "resilient: breaker": ("breaker", lambda: ours(Breaker())),
    "circuitbreaker": ("breaker", circuitbreaker_breaker),
    "pyresilience: breaker": ("breaker", pyresilience_breaker),
    "interlock: breaker": ("breaker", interlock_breaker),
    "resilient: stack without timer": ("stack", lambda: ours(*FULL[1:])),
    "resilient: full stack": ("stack", lambda: ours(*FULL)),
    "asyncio.timeout alone": ("stack", asyncio_timeout),
    "pyresilience: retry+breaker+bulkhead+fallback": ("stack", pyresilience_stack),
}


def ready(table: dict[str, tuple[str, Any]], function: Any) -> dict[str, Any]:
    """The contenders that are installed, wrapped round the function."""
    found = {}
    for name, (_, make) in table.items():
        try:
            found[name] = make()(function)
        except ImportError as missing:
            print(f"# {name}: left out, {missing.name} is not installed")
    return found


# ------------------------------------------------------------------------------------------------------ measurements


def spend(call: Any, count: int) -> float:
    """CPU seconds of one thread for so many calls, the loop's own cost included."""
    begun = time.thread_time()
    for _ in range(count):
        call(1)
    return time.thread_time() - begun


async def aspend(call: Any, count: int) -> float:
    """The same for async calls."""
    begun = time.thread_time()
    for _ in range(count):
        await call(1)
    return time.thread_time() - begun


def fair(cost: float) -> int:
    """How many calls take about two milliseconds: short enough that a round sees one state of the machine."""
    return max(20, int(0.002 / max(cost, 1e-8)))


def sync_costs(rounds: int) -> dict[str, float]:
    """Nanoseconds for each call."""
    calls = ready(SYNC, work)
    counts = {name: fair(spend(call, 200) / 200) for name, call in calls.items()}
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(rounds * 20):
        for name, call in calls.items():
            best[name] = min(best[name], spend(call, counts[name]) / counts[name] * 1e9)
    return best


async def async_costs(rounds: int) -> dict[str, float]:
    """The same for async calls."""
    calls = ready(ASYNC, awork)
    counts = {name: fair(await aspend(call, 200) / 200) for name, call in calls.items()}
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(rounds * 20):
        for name, call in calls.items():
            best[name] = min(best[name], await aspend(call, counts[name]) / counts[name] * 1e9)
    return best


def thread_rates(rounds: int, threads: int) -> dict[str, float]:
    """Calls per second of so many threads on one object."""
    calls = ready({name: entry for name, entry in SYNC.items() if entry[0] in {"-", "breaker", "stack"}}, work)
    best = dict.fromkeys(calls, 0.0)
    for _ in range(max(2, rounds // 5)):
        for name, call in calls.items():
            best[name] = max(best[name], rate(call, threads))
    return best


def rate(call: Any, threads: int, seconds: float = 0.15) -> float:
    """Calls per second; each thread counts its own."""
    done: list[int] = []
    start, stop = threading.Barrier(threads + 1), threading.Event()

    def run() -> None:
        count = 0
        start.wait()
        while not stop.is_set():
            for _ in range(50):
                call(1)
            count += 50
        done.append(count)

    team = [threading.Thread(target=run) for _ in range(threads)]
    for thread in team:
        thread.start()
    start.wait()
    begun = time.perf_counter()
    time.sleep(seconds)
    stop.set()
    spent = time.perf_counter() - begun
    for thread in team:
        thread.join()
    return sum(done) / spent


def memory() -> float:
    """Bytes of a full stack that has been called, for each of its policies."""

    def make() -> Pipeline:
        pipeline = Pipeline("bench", *FULL)
        pipeline.call(work, 1)
        return pipeline

    kept = [make() for _ in range(10)]
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    kept += [make() for _ in range(200)]
    size = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return size / 200 / len(FULL)


def garbage() -> int:
    """Objects that only the cycle collector frees, for 100 failing calls of three attempts."""
    events.silence_log()
    pipeline = Pipeline("bench", Retry(base=0), Budget(burst=1e6), Breaker(metrics_only=True), Bulkhead(20))

    def fails() -> None:
        raise ConnectionRefusedError

    def many(count: int) -> None:
        for _ in range(count):
            with contextlib.suppress(ConnectionRefusedError):
                pipeline.call(fails)

    many(5)
    gc.collect()
    gc.disable()
    many(100)
    left = gc.collect()
    gc.enable()
    return left


# ------------------------------------------------------------------------------------------------------------ report


def show(title: str, table: dict[str, tuple[str, Any]], costs: dict[str, float]) -> None:
    base = costs["bare call"]
    print(f"\n## {title}\n\n| contender | ns added | x bare |\n|---|---:|---:|")
    for name in table:
        if name in costs:
            print(f"| {name} | {costs[name] - base:,.0f} | {costs[name] / base:.1f} |")


class Goals:
    """Compares ratios with what was promised."""

    def __init__(self) -> None:
        self.missed = 0
        print("\n## goals\n\n| goal | limit | measured | |\n|---|---:|---:|---|")

    def at_most(self, what: str, value: float, limit: float) -> None:
        self.row(what, value, limit, met=value <= limit, sign="<=")

    def at_least(self, what: str, value: float, limit: float) -> None:
        self.row(what, value, limit, met=value >= limit, sign=">=")

    def row(self, what: str, value: float, limit: float, *, met: bool, sign: str) -> None:
        self.missed += not met
        print(f"| {what} | {sign} {limit:.4g} | {value:.4g} | {'met' if met else 'MISSED'} |")

    def ratio(self, what: str, costs: dict[str, float], mine: str, other: str, limit: float) -> None:
        """Our added time as a part of theirs."""
        if other in costs:
            base = costs["bare call"]
            self.at_most(what, (costs[mine] - base) / (costs[other] - base), limit)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=15)
    options.add_argument("--threads", type=int, default=8)
    chosen = options.parse_args()
    costs = sync_costs(chosen.rounds)
    acosts = asyncio.run(async_costs(chosen.rounds))
    rates = thread_rates(chosen.rounds, chosen.threads)
    show("sync, a call that succeeds", SYNC, costs)
    show("async, a call that succeeds", ASYNC, acosts)
    print(f"\n## {chosen.threads} threads on one object\n\n| contender | 1000 calls/s |\n|---|---:|")
    for name, value in rates.items():
        print(f"| {name} | {value / 1000:,.0f} |")
    goals = Goals()
    full, mine = "resilient: full stack", "resilient: retry"
    smaller = "pyresilience: retry+breaker+bulkhead+fallback"
    goals.ratio("full stack / pyresilience's smaller stack", costs, full, smaller, 0.4)
    goals.ratio("full stack / tenacity round pybreaker", costs, full, "tenacity(pybreaker(semaphore))", 0.07)
    goals.ratio("breaker / circuitbreaker", costs, "resilient: breaker", "circuitbreaker", 1.0)
    goals.ratio("retry / tenacity", costs, mine, "tenacity", 1 / 60)
    goals.ratio("retry / stamina", costs, mine, "stamina", 1 / 60)
    goals.at_most("full stack, ns added (sketch: 1418 over a call of 53)", costs[full] - costs["bare call"], 1418)
    # Of the others, interlock-cb alone has every row of policy_correctness.py right.
    for mine, other in ((full, "interlock: breaker+bulkhead"), ("resilient: breaker", "interlock: breaker")):
        if other in rates:
            what = f"{chosen.threads} threads: {mine.split(': ')[1]} / that of the next correct library"
            goals.at_least(what, rates[mine] / rates[other], 5)
    goals.at_most("bytes for each policy of a full stack", memory(), 1024)
    goals.at_most("cycle garbage of 100 failing calls", garbage(), 0)
    return 1 if goals.missed else 0


if __name__ == "__main__":
    sys.exit(main())
