"""Random schedules of readers and writers in several processes: nothing old is in the cache when all is done.

Every step of every task (each store operation, each read and write of the database) waits for a scheduler that picks
the next one at random, so that any interleaving can happen. Requests and answers get lost, and processes die midway.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from resilient.cache import AsyncCache
from resilient.cache._memory import Table
from resilient.testing import FakeClock


class World:
    """A database of one row, a store, and the scheduler."""

    def __init__(self, seed: int, loss: float = 0.0, *, deadly: bool = False) -> None:
        self.random = random.Random(seed)
        self.loss = loss
        self.deadly = deadly
        self.clock = FakeClock()
        self.table = Table(100, self.clock)
        self.row = "0"
        self.written = 0
        self.known = 0
        """The newest write that has returned to its caller: whoever reads from now on reads no older one."""
        self.waiting: list[asyncio.Future[None]] = []
        self.holders: dict[bytes, Process] = {}

    async def step(self) -> None:
        """Wait until the scheduler picks this task."""
        turn = asyncio.get_running_loop().create_future()
        self.waiting.append(turn)
        await turn

    async def play(self, tasks: list[asyncio.Task[Any]]) -> None:
        """Let all tasks end, one step at a time, in random order."""
        while not all(task.done() for task in tasks):
            for _ in range(3):
                await asyncio.sleep(0)
            if self.waiting:
                turn = self.waiting.pop(self.random.randrange(len(self.waiting)))
                if not turn.done():
                    turn.set_result(None)

    def write(self) -> str:
        self.written += 1
        self.row = str(self.written)
        return self.row


class Process:
    """One process: a cache of its own over the shared table."""

    local = False
    failures = (ConnectionError,)

    def __init__(self, world: World, *, versions: bool) -> None:
        self.world = world
        self.dead = False
        self.cache = AsyncCache(self, namespace="n", ttl=1000, clock=world.clock, jitter=0.0)
        self.cache.main.tier.timer.interval = 1e6  # who comes next tells what was not told
        version_of = int if versions else None

        @self.cache.lazy("k", version_of=version_of)
        async def read() -> str:
            await world.step()
            value = world.row
            await world.step()
            return value

        @self.cache.write_through("k", version_of=version_of)
        async def write() -> str:
            await world.step()
            if self.dead:
                raise ConnectionError("a process that died writes nothing any more")
            value = world.write()
            await world.step()
            return value

        self._read, self._write = read, write

    async def read(self) -> str:
        """Read; without lost messages what is read is never older than a write that has returned."""
        before = self.world.known
        value = await self._read()
        assert self.world.loss or self.world.deadly or int(value) >= before, f"{value} was read after {before}"
        return value

    async def save(self) -> None:
        self._returned(await self._write())

    async def set(self) -> None:
        """Write, and cache the value by hand, some time later."""
        value = self.world.write()
        await self.world.step()
        await self.cache.set("k", value, version=int(value))
        self._returned(value)

    async def change_and_invalidate(self) -> None:
        await self.world.step()
        value = self.world.write()
        await self.world.step()
        await self.cache.invalidate("k")
        self._returned(value)

    async def evict(self) -> None:
        """The server has no room, and takes whatever stands there: a value, a lease, or a fence."""
        for _ in range(self.world.random.randrange(6)):
            await self.world.step()
        there = self.world.table.get_many(["n:k"])[0]
        self.world.table.swap("n:k", there, None, 0)

    def _returned(self, value: str) -> None:
        if not self.dead:
            self.world.known = max(self.world.known, int(value))

    async def _send(self, operation: Any, *args: Any) -> Any:
        await self.world.step()
        self._maybe_lose()
        result = operation(*args)
        await self.world.step()
        self._maybe_lose()
        return result

    def _maybe_lose(self) -> None:
        if self.dead or self.world.random.random() < self.world.loss:
            raise ConnectionError("lost")

    async def get(self, key: str) -> bytes | None:
        return (await self._send(self.world.table.get_many, [key]))[0]

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        return await self._send(self.world.table.get_many, keys)

    async def put(self, key: str, raw: bytes, life: int) -> None:
        await self._send(self.world.table.put_many, {key: raw}, life)

    async def put_many(self, entries: Mapping[str, bytes], life: int) -> None:
        await self._send(self.world.table.put_many, entries, life)

    async def swap(self, key: str, expected: bytes | None, raw: bytes | None, life: int) -> bool:
        try:
            return await self._send(self.world.table.swap, key, expected, raw, life)
        except ConnectionError:
            self.world.holders.pop((expected or b"")[8:16], None)
            raise

    async def settle(self, key: str, fence: bytes | None, raw: bytes, life: int, lease: int) -> int:
        return await self._send(self.world.table.settle, key, fence, raw, life, lease)

    async def swap_many(self, swaps: Sequence[Any]) -> list[bool]:
        return [await self.swap(*swap) for swap in swaps]

    async def claim(self, key: str, seen: bytes | None, header: bytes, life: int) -> Any:
        self.world.holders[header[8:16]] = self
        try:
            return await self._send(self.world.table.claim, key, seen, header, life)
        except ConnectionError:
            del self.world.holders[header[8:16]]  # it may have been granted, and this process does not know
            raise

    async def claim_many(self, claims: Sequence[Any]) -> list[Any]:
        return [await self.claim(*claim) for claim in claims]

    async def wait(self, key: str, stamp: int, seconds: float) -> None:
        """Whoever waits may be woken at any moment. What nobody will end lasts as long as it takes."""
        await self._send(lambda: None)
        holder = self.world.holders.get(stamp.to_bytes(8, "big"))
        if holder is None or holder.dead:
            self.world.clock.advance(seconds)

    async def exchange(self, key: str, raw: bytes, life: int) -> bytes | None:
        return await self._send(self.world.table.exchange, key, raw, life)

    async def bury(self, keys: Sequence[str], raw: Sequence[bytes], life: int) -> list[bytes | None]:
        return [await self.exchange(key, mark, life) for key, mark in zip(keys, raw, strict=True)]

    async def aclose(self) -> None:
        """Nothing is open."""


async def schedule(seed: int, *, loss: float, death: bool, versions: bool) -> tuple[set[str], str]:
    """Play one schedule. The values served in the end, and the one in the database."""
    world = World(seed, loss, deadly=death)
    processes = [Process(world, versions=versions) for _ in range(3)]
    victim = processes[0] if death else None
    tasks = []
    for _ in range(world.random.randrange(2, 9)):
        process = world.random.choice(processes)
        # A process that dies between its own change and its own invalidation leaves an old value: not promised.
        kinds = [process.read, process.save, process.save]
        if victim is None:  # a writer that dies, and whose fence is evicted, leaves an old value: not promised
            kinds += [process.evict]
        if process is not victim:
            kinds += [process.change_and_invalidate]
        tasks.append(asyncio.create_task(world.random.choice(kinds)()))
    if victim is not None:
        tasks.append(asyncio.create_task(victim.save()))
        tasks.append(asyncio.create_task(_die(world, victim)))
    await world.play(list(tasks))
    for task in tasks:
        error = task.exception()
        if isinstance(error, AssertionError):
            raise error
    world.loss = 0.0
    if death:
        world.clock.advance(10.5)
    alive = [process for process in processes if process is not victim]
    for _ in range(3):  # breakers close, journals are replayed
        world.clock.advance(2.0)
        await world.play([asyncio.create_task(process.cache.get("k")) for process in alive])
    assert all(process.cache.stats().journal == 0 for process in alive)
    final = [asyncio.create_task(process.read()) for process in alive for _ in range(2)]
    await world.play(final)
    return {task.result() for task in final}, world.row


async def _die(world: World, victim: Process) -> None:
    for _ in range(world.random.randrange(20)):
        await world.step()
    victim.dead = True


@pytest.mark.parametrize("versions", [False, True], ids=["unversioned", "versioned"])
@pytest.mark.parametrize(("loss", "death"), [(0.0, False), (0.15, False), (0.0, True)], ids=["calm", "lossy", "deadly"])
def test_nothing_old_is_served_in_the_end(
    loss: float, death: bool, versions: bool, repeat: Callable[[int], int], caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the order of steps, lost messages or a dead writer, the last reads return what the database holds.

    Where nothing is lost and nobody dies, no read at all returns less than what was written before it began.
    """
    caplog.set_level(logging.CRITICAL, "resilient")  # each schedule has its outages

    async def main() -> None:
        for seed in range(repeat(2_500)):  # of each of six kinds
            served, row = await schedule(seed, loss=loss, death=death, versions=versions)
            assert served == {row}, f"seed {seed}"

    asyncio.run(main())


def test_with_versions_the_newest_of_the_writers_values_stays_cached(repeat: Callable[[int], int]) -> None:
    """Two writers at once, some values set by hand late, and readers: in the end the newest value is in the cache."""

    async def main(seed: int) -> None:
        world = World(seed)
        processes = [Process(world, versions=True) for _ in range(3)]
        kinds = [processes[0].save, processes[1].save]
        kinds += world.random.choices([processes[1].read, processes[2].read, processes[2].set], k=3)
        tasks = [asyncio.create_task(kind()) for kind in kinds]
        await world.play(list(tasks))
        for task in tasks:
            task.result()
        found = asyncio.create_task(processes[2].cache.get("k"))
        await world.play([found])
        assert found.result() == world.row, f"seed {seed}"

    async def all_of_them() -> None:
        for seed in range(repeat(2_500)):
            await main(seed)

    asyncio.run(all_of_them())
