"""What a cache reads from its store, and what it makes of it."""

from __future__ import annotations

from typing import Any

from resilient import events
from resilient.cache._async.tier import UNREACHABLE, AsyncTier
from resilient.cache._codec import ABSENCE, Codec
from resilient.cache._entry import NEGATIVE, Life, Unreadable, unpack
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
        lease: Seconds that a fence lasts.
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
            if (entry.codec == ABSENCE) is not bool(entry.flags & NEGATIVE):
                raise Unreadable("bad header")  # what is no value must not be taken for one, nor the other way round
            return Seen(raw, entry, codec.decode(entry.codec, entry.schema, entry.body), life)
        except Unreadable as error:
            self.counts.add("unreadable")
            events.emit(EntryUnreadable(cache=self._name, reason=error.reason))
            return Seen(raw)

    async def find(self, key: str, codec: Codec) -> Lookup[Any] | None:
        """A fresh entry's value, or ``None``. One that says "there is no such thing" counts as nothing."""
        seen = await self.look(key, codec)
        if seen.life is not Life.FRESH or is_absence(seen):
            self._missed()
            return None
        return self._hit(seen)

    async def find_many(self, keys: list[str], codec: Codec) -> list[Lookup[Any] | None]:
        """The same for several keys in one round trip."""
        found = await self.tier.run(self.tier.store.get_many, keys)
        if found is UNREACHABLE:
            found = [UNREACHABLE] * len(keys)
        answer: list[Lookup[Any] | None] = []
        for raw in found:
            seen = self._judge(raw, codec)
            good = seen.life is Life.FRESH and not is_absence(seen)
            if good:
                answer.append(self._hit(seen))
            else:
                self._missed()
                answer.append(None)
        return answer

    def _missed(self) -> None:
        self.counts.add("misses")
        if events.wanted(CacheRead):
            events.emit(CacheRead(cache=self._name, source="none"))

    def _hit(self, seen: Seen, *, stale: bool = False) -> Lookup[Any]:
        source: Any = "local" if self.tier.store.local else "shared"
        self.counts.add("stale" if stale else "hits")
        if events.wanted(CacheRead):
            events.emit(CacheRead(cache=self._name, source=source, stale=stale))
        assert seen.entry is not None  # noqa: S101 - a hit has an entry
        if is_absence(seen):
            raise NotFound(seen.value)
        return Lookup(seen.value, source, seen.entry.age(self._clock.wall()), stale)
