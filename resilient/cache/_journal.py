"""The keys whose value changed while the shared tier could not be told. They are deleted there before it is trusted."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from resilient.runtime import after_fork, fork_safe_lock

__all__ = ["Journal"]


class Journal:
    """A bounded set of keys to delete, with one replay at a time.

    Args:
        size: How many keys at most.
        everything: The key that stands for all of them: it takes their place when one more comes. Since nothing is
            trusted before it is told, no entry of this process's is either.

    Examples:
        >>> journal = Journal(10, "all")
        >>> journal.add("a")
        >>> journal.begin()
        ['a']
        >>> journal.begin() is None    # somebody replays already
        True
        >>> journal.done(["a"]); bool(journal)
        False
    """

    def __init__(self, size: int, everything: str) -> None:
        self._size = size
        self._everything = everything
        self.keys: dict[str, int] = {}
        """Those that are still to be deleted, with the turn in which each was added: for who asks at each read."""
        self._turn = 0
        self._lock = fork_safe_lock()
        self.reset()
        after_fork(self.reset)

    def reset(self) -> None:
        """Forget who replays: for a forked child. The keys stay, since their change is still to be told."""
        self._batch: list[str] | None = None
        self._taken: dict[str, int] = {}

    def __bool__(self) -> bool:
        return bool(self.keys)

    def __len__(self) -> int:
        return len(self.keys)

    def add(self, key: str) -> None:
        """Remember a key whose value changed."""
        with self._lock:
            self._turn += 1
            self.keys[key] = self._turn
            if len(self.keys) > self._size:
                self.keys = {self._everything: self._turn}  # at no moment empty, for who asks without the lock

    def begin(self, most: int = 500) -> list[str] | None:
        """Some of the keys to delete, or ``None`` where somebody replays already."""
        with self._lock:
            if self._batch is not None:
                return None
            self._taken = dict(islice(self.keys.items(), most))
            self._batch = list(self._taken)
            return self._batch

    def release(self, batch: list[str]) -> None:
        """End the replay of what `begin` gave, if `done` has not: nothing of it was deleted."""
        with self._lock:
            if self._batch is batch:
                self._batch = None

    def done(self, keys: Iterable[str]) -> None:
        """End the replay. ``keys`` were deleted; one that was added again meanwhile stays."""
        with self._lock:
            self._batch = None
            for key in keys:
                if self.keys.get(key) == self._taken.get(key):
                    self.keys.pop(key, None)
