"""The bytes of an entry: a fixed header that tells an entry's life before anything is decoded, its tags, and a body.

One key holds the whole state of its value, so that one step on the server can judge and change it. Four kinds of entry
share it. A *value* is what was stored. A *lease* says that nothing is there and somebody loads it. A *tombstone* says
that the value was invalidated. A *fence* says that a writer is at work: nobody but that writer may store. All but the
value last one lease.

Every write bears a random *token* within the first `HEAD` bytes, and every later step compares them: a load that began
before an invalidation, or before a writer, finds other bytes than its own and cannot store.

What becomes of one key, and by which step; each step is one script or one command, and happens as a whole:

| there is | a reader who misses claims (CLAIM) | a load ends (SWAP) | a writer begins | a writer ends | invalidated |
|---|---|---|---|---|---|
| nothing | lease | | fence | | tombstone |
| lease | is told to wait | value, or nothing where it failed | fence | | tombstone |
| value | the same value, busy | | fence | | tombstone |
| value, busy | is told to wait | new value, or the old one | fence | | tombstone |
| tombstone | lease | refused | fence | | tombstone |
| fence | loads for itself | refused | the later fence | value, tombstone or what there was (SWAP) | another fence |

A writer begins with SET GET, which tells what was there. It ends with SWAP where its fence still stands and it found no
other: else a fence is put there for one lease. With versions it ends with WRITE, which leaves the newest of the values.
To invalidate is SET GET of a tombstone, and of a fence where one is found to have stood. Where a server has no room for
one of these, REPLACE puts it in the place of what was there. A refresh that is forced, or that a writer's end pushes,
takes the claim of another. A lease, a tombstone and a fence end by themselves, and then nothing is there; so does a
value when it is kept no longer.

The pure part of the cache: no clock, no I/O.
"""

from __future__ import annotations

import math
import random
import struct
from enum import Enum
from typing import NamedTuple

from resilient.runtime import after_fork

__all__ = [
    "BUSY",
    "FAILED",
    "FENCE",
    "FOREVER",
    "FORMAT",
    "GENERATION",
    "HEAD",
    "HEADER",
    "LEASE",
    "MAGIC",
    "MOST_TAGS",
    "NEGATIVE",
    "PLAIN",
    "SIZE",
    "TAGGED",
    "TOKEN",
    "TOMBSTONE",
    "VERSION",
    "WAITED",
    "Entry",
    "Life",
    "Unreadable",
    "bearing",
    "claimed",
    "heading",
    "is_fence",
    "keeping",
    "kept_in",
    "marker",
    "new_token",
    "noted",
    "noted_in",
    "pack",
    "pack_bearing",
    "plain_header",
    "released",
    "sealed_header",
    "unpack",
    "version_in",
]

HEADER = struct.Struct(">BBBBIQdfffBHQfQ")
"""Magic, format, flags, codec, schema, token, created, fresh, keep, cost; waited, length of tags, generation, busy,
version."""
HEAD = 36
"""So many bytes, up to and with the cost, tell an entry from every other; the rest of the header may change."""
WAITED = HEAD
"""Where the byte stands that says that another process waits for the one who loads."""
MAGIC = 0xCE
FORMAT = 3

SIZE = HEADER.size
TOKEN = slice(8, 16)
"""Where the random number stands that tells a write from every other."""
TAGGED = slice(HEAD + 1, HEAD + 3)
"""Where the length of the tags stands."""
GENERATION = slice(HEAD + 3, HEAD + 11)
"""Where the namespace's stamp stands."""
BUSY = slice(SIZE - 12, SIZE - 8)
"""Where it stands until when somebody loads a value anew."""
VERSION = slice(SIZE - 8, SIZE)
"""Where the version stands; of two, the bytes of the higher one are the greater."""
PLAIN = bytes([MAGIC, FORMAT, 0])
"""How an entry begins that holds a value and nothing else."""
FOREVER = 1e10
"""Seconds; no entry of ours is fresh for so long, so that a header that says so is read with care."""
plain_header = struct.Struct(">3xBI8xdf4x4xxHQ4x").unpack_from
"""Reads from the header of a plain value, in one step, what its reader must know: codec, schema, created, fresh, the
length of its tags, and its generation."""
sealed_header = struct.Struct(">8s8xdf8x11s12xI").unpack_from
"""Reads what most entries are judged by: what `heading` and `bearing` give, created and fresh between the two; and the
checksum that follows where there are no tags."""

