"""Random schedules of the lease: readers, invalidators, leases that end early, processes that die.

Every store operation, and every read of the source, is a step of its own; a scheduler picks the next step at random.
The row only grows, so that each read can be judged by itself: it may not return less than what the row was when the
last invalidation that had ended before it began was made.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import pytest

from resilient.cache import AsyncCache, AsyncMemoryStore
from resilient.cache._memory import Table
from resilient.testing import FakeClock

LEASE = 10.0
Result = TypeVar("Result")


class World:
    """A row, a store, a clock and the scheduler."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.clock = FakeClock()
        self.table = Table(100, self.clock)
        self.row = 0
        self.told = 0  # the row as the last invalidation that has ended told it
        self.loads = 0
        self.waiting: list[asyncio.Future[None]] = []
        self.stuck = 0

    async def step(self) -> None:
        """Wait for the next turn."""
        turn = asyncio.get_running_loop().create_future()
        self.waiting.append(turn)
        await turn

    async def play(self, tasks: Sequence[asyncio.Task[Any]], jumps: float) -> None:
        """Let all tasks end, one step at a time; now and then a lease's time passes in between."""
        idle = 0
        while not all(task.done() for task in tasks):
            for _ in range(4):
                await asyncio.sleep(0)
            idle = 0 if self.waiting else idle + 1
            assert idle < 1000, "somebody waits, and nothing is left that could wake them"
            if self.waiting:
                turn = self.waiting.pop(self.random.randrange(len(self.waiting)))
                if not turn.done():
                    turn.set_result(None)
                if self.random.random() < jumps:
                    self.clock.advance(self.random.choice([1.0, LEASE / 2, LEASE + 0.1]))


class Process:
    """A process of its own over the shared table; one that died takes no step any more."""

    local = False
    failures = (ConnectionError,)

    def __init__(self, world: World, **options: Any) -> None:
        self.world = world
        self.dead = False
        self.cache = AsyncCache(self, namespace="n", ttl=20, jitter=0.0, lease=LEASE, clock=world.clock)
        self.read = self.cache.lazy("k", **options)(self._load)

    async def _load(self) -> int:
        self.world.loads += 1
        await self._step()
        value = self.world.row
        await self._step()
        return value

    async def _step(self) -> None:
        await self.world.step()
        if self.dead:
            await asyncio.Event().wait()

    async def judged(self) -> None:
        """Read, and judge what was read."""
        await self._step()
        least = self.world.told
        value = await self.read()
        assert value >= least, f"{value} was read after {least} had been told"

    async def change(self) -> None:
        """Change the row, and tell."""
        await self._step()
        self.world.row += 1
        changed = self.world.row
        await self._step()
        await self.cache.invalidate("k")
        self.world.told = max(self.world.told, changed)

    async def _send(self, operation: Callable[..., Result], *args: Any) -> Result:
        await self._step()
        result = operation(*args)
        await self._step()
        return result

    async def get(self, key: str) -> bytes | None:
        return (await self._send(self.world.table.get_many, [key]))[0]

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        return await self._send(self.world.table.get_many, keys)

    async def put(self, key: str, raw: bytes, life: int) -> None:
        await self._send(self.world.table.put_many, {key: raw}, life)

    async def put_many(self, entries: Mapping[str, bytes], life: int) -> None:
        await self._send(self.world.table.put_many, entries, life)

    async def claim(self, key: str, seen: bytes | None, header: bytes, life: int) -> Any:
        return await self._send(self.world.table.claim, key, seen, header, life)

    async def claim_many(self, claims: Sequence[Any]) -> list[Any]:
        return [await self.claim(*claim) for claim in claims]

    async def swap(self, key: str, expected: bytes | None, raw: bytes | None, life: int) -> bool:
        return await self._send(self.world.table.swap, key, expected, raw, life)

    async def swap_many(self, swaps: Sequence[Any]) -> list[bool]:
        return [await self.swap(*swap) for swap in swaps]

    async def wait(self, key: str, stamp: int, seconds: float) -> None:
        """Whoever waits may be woken at any moment. Time passes for who is woken in vain again and again."""
        await self._send(lambda: None)
        self.world.stuck += 1
        if self.world.stuck > 20:
            self.world.stuck = 0
            self.world.clock.advance(seconds)

    async def exchange(self, key: str, raw: bytes, life: int) -> bytes | None:
        return await self._send(self.world.table.exchange, key, raw, life)

    async def bury(self, keys: Sequence[str], raw: Sequence[bytes], life: int) -> list[bytes | None]:
        return [await self.exchange(key, mark, life) for key, mark in zip(keys, raw, strict=True)]

    async def aclose(self) -> None:
        """Nothing is open."""


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "revalidating": {"stale_while_revalidate": 30},
    "failing over": {"stale_if_error": 30, "negative_ttl": 5},
    "early": {"early": 1e3, "stale_while_revalidate": 30},
}


