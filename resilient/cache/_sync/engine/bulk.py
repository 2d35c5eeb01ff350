# Generated from resilient/cache/_async/engine/bulk.py by tools/unasync.py: do not edit.
"""Several keys at once: one look, one claim, one load of what is missing and loaded nowhere else, one store."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from resilient import events
from resilient.cache._causal import at_or_after
from resilient.cache._entry import Entry, Life
from resilient.cache._events import CacheRead
from resilient.cache._failures import another
from resilient.cache._flight import CIRCLE, LATE, Flight, Landed
from resilient.cache._freshness import Policy, Use
from resilient.cache._local_tier import Kept
from resilient.cache._made import absent, made
from resilient.cache._quick import NOTHING, unjudged
from resilient.cache._seen import Lease, Plan, Seen, is_absence, is_fenced, milliseconds, written
from resilient.cache._stamps import unknown
from resilient.cache._sync.engine.leases import Ask, Leases, returned
from resilient.cache._sync.engine.loads import Loads
from resilient.cache._sync.engine.reads import Reader
from resilient.cache._sync.engine.source import READ, RENEW, Errand, Outcome, Source
from resilient.cache._sync.engine.tier import UNREACHABLE
from resilient.cache._values import Loader, Lookup
from resilient.errors import DeadlineExceeded, NotFound, Overloaded, Unavailable

__all__ = ["Bulk", "LoadMany"]

LoadMany: TypeAlias = Loader[[list[int]], Mapping[int, Any]]
"""Loads the values of keys, told by their places; what it leaves out does not exist."""


class _Part(NamedTuple):
    """One key of a batch that this process leads."""

    place: int
    flight: Flight
    seen: Seen


class Bulk:
    """Reading several keys through to one loader.

    Args:
        reader: What is read, and how.
        leases: How a load is claimed, run and stored.
        source: Where a value comes from that is not there.
        loads: What loads single keys.
    """

    def __init__(self, reader: Reader, leases: Leases, source: Source, loads: Loads) -> None:
        self._reader, self._leases, self._source, self._loads = reader, leases, source, loads
        self._tier, self._stampbook, self._flights = reader.tier, reader.stampbook, reader.flights
        self._clock, self._counts, self._throttle, self._name = (
            reader.clock,
            reader.counts,
            reader.throttle,
            reader.name,
        )

    def load_many(self, keys: Sequence[str], load: LoadMany, plan: Plan) -> list[Any]:
        """A value for each key, in order; `NOTHING` for what does not exist.

        Args:
            keys: The keys, each once.
            load: Called at most once for all that are missing and are not being loaded by anybody else.
            plan: How they are kept.
        """
        count, tags = len(keys), plan.tags
        raws = self._tier.read((*keys, *self._stampbook.keys(tags)))
        if raws is UNREACHABLE:
            found: list[Any] = [NOTHING] * count
            seen = [Seen(UNREACHABLE, stamps=unknown(tags))] * count
            return self._rest(keys, found, list(enumerate(seen)), load, plan)
        stamps = self._stampbook.stood(tags, raws[count:])
        found, left = (
            unjudged(count)
            if plan.policy.early
            else self._reader.quick(raws[:count], stamps, plan.codec, kept=raws.__class__ is Kept)
        )
        if not left:
            return found
        weighed = self._reader.weigh([raws[place] for place in left], plan.codec, stamps)
        return self._rest(keys, found, list(zip(left, weighed, strict=True)), load, plan)

    def _rest(
        self, keys: Sequence[str], found: list[Any], left: list[tuple[int, Seen]], load: LoadMany, plan: Plan
    ) -> list[Any]:
        """The same list with what is not just a fresh value."""
        needed: list[tuple[int, Seen]] = []
        renewed: list[tuple[int, Seen]] = []
        for place, found_there in left:
            seen = self._source.without_error(found_there)
            use = self._use(seen, plan)
            if use is Use.LOAD:
                needed.append((place, seen))
                continue
            if not is_absence(seen):
                found[place] = self._reader.hit(seen, stale=use is Use.REVALIDATE).value
            if use is not Use.SERVE:
                renewed.append((place, seen))
        if renewed:
            self._renew_many(keys, renewed, load, plan)
        if needed:
            for place, lookup in (self._need_many(keys, needed, load, plan)).items():
                if lookup is not None:
                    found[place] = lookup.value
        return found

    def _use(self, seen: Seen, plan: Plan) -> Use:
        if seen.entry is None or seen.life is Life.GONE:
            return Use.LOAD
        chance = 1.0 - random.random()  # noqa: S311 - spreads loads, hides nothing
        return plan.policy.use(seen.entry, seen.life, self._clock.wall(), chance)

    def _renew_many(self, keys: Sequence[str], stale: list[tuple[int, Seen]], load: LoadMany, plan: Plan) -> None:
        now, moment = self._clock.wall(), self._clock.monotonic()
        batch: list[_Part] = []
        for place, seen in stale:
            key = keys[place]
            if seen.entry is not None and not seen.entry.held(now) and not self._throttle.holds(key, moment):
                flight, new = self._flights.join(key, seen.raw, moment, seen.stamps, away=True)
                if new:
                    batch.append(_Part(place, flight, seen))
        if batch and self._leases.background.start(self._lead_many_away, batch, load, plan, RENEW):
            self._counts.add("refreshes", len(batch))
        else:
            self._abandon(batch)

    def _abandon(self, batch: list[_Part]) -> None:
        for part in batch:
            self._flights.land(part.flight, None)

    def _need_many(
        self, keys: Sequence[str], needed: list[tuple[int, Seen]], load: LoadMany, plan: Plan
    ) -> dict[int, Lookup[Any] | None]:
        """Lead the flights of those that nobody loads, and wait for the others."""
        began, policy = self._clock.monotonic(), plan.policy
        patience = policy.patience(stale=any(seen.life is Life.STALE for _, seen in needed))
        found: dict[int, Lookup[Any] | None] = {}
        batch: list[_Part] = []
        waits: list[_Part] = []
        if not needed[0][1].stamps.whole:  # one look found them all
            stamped = self._leases.with_stamps(needed[0][1], plan)
            needed = [(place, self._anew(seen, stamped, plan)) for place, seen in needed]
        for place, seen in needed:
            if (ready := self._ready(keys[place], seen, policy, began)) is not NOTHING:
                found[place] = ready
                continue
            flight, new = self._flights.join(
                keys[place], seen.raw, began, seen.stamps, away=patience is not None, inside=self._leases.cap.inside()
            )
            (batch if new else waits).append(_Part(place, flight, seen))
        if batch and patience is None:
            found |= self._lead_many(batch, load, plan, READ)
        elif batch and self._leases.background.start(self._lead_many_away, batch, load, plan, READ):
            waits += batch
        elif batch:
            self._abandon(batch)
            raise Overloaded(f"too many loads of the cache {self._name!r} run already")
        for part in waits:
            limit = None if patience is None else max(0.0, patience - (self._clock.monotonic() - began))
            found[part.place] = self._await_part(part, load, plan, limit)
        for lookup in found.values():
            self._counts.add("stale" if lookup is not None and lookup.stale else "misses")
            if events.wanted(CacheRead):
                source, stale = ("none", False) if lookup is None else (lookup.source, lookup.stale)
                events.emit(CacheRead(cache=self._name, source=source, stale=stale))
        return found

    def _ready(self, key: str, seen: Seen, policy: Policy, now: float) -> Any:
        """What needs no load after all: its lookup, ``None`` for an absence, or `NOTHING`."""
        if seen.life is Life.FRESH:  # stored by somebody quicker, together with the first stamps
            return None if is_absence(seen) else self._reader.answer(seen)
        if self._throttle.holds(key, now) and self._source.stands_in(seen, policy):
            return self._reader.answer(seen, stale=True)  # its source failed a moment ago
        return NOTHING

    def _anew(self, seen: Seen, stamped: Seen, plan: Plan) -> Seen:
        """What was seen of one key, once the stamps are there by which it is judged."""
        if stamped.raw is UNREACHABLE:
            return stamped
        return self._source.without_error(self._leases.under(seen, stamped.stamps, plan.codec))

    def _await_part(self, part: _Part, load: LoadMany, plan: Plan, limit: float | None) -> Lookup[Any] | None:
        """What another caller loads, or the background."""
        try:
            if self._flights.mine(part.flight):  # a loader that reads its own key
                return Lookup(self._one(load, part.place), "loader", 0.0)
            self._counts.add("waits")
            landed = self._flights.wait(part.flight, limit)
            if landed is CIRCLE:
                return Lookup(self._one(load, part.place), "loader", 0.0)
            if landed is LATE:
                late = Unavailable("the loader did not answer in the time that its callers wait")
                return self._loads.give_up(part.seen, part.seen.life is Life.STALE, late)
            if landed is None:  # its leader was cancelled or ran out of time
                errand = Errand(partial(self._one, load, part.place), plan)
                return self._loads.fly(part.flight.key, part.seen, errand)
            if landed.error is not None:
                raise another(landed.error)
            return self._loads.share(landed, plan)
        except NotFound:
            return None

    def _one(self, load: LoadMany, place: int) -> Any:
        values = load([place])
        if place not in values:
            raise NotFound("there is no such thing")
        return values[place]

    # --------------------------------------------------------------------------------------------------------- leading

    def _lead_many_away(self, batch: list[_Part], load: LoadMany, plan: Plan, why: str) -> None:
        """The same in the background, where errors reach only those who wait."""
        for part in batch:
            self._flights.lead(part.flight)
        try:
            self._lead_many(batch, load, plan, why)
        except Exception:  # noqa: BLE001 - told as an event, and handed to those who wait
            for part in batch:
                self._throttle.hold(part.flight.key, self._clock.monotonic())

    def _lead_many(self, batch: list[_Part], load: LoadMany, plan: Plan, why: str) -> dict[int, Lookup[Any] | None]:
        """Claim all, load those that were granted, store them, then get the others one by one."""
        found: dict[int, Lookup[Any] | None] = {}
        open_: dict[int, _Part] = {part.place: part for part in batch}  # flights that have not landed
        try:
            flights = [part.flight for part in batch]
            taken = self._leases.enter(*flights)
            try:
                granted, others = self._claim_many(batch, plan)
                if granted:
                    for place, outcome in (self._load_many(granted, load, plan, why)).items():
                        found[place] = self._land_part(open_.pop(place), outcome)
            finally:
                self._leases.leave(taken, *flights)
            for part in others:
                errand = Errand(partial(self._one, load, part.place), plan, why)
                gained: Outcome | NotFound | None
                try:
                    seen = self._source.without_error(part.seen)
                    if seen.life is Life.FRESH:  # somebody stored it since this one looked
                        gained = (self._reader.answer(seen), *written(seen))
                    else:
                        gained = self._source.obtain(part.flight, seen, errand)
                except NotFound as error:
                    gained = error
                if gained is not None:
                    found[part.place] = self._land_part(open_.pop(part.place), gained)
            return found
        except DeadlineExceeded:
            raise
        except Exception as error:
            for part in open_.values():
                self._flights.land(part.flight, Landed(error=error))
            open_.clear()
            raise
        finally:
            self._abandon(list(open_.values()))

    def _land_part(self, part: _Part, outcome: Outcome | NotFound) -> Lookup[Any] | None:
        if isinstance(outcome, NotFound):
            self._flights.land(part.flight, Landed(error=outcome))
            return None
        self._flights.land(part.flight, Landed(outcome))
        return outcome[0]

    def _claim_many(self, batch: list[_Part], plan: Plan) -> tuple[list[tuple[_Part, Lease | None]], list[_Part]]:
        """Those that this process is to load, with their leases, and the others."""
        granted: list[tuple[_Part, Lease | None]] = []
        asked: list[tuple[_Part, Any, Lease]] = []
        for part in self._stamped_many(batch, plan):
            if not part.seen.stamps.whole or is_fenced(part.seen):
                granted.append((part, None))
            else:
                asked.append((part, *self._leases.asking(part.flight, part.seen)))
        if not asked:
            return granted, []
        others: list[_Part] = []
        gained = self._claim_all(asked, plan)
        for (part, _, _), got in zip(asked, gained, strict=True):
            if isinstance(got, Lease):
                granted.append((part, got))
            elif got.raw is UNREACHABLE or is_fenced(got):
                granted.append((part, None))
            else:
                others.append(part._replace(seen=got))
        return granted, others

    def _claim_all(self, asked: list[tuple[_Part, Any, Lease]], plan: Plan) -> list[Lease | Seen]:
        """The right to load each key, or what was found there instead."""
        returns = [returned(part.flight.key, lease) for part, _, lease in asked]
        ask = Ask(self._tier.store.claim_many)
        try:
            answers = self._tier.run(ask, [claim for _, claim, _ in asked])
            if answers is UNREACHABLE:
                answers = [UNREACHABLE] * len(asked)
                if ask.sent:
                    self._leases.background.finish(self._leases.end, returns)  # some may have been granted
            return [
                self._leases.answered(part.flight, answer, lease, plan.codec, part.seen.stamps)
                for (part, _, lease), answer in zip(asked, answers, strict=True)
            ]
        except BaseException:  # cancelled, or out of time
            if ask.sent:
                self._leases.end(returns)
            raise

    def _stamped_many(self, batch: list[_Part], plan: Plan) -> list[_Part]:
        """The same with the stamps that what is loaded is to bear; one look found them all."""
        stamped = self._leases.with_stamps(batch[0].seen, plan)
        if stamped.raw is not UNREACHABLE:
            for part in batch:
                part.flight.bears(stamped.stamps)
        return [part._replace(seen=self._anew(part.seen, stamped, plan)) for part in batch]

    def _load_many(
        self, granted: list[tuple[_Part, Lease | None]], load: LoadMany, plan: Plan, why: str
    ) -> dict[int, Outcome | NotFound]:
        """One call of the loader for all, and one store."""
        created, began = self._clock.wall(), self._clock.monotonic()
        leases = {part.flight.key: lease for part, lease in granted if lease is not None}
        errand = Errand(partial(load, [part.place for part, _ in granted]), plan, why)
        away = next((part.seen for part, _ in granted if part.seen.raw is UNREACHABLE), granted[0][0].seen)
        try:
            try:
                with at_or_after(*{self._leases.noted(part.seen) for part, _ in granted}):
                    values = self._leases.run(errand.load, away, *(part.flight for part, _ in granted))
            except Exception as error:  # noqa: BLE001 - raised again, unless there is something to serve instead
                self._counts.add("load_errors")
                return {part.place: self._source.instead(part.flight, part.seen, errand, error) for part, _ in granted}
            self._counts.load()
            cost = self._clock.monotonic() - began
            outcomes: dict[int, Outcome | NotFound] = {}
            swaps: list[tuple[str, bytes | None, bytes | None, int]] = []
            for part, lease in granted:
                self._throttle.lift(part.flight.key)
                outcome, entry = self._made_of(part, values, plan, created, cost)
                outcomes[part.place] = outcome
                if lease is None or part.flight.overtaken:  # the latter's lease is let go below
                    if part.seen.raw is not UNREACHABLE:
                        self._counts.add("refused")
                    continue
                if entry is None:  # let go, with the value there was
                    swaps.append((part.flight.key, lease.header, None, 0))
                else:
                    raw = lease.stamps.pack(entry)
                    swaps.append((part.flight.key, lease.header, raw, milliseconds(entry.keep)))
            if self._leases.end(swaps, count=True):
                for key, *_ in swaps:
                    del leases[key]
            return outcomes
        finally:
            if leases:
                self._leases.end([returned(key, lease) for key, lease in leases.items()])

    def _made_of(
        self, part: _Part, values: Mapping[int, Any], plan: Plan, created: float, cost: float
    ) -> tuple[Outcome | NotFound, Entry | None]:
        """What a part of a load gave, for its callers and for the store."""
        if part.place not in values:
            error = NotFound("there is no such thing")
            return error, None if plan.policy.negative_ttl is None else absent(error.message, plan, created)
        value = values[part.place]
        entry = made(value, plan, created, cost=cost)
        return (Lookup(value, "loader", max(0.0, self._clock.wall() - created)), entry.codec, entry.body), entry
