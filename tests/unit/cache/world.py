"""The world of random schedules: processes over one store, and a scheduler that says what happens next.

Every operation of the store, and whatever else a model says, is a step of its own; the scheduler picks the next one at
random, so that any interleaving can happen. Time stands still, unless a schedule lets it jump, or unless nothing else
is left to happen than that somebody has waited long enough: then it passes, and that is counted as a lapse.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from resilient.cache import AsyncCache
from resilient.cache._memory import Table
from resilient.cache._stamps import is_ours
from resilient.testing import FakeClock

LEASE = 10.0
_SETTLED = 25  # turns of the event loop without a step: nobody will take one
Result = TypeVar("Result")


class World:
    """A store, a clock and the scheduler.

    Args:
        seed: Decides everything that is random.
        loss: How likely each request, and each answer, is lost.
        slips: How likely the same is, once for each process: too seldom for it to take the store for dead.
        jumps: How likely time passes after a step: a little, half a lease, or more than one.
        evictions: How likely the server takes the stamp of a tag or of the namespace away after a step.
        haste: How likely the next step is that of who came last, so that some run through while others stand still.
    """

    def __init__(
        self,
        seed: int,
        *,
        loss: float = 0.0,
        slips: float = 0.0,
        jumps: float = 0.0,
        evictions: float = 0.0,
        haste: float = 0.0,
    ) -> None:
        self.random = random.Random(seed)
        self.loss = loss
        self.slips = slips
        self.jumps = jumps
        self.evictions = evictions
        self.haste = haste
        self.clock = FakeClock()
        self.table = Table(100, self.clock)
        self.lapses = 0
        self._waiting: list[asyncio.Future[None]] = []
        self._asleep: dict[asyncio.Future[None], tuple[Process, float]] = {}
        self._others = asyncio.all_tasks()

    def likely(self, chance: float) -> bool:
        """Whether what is as likely as that happens now."""
        return self.random.random() < chance

    async def step(self) -> None:
        """Wait for the next turn."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        await turn

    async def sleep(self, process: Process, key: str, token: int, seconds: float) -> None:
        """Until the lease with that token is over, or so much time has passed."""
        bell = asyncio.get_running_loop().create_future()

        def ring() -> None:
            if not bell.done():
                bell.set_result(None)

        if self.table.listen(key, token, ring):
            self._asleep[bell] = process, self.clock.monotonic() + seconds
            try:
                await bell
            finally:
                del self._asleep[bell]
                self.table.unlisten(key, ring)

    async def play(self, tasks: Sequence[asyncio.Task[Any]]) -> None:
        """Let all tasks end, one step at a time."""
        idle = 0
        while not all(task.done() for task in tasks):
            for _ in range(4):
                await asyncio.sleep(0)
            idle = 0 if self._waiting else idle + 1
            if self._waiting:
                self._turn()
            elif idle % _SETTLED == 0:
                self._lapse()
            assert idle < 20 * _SETTLED, "somebody waits, and nothing is left that could wake them"

    async def played(self, *actions: Awaitable[Any]) -> None:
        """Let these run side by side to their end, and see that none failed."""
        tasks = [asyncio.ensure_future(action) for action in actions]
        await self.play(tasks)
        for task in tasks:
            task.result()

    def _turn(self) -> None:
        last = self.haste and self.likely(self.haste)
        turn = self._waiting.pop(-1 if last else self.random.randrange(len(self._waiting)))
        if not turn.done():
            turn.set_result(None)
        if self.jumps and self.likely(self.jumps):
            self.pass_by(self.random.choice([1.0, LEASE / 2, LEASE + 0.1]))
        if self.evictions and self.likely(self.evictions):
            stamps = [key for key in self.table._entries if is_ours(key)]
            if stamps:
                del self.table._entries[self.random.choice(stamps)]

    def _lapse(self) -> None:
        """Nobody can take a step: the first of those who wait for a lease has waited to its end."""
        ends = [until for process, until in self._asleep.values() if not process.dead]
        if ends:
            self.lapses += 1
            self.pass_by(max(0.0, min(ends) - self.clock.monotonic()) + 0.001)

    def pass_by(self, seconds: float) -> None:
        """Let time pass; those who have waited long enough wake."""
        self.clock.advance(seconds)
        for bell, (_, until) in self._asleep.items():
            if until <= self.clock.monotonic() and not bell.done():
                bell.set_result(None)

    async def cancelled(self, action: Callable[[], Awaitable[Any]]) -> None:
        """Do something, and give up on it a few steps later, as one whose client has hung up."""
        task = asyncio.ensure_future(action())
        for _ in range(self.random.randrange(1, 15)):
            await self.step()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def death(self, victim: Process, most: int) -> None:
        """Let a process die some steps from now."""
        for _ in range(self.random.randrange(most)):
            await self.step()
        victim.dead = True

    async def end(self) -> None:
        """End what the dead would still have done: each cancellation ends one wait."""
        mine = self._others | {asyncio.current_task()}
        for _ in range(30):
            for task in asyncio.all_tasks() - mine:
                task.cancel()
            await asyncio.sleep(0)
        assert not asyncio.all_tasks() - mine, "something cannot be ended"


