"""Random schedules of readers and writers in several processes: nothing old is in the cache when all is done.

Requests and answers get lost, callers hang up, entries are evicted, and processes die midway.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
import world

LEASE = world.LEASE


class World(world.World):
    """A database of one row."""

    def __init__(self, seed: int, *, strict: bool = True, **chances: float) -> None:
        super().__init__(seed, **chances)
        self.strict = strict
        """No read at all returns less than what was written before it began."""
        self.row = "0"
        self.written = 0
        self.known = 0
        """The newest write that has returned to its caller: whoever reads from now on reads no older one."""

    def write(self) -> str:
        self.written += 1
        self.row = str(self.written)
        return self.row


class Process(world.Process):
    """A process that reads the row and writes it, through its cache or past it."""

    world: World

    def __init__(self, world: World, *, versions: bool) -> None:
        super().__init__(world, ttl=1000)
        version_of = int if versions else None

        @self.cache.lazy("k", version_of=version_of)
        async def read() -> str:
            await self.step()
            value = world.row
            await self.step()
            return value

        @self.cache.write_through("k", version_of=version_of)
        async def write() -> str:
            await self.step()
            value = world.write()
            await self.step()
            return value

        self._read, self._write = read, write

    async def read(self) -> str:
        """Read; without lost messages what is read is never older than a write that has returned."""
        before = self.world.known
        value = await self._read()
        assert not self.world.strict or int(value) >= before, f"{value} was read after {before}"
        return value

    async def save(self) -> None:
        self._returned(await self._write())

    async def set(self) -> None:
        """Write, and cache the value by hand, some time later."""
        value = self.world.write()
        await self.step()
        await self.cache.set("k", value, version=int(value))
        self._returned(value)

    async def change_and_invalidate(self) -> None:
        await self.step()
        value = self.world.write()
        await self.step()
        await self.cache.invalidate("k")
        self._returned(value)

    async def evict(self) -> None:
        """The server has no room, and takes whatever stands there: a value, a lease, or a fence."""
        for _ in range(self.world.random.randrange(6)):
            await self.step()
        there = self.world.table.get_many(["n:k"])[0]
        self.world.table.swap("n:k", there, None, 0)

    async def given_up(self) -> None:
        """Begin to read, or to write, and hang up."""
        await self.world.cancelled(self.world.random.choice([self.read, self.save]))

    def _returned(self, value: str) -> None:
        if self.told:  # else others may learn of it later
            self.world.known = max(self.world.known, int(value))


WORLDS: dict[str, dict[str, Any]] = {
    "calm": {},
    "lossy": {"loss": 0.15, "strict": False},
    "deadly": {"death": True, "strict": False},
    "slipping": {"slips": 0.2, "hurry": True},
}


async def schedule(
    seed: int, *, versions: bool, death: bool = False, hurry: bool = False, **chances: Any
) -> tuple[set[str], str]:
    """Play one schedule. The values served in the end, and the one in the database."""
    world = World(seed, **chances)
    processes = [Process(world, versions=versions) for _ in range(3)]
    alive = processes[1:] if death else processes
    actions, doomed = [], []
    for _ in range(world.random.randrange(2, 9)):
        process = world.random.choice(processes)
        # A process that dies between its own change and its own invalidation leaves an old value: not promised.
        kinds = [process.read, process.save, process.save, *[process.given_up] * hurry]
        if not death:  # a writer that dies, and whose fence is evicted, leaves an old value: not promised
            kinds += [process.evict]
        if process in alive:
            kinds += [process.change_and_invalidate]
        (actions if process in alive else doomed).append(world.random.choice(kinds)())
    if death:
        doomed = [asyncio.create_task(each) for each in (*doomed, processes[0].save())]
        actions.append(world.death(processes[0], 20))
    await _suffered(world, actions)
    world.loss = 0.0
    if death:
        world.pass_by(LEASE + 0.5)
    calm = world.lapses == 0
    for _ in range(3):  # breakers close, journals are replayed
        world.pass_by(2.0)
        await world.played(*[process.cache.get("k") for process in alive])
    assert all(process.told for process in alive)
    final = [asyncio.ensure_future(process.read()) for process in alive for _ in range(2)]
    await world.played(*final)
    await world.end()
    assert death or chances.get("loss") or calm, "somebody waited a lease, and nobody had died"
    return {task.result() for task in final}, world.row


async def _suffered(world: World, actions: list[Any]) -> None:
    """Let these run to their end; a database that does not answer is no failure of theirs."""
    tasks = [asyncio.ensure_future(action) for action in actions]
    await world.play(tasks)
    for task in tasks:
        if isinstance(task.exception(), AssertionError):
            task.result()


@pytest.mark.parametrize("versions", [False, True], ids=["unversioned", "versioned"])
@pytest.mark.parametrize("given", WORLDS.values(), ids=WORLDS)
def test_nothing_old_is_served_in_the_end(
    given: dict[str, Any], versions: bool, repeat: Callable[[int], int], seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the order of steps, lost messages or a dead writer, the last reads return what the database holds.

    Where the store can be reached and nobody dies, no read at all returns less than what was written before it began,
    and nobody waits for a lease to end.
    """
    caplog.set_level(logging.CRITICAL, "resilient")  # each schedule has its outages

    async def main() -> None:
        for number in range(repeat(2_500)):  # of each of eight kinds
            try:
                served, row = await schedule(seed + number, versions=versions, **given)
            except AssertionError as error:
                raise AssertionError(f"seed {seed + number}: {error}") from error
            assert served == {row}, f"seed {seed + number}"

    asyncio.run(main())


def test_with_versions_the_newest_of_the_writers_values_stays_cached(repeat: Callable[[int], int], seed: int) -> None:
    """Two writers at once, some values set by hand late, and readers: in the end the newest value is in the cache."""

    async def play(number: int) -> None:
        world = World(number)
        processes = [Process(world, versions=True) for _ in range(3)]
        kinds = [processes[0].save, processes[1].save]
        kinds += world.random.choices([processes[1].read, processes[2].read, processes[2].set], k=3)
        await world.played(*[kind() for kind in kinds])
        found = asyncio.ensure_future(processes[2].cache.get("k"))
        await world.played(found)
        assert found.result() == world.row, f"seed {number}"

    async def main() -> None:
        for number in range(repeat(2_500)):
            await play(seed + number)

    asyncio.run(main())
