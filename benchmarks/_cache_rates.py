"""How fast a cache is that does what it is for: paired slices, ours and theirs next to raw redis-py, in one process."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from _cache_peers import ASYNC, SYNC, Contender, installed

Slices = list[tuple[float, float]]
"""Seconds for a call of the base, and for one of a contender, slice by slice."""
Pairs = dict[str, dict[str, Slices]]
"""Of each measure, and of each contender."""

COUNTS = {"hit": 30, "miss": 10, "many": 3}
"""Calls in a slice of some two milliseconds: long enough that what the base left in the processor's caches does not
count, and short enough that some slices of each run undisturbed on a busy machine."""
TASKS = 50
_fresh = itertools.count()


def calls_of(contender: Contender, measure: str) -> Callable[[], Any] | None:
    """What one call of a measure is; a miss gets a key of its own each time."""
    if measure == "miss":
        miss = contender.miss
        return None if miss is None else lambda: miss(f"miss:{next(_fresh)}")
    return contender.many if measure == "many" else contender.hit


MEASURES = {
    # What is measured, and what raw redis-py does in the same time.
    "hit": "redis-py GET",
    "miss": "redis-py GET",
    "many": "redis-py + orjson",
}


def seconds(call: Callable[[], Any], count: int) -> float:
    """What one call takes."""
    begun = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - begun) / count


def times(slices: Slices) -> float:
    """How many times as fast as its base a contender was, where both were disturbed least."""
    base, mine = (sorted(column)[len(slices) // 10] for column in zip(*slices, strict=True))
    return base / mine


def sync_ratios(url: str, rounds: int) -> Pairs:
    """One caller at a time."""
    contenders = installed(SYNC, url)
    try:
        return {measure: _paired(contenders, measure, base, rounds) for measure, base in MEASURES.items()}
    finally:
        for contender in contenders:
            if contender.close is not None:
                contender.close()


def _paired(contenders: list[Contender], measure: str, base: str, rounds: int) -> dict[str, Slices]:
    found = {each.name: call for each in contenders if (call := calls_of(each, measure)) is not None}
    # What a miss or a bulk read is compared with is another call than the contender's own.
    reference = next(each for each in contenders if each.name == base)
    against = calls_of(reference, "many" if measure == "many" else "hit")
    assert against is not None
    count, pairs = COUNTS[measure], defaultdict[str, Slices](list)
    for call in found.values():
        seconds(call, count)  # opens what it needs
    for name, call in found.items():
        for _ in range(rounds):
            pairs[name].append((seconds(against, count), seconds(call, count)))
    return pairs


# ------------------------------------------------------------------------------------------------------------ threads


def thread_ratios(url: str, rounds: int, threads: int = 20) -> dict[str, Slices]:
    """Hits of twenty threads on one cache, by those of twenty threads on one raw client."""
    contenders = [each for each in installed(SYNC, url) if each.hit is not None]
    base = next(each for each in contenders if each.name == "redis-py GET")
    pairs = defaultdict[str, Slices](list)
    for _ in range(max(5, rounds // 6)):
        for contender in contenders:
            pairs[contender.name].append((1 / rate(base.hit, threads), 1 / rate(contender.hit, threads)))
    for contender in contenders:
        if contender.close is not None:
            contender.close()
    return pairs


def rate(call: Any, threads: int, length: float = 0.08) -> float:
    """Calls per second; each thread counts its own."""
    done: list[int] = []
    start, stop = threading.Barrier(threads + 1), threading.Event()

    def run() -> None:
        call()  # opens what this thread needs
        count = 0
        start.wait()
        while not stop.is_set():
            call()
            count += 1
        done.append(count)

    team = [threading.Thread(target=run) for _ in range(threads)]
    for thread in team:
        thread.start()
    start.wait()
    begun = time.perf_counter()
    time.sleep(length)
    stop.set()
    spent = time.perf_counter() - begun
    for thread in team:
        thread.join()
    return sum(done) / spent


# ------------------------------------------------------------------------------------------------------------ asyncio


async def aseconds(call: Callable[[], Any], count: int) -> float:
    begun = time.perf_counter()
    for _ in range(count):
        await call()
    return (time.perf_counter() - begun) / count


async def crowd(call: Callable[[], Any], count: int) -> float:
    """What one of fifty calls at once takes."""

    async def run() -> None:
        for _ in range(count):
            await call()

    begun = time.perf_counter()
    await asyncio.gather(*(run() for _ in range(TASKS)))
    return (time.perf_counter() - begun) / count / TASKS


async def async_ratios(url: str, rounds: int) -> Pairs:
    """One call at a time, and fifty tasks at once."""
    contenders = installed(ASYNC, url)
    for contender in contenders:
        if contender.fill is not None:
            await contender.fill()
    measures = {
        "hit": ("hit", aseconds, "hit"),
        "50 tasks": ("hit", crowd, "hit"),
        "miss": ("miss", aseconds, "hit"),
        "many": ("many", aseconds, "many"),
    }
    found = {
        title: await _apaired(contenders, measure, spend, against, rounds)
        for title, (measure, spend, against) in measures.items()
    }
    for contender in contenders:
        if contender.close is not None:
            await contender.close()
    return found


async def _apaired(
    contenders: list[Contender], measure: str, spend: Any, against: str, rounds: int
) -> dict[str, Slices]:
    found = {each.name: call for each in contenders if (call := calls_of(each, measure)) is not None}
    name_of_base = "redis.asyncio + orjson" if against == "many" else "redis.asyncio GET"
    base = calls_of(next(each for each in contenders if each.name == name_of_base), against)
    assert base is not None
    count, pairs = 1 if spend is crowd else COUNTS[measure], defaultdict[str, Slices](list)
    for call in found.values():
        await spend(call, count)
    for name, call in found.items():
        for _ in range(rounds):
            pairs[name].append((await spend(base, count), await spend(call, count)))
    return pairs
