# Generated from resilient/cache/_async/engine/loads.py by tools/unasync.py: do not edit.
"""What a reader gets: what is there, or on a miss what one caller of this process comes by for all who want it.

A reader that finds nothing fresh joins the flight of its key: one leader for each key and process. How the leader
comes by the value, among those of other processes, says `Source`.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from resilient import events
from resilient.cache._entry import FAILED, Life
from resilient.cache._events import CacheRead
from resilient.cache._failures import another
from resilient.cache._flight import CIRCLE, LATE, Flight, Landed
from resilient.cache._freshness import Use
from resilient.cache._local_tier import Kept
from resilient.cache._quick import NOTHING, fresh
from resilient.cache._seen import Lease, Plan, Seen
from resilient.cache._stamps import unknown
from resilient.cache._sync.engine.leases import Leases
from resilient.cache._sync.engine.reads import Reader
from resilient.cache._sync.engine.source import READ, REFRESH, RENEW, Errand, Load, Source
from resilient.cache._sync.engine.tier import UNREACHABLE
from resilient.cache._values import Loader, Lookup
from resilient.errors import DeadlineExceeded, Overloaded, ResilientError, Unavailable

__all__ = ["Loads"]

_MANY = 8
"""So many reads have to find nothing, one after the other or nearly so, before claims are sent along with looks."""


class Loads:
    """Reading through to a loader.

    Args:
        reader: What is read, and how.
        leases: How a load is claimed, run and stored.
        source: Where a value comes from that is not there.
    """

    def __init__(self, reader: Reader, leases: Leases, source: Source) -> None:
        self._reader, self._leases, self._source = reader, leases, source
        self._tier, self._stampbook, self._flights = reader.tier, reader.stampbook, reader.flights
        self.missed = 0
        """How many reads found nothing of late; each that found something halves it."""
        self._clock, self._counts, self._throttle, self._name = (
            reader.clock,
            reader.counts,
            reader.throttle,
            reader.name,
        )

    def load(self, key: str, load: Load, plan: Plan) -> Any:
        """What `load_lookup` gives, without where it came from: the way of most reads, kept short.

        The header of a plain value is judged before anything is made of it. Whatever is not just a fresh value takes
        the long way.
        """
        if self.missed >= _MANY and (lease := self._ahead(key, plan)) is not None:
            return (self._load_ahead(key, load, plan, lease)).value
        tags, tier, stampbook = plan.tags, self._tier, self._stampbook
        keys = (key, *stampbook.keys(tags)) if tags else (key, stampbook.namespace)
        # A namespace may be cleared by any process at any moment, so that its stamp is read with every value: an MGET
        # of two keys takes hardly longer than a GET of one.
        found = tier.read(keys)
        if found is UNREACHABLE:
            return (self._join(key, Seen(UNREACHABLE, stamps=unknown(tags)), Errand(load, plan))).value
        stamps = stampbook.stood(tags, found[1:])
        if not plan.policy.early:
            borne, block = stamps.borne()
            value = fresh(found[0], self._clock.wall(), borne, block, plan.codec)
            if value is not NOTHING:
                if self.missed:
                    self.missed >>= 1
                local = tier.local
                kept = local is not None and found.__class__ is Kept
                (local.hit if kept else self._counts.hit)()  # type: ignore[union-attr]  # there is one where it is kept
                if events.wanted(CacheRead):
                    events.emit(CacheRead(cache=self._name, source=self._reader.source(kept)))
                if local is not None and plan.owner is not None:
                    local.prepare(keys, found, value, owner=plan.owner, codec=plan.codec, share=plan.share)
                return value
        if found[0] is None:
            self.missed = min(self.missed + 1, 2 * _MANY)
            return (self._join(key, Seen(None, stamps=stamps), Errand(load, plan))).value
        seen = (self._reader.weigh(found[:1], plan.codec, stamps))[0]
        return (self._answer(key, seen, load, plan)).value

    def _ahead(self, key: str, plan: Plan) -> Lease | None:
        """A claim to send along with the look, where most reads of late found nothing: a round trip less for a load.

        It is what a reader does who finds nothing, done before it is known. So it is left undone wherever somebody may
        load the key already, or the load could have to wait for its turn.
        """
        tier, leases, stamps = self._tier, self._leases, self._stampbook.namespaced
        if plan.tags or plan.policy.hard_timeout is not None or leases.capped:
            return None
        if not tier.trusted or self._flights.flies(key) or not leases.outlive(stamps, plan):
            return None
        if tier.local is not None and tier.local.kept((key, self._stampbook.namespace)) is not None:
            return None
        return leases.ahead(stamps)

    def _load_ahead(self, key: str, load: Load, plan: Plan, lease: Lease) -> Lookup[Any]:
        """The same as `load`, with the claim sent along."""
        found = self._leases.look_or_claim(key, lease)
        if found is UNREACHABLE:
            return self._join(key, Seen(UNREACHABLE), Errand(load, plan))
        raws, claimed = found
        stamps = self._stampbook.stood((), raws[1:])
        if claimed and raws[0] is None and stamps == lease.stamps:
            inside = self._leases.cap.inside()
            flight, new = self._flights.join(key, None, self._clock.monotonic(), stamps, inside=inside)
            if new:
                errand = Errand(load, plan, READ, lease)
                return self._counted(self._lead, flight, Seen(None, stamps=stamps), errand)
        if claimed:  # what was there ended at that moment, the namespace was cleared, or somebody else leads
            self._leases.release(key, lease)
        elif raws[0] is not None:
            self.missed >>= 1
        seen = (self._reader.weigh(raws[:1], plan.codec, stamps))[0]
        return self._answer(key, seen, load, plan)

    def load_lookup(self, key: str, load: Load, plan: Plan, *, refresh: bool = False) -> Lookup[Any]:
        """A fresh value from the store, or a loaded one."""
        if refresh:
            self._flights.overtake(key)
            return self._join(key, self._reader.look(key, plan.codec, plan.tags), Errand(load, plan, REFRESH))
        return self._answer(key, self._reader.look(key, plan.codec, plan.tags), load, plan)

    def _answer(self, key: str, seen: Seen, load: Load, plan: Plan) -> Lookup[Any]:
        """What a reader gets who found this."""
        errand, entry = Errand(load, plan), seen.entry
        if entry is None or seen.life is Life.GONE:
            return self._join(key, seen, errand)
        if entry.flags & FAILED:
            return self._join(key, self._source.checked(seen, plan.policy), errand)
        chance = 1.0 - random.random()  # noqa: S311 - spreads loads, hides nothing
        use = plan.policy.use(entry, seen.life, self._clock.wall(), chance)
        if use is Use.LOAD:
            return self._join(key, seen, errand)
        if use is not Use.SERVE:
            self._renew(key, seen, errand._replace(why=RENEW))
        return self._reader.hit(seen, stale=use is Use.REVALIDATE)

    def _renew(self, key: str, seen: Seen, errand: Errand) -> None:
        """Have a value loaded anew that is served meanwhile, unless somebody does so already."""
        now = self._clock.monotonic()
        if seen.entry is None or seen.entry.held(self._clock.wall()) or self._throttle.holds(key, now):
            return
        flight, new = self._flights.join(key, seen.raw, now, seen.stamps, away=True)
        if not new:
            return
        if not self._leases.background.start(self._lead_away, flight, seen, errand):
            self._flights.land(flight, None)  # no room: the next reader tries again
            return
        self._counts.add("refreshes")
        if seen.life is Life.FRESH:
            self._counts.add("early")

    # ------------------------------------------------------------------------------------------------------- flights

    def _join(self, key: str, seen: Seen, errand: Errand) -> Lookup[Any]:
        """What a reader gets who needs a load."""
        return self._counted(self.fly, key, seen, errand)

    def _counted(self, fly: Loader[..., Lookup[Any]], *args: Any) -> Lookup[Any]:
        """What a load gives, counted."""
        try:
            lookup = fly(*args)
        except Exception:
            self._counts.miss()
            raise
        if lookup.stale:
            self._counts.add("stale")
        else:
            self._counts.miss()
        if events.wanted(CacheRead):
            events.emit(CacheRead(cache=self._name, source=lookup.source, stale=lookup.stale))
        return lookup

    def fly(self, key: str, seen: Seen, errand: Errand) -> Lookup[Any]:
        """Lead the flight of a key, or wait for it."""
        policy, began = errand.plan.policy, self._clock.monotonic()
        stale = errand.why is READ and seen.life is Life.STALE
        if stale and self._throttle.holds(key, began) and self._source.stands_in(seen, policy):
            return self._reader.answer(seen, stale=True)  # its source failed a moment ago
        if not seen.stamps.whole and seen.raw is not UNREACHABLE:
            # Who finds no stamp could not tell whether one came and went since the flight's leader found none.
            seen = self._source.checked(self._leases.with_stamps(seen, errand.plan), policy)
            if seen.life is Life.FRESH and errand.why is READ:
                return self._reader.answer(seen)  # stored by somebody quicker, together with the first stamps
        return self._lead_or_wait(key, seen, errand, began)

    def _lead_or_wait(self, key: str, seen: Seen, errand: Errand, began: float) -> Lookup[Any]:
        stale = errand.why is READ and seen.life is Life.STALE
        patience = None if errand.why is REFRESH else errand.plan.policy.patience(stale=stale)
        waits, moment = False, began
        while True:
            flight, new = self._flights.join(
                key, seen.raw, moment, seen.stamps, away=patience is not None, inside=self._leases.cap.inside()
            )
            if new and patience is None:
                return self._lead(flight, seen, errand)
            if not new and self._flights.mine(flight):
                return Lookup(errand.load(), "loader", 0.0)  # the loader reads its own key: no end to waiting
            if new and not self._leases.background.start(self._lead_away, flight, seen, errand):
                self._flights.land(flight, None)
                return self.give_up(seen, stale, Overloaded(f"too many loads of the cache {self._name!r} run already"))
            if not new and not waits:
                waits = True
                self._counts.add("waits")
            limit = None if patience is None else max(0.0, patience - (self._clock.monotonic() - began))
            landed = self._flights.wait(flight, limit)
            if landed is CIRCLE:
                return Lookup(errand.load(), "loader", 0.0)  # two loaders that read each other's keys
            if landed is LATE:
                return self.give_up(seen, stale, Unavailable(f"the loader did not answer within {patience:g} s"))
            if landed is None:
                moment = self._clock.monotonic()
                continue  # its leader was cancelled or ran out of time
            if landed.error is not None:
                raise another(landed.error)
            return self.share(landed, errand.plan)

    def give_up(self, seen: Seen, stale: bool, error: ResilientError) -> Lookup[Any]:  # noqa: FBT001 - a state
        """No answer in the time a reader has: the old value, or an error."""
        if stale:
            return self._reader.answer(seen, stale=True)
        raise error

    def share(self, landed: Landed, plan: Plan) -> Lookup[Any]:
        """A copy of what the leader got, so that no two callers hold the same mutable value."""
        lookup, number, body = landed.result
        value = plan.codec.decode(number, 0, body)
        return replace(lookup, value=value)

    def _lead(self, flight: Flight, seen: Seen, errand: Errand, *, away: bool = False) -> Lookup[Any]:
        """Load, and hand what came of it to those who wait."""
        landed: Landed | None = None
        try:
            outcome = self._source.obtain(flight, seen, errand)
            if outcome is None:
                return Lookup(None, "loader", 0.0)  # somebody else renews it: nobody waits for this
            landed = Landed(outcome)
            return outcome[0]
        except DeadlineExceeded as error:
            if away:
                landed = Landed(error=error)
            raise  # else this caller's time is over, not that of those who wait
        except Exception as error:
            landed = Landed(error=error)
            raise
        finally:
            self._flights.land(flight, landed)

    def _lead_away(self, flight: Flight, seen: Seen, errand: Errand) -> None:
        """The same in the background, where errors reach only those who wait."""
        self._flights.lead(flight)
        try:
            self._lead(flight, seen, errand, away=True)
        except Exception:  # noqa: BLE001 - told as an event, and handed to those who wait
            self._throttle.hold(flight.key, self._clock.monotonic())
