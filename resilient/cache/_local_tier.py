"""The local tier of one cache: entries as the server holds them, kept as long as they are known to be right.

Each entry depends on its own key, on the namespace's stamp and on the stamps of its tags. All of them are keys of the
server, and a change of each is told: what depends on it is not served any more.

Readers take no lock. Whoever keeps an entry, and the channel that tells of changes, take one, so that nothing that was
read before a change can slip in behind it.
"""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol
from weakref import ref

from resilient.cache._codecs import Codec
from resilient.cache._entry import FENCE, FORMAT, HEADER, LEASE, MAGIC, SIZE, TOMBSTONE, plain_header, version_in
from resilient.cache._immutable import is_immutable
from resilient.cache._journal import Journal
from resilient.cache._local import Local
from resilient.cache._local_coherence import NO_TICKET, Coherence
from resilient.cache._local_room import OVERHEAD, KeptStamp, Ready, Room, Slot
from resilient.cache._stamps import is_ours, is_unsure, namespace_key, number
from resilient.clock import Clock
from resilient.runtime import after_fork, fork_safe_lock

__all__ = ["Changes", "Kept", "LocalTier"]

_EMPTY = TOMBSTONE | FENCE | LEASE
_MORE_STAMPS = 1000  # beside one for each entry
_COMPACT: frozenset[type] = frozenset({bytes, str})
_OBJECT = 4  # an object is longer than the bytes that it is written as, by so much, about


class Changes(Protocol):
    """Whoever tells a tier of changes, as `resilient.wire.redis.tracking.Tracking` does."""

    @property
    def keep(self) -> float:
        """Seconds that an entry may be kept at most."""
        ...

    def ensure(self) -> None:
        """Begin, where that was not begun yet."""
        ...

    def news(self, keys: Iterable[str]) -> Sequence[tuple[str, ...]]:
        """The commands by which the others are told of changes of this process; none, where the server does that."""
        ...

    def close(self, wait: float) -> None:
        """End; wait so many seconds at most for what was begun."""
        ...


class Kept(list[bytes | None]):
    """What was found, all of it in this process."""

    __slots__ = ()


