# Generated from resilient/cache/_async/engine/source.py by tools/unasync.py: do not edit.
"""Where a value comes from that is not there, or not fresh: a loader of this process, or another process that loads it.

The leader of a flight claims the key in the store; whoever claims first loads, and the leaders of other processes wait
for it. What was loaded is stored only if the store still holds the claim: an invalidation, a writer or a later claim
replaces it.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

from resilient import events
from resilient.cache._entry import FAILED, Life
from resilient.cache._events import LoadFailed
from resilient.cache._failures import is_failure, name_of, rebuilt, remembered
from resilient.cache._flight import Flight
from resilient.cache._freshness import Policy, Use
from resilient.cache._made import absent, failed, made
from resilient.cache._seen import Lease, Plan, Seen, is_fenced, written
from resilient.cache._sync.engine.leases import Leases
from resilient.cache._sync.engine.reads import Reader
from resilient.cache._sync.engine.tier import UNREACHABLE
from resilient.cache._values import Loader, Lookup
from resilient.errors import NotFound, ResilientError, Unavailable

__all__ = ["READ", "REFRESH", "RENEW", "Errand", "Load", "Outcome", "Source"]

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
    lease: Lease | None = None
    """The claim, where it was made already."""


class Source:
    """Claiming and loading, or waiting for who has claimed.

    Args:
        reader: What is read, and how.
        leases: How a load is claimed, run and stored.
    """

    def __init__(self, reader: Reader, leases: Leases) -> None:
        self._reader, self._leases = reader, leases
        self._flights, self._clock, self._counts, self._throttle, self._name = (
            reader.flights,
            reader.clock,
            reader.counts,
            reader.throttle,
            reader.name,
        )

    def obtain(self, flight: Flight, seen: Seen, errand: Errand) -> Outcome | None:
        """The value: loaded here, or by another process; ``None`` if that renews it already."""
        if errand.lease is None:
            return self._agree(flight, seen, errand)
        flight.saw(errand.lease.header, errand.lease.ends)
        return self._load(flight, seen, errand.lease, errand)

    def _agree(self, flight: Flight, seen: Seen, errand: Errand) -> Outcome | None:
        """The same, where it is still open who loads."""
        policy, why = errand.plan.policy, errand.why
        while seen.raw is not UNREACHABLE and not is_fenced(seen):
            seen = self._leases.with_stamps(seen, errand.plan)
            flight.bears(seen.stamps)
            if not seen.stamps.whole:  # the store does not answer, or a writer is about to change what bears a tag
                break
            force = why is REFRESH or flight.pushes
            got = self._claim(flight, seen, errand, force=force)
            if not isinstance(got, Seen):
                return got
            seen = self.checked(got, policy)
            if seen.life is not Life.FRESH and why is RENEW:
                return None
            if why is REFRESH or (force and seen.life is not Life.FRESH):
                continue
            if self._served(seen, policy) is None:
                seen = self.checked(self._leases.await_holder(flight, seen, errand.plan.codec), policy)
            served = self._served(seen, policy)
            if served is not None:
                return served
        return None if why is RENEW else self._load(flight, seen, None, errand)

    def _claim(self, flight: Flight, seen: Seen, errand: Errand, *, force: bool) -> Outcome | Seen:
        """Claim the key and load it, or tell what was found there instead."""
        taken = self._leases.enter(flight)
        try:
            got = self._leases.claim(flight, seen, errand.plan.codec, force=force)
            return self._load(flight, seen, got, errand) if isinstance(got, Lease) else got
        finally:
            self._leases.leave(taken, flight)

    def _served(self, seen: Seen, policy: Policy) -> Outcome | None:
        """What a reader gets who found this on its way to load: a fresh value, or one that is served while renewed."""
        stale = seen.life is Life.STALE
        if seen.life is Life.GONE or (stale and not self._revalidates(seen, policy)):
            return None
        return (self._reader.answer(seen, stale=stale), *written(seen))

    @staticmethod
    def without_error(seen: Seen) -> Seen:
        """What was found, where errors are not remembered."""
        return seen._replace(life=Life.GONE) if seen.entry is not None and seen.entry.flags & FAILED else seen

    def checked(self, seen: Seen, policy: Policy) -> Seen:
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
            self._counts.load()
            self._throttle.lift(flight.key)
            cost = self._clock.monotonic() - began
            if lease is None and not self._flights.close(flight):
                return Lookup(value, "loader", cost), 0, b""  # it is stored nowhere, and nobody waits for a copy
            entry = made(value, plan, created, cost=cost)
            lease = self._leases.store(flight, lease, entry)
            after = entry.keep - entry.fresh
            left = entry.fresh - cost if flight.stored else None
            return Lookup(value, "loader", cost, False, left, after, after), entry.codec, entry.body
        finally:
            if lease is not None:
                self._leases.release(flight.key, lease)

    def _absent(self, flight: Flight, lease: Lease | None, plan: Plan, error: NotFound, created: float) -> Lease | None:
        """The loader says that there is no such thing: remember it, or at least forget the value there was."""
        self._counts.load()
        self._throttle.lift(flight.key)
        if plan.policy.negative_ttl is None:
            return None if lease is None else lease._replace(renews=None)  # let go, together with the value there was
        return self._leases.store(flight, lease, absent(error.message, plan, created))

    def _failed(
        self, flight: Flight, lease: Lease | None, plan: Plan, error: Exception, created: float
    ) -> Lease | None:
        """The loader failed: remember that, if the policy says so of this class. The lease, if it is still to end."""
        self._counts.add("load_errors")
        policy = plan.policy
        kind = remembered(error, policy.cache_errors)
        if kind is None or (lease is not None and lease.renews is not None and policy.stale_if_error > 0):
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
        """Whether what was found may be served since its source fails."""
        found = seen.life is Life.STALE and seen.entry is not None
        return found and policy.stands_in(seen.entry, self._clock.wall())  # type: ignore[arg-type]  # just asked

    def _revalidates(self, seen: Seen, policy: Policy) -> bool:
        entry = seen.entry
        return entry is not None and policy.use(entry, seen.life, self._clock.wall(), 1.0) is Use.REVALIDATE
