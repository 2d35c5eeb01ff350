"""Requests to a cache, made up so that they are the same at each run: what tells eviction policies apart.

``zipf``: few keys are asked for often, most seldom. ``scans``: the same, and now and then a job reads a thousand keys
that nobody asks for again. ``loop``: a job reads the same keys in the same order, more of them than there is room for.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import accumulate

CAPACITY = 1_000
LENGTH = 300_000
KEYS = 50_000
SKEW = 0.9
SEED = 20


def zipf(length: int = LENGTH) -> list[int]:
    """Keys whose n-th is asked for 1 / n ** 0.9 as often as the first."""
    weights = list(accumulate(1 / (rank + 1) ** SKEW for rank in range(KEYS)))
    return random.Random(SEED).choices(range(KEYS), cum_weights=weights, k=length)


def scans(length: int = LENGTH) -> list[int]:
    """Of three thousand requests one thousand are for keys that were never asked for and never will be."""
    usual, trace, fresh = zipf(length), [], KEYS
    for start in range(0, length, 2_000):
        trace += usual[start : start + 2_000]
        trace += range(fresh, fresh + 1_000)
        fresh += 1_000
    return trace[:length]


def loop(length: int = LENGTH) -> list[int]:
    """1,500 keys, round and round."""
    return [place % 1_500 for place in range(length)]


TRACES = {"zipf": zipf, "scans": scans, "loop": loop}


def ratio(hits: int, trace: Iterable[int]) -> float:
    """Hits in percent."""
    return 100 * hits / sum(1 for _ in trace)
