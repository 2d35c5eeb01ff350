"""What a cache reads from its store, and what it makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from resilient import events
from resilient.cache._async.tier import UNREACHABLE, AsyncTier
from resilient.cache._codecs import ABSENCE, Codec
from resilient.cache._entry import FAILED, NEGATIVE, Life, Unreadable, unpack
from resilient.cache._events import CacheRead, EntryUnreadable
from resilient.cache._failures import Throttle
from resilient.cache._flight import AsyncFlights
from resilient.cache._seen import Seen, is_absence
from resilient.cache._values import Counts, Lookup
from resilient.clock import Clock
from resilient.errors import NotFound

__all__ = ["AsyncReads"]


class AsyncReads:
    """What every part of the work needs, and reading. Keys are those of the store.

    Args:
        name: The cache's namespace, for events.
        tier: The guarded store.
        lease: Seconds that a lease, a tombstone or a fence lasts.
        clock: Where time is read.
        counts: Where reads, loads and stores are counted.
    """

    def __init__(self, name: str, tier: AsyncTier, *, lease: float, clock: Clock, counts: Counts) -> None:
        self.tier = tier
        self.flights = AsyncFlights()
        self.counts = counts
        self._name = name
        self._lease = lease
        self._clock = clock
        self._throttle = Throttle()

    def reset(self) -> None:
        """Forget what other threads do: for a forked child, where they do not exist."""
        self.flights.reset()
        self._throttle = Throttle()

    async def look(self, key: str, codec: Codec) -> Seen:
        """One round trip, and what it found."""
        return self._judge(await self.tier.run(self.tier.store.get, key), codec)

    def _judge(self, raw: Any, codec: Codec) -> Seen:
        if raw is None or raw is UNREACHABLE:
            return Seen(raw)
        try:
            entry = unpack(raw)
            life = entry.life(self._clock.wall())
            if life is Life.GONE or entry.created <= self.tier.journal.horizon:
                return Seen(raw, entry)
            if (entry.codec == ABSENCE) is not bool(entry.flags & (NEGATIVE | FAILED)):
                raise Unreadable("bad header")  # what is no value must not be taken for one, nor the other way round
            return Seen(raw, entry, codec.decode(entry.codec, entry.schema, entry.body), life)
        except Unreadable as error:
            self.counts.add("unreadable")
            events.emit(EntryUnreadable(cache=self._name, reason=error.reason))
            return Seen(raw)

    async def find(self, key: str, codec: Codec) -> Lookup[Any] | None:
        """A fresh entry's value, or ``None``. One that says "there is no such thing" counts as nothing."""
        return self._found(await self.look(key, codec))

    async def find_many(self, keys: Sequence[str], codec: Codec) -> list[Lookup[Any] | None]:
        """The same for several keys in one round trip."""
        return [self._found(seen) for seen in await self.look_many(keys, codec)]

    async def look_many(self, keys: Sequence[str], codec: Codec) -> list[Seen]:
        """What is under each key, in one round trip."""
        found = await self.tier.run(self.tier.store.get_many, keys)
        if found is UNREACHABLE:
            found = [UNREACHABLE] * len(keys)
        return [self._judge(raw, codec) for raw in found]

    def _found(self, seen: Seen) -> Lookup[Any] | None:
        if seen.life is Life.FRESH and seen.entry is not None and not seen.entry.flags & (NEGATIVE | FAILED):
            return self._hit(seen)
        self._missed()
        return None

    def _missed(self) -> None:
        self.counts.add("misses")
        if events.wanted(CacheRead):
            events.emit(CacheRead(cache=self._name, source="none"))

    def _hit(self, seen: Seen, *, stale: bool = False) -> Lookup[Any]:
        """Count a value that is served from the store."""
        if stale:
            self.counts.add("stale")
        else:
            self.counts.hit()
        if events.wanted(CacheRead):
            events.emit(CacheRead(cache=self._name, source=self._source, stale=stale))
        return self._lookup(seen, stale=stale)

    def _lookup(self, seen: Seen, *, stale: bool = False) -> Lookup[Any]:
        """What was found, to its reader. Raises NotFound where it says that there is no such thing."""
        assert seen.entry is not None  # noqa: S101 - what is served has an entry
        if is_absence(seen):
            raise NotFound(seen.value)
        return Lookup(seen.value, self._source, seen.entry.age(self._clock.wall()), stale)

    @property
    def _source(self) -> Any:
        return "local" if self.tier.store.local else "shared"
