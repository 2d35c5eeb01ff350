"""Random schedules of the lease: readers, invalidators, leases that end early, lost answers, processes that die.

The row only grows, so that each read can be judged by itself: it may not return less than what the row was when the
last invalidation that had ended before it began was made.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import world

from resilient.cache import AsyncCache, AsyncMemoryStore
from resilient.testing import FakeClock

LEASE = world.LEASE


class World(world.World):
    """A row, and what was told of it."""

    def __init__(self, seed: int, **chances: float) -> None:
        super().__init__(seed, **chances)
        self.row = 0
        self.told = 0  # the row as the last invalidation that has ended told it
        self.loads = 0


class Process(world.Process):
    """A process that reads the row, alone or with others, or changes it."""

    world: World

    def __init__(self, world: World, **options: Any) -> None:
        super().__init__(world, ttl=20)
        self.options = options
        self.read = self.cache.lazy("k", **options)(self._load)

    async def _load(self) -> int:
        self.world.loads += 1
        await self.step()
        value = self.world.row
        await self.step()
        return value

    async def _load_many(self, keys: list[str]) -> dict[str, int]:
        return dict.fromkeys(keys, await self._load())

    async def _read_many(self) -> int:
        found = await self.cache.get_many(["l", "k"], load_many=self._load_many, ttl=20, **self.options)
        return int(found["k"])

    async def judged(self) -> None:
        """Read, and judge what was read."""
        await self.step()
        least = self.world.told
        value = await (self._read_many() if self.world.likely(0.5) else self.read())
        assert value >= least, f"{value} was read after {least} had been told"

    async def change(self) -> None:
        """Change the row, and tell."""
        await self.step()
        self.world.row += 1
        changed = self.world.row
        await self.step()
        await self.cache.invalidate("k")
        if self.told:  # else others may learn of it later
            self.world.told = max(self.world.told, changed)

    async def given_up(self) -> None:
        """Begin to read, and hang up."""
        await self.world.cancelled(self.judged)


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "revalidating": {"stale_while_revalidate": 30},
    "failing over": {"stale_if_error": 30, "negative_ttl": 5},
    "early": {"early": 1e3, "stale_while_revalidate": 30},
}
WORLDS: dict[str, dict[str, Any]] = {
    "calm": {},
    "late": {"jumps": 0.1},
    "deadly": {"jumps": 0.05, "death": True},
    "slipping": {"slips": 0.2, "hurry": True},
}


async def schedule(
    seed: int, options: Mapping[str, Any], *, death: bool = False, hurry: bool = False, **chances: float
) -> World:
    """Play one schedule; each read in it is judged.

    Args:
        seed: The schedule's.
        options: How the value is kept.
        death: Whether a process dies.
        hurry: Whether callers hang up.
        chances: What else happens.
    """
    world = World(seed, **chances)
    processes = [Process(world, **options) for _ in range(3)]
    alive = processes[1:] if death else processes
    actions = []
    for _ in range(world.random.randrange(3, 10)):
        process = world.random.choice(alive)
        kinds = [process.judged, process.judged, process.change, *[process.given_up] * 3 * hurry]
        actions.append(world.random.choice(kinds)())
    doomed: list[asyncio.Task[Any]] = []
    if death:
        # What dies only reads: a change of the row that nobody tells is not promised.
        doomed = [asyncio.create_task(processes[0].judged()) for _ in range(2)]
        actions.append(world.death(processes[0], 12))
    await world.played(*actions)
    world.jumps = 0.0
    await world.played(*[process.judged() for process in alive for _ in range(2)])
    assert all(process.told for process in alive)
    world.told = world.row
    await world.played(*[process.judged() for process in alive])
    # Closing gives back the leases of renewals that still run, which takes steps; the dead close nothing.
    await world.played(*[process.cache.aclose() for process in alive])
    await world.end()
    assert all(task.done() for task in doomed)
    assert death or chances.get("jumps") or not world.lapses, "somebody waited a lease, and nobody had died"
    return world


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("given", WORLDS.values(), ids=WORLDS)
def test_no_read_returns_what_was_invalidated_before_it_began(
    options: dict[str, Any],
    given: dict[str, Any],
    repeat: Callable[[int], int],
    seed: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whatever the order of steps, however late a load is, whatever answer is lost and whoever dies: 0 stale values.

    And nobody waits for a lease to end whose holder lives.
    """
    caplog.set_level(logging.CRITICAL, "resilient")

    async def main() -> None:
        for number in range(repeat(1_000)):  # of each of sixteen kinds
            try:
                await schedule(seed + number, options, **given)
            except AssertionError as error:
                raise AssertionError(f"seed {seed + number}: {error}") from error

    asyncio.run(main())


def test_who_is_alive_loads_once(repeat: Callable[[int], int], seed: int) -> None:
    """Any order of readers alone, with no time passing: one load for all processes."""

    async def play(number: int) -> int:
        world = World(number)
        processes = [Process(world) for _ in range(3)]
        await world.played(*[world.random.choice(processes).read() for _ in range(8)])
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
