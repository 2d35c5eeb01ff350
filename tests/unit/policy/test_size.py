import asyncio
import contextlib
import gc
import tracemalloc

import pytest

from resilient.policy import Breaker, Budget, Bulkhead, Deadline, Hedge, Pipeline, RateLimit, Retry

POLICIES = (Deadline(2.0), Retry(), Budget(), Breaker(), Bulkhead(20))


@pytest.mark.parametrize(
    ("policies", "most"),
    [(POLICIES, 5 * 1024), ((Retry(),), 2304), ((Breaker(),), 2816), ((Bulkhead(20),), 2560), ((RateLimit(10),), 2560)],
)
def test_memory_of_an_object(policies, most):
    """A full stack, compiled, costs at most 1 kB for each of its policies; one alone bears the pipeline's own share."""

    def make():
        pipeline = Pipeline("x", *policies)
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
