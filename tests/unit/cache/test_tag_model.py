"""Random schedules of tags and the namespace: readers, loaders, invalidations, transactions, evictions, deaths.

Every store operation, and every look at a row, is a step of its own; a scheduler picks the next step at random. A value
is made of several rows: one of its key's own, one for each of its tags, one of the whole namespace. Rows only grow, so
that each read can be judged by itself: no part of it may be older than what had been told before the read began.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import pytest

from resilient.cache import AsyncCache
from resilient.cache._memory import Table
from resilient.cache._stamps import UNKNOWN, is_ours
from resilient.testing import FakeClock

LEASE = 10.0
ALL = "*"
KEYS = {"a": ("t",), "b": ("t", "u"), "c": ()}
"""The keys, and the tags of each."""
Result = TypeVar("Result")


class World:
    """Rows, a store, a clock and the scheduler."""

    def __init__(self, seed: int, loss: float = 0.0) -> None:
        self.random = random.Random(seed)
        self.loss = loss
        self.clock = FakeClock()
        self.table = Table(100, self.clock)
        self.rows = dict.fromkeys((*KEYS, "t", "u", ALL), 0)
        self.told = dict(self.rows)
        self.waiting: list[asyncio.Future[None]] = []
        self.stuck = 0

    async def step(self) -> None:
        """Wait for the next turn."""
        turn = asyncio.get_running_loop().create_future()
        self.waiting.append(turn)
        await turn

    async def play(self, tasks: Sequence[asyncio.Task[Any]], jumps: float = 0.0, evictions: float = 0.0) -> None:
        """Let all tasks end, one step at a time; now and then time passes in between, or a stamp is evicted."""
        idle = 0
        while not all(task.done() for task in tasks):
            for _ in range(4):
                await asyncio.sleep(0)
            idle = 0 if self.waiting else idle + 1
            assert idle < 1000, "somebody waits, and nothing is left that could wake them"
            if self.waiting:
                # Who came last is often the next: so that some run through while others stand still for long.
                last = self.random.random() < 0.6
                turn = self.waiting.pop(-1 if last else self.random.randrange(len(self.waiting)))
                if not turn.done():
                    turn.set_result(None)
                if self.random.random() < jumps:
                    self.clock.advance(self.random.choice([1.0, LEASE / 2, LEASE + 0.1]))
                if self.random.random() < evictions:
                    stamps = [key for key in self.table._entries if is_ours(key)]
                    if stamps:
                        del self.table._entries[self.random.choice(stamps)]


class Process:
    """A process of its own over the shared table; one that died takes no step any more."""

    local = False
    failures = (ConnectionError,)

    def __init__(self, world: World) -> None:
        self.world = world
        self.dead = False
        self.cache = AsyncCache(self, namespace="n", ttl=300, jitter=0.0, lease=LEASE, clock=world.clock)
        self.readers = {key: self._reader(key) for key in KEYS}
        self.writers = {key: self.cache.write_through(key)(self._writer(key)) for key in KEYS}

    def _reader(self, key: str) -> Callable[[], Any]:
        async def read() -> dict[str, int]:
            seen = {}
            for row in world_rows(key):
                await self._step()
                seen[row] = self.world.rows[row]
            for _ in range(self.world.random.choice([1, 1, 10])):
                await self._step()
            return seen

        return self.cache.lazy(key, tags=KEYS[key], type=dict[str, int], stale_while_revalidate=60)(read)

    def _writer(self, key: str) -> Callable[[], Any]:
        async def write() -> dict[str, int]:
            await self._step()
            self.world.rows[key] += 1
            stored = {row: self.world.rows[row] for row in world_rows(key)}
            await self._step()
            return stored

        return write

    async def _step(self) -> None:
        await self.world.step()
        if self.dead:
            await asyncio.Event().wait()

    # --------------------------------------------------------------------------------------------- what processes do

    async def live(self, actions: int, kinds: Sequence[Callable[[], Any]]) -> None:
        """Do one thing after the other."""
        for _ in range(actions):
            await self.world.random.choice(kinds)()

    async def judged(self) -> None:
        """Read, and judge what was read."""
        await self._step()
        key, least = self.world.random.choice([*KEYS, "a", "a"]), dict(self.world.told)
        if self.world.random.random() < 0.2:
            value = await self.cache.get(key, type=dict[str, int])
        else:
            value = await self.readers[key]()
        old = {row: (seen, least[row]) for row, seen in (value or {}).items() if seen < least[row]}
        assert not old, f"{key} was read with {old}: what was seen, and what had been told"

    async def save(self) -> None:
        """Write a key's own row through."""
        await self._step()
        key = self.world.random.choice(list(KEYS))
        value = await self.writers[key]()
        self._tell(key, value[key])

    async def forget(self) -> None:
        """Change the row of a tag, or of all, and tell."""
        await self._step()
        row = self.world.random.choice(["t", "t", "u", ALL])
        self.world.rows[row] += 1
        changed = self.world.rows[row]
        await self._step()
        await (self.cache.clear() if row == ALL else self.cache.invalidate_tags(row))
        self._tell(row, changed)

    async def commit(self) -> None:
        """Change the row of a tag in a transaction that commits, or does not."""
        await self._step()
        engine, row = self.cache.main, self.world.random.choice(["t", "t", "u", ALL])
        tags, everything = ([], True) if row == ALL else ([row], False)
        fences = await engine.fence_tags(tags, everything=everything)
        await self._step()
        if self.world.random.random() < 0.3:
            await engine.cancel_tags(fences)
            return
        self.world.rows[row] += 1
        changed = self.world.rows[row]
        await self._step()
        await engine.finish_tags(fences, tags, UNKNOWN, everything=everything)
        self._tell(row, changed)

    def _tell(self, row: str, value: int) -> None:
        if not self.world.loss:  # else others may learn of it later
            self.world.told[row] = max(self.world.told[row], value)

    # ------------------------------------------------------------------------------------------------------ the store

    async def _send(self, operation: Callable[..., Result], *args: Any) -> Result:
        await self._step()
        self._maybe_lose()
        result = operation(*args)
        await self._step()
        self._maybe_lose()
        return result

    def _maybe_lose(self) -> None:
        if self.world.random.random() < self.world.loss:
            raise ConnectionError("lost")

    async def get(self, key: str) -> bytes | None:
        return (await self._send(self.world.table.get_many, [key]))[0]

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """In two halves, as two servers of a Cluster answer at two moments."""
        half = self.world.random.randrange(len(keys) + 1)
        halves = [keys[:half], keys[half:]]
        found = [await self._send(self.world.table.get_many, part) if part else [] for part in halves]
        return [*found[0], *found[1]]

    async def put(self, key: str, raw: bytes, life: int) -> None:
        await self._send(self.world.table.put_many, {key: raw}, life)

    async def put_many(self, entries: Mapping[str, bytes], life: int) -> None:
        await self._send(self.world.table.put_many, entries, life)

    async def claim(self, key: str, seen: bytes | None, header: bytes, life: int) -> Any:
        return await self._send(self.world.table.claim, key, seen, header, life)

    async def swap(self, key: str, expected: bytes | None, raw: bytes | None, life: int) -> bool:
        return await self._send(self.world.table.swap, key, expected, raw, life)

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


