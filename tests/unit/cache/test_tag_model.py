"""Random schedules of tags and the namespace: readers, loaders, invalidations, transactions, evictions, deaths.

A value is made of several rows: one of its key's own, one for each of its tags, one of the whole namespace. Rows only
grow, so that each read can be judged by itself: no part of it may be older than what had been told before the read
began.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import world

from resilient.cache._stamps import UNKNOWN

LEASE = world.LEASE
ALL = "*"
KEYS = {"a": ("t",), "b": ("t", "u"), "c": ()}
"""The keys, and the tags of each."""


class World(world.World):
    """Rows, and what was told of each."""

    def __init__(self, seed: int, **chances: float) -> None:
        super().__init__(seed, haste=0.6, **chances)
        self.rows = dict.fromkeys((*KEYS, "t", "u", ALL), 0)
        self.told = dict(self.rows)


class Process(world.Process):
    """A process that reads, writes, and forgets by tag."""

    world: World

    def __init__(self, world: World) -> None:
        super().__init__(world, ttl=300)
        self.readers = {key: self._reader(key) for key in KEYS}
        self.writers = {key: self.cache.write_through(key)(self._writer(key)) for key in KEYS}

    def _reader(self, key: str) -> Callable[[], Any]:
        async def read() -> dict[str, int]:
            seen = {}
            for row in world_rows(key):
                await self.step()
                seen[row] = self.world.rows[row]
            for _ in range(self.world.random.choice([1, 1, 10])):
                await self.step()
            return seen

        return self.cache.lazy(key, tags=KEYS[key], type=dict[str, int], stale_while_revalidate=60)(read)

    def _writer(self, key: str) -> Callable[[], Any]:
        async def write() -> dict[str, int]:
            await self.step()
            self.world.rows[key] += 1
            stored = {row: self.world.rows[row] for row in world_rows(key)}
            await self.step()
            return stored

        return write

    async def live(self, actions: int, kinds: Sequence[Callable[[], Any]], hurry: bool = False) -> None:
        """Do one thing after the other, and hang up now and then."""
        for _ in range(actions):
            kind = self.world.random.choice(kinds)
            if hurry and kind != self.retag and self.world.likely(0.4):
                await self.world.cancelled(kind)
            else:
                await kind()

    async def judged(self) -> None:
        """Read, and judge what was read."""
        await self.step()
        key, least = self.world.random.choice([*KEYS, "a", "a"]), dict(self.world.told)
        if self.world.likely(0.2):
            value = await self.cache.get(key, type=dict[str, int])
        else:
            value = await self.readers[key]()
        old = {row: (seen, least[row]) for row, seen in (value or {}).items() if seen < least[row]}
        assert not old, f"{key} was read with {old}: what was seen, and what had been told"

    async def save(self) -> None:
        """Write a key's own row through."""
        await self.step()
        key = self.world.random.choice(list(KEYS))
        value = await self.writers[key]()
        self._tell(key, value[key])

    async def retag(self) -> None:
        """Change the row of a tag, or of all, and tell."""
        await self.step()
        row = self.world.random.choice(["t", "t", "u", ALL])
        self.world.rows[row] += 1
        changed = self.world.rows[row]
        await self.step()
        await (self.cache.clear() if row == ALL else self.cache.invalidate_tags(row))
        self._tell(row, changed)

    async def commit(self) -> None:
        """Change the row of a tag in a transaction that commits, or does not."""
        await self.step()
        engine, row = self.cache.main, self.world.random.choice(["t", "t", "u", ALL])
        tags, everything = ([], True) if row == ALL else ([row], False)
        fences = await engine.tags.fence(tags, everything=everything)
        await self.step()
        if self.world.likely(0.3):
            await engine.tags.cancel(fences)
            return
        self.world.rows[row] += 1
        changed = self.world.rows[row]
        await self.step()
        await engine.tags.finish(fences, tags, UNKNOWN, everything=everything)
        self._tell(row, changed)

    def _tell(self, row: str, value: int) -> None:
        # Else others may learn of it later; and who reaches no store may share a load of its process that began before.
        if self.told and not self.world.loss:
            self.world.told[row] = max(self.world.told[row], value)

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """In two halves, as two servers of a Cluster answer at two moments."""
        half = self.world.random.randrange(len(keys) + 1)
        halves = [keys[:half], keys[half:]]
        found = [await super(Process, self).get_many(part) if part else [] for part in halves]
        return [*found[0], *found[1]]


def world_rows(key: str) -> list[str]:
    """The rows that a key's value is made of."""
    return [key, *KEYS[key], ALL]


WORLDS: dict[str, dict[str, Any]] = {
    "calm": {},
    "late": {"jumps": 0.1},
    "evicting": {"evictions": 0.1, "jumps": 0.02},
    "deadly": {"death": True},
    "lossy": {"loss": 0.1},
    "slipping": {"slips": 0.2, "hurry": True},
}


async def schedule(seed: int, *, death: bool = False, hurry: bool = False, **chances: float) -> None:
    """Play one schedule; each read in it is judged, and in the end everything is."""
    world = World(seed, **chances)
    processes = [Process(world) for _ in range(3)]
    alive = processes[1:] if death else processes
    actions: list[Any] = []
    doomed: list[asyncio.Task[Any]] = []
    for process in alive:
        for kinds in ([process.judged], [process.judged, process.retag, process.commit, process.save]):
            actions += [process.live(world.random.randrange(1, 6), kinds, hurry)]
    if death:
        # What dies makes its changes in transactions: a change that nobody announces is not promised.
        victim = processes[0]
        kinds = (victim.commit, victim.save, victim.judged)
        doomed = [asyncio.create_task(victim.live(3, [kind])) for kind in kinds]
        actions.append(world.death(victim, 40))
    await world.played(*actions)
    calm = world.lapses == 0
    world.loss = world.jumps = world.evictions = 0.0
    if death or hurry:
        world.pass_by(LEASE + 0.1)
    for _ in range(2 if chances.get("loss") or hurry else 0):  # breakers close, journals are replayed
        world.pass_by(60.0)
        await world.played(*[process.cache.get("c") for process in alive])
    assert all(process.told for process in alive)
    world.told = dict(world.rows)
    await world.played(*[process.judged() for process in alive for _ in range(4)])
    await world.played(*[process.cache.aclose() for process in alive])
    await world.end()
    assert all(task.done() for task in doomed)
    disturbed = death or any(chances.get(each) for each in ("jumps", "loss"))
    assert disturbed or calm, "somebody waited a lease, and nobody had died"


@pytest.mark.parametrize("given", WORLDS.values(), ids=WORLDS)
def test_no_read_returns_what_was_invalidated_by_tag_before_it_began(
    given: dict[str, Any], repeat: Callable[[int], int], seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the order of steps, however late, whatever is evicted, lost or dies: 0 stale values.

    And where nobody dies, nobody waits for a lease to end.
    """
    caplog.set_level(logging.CRITICAL, "resilient")

    async def main() -> None:
        for number in range(repeat(2_000)):  # of each of six kinds
            try:
                await schedule(seed + number, **given)
            except AssertionError as error:
                raise AssertionError(f"seed {seed + number}: {error}") from error

    asyncio.run(main())