async def schedule(seed: int, options: Mapping[str, Any], *, jumps: float, death: bool) -> World:
    """Play one schedule; each read in it is judged."""
    world = World(seed)
    before = asyncio.all_tasks()
    processes = [Process(world, **options) for _ in range(3)]
    tasks: list[asyncio.Task[Any]] = []
    for _ in range(world.random.randrange(3, 10)):
        process = world.random.choice(processes[1:] if death else processes)
        tasks.append(asyncio.create_task(world.random.choice([process.judged, process.judged, process.change])()))
    doomed: list[asyncio.Task[Any]] = []
    if death:
        # What dies only reads: a change of the row that nobody tells is not promised.
        doomed = [asyncio.create_task(processes[0].judged()) for _ in range(2)]
        tasks.append(asyncio.create_task(_die(world, processes[0])))
    await world.play(tasks, jumps)
    for task in tasks:
        task.result()
    final = [asyncio.create_task(process.judged()) for process in processes[1:]]
    await world.play(final, 0.0)
    for task in final:
        task.result()
    # Closing gives back the leases of renewals that still run, which takes steps; the dead close nothing.
    await world.play([asyncio.create_task(process.cache.aclose()) for process in processes if not process.dead], 0.0)
    await _bury(before)
    assert all(task.done() for task in doomed)
    return world


async def _bury(before: set[asyncio.Task[Any]]) -> None:
    """End what the dead would still have done: each cancellation ends one wait."""
    for _ in range(20):
        for task in asyncio.all_tasks() - before:
            task.cancel()
        await asyncio.sleep(0)
    assert not asyncio.all_tasks() - before, "something cannot be ended"


async def _die(world: World, victim: Process) -> None:
    for _ in range(world.random.randrange(12)):
        await world.step()
    victim.dead = True


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize(("jumps", "death"), [(0.0, False), (0.1, False), (0.05, True)], ids=["calm", "late", "deadly"])
def test_no_read_returns_what_was_invalidated_before_it_began(
    options: dict[str, Any],
    jumps: float,
    death: bool,
    repeat: Callable[[int], int],
    seed: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whatever the order of steps, however late a load is and whoever dies: 0 stale values."""
    caplog.set_level(logging.CRITICAL, "resilient")

    async def main() -> None:
        for number in range(repeat(1_000)):  # of each of twelve kinds
            try:
                await schedule(seed + number, options, jumps=jumps, death=death)
            except AssertionError as error:
                raise AssertionError(f"seed {seed + number}: {error}") from error

    asyncio.run(main())


def test_who_is_alive_loads_once(repeat: Callable[[int], int], seed: int) -> None:
    """Any order of readers alone, with no time passing: one load for all processes."""

    async def play(number: int) -> int:
        world = World(number)
        processes = [Process(world) for _ in range(3)]
        await world.play([asyncio.create_task(world.random.choice(processes).judged()) for _ in range(8)], 0.0)
        return world.loads

    async def main() -> None:
        for number in range(repeat(1_000)):
            world_loads = await play(seed + number)
            assert world_loads == 1, f"seed {seed + number}"

    asyncio.run(main())


class Kept(AsyncMemoryStore):
    """A store that outlives the caches over it, and takes its time as a server does."""

    async def swap(self, key: str, expected: bytes | None, raw: bytes | None, life: int) -> bool:
        """The same, some turns later."""
        for _ in range(10):
            await asyncio.sleep(0)
        return await super().swap(key, expected, raw, life)

    async def aclose(self) -> None:
        """It is not theirs to close."""


@pytest.mark.parametrize("late", [False, True], ids=["in time", "beyond its lease"])
def test_closing_ends_a_renewal_and_gives_its_lease_back(late: bool) -> None:
    """Who closes a cache waits for no loader; what still ran leaves neither a lease nor a task behind."""

    async def main() -> None:
        clock = FakeClock()
        store = Kept(clock=clock)
        first, second = (AsyncCache(store, namespace="n", ttl=20, jitter=0.0, lease=LEASE, clock=clock) for _ in "ab")
        loading = asyncio.Event()

        async def never() -> int:
            loading.set()
            await asyncio.Event().wait()
            return 2

        async def load() -> int:
            return 3

        options: dict[str, Any] = {"ttl": 20, "stale_while_revalidate": 300}
        assert await first.get_or_load("k", load, **options) == 3
        clock.advance(21)
        assert await first.get_or_load("k", never, **options) == 3
        await asyncio.wait_for(loading.wait(), 10)
        clock.advance((LEASE + 1) * late)
        await asyncio.wait_for(first.aclose(), 10)
        assert len(asyncio.all_tasks()) == 1, "something goes on behind a closed cache"
        assert await second.get_or_load("k", load, ttl=20) == 3
        assert (second.stats().loads, second.stats().waits) == (1, 0)
        await second.aclose()

    asyncio.run(main())
