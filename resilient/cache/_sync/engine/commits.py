# Generated from resilient/cache/_async/engine/commits.py by tools/unasync.py: do not edit.
"""A writer's steps apart, for changes that become true with a COMMIT: fence, then finish or cancel."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from resilient.cache._entry import Entry, Life, pack
from resilient.cache._seen import Fence, is_fenced, milliseconds
from resilient.cache._stamps import Stamps
from resilient.cache._sync.engine.reads import Reader
from resilient.cache._sync.engine.tier import UNREACHABLE
from resilient.cache._sync.engine.writes import Writes
from resilient.cache._values import Swap
from resilient.errors import DeadlineExceeded

__all__ = ["Commits"]


class Commits:
    """Writing in three steps.

    Args:
        reader: What is read, and how.
        writes: How a single write ends.
    """

    def __init__(self, reader: Reader, writes: Writes) -> None:
        self._writes = writes
        self._tier, self._flights, self._counts = reader.tier, reader.flights, reader.counts

    def begin(self, keys: Collection[str]) -> list[Fence]:
        """Put a fence into each key, which stands for one lease: nobody but its writer stores there.

        Raises:
            DeadlineExceeded: There is no time left; what was fenced until then stands for one lease.
        """
        for key in keys:
            self._flights.overtake(key)
        return self._tier.fence(keys)

    def finish(
        self, fences: Iterable[Fence], entries: Mapping[str, Entry], stamps: Stamps, *, present: Collection[str] = ()
    ) -> None:
        """The writer is done: put entries, or else tombstones, in the place of the fences.

        Where another writer was at work, or the fence is gone, nobody knows whose value is newer, and none is stored.

        Args:
            fences: What `begin` gave.
            entries: The new entries; a key without one is forgotten.
            stamps: The stamps that they are to bear: of this moment or, since another may have changed them meanwhile,
                of a moment before the fences.
            present: Keys whose entry counts only where they were cached before.
        """
        lost: list[str] = []
        met: list[str] = []
        swaps: list[Swap] = []
        valued: set[str] = set()
        for key, mark, before in fences:
            self._flights.overtake(key)
            if before is UNREACHABLE:
                lost.append(key)
                continue
            seen, entry = self._writes.glance(before), entries.get(key)
            if entry is not None and key in present and seen.life is Life.GONE:
                entry = None
            raw, life = (
                self._writes.tombstone(seen) if entry is None else (pack(stamps.on(entry)), milliseconds(entry.keep))
            )
            if entry is not None and entry.version:
                stored = self._writes.end(key, mark, seen, raw, life)
                self._counts.add("stores" if stored else "refused")
                continue
            if is_fenced(seen):
                met.append(key)
                self._counts.add("refused", int(entry is not None))
                continue
            swaps.append((key, mark, raw, life))
            if entry is not None:
                valued.add(key)
        if lost:
            self._tier.bury(lost)
        self._writes.keep_fenced(met)
        if swaps:
            self._end_many(swaps, valued)

    def _end_many(self, swaps: list[Swap], valued: set[str]) -> None:
        """End several writes that met no other, in one round trip; where a fence is gone, nobody stores for a lease."""
        keys, store = [swap[0] for swap in swaps], self._tier.store
        try:
            done = self._tier.change(keys, store.swap_many, swaps)
        except DeadlineExceeded:
            return  # remembered in the journal
        if done is UNREACHABLE:
            return
        late = [key for key, did in zip(keys, done, strict=True) if not did]
        self._writes.keep_fenced(late)
        refused = len(valued.intersection(late))
        self._counts.add("stores", len(valued) - refused)
        self._counts.add("refused", refused)

    def cancel(self, fences: Iterable[Fence]) -> None:
        """Nothing was written: put back what was there."""
        self._writes.restore(fences)
