# Generated from resilient/cache/_async/transactions.py by tools/unasync.py: do not edit.
"""A writer's steps apart, for changes that become true with a COMMIT: fence, then finish or cancel."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from resilient.cache._entry import FENCE, TOMBSTONE, Entry, Life, Unreadable, pack, unpack
from resilient.cache._seen import Seen, is_fenced, milliseconds
from resilient.cache._stamps import Marks
from resilient.cache._sync.tier import UNREACHABLE
from resilient.cache._sync.writes import Writes
from resilient.cache._values import Swap
from resilient.errors import DeadlineExceeded

__all__ = ["Fence", "Transactions"]


class Fence(NamedTuple):
    """A key that a writer has fenced: the fence, and what was there before."""

    key: str
    mark: bytes
    before: Any  # bytes, None for absence, or UNREACHABLE


class Transactions(Writes):
    """Writing in three steps."""

    def begin(self, keys: Iterable[str]) -> list[Fence]:
        """Put a fence into each key, which stands for one lease: nobody but its writer stores there.

        Raises:
            DeadlineExceeded: There is no time left; what was fenced until then stands for one lease.
        """
        marks = {key: self._mark(FENCE)[0] for key in keys}
        for key in marks:
            self.flights.overtake(key)
        try:
            before = self.tier.run(self.tier.store.exchange_many, marks, milliseconds(self._lease))
        except DeadlineExceeded:
            self.tier.remember(list(marks))  # it may have been told or not
            raise
        found = [UNREACHABLE] * len(marks) if before is UNREACHABLE else before
        return [Fence(key, mark, was) for (key, mark), was in zip(marks.items(), found, strict=True)]

    def finish(
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
        swaps: list[Swap] = []
        valued: set[str] = set()
        for key, mark, before in fences:
            self.flights.overtake(key)
            if before is UNREACHABLE:
                self.tier.bury([key])
                continue
            seen, entry = self._glance(before), entries.get(key)
            if entry is None or (key in present and seen.life is Life.GONE):
                if is_fenced(seen):
                    self._end(key, mark, seen)
                else:
                    swaps.append((key, mark, *self._mark(TOMBSTONE)))
                continue
            raw, life = pack(marks.on(entry)), milliseconds(entry.keep)
            if entry.version or is_fenced(seen):
                stored = self._end(key, mark, seen, raw, life)
                self.counts.add("stores" if stored else "refused")
            else:
                swaps.append((key, mark, raw, life))
                valued.add(key)
        if swaps:
            self._end_many(swaps, valued)

    def _end_many(self, swaps: list[Swap], valued: set[str]) -> None:
        """End several writes that met no other, in one round trip; where a fence is gone, nobody stores for a lease."""
        keys, store = [swap[0] for swap in swaps], self.tier.store
        try:
            done = self.tier.change(keys, store.swap_many, swaps)
            if done is UNREACHABLE:
                return
            late = [key for key, did in zip(keys, done, strict=True) if not did]
            if late:
                mark, life = self._mark(FENCE)
                self.tier.change(late, store.put_many, dict.fromkeys(late, mark), life)
        except DeadlineExceeded:
            return  # remembered in the journal
        refused = len(valued.intersection(late))
        self.counts.add("stores", len(valued) - refused)
        self.counts.add("refused", refused)

    def cancel(self, fences: Iterable[Fence]) -> None:
        """Nothing was written: put back what was there."""
        for key, mark, before in fences:
            if before is UNREACHABLE:
                self.tier.remember([key])
                continue
            seen = self._glance(before)
            if is_fenced(seen):
                self._end(key, mark, seen)
                continue
            raw: bytes | None = None
            life = 0
            if seen.entry is not None and seen.life is not Life.GONE:
                raw, life = before, milliseconds(seen.entry.keep - seen.entry.age(self._clock.wall()))
            try:
                self.tier.run(self.tier.store.swap, key, mark, raw, life)
            except DeadlineExceeded:
                return  # the fences go by themselves

    def _glance(self, raw: bytes | None) -> Seen:
        """What an entry is worth, its value unread."""
        try:
            entry = None if raw is None else unpack(raw)
        except Unreadable:
            entry = None
        return Seen(raw) if entry is None else Seen(raw, entry, None, entry.life(self._clock.wall()))
