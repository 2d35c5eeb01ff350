"""One load per key at a time in this process, with no lock held while it runs.

Written twice, since a thread and a task wait in different ways; the table both share tells who leads, who waits, and
which flights were overtaken by a change of their key.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, NamedTuple

from resilient.cache._entry import HEAD
from resilient.cache._stamps import UNKNOWN, Stamps
from resilient.errors import DeadlineExceeded
from resilient.policy import deadline
from resilient.runtime import after_fork, fork_safe_lock

if TYPE_CHECKING:
    import asyncio

__all__ = ["CIRCLE", "LATE", "AsyncFlights", "Flight", "Flights", "Landed"]


class Landed(NamedTuple):
    """How a flight ended: with something to hand to those who waited, or with an error."""

    result: Any = None
    error: BaseException | None = None


LATE = Landed()
"""The flight did not land within the time that its waiter had for it."""

CIRCLE = Landed()
"""Who leads the flight waits, by way of others perhaps, for one that the caller leads: neither would ever land."""


class Flight:
    """One load of one key, led by one thread or task."""

    __slots__ = (
        "_borne",
        "_known",
        "_until",
        "key",
        "leader",
        "overtaken",
        "place",
        "pushes",
        "shared",
        "signal",
        "started",
        "stored",
        "tags",
    )

    def __init__(self, key: str, place: int, leader: object, seen: Any, stamps: Stamps = UNKNOWN) -> None:
        self.key = key
        self.place = place
        self.leader = leader
        """Who runs the loader."""
        self.signal: Any = None
        """What those who wait are woken by; made for the first of them."""
        self.shared = False
        """Somebody waits for it."""
        self.overtaken = False
        """The key was changed since: what this flight loads is for those who wait, not for the store."""
        self.started = False
        """Its loader runs, or will without waiting for its turn."""
        self.stored = False
        """The store has taken what was loaded."""
        self.pushes = False
        """It took the place of one that waited for its turn, and takes the lease of that one too."""
        self.tags = stamps.names
        """Those that its value is to bear."""
        self._borne = [stamps.tokens]
        self._known = [_head(seen)]
        self._until = math.inf

    def saw(self, raw: Any, until: float = math.inf) -> None:
        """The leader found these bytes, or puts them there: who finds the same may share what it loads.

        Args:
            raw: The bytes.
            until: The moment at which a lease that it puts there ends; on the clock that `suits` is asked by.
        """
        self._known.append(_head(raw))
        self._until = min(self._until, until)

    def bears(self, stamps: Stamps) -> None:
        """What it loads will bear these stamps: who finds them may share it."""
        if stamps.tokens not in self._borne:
            self._borne.append(stamps.tokens)

    def suits(self, raw: Any, now: float, stamps: Stamps = UNKNOWN) -> bool:
        """Whether who found these bytes and stamps in the store may share what this flight loads.

        Other bytes than the leader knows of stem from a change by another process, which may be newer than the load; so
        do other stamps, and one that is absent may have come and gone. So may nothing at all, once a tombstone that was
        put over the lease could be over too.
        """
        tokens = stamps.tokens
        if tokens not in self._borne or None in tokens or stamps.names != self.tags:
            return False
        return _head(raw) in self._known and (raw is not None or now < self._until)


def _head(raw: Any) -> Any:
    return raw[:HEAD] if raw.__class__ is bytes else raw


class _Waits:
    """Who waits for which flight, in all caches of this process: one may wait for another's."""

    def __init__(self) -> None:
        self._lock = fork_safe_lock()
        self._reset()
        after_fork(self._reset)

    def _reset(self) -> None:
        self._flights: dict[object, Flight] = {}

    def begin(self, caller: object, flight: Flight) -> bool:
        """Note that somebody is about to wait for a flight; not where that would close a circle."""
        with self._lock:
            ahead: Flight | None = flight
            while ahead is not None:
                if ahead.leader == caller:
                    return False
                ahead = self._flights.get(ahead.leader)
            self._flights[caller] = flight
            return True

    def end(self, caller: object) -> None:
        """The wait is over."""
        self._flights.pop(caller, None)


_waits = _Waits()


class _Table:
    """Who flies. ``place`` tells apart event loops, since a task cannot wait for another loop's."""

    def __init__(self) -> None:
        self._lock = fork_safe_lock()
        self.reset()

    def reset(self) -> None:
        """Forget all: for a forked child, where the leaders do not exist."""
        self._flights: dict[str, dict[int, Flight]] = {}

    def _join(  # noqa: PLR0917 - called once by each face
        self,
        key: str,
        seen: object,
        now: float,
        stamps: Stamps,
        place: int,
        caller: object,
        leader: object,
        inside: bool,  # noqa: FBT001 - same
    ) -> tuple[Flight, bool]:
        with self._lock:
            places = self._flights.setdefault(key, {})
            flight = places.get(place)
            # Who waits here from inside a load holds a place that a flight which waits for its turn may be waiting for.
            pushes = inside and flight is not None and not flight.started and flight.leader != caller
            if flight is not None and not pushes and (flight.leader == caller or flight.suits(seen, now, stamps)):
                if flight.signal is None:
                    flight.signal = self._make_signal()
                flight.shared = True
                return flight, False
            flight = places[place] = Flight(key, place, leader, seen, stamps)
            flight.pushes, flight.started = pushes, inside and leader is not None
            if leader is None:
                flight.signal = self._make_signal()
                flight.shared = True
            return flight, True

    def _make_signal(self) -> Any:
        raise NotImplementedError

    def close(self, flight: Flight) -> bool:
        """Let nobody join any more, before it lands. Whether somebody waits."""
        self._leave(flight)
        return flight.shared

    def flies(self, key: str) -> bool:
        """Whether a load of this key is under way."""
        return key in self._flights

    def overtake(self, key: str) -> None:
        """The key has changed: whoever comes now must not get, nor store, what is being loaded."""
        if not self._flights:
            return
        with self._lock:
            for flight in self._flights.pop(key, {}).values():
                flight.overtaken = True

    def overtake_tags(self, tags: Collection[str]) -> None:
        """All keys have changed whose values bear one of these tags."""
        if not self._flights:
            return
        wanted = frozenset(tags)
        with self._lock:
            for key, places in list(self._flights.items()):
                for place, flight in list(places.items()):
                    if not wanted.isdisjoint(flight.tags):
                        flight.overtaken = True
                        del places[place]
                if not places:
                    del self._flights[key]

    def overtake_all(self) -> None:
        """All keys have changed."""
        with self._lock:
            for places in self._flights.values():
                for flight in places.values():
                    flight.overtaken = True
            self._flights.clear()

    def _leave(self, flight: Flight) -> None:
        with self._lock:
            places = self._flights.get(flight.key)
            if places is not None and places.get(flight.place) is flight:
                del places[flight.place]
                if not places:
                    del self._flights[flight.key]


