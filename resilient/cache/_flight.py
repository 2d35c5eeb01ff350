"""One load per key at a time, with no lock held while it runs.

Written twice, since a thread and a task wait in different ways; the table both share tells who leads, who waits, and
which flights were overtaken by a change of their key.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from typing import Any, NamedTuple

from resilient.errors import DeadlineExceeded
from resilient.policy import deadline

__all__ = ["AsyncFlights", "Flight", "Flights", "Landed"]

_REMEMBERED = 1024


class Landed(NamedTuple):
    """How a flight ended: with something to hand to those who waited, or with an error."""

    result: Any = None
    error: BaseException | None = None


class Flight:
    """One load of one key, led by one thread or task."""

    __slots__ = ("again", "key", "leader", "overtaken", "place", "seen", "signal")

    def __init__(self, key: str, place: int, leader: object, signal: Any, seen: object, *, again: bool) -> None:
        self.key = key
        self.place = place
        self.leader = leader
        self.signal = signal
        self.seen = seen
        """What its leader found in the store."""
        self.again = again
        """Another flight landed after this reader had looked: look again before loading."""
        self.overtaken = False
        """The key was changed since: what this flight loads is for those who wait, not for the store."""


class _Table:
    """Who flies. ``place`` tells apart event loops, since a task cannot wait for another loop's."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all: for a forked child, where the leaders do not exist."""
        self._lock = threading.Lock()
        self._flights: dict[str, dict[int, Flight]] = {}
        self._landed: OrderedDict[str, int] = OrderedDict()
        self.moment = 0
        """Counts landings; take it before looking for a value."""

    def _join(
        self, key: str, since: int, seen: object, *, place: int, leader: object, signal: Any
    ) -> tuple[Flight, bool]:
        with self._lock:
            places = self._flights.setdefault(key, {})
            flight = places.get(place)
            # Who found other bytes than the leader did came after a change by another process, and loads anew.
            if flight is not None and (flight.seen == seen or flight.leader == leader):
                return flight, False
            again = self._landed.get(key, 0) > since
            flight = places[place] = Flight(key, place, leader, signal, seen, again=again)
            return flight, True

    def overtake(self, key: str) -> None:
        """The key has changed: whoever comes now must not get, nor store, what is being loaded."""
        if not self._flights:
            return
        with self._lock:
            for flight in self._flights.pop(key, {}).values():
                flight.overtaken = True

    def _leave(self, flight: Flight) -> None:
        with self._lock:
            places = self._flights.get(flight.key)
            if places is not None and places.get(flight.place) is flight:
                del places[flight.place]
                if not places:
                    del self._flights[flight.key]
            self.moment += 1
            self._landed[flight.key] = self.moment
            self._landed.move_to_end(flight.key)
            if len(self._landed) > _REMEMBERED:
                self._landed.popitem(last=False)


class _Signal:
    __slots__ = ("event", "landed")

    def __init__(self) -> None:
        self.event = threading.Event()
        self.landed: Landed | None = None


class Flights(_Table):
    """Flights led by threads."""

    def join(self, key: str, since: int, seen: object) -> tuple[Flight, bool]:
        """The flight for a key, and whether the caller leads it. The leader must `land` it.

        Args:
            key: The key.
            since: The table's moment when the caller began to look for a value.
            seen: What the caller found in the store.
        """
        return self._join(key, since, seen, place=0, leader=threading.get_ident(), signal=_Signal())

    def mine(self, flight: Flight) -> bool:
        """Whether the caller leads this flight already: its loader reads its own key."""
        return flight.leader == threading.get_ident()

    def land(self, flight: Flight, landed: Landed | None) -> None:
        """End a flight; ``None`` leaves those who wait to load for themselves."""
        self._leave(flight)
        flight.signal.landed = landed
        flight.signal.event.set()

    def wait(self, flight: Flight) -> Landed | None:
        """Wait for a flight to land.

        Raises:
            DeadlineExceeded: It did not land before the caller's deadline.
        """
        left = deadline.remaining()
        if not flight.signal.event.wait(left if left is None else min(left, threading.TIMEOUT_MAX)):
            raise _late()
        landed: Landed | None = flight.signal.landed
        return landed


class AsyncFlights(_Table):
    """Flights led by tasks; those of different event loops do not share."""

    def join(self, key: str, since: int, seen: object) -> tuple[Flight, bool]:
        """The flight for a key, and whether the caller leads it; the arguments are those of `Flights.join`."""
        loop = asyncio.get_running_loop()
        return self._join(key, since, seen, place=id(loop), leader=asyncio.current_task(), signal=loop.create_future())

    def mine(self, flight: Flight) -> bool:
        """Whether the caller leads this flight already: its loader reads its own key."""
        return flight.leader is asyncio.current_task()

    def land(self, flight: Flight, landed: Landed | None) -> None:
        """End a flight; ``None`` leaves those who wait to load for themselves."""
        self._leave(flight)
        flight.signal.set_result(landed)

    async def wait(self, flight: Flight) -> Landed | None:
        """Wait for a flight to land.

        Raises:
            DeadlineExceeded: It did not land before the caller's deadline.
        """
        done, _ = await asyncio.wait([flight.signal], timeout=deadline.remaining())
        if not done:
            raise _late()
        landed: Landed | None = flight.signal.result()
        return landed


def _late() -> DeadlineExceeded:
    return DeadlineExceeded("another caller still loads this value", advice="what it loads will be cached")
