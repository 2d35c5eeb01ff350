"""What breakers and retries do in the cases that matter, ours and other libraries', judged from the outside.

    python benchmarks/policy_correctness.py

Each cell holds what was seen and whether it is right. A breaker is judged by what reaches the dependency, never by what
it says of itself. Libraries that are not installed are left out. Exits with 1 where one of our own cells is wrong.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from resilient import events
from resilient.policy import Breaker, Pipeline, Retry

Call = Callable[[Callable[[], Any]], Any]
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

    return circuitbreaker.CircuitBreaker(failure_threshold=4, recovery_timeout=WAIT).call


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


BREAKERS = {
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


RETRIES = {
    "resilient": our_retry,
    "tenacity": tenacity_retry,
    "stamina": stamina_retry,
    "pyresilience": pyresilience_retry,
    "redress": redress_retry,
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
    calls = {"calls per call, dependency down, one layer": amplification, "the same, three layers": stacked}
    wrong += table("retries with 4 attempts (wrong in bold)", RETRIES, calls)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
