# Generated from resilient/cache/_async/engine/loads.py by tools/unasync.py: do not edit.
"""What a cache does on a miss: one load for all who want it, in this process and in others, stored if still right.

A reader that finds nothing fresh joins the flight of its key: one leader for each key and process. The leader claims
the key in the store; whoever claims first loads, and the leaders of other processes wait for it. What was loaded is
stored only if the store still holds the claim: an invalidation, a writer or a later claim replaces it.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias

from resilient import events
from resilient.cache._entry import FAILED, Life
from resilient.cache._events import CacheRead, LoadFailed
from resilient.cache._failures import another, is_failure, name_of, rebuilt, remembered
from resilient.cache._flight import CIRCLE, LATE, Flight, Landed
from resilient.cache._freshness import Policy, Use
from resilient.cache._local_tier import Kept
from resilient.cache._made import absent, failed, made
from resilient.cache._quick import NOTHING, fresh
from resilient.cache._seen import Lease, Plan, Seen, is_fenced, written
from resilient.cache._stamps import Marks
from resilient.cache._sync.engine.leases import Leases
from resilient.cache._sync.engine.reads import Reader
from resilient.cache._sync.engine.tier import UNREACHABLE
from resilient.cache._values import Loader, Lookup
from resilient.errors import DeadlineExceeded, NotFound, Overloaded, ResilientError, Unavailable

__all__ = ["READ", "REFRESH", "RENEW", "Errand", "Load", "Loads", "Outcome"]

Load: TypeAlias = Loader[[], Any]
Outcome: TypeAlias = tuple[Lookup[Any], int, bytes]
"""What a load gave: the answer to its caller, and the codec and bytes from which others make their own copy."""

READ, REFRESH, RENEW = "read", "refresh", "renew"
"""Why a load is led: a reader needs the value; a user wants it anew; it is renewed while readers get the old one."""


class Errand(NamedTuple):
    """What a flight is to do."""

    load: Load
    plan: Plan
    why: str = READ


class Loads:
    """Reading through to a loader.

    Args:
        reader: What is read, and how.
        leases: How a load is claimed, run and stored.
    """

    def __init__(self, reader: Reader, leases: Leases) -> None:
        self._reader, self._leases = reader, leases
        self._tier, self._stamps, self._flights = reader.tier, reader.stamps, reader.flights
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
        tags, tier, stamps = plan.tags, self._tier, self._stamps
        keys = (key, *stamps.keys(tags)) if tags else (key, stamps.namespace)
        # A namespace may be cleared by any process at any moment, so that its stamp is read with every value: an MGET
        # of two keys takes hardly longer than a GET of one.
        found = tier.read(tier.store.get_many, keys)
        if found is UNREACHABLE:
            return (self._answer(key, Seen(UNREACHABLE, marks=Marks(tags)), load, plan)).value
        if not plan.policy.early:
            borne, block = Marks(tags, tuple(found[1:])).borne() if tags else (stamps.borne(found[1]), b"")
            value = fresh(found[0], self._clock.wall(), borne, block, plan.codec)
            if value is not NOTHING:
                local = tier.local
                kept = local is not None and found.__class__ is Kept
                (local.hit if kept else self._counts.hit)()  # type: ignore[union-attr]  # there is one where it is kept
                if events.wanted(CacheRead):
                    events.emit(CacheRead(cache=self._name, source=self._reader.source(kept)))
                if local is not None and plan.owner is not None:
                    local.prepare(keys, found, value, owner=plan.owner, codec=plan.codec, share=plan.share)
                return value
        seen = (self._reader.weigh(found[:1], plan.codec, Marks(tags, tuple(found[1:]))))[0]
        return (self._answer(key, seen, load, plan)).value

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
            return self._join(key, self._checked(seen, plan.policy), errand)
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
        flight, new = self._flights.join(key, seen.raw, now, seen.marks, away=True)
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
        """What a reader gets who needs a load, counted."""
        try:
            lookup = self.fly(key, seen, errand)
        except Exception:
            self._counts.add("misses")
            raise
        self._counts.add("stale" if lookup.stale else "misses")
        if events.wanted(CacheRead):
            events.emit(CacheRead(cache=self._name, source=lookup.source, stale=lookup.stale))
        return lookup

    def fly(self, key: str, seen: Seen, errand: Errand) -> Lookup[Any]:
        """Lead the flight of a key, or wait for it."""
        policy, began = errand.plan.policy, self._clock.monotonic()
        stale = errand.why is READ and seen.life is Life.STALE
        if stale and self._throttle.holds(key, began) and self.stands_in(seen, policy):
            return self._reader.answer(seen, stale=True)  # its source failed a moment ago
        whole = self._leases.whole(seen, errand.plan)
        if whole is not seen:
            seen = self._checked(whole, policy)
            if seen.life is Life.FRESH and errand.why is READ:
                return self._reader.answer(seen)  # stored by somebody quicker, together with the first stamps
        return self._lead_or_wait(key, seen, errand, began, stale=stale)

    def _lead_or_wait(self, key: str, seen: Seen, errand: Errand, began: float, *, stale: bool) -> Lookup[Any]:
        patience = None if errand.why is REFRESH else errand.plan.policy.patience(stale=stale)
        waits = False
        while True:
            moment = self._clock.monotonic()
            flight, new = self._flights.join(
                key, seen.raw, moment, seen.marks, away=patience is not None, inside=self._leases.cap.inside()
            )
            if not new and self._flights.mine(flight):
                return Lookup(errand.load(), "loader", 0.0)  # the loader reads its own key: no end to waiting
            if new and patience is None:
                return self._lead(flight, seen, errand)
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
            outcome = self.obtain(flight, seen, errand)
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

    def obtain(self, flight: Flight, seen: Seen, errand: Errand) -> Outcome | None:
        """The value: loaded here, or by another process; ``None`` if that renews it already."""
        policy, why = errand.plan.policy, errand.why
        while not is_fenced(seen):
            seen = self._leases.with_stamps(seen, errand.plan)
            flight.bears(seen.marks)
            if not seen.marks.whole:  # the store does not answer, or a writer is about to change what bears a tag
                break
            force = why is REFRESH or flight.pushes
            taken = self._leases.enter(flight)
            try:
                got = self._leases.claim(flight, seen, errand.plan.codec, force=force)
                if isinstance(got, Lease):
                    return self._load(flight, seen, got, errand)
            finally:
                self._leases.leave(taken, flight)
            seen = self._checked(got, policy)
            if why is REFRESH:
                continue
            if seen.life is Life.FRESH:
                return (self._reader.answer(seen), *written(seen))
            if why is RENEW:
                return None
            if force:
                continue
            if seen.life is Life.STALE and self._revalidates(seen, policy):
                return (self._reader.answer(seen, stale=True), *written(seen))
            seen = self._checked(self._leases.await_holder(flight, seen, errand.plan.codec), policy)
            if seen.life is Life.FRESH:
                return (self._reader.answer(seen), *written(seen))
        return None if why is RENEW else self._load(flight, seen, None, errand)

    @staticmethod
    def without_error(seen: Seen) -> Seen:
        """What was found, where errors are not remembered."""
        return seen._replace(life=Life.GONE) if seen.entry is not None and seen.entry.flags & FAILED else seen

    def _checked(self, seen: Seen, policy: Policy) -> Seen:
        """What was found, without an error that this policy does not remember. Raises the one it does."""
        if seen.entry is None or not seen.entry.flags & FAILED or seen.life is Life.GONE:
            return seen
        error = rebuilt(seen.value, policy.cache_errors) if seen.life is Life.FRESH else None
        if error is not None:
            raise error
        return seen._replace(life=Life.GONE)

    # --------------------------------------------------------------------------------------------------------- loading

    def _load(self, flight: Flight, seen: Seen, lease: Lease | None, errand: Errand) -> Outcome:
        """Run the loader, and store what it gave under the lease; without one it is for the callers alone."""
        plan = errand.plan
        created, began = self._clock.wall(), self._clock.monotonic()
        if lease is None and seen.raw is not UNREACHABLE:
            self._counts.add("refused")  # a writer is at work
        try:
            try:
                value = self._leases.run(errand.load, seen, flight)
            except NotFound as error:
                lease = self._absent(flight, lease, plan, error, created)
                raise
            except Exception as error:  # noqa: BLE001 - raised again, unless there is something to serve instead
                lease = self._failed(flight, lease, plan, error, created)
                return self.instead(flight, seen, errand, error)
            self._counts.add("loads")
            self._throttle.lift(flight.key)
            age = max(0.0, self._clock.wall() - created)
            if lease is None and not self._flights.close(flight):
                return Lookup(value, "loader", age), 0, b""  # it is stored nowhere, and nobody waits for a copy
            entry = made(value, plan, created, cost=self._clock.monotonic() - began)
            lease = self._leases.store(flight, lease, entry)
            after = entry.keep - entry.fresh
            left = entry.fresh - age if flight.stored else None
            return Lookup(value, "loader", age, False, left, after, after), entry.codec, entry.body
        finally:
            if lease is not None:
                self._leases.release(flight.key, lease)

    def _absent(self, flight: Flight, lease: Lease | None, plan: Plan, error: NotFound, created: float) -> Lease | None:
        """The loader says that there is no such thing: remember it, or at least forget the value there was."""
        self._counts.add("loads")
        self._throttle.lift(flight.key)
        if plan.policy.negative_ttl is None:
            return None if lease is None else lease._replace(over=None)  # let go, together with the value there was
        return self._leases.store(flight, lease, absent(error.message, plan, created))

    def _failed(
        self, flight: Flight, lease: Lease | None, plan: Plan, error: Exception, created: float
    ) -> Lease | None:
        """The loader failed: remember that, if the policy says so of this class. The lease, if it is still to end."""
        self._counts.add("load_errors")
        policy = plan.policy
        kind = remembered(error, policy.cache_errors)
        if kind is None or (lease is not None and lease.over is not None and policy.stale_if_error > 0):
            return lease  # nothing goes over a value that may stand in
        return self._leases.store(flight, lease, failed(name_of(kind, error), plan, created))

    def instead(self, flight: Flight, seen: Seen, errand: Errand, error: Exception) -> Outcome:
        """What callers get from a loader that failed: the value there was, or an error."""
        policy = errand.plan.policy
        kept = policy.stale_if_error > 0 and is_failure(error)
        stale = kept and errand.why is READ and self.stands_in(seen, policy)
        served = "background" if errand.why is RENEW else "stale" if stale else "error"
        events.emit(LoadFailed(cache=self._name, error=type(error).__name__, served=served))
        if stale:
            self._throttle.hold(flight.key, self._clock.monotonic())
            return (self._reader.answer(seen, stale=True), *written(seen))
        if not kept or errand.why is not READ or isinstance(error, ResilientError):
            raise error
        raise Unavailable("the loader of a cached value failed, and nothing is left to serve instead") from error

    def stands_in(self, seen: Seen, policy: Policy) -> bool:
        found = seen.life is Life.STALE and seen.entry is not None
        return found and policy.stands_in(seen.entry, self._clock.wall())  # type: ignore[arg-type]  # just asked

    def _revalidates(self, seen: Seen, policy: Policy) -> bool:
        entry = seen.entry
        return entry is not None and policy.use(entry, seen.life, self._clock.wall(), 1.0) is Use.REVALIDATE
