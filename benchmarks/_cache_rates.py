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

Pairs = dict[str, dict[str, list[float]]]
"""Of each measure, and of each contender: how many times the base it was, slice by slice."""

SLICE = 0.002  # seconds: short enough that a pair sees one state of the machine
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


def count_for(cost: float) -> int:
    return max(2, int(SLICE / max(cost, 1e-7)))


def sync_ratios(url: str, rounds: int) -> Pairs:
    """One caller at a time."""
    contenders = installed(SYNC, url)
    try:
        return {measure: _paired(contenders, measure, base, rounds) for measure, base in MEASURES.items()}
    finally:
        for contender in contenders:
            if contender.close is not None:
                contender.close()


def _paired(contenders: list[Contender], measure: str, base: str, rounds: int) -> dict[str, list[float]]:
    found = {each.name: call for each in contenders if (call := calls_of(each, measure)) is not None}
    # What a miss or a bulk read is compared with is another call than the contender's own.
    reference = next(each for each in contenders if each.name == base)
    against = calls_of(reference, "many" if measure == "many" else "hit")
    assert against is not None
    counts = {name: count_for(seconds(call, 20)) for name, call in found.items()}
    least = count_for(seconds(against, 50))
    ratios: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for name, call in found.items():
            before = seconds(against, least)
            mine = seconds(call, counts[name])
            ratios[name].append((before + seconds(against, least)) / 2 / mine)
    return ratios


# ------------------------------------------------------------------------------------------------------------ threads


def thread_ratios(url: str, rounds: int, threads: int = 20) -> dict[str, list[float]]:
    """Hits of twenty threads on one cache, by those of twenty threads on one raw client."""
    contenders = [each for each in installed(SYNC, url) if each.hit is not None]
    base = next(each for each in contenders if each.name == "redis-py GET")
    ratios: dict[str, list[float]] = defaultdict(list)
    for _ in range(max(5, rounds // 6)):
        for contender in contenders:
            raw = rate(base.hit, threads)
            ratios[contender.name].append(rate(contender.hit, threads) / raw)
    for contender in contenders:
        if contender.close is not None:
            contender.close()
    return ratios


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
) -> dict[str, list[float]]:
    found = {each.name: call for each in contenders if (call := calls_of(each, measure)) is not None}
    name_of_base = "redis.asyncio + orjson" if against == "many" else "redis.asyncio GET"
    base = calls_of(next(each for each in contenders if each.name == name_of_base), against)
    assert base is not None
    many = TASKS if spend is crowd else 1
    counts = {}
    for name, call in found.items():
        await spend(call, 2)
        counts[name] = max(1, count_for(await spend(call, 10)) // many)
    least = max(1, count_for(await spend(base, 10)) // many)
    ratios: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for name, call in found.items():
            before = await spend(base, least)
            mine = await spend(call, counts[name])
            ratios[name].append((before + await spend(base, least)) / 2 / mine)
    return ratios
