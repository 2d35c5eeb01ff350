# Generated from resilient/cache/_async/stamps.py by tools/unasync.py: do not edit.
"""The stamps of tags and of the namespace, as the store holds them: read, made where they are absent, and changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from resilient.cache._causal import merged, note
from resilient.cache._entry import FENCE, Entry, is_fence, marker
from resilient.cache._seen import milliseconds
from resilient.cache._stamps import (
    LIFE,
    Marks,
    extended,
    is_unsure,
    life_for,
    namespace_key,
    note_in,
    number,
    planted,
    tag_key,
    tags_of,
)
from resilient.cache._sync.tier import UNREACHABLE, Tier
from resilient.clock import Clock
from resilient.errors import DeadlineExceeded

__all__ = ["Stamps", "TagFence"]

_REMEMBERED = 1000  # stamps
_WHILE = 60.0  # seconds


class TagFence(NamedTuple):
    """A stamp that a writer has fenced: its key, the fence, and what was there before."""

    key: str
    mark: bytes
    before: Any  # bytes, None for absence, or UNREACHABLE


class Stamps:
    """The stamps of one cache.

    Args:
        name: The cache's namespace.
        tier: The guarded store.
        lease: Seconds that a fence and a short stamp last.
        clock: Where time is read.
    """

    def __init__(self, name: str, tier: Tier, *, lease: float, clock: Clock) -> None:
        self.namespace = namespace_key(name)
        self._name = name
        self._tier = tier
        self._lease = lease
        self._clock = clock
        self._lasting: dict[bytes, tuple[float, float]] = {}
        """Stamps that need no longer life, since when, and for entries that live how long."""
        self._last: tuple[bytes | None, int] = (None, 0)

    def generation(self, raw: bytes | None) -> int:
        """The namespace's stamp that these bytes are, 0 where they are none; remembered, as it hardly ever changes."""
        known, stamp = self._last
        if raw != known:
            stamp = number(raw)
            self._last = (raw, stamp)
        return stamp

    def keys(self, tags: Iterable[str]) -> tuple[str, ...]:
        """Where the stamps stand: the namespace's first."""
        return (self.namespace, *[tag_key(self._name, tag) for tag in tags]) if tags else (self.namespace,)

    def read(self, tags: tuple[str, ...]) -> Marks:
        """The stamps as they stand."""
        found = self._tier.run(self._tier.store.get_many, self.keys(tags))
        return Marks(tags) if found is UNREACHABLE else Marks(tags, tuple(found))

    def read_more(self, tags: tuple[str, ...]) -> Any:
        """The bytes under the keys of further tags, by tag, or `UNREACHABLE`."""
        found = self._tier.run(self._tier.store.get_many, [tag_key(self._name, tag) for tag in tags])
        return UNREACHABLE if found is UNREACHABLE else dict(zip(tags, found, strict=True))

    # ---------------------------------------------------------------------------------------- for what is to be stored

    def taken(self, tags: Iterable[str], keep: float = 0.0) -> Marks:
        """The stamps that what is written from now on is to bear; made where they are absent.

        Args:
            tags: The tags.
            keep: Seconds for which it will be kept.
        """
        return self.settled(self.read(tuple(dict.fromkeys(tags))), keep)

    def settled(self, marks: Marks, keep: float = 0.0) -> Marks:
        """The stamps that were read, with new ones where there were none; old ones get a longer life.

        Where a fence stands it stays, so that the result is not whole.
        """
        if not marks.raws:
            return marks
        now = self._clock.wall()
        if all(self._lasts(raw, now, keep) for raw in marks.raws):
            return marks
        places: dict[int, bytes] = {}
        refused = False
        for at, (key, raw) in enumerate(zip(self.keys(marks.names), marks.raws, strict=True)):
            if number(raw) or is_fence(raw):
                new = extended(raw, now, keep)
                if new is None:
                    self._lasting[raw or b""] = now, keep
                    continue
            else:
                new = planted(now, life_for(keep))  # nothing is there, or no bytes of ours
            done = self._tier.run(self._tier.store.swap, key, raw, new, milliseconds(life_for(keep)))
            if done is UNREACHABLE:
                return Marks(marks.names)
            if done:
                places[at] = new
            refused = refused or not done
        if refused:  # somebody else was quicker
            return self.read(marks.names)
        return marks.changed(places) if places else marks

    def _lasts(self, raw: bytes | None, now: float, keep: float) -> bool:
        """Whether a stamp was found to need nothing a while ago, for entries that live as long."""
        if raw is None:
            return False
        since, longest = self._lasting.get(raw, (0.0, 0.0))
        if len(self._lasting) > _REMEMBERED:
            self._lasting.clear()
        return 0.0 <= now - since < _WHILE and keep <= longest

    def onto(self, entry: Entry) -> Entry:
        """An entry with the stamps of this moment."""
        return (self.taken(tags_of(entry), entry.keep)).on(entry)

    def onto_many(self, entries: Mapping[str, Entry]) -> dict[str, Entry]:
        """The same for several, in one round trip."""
        tags = [tag for entry in entries.values() for tag in tags_of(entry)]
        marks = self.taken(tags, max((entry.keep for entry in entries.values()), default=0.0))
        return {key: marks.on(entry) for key, entry in entries.items()}

    # --------------------------------------------------------------------------------------------------------- changes

    def change(self, keys: Sequence[str]) -> None:
        """Put new stamps: nothing that bears the old ones is served any more.

        While the store is away the keys are remembered, as those of values are.
        """
        try:
            self._tier.change(list(keys), self._change, keys)
        except DeadlineExceeded:
            return  # remembered

    def _change(self, keys: Sequence[str]) -> None:
        now = self._clock.wall()
        mine = note(now)
        before = self._tier.store.bury(keys, [planted(now, LIFE, mine) for _ in keys], milliseconds(LIFE))
        for key, was in zip(keys, before, strict=True):
            whole = merged(note_in(was, now), mine)
            if is_unsure(was):
                self._tier.store.put(key, planted(now, self._lease, whole), milliseconds(self._lease))
            elif whole != mine:
                self._tier.store.put(key, planted(now, LIFE, whole), milliseconds(LIFE))

    def fence(self, keys: Iterable[str]) -> list[TagFence]:
        """Before a COMMIT: nothing that bears these stamps is served or stored until `finish`, at most for one lease.

        Raises:
            DeadlineExceeded: There is no time left; what was fenced until then stands for one lease.
        """
        fences: list[TagFence] = []
        for key in keys:
            now = self._clock.wall()
            mark = marker(FENCE, now, self._lease, note(now))
            try:
                before = self._tier.run(self._tier.store.exchange, key, mark, milliseconds(self._lease))
            except DeadlineExceeded:
                self._tier.remember([key])  # it may have been told or not
                raise
            fences.append(TagFence(key, mark, before))
        return fences

    def finish(self, fences: Iterable[TagFence]) -> dict[str, bytes]:
        """After it: new stamps in the place of the fences.

        Returns:
            Those stamps, by key, that nobody else has changed since the fences were put: what this writer stores may
            bear them.
        """
        own: dict[str, bytes] = {}
        for key, mark, before in fences:
            if before is UNREACHABLE:
                self.change([key])
                continue
            now = self._clock.wall()
            whole = merged(note_in(before, now), note(now))
            new = planted(now, LIFE, whole)
            if not is_unsure(before) and self._swap(key, mark, new, LIFE):
                own[key] = new
            else:
                # Another writer was at work, and may still be: should it die, time tells.
                self._put(key, planted(now, self._lease, whole))
        return own

    def cancel(self, fences: Iterable[TagFence]) -> None:
        """Nothing was written: put back what was there, unless another writer was there too."""
        for key, mark, before in fences:
            if before is UNREACHABLE:
                self._tier.remember([key])
                continue
            now = self._clock.wall()
            if not is_unsure(before):
                if before is None:
                    self._swap(key, mark, None, 0.0)
                else:
                    self._swap(key, mark, before, LIFE)
            else:
                self._swap(key, mark, planted(now, self._lease, note_in(before, now)), self._lease)

    def _swap(self, key: str, mark: bytes, raw: bytes | None, life: float) -> bool:
        try:
            done = self._tier.change([key], self._tier.store.swap, key, mark, raw, milliseconds(life))
        except DeadlineExceeded:
            return False  # remembered
        return done is True

    def _put(self, key: str, raw: bytes) -> None:
        try:
            self._tier.change([key], self._tier.store.put, key, raw, milliseconds(self._lease))
        except DeadlineExceeded:
            return  # remembered
