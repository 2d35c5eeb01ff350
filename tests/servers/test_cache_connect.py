"""A server that cannot even be connected to: a black hole that answers nothing, not with a refusal either."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from resilient.cache import AsyncCache, Cache

CONNECT, LOADER = 0.1, 0.02  # seconds: the default limit for a connection, and what the source takes
SLACK = 0.08  # a second connection would take longer; a busy machine takes no more before it runs a thread
CALLERS, CALLS = 8, 25


@pytest.fixture
def black_hole() -> Iterator[int]:
    """A port whose queue is full and that nobody accepts from: who connects gets no answer."""
    with contextlib.ExitStack() as sockets:
        server = sockets.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        address = server.getsockname()
        for _ in range(20):
            filler = sockets.enter_context(socket.socket())
            filler.settimeout(0.3)
            try:
                filler.connect(address)
            except TimeoutError:
                break
        else:
            pytest.fail("this system answers for a port whose queue is full: nothing here can be shown")
        yield address[1]


def judge(cache_state: str, took: list[float], limit: Callable[[float], float], figures: Callable[..., None]) -> None:
    took.sort()
    figures(
        "black-hole",
        calls=len(took),
        slowest=f"{took[-1] * 1000:.0f} ms",
        median=f"{took[len(took) // 2] * 1000:.0f} ms",
    )
    assert took[-1] < limit(CONNECT + LOADER) + SLACK
    assert took[len(took) // 2] < limit(LOADER) + SLACK, "the breaker keeps calls from the hole"
    assert cache_state == "down"


def test_who_cannot_connect_waits_for_the_connect_limit_and_the_loader_at_most(
    black_hole: int, limit: Callable[[float], float], figures: Callable[..., None]
) -> None:
    """Many threads, keys of their own: each call is answered by the loader, in a tenth of a second more at most."""

    def load() -> str:
        time.sleep(LOADER)
        return "value"

    with Cache(f"redis://127.0.0.1:{black_hole}/0", namespace="shop", ttl=300) as cache:

        def caller(number: int) -> list[float]:
            took = []
            for call in range(CALLS):
                began = time.monotonic()
                assert cache.get_or_load(f"k{number}:{call}", load) == "value"
                took.append(time.monotonic() - began)
            return took

        with ThreadPoolExecutor(CALLERS) as pool:
            took = [each for part in pool.map(caller, range(CALLERS)) for each in part]
        judge(cache.stats().state, took, limit, figures)


def test_a_task_that_cannot_connect_waits_no_longer_either(
    black_hole: int, limit: Callable[[float], float], figures: Callable[..., None]
) -> None:
    """The same for tasks, writes included: an invalidation is remembered, and keeps nobody."""

    async def load() -> str:
        await asyncio.sleep(LOADER)
        return "value"

    async def main() -> None:
        async with AsyncCache(f"redis://127.0.0.1:{black_hole}/0", namespace="shop", ttl=300) as cache:

            async def caller(number: int) -> list[float]:
                took = []
                for call in range(CALLS):
                    began = time.monotonic()
                    assert await cache.get_or_load(f"k{number}:{call}", load) == "value"
                    took.append(time.monotonic() - began)
                    began = time.monotonic()
                    await cache.invalidate(f"k{number}:{call}")
                    took.append(time.monotonic() - began)
                return took

            parts = await asyncio.gather(*(caller(number) for number in range(CALLERS)))
            judge(cache.stats().state, [each for part in parts for each in part], limit, figures)
            assert cache.stats().journal == CALLERS * CALLS

    asyncio.run(main())
