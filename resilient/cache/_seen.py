"""What reading, loading and writing tell each other. Plain values: no clock, no I/O."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from resilient.cache._codecs import Codec
from resilient.cache._entry import FENCE, NEGATIVE, Entry, Life
from resilient.cache._freshness import Policy
from resilient.cache._stamps import UNKNOWN, Stamps

__all__ = ["Fence", "Lease", "Plan", "Seen", "is_absence", "is_fenced", "milliseconds", "written"]


class Plan(NamedTuple):
    """How the values of one function, or of one call, are kept."""

    policy: Policy
    codec: Codec
    tags: tuple[str, ...] = ()
    owner: object = None
    """Whoever asks for values of this plan alone, and may be served them in fewer steps; ``None``: nobody."""
    share: bool | None = None
    """Whether these readers may all hold the same object; ``None``: as the cache says."""


class Seen(NamedTuple):
    """What a look at the store found: the bytes, and what they mean."""

    raw: Any  # bytes, None for absence, or UNREACHABLE
    entry: Entry | None = None
    value: Any = None
    life: Life = Life.GONE
    stamps: Stamps = UNKNOWN
    """The stamps that stood when it was looked at: of the namespace, and of the tags its reader asks for."""
    kept: bool = False
    """Whether it was found in this process, above a server."""
    heard: bool = False
    """Whether who loads it has been told that somebody waits, whom he wakes when he is done."""


class Lease(NamedTuple):
    """The right to store what is being loaded, for as long as the store still holds these bytes."""

    header: bytes
    renews: Entry | None = None
    """The value that is loaded anew; ``None`` where there is none."""
    stamps: Stamps = UNKNOWN
    """The stamps that what is stored is to bear: those that stood before its load began, or its write."""
    ends: float = math.inf
    """When it is over, by the clock's monotonic reading."""


class Fence(NamedTuple):
    """A key that a writer has fenced, of a value or of a stamp."""

    key: str
    mark: bytes
    """The fence's bytes."""
    before: Any
    """What was there: bytes, ``None`` for absence, or UNREACHABLE, so that nobody knows whether it was fenced."""


def is_absence(seen: Seen) -> bool:
    """Whether the entry says that there is no such thing."""
    return seen.entry is not None and bool(seen.entry.flags & NEGATIVE)


def is_fenced(seen: Seen) -> bool:
    """Whether a writer is at work."""
    return seen.entry is not None and bool(seen.entry.flags & FENCE)


def written(seen: Seen) -> tuple[int, bytes]:
    """The codec and the body of a readable entry."""
    assert seen.entry is not None  # noqa: S101 - only asked of a readable entry
    return seen.entry.codec, seen.entry.body


def milliseconds(seconds: float) -> int:
    """A life as a server counts it."""
    return max(1, int(seconds * 1000))
