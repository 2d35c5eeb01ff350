"""How processes agree on who loads: claims in the store, waits for those of others, and what ends them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from resilient.cache._async.engine.reads import AsyncReader
from resilient.cache._async.engine.tier import UNREACHABLE
from resilient.cache._background import AsyncBackground, AsyncCap
from resilient.cache._causal import at_or_after, merged
from resilient.cache._codecs import Codec
from resilient.cache._entry import LEASE, Entry, Life, claimed, marker, noted, released
from resilient.cache._flight import Flight
from resilient.cache._seen import Lease, Plan, Seen, milliseconds
from resilient.cache._stamps import Stamps, unknown
from resilient.cache._timer import AsyncTimer
from resilient.cache._values import AsyncLoader, Claim, Swap
from resilient.errors import DeadlineExceeded
from resilient.policy import deadline

__all__ = ["Ask", "AsyncLeases", "returned"]

_LOADS = 64  # at once, where the user names no number: in the background, and while the shared tier is away
_MOST_LOST = 1000  # ends that did not come through
_LOST_FOR = 60.0  # seconds; a server that was away for longer may hold a key for one lease more
_EVERY = 0.25  # seconds between two tries to send them; while the breaker is open none is made


class Ask:
    """An operation of the store, and whether it was begun: what an open breaker kept back changed nothing."""

    def __init__(self, operation: AsyncLoader[..., Any]) -> None:
        self._operation = operation
        self.sent = False

    async def __call__(self, *args: Any) -> Any:
        self.sent = True
        return await self._operation(*args)


class AsyncLeases:
    """Claiming keys, loading under a claim, and storing under it.

    Args:
        reader: What is read, and how.
        max_loads: How many loads run at once; ``None`` bounds only those in the background, and those while the shared
            tier is away.
    """

    def __init__(self, reader: AsyncReader, max_loads: int | None = None) -> None:
        self._reader = reader
        self._tier, self._stampbook = reader.tier, reader.stampbook
        self._clock, self._counts, self._lease = reader.clock, reader.counts, reader.lease
        self._life = milliseconds(reader.lease)
        self.capped = max_loads is not None
        """Whether loads take turns at any time, and not only while the shared tier is away."""
        most = max_loads or _LOADS
        self.cap = AsyncCap(reader.name, most, reader.lease)
        """How many loaders run at once."""
        self.background = AsyncBackground(reader.name, most, reader.lease, reader.clock)
        """Loads that nobody waits for, and what ends others."""
        self._lost: dict[bytes | None, tuple[Swap, bool, float]] = {}
        """Ends that did not come through, by what they expect: whether each counts as storing, and until when."""
        self.timer = AsyncTimer(self.send_lost, _EVERY, f"cache-{reader.name}-leases")
        """Sends them."""

    async def close(self) -> None:
        """Begin no more loads in the background, and send once more what did not come through."""
        await self.background.close()
        await self.timer.close()
        with contextlib.suppress(DeadlineExceeded):
            await self.send_lost()

    async def enter(self, *flights: Flight) -> Any:
        """Take a place under the cap where `max_loads` is given, for a claim and the load that it allows.

        That is before the claim: a lease whose holder waits for its turn would keep other processes waiting, and their
        loads may hold the places for which other holders wait. What this returns is to be handed to `leave`.
        """
        if not self.capped or self.cap.inside():
            return None
        taken = await self.cap.take()
        for flight in flights:
            flight.started = True
        return taken

    def leave(self, taken: Any, *flights: Flight) -> None:
        """Give a place back; whoever claims again has to wait for his turn again."""
        if taken is not None:
            for flight in flights:
                flight.started = False
            self.cap.give(taken)

    async def run(self, load: AsyncLoader[[], Any], seen: Seen, *flights: Flight) -> Any:
        """Call the loader of these flights, under the cap where it holds.

        It reads no database older than what made it necessary.
        """
        note = self.noted(seen)
        capped = self.capped or seen.raw is UNREACHABLE
        taken = await self.cap.take() if capped else None
        try:
            for flight in flights:
                flight.started = True
            if not note:
                return await load()
            with at_or_after(note):
                return await load()
        finally:
            if taken is not None:
                self.cap.give(taken)

    def noted(self, seen: Seen) -> bytes:
        """What the writers had seen that made a load necessary: of the key itself, and of its tags."""
        note, of_stamps = noted(seen.entry), seen.stamps.note(self._clock.wall())
        return merged(note, of_stamps) if of_stamps else note

    # --------------------------------------------------------------------------------------------------------- claims

    def outlive(self, stamps: Stamps, plan: Plan) -> bool:
        """Whether these stamps are all there, and known to outlive what is to bear them."""
        return self._stampbook.outlive(stamps, self._clock.wall(), plan.policy.ttl + plan.policy.stale)

    async def with_stamps(self, seen: Seen, plan: Plan) -> Seen:
        """What was seen, with the stamps that what is loaded now is to bear: made where they are absent.

        They are read before the load begins, so that an invalidation while it runs makes its result a miss.
        """
        if seen.raw is UNREACHABLE or self.outlive(seen.stamps, plan):
            return seen
        stamps = await self._stampbook.ensured(seen.stamps, plan.policy.ttl + plan.policy.stale)
        if not stamps.raws:
            return Seen(UNREACHABLE, stamps=stamps)
        return self.under(seen, stamps, plan.codec)

    def under(self, seen: Seen, stamps: Stamps, codec: Codec) -> Seen:
        """What was seen, by the stamps that were found or made since.

        In a Cluster the two are asked of two nodes: the lease or the value of somebody quicker may have been seen
        without the stamp that it bears. It is no ruin, and whoever took it for one would load a second time.
        """
        if stamps is seen.stamps:
            return seen
        if isinstance(seen.raw, bytes) and stamps.whole and stamps.borne_by(seen.raw):
            return self._reader.judge(seen.raw, codec, stamps)
        return seen._replace(stamps=stamps)

    async def claim(self, flight: Flight, seen: Seen, codec: Codec, *, force: bool = False) -> Lease | Seen:
        """The right to load a key, or what was found there instead.

        Args:
            flight: The flight that this is for.
            seen: What was there.
            codec: Reads what is found.
            force: Take it also from somebody who loads.
        """
        claim, lease = self.asking(flight, seen, force=force)
        ask = Ask(self._tier.store.claim)
        try:
            found = await self._tier.run(ask, *claim)
        except BaseException:  # cancelled, or out of time: the store may have granted it
            if ask.sent:
                await self.release(flight.key, lease)
            raise
        if found is UNREACHABLE and ask.sent:
            self.background.finish(self.release, flight.key, lease)
        return lease if found is None else await self.answered(flight, found, lease, codec, seen.stamps)

    def asking(self, flight: Flight, seen: Seen, *, force: bool = False) -> tuple[Claim, Lease]:
        """What to ask of the store, and the lease it gives.

        The flight knows the lease from now on: another thread may find it in the store before its answer is here.
        """
        now, entry, stamps = self._clock.wall(), seen.entry, seen.stamps
        # A lease that is there lasts, whatever this machine's clock shows: the server ends it.
        held = entry is not None and (bool(entry.flags & LEASE) or entry.held(now) > 0) and not force
        expected = None if held else seen.raw
        if entry is not None and seen.life is not Life.GONE and not held:
            lease = Lease(claimed(entry, now, self._lease), entry, stamps, self._clock.monotonic() + self._lease)
        else:
            lease = self.ahead(stamps, noted(entry))
        flight.saw(lease.header, lease.ends)
        return (flight.key, expected, lease.header, self._life), lease

    def ahead(self, stamps: Stamps, note: bytes = b"") -> Lease:
        """The lease of who loads what is not there.

        Args:
            stamps: The stamps that stand.
            note: What the writers had seen who made the load necessary.
        """
        now, ends = self._clock.wall(), self._clock.monotonic() + self._lease
        header = marker(LEASE, now, self._lease, note, generation=stamps.generation, tags=stamps.block())
        return Lease(header, None, stamps, ends)

    async def look_or_claim(self, key: str, lease: Lease) -> Any:
        """What stands under a key and under that of the namespace, and a claim of that key if nothing does.

        Returns:
            The two as they were found, and whether the key was claimed; or `UNREACHABLE`.
        """
        ask = Ask(self._tier.store.get_or_claim)
        try:
            found = await self._tier.run(ask, (key, self._stampbook.namespace), lease.header, self._life)
        except BaseException:  # cancelled, or out of time: the store may have granted it
            if ask.sent:
                await self.release(key, lease)
            raise
        if found is UNREACHABLE and ask.sent:
            self.background.finish(self.release, key, lease)
        return found

    async def answered(self, flight: Flight, found: Any, lease: Lease, codec: Codec, stamps: Stamps) -> Lease | Seen:
        """What the store's answer to a claim means."""
        if found is None:
            return lease
        if found is UNREACHABLE:
            return Seen(UNREACHABLE, stamps=unknown(stamps.names))
        raw, left = found
        flight.saw(raw)
        if not stamps.borne_by(raw):  # newer stamps, or older ones
            return await self._reader.look(flight.key, codec, stamps.names)
        seen = self._reader.judge(raw, codec, stamps)._replace(heard=True)
        entry = seen.entry
        if entry is not None and entry.flags & LEASE:  # by the server's clock
            return seen._replace(entry=entry._replace(keep=self._clock.wall() - entry.created + left))
        return seen

    async def await_holder(self, flight: Flight, seen: Seen, codec: Codec) -> Seen:
        """Wait until whoever loads the key is done, and look again.

        What was found is returned at once where nobody loads, or where who does has not heard that somebody waits: a
        claim tells him.
        """
        entry = seen.entry
        left = 0.0 if entry is None else min(entry.held(self._clock.wall()), self._lease)
        if entry is None or not left or not seen.heard:
            return seen
        self._counts.add("waits")
        seconds = deadline.bound(left)
        waited = await self._tier.run(self._tier.store.wait, flight.key, entry.token, seconds)
        if waited is UNREACHABLE:
            return Seen(UNREACHABLE, stamps=unknown(seen.stamps.names))
        seen = await self._reader.look(flight.key, codec, seen.stamps.names)
        flight.saw(seen.raw)
        return seen

    # --------------------------------------------------------------------------------------------------- their ends

    async def store(self, flight: Flight, lease: Lease | None, entry: Entry) -> Lease | None:
        """Store what was loaded, unless the key was changed since the claim. The lease, if it is still to end."""
        if lease is None or flight.overtaken:
            if lease is not None:
                self._counts.add("refused")
            return lease
        swap = (flight.key, lease.header, lease.stamps.pack(entry), milliseconds(entry.keep))
        ask = Ask(self._tier.store.swap)
        try:
            done = await self._tier.run(ask, *swap)
        except DeadlineExceeded:  # the caller has no time left for it
            self.background.finish(self._swap, [swap], True)
            return None
        if done is UNREACHABLE:
            if ask.sent:
                self.background.finish(self._swap, [swap], True, True)  # see there
            return None if ask.sent else lease
        flight.stored = done
        if done:
            self._counts.store()
        else:
            self._counts.add("refused")
        return None

    async def release(self, key: str, lease: Lease) -> None:
        """Give the right to load back, so that the next caller may try at once; without harm where it was not had."""
        await self.end([returned(key, lease)])

    async def end(self, swaps: Sequence[Swap], *, count: bool = False) -> bool:
        """Put something in the place of claims; where the caller has no time left for it, in the background.

        Args:
            swaps: What is put.
            count: Whether it counts as storing.

        Returns:
            Whether the store was told, or will be; not while another tells it what the journal holds.
        """
        if not swaps:
            return True
        try:
            return await self._swap(swaps, count)
        except DeadlineExceeded:
            self.background.finish(self._swap, swaps, count)
            return True
        except BaseException as error:
            if not isinstance(error, Exception):  # cancelled, once more perhaps: it may not have been sent
                self._lose(swaps, count)
            raise

    async def _swap(self, swaps: Sequence[Swap], count: bool, again: bool = False) -> bool:  # noqa: FBT001, FBT002 - a job
        # What was loaded is stored once the journal was told; to give a lease back is right at any time.
        run = self._tier.run if count else self._tier.run_anyway
        ask = Ask(self._tier.store.swap_many)
        found = await run(ask, swaps)
        if found is UNREACHABLE and ask.sent and not again:
            # It may not have come through, and others wait for its end; if it did, doing it again changes nothing.
            self.background.finish(self._swap, swaps, count, True)
        elif found is UNREACHABLE:
            self._lose(swaps, count)
        elif count:
            stored = sum(found)
            self._counts.add("stores", stored)
            if not again:
                self._counts.add("refused", len(swaps) - stored)
        return ask.sent

    def _lose(self, swaps: Sequence[Swap], count: bool) -> None:  # noqa: FBT001 - as above
        """Have them sent once the store answers: one that was frozen does only then what it was told before."""
        until = self._clock.monotonic() + _LOST_FOR
        for swap in swaps[: max(0, _MOST_LOST - len(self._lost))]:
            self._lost[swap[1]] = swap, count, until
        self.timer.ensure()

    async def send_lost(self) -> bool:
        """Send the ends that did not come through. Whether some are left."""
        for expected, (swap, count, until) in list(self._lost.items()):
            if self._clock.monotonic() < until:
                if count and self._tier.journal.keys:
                    return True  # as in `_swap`
                if await self._tier.run_anyway(self._tier.store.swap_many, [swap]) is UNREACHABLE:
                    return True
            self._lost.pop(expected, None)
        return bool(self._lost)


def returned(key: str, lease: Lease) -> Swap:
    """The swap that gives the right to load back: the value that was there stays."""
    return key, lease.header, None if lease.renews is None else released(lease.renews), 0