class Process:
    """A process with a cache of its own, and its way to the store; one that died takes no step any more."""

    local = False
    failures = (ConnectionError,)

    def __init__(self, world: World, *, ttl: float) -> None:
        self.world = world
        self.dead = False
        self._slips = world.slips
        self.cache = AsyncCache(self, namespace="n", ttl=ttl, jitter=0.0, lease=LEASE, clock=world.clock)
        self.cache.main.tier.timer.interval = 1e6  # who comes next tells what was not told
        self.cache.main.leases.timer.interval = 1e6  # else one of a world that is over would come to life in the next
        if world.likely(0.5):
            self.cache.main.loads.missed = 2**64  # claims are sent along with looks, however many reads find something

    async def step(self) -> None:
        """Wait for the next turn; the dead wait for ever."""
        await self.world.step()
        if self.dead:
            await asyncio.Event().wait()

    @property
    def told(self) -> bool:
        """Whether the store has heard of every change that this process made."""
        return self.cache.stats().journal == 0

    async def _send(self, operation: Callable[..., Result], *args: Any) -> Result:
        await self.step()
        self._maybe_lose()
        result = operation(*args)
        await self.step()
        self._maybe_lose()
        return result

    def _maybe_lose(self) -> None:
        if self.world.loss and self.world.likely(self.world.loss):
            raise ConnectionError("lost")
        if self._slips and self.world.likely(self._slips):
            self._slips = 0.0
            raise ConnectionError("lost for once")

    # ------------------------------------------------------------------------------------------------------ the store

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        return await self._send(self.world.table.get_many, keys)

    async def put_many(self, entries: Mapping[str, bytes], life: int) -> None:
        await self._send(self.world.table.put_many, entries, life)

    async def get_or_claim(self, keys: Sequence[str], header: bytes, life: int) -> tuple[list[bytes | None], bool]:
        """One after the other, as servers may hear of them."""
        found = await self._send(self.world.table.get_many, keys)
        return found, await self._send(self.world.table.claim, keys[0], None, header, life) is None

    async def claim(self, key: str, seen: bytes | None, header: bytes, life: int) -> Any:
        return await self._send(self.world.table.claim, key, seen, header, life)

    async def claim_many(self, claims: Sequence[Any]) -> list[Any]:
        return await self._send(lambda: [self.world.table.claim(*claim) for claim in claims])

    async def swap(self, key: str, expected: bytes | None, raw: bytes | None, life: int) -> bool:
        return await self._send(self.world.table.swap, key, expected, raw, life)

    async def swap_many(self, swaps: Sequence[Any]) -> list[bool]:
        return await self._send(lambda: [self.world.table.swap(*swap) for swap in swaps])

    async def write_versioned(self, key: str, fence: bytes | None, raw: bytes, life: int, lease: int) -> int:
        return await self._send(self.world.table.write_versioned, key, fence, raw, life, lease)

    async def exchange_many(self, marks: Mapping[str, bytes], life: int) -> list[bytes | None]:
        """One by one, as the servers of a Cluster hear of them."""
        return [await self._send(self.world.table.exchange, key, mark, life) for key, mark in marks.items()]

    async def wait(self, key: str, token: int, seconds: float) -> None:
        """Whoever waits may be woken at any moment, also for nothing."""
        await self.step()
        self._maybe_lose()
        if not self.world.likely(0.3):
            await self.world.sleep(self, key, token, seconds)
        await self.step()

    async def aclose(self) -> None:
        """Nothing is open."""