NEGATIVE = 1
"""Flag: the loader said that there is no such thing."""
TOMBSTONE = 2
"""Flag: invalidated; there is no value."""
FENCE = 4
"""Flag: a writer is at work; there is no value, and only that writer may store one."""
LEASE = 8
"""Flag: somebody loads; there is no value, and nobody else needs to load one."""
FAILED = 16
"""Flag: the loader raised an error that its policy caches; the body names it."""
MOST_TAGS = 0xFFFF
"""Bytes of tags, with their names and stamps, that the header can count."""
_KNOWN = NEGATIVE | TOMBSTONE | FENCE | LEASE | FAILED
_EMPTY = TOMBSTONE | FENCE | LEASE


class Unreadable(Exception):  # it never leaves the cache
    """These bytes are no entry this version can read. ``reason`` is one of a few words."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Life(Enum):
    """What an entry is worth at a moment."""

    FRESH = "fresh"
    STALE = "stale"  # may be served while it is loaded anew, or while its source fails
    GONE = "gone"


class Entry(NamedTuple):
    """One entry.

    Args:
        body: The encoded value.
        codec: Which codec wrote the body.
        schema: A checksum of the type it was written for; 0 where no type was known.
        flags: `NEGATIVE`, `TOMBSTONE`, `FENCE`, `LEASE`, `FAILED`.
        token: A random number; makes the bytes of every write differ from those of every other.
        created: The wall clock's seconds when its load began: what the value is at least as new as.
        fresh: Seconds from ``created`` for which it is served without asking its source.
        keep: Seconds from ``created`` for which it may be served after that; not below ``fresh``.
        cost: Seconds its load took.
        generation: The namespace's stamp as it was before the load began; 0 where there is none.
        tags: The tags with their stamps as they were before the load began, from `pack_tags`.
        busy: Seconds from ``created`` until which somebody loads it anew; 0 where nobody does.
        waited: Whether another process waits for the one who loads.
        version: One more than the version of the row that it was made of; 0 where that is not known. In a fence that of
            the newest value which another writer has left in it.
    """

    body: bytes
    codec: int
    schema: int
    flags: int
    token: int
    created: float
    fresh: float
    keep: float
    cost: float
    generation: int = 0
    tags: bytes = b""
    busy: float = 0.0
    waited: bool = False
    version: int = 0

    def life(self, now: float) -> Life:
        """What it is worth when the wall clock shows ``now``. All that is no value is worth nothing."""
        if self.flags & _EMPTY:
            return Life.GONE
        age = now - self.created
        if age < self.fresh:
            return Life.FRESH
        return Life.STALE if age < self.keep else Life.GONE

    def age(self, now: float) -> float:
        """Seconds since its load began, by this machine's clock; never negative."""
        return max(0.0, now - self.created)

    def held(self, now: float) -> float:
        """Seconds for which somebody else may still be loading it; 0 where nobody does."""
        until = self.keep if self.flags & LEASE else self.busy
        return max(0.0, self.created + until - now)


def heading(codec: int, schema: int) -> bytes:
    """How an entry begins that holds a value, written by that codec for that type."""
    return PLAIN + struct.pack(">BI", codec, schema)


def bearing(generation: int, tags: bytes = b"") -> bytes:
    """What stands in the header of an entry that bears these stamps, and for which nobody waits.

    Args:
        generation: The namespace's stamp; 0 where there is none, so that nothing can bear it: then no bytes.
        tags: The tags with theirs.
    """
    return struct.pack(">BHQ", 0, len(tags), generation) if generation else b""


_tokens = random.Random()  # noqa: S311 - no secret; and not the common one, which users seed alike in all processes
after_fork(_tokens.seed)


def new_token() -> int:
    """A random number, for a write that differs from every other: in this process and in all others."""
    return _tokens.getrandbits(64)


def pack(entry: Entry) -> bytes:
    """An entry's bytes."""
    return pack_bearing(entry, entry.generation, entry.tags)


def pack_bearing(entry: Entry, generation: int, tags: bytes) -> bytes:
    """The bytes of an entry with other stamps than it has."""
    return _header(entry, generation, len(tags)) + tags + entry.body


def _header(entry: Entry, generation: int, tags: int) -> bytes:
    return HEADER.pack(
        MAGIC,
        FORMAT,
        entry.flags,
        entry.codec,
        entry.schema,
        entry.token,
        entry.created,
        entry.fresh,
        entry.keep,
        entry.cost,
        entry.waited,
        tags,
        generation,
        entry.busy,
        entry.version,
    )


