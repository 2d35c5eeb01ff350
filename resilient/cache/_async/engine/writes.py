"""What a cache does when a value changes: store it, write through, invalidate."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from resilient import events
from resilient.cache._async.engine.reads import AsyncReader
from resilient.cache._async.engine.tier import UNREACHABLE
from resilient.cache._causal import merged, note
from resilient.cache._codecs import Codec
from resilient.cache._entry import FENCE, TOMBSTONE, Entry, Life, Unreadable, marker, noted, pack, unpack, version_in
from resilient.cache._events import ValueRefused
from resilient.cache._failures import ambiguous
from resilient.cache._made import made_now
from resilient.cache._seen import Fence, Plan, Seen, is_fenced, milliseconds
from resilient.cache._stamps import Stamps, tags_of
from resilient.cache._values import AsyncLoader, Swap, Written
from resilient.errors import DeadlineExceeded, InvalidInput

__all__ = ["AsyncWrites"]


class AsyncWrites:
    """Storing, writing through and invalidating.

    Args:
        reader: What is read, and how.
    """

    def __init__(self, reader: AsyncReader) -> None:
        self._reader = reader
        self._tier, self._stampbook, self._flights = reader.tier, reader.stampbook, reader.flights
        self._clock, self._counts, self._lease, self._name = reader.clock, reader.counts, reader.lease, reader.name

    def entry(self, value: Any, plan: Plan, version: int | None = None) -> Entry:
        """The entry for a value that is new now; it has no stamps yet, without which nobody reads it."""
        return made_now(value, plan, self._clock.wall(), version)

    async def put(self, key: str, entry: Entry) -> None:
        """Store, whatever was there; with a version not over a value with a higher one."""
        self._flights.overtake(key)
        store, entry = self._tier.store, await self._stamped([key], entry)
        raw, life = pack(entry), milliseconds(entry.keep)
        if entry.version:
            done = await self._tier.change([key], store.write_versioned, key, None, raw, life, life)
            self._counts.add("stores" if done == Written.STORED else "refused")
        elif await self._tier.change([key], store.put_many, {key: raw}, life) is not UNREACHABLE:
            self._counts.add("stores")

    async def put_many(self, entries: Mapping[str, Entry]) -> None:
        """Store several."""
        for key in entries:
            self._flights.overtake(key)
        raw = {key: pack(entry) for key, entry in (await self._stamped_many(entries)).items()}
        life = max((milliseconds(entry.keep) for entry in entries.values()), default=0)
        if raw and await self._tier.change(list(raw), self._tier.store.put_many, raw, life) is not UNREACHABLE:
            self._counts.add("stores", len(raw))

    async def add(self, key: str, entry: Entry, codec: Codec) -> bool:
        """Store only where nothing is. Where the tier does not answer, nothing is stored."""
        self._tier.forget((key,))
        seen = await self._reader.look(key, codec, tags_of(entry))
        if seen.raw is UNREACHABLE or seen.life is not Life.GONE or is_fenced(seen):
            return False
        entry = (await self._stampbook.ensured(seen.stamps, entry.keep)).on(entry)
        if not entry.generation:
            return False  # nobody could read it
        stored = await self._tier.run(self._tier.store.swap, key, seen.raw, pack(entry), milliseconds(entry.keep))
        if stored is True:
            self._tier.tell((key,))
        return stored is True

    async def _stamped(self, keys: list[str], entry: Entry) -> Entry:
        """An entry with the stamps of this moment; keys are remembered as changed where there is no time for it."""
        try:
            return await self._stampbook.onto(entry)
        except BaseException:  # out of time, or cancelled: what is there now is old
            self._tier.remember(keys)
            raise

    async def _stamped_many(self, entries: Mapping[str, Entry]) -> dict[str, Entry]:
        try:
            return await self._stampbook.onto_many(entries)
        except BaseException:  # out of time, or cancelled: what is there now is old
            self._tier.remember(list(entries))
            raise

    async def invalidate(self, keys: list[str]) -> None:
        """Make sure that nothing loaded before this moment is served from the cache after it."""
        for key in keys:
            self._flights.overtake(key)
        if keys:
            await self._tier.bury(keys)

    async def write(
        self, key: str, store: AsyncLoader[[], Any], plan: Plan, *, keeps: Callable[[Any], bool], present: bool
    ) -> Any:
        """Store first, then cache.

        A fence stands in the key while ``store`` runs, so that no reader caches what it read before; and should this
        process die in between, the fence goes after one lease. The value is cached only if the fence still stands
        afterwards and no other writer's stood before: of two writers at once neither can tell whose value is newer,
        unless versions tell.
        """
        self._flights.overtake(key)
        stamps = await self._stampbook.taken(plan.tags, plan.policy.ttl + plan.policy.stale)
        (fence,) = await self._tier.fence([key])
        try:
            result = await store()
        except BaseException as error:
            await self._unwind(fence, error)
            raise
        self._flights.overtake(key)
        await self._store(fence, stamps, result, plan, keeps=keeps, present=present)
        return result

    async def _store(
        self,
        fence: Fence,
        stamps: Stamps,
        result: Any,
        plan: Plan,
        *,
        keeps: Callable[[Any], bool],
        present: bool,
    ) -> None:
        """After the store took the value: cache it, or see to it that nothing older is served."""
        key, mark, before = fence
        if before is UNREACHABLE:
            await self._tier.bury([key])
            return
        seen = self._reader.judge(before, plan.codec)
        if not keeps(result) or (present and seen.life is Life.GONE):
            await self.end(key, mark, seen)
            return
        try:
            entry = stamps.on(self.entry(result, plan))
        except InvalidInput as error:  # the store has taken it: an error now would say that it has not
            events.emit(ValueRefused(cache=self._name, advice=str(error)))
            await self.end(key, mark, seen)
            return
        stored = await self.end(key, mark, seen, pack(entry), milliseconds(entry.keep))
        self._counts.add("stores" if stored else "refused")

    async def end(self, key: str, mark: bytes, seen: Seen, raw: bytes | None = None, life: int = 0) -> bool:
        """A writer is done: put a value (or else a tombstone) in the place of its fence. Whether that was done.

        Where another writer is or was at work, nobody knows whose value is newer: for one lease nobody stores.
        """
        try:
            if raw is not None and version_in(raw):
                return await self._end_by_version(key, mark, seen, raw, life)
            done: Any = False
            if not is_fenced(seen):
                args = (raw, life) if raw is not None else self.tombstone(seen)
                done = await self._tier.change([key], self._tier.store.swap, key, mark, *args)
        except DeadlineExceeded:
            return False  # remembered in the journal
        if done is False:
            await self.keep_fenced([key])
        return done is True

    async def _end_by_version(self, key: str, mark: bytes, seen: Seen, raw: bytes, life: int) -> bool:
        """The same with a version. The values of writers who met live one lease: a third may have been among them."""
        lease = milliseconds(self._lease)
        short = min(life, lease) if is_fenced(seen) or self._just_written(seen) else life
        done = await self._tier.change([key], self._tier.store.write_versioned, key, mark, raw, short, lease)
        if done == Written.UNKNOWN:
            await self.keep_fenced([key])
        return bool(done == Written.STORED)

    def _just_written(self, seen: Seen) -> bool:
        """Whether what a writer found was written within the last lease: that writer may have met a third one.

        What is loaded took some time, and nobody loads while a writer is at work.
        """
        entry = seen.entry
        return (
            entry is not None and entry.version > 0 and not entry.cost and entry.age(self._clock.wall()) < self._lease
        )

    def tombstone(self, seen: Seen) -> tuple[bytes, int]:
        """What a writer leaves who stores no value, where it found this before: a tombstone, and how long it stands."""
        now = self._clock.wall()
        return marker(TOMBSTONE, now, self._lease, merged(noted(seen.entry), note(now))), milliseconds(self._lease)

    async def _unwind(self, fence: Fence, error: BaseException) -> None:
        """The store failed: put back what was there, unless the failure leaves open whether it took effect."""
        if fence.before is not UNREACHABLE and ambiguous(error):
            await self.end(fence.key, fence.mark, self.glance(fence.before))
        else:
            await self.restore([fence])

    async def restore(self, fences: Iterable[Fence]) -> None:
        """Nothing was written: put back what was there, unless another writer was at work."""
        met: list[str] = []
        swaps: list[Swap] = []
        now = self._clock.wall()
        for key, mark, before in fences:
            if before is UNREACHABLE:
                self._tier.remember([key])
                continue
            seen = self.glance(before)
            entry = seen.entry
            if is_fenced(seen):
                met.append(key)
            elif seen_before := noted(entry):  # of an invalidation: the load that follows is to read no older database
                tombstone = marker(TOMBSTONE, now, self._lease, seen_before)
                swaps.append((key, mark, tombstone, milliseconds(self._lease)))
            elif entry is None or seen.life is Life.GONE:
                swaps.append((key, mark, None, 0))
            else:
                swaps.append((key, mark, before, milliseconds(entry.keep - entry.age(now))))
        await self.keep_fenced(met)
        if swaps:
            with contextlib.suppress(DeadlineExceeded):  # the fences go by themselves
                await self._tier.run(self._tier.store.swap_many, swaps)

    async def keep_fenced(self, keys: list[str]) -> None:
        """Where another writer is or was at work, nobody knows whose value is newer: for one lease nobody stores."""
        if keys:
            with contextlib.suppress(DeadlineExceeded):  # remembered in the journal
                await self._tier.change(keys, self._tier.mark, keys, FENCE)

    def glance(self, raw: bytes | None) -> Seen:
        """What an entry is worth, its value unread."""
        try:
            entry = None if raw is None else unpack(raw)
        except Unreadable:
            entry = None
        return Seen(raw) if entry is None else Seen(raw, entry, None, entry.life(self._clock.wall()))