def world_rows(key: str) -> list[str]:
    """The rows that a key's value is made of."""
    return [key, *KEYS[key], ALL]


async def schedule(
    seed: int, *, jumps: float = 0.0, evictions: float = 0.0, death: bool = False, loss: float = 0.0
) -> None:
    """Play one schedule; each read in it is judged, and in the end everything is."""
    world = World(seed, loss)
    before = asyncio.all_tasks()
    processes = [Process(world) for _ in range(3)]
    tasks: list[asyncio.Task[Any]] = []
    doomed: list[asyncio.Task[Any]] = []
    for process in processes[1 if death else 0 :]:
        for kinds in ([process.judged], [process.judged, process.forget, process.commit, process.save]):
            tasks += [asyncio.create_task(process.live(world.random.randrange(1, 6), kinds))]
    if death:
        # What dies makes its changes in transactions: a change that nobody announces is not promised.
        victim = processes[0]
        doomed = [asyncio.create_task(victim.live(3, [kind])) for kind in (victim.commit, victim.save, victim.judged)]
        tasks.append(asyncio.create_task(_die(world, processes[0])))
    await world.play(tasks, jumps, evictions)
    for task in tasks:
        task.result()
    alive = [process for process in processes if not process.dead]
    world.loss = 0.0
    if death:
        world.clock.advance(LEASE + 0.1)
    for _ in range(2 if loss else 0):  # breakers close, journals are replayed
        world.clock.advance(60.0)
        await world.play([asyncio.create_task(process.cache.get("c")) for process in alive])
    assert all(process.cache.stats().journal == 0 for process in alive)
    world.told = dict(world.rows)
    final = [asyncio.create_task(process.judged()) for process in alive for _ in range(4)]
    await world.play(final)
    for task in final:
        task.result()
    await world.play([asyncio.create_task(process.cache.aclose()) for process in alive])
    for _ in range(20):  # end what the dead would still have done
        for task in asyncio.all_tasks() - before:
            task.cancel()
        await asyncio.sleep(0)
    assert not asyncio.all_tasks() - before, "something cannot be ended"
    assert all(task.done() for task in doomed)


async def _die(world: World, victim: Process) -> None:
    for _ in range(world.random.randrange(40)):
        await world.step()
    victim.dead = True


WORLDS: dict[str, dict[str, Any]] = {
    "calm": {},
    "late": {"jumps": 0.1},
    "evicting": {"evictions": 0.1, "jumps": 0.02},
    "deadly": {"death": True},
    "lossy": {"loss": 0.1},
}


@pytest.mark.parametrize("given", WORLDS.values(), ids=WORLDS)
def test_no_read_returns_what_was_invalidated_by_tag_before_it_began(
    given: dict[str, Any], repeat: Callable[[int], int], seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the order of steps, however late, whatever is evicted, lost or dies: 0 stale values."""
    caplog.set_level(logging.CRITICAL, "resilient")

    async def main() -> None:
        for number in range(repeat(2_000)):  # of each of five kinds
            try:
                await schedule(seed + number, **given)
            except AssertionError as error:
                raise AssertionError(f"seed {seed + number}: {error}") from error

    asyncio.run(main())
