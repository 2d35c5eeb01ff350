"""What a process keeps of a cache: so many entries and bytes at most, and what is asked for again stays.

Three queues, as in S3-FIFO: what comes goes through a *small* one; what was asked for there again goes on to the
*main* one; of what was not, the name stays for a while, as a *ghost*, and what comes again meanwhile goes to the main
queue at once. A job that reads many keys once passes through the small queue and spoils nothing.

Where the main queue is full, its oldest entry must give way to whoever asks to enter: if that was asked for since, it
is put back, and the other one is refused. So one step is taken for each that asks: keys that are read round and round,
more of them than there is room for, do not drive each other out.

A hit takes no lock and moves nothing: it sets one mark. The pure part: no clock, no I/O, no lock; whoever changes a
room holds one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

__all__ = ["OVERHEAD", "KeptStamp", "Ready", "Room", "Slot"]

OVERHEAD = 500
"""Bytes that the parts of an entry need which are neither key nor value, about."""
_SMALL = 0.05  # the part of the room that newcomers have
_LARGEST = 8  # one entry is at most this part of the room


class KeptStamp:
    """A stamp that slots depend on: not alive any more as soon as another one may have taken its place."""

    __slots__ = ("alive", "limit", "raw")

    def __init__(self, raw: bytes, limit: float) -> None:
        self.raw = raw
        self.limit = limit
        self.alive = True


class Ready:
    """What a reader needs to serve a value without judging it again. Never changed: another one takes its place.

    Args:
        owner: Whoever has judged it: nobody else is served it.
        until: The clock's seconds from which on it is not served.
        stamps: The stamps it depends on.
        value: The value, where all may hold the same.
        read: Makes a copy; ``None`` where none is needed.
        data: Of what it is made.
        at: From where on.
    """

    __slots__ = ("at", "data", "owner", "read", "stamps", "until", "value")

    def __init__(
        self,
        owner: object,
        until: float,
        stamps: tuple[KeptStamp, ...],
        *,
        value: Any = None,
        read: Callable[[bytes], Any] | None = None,
        data: bytes = b"",
        at: int = 0,
    ) -> None:
        self.owner = owner
        self.until = until
        self.stamps = stamps
        self.value = value
        self.read = read
        self.data = data
        self.at = at


_UNREADY = Ready(None, 0.0, ())


class Slot:
    """One entry.

    Args:
        key: Its key.
        raw: Its bytes.
        limit: The clock's seconds from which on it is not used, whatever stands in it.
        size: Bytes it counts for.
    """

    __slots__ = ("hot", "key", "limit", "main", "raw", "ready", "size")

    def __init__(self, key: str, raw: bytes, limit: float, size: int) -> None:
        self.key = key
        self.raw = raw
        self.limit = limit
        self.size = size
        self.hot = False
        self.main = False
        self.ready = _UNREADY
        """For readers, who take no lock."""


class Room:
    """Slots by key, within two bounds.

    Args:
        max_entries: How many at most.
        max_bytes: How many bytes they count for at most.

    Examples:
        >>> room = Room(max_entries=2, max_bytes=1_000_000)
        >>> for key in "abc":
        ...     _ = room.put(Slot(key, b"", 0.0, 1))
        >>> len(room), room.evicted
        (2, 1)
    """

    __slots__ = ("_entries", "_ghosts", "_main", "_main_bytes", "_most", "_small", "bytes", "evicted", "gone", "table")

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        self.table: dict[str, Slot] = {}
        """Every slot. It stays the same object, so that readers may hold it; they change nothing."""
        self._entries = max_entries
        self._most = max_bytes
        self._small: OrderedDict[str, Slot] = OrderedDict()
        self._main: OrderedDict[str, Slot] = OrderedDict()
        self._ghosts: OrderedDict[int, None] = OrderedDict()
        self._main_bytes = 0
        self.bytes = 0
        self.evicted = 0
        self.gone: Callable[[str], object] | None = None
        """Is told of each key that goes for want of room."""

    def __len__(self) -> int:
        return len(self.table)

    def put(self, slot: Slot) -> bool:
        """Take a slot in, in the place of one with the same key; others may go for it. Whether it was taken in."""
        key = slot.key
        before = self.table.get(key)
        if slot.size > self._most // _LARGEST:
            self.drop(key)
            return False
        if before is not None:
            self._replace(before, slot)
        else:
            ghost = hash(key)
            known = ghost in self._ghosts
            if known:
                del self._ghosts[ghost]
            self._add(slot, main=known and self._admits(slot, slot))
        while len(self.table) > self._entries or self.bytes > self._most:
            self._evict(slot)
        return True

    def weigh(self, slot: Slot, size: int) -> bool:
        """Count a slot for so many bytes from now on; others may go for it. Whether it is there, and has that room."""
        if self.table.get(slot.key) is not slot or size > self._most // _LARGEST:
            return False
        self.bytes += size - slot.size
        if slot.main:
            self._main_bytes += size - slot.size
        slot.size = size
        while self.bytes > self._most:
            self._evict(slot)
        return self.table.get(slot.key) is slot

    def drop(self, key: str) -> Slot | None:
        """Take a slot out, if there is one. What was asked for often is known when it comes again."""
        slot = self.table.pop(key, None)
        if slot is not None:
            self.bytes -= slot.size
            if slot.main:
                del self._main[key]
                self._main_bytes -= slot.size
                self._remember(key)
            else:
                del self._small[key]
        return slot

    def clear(self) -> None:
        """Take everything out."""
        self.table.clear()
        self._small.clear()
        self._main.clear()
        self._ghosts.clear()
        self._main_bytes = self.bytes = 0

    # ---------------------------------------------------------------------------------------------------------- inside

    def _add(self, slot: Slot, *, main: bool) -> None:
        self.table[slot.key] = slot
        self.bytes += slot.size
        slot.main = main
        if main:
            self._main[slot.key] = slot
            self._main_bytes += slot.size
        else:
            self._small[slot.key] = slot

    def _replace(self, before: Slot, slot: Slot) -> None:
        """The same key with other bytes: its place stays."""
        slot.main, slot.hot = before.main, before.hot
        self.table[slot.key] = slot
        (self._main if slot.main else self._small)[slot.key] = slot
        self.bytes += slot.size - before.size
        if slot.main:
            self._main_bytes += slot.size - before.size

    def _admits(self, slot: Slot, newest: Slot) -> bool:
        """Whether the main queue has room, or makes some by one step."""
        part = 1.0 - _SMALL
        if len(self._main) < self._entries * part and self._main_bytes + slot.size <= self._most * part:
            return True
        return bool(self._main) and self._step(newest)

    def _step(self, newest: Slot) -> bool:
        """Look at the oldest entry of the main queue: back with it if it is the newest or was asked for, else out."""
        key, oldest = next(iter(self._main.items()))
        if oldest is newest or oldest.hot:
            oldest.hot = False
            self._main.move_to_end(key)
            return False
        self._out(oldest)
        return True

    def _evict(self, newest: Slot) -> None:
        """One entry of the small queue goes on to the main one or out, else one of the main queue; not the newest."""
        slot = next((each for each in self._small.values() if each is not newest), None)
        if slot is None:
            for _ in range(2 * len(self._main)):  # at the second round none is hot but those that are read meanwhile
                if self._step(newest):
                    return
            self._out(next(each for each in self._main.values() if each is not newest))
        elif slot.hot and self._admits(slot, newest):
            slot.hot = False
            slot.main = True
            del self._small[slot.key]
            self._main[slot.key] = slot
            self._main_bytes += slot.size
        else:
            self._out(slot)
            self._remember(slot.key)

    def _out(self, slot: Slot) -> None:
        del self.table[slot.key]
        self.bytes -= slot.size
        self.evicted += 1
        if slot.main:
            del self._main[slot.key]
            self._main_bytes -= slot.size
        else:
            del self._small[slot.key]
        if self.gone is not None:
            self.gone(slot.key)

    def _remember(self, key: str) -> None:
        self._ghosts[hash(key)] = None
        if len(self._ghosts) > min(self._entries, max(64, len(self.table))):
            self._ghosts.popitem(last=False)
