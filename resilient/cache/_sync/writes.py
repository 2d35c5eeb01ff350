# Generated from resilient/cache/_async/writes.py by tools/unasync.py: do not edit.
"""What a cache does when a value changes: store it, write through, invalidate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from resilient import events
from resilient.cache._causal import note
from resilient.cache._codecs import Codec
from resilient.cache._entry import FENCE, TOMBSTONE, Entry, Life, marker, pack, version_in
from resilient.cache._events import ValueRefused
from resilient.cache._failures import ambiguous
from resilient.cache._made import made_now
from resilient.cache._seen import Lease, Plan, Seen, is_fenced, milliseconds
from resilient.cache._stamps import tags_of
from resilient.cache._sync.reads import Reads
from resilient.cache._sync.tier import UNREACHABLE
from resilient.cache._values import Loader, Settled
from resilient.errors import DeadlineExceeded, InvalidInput

__all__ = ["Writes"]

Load: TypeAlias = Loader[[], Any]


class Writes(Reads):
    """Storing, writing through and invalidating."""

    def entry(self, value: Any, plan: Plan, version: int | None = None) -> Entry:
        """The entry for a value that is new now; it has no stamps yet, without which nobody reads it."""
        return made_now(value, plan, self._clock.wall(), version)

    def put(self, key: str, entry: Entry) -> None:
        """Store, whatever was there; with a version not over a value with a higher one."""
        self.flights.overtake(key)
        store, entry = self.tier.store, self._stamped([key], entry)
        raw, life = pack(entry), milliseconds(entry.keep)
        if entry.version:
            done = self.tier.change([key], store.settle, key, None, raw, life, life)
            self.counts.add("stores" if done == Settled.STORED else "refused")
        elif self.tier.change([key], store.put, key, raw, life) is not UNREACHABLE:
            self.counts.add("stores")

    def put_many(self, entries: dict[str, Entry]) -> None:
        """Store several."""
        for key in entries:
            self.flights.overtake(key)
        raw = {key: pack(entry) for key, entry in (self._stamped_many(entries)).items()}
        life = max((milliseconds(entry.keep) for entry in entries.values()), default=0)
        if raw and self.tier.change(list(raw), self.tier.store.put_many, raw, life) is not UNREACHABLE:
            self.counts.add("stores", len(raw))

    def add(self, key: str, entry: Entry, codec: Codec) -> bool:
        """Store only where nothing is. Where the tier does not answer, nothing is stored."""
        seen = self.look(key, codec, tags_of(entry))
        if seen.raw is UNREACHABLE or seen.life is not Life.GONE or is_fenced(seen):
            return False
        entry = (self.stamps.settled(seen.marks, entry.keep)).on(entry)
        if not entry.generation:
            return False  # nobody could read it
        stored = self.tier.run(self.tier.store.swap, key, seen.raw, pack(entry), milliseconds(entry.keep))
        return stored is True

    def _stamped(self, keys: list[str], entry: Entry) -> Entry:
        """An entry with the stamps of this moment; keys are remembered as changed where there is no time for it."""
        try:
            return self.stamps.onto(entry)
        except BaseException:  # out of time, or cancelled: what is there now is old
            self.tier.remember(keys)
            raise

    def _stamped_many(self, entries: dict[str, Entry]) -> dict[str, Entry]:
        try:
            return self.stamps.onto_many(entries)
        except BaseException:  # out of time, or cancelled: what is there now is old
            self.tier.remember(list(entries))
            raise

    def invalidate(self, keys: list[str]) -> None:
        """Make sure that nothing loaded before this moment is served from the cache after it."""
        for key in keys:
            self.flights.overtake(key)
        if keys:
            self.tier.bury(keys)

    def write(self, key: str, store: Load, plan: Plan, *, keeps: Callable[[Any], bool], present: bool) -> Any:
        """Store first, then cache.

        A fence stands in the key while ``store`` runs, so that no reader caches what it read before; and should this
        process die in between, the fence goes after one lease. The value is cached only if the fence still stands
        afterwards and no other writer's stood before: of two writers at once neither can tell whose value is newer,
        unless versions tell.
        """
        now = self._clock.wall()
        fence = marker(FENCE, now, self._lease, note(now))
        lease = milliseconds(self._lease)
        self.flights.overtake(key)
        marks = self.stamps.taken(plan.tags, plan.policy.ttl + plan.policy.stale)
        try:
            before = self.tier.run(self.tier.store.exchange, key, fence, lease)
        except DeadlineExceeded:
            self.tier.remember([key])  # it may have been told or not: it was asked to forget the old value
            raise
        try:
            result = store()
        except BaseException as error:
            self._unwind(key, fence, before, plan, error)
            raise
        self.flights.overtake(key)
        self._settle(key, Lease(fence, marks=marks), before, result, plan, keeps=keeps, present=present)
        return result

    def _settle(
        self,
        key: str,
        lease: Lease,
        before: Any,
        result: Any,
        plan: Plan,
        *,
        keeps: Callable[[Any], bool],
        present: bool,
    ) -> None:
        """After the store took the value: cache it, or see to it that nothing older is served."""
        seen, fence = self._judge(before, plan.codec), lease.header
        if before is UNREACHABLE:
            self.tier.bury([key])
            return
        if not keeps(result) or (present and seen.life is Life.GONE):
            self._end(key, fence, seen)
            return
        try:
            entry = lease.marks.on(self.entry(result, plan))
        except InvalidInput as error:  # the store has taken it: an error now would say that it has not
            events.emit(ValueRefused(cache=self._name, advice=str(error)))
            self._end(key, fence, seen)
            return
        stored = self._end(key, fence, seen, pack(entry), milliseconds(entry.keep))
        self.counts.add("stores" if stored else "refused")

    def _end(self, key: str, fence: bytes, seen: Seen, raw: bytes | None = None, life: int = 0) -> bool:
        """A writer is done: put a value (or else a tombstone) in the place of its fence. Whether that was done.

        Where another writer is or was at work, nobody knows whose value is newer: for one lease nobody stores.
        """
        try:
            if raw is not None and version_in(raw):
                return self._end_by_version(key, fence, seen, raw, life)
            done: Any = False
            if not is_fenced(seen):
                args = (raw, life) if raw is not None else self._mark(TOMBSTONE)
                done = self.tier.change([key], self.tier.store.swap, key, fence, *args)
            if done is False:
                self.tier.change([key], self.tier.store.put, key, *self._mark(FENCE))
        except DeadlineExceeded:
            return False  # remembered in the journal
        return done is True

    def _end_by_version(self, key: str, fence: bytes, seen: Seen, raw: bytes, life: int) -> bool:
        """The same with a version. The values of writers who met live one lease: a third may have been among them."""
        lease = milliseconds(self._lease)
        short = min(life, lease) if is_fenced(seen) or self._just_written(seen) else life
        done = self.tier.change([key], self.tier.store.settle, key, fence, raw, short, lease)
        if done == Settled.UNKNOWN:
            self.tier.change([key], self.tier.store.put, key, *self._mark(FENCE))
        return bool(done == Settled.STORED)

    def _just_written(self, seen: Seen) -> bool:
        """Whether what a writer found was written within the last lease: that writer may have met a third one.

        What is loaded took some time, and nobody loads while a writer is at work.
        """
        entry = seen.entry
        return (
            entry is not None and entry.version > 0 and not entry.cost and entry.age(self._clock.wall()) < self._lease
        )

    def _mark(self, flag: int) -> tuple[bytes, int]:
        """A tombstone or a fence of this moment, and how long it stands."""
        now = self._clock.wall()
        return marker(flag, now, self._lease, note(now)), milliseconds(self._lease)

    def _unwind(self, key: str, fence: bytes, before: Any, plan: Plan, error: BaseException) -> None:
        """The store failed: put back what was there, unless the failure leaves open whether it took effect."""
        if before is UNREACHABLE:
            self.tier.remember([key])
            return
        seen = self._judge(before, plan.codec)
        if ambiguous(error) or is_fenced(seen):
            self._end(key, fence, seen)
            return
        raw: bytes | None = None
        life = 0
        if seen.entry is not None and seen.life is not Life.GONE:
            raw, life = before, milliseconds(seen.entry.keep - seen.entry.age(self._clock.wall()))
        try:
            self.tier.run(self.tier.store.swap, key, fence, raw, life)
        except DeadlineExceeded:
            return  # the fence goes by itself
