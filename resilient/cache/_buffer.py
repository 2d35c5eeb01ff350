"""Values that wait to be stored: bounded, the last one of each key, the oldest first. No clock, no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, NamedTuple

from resilient.cache._entry import Entry
from resilient.errors import Overloaded
from resilient.runtime import PerLoop, fork_safe_lock

__all__ = ["AsyncTurn", "Buffer", "Item", "Turn"]


class Item(NamedTuple):
    """A value that waits.

    Args:
        value: The value.
        entry: Its entry, as it is cached once it is stored.
        tries: How often storing it has failed.
    """

    value: Any
    entry: Entry
    tries: int = 0


class Buffer:
    """The last value of each key, until it is stored. Threads may share it.

    Args:
        name: The cache's namespace, for errors.
        size: How many keys at most.

    Examples:
        >>> buffer = Buffer("shop", 10)
        >>> entry = Entry(b"", 0, 0, 0, 1, 0.0, 1.0, 1.0, 0.0)
        >>> for value in ("first", "second"):
        ...     buffer.put("k", Item(value, entry))
        >>> batch = buffer.take(100)
        >>> [item.value for item in batch.values()], len(buffer)
        (['second'], 1)
        >>> buffer.done(batch)
        >>> len(buffer)
        0
    """

    def __init__(self, name: str, size: int) -> None:
        self._name = name
        self._size = size
        self._lock = fork_safe_lock()
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._waiting: dict[str, Item] = {}
        self._taken: dict[str, Item] = {}

    def __len__(self) -> int:
        """How many keys have a value that is not stored yet."""
        return len(self._waiting) + sum(key not in self._waiting for key in tuple(self._taken))

    @property
    def waiting(self) -> int:
        """How many keys have a value that nobody is storing at this moment."""
        return len(self._waiting)

    def put(self, key: str, item: Item) -> None:
        """Take a value.

        Raises:
            Overloaded: So many keys wait already, and this is none of them.
        """
        with self._lock:
            if key not in self._waiting and len(self) >= self._size:
                raise Overloaded(
                    f"{self._size} values of the cache {self._name!r} wait to be stored: this one was not taken",
                    advice="come back later, or store it at once; the source is slow or away, or size= is small",
                )
            self._waiting[key] = item

    def take(self, most: int) -> dict[str, Item]:
        """The oldest, to be stored. One batch at a time."""
        with self._lock:
            self._taken = dict(islice(self._waiting.items(), most))
            for key in self._taken:
                del self._waiting[key]
            return dict(self._taken)

    def storing(self, key: str) -> bool:
        """Whether a value of this key is being stored at this moment."""
        return key in self._taken

    def abandon(self) -> list[str]:
        """Forget everything. The keys of which something was not stored yet."""
        with self._lock:
            keys = list(self._taken.keys() | self._waiting.keys())
            self.clear()
        return sorted(keys)

    def newer(self, key: str) -> Item | None:
        """The value that came for a key after it was taken."""
        return self._waiting.get(key)

    def done(self, keys: Iterable[str]) -> None:
        """These were stored, or given up."""
        with self._lock:
            for key in keys:
                self._taken.pop(key, None)

    def back(self, items: Mapping[str, Item]) -> None:
        """These could not be stored: they wait again, before the others, where nothing newer has come."""
        with self._lock:
            self._waiting = {**{key: item for key, item in items.items() if key not in self._waiting}, **self._waiting}
            for key in items:
                self._taken.pop(key, None)


class Turn:
    """One at a time, among threads."""

    def __init__(self) -> None:
        self._lock = fork_safe_lock()

    def take(self, seconds: float) -> bool:
        """Wait for one's turn so long at most. Whether it came."""
        return self._lock.acquire(timeout=seconds)

    def give(self) -> None:
        """Let the next one."""
        self._lock.release()


class AsyncTurn:
    """One at a time, among the tasks of a loop."""

    def __init__(self) -> None:
        import asyncio  # who never awaits does without it

        self._locks = PerLoop(asyncio.Lock)

    async def take(self, seconds: float) -> bool:
        """Wait for one's turn so long at most. Whether it came."""
        import asyncio  # who never awaits does without it

        try:
            async with asyncio.timeout(seconds):
                return await self._locks.get().acquire()
        except TimeoutError:
            return False

    def give(self) -> None:
        """Let the next one."""
        self._locks.get().release()
