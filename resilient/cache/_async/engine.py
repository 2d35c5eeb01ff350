"""What a cache does with a key: read it, load it, store what was loaded, write through it, invalidate it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from resilient import events
from resilient.cache._async.tier import UNREACHABLE, AsyncTier
from resilient.cache._codec import ABSENCE, Codec
from resilient.cache._entry import FENCE, NEGATIVE, TOMBSTONE, Entry, Life, Unreadable, marker, pack, stamp, unpack
from resilient.cache._events import CacheRead, EntryUnreadable, LoadFailed, ValueRefused
from resilient.cache._failures import Throttle, ambiguous, is_failure
from resilient.cache._flight import AsyncFlights, Flight, Landed
from resilient.cache._freshness import Policy
from resilient.cache._values import AsyncLoader, Counts, Lookup
from resilient.clock import Clock
from resilient.errors import DeadlineExceeded, InvalidInput, NotFound, ResilientError, Unavailable

__all__ = ["AsyncEngine", "Plan"]

Load: TypeAlias = AsyncLoader[[], Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """How the values of one function, or of one call, are kept."""

    policy: Policy
    codec: Codec


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a look at the store found: the bytes, and what they mean."""

    raw: Any  # bytes, None for absence, or UNREACHABLE
    entry: Entry | None = None
    value: Any = None
    life: Life = Life.GONE


