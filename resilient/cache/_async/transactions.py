"""A writer's steps apart, for changes that become true with a COMMIT: fence, then finish or cancel."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from resilient.cache._async.tier import UNREACHABLE
from resilient.cache._async.writes import AsyncWrites
from resilient.cache._causal import note
from resilient.cache._entry import FENCE, Entry, Life, Unreadable, marker, pack, unpack
from resilient.cache._seen import Seen, is_fenced, milliseconds
from resilient.cache._stamps import Marks
from resilient.errors import DeadlineExceeded

__all__ = ["AsyncTransactions", "Fence"]


class Fence(NamedTuple):
    """A key that a writer has fenced: the fence, and what was there before."""

    key: str
    mark: bytes
    before: Any  # bytes, None for absence, or UNREACHABLE


class AsyncTransactions(AsyncWrites):
    """Writing in three steps."""

    async def begin(self, keys: Iterable[str]) -> list[Fence]:
        """Put a fence into each key, which stands for one lease: nobody but its writer stores there.

        Raises:
            DeadlineExceeded: There is no time left; what was fenced until then stands for one lease.
        """
        fences: list[Fence] = []
        for key in keys:
            now = self._clock.wall()
            mark = marker(FENCE, now, self._lease, note(now))
            self.flights.overtake(key)
            try:
                before = await self.tier.run(self.tier.store.exchange, key, mark, milliseconds(self._lease))
            except DeadlineExceeded:
                self.tier.remember([key])  # it may have been told or not
                raise
            fences.append(Fence(key, mark, before))
        return fences

    async def finish(
        self, fences: Iterable[Fence], entries: Mapping[str, Entry], marks: Marks, *, present: Collection[str] = ()
    ) -> None:
        """The writer is done: put entries, or else tombstones, in the place of the fences.

        Where another writer was at work, or the fence is gone, nobody knows whose value is newer, and none is stored.

        Args:
            fences: What `begin` gave.
            entries: The new entries; a key without one is forgotten.
            marks: The stamps that they are to bear: of this moment or, since another may have changed them meanwhile,
                of a moment before the fences.
            present: Keys whose entry counts only where they were cached before.
        """
        for key, mark, before in fences:
            self.flights.overtake(key)
            if before is UNREACHABLE:
                await self.tier.bury([key])
                continue
            seen = self._glance(before)
            entry = entries.get(key)
            if entry is None or (key in present and seen.life is Life.GONE):
                await self._end(key, mark, seen)
                continue
            raw = pack(marks.on(entry))
            stored = await self._end(key, mark, seen, raw, milliseconds(entry.keep))
            self.counts.add("stores" if stored else "refused")

    async def cancel(self, fences: Iterable[Fence]) -> None:
        """Nothing was written: put back what was there."""
        for key, mark, before in fences:
            if before is UNREACHABLE:
                self.tier.remember([key])
                continue
            seen = self._glance(before)
            if is_fenced(seen):
                await self._end(key, mark, seen)
                continue
            raw: bytes | None = None
            life = 0
            if seen.entry is not None and seen.life is not Life.GONE:
                raw, life = before, milliseconds(seen.entry.keep - seen.entry.age(self._clock.wall()))
            try:
                await self.tier.run(self.tier.store.swap, key, mark, raw, life)
            except DeadlineExceeded:
                return  # the fences go by themselves

    def _glance(self, raw: bytes | None) -> Seen:
        """What an entry is worth, its value unread."""
        try:
            entry = None if raw is None else unpack(raw)
        except Unreadable:
            entry = None
        return Seen(raw) if entry is None else Seen(raw, entry, None, entry.life(self._clock.wall()))