class LocalTier:
    """What a process keeps of one cache.

    Args:
        namespace: The cache's.
        options: How much, and how it is handed out.
        clock: Where time is read.
        lease: Seconds for which a server keeps what writers leave there who met each other.

    It is the *ear* of a channel: `begun`, `heard`, `told` and `cut` may be called by any thread.
    """

    hit: Callable[[], int]
    """Counts a hit, without a lock."""

    def __init__(self, namespace: str, options: Local, clock: Clock, *, lease: float = 10.0) -> None:
        self.options = options
        self.clock = clock
        self.until = -math.inf
        """The clock's seconds from which on nothing is served."""
        self.changes: Changes | None = None
        """Whoever tells of them; ``None`` where that is done here."""
        self._journals: tuple[ref[Journal], ...] = ()
        self._lease = lease
        self._ttl = math.inf if options.ttl is None else options.ttl
        self._namespace = namespace_key(namespace)
        self._room = Room(options.max_entries, options.max_bytes)
        self.table = self._room.table
        """The slots by key, for readers."""
        self._stamps: OrderedDict[str, KeptStamp] = OrderedDict()
        self._coherence = Coherence()
        self._lock = fork_safe_lock()
        self._reset()
        after_fork(self._reset)

    def _reset(self) -> None:
        """Nobody tells a forked child of changes yet; and its parent's threads may have been at work here."""
        self._always = getattr(self, "_always", False)
        self._looks = 0
        self.hit = itertools.count().__next__
        with self._lock:
            self._coherence.begun()
            self._forget_all()
            if self._always:
                self._coherence.always()
            self.until = self._coherence.until

    # ------------------------------------------------------------------------------------------------------ the channel

    def always(self) -> None:
        """The server is this process: `forget` is called at each change, before whoever has made it goes on."""
        self._always = True
        with self._lock:
            self._coherence.always()
            self.until = self._coherence.until

    def begun(self) -> int:
        """A channel tells of every change from now on. What it is to call itself by."""
        with self._lock:
            session = self._coherence.begun()
            self.until = self._coherence.until
            self._forget_all()
            return session

    def heard(self, session: int, since: float) -> None:
        """The channel has told of all that changed before this moment of the clock."""
        with self._lock:
            self._coherence.heard(session, since)
            self.until = self._coherence.until

    def told(self, session: int, keys: Sequence[bytes] | None) -> None:
        """These keys have changed; ``None``: all may have."""
        if keys is None:
            with self._lock:
                if self._coherence.current(session):
                    self._coherence.flushed()
                    self._forget_all()
            return
        names = [key.decode(errors="replace") for key in keys]  # what is no text is not ours
        with self._lock:
            if self._coherence.current(session):
                self._changed(names)

    def cut(self, session: int) -> None:
        """The channel tells of nothing any more: what is kept is forgotten."""
        with self._lock:
            if self._coherence.cut(session):
                self.until = self._coherence.until
                self._forget_all()

    # ------------------------------------------------------------------------------------------------------ own changes

    def forget(self, keys: Iterable[str]) -> None:
        """This process has changed these keys, or may have, or is about to change them on the server."""
        with self._lock:
            self._changed(keys)

    def flush(self) -> None:
        """Any key may have changed."""
        with self._lock:
            self._coherence.flushed()
            self._forget_all()

    def heed(self, journal: Journal) -> None:
        """While a journal holds what the server has not been told of, nothing that it gives is kept."""
        self._journals = (*(each for each in self._journals if each() is not None), ref(journal))

    def _changed(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._coherence.changed(key)
            if not is_ours(key):
                self._room.drop(key)
                continue
            stamp = self._stamps.pop(key, None)
            if stamp is not None:
                stamp.alive = False
                if key == self._namespace:
                    self._room.clear()

    def _forget_all(self) -> None:
        self._room.clear()
        for stamp in self._stamps.values():
            stamp.alive = False
        self._stamps.clear()

    # ---------------------------------------------------------------------------------------------------------- reading

    def live(self) -> bool:
        """Whether what is kept may be served."""
        return self.clock.monotonic() < self.until

    def ticket(self) -> int:
        """Taken before the server is asked; `NO_TICKET` where what comes back cannot be kept."""
        return self._coherence.ticket(self.clock.monotonic())

    def look(self, keys: Sequence[str]) -> list[bytes | None]:
        """The bytes of those keys that are kept."""
        now = self.clock.monotonic()
        if now >= self.until:
            return [None] * len(keys)
        found: list[bytes | None] = []
        for key in keys:
            slot = self.table.get(key)
            if slot is not None:
                slot.hot = True
            held = slot or self._stamps.get(key)
            found.append(held.raw if held is not None and now < held.limit else None)
        return found

    def kept(self, keys: Sequence[str]) -> Kept | None:
        """The bytes under each key, if all of them are kept."""
        found = self.look(keys)
        return None if None in found else Kept(found)

    def keep(self, keys: Sequence[str], found: Sequence[bytes | None], ticket: int, asked: float) -> None:
        """Keep what the server gave for these keys, as far as it is worth it and still right.

        Args:
            keys: The keys.
            found: Their bytes.
            ticket: Taken before the server was asked.
            asked: The clock's seconds then: what it gave may be as old as that.
        """
        if ticket == NO_TICKET or any(journal() for journal in self._journals):
            return
        longest = self._ttl if self.changes is None else min(self._ttl, self.changes.keep)
        limit, now = asked + longest, self.clock.wall()
        with self._lock:
            for key, raw in zip(keys, found, strict=True):
                if raw is None or not self._coherence.keeps(key, ticket):
                    continue
                if is_ours(key):
                    self._keep_stamp(key, raw, limit)
                elif holds_value(raw) and not is_brief(raw, now, self._lease):
                    self._keep_value(key, raw, limit)

    def _keep_value(self, key: str, raw: bytes, limit: float) -> None:
        slot = self.table.get(key)
        if slot is not None and slot.raw == raw:
            slot.raw, slot.limit = raw, limit
            return
        self._room.put(Slot(key, raw, limit, _size(key, raw)))

    def _keep_stamp(self, key: str, raw: bytes, limit: float) -> None:
        if not number(raw) or is_unsure(raw):
            return  # its end, of which a server tells when it likes, is an invalidation too
        stamp = self._stamps.get(key)
        if stamp is not None and stamp.raw == raw:
            stamp.raw, stamp.limit = raw, limit
            return
        if stamp is not None:
            stamp.alive = False
        self._stamps[key] = KeptStamp(raw, limit)
        if len(self._stamps) > self.options.max_entries + _MORE_STAMPS:
            oldest = next(name for name in self._stamps if name != self._namespace)
            self._stamps.pop(oldest).alive = False

    def prepare(
        self,
        keys: Sequence[str],
        found: Sequence[bytes | None],
        value: Any,
        *,
        owner: object,
        codec: Codec,
        share: bool | None = None,
    ) -> None:
        """Let a value that was read and judged be served without judging it again.

        Args:
            keys: Its key, the namespace's, and those of its tags.
            found: What was found under them.
            value: What it is.
            owner: Who judged it: nobody else is served it.
            codec: Reads it.
            share: Whether all may hold this very object; by default as the cache says.
        """
        slot = self.table.get(keys[0])
        if slot is None or slot.raw is not found[0]:
            return
        stamps: list[KeptStamp] = []
        for key, raw in zip(keys[1:], found[1:], strict=True):
            stamp = self._stamps.get(key)
            if stamp is None or stamp.raw is not raw:
                return
            stamps.append(stamp)
        written, _, created, lasts, length, _ = plain_header(slot.raw)
        limit = min([slot.limit, *[stamp.limit for stamp in stamps]])
        until = min(limit, self.clock.monotonic() + created + lasts - self.clock.wall())
        read, data, at = codec.again(written, slot.raw, SIZE + length)
        beside = 0 if data is slot.raw else len(data)  # decompressed, it may be many times as long
        if (self.options.share if share is None else share) or is_immutable(value):
            ready = Ready(owner, until, tuple(stamps), value=value)
            beside = (len(data) - at) * (1 if value.__class__ in _COMPACT else _OBJECT)
        else:
            ready = Ready(owner, until, tuple(stamps), read=read, data=data, at=at)
        with self._lock:
            if self._room.weigh(slot, _size(slot.key, slot.raw) + beside):
                slot.ready = ready

    # ---------------------------------------------------------------------------------------------------------- figures

    def figures(self) -> dict[str, int]:
        """Hits of functions without a step to the server, entries, bytes, and what went for want of room."""
        with self._lock:
            hits = self.hit() - self._looks  # looking is a step too
            self._looks += 1
            room = self._room
            return {"hits": hits, "entries": len(room), "bytes": room.bytes, "evicted": room.evicted}


def _size(key: str, raw: bytes) -> int:
    """Bytes that a slot counts for, without what is kept of its value beside the bytes as they are written."""
    return OVERHEAD + len(key) + len(raw)


def holds_value(raw: bytes) -> bool:
    """Whether these bytes hold a value, or say that there is none such: nothing that is over in a moment."""
    return len(raw) >= SIZE and raw[0] == MAGIC and raw[1] == FORMAT and not raw[2] & _EMPTY


def is_brief(raw: bytes, now: float, lease: float) -> bool:
    """Whether a server may hold a value for one lease only, whatever its header says.

    So it does where writers met who say of which version theirs is: a third may have been among them and died, of whose
    value nobody but time tells. A fence may have held it for a lease before, and to write it took less than another.
    """
    if not version_in(raw):
        return False
    header = HEADER.unpack_from(raw)
    created, cost = header[6], header[9]
    return not cost and now - created < 3 * lease
