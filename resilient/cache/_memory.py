"""Entries kept in this process, bounded: the least recently used goes first.

Beneath a local tier the table does not see what is used, since it is asked for nothing that is kept above it. There
the values stand in a `Room` as the tier's own do, by the marks of both; and what goes here goes there. So there is
nothing in the process that the table does not hold, and no more than its bounds. Stamps, leases and fences, which are
small and soon over, have room of their own, lest values drive them out that come and go.
"""

from __future__ import annotations

import contextlib
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from resilient.cache._entry import (
    BUSY,
    FENCE,
    FORMAT,
    HEAD,
    HEADER,
    LEASE,
    MAGIC,
    TOKEN,
    TOMBSTONE,
    WAITED,
    keeping,
    kept_in,
    version_in,
)
from resilient.cache._local_room import OVERHEAD, Room, Slot
from resilient.cache._stamps import is_ours
from resilient.cache._values import Written
from resilient.clock import SYSTEM, Clock
from resilient.errors import ConfigurationError
from resilient.runtime import after_fork, fork_safe_lock

__all__ = ["Table", "Upper"]

_NO_VALUE = TOMBSTONE | FENCE | LEASE
_MORE_MARKERS = 1000  # beside one for each value


class Upper(Protocol):
    """What keeps a part of a table above it: a `resilient.cache._local_tier.LocalTier`."""

    @property
    def table(self) -> Mapping[str, Slot]:
        """What it keeps, with the marks of those who asked for it."""
        ...

    def forget(self, keys: Sequence[str], /) -> None:
        """The table has these keys no longer."""
        ...


class _Place(Slot):
    """The place of a value in a table: hot where it was asked for there or above."""

    __slots__ = ("_above", "_asked")

    def __init__(self, key: str, size: int, above: Mapping[str, Slot]) -> None:
        self._above = above
        super().__init__(key, b"", math.inf, size)

    @property
    def hot(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]  # a slot says it itself
        """Whether it was asked for since it was looked at last."""
        above = self._above.get(self.key)
        return self._asked or (above is not None and above.hot)

    @hot.setter
    def hot(self, asked: bool) -> None:
        self._asked = asked
        if not asked and (above := self._above.get(self.key)) is not None:
            above.hot = False


