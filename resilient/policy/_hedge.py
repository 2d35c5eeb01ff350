"""Hedging: when a second call is worth making, and the race of the two."""

from __future__ import annotations

import concurrent.futures
import contextlib
from array import array
from collections.abc import Awaitable, Callable
from typing import Any

from resilient.errors import DeadlineExceeded, Overloaded
from resilient.policy._checks import LONGEST
from resilient.policy._deadline import deadline
from resilient.runtime import WorkerPool

__all__ = ["Latencies", "race", "race_async"]

KEPT = 128
"""How many durations are looked back, unless more are needed to begin with."""

ANEW = 32
"""After how many durations the percentile is worked out anew."""


class Latencies:
    """The running 95th percentile of durations.

    Races between threads may lose a sample, which does not matter to a percentile.

    Args:
        needed: How many samples there must be.
    """

    __slots__ = ("_needed", "_samples", "_seen", "delay")

    def __init__(self, needed: int) -> None:
        self._needed = needed
        self._samples = array("f")
        self._seen = 0
        self.delay: float | None = None
        """The percentile in seconds; ``None`` until enough is known."""

    def add(self, seconds: float) -> None:
        """Take one duration."""
        size = max(KEPT, self._needed)
        if len(self._samples) == size:
            self._samples[self._seen % size] = seconds
        else:
            self._samples.append(seconds)
        self._seen += 1
        if self._seen >= self._needed and (self.delay is None or self._seen % ANEW == 0):
            self.delay = sorted(self._samples)[int(len(self._samples) * 0.95)]


def _left() -> float | None:
    """Seconds to wait for an answer; a deadline without an end is none."""
    remaining = deadline.remaining()
    return None if remaining is None else min(remaining, LONGEST)


def race(pool: WorkerPool, delay: float, may_hedge: Callable[[], bool], function: Callable[[], Any]) -> Any:
    """Run a function on the pool, once more if it is late, and return what comes first.

    Args:
        pool: Where it runs.
        delay: Seconds after which it is late.
        may_hedge: Asked once, when it is late.
        function: What to run; must be safe to run twice.

    Raises:
        DeadlineExceeded: The caller's time ran out. Threads that still run are left to their end.
        Exception: What the function raised, once nothing is left that could still succeed.
    """
    late = deadline.bound(delay)
    try:
        racers = {pool.submit(function)}
    except Overloaded:
        return function()  # no thread is free: as if there were no hedge
    done: set[concurrent.futures.Future[Any]] = set()
    winner = None
    try:
        done, racers = concurrent.futures.wait(racers, timeout=late)
        if not done and may_hedge():
            with contextlib.suppress(Overloaded):
                racers.add(pool.submit(function))
        while True:
            winner = next((each for each in done if each.exception() is None), None)
            if winner is not None or not racers:
                return (winner or done.pop()).result()
            done, racers = concurrent.futures.wait(
                racers, timeout=_left(), return_when=concurrent.futures.FIRST_COMPLETED
            )
            if not done:
                raise DeadlineExceeded("neither the call nor its hedge answered before the deadline")
    finally:
        for loser in racers:
            loser.cancel()  # only one that has not started
        del done, racers, winner  # a future holds the error, whose traceback holds this frame


async def race_async(delay: float, may_hedge: Callable[[], bool], function: Callable[[], Awaitable[Any]]) -> Any:
    """The same for tasks; the loser is cancelled, and so are both if the caller is."""
    import asyncio  # who never awaits does without it

    late = deadline.bound(delay)
    racers = {asyncio.ensure_future(function())}
    waiting, done, won, winner = racers, racers, [], None
    try:
        done, waiting = await asyncio.wait(racers, timeout=late)
        if not done and may_hedge():
            racers = waiting = {*waiting, asyncio.ensure_future(function())}
        while True:
            # All are looked at: a task whose error nobody ever asked for is complained of in the log.
            won = [each for each in done if not each.cancelled() and each.exception() is None]
            winner = won.pop() if won else None
            if winner is not None or not waiting:
                return (winner or done.pop()).result()
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        losers = [racer for racer in racers if racer.cancel()]  # only one that has not ended
        if losers:
            await asyncio.gather(*losers, return_exceptions=True)
        del done, waiting, racers, losers, won, winner  # as above
