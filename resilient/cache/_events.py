"""What happens in a cache, as events."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

from resilient.events import Event, Metric

__all__ = [
    "CacheDown",
    "CacheRead",
    "CacheRefused",
    "CacheUp",
    "ChangesUntold",
    "EntryUnreadable",
    "LoadFailed",
    "ValueRefused",
    "WritesLost",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheRead(Event):
    """A value was read through the cache.

    Args:
        cache: The cache's namespace.
        source: Where the value came from: ``local``, ``shared`` or ``loader``; ``none`` where there was none.
        stale: Whether it was served past its ttl because its source failed.
    """

    metric: ClassVar[Metric | None] = Metric(
        "resilient.cache.reads",
        "counter",
        "{read}",
        labels=(
            ("resilient.cache.name", "cache"),
            ("resilient.cache.source", "source"),
            ("resilient.cache.stale", "stale"),
        ),
    )
    cache: str
    source: str
    stale: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadFailed(Event):
    """A loader failed. ``served`` tells what its caller got: ``stale`` or ``error``."""

    metric: ClassVar[Metric | None] = Metric(
        "resilient.cache.load_failures",
        "counter",
        "{failure}",
        labels=(("resilient.cache.name", "cache"), ("error.type", "error"), ("resilient.cache.served", "served")),
    )
    cache: str
    error: str
    served: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryUnreadable(Event):
    """Bytes in the store are no entry this version can read; they count as a miss."""

    metric: ClassVar[Metric | None] = Metric(
        "resilient.cache.unreadable",
        "counter",
        "{entry}",
        labels=(("resilient.cache.name", "cache"), ("resilient.cache.reason", "reason")),
    )
    cache: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueRefused(Event):
    """A writer returned what cannot be cached: its key was invalidated instead."""

    level: ClassVar[int] = logging.WARNING
    cache: str
    advice: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheDown(Event):
    """The shared tier stopped answering: reads go to their loaders, changes are remembered in the journal.

    Args:
        cache: The cache's namespace.
        error: The class of the last error, or of the system's error behind it.
    """

    level: ClassVar[int] = logging.WARNING
    metric: ClassVar[Metric | None] = Metric(
        "resilient.cache.outages",
        "counter",
        "{outage}",
        labels=(("resilient.cache.name", "cache"), ("error.type", "error")),
    )
    cache: str
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheRefused(Event):
    """The server answers, and refuses what the cache asks: a wrong password, database or right, or a replica.

    Nothing is served from it, or nothing stored there, until that is mended. Told once a minute for each kind of error.

    Args:
        cache: The cache's namespace; of sessions ``sessions:`` and theirs.
        error: The class of the error.
        reason: What the server said.
    """

    level: ClassVar[int] = logging.ERROR
    metric: ClassVar[Metric | None] = Metric(
        "resilient.cache.refusals",
        "counter",
        "{refusal}",
        labels=(("resilient.cache.name", "cache"), ("error.type", "error")),
    )
    cache: str
    error: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheUp(Event):
    """The shared tier answers again, and everything changed meanwhile was deleted there.

    Args:
        cache: The cache's namespace.
        seconds: How long it was away, as far as this process noticed.
        replayed: How many keys of the journal were deleted.
    """

    level: ClassVar[int] = logging.INFO
    metric: ClassVar[Metric | None] = Metric(
        "resilient.cache.outage.duration",
        "histogram",
        "s",
        value="seconds",
        labels=(("resilient.cache.name", "cache"),),
    )
    cache: str
    seconds: float
    replayed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangesUntold(Event):
    """A cache was closed while its server was away: what other processes cached of changed keys lives until its ttl.

    Args:
        cache: The cache's namespace.
        keys: How many keys the server was not told of.
    """

    level: ClassVar[int] = logging.WARNING
    metric: ClassVar[Metric | None] = Metric(
        "resilient.cache.untold", "counter", "{key}", value="keys", labels=(("resilient.cache.name", "cache"),)
    )
    cache: str
    keys: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WritesLost(Event):
    """Values that were written behind were never stored, and are given up.

    Args:
        cache: The cache's namespace.
        count: How many values.
        error: The class of the error with which storing them failed; empty where no time was left to try.
        keys: Their keys, as the store knows them.
    """

    level: ClassVar[int] = logging.ERROR
    metric: ClassVar[Metric | None] = Metric(
        "resilient.cache.writes.lost",
        "counter",
        "{write}",
        value="count",
        labels=(("resilient.cache.name", "cache"), ("error.type", "error")),
    )
    cache: str
    count: int
    error: str
    keys: tuple[str, ...]