class _Signal:
    __slots__ = ("event", "landed")

    def __init__(self) -> None:
        self.event = threading.Event()
        self.landed: Landed | None = None


class Flights(_Table):
    """Flights led by threads."""

    def join(
        self, key: str, seen: object, now: float, stamps: Stamps = UNKNOWN, *, away: bool = False, inside: bool = False
    ) -> tuple[Flight, bool]:
        """The flight for a key, and whether it is new: then who called sees to it that it is led, and lands.

        Args:
            key: The key.
            seen: The bytes that the caller found in the store.
            now: The clock's monotonic reading.
            stamps: The stamps that it found there.
            away: A new flight will be led by another thread, which says so with `lead`.
            inside: The caller runs inside a load that holds one of the places for loads: it joins no flight whose
                loader has not begun, but leads one in its place.
        """
        me = threading.get_ident()
        return self._join(key, seen, now, stamps, 0, me, None if away else me, inside)

    def _make_signal(self) -> _Signal:
        return _Signal()

    def lead(self, flight: Flight) -> None:
        """The calling thread leads from now on."""
        flight.leader = threading.get_ident()

    def mine(self, flight: Flight) -> bool:
        """Whether the caller leads this flight already: its loader reads its own key."""
        return flight.leader == threading.get_ident()

    def land(self, flight: Flight, landed: Landed | None) -> None:
        """End a flight; ``None`` leaves those who wait to load for themselves."""
        self._leave(flight)
        signal = flight.signal
        if signal is not None:
            signal.landed = landed
            signal.event.set()

    def wait(self, flight: Flight, limit: float | None = None) -> Landed | None:
        """Wait for a flight to land; `LATE` if it takes longer than the limit, and `CIRCLE` if it never would.

        Raises:
            DeadlineExceeded: It did not land before the caller's deadline.
        """
        left, me = deadline.remaining(), threading.get_ident()
        seconds = left if limit is None else limit if left is None else min(left, limit)
        if not _waits.begin(me, flight):
            return CIRCLE
        try:
            done = flight.signal.event.wait(seconds if seconds is None else min(seconds, threading.TIMEOUT_MAX))
        finally:
            _waits.end(me)
        if done:
            landed: Landed | None = flight.signal.landed
            return landed
        if seconds is left:
            raise _late()
        return LATE


class AsyncFlights(_Table):
    """Flights led by tasks; those of different event loops do not share."""

    def join(
        self, key: str, seen: object, now: float, stamps: Stamps = UNKNOWN, *, away: bool = False, inside: bool = False
    ) -> tuple[Flight, bool]:
        """The flight for a key, and whether it is new; the arguments are those of `Flights.join`."""
        import asyncio  # who never awaits does without it

        loop = asyncio.get_running_loop()
        me = asyncio.current_task()
        return self._join(key, seen, now, stamps, id(loop), me, None if away else me, inside)

    def _make_signal(self) -> asyncio.Future[Landed | None]:
        import asyncio

        return asyncio.get_running_loop().create_future()

    def lead(self, flight: Flight) -> None:
        """The calling task leads from now on."""
        import asyncio

        flight.leader = asyncio.current_task()

    def mine(self, flight: Flight) -> bool:
        """Whether the caller leads this flight already: its loader reads its own key."""
        import asyncio

        return flight.leader is asyncio.current_task()

    def land(self, flight: Flight, landed: Landed | None) -> None:
        """End a flight; ``None`` leaves those who wait to load for themselves."""
        self._leave(flight)
        signal = flight.signal
        if signal is not None and not signal.done():
            signal.set_result(landed)

    async def wait(self, flight: Flight, limit: float | None = None) -> Landed | None:
        """Wait for a flight to land; `LATE` if it takes longer than the limit, and `CIRCLE` if it never would.

        Raises:
            DeadlineExceeded: It did not land before the caller's deadline.
        """
        import asyncio

        left, me = deadline.remaining(), asyncio.current_task()
        seconds = left if limit is None else limit if left is None else min(left, limit)
        if not _waits.begin(me, flight):
            return CIRCLE
        try:
            done, _ = await asyncio.wait([flight.signal], timeout=seconds)
        finally:
            _waits.end(me)
        if done:
            landed: Landed | None = flight.signal.result()
            return landed
        if seconds is left:
            raise _late()
        return LATE


def _late() -> DeadlineExceeded:
    return DeadlineExceeded("another caller still loads this value", advice="what it loads will be cached")
