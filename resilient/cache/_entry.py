"""The bytes of an entry: a fixed header that tells an entry's life before anything is decoded, and a body.

Three kinds of entry share one key. A *value* is what was stored. A *tombstone* says that the value was invalidated: a
load that began before it compares the bytes it saw at its start and finds them changed, so it cannot store. A *fence*
says that a writer is at work: nobody but that writer may store. Both last one lease.

The pure part of the cache: no clock, no I/O.
"""

from __future__ import annotations

import math
import os
import struct
from dataclasses import dataclass
from enum import Enum

__all__ = ["FENCE", "NEGATIVE", "TOMBSTONE", "Entry", "Life", "Unreadable", "is_fence", "pack", "unpack"]

_HEADER = struct.Struct(">BBBBIQdfff")
_MAGIC = 0xCE
_FORMAT = 1

NEGATIVE = 1
"""Flag: the loader said that there is no such thing."""
TOMBSTONE = 2
"""Flag: invalidated; there is no value."""
FENCE = 4
"""Flag: a writer is at work; there is no value, and only that writer may store one."""
_KNOWN = NEGATIVE | TOMBSTONE | FENCE


class Unreadable(Exception):  # it never leaves the cache
    """These bytes are no entry this version can read. ``reason`` is one of a few words."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Life(Enum):
    """What an entry is worth at a moment."""

    FRESH = "fresh"
    STALE = "stale"  # may be served while its source fails
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry.

    Args:
        body: The encoded value.
        codec: Which codec wrote the body.
        schema: A checksum of the type it was written for; 0 where no type was known.
        flags: `NEGATIVE`, `TOMBSTONE`, `FENCE`.
        stamp: A random number; makes the bytes of every write differ from those of every other.
        created: The wall clock's seconds when its load began: what the value is at least as new as.
        fresh: Seconds from ``created`` for which it is served without asking its source.
        keep: Seconds from ``created`` for which it may be served when its source fails; not below ``fresh``.
        cost: Seconds its load took.
    """

    body: bytes
    codec: int
    schema: int
    flags: int
    stamp: int
    created: float
    fresh: float
    keep: float
    cost: float

    def life(self, now: float) -> Life:
        """What it is worth when the wall clock shows ``now``. Tombstones and fences are worth nothing."""
        if self.flags & (TOMBSTONE | FENCE):
            return Life.GONE
        age = now - self.created
        if age < self.fresh:
            return Life.FRESH
        return Life.STALE if age < self.keep else Life.GONE

    def age(self, now: float) -> float:
        """Seconds since its load began, by this machine's clock; never negative."""
        return max(0.0, now - self.created)


def stamp() -> int:
    """A random stamp."""
    return int.from_bytes(os.urandom(8), "big")


def pack(entry: Entry) -> bytes:
    """An entry's bytes."""
    header = _HEADER.pack(
        _MAGIC,
        _FORMAT,
        entry.flags,
        entry.codec,
        entry.schema,
        entry.stamp,
        entry.created,
        entry.fresh,
        entry.keep,
        entry.cost,
    )
    return header + entry.body


def unpack(raw: bytes) -> Entry:
    """Read what `pack` wrote.

    Raises:
        Unreadable: These are not the bytes of an entry, or those of a version to come.
    """
    if len(raw) < _HEADER.size:
        raise Unreadable("too short")
    magic, version, flags, codec, schema, mark, created, fresh, keep, cost = _HEADER.unpack_from(raw)
    if magic != _MAGIC:
        raise Unreadable("no entry")
    if version != _FORMAT or flags & ~_KNOWN:
        raise Unreadable("other version")
    if not all(map(math.isfinite, (created, fresh, keep, cost))):
        raise Unreadable("bad header")
    return Entry(raw[_HEADER.size :], codec, schema, flags, mark, created, fresh, keep, cost)


def is_fence(raw: bytes | None) -> bool:
    """Whether these bytes are a writer's fence, told by their head alone."""
    return raw is not None and len(raw) >= _HEADER.size and raw[0] == _MAGIC and bool(raw[2] & FENCE)


def marker(flags: int, now: float, lease: float) -> bytes:
    """The bytes of a tombstone or a fence. Each call gives other bytes."""
    return pack(Entry(b"", 0, 0, flags, stamp(), now, 0.0, lease, 0.0))
