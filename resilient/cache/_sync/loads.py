# Generated from resilient/cache/_async/loads.py by tools/unasync.py: do not edit.
"""What a cache does on a miss: one load, shared by all who wait, stored unless the key was changed meanwhile."""

from __future__ import annotations

import random
from typing import Any, TypeAlias

from resilient import events
from resilient.cache._entry import FENCE, NEGATIVE, Entry, Life, pack, stamp
from resilient.cache._events import CacheRead, LoadFailed
from resilient.cache._failures import is_failure
from resilient.cache._flight import Flight, Landed
from resilient.cache._seen import Plan, Seen, milliseconds, written
from resilient.cache._sync.reads import Reads
from resilient.cache._sync.tier import UNREACHABLE
from resilient.cache._values import Loader, Lookup
from resilient.errors import DeadlineExceeded, NotFound, ResilientError, Unavailable

__all__ = ["Loads"]

Load: TypeAlias = Loader[[], Any]


class Loads(Reads):
    """Reading through to a loader."""

    def through(self, key: str, load: Load, plan: Plan, *, refresh: bool = False) -> Lookup[Any]:
        """A fresh value from the store, or a loaded one."""
        if refresh:
            self.flights.overtake(key)
        since = self.flights.moment
        seen = self.look(key, plan.codec)
        if seen.life is Life.FRESH and not refresh:
            return self._hit(seen)
        self.counts.add("misses")
        while True:
            flight, leads = self.flights.join(key, since, seen.raw)
            if leads:
                return self._lead(flight, seen, load, plan, refresh=refresh)
            if self.flights.mine(flight):
                return Lookup(load(), "loader", 0.0)  # the loader reads its own key: waiting would never end
            landed = self.flights.wait(flight)
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

    def _lead(self, flight: Flight, seen: Seen, load: Load, plan: Plan, *, refresh: bool) -> Lookup[Any]:
        landed: Landed | None = None
        try:
            if flight.again and not refresh:
                seen = self.look(flight.key, plan.codec)
                if seen.life is Life.FRESH:
                    lookup = self._hit(seen)
                    landed = Landed((*written(seen), lookup))
                    return lookup
            lookup, number, body = self._load(flight, seen, load, plan, refresh=refresh)
            landed = Landed((number, body, lookup))
            return lookup
        except DeadlineExceeded:
            raise  # this caller's time is over, not that of those who wait
        except Exception as error:
            landed = Landed(error=error)
            raise
        finally:
            self.flights.land(flight, landed)

    def _load(
        self, flight: Flight, seen: Seen, load: Load, plan: Plan, *, refresh: bool
    ) -> tuple[Lookup[Any], int, bytes]:
        stale = seen.life is Life.STALE
        if stale and not refresh and self._throttle.holds(flight.key, self._clock.monotonic()):
            return (self._hit(seen, stale=True), *written(seen))
        created, began = self._clock.wall(), self._clock.monotonic()
        try:
            value = load()
        except NotFound as error:
            self._absent(flight, seen, plan, error, created)
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
                return (self._hit(seen, stale=True), *written(seen))
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
        self._store(flight, seen, entry)
        return Lookup(value, "loader", self._clock.wall() - created), number, body

    def _absent(self, flight: Flight, seen: Seen, plan: Plan, error: NotFound, created: float) -> None:
        """The loader says that there is no such thing: remember it, or at least forget the value there was."""
        self.counts.add("loads")
        if plan.policy.negative_ttl is None:
            if seen.entry is not None:
                self.tier.bury([flight.key])
            return
        number, body = plan.codec.absence(error.message)
        fresh, keep = plan.policy.lives(random.random(), negative=True)  # noqa: S311 - spreads ends, hides nothing
        self._store(flight, seen, Entry(body, number, 0, NEGATIVE, stamp(), created, fresh, keep, 0.0))

    def _store(self, flight: Flight, seen: Seen, entry: Entry) -> None:
        """Store what was loaded, unless the key was changed since the load began."""
        if seen.raw is UNREACHABLE:
            return  # what is there is unknown, so nothing may be put over it
        stored: Any = False
        if not flight.overtaken and not (seen.entry is not None and seen.entry.flags & FENCE):
            args = (flight.key, seen.raw, pack(entry), milliseconds(entry.keep))
            try:
                stored = self.tier.run(self.tier.store.swap, *args)
            except DeadlineExceeded:
                return  # the value is there; only storing it has no time left
        if stored is not UNREACHABLE:
            self.counts.add("stores" if stored else "refused")