def unpack(raw: bytes) -> Entry:
    """Read what `pack` wrote.

    Raises:
        Unreadable: These are not the bytes of an entry, or those of a version to come.
    """
    if len(raw) < HEADER.size:
        raise Unreadable("too short")
    header = HEADER.unpack_from(raw)
    magic, number, flags, codec, schema, token, created, fresh, keep, cost = header[:10]
    waited, tags, generation, busy, version = header[10:]
    if magic != MAGIC:
        raise Unreadable("no entry")
    if number != FORMAT or flags & ~_KNOWN:
        raise Unreadable("other version")
    end = HEADER.size + tags
    if not all(map(math.isfinite, (created, fresh, keep, cost, busy))) or waited > 1 or len(raw) < end:
        raise Unreadable("bad header")
    block = raw[HEADER.size : end]
    more = (generation, block, busy, bool(waited), version)
    return Entry(raw[end:], codec, schema, flags, token, created, fresh, keep, cost, *more)


def is_fence(raw: bytes | None) -> bool:
    """Whether these bytes are a writer's fence, told by their head alone."""
    return raw is not None and len(raw) >= HEADER.size and raw[0] == MAGIC and bool(raw[2] & FENCE)


def marker(flags: int, now: float, lease: float, body: bytes = b"", *, generation: int = 0, tags: bytes = b"") -> bytes:
    """The bytes of a tombstone, a fence or a lease. Each call gives other bytes.

    Args:
        flags: Which of them.
        now: What the wall clock shows.
        lease: Seconds it lasts.
        body: What the writer has seen, for the load that follows.
        generation: The namespace's stamp, with which what is loaded under a lease is to be stored.
        tags: The tags with theirs.
    """
    header = HEADER.pack(
        MAGIC, FORMAT, flags, 0, 0, new_token(), now, 0.0, lease, 0.0, False, len(tags), generation, 0.0, 0
    )
    return header + tags + body


def noted(entry: Entry | None) -> bytes:
    """What stands in a tombstone, a fence or a lease for the load that follows; nothing where it is a value."""
    if entry is None or not entry.flags & _EMPTY:
        return b""
    return _note(entry.body)[0] if entry.version else entry.body


def noted_in(raw: bytes | None) -> bytes:
    """The same of an entry's bytes."""
    if raw is None or len(raw) < HEADER.size or raw[0] != MAGIC or raw[1] != FORMAT or not raw[2] & _EMPTY:
        return b""
    body = _body(raw)
    return _note(body)[0] if version_in(raw) else body


# ---------------------------------------------------------------------------------------------------------- versions


def version_in(raw: bytes) -> int:
    """The version that stands in an entry's bytes; 0 where there is none."""
    return int.from_bytes(raw[VERSION], "big") if len(raw) >= HEADER.size else 0


def keeping(fence: bytes, raw: bytes) -> bytes:
    """A fence's bytes, with what another writer leaves in it: a value that counts unless a newer one comes.

    The fence stays its writer's: its head is the same.
    """
    note = _note(_body(fence))[0] if version_in(fence) else _body(fence)
    head = fence[: TAGGED.start] + bytes(2) + fence[TAGGED.stop : VERSION.start]  # a fence bears no tags
    return head + raw[VERSION] + len(note).to_bytes(2, "big") + note + raw


def kept_in(fence: bytes) -> bytes:
    """The bytes of the value that another writer has left in a fence."""
    return _note(_body(fence))[1]


def _body(raw: bytes) -> bytes:
    return raw[HEADER.size + int.from_bytes(raw[TAGGED], "big") :]


def _note(body: bytes) -> tuple[bytes, bytes]:
    """What stands in the fence for the load that follows, and the value that was left in it."""
    end = 2 + int.from_bytes(body[:2], "big")
    return body[2:end], body[end:]


def claimed(entry: Entry, now: float, lease: float) -> bytes:
    """The new header of a value that somebody begins to load anew: it keeps tags, body and life."""
    return _again(entry, now - entry.created + lease)


def released(entry: Entry) -> bytes:
    """The new header of a value that nobody loads anew any more."""
    return _again(entry, 0.0)


def _again(entry: Entry, busy: float) -> bytes:
    renewed = entry._replace(token=new_token(), busy=busy, waited=False)
    return _header(renewed, entry.generation, len(entry.tags))
