"""What a transaction is to change in the cache once it commits: collected, layer by layer, one for each savepoint.

The pure part of `on_commit`: no clock, no I/O.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from resilient.cache._entry import Entry
from resilient.cache._stamps import tags_of

__all__ = ["Changes", "Pending"]


@dataclass(slots=True)
class Changes:
    """Changes of the cache, the last one of each key.

    Args:
        keys: Key of the store to its new entry, or to ``None`` where the key is to be forgotten.
        present: Those of them whose entry counts only where the key was cached before.
        tags: Tags to forget.
        everything: Whether all is to be forgotten.
    """

    keys: dict[str, Entry | None] = field(default_factory=dict)
    present: set[str] = field(default_factory=set)
    tags: dict[str, None] = field(default_factory=dict)
    everything: bool = False

    def __bool__(self) -> bool:
        return bool(self.keys or self.tags or self.everything)

    def put(self, key: str, entry: Entry | None, *, present: bool = False) -> None:
        """A key's new entry, or that it is to be forgotten."""
        self.keys[key] = entry
        self.present.discard(key)
        if present:
            self.present.add(key)

    def entries(self) -> dict[str, Entry]:
        """The keys that get a new entry."""
        return {key: entry for key, entry in self.keys.items() if entry is not None}

    def borne(self) -> tuple[str, ...]:
        """The tags of the new entries."""
        return tuple(dict.fromkeys(tag for entry in self.entries().values() for tag in tags_of(entry)))

    def update(self, other: Changes) -> None:
        """What came later, over this."""
        for key, entry in other.keys.items():
            self.put(key, entry, present=key in other.present)
        self.tags |= other.tags
        self.everything = self.everything or other.everything

    def only_forget(self) -> None:
        """Take back all new entries: their keys are to be forgotten instead."""
        self.keys = dict.fromkeys(self.keys)
        self.present.clear()


class Pending:
    """The changes collected so far, and in which savepoint.

    Examples:
        >>> pending = Pending()
        >>> pending.top.put("kept", None)
        >>> pending.begin("savepoint")
        >>> pending.top.put("dropped", None)
        >>> pending.end("savepoint", kept=False)
        >>> list(pending.take().keys)
        ['kept']
    """

    def __init__(self) -> None:
        self._layers: list[tuple[object, Changes]] = [(None, Changes())]

    @property
    def top(self) -> Changes:
        """Where what is collected now belongs."""
        return self._layers[-1][1]

    def begin(self, savepoint: object) -> None:
        """A savepoint begins."""
        self._layers.append((savepoint, Changes()))

    def end(self, savepoint: object, *, kept: bool) -> None:
        """A savepoint ends, and all within it: its changes go on with those around it, or are dropped."""
        places = [at for at, (mark, _) in enumerate(self._layers) if mark is savepoint]
        if not places:
            return
        ended = self._layers[places[0] :]
        del self._layers[places[0] :]
        if kept:
            for _, changes in ended:
                self.top.update(changes)

    def find(self, key: str) -> tuple[bool, Entry | None]:
        """Whether a key is among the changes, and its new entry."""
        for _, changes in reversed(self._layers):
            if key in changes.keys:
                return True, changes.keys[key]
        return False, None

    def forgets(self, tags: Collection[str]) -> bool:
        """Whether one of these tags is among those to forget, or everything is."""
        return any(changes.everything or not changes.tags.keys().isdisjoint(tags) for _, changes in self._layers)

    def whole(self) -> Changes:
        """All changes as one."""
        all_of_them = Changes()
        for _, changes in self._layers:
            all_of_them.update(changes)
        return all_of_them

    def only_forget(self) -> None:
        """Take back all new entries: their keys are to be forgotten instead."""
        for _, changes in self._layers:
            changes.only_forget()

    def take(self) -> Changes:
        """All changes as one, which are then no longer pending; the savepoints stay open."""
        all_of_them = self.whole()
        self._layers = [(mark, Changes()) for mark, _ in self._layers]
        return all_of_them

    def __bool__(self) -> bool:
        return any(changes for _, changes in self._layers)
