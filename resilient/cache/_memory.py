"""Entries kept in this process, bounded, the least recently used going first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence

from resilient.clock import SYSTEM, Clock
from resilient.errors import ConfigurationError
from resilient.runtime import after_fork

__all__ = ["Table"]


class Table:
    """A bounded table of bytes with lives. Every method is one atomic step.

    Args:
        size: How many entries at most.
        clock: Where time is read.
    """

    def __init__(self, size: int, clock: Clock = SYSTEM) -> None:
        if size < 1:
            raise ConfigurationError(f"an in-process store holds at least one entry, not {size}")
        self._size = size
        self._clock = clock
        self._entries: OrderedDict[str, tuple[bytes, float]] = OrderedDict()
        self._reset()
        after_fork(self._reset)

    def _reset(self) -> None:
        self._lock = threading.Lock()  # another thread of the parent may have held it

    def _live(self, key: str) -> bytes | None:
        found = self._entries.get(key)
        if found is None:
            return None
        if found[1] <= self._clock.monotonic():
            del self._entries[key]
            return None
        self._entries.move_to_end(key)
        return found[0]

    def _keep(self, key: str, raw: bytes, life: int) -> None:
        self._entries[key] = (raw, self._clock.monotonic() + life / 1000)
        self._entries.move_to_end(key)
        if len(self._entries) > self._size:
            self._entries.popitem(last=False)

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """The bytes under each key."""
        with self._lock:
            return [self._live(key) for key in keys]

    def put_many(self, entries: Mapping[str, bytes], life: int) -> None:
        """Store, whatever was there."""
        with self._lock:
            for key, raw in entries.items():
                self._keep(key, raw, life)

    def swap(self, key: str, expected: bytes | None, raw: bytes | None, life: int) -> bool:
        """Store or delete only if what is there still begins as expected; ``None`` expects nothing there."""
        with self._lock:
            current = self._live(key)
            if (current is None) is not (expected is None):
                return False
            if current is not None and expected is not None and current[: len(expected)] != expected:
                return False
            if raw is None:
                self._entries.pop(key, None)
            else:
                self._keep(key, raw, life)
            return True

    def exchange(self, key: str, raw: bytes, life: int) -> bytes | None:
        """Store, and return what was there."""
        with self._lock:
            before = self._live(key)
            self._keep(key, raw, life)
            return before

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()
