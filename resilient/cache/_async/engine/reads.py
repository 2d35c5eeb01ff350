"""What a cache reads from its store, and what it makes of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeAlias

from resilient import events
from resilient.cache._async.engine.stampbook import AsyncStampBook
from resilient.cache._async.engine.tier import UNREACHABLE, AsyncTier
from resilient.cache._codecs import ABSENCE, Codec
from resilient.cache._entry import FAILED, NEGATIVE, Life, Unreadable, noted, unpack
from resilient.cache._events import CacheRead, EntryUnreadable
from resilient.cache._failures import Throttle
from resilient.cache._flight import AsyncFlights
from resilient.cache._local_tier import Kept
from resilient.cache._quick import NOTHING, fresh_many, unjudged
from resilient.cache._seen import Seen, is_absence
from resilient.cache._stamps import UNKNOWN, Stamps, invalidated, tags_of, unknown
from resilient.cache._values import Counts, Lookup
from resilient.clock import Clock
from resilient.errors import NotFound

__all__ = ["AsyncReader", "Forgets"]

Forgets: TypeAlias = Callable[[Collection[str]], bool]
"""Whether what bears these tags is about to be forgotten."""
_EXACT = 1 + 2**-22
"""By what a time may be too short that an entry tells, which has 24 bits for it."""


class AsyncReader:
    """Reading, and what every other part needs to know. Keys are those of the store.

    Args:
        name: The cache's namespace, for events.
        tier: The guarded store.
        lease: Seconds that a lease, a tombstone or a fence lasts.
        clock: Where time is read.
        counts: Where reads, loads and stores are counted.
    """

    def __init__(self, name: str, tier: AsyncTier, *, lease: float, clock: Clock, counts: Counts) -> None:
        self.name = name
        self.tier = tier
        self.stampbook = AsyncStampBook(name, tier, lease=lease, clock=clock)
        self.flights = AsyncFlights()
        self.throttle = Throttle()
        self.counts = counts
        self.lease = lease
        self.clock = clock

    def reset(self) -> None:
        """Forget what other threads do: for a forked child, where they do not exist."""
        self.flights.reset()
        self.throttle.reset()

    async def look(self, key: str, codec: Codec, tags: tuple[str, ...] = ()) -> Seen:
        """One round trip, and what it found; a second one where the entry bears tags that its reader did not name."""
        stampbook = self.stampbook
        keys = (key, *stampbook.keys(tags)) if tags else (key, stampbook.namespace)
        found = await self.tier.read(keys)
        if found is UNREACHABLE:
            return Seen(UNREACHABLE, stamps=unknown(tags))
        raw, stamps = found[0], stampbook.stood(tags, found[1:])
        if raw is None or not stamps.lacking(raw):
            seen = self.judge(raw, codec, stamps)
        else:
            seen = (await self.weigh((raw,), codec, stamps))[0]
        return seen._replace(kept=True) if found.__class__ is Kept else seen

    async def weigh(self, raws: Sequence[bytes | None], codec: Codec, stamps: Stamps) -> list[Seen]:
        """What entries mean, their tags asked for where that was not done."""
        lacking: dict[str, None] = {}
        for raw in raws:
            lacking.update(dict.fromkeys(stamps.lacking(raw)))
        if not lacking:
            return [self.judge(raw, codec, stamps) for raw in raws]
        more = await self.stampbook.read_more(tuple(lacking))
        if more is UNREACHABLE:
            return [Seen(UNREACHABLE, stamps=unknown(stamps.names))] * len(raws)
        return [self.judge(raw, codec, stamps, more) for raw in raws]

    def judge(
        self, raw: Any, codec: Codec, stamps: Stamps | None = None, more: Mapping[str, bytes | None] | None = None
    ) -> Seen:
        """What the bytes of an entry mean.

        Args:
            raw: The bytes.
            codec: Reads its value.
            stamps: The stamps that stand; ``None`` where they do not matter.
            more: Those of tags that the reader did not name.
        """
        stood = UNKNOWN if stamps is None else stamps
        if raw is None or raw is UNREACHABLE:
            return Seen(raw, stamps=stood)
        try:
            entry = unpack(raw)
            now = self.clock.wall()
            life = entry.life(now)
            if stamps is not None and (life is not Life.GONE or entry.generation) and not stamps.stand(entry, more):
                return Seen(raw, invalidated(now, self.lease, noted(entry)), stamps=stood)
            if life is Life.GONE:
                return Seen(raw, entry, stamps=stood)
            if (entry.codec == ABSENCE) is not bool(entry.flags & (NEGATIVE | FAILED)):
                raise Unreadable("bad header")  # what is no value must not be taken for one, nor the other way round
            return Seen(raw, entry, codec.decode(entry.codec, entry.schema, entry.body), life, stood)
        except Unreadable as error:
            self.counts.add("unreadable")
            events.emit(EntryUnreadable(cache=self.name, reason=error.reason))
            return Seen(raw, stamps=stood)

    async def lookup(
        self, key: str, codec: Codec, tags: tuple[str, ...] = (), *, forgets: Forgets | None = None
    ) -> Lookup[Any] | None:
        """A fresh entry's value, or ``None``. One that says "there is no such thing" counts as nothing.

        Args:
            key: The key.
            codec: Reads its value.
            tags: Those that its reader knows it to bear.
            forgets: Told the tags that it bears, says whether it counts as nothing all the same.
        """
        return self._found(await self.look(key, codec, tags), forgets)

    async def get_many(
        self, keys: Sequence[str], codec: Codec, tags: tuple[str, ...] = (), *, forgets: Forgets | None = None
    ) -> list[Any]:
        """The values of some keys in one round trip, and `NOTHING` where there is none."""
        count = len(keys)
        raws = await self.tier.read((*keys, *self.stampbook.keys(tags)))
        if raws is UNREACHABLE:
            for _ in keys:
                self._missed()
            return [NOTHING] * count
        stamps = self.stampbook.stood(tags, raws[count:])
        kept = raws.__class__ is Kept
        found, left = self.quick(raws[:count], stamps, codec, kept=kept) if forgets is None else unjudged(count)
        if left:
            weighed = await self.weigh([raws[place] for place in left], codec, stamps)
            for place, seen in zip(left, weighed, strict=True):
                lookup = self._found(seen._replace(kept=kept), forgets)
                found[place] = NOTHING if lookup is None else lookup.value
        return found

    def quick(
        self, raws: Sequence[bytes | None], stamps: Stamps, codec: Codec, *, kept: bool = False
    ) -> tuple[list[Any], list[int]]:
        """The values that are plainly fresh, counted; and the places of what is to be looked at with care."""
        found, left = fresh_many(raws, self.clock.wall(), *stamps.borne(), codec)
        hits = len(raws) - len(left)
        if hits:
            self.counts.add("kept" if kept else "hits", hits)
            if events.wanted(CacheRead):
                source = self.source(kept)
                for _ in range(hits):
                    events.emit(CacheRead(cache=self.name, source=source))
        return found, left

    def _found(self, seen: Seen, forgets: Forgets | None) -> Lookup[Any] | None:
        entry = seen.entry if seen.life is Life.FRESH else None
        valued = entry is not None and not entry.flags & (NEGATIVE | FAILED)
        if entry is not None and valued and (forgets is None or not forgets(tags_of(entry))):
            return self.hit(seen)
        self._missed()
        return None

    def _missed(self) -> None:
        self.counts.miss()
        if events.wanted(CacheRead):
            events.emit(CacheRead(cache=self.name, source="none"))

    def hit(self, seen: Seen, *, stale: bool = False) -> Lookup[Any]:
        """Count a value that is served from the store."""
        if stale:
            self.counts.add("stale")
        elif seen.kept:
            self.counts.add("kept")
        else:
            self.counts.hit()
        if events.wanted(CacheRead):
            events.emit(CacheRead(cache=self.name, source=self.source(seen.kept), stale=stale))
        return self.answer(seen, stale=stale)

    def answer(self, seen: Seen, *, stale: bool = False) -> Lookup[Any]:
        """What was found, to its reader. Raises NotFound where it says that there is no such thing."""
        assert seen.entry is not None  # noqa: S101 - what is served has an entry
        if is_absence(seen):
            raise NotFound(seen.value)
        age = seen.entry.age(self.clock.wall())
        # By its reader's policy this is one of two things, or both; what entries lose of a time is not missed.
        after = max(0.0, seen.entry.keep * _EXACT - seen.entry.fresh) if seen.entry.keep > seen.entry.fresh else 0.0
        left, tags = seen.entry.fresh - age, tags_of(seen.entry)
        return Lookup(seen.value, self.source(seen.kept), age, stale, left, after, after, tags)

    def source(self, kept: bool) -> Any:  # noqa: FBT001 - a state
        """Where values that were found came from."""
        return "local" if kept or self.tier.store.local else "shared"