class AsyncEngine:
    """The work behind the face. Keys are those of the store.

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

    # ------------------------------------------------------------------------------------------------- reading

    async def look(self, key: str, codec: Codec) -> _Seen:
        """One round trip, and what it found."""
        return self._judge(await self.tier.run(self.tier.store.get, key), codec)

    def _judge(self, raw: Any, codec: Codec) -> _Seen:
        if raw is None or raw is UNREACHABLE:
            return _Seen(raw)
        try:
            entry = unpack(raw)
            life = entry.life(self._clock.wall())
            if life is Life.GONE or entry.created <= self.tier.journal.horizon:
                return _Seen(raw, entry)
            if (entry.codec == ABSENCE) is not bool(entry.flags & NEGATIVE):
                raise Unreadable("bad header")  # what is no value must not be taken for one, nor the other way round
            return _Seen(raw, entry, codec.decode(entry.codec, entry.schema, entry.body), life)
        except Unreadable as error:
            self.counts.add("unreadable")
            events.emit(EntryUnreadable(cache=self._name, reason=error.reason))
            return _Seen(raw)

    async def find(self, key: str, codec: Codec) -> Lookup[Any] | None:
        """A fresh entry's value, or ``None``. One that says "there is no such thing" counts as nothing."""
        seen = await self.look(key, codec)
        if seen.life is not Life.FRESH or _is_absence(seen):
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
            good = seen.life is Life.FRESH and not _is_absence(seen)
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

    def _hit(self, seen: _Seen, *, stale: bool = False) -> Lookup[Any]:
        source: Any = "local" if self.tier.store.local else "shared"
        self.counts.add("stale" if stale else "hits")
        if events.wanted(CacheRead):
            events.emit(CacheRead(cache=self._name, source=source, stale=stale))
        assert seen.entry is not None  # noqa: S101 - a hit has an entry
        if _is_absence(seen):
            raise NotFound(seen.value)
        return Lookup(seen.value, source, seen.entry.age(self._clock.wall()), stale)

    # ------------------------------------------------------------------------------------------------- loading

    async def through(self, key: str, load: Load, plan: Plan, *, refresh: bool = False) -> Lookup[Any]:
        """A fresh value from the store, or a loaded one."""
        if refresh:
            self.flights.overtake(key)
        since = self.flights.moment
        seen = await self.look(key, plan.codec)
        if seen.life is Life.FRESH and not refresh:
            return self._hit(seen)
        self.counts.add("misses")
        while True:
            flight, leads = self.flights.join(key, since, seen.raw)
            if leads:
                return await self._lead(flight, seen, load, plan, refresh=refresh)
            if self.flights.mine(flight):
                return Lookup(await load(), "loader", 0.0)  # the loader reads its own key: waiting would never end
            landed = await self.flights.wait(flight)
            if landed is None:
                continue  # its leader was cancelled or ran out of time
            if landed.error is not None:
                raise landed.error
            return self._share(landed, plan)

    def _share(self, landed: Landed, plan: Plan) -> Lookup[Any]:
        """A copy of what the leader got, so that no two callers hold the same mutable value."""
        number, body, lookup = landed.result
        value = plan.codec.decode(number, 0, body)
        return Lookup(value, lookup.source, lookup.age, lookup.stale)

    async def _lead(self, flight: Flight, seen: _Seen, load: Load, plan: Plan, *, refresh: bool) -> Lookup[Any]:
        landed: Landed | None = None
        try:
            if flight.again and not refresh:
                seen = await self.look(flight.key, plan.codec)
                if seen.life is Life.FRESH:
                    lookup = self._hit(seen)
                    landed = Landed((*_written(seen), lookup))
                    return lookup
            lookup, number, body = await self._load(flight, seen, load, plan, refresh=refresh)
            landed = Landed((number, body, lookup))
            return lookup
        except DeadlineExceeded:
            raise  # this caller's time is over, not that of those who wait
        except Exception as error:
            landed = Landed(error=error)
            raise
        finally:
            self.flights.land(flight, landed)

    async def _load(
        self, flight: Flight, seen: _Seen, load: Load, plan: Plan, *, refresh: bool
    ) -> tuple[Lookup[Any], int, bytes]:
        stale = seen.life is Life.STALE
        if stale and not refresh and self._throttle.holds(flight.key, self._clock.monotonic()):
            return (self._hit(seen, stale=True), *_written(seen))
        created, began = self._clock.wall(), self._clock.monotonic()
        try:
            value = await load()
        except NotFound as error:
            await self._absent(flight, seen, plan, error, created)
            raise
        except Exception as error:
            self.counts.add("load_errors")
            kept = plan.policy.stale_if_error > 0 and is_failure(error)
            served = "stale" if kept and stale and not refresh else "error"
            events.emit(LoadFailed(cache=self._name, error=type(error).__name__, served=served))
            if not kept or refresh:
                raise
            if stale:
                self._throttle.hold(flight.key, self._clock.monotonic())
                return (self._hit(seen, stale=True), *_written(seen))
            if isinstance(error, ResilientError):
                raise
            raise Unavailable("the loader of a cached value failed, and nothing is left to serve instead") from error
        self.counts.add("loads")
        self._throttle.lift(flight.key)
        if events.wanted(CacheRead):
            events.emit(CacheRead(cache=self._name, source="loader"))
        number, body = plan.codec.encode(value)
        cost = self._clock.monotonic() - began
        negative = value is None and plan.policy.negative_ttl is not None
        fresh, keep = plan.policy.lives(random.random(), negative=negative)  # noqa: S311 - spreads ends, hides nothing
        entry = Entry(body, number, plan.codec.schema, 0, stamp(), created, fresh, keep, cost)
        await self._store(flight, seen, entry)
        return Lookup(value, "loader", self._clock.wall() - created), number, body

    async def _absent(self, flight: Flight, seen: _Seen, plan: Plan, error: NotFound, created: float) -> None:
        """The loader says that there is no such thing: remember it, or at least forget the value there was."""
        self.counts.add("loads")
        if plan.policy.negative_ttl is None:
            if seen.entry is not None:
                await self.tier.bury([flight.key])
            return
        number, body = plan.codec.absence(error.message)
        fresh, keep = plan.policy.lives(random.random(), negative=True)  # noqa: S311 - spreads ends, hides nothing
        await self._store(flight, seen, Entry(body, number, 0, NEGATIVE, stamp(), created, fresh, keep, 0.0))

    async def _store(self, flight: Flight, seen: _Seen, entry: Entry) -> None:
        """Store what was loaded, unless the key was changed since the load began."""
        if seen.raw is UNREACHABLE:
            return  # what is there is unknown, so nothing may be put over it
        stored: Any = False
        if not flight.overtaken and not (seen.entry is not None and seen.entry.flags & FENCE):
            args = (flight.key, seen.raw, pack(entry), _milliseconds(entry.keep))
            try:
                stored = await self.tier.run(self.tier.store.swap, *args)
            except DeadlineExceeded:
                return  # the value is there; only storing it has no time left
        if stored is not UNREACHABLE:
            self.counts.add("stores" if stored else "refused")

    # ------------------------------------------------------------------------------------------------- writing

    def entry(self, value: Any, plan: Plan) -> Entry:
        """The entry for a value that is new now."""
        number, body = plan.codec.encode(value)
        negative = value is None and plan.policy.negative_ttl is not None
        fresh, keep = plan.policy.lives(random.random(), negative=negative)  # noqa: S311 - spreads ends, hides nothing
        return Entry(body, number, plan.codec.schema, 0, stamp(), self._clock.wall(), fresh, keep, 0.0)

    async def put(self, key: str, entry: Entry) -> None:
        """Store, whatever was there."""
        self.flights.overtake(key)
        store = self.tier.store
        if await self.tier.change([key], store.put, key, pack(entry), _milliseconds(entry.keep)) is not UNREACHABLE:
            self.counts.add("stores")

    async def put_many(self, entries: dict[str, Entry]) -> None:
        """Store several."""
        for key in entries:
            self.flights.overtake(key)
        raw = {key: pack(entry) for key, entry in entries.items()}
        life = max((_milliseconds(entry.keep) for entry in entries.values()), default=0)
        if raw and await self.tier.change(list(raw), self.tier.store.put_many, raw, life) is not UNREACHABLE:
            self.counts.add("stores", len(raw))

    async def add(self, key: str, entry: Entry, codec: Codec) -> bool:
        """Store only where nothing is. Where the tier does not answer, nothing is stored."""
        seen = await self.look(key, codec)
        if seen.raw is UNREACHABLE or seen.life is not Life.GONE or _is_fenced(seen):
            return False
        stored = await self.tier.run(self.tier.store.swap, key, seen.raw, pack(entry), _milliseconds(entry.keep))
        return stored is True

    async def invalidate(self, keys: list[str]) -> None:
        """Make sure that nothing loaded before this moment is served from the cache after it."""
        for key in keys:
            self.flights.overtake(key)
        if keys:
            await self.tier.bury(keys)

    async def write(self, key: str, store: Load, plan: Plan, *, keeps: Callable[[Any], bool], present: bool) -> Any:
        """Store first, then cache.

        A fence stands in the key while ``store`` runs, so that no reader caches what it read before; and should this
        process die in between, the fence goes after one lease. The value is cached only if the fence still stands
        afterwards and no other writer's stood before: of two writers at once neither can tell whose value is newer.
        """
        fence = marker(FENCE, self._clock.wall(), self._lease)
        lease = _milliseconds(self._lease)
        self.flights.overtake(key)
        try:
            before = await self.tier.run(self.tier.store.exchange, key, fence, lease)
        except DeadlineExceeded:
            self.tier.remember([key])  # it may have been told or not: it was asked to forget the old value
            raise
        try:
            result = await store()
        except BaseException as error:
            await self._unwind(key, fence, before, plan, error)
            raise
        self.flights.overtake(key)
        await self._settle(key, fence, before, result, plan, keeps=keeps, present=present)
        return result

    async def _settle(
        self,
        key: str,
        fence: bytes,
        before: Any,
        result: Any,
        plan: Plan,
        *,
        keeps: Callable[[Any], bool],
        present: bool,
    ) -> None:
        """After the store took the value: cache it, or see to it that nothing older is served."""
        seen = self._judge(before, plan.codec)
        if before is UNREACHABLE:
            await self.tier.bury([key])
            return
        if not keeps(result) or (present and seen.life is Life.GONE):
            await self._end(key, fence, seen)
            return
        try:
            entry = self.entry(result, plan)
        except InvalidInput as error:  # the store has taken it: an error now would say that it has not
            events.emit(ValueRefused(cache=self._name, advice=str(error)))
            await self._end(key, fence, seen)
            return
        stored = await self._end(key, fence, seen, pack(entry), _milliseconds(entry.keep))
        self.counts.add("stores" if stored else "refused")

    async def _end(self, key: str, fence: bytes, seen: _Seen, raw: bytes | None = None, life: int = 0) -> bool:
        """A writer is done: put a value (or else a tombstone) in the place of its fence. Whether that was done.

        Where another writer is or was at work, nobody knows whose value is newer: for one lease nobody stores.
        """
        now, lease = self._clock.wall(), _milliseconds(self._lease)
        store = self.tier.store
        try:
            done: Any = False
            if not _is_fenced(seen):
                args = (raw, life) if raw is not None else (marker(TOMBSTONE, now, self._lease), lease)
                done = await self.tier.change([key], store.swap, key, fence, *args)
            if done is False:
                await self.tier.change([key], store.put, key, marker(FENCE, now, self._lease), lease)
        except DeadlineExceeded:
            return False  # remembered in the journal
        return done is True

    async def _unwind(self, key: str, fence: bytes, before: Any, plan: Plan, error: BaseException) -> None:
        """The store failed: put back what was there, unless the failure leaves open whether it took effect."""
        if before is UNREACHABLE:
            self.tier.remember([key])
            return
        seen = self._judge(before, plan.codec)
        if ambiguous(error) or _is_fenced(seen):
            await self._end(key, fence, seen)
            return
        raw: bytes | None = None
        life = 0
        if seen.entry is not None and seen.life is not Life.GONE:
            raw, life = before, _milliseconds(seen.entry.keep - seen.entry.age(self._clock.wall()))
        try:
            await self.tier.run(self.tier.store.swap, key, fence, raw, life)
        except DeadlineExceeded:
            return  # the fence goes by itself


def _is_absence(seen: _Seen) -> bool:
    return seen.entry is not None and bool(seen.entry.flags & NEGATIVE)


def _is_fenced(seen: _Seen) -> bool:
    return seen.entry is not None and bool(seen.entry.flags & FENCE)


def _written(seen: _Seen) -> tuple[int, bytes]:
    assert seen.entry is not None  # noqa: S101 - only asked of a readable entry
    return seen.entry.codec, seen.entry.body


def _milliseconds(seconds: float) -> int:
    return max(1, int(seconds * 1000))
