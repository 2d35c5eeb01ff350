"""The stamps of tags and of the namespace, as the store holds them: read, made where they are absent, and changed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from resilient.cache._async.engine.tier import UNREACHABLE, AsyncTier
from resilient.cache._causal import merged, note
from resilient.cache._entry import Entry, is_fence, noted_in
from resilient.cache._seen import Fence, milliseconds
from resilient.cache._stamps import (
    LIFE,
    Stamps,
    extended,
    is_unsure,
    life_for,
    namespace_key,
    number,
    planted,
    recent_note,
    tag_key,
    tags_of,
    unknown,
)
from resilient.cache._values import Swap
from resilient.clock import Clock
from resilient.errors import DeadlineExceeded

__all__ = ["AsyncStampBook"]

_REMEMBERED = 1000  # stamps
_WHILE = 60.0  # seconds
_NEVER = (float("-inf"), 0.0)


class AsyncStampBook:
    """The stamps of one cache.

    Args:
        name: The cache's namespace.
        tier: The guarded store.
        lease: Seconds that a fence and a short stamp last.
        clock: Where time is read.
    """

    def __init__(self, name: str, tier: AsyncTier, *, lease: float, clock: Clock) -> None:
        self.namespace = namespace_key(name)
        self._name = name
        self._tier = tier
        self._lease = lease
        self._clock = clock
        self._lasting: dict[bytes, tuple[float, float]] = {}
        """Stamps that need no longer life, since when, and for entries that live how long."""
        self.namespaced = Stamps((), (None,))
        """The namespace's, as it was last found."""

    def stood(self, tags: tuple[str, ...], raws: Sequence[bytes | None]) -> Stamps:
        """The stamps that these bytes are, in the order of `keys`; that of the namespace alone is remembered."""
        if tags:
            return Stamps(tags, tuple(raws))
        known = self.namespaced
        if known.raws[0] != raws[0]:
            known = self.namespaced = Stamps((), (raws[0],))
        return known

    def keys(self, tags: Iterable[str]) -> tuple[str, ...]:
        """Where the stamps stand: the namespace's first."""
        return (self.namespace, *[tag_key(self._name, tag) for tag in tags]) if tags else (self.namespace,)

    async def read(self, tags: tuple[str, ...]) -> Stamps:
        """The stamps as they stand."""
        found = await self._tier.run(self._tier.store.get_many, self.keys(tags))
        return unknown(tags) if found is UNREACHABLE else self.stood(tags, found)

    async def read_more(self, tags: tuple[str, ...]) -> Any:
        """The bytes under the keys of further tags, by tag, or `UNREACHABLE`."""
        found = await self._tier.read([tag_key(self._name, tag) for tag in tags])
        return UNREACHABLE if found is UNREACHABLE else dict(zip(tags, found, strict=True))

    # ---------------------------------------------------------------------------------------- for what is to be stored

    async def taken(self, tags: Iterable[str], keep: float = 0.0) -> Stamps:
        """The stamps that what is written from now on is to bear; made where they are absent.

        Args:
            tags: The tags.
            keep: Seconds for which it will be kept.
        """
        return await self.ensured(await self.read(tuple(dict.fromkeys(tags))), keep)

    async def ensured(self, stamps: Stamps, keep: float = 0.0) -> Stamps:
        """The stamps that were read, with new ones where there were none; old ones get a longer life.

        Where a fence stands it stays, so that the result is not whole.
        """
        if not stamps.raws:
            return stamps
        now = self._clock.wall()
        if self.outlive(stamps, now, keep):
            return stamps
        places: dict[int, bytes] = {}
        refused = False
        for at, (key, raw) in enumerate(zip(self.keys(stamps.names), stamps.raws, strict=True)):
            if number(raw) or is_fence(raw):
                new = extended(raw, now, keep)
                if new is None:
                    self._note(raw or b"", now, keep)
                    continue
            else:
                new = planted(now, life_for(keep))  # nothing is there, or no bytes of ours
            done = await self._tier.run(self._tier.store.swap, key, raw, new, milliseconds(life_for(keep)))
            if done is UNREACHABLE:
                return unknown(stamps.names)
            if done:
                places[at] = new
            refused = refused or not done
        if refused:  # somebody else was quicker
            return await self.read(stamps.names)
        return stamps.changed(places) if places else stamps

    def outlive(self, stamps: Stamps, now: float, keep: float) -> bool:
        """Whether these are all there, and were found a while ago to outlive entries that are kept for so long."""
        for raw in stamps.raws:
            since, longest = self._lasting.get(raw, _NEVER)  # type: ignore[arg-type]  # None is not among them
            if not 0.0 <= now - since < _WHILE or keep > longest:
                return False
        return bool(stamps.raws)

    def _note(self, raw: bytes, now: float, keep: float) -> None:
        """This stamp needs no longer life."""
        if len(self._lasting) >= _REMEMBERED:
            self._lasting.clear()
        self._lasting[raw] = now, keep

    async def onto(self, entry: Entry) -> Entry:
        """An entry with the stamps of this moment."""
        return (await self.taken(tags_of(entry), entry.keep)).on(entry)

    async def onto_many(self, entries: Mapping[str, Entry]) -> dict[str, Entry]:
        """The same for several, in one round trip."""
        tags = [tag for entry in entries.values() for tag in tags_of(entry)]
        stamps = await self.taken(tags, max((entry.keep for entry in entries.values()), default=0.0))
        return {key: stamps.on(entry) for key, entry in entries.items()}

    # --------------------------------------------------------------------------------------------------------- changes

    async def change(self, keys: Sequence[str]) -> None:
        """Put new stamps: nothing that bears the old ones is served any more.

        While the store is away the keys are remembered, as those of values are.
        """
        try:
            await self._tier.change(list(keys), self._change, keys)
        except DeadlineExceeded:
            return  # remembered

    async def _change(self, keys: Sequence[str]) -> None:
        """Put new stamps, short ones where another writer may be at work, with what was noted in those before.

        Whoever else comes between two of these steps is heeded in the next.
        """
        now = self._clock.wall()
        mine = note(now)
        left = {LIFE: {key: planted(now, LIFE, mine) for key in keys}}
        own: dict[str, bytes] = {}
        while left:
            again: dict[float, dict[str, bytes]] = {}
            for life, stamps in left.items():
                before = await self._tier.store.exchange_many(stamps, milliseconds(life))
                for (key, stamp), was in zip(stamps.items(), before, strict=True):
                    whole = merged(recent_note(was, now), noted_in(stamp))
                    lasts = self._lease if is_unsure(was) else life
                    if was != own.get(key) and (lasts != life or whole != noted_in(stamp)):
                        again.setdefault(lasts, {})[key] = planted(now, lasts, whole)
            own = {key: stamp for stamps in left.values() for key, stamp in stamps.items()}
            left = again

    async def finish(self, fences: Iterable[Fence]) -> dict[str, bytes]:
        """After a COMMIT before which these were fenced: new stamps in the place of the fences.

        Returns:
            Those stamps, by key, that nobody else has changed since the fences were put: what this writer stores may
            bear them.
        """
        now = self._clock.wall()
        lost: list[str] = []
        new: dict[str, bytes] = {}
        short: dict[str, bytes] = {}
        swaps: list[Swap] = []
        for key, mark, before in fences:
            if before is UNREACHABLE:
                lost.append(key)
                continue
            whole = merged(recent_note(before, now), note(now))
            short[key] = planted(now, self._lease, whole)  # another writer may still be at work: if it dies, time tells
            if not is_unsure(before):
                new[key] = planted(now, LIFE, whole)
                swaps.append((key, mark, new[key], milliseconds(LIFE)))
        if lost:
            await self.change(lost)
        done = await self._swap_many(swaps)
        own = {key: raw for (key, raw), did in zip(new.items(), done, strict=True) if did}
        await self._put_many({key: raw for key, raw in short.items() if key not in own})
        return own

    async def cancel(self, fences: Iterable[Fence]) -> None:
        """Nothing was written: put back what was there, unless another writer was there too."""
        now = self._clock.wall()
        swaps: list[Swap] = []
        for key, mark, before in fences:
            if before is UNREACHABLE:
                self._tier.remember([key])
            elif is_unsure(before):
                short = planted(now, self._lease, recent_note(before, now))
                swaps.append((key, mark, short, milliseconds(self._lease)))
            else:
                swaps.append((key, mark, before, milliseconds(LIFE)))
        await self._swap_many(swaps)

    async def _swap_many(self, swaps: list[Swap]) -> Sequence[bool]:
        """Which of these were made; all in one round trip."""
        if swaps:
            try:
                done = await self._tier.change([swap[0] for swap in swaps], self._tier.store.swap_many, swaps)
            except DeadlineExceeded:
                done = UNREACHABLE  # remembered
            if done is not UNREACHABLE:
                found: list[bool] = done
                return found
        return [False] * len(swaps)

    async def _put_many(self, stamps: dict[str, bytes]) -> None:
        """Put stamps that live for one lease."""
        if stamps:
            with contextlib.suppress(DeadlineExceeded):  # remembered
                await self._tier.change(list(stamps), self._tier.store.exchange_many, stamps, milliseconds(self._lease))