class Table:
    """A bounded table of bytes with lives. Every method is one atomic step.

    Args:
        size: How many entries at most.
        clock: Where time is read.
        most: How many bytes at most, of keys and entries, and beneath a tier of what each needs besides; ``None``
            counts none.
    """

    def __init__(self, size: int, clock: Clock = SYSTEM, most: int | None = None) -> None:
        if size < 1:
            raise ConfigurationError(f"an in-process store holds at least one entry, not {size}")
        self._size = size
        self._most = math.inf if most is None else most
        self._bytes = 0
        self.cull: int | None = None
        """Where it is full, this part of the values goes at once, for 3 a third, for 0 all; ``None``: just enough."""
        self._places: Room | None = None
        self._upper: Upper | None = None
        self._markers: OrderedDict[str, None] = OrderedDict()
        self._clock = clock
        self._entries: OrderedDict[str, tuple[bytes, float]] = OrderedDict()
        self._lock = fork_safe_lock()
        self._bells: dict[str, list[Callable[[], None]]] = {}
        after_fork(self._reset)

    def _reset(self) -> None:
        """In a forked child: those who wait in the parent do not exist here, and its threads may have been at work."""
        self._bells = {}
        if self._upper is not None:
            entries, self._entries = self._entries, OrderedDict()
            self.beneath(self._upper)
            for key, (raw, until) in entries.items():
                self._set(key, raw, until)
                self._place(key, raw)

    # ------------------------------------------------------------------------------- inside: the lock is held in these

    def _live(self, key: str) -> bytes | None:
        found = self._entries.get(key)
        if found is None:
            return None
        if found[1] <= self._clock.monotonic():
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return found[0]

    def _keep(self, key: str, raw: bytes, life: int) -> None:
        self._set(key, raw, self._clock.monotonic() + life / 1000)
        self._entries.move_to_end(key)
        self._ring(key)
        if self._places is not None:
            self._place(key, raw)
            return
        most = self._size
        if self.cull is not None:
            most += _MORE_MARKERS
            if len(self._entries) > self._size and not is_ours(key):
                self._cull(key, self.cull)
        while len(self._entries) > most or (self._bytes > self._most and len(self._entries) > 1):
            self._drop(next(iter(self._entries)))

    def _cull(self, newest: str, part: int) -> None:
        """As Django's backends do: whoever comes when all places are taken makes room for many."""
        values = [key for key in self._entries if not is_ours(key) and key != newest]
        if len(values) >= self._size:
            for key in values[: len(values) // part if part else None]:
                self._drop(key)

    def _place(self, key: str, raw: bytes) -> None:
        """Beneath a tier: a value takes its place among the values, others may go for it."""
        assert self._places is not None  # noqa: S101 - asked by the caller
        assert self._upper is not None  # noqa: S101 - set together
        if not is_ours(key) and not (len(raw) > 2 and raw[2] & _NO_VALUE):
            self._markers.pop(key, None)
            if not self._places.put(_Place(key, OVERHEAD + len(key) + len(raw), self._upper.table)):
                self._drop(key)  # greater than an eighth of all there is room for
            return
        self._places.drop(key)
        self._markers[key] = None
        self._markers.move_to_end(key)
        if len(self._markers) > self._size + _MORE_MARKERS:
            oldest = next(iter(self._markers))
            self._drop(oldest)
            self._upper.forget((oldest,))

    def _went(self, key: str) -> None:
        """A value went for want of room."""
        before = self._entries.pop(key)
        self._bytes -= len(before[0]) + len(key)
        if self._upper is not None:
            self._upper.forget((key,))

    def _set(self, key: str, raw: bytes, until: float) -> None:
        before = self._entries.get(key)
        self._bytes += len(raw) + len(key) if before is None else len(raw) - len(before[0])
        self._entries[key] = (raw, until)

    def _drop(self, key: str) -> None:
        before = self._entries.pop(key, None)
        if before is not None:
            self._bytes -= len(before[0]) + len(key)
            if self._places is not None:
                self._places.drop(key)
                self._markers.pop(key, None)

    def _patch(self, key: str, at: int, part: bytes) -> None:
        """Write over a part of what is there, which keeps its life."""
        raw, until = self._entries[key]
        self._set(key, raw[:at] + part + raw[at + len(part) :], until)

    def _ring(self, key: str) -> None:
        for bell in self._bells.pop(key, ()):
            bell()

    def _swap(self, key: str, expected: bytes | None, raw: bytes | None, life: int) -> bool:
        current = self._live(key)
        if (current is None) is not (expected is None):
            return False
        if current is not None and expected is not None and current[:HEAD] != expected[:HEAD]:
            return False
        if current is not None and raw is not None and 0 < version_in(raw) < version_in(current):
            if not current[2] & FENCE:
                self._patch(key, BUSY.start, bytes(4))
                self._ring(key)
            return False
        if raw is None:
            self._drop(key)
            self._ring(key)
        elif life or current is None:
            self._keep(key, raw, life)
        else:
            self._patch(key, 0, raw)
            self._ring(key)
        return True

    # ------------------------------------------------------------------------------------------------------ operations

    def beneath(self, upper: Upper) -> None:
        """A tier keeps a part of it above it from now on; there is nothing in it yet."""
        self._upper = upper
        self._bytes = 0
        self._markers = OrderedDict()
        self._places = Room(self._size, 2**62 if self._most == math.inf else int(self._most))
        self._places.gone = self._went

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """The bytes under each key."""
        with self._lock:
            found = [self._live(key) for key in keys]
            if self._places is not None:
                for key in keys:
                    place = self._places.table.get(key)
                    if place is not None:
                        place.hot = True
                    elif key in self._markers:
                        self._markers.move_to_end(key)
            return found

    def put_many(self, entries: Mapping[str, bytes], life: int) -> None:
        """Store, whatever was there."""
        with self._lock:
            for key, raw in entries.items():
                self._keep(key, raw, life)

    def swap(self, key: str, expected: bytes | None, raw: bytes | None, life: int) -> bool:
        """Store or delete only if what is there still begins as expected; ``None`` expects nothing there.

        A life of 0 writes over the header of a value, which keeps its body and its life.
        """
        with self._lock:
            return self._swap(key, expected, raw, life)

    def write_versioned(self, key: str, fence: bytes | None, raw: bytes, life: int, lease: int) -> int:
        """End a write, by versions: as the script of that name does on a server."""
        with self._lock:
            current = self._live(key) or b""
            ours = len(current) >= HEADER.size and current[0] == MAGIC and current[1] == FORMAT
            flags, theirs, mine = current[2] if ours else 0, version_in(current) if ours else 0, version_in(raw)
            if fence is not None and current[:HEAD] == fence[:HEAD]:
                newer = theirs > mine
                self._keep(key, kept_in(current) if newer else raw, lease if newer else life)
                return Written.OLDER if newer else Written.STORED
            if flags & FENCE:
                if mine <= theirs:
                    return Written.OLDER
                self._set(key, keeping(current, raw), self._entries[key][1])
                return Written.LEFT
            if theirs and not flags & (TOMBSTONE | LEASE):
                if mine < theirs:
                    return Written.OLDER
                self._keep(key, raw, min(life, lease))
                return Written.STORED
            if fence is None:
                self._keep(key, raw, life)
                return Written.STORED
            return Written.UNKNOWN

    def claim(self, key: str, seen: bytes | None, header: bytes, life: int) -> tuple[bytes | None, float] | None:
        """Begin to load: as the script of that name does on a server. ``None`` where the caller is to load."""
        with self._lock:
            current = self._live(key)
            same = bool(current) and bool(seen) and current[:HEAD] == seen[:HEAD]  # type: ignore[index]  # both are there
            leases = bool(header[2] & LEASE)
            if leases and (same or not current):
                self._keep(key, header, life)
                return None
            if same:
                self._patch(key, 0, header)
                raw, until = self._entries[key]
                self._entries[key] = raw, max(until, self._clock.monotonic() + life / 1000)
                return None
            if not current:
                return None, 0.0
            if len(current) >= HEADER.size and current[0] == MAGIC and current[1] == FORMAT and _is_held(current):
                self._patch(key, WAITED, b"\x01")
            raw, until = self._entries[key]
            return raw, until - self._clock.monotonic()

    def exchange(self, key: str, raw: bytes, life: int) -> bytes | None:
        """Store, and return what was there."""
        with self._lock:
            before = self._live(key)
            self._keep(key, raw, life)
            return before

    def listen(self, key: str, token: int, bell: Callable[[], None]) -> bool:
        """Ring when the entry with that token is no longer there; ``False`` where that is so already."""
        with self._lock:
            current = self._live(key)
            if current is None or current[TOKEN] != token.to_bytes(8, "big"):
                return False
            self._bells.setdefault(key, []).append(bell)
            return True

    def unlisten(self, key: str, bell: Callable[[], None]) -> None:
        """Ring no more."""
        with self._lock, contextlib.suppress(KeyError, ValueError):
            self._bells[key].remove(bell)
            if not self._bells[key]:
                del self._bells[key]

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()
            self._bytes = 0
            self._markers.clear()
            if self._places is not None:
                self._places.clear()
            for key in list(self._bells):
                self._ring(key)


def _is_held(raw: bytes) -> bool:
    return bool(raw[2] & LEASE) or any(raw[BUSY])
