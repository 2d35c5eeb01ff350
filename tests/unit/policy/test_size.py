import asyncio
import contextlib
import gc
import tracemalloc

import pytest

from resilient.policy import Breaker, Budget, Bulkhead, Deadline, Fallback, Hedge, Pipeline, RateLimit, Retry
from resilient.policy._breaker import BreakerCore
from resilient.policy._budget import BudgetCore
from resilient.policy._bulkhead import BulkheadCore
from resilient.policy.limiter import Gcra

POLICIES = (Deadline(2.0), Retry(), Budget(), Breaker(), Bulkhead(20))


def breaker_in_use():
    core = BreakerCore(Breaker())
    for second in range(1000, 1010):
        core.enter(float(second)).ok()
    return core  # which holds its policy


@pytest.mark.parametrize(
    "make",
    [
        breaker_in_use,
        lambda: (Budget(), BudgetCore(0.2, 1.0, 10.0, 0.0)),
        lambda: (Bulkhead(20), BulkheadCore(20, 20)),
        lambda: (RateLimit(10), Gcra(0.1, 1)),
        Retry,
        lambda: Deadline(1.0),
        lambda: Fallback(len),
    ],
)
def test_memory_of_a_policy(make):
    """A policy costs at most 1 kB, with all that it remembers."""
    kept = [make() for _ in range(20)]
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        kept += [make() for _ in range(200)]
        gc.collect()
        each = (tracemalloc.get_traced_memory()[0] - before) / 200
    finally:
        tracemalloc.stop()
    assert each <= 1024


@pytest.mark.parametrize(
    ("policies", "most"),
    [(POLICIES, 5 * 1024), ((Retry(),), 2560), ((Breaker(),), 2816), ((Bulkhead(20),), 2560), ((RateLimit(10),), 2560)],
)
def test_memory_of_an_object(policies, most):
    """A full stack, compiled, costs at most 1 kB for each of its policies; one alone bears the pipeline's own share."""

    names = (f"dependency {number}" for number in range(220))

    def make():
        pipeline = Pipeline(next(names), *policies)
        pipeline.call(len, "")
        return pipeline

    kept = [make() for _ in range(20)]
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        kept += [make() for _ in range(200)]
        gc.collect()
        each = (tracemalloc.get_traced_memory()[0] - before) / 200
    finally:
        tracemalloc.stop()
    assert each <= most


def test_no_cycle_garbage():
    """A failing call leaves nothing that only the cycle collector could free."""

    def fails():
        raise ConnectionRefusedError

    async def afails():
        raise ConnectionRefusedError

    quick = Pipeline("x", Retry(attempts=3, base=0), Budget(burst=1e6), Breaker(metrics_only=True), Bulkhead(2))

    async def amany(count):
        for _ in range(count):
            with contextlib.suppress(ConnectionRefusedError):
                await quick.acall(afails)

    def many(count):
        for _ in range(count):
            with contextlib.suppress(ConnectionRefusedError):
                quick.call(fails)

    many(5)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(amany(5))
    gc.collect()
    gc.disable()
    try:
        many(50)
        assert gc.collect() <= 5
        loop.run_until_complete(amany(50))
        assert gc.collect() <= 20, "what an event loop leaves once for each run, not for each call"
    finally:
        gc.enable()
        loop.close()


def test_no_cycle_garbage_of_a_hedge():
    """A failing race leaves no cycle either, though its futures hold the error and the error holds its frames."""

    def fails():
        raise ConnectionRefusedError

    async def afails():
        raise ConnectionRefusedError

    quick = Pipeline("x", Retry(attempts=3, base=0), Budget(burst=1e6), Hedge(delay=5.0), Breaker(metrics_only=True))

    async def amany(count):
        for _ in range(count):
            with contextlib.suppress(ConnectionRefusedError):
                await quick.idempotent.acall(afails)

    def many(count):
        for _ in range(count):
            with contextlib.suppress(ConnectionRefusedError):
                quick.idempotent.call(fails)

    many(5)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(amany(5))
    gc.collect()
    gc.disable()
    try:
        many(20)
        assert gc.collect() <= 5
        loop.run_until_complete(amany(20))
        assert gc.collect() <= 20, "what an event loop leaves once for each run, not for each call"
    finally:
        gc.enable()
        loop.close()
