"""What the cache costs and withstands, against raw redis-py and other caches, over one Redis started here.

    python benchmarks/cache.py [--rounds 30] [--runs 30] [--only speed|herds|outages]

Speed is told in ratios: short slices that alternate with those of raw redis-py's GET (of MGET and orjson for many
keys) in the same process. A busy machine only ever adds, so that the tenth of the slices counts that was disturbed
least, theirs as well as ours. Where a goal is missed all is measured again, up to twice, and added to what there is. A
library that is not installed is left out (``pip install --group bench``).

Exits with 1 where a result is wrong: a second load, an error to a caller, an old value, a thread too many. A goal of
speed that is missed is said, not punished: it depends on the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import sys
import warnings
from dataclasses import dataclass
from typing import Any

import _cache_outages as outages
import _cache_rates as rates
from _cache_herds import LOADING, TTL, Herd, orphan

from resilient.testing.servers import RedisServer

GET_OR_LOAD = "resilient: get_or_load"


@dataclass(frozen=True)
class Goal:
    """A promise, and what was measured."""

    row: str
    """Its number in the list of goals."""
    what: str
    value: float
    limit: float
    at_least: bool = False
    strict: bool = False
    """Whether it is right or wrong, and not fast or slow."""

    @property
    def met(self) -> bool:
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def __str__(self) -> str:
        sign = ">=" if self.at_least else "<="
        verdict = "met" if self.met else "WRONG" if self.strict else "missed"
        return f"| {self.row} | {self.what} | {sign} {self.limit:.4g} | {self.value:.4g} | {verdict} |"


# -------------------------------------------------------------------------------------------------------------- speed

SPEED = (
    # The row, the measure, what is measured, at least how many times its base.
    ("1", "hit", "decoded hit, by raw GET", 1.5),
    ("2", "20 threads", "decoded hit of 20 threads, by raw GET of 20 threads", 1.8),
    ("3", "async hit", "decoded hit with asyncio, by raw GET", 1.5),
    ("3", "async 50 tasks", "the same of 50 tasks at once", 4.0),
    ("7", "many", "get_many(100), by MGET + orjson", 0.9),
    ("7", "async many", "the same with asyncio", 0.9),
    ("8", "miss", "miss, load and store, by raw GET", 0.45),
    ("8", "async miss", "the same with asyncio", 0.45),
)


class Speed:
    """All pairs that were measured."""

    def __init__(self) -> None:
        self.pairs: rates.Pairs = {}

    def of(self, measure: str, name: str) -> float | None:
        """How many times its base a contender is; ``None`` where it has no such thing."""
        pairs = self.pairs[measure].get(name)
        return None if pairs is None else rates.times(pairs)

    def again(self, url: str, rounds: int) -> None:
        found = rates.sync_ratios(url, rounds)
        found["20 threads"] = rates.thread_ratios(url, rounds)
        for title, values in asyncio.run(rates.async_ratios(url, rounds)).items():
            found[f"async {title}"] = values
        for title, contenders in found.items():
            kept = self.pairs.setdefault(title, {})
            for name, pairs in contenders.items():
                kept.setdefault(name, []).extend(pairs)

    def goals(self) -> list[Goal]:
        return [
            Goal(row, what, self.of(measure, GET_OR_LOAD) or 0.0, limit, at_least=True)
            for row, measure, what, limit in SPEED
        ]

    def show(self) -> None:
        for title, measures in (
            ("threads", ["hit", "20 threads", "miss", "many"]),
            ("asyncio", ["async hit", "async 50 tasks", "async miss", "async many"]),
        ):
            names = dict.fromkeys(name for measure in measures for name in self.pairs[measure])
            print(f"\n## Speed, {title}: times raw redis-py\n\n| contender | {' | '.join(measures)} |")
            print(f"|---|{'---:|' * len(measures)}")
            for name in names:
                cells = [self.of(measure, name) for measure in measures]
                print(f"| {name} | {' | '.join('-' if cell is None else f'{cell:.2f}' for cell in cells)} |")


def speed(url: str, rounds: int) -> list[Goal]:
    measured = Speed()
    for _ in range(3):
        measured.again(url, rounds)
        if all(goal.met for goal in measured.goals()):
            break
    measured.show()
    return measured.goals()


# -------------------------------------------------------------------------------------------------------------- herds

MIXED = ["resilient", "resilient async"] * 2


def herds(url: str, runs: int) -> list[Goal]:
    print("\n## A cold key, 4 processes with 25 callers each, a loader of 200 ms\n")
    print("| contender | runs | runs with one load | most loads | p99 ms | worst ms |\n|---|---:|---:|---:|---:|---:|")
    cold: dict[str, Herd] = {}
    for name, workers, amount in (
        ("no cache", ["no cache"] * 4, 5),
        ("resilient, two of them async", MIXED, runs),
        ("dogpile.cache, distributed_lock", ["dogpile.cache"] * 4, 2),
        ("cashews, lock", ["cashews"] * 4, 5),
    ):
        herd = _herd("cold", url, workers, amount)
        if herd is not None:
            cold[name] = herd
            once = sum(loads == 1 for loads in herd.loads)
            print(f"| {name} | {amount} | {once} | {max(herd.loads)} | {herd.p99:.0f} | {herd.worst:.0f} |")
    print("\n## A hot key that expires each second, 2 processes with 10 callers each, 5 s\n")
    print("| contender | calls | loads | blocked over 100 ms | p99 ms | worst ms |\n|---|---:|---:|---:|---:|---:|")
    hot: dict[str, Herd] = {}
    for name, workers in (
        ("resilient, stale_while_revalidate", MIXED[:2]),
        ("dogpile.cache, background runner", ["dogpile.cache"] * 2),
        ("cashews, early", ["cashews"] * 2),
    ):
        herd = _herd("hot", url, workers, 5)
        if herd is not None:
            hot[name] = herd
            print(f"| {name} | {herd.calls} | {herd.hot_loads} | {herd.blocked} | {herd.p99:.1f} | {herd.worst:.0f} |")
    ours, bare, warm = cold["resilient, two of them async"], cold["no cache"], hot["resilient, stale_while_revalidate"]
    return [
        Goal("9", f"loads of a cold key, the most of {runs} runs", max(ours.loads), 1, strict=True),
        Goal("9", "p99 of its callers, ms", ours.p99, LOADING * 1000 + 25),
        Goal("9", "p99 by that of callers who each load for themselves", ours.p99 / bare.p99, 1.1),
        Goal("10", "callers of an expiring key who waited over 100 ms", warm.blocked, 0),
        Goal("10", "loads of it in both processes; it expired 7 times", warm.hot_loads, 5 / TTL + 2, strict=True),
        Goal("10", "p99 of its callers, ms", warm.p99, 5),
        Goal("10", "its worst caller, ms", warm.worst, 50),
        Goal("11", "wait for the lease (1 s) of a killed process, s", orphan(url), 1.2),
    ]


def _herd(what: str, url: str, workers: list[str], amount: int) -> Herd | None:
    try:
        return Herd(what, url, workers, amount)
    except RuntimeError as missing:
        print(f"# {missing}")
        return None


# ------------------------------------------------------------------------------------------------------------ outages


def faults(server: RedisServer) -> list[Goal]:
    killed, frozen = outages.killed(server), outages.frozen(server)
    reads, old = outages.changed_meanwhile(server, 10)
    wrong, raised = outages.fuzzed(server, 2000)
    races = outages.races(server.url)
    imported = outages.import_time("resilient.cache")
    named = outages.import_time("resilient.cache", "Cache")
    print("\n## An invalidation while a reader loads: what the cache holds afterwards\n\n| cache | |\n|---|---|")
    for name, verdict in races.items():
        print(f"| {name} | {verdict} |")
    return [
        Goal("12", "Redis killed: first failing call, ms", killed.first, 150),
        Goal("12", "then added to each call, us", killed.added, 20),
        Goal("12", "loads for 20 threads on one key meanwhile", killed.crowd_loads, 1, strict=True),
        Goal("12", "in use again after it is back, ms", killed.back, 1000),
        Goal("12", "lines in the log for the outage", killed.lines, 5, strict=True),
        Goal("13", "Redis frozen: the longest of 200 calls, ms", frozen.worst, 100),
        Goal("13", "calls that waited for it", frozen.slow, 3, strict=True),
        Goal("14", "old value kept after an invalidation during a load", races["resilient"] != "right", 0, strict=True),
        Goal("15", f"old values of {reads} reads after 10 outages with changes", old, 0, strict=True),
        Goal("18", "2,000 damaged entries: wrong values and errors", wrong + raised, 0, strict=True),
        Goal("19", "import of resilient.cache, ms of CPU", imported, 60),
        Goal("19", "import of Cache itself, by the import of redis-py", named / outages.import_time("redis"), 1),
        Goal("19", "threads of a cache that was used", outages.threads_at_rest(server), 0, strict=True),
    ]


# ------------------------------------------------------------------------------------------------------------- report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=30, help="pairs of slices for each contender")
    parser.add_argument("--runs", type=int, default=30, help="cold keys")
    parser.add_argument("--only", choices=["speed", "herds", "outages"], help="one part alone")
    options = parser.parse_args()
    missing = RedisServer.missing()
    if missing is not None:
        print(f"# nothing is measured: {missing}")
        return 0
    warnings.simplefilter("ignore")  # of peers, about themselves
    logging.getLogger("resilient").addHandler(logging.NullHandler())
    gc.freeze()  # what is imported is no garbage of anybody's
    parts: dict[str, Any] = {
        "outages": faults,
        "herds": lambda server: herds(server.url, options.runs),
        "speed": lambda server: speed(server.url, options.rounds),
    }
    goals: list[Goal] = []
    with RedisServer() as server:
        for name, part in parts.items():
            if options.only in {None, name}:
                goals += part(server)
                server.heal()
    goals.sort(key=lambda goal: int(goal.row))
    print("\n## Goals\n\n| row | what | goal | measured | |\n|---:|---|---:|---:|---|")
    for goal in goals:
        print(goal)
    return 1 if any(goal.strict and not goal.met for goal in goals) else 0


if __name__ == "__main__":
    sys.exit(main())
