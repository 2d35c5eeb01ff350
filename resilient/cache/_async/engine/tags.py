"""Forgetting by tag, and everything: new stamps, however many entries bear the old ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from resilient.cache._async.engine.reads import AsyncReader
from resilient.cache._keys import tag_name
from resilient.cache._seen import Fence
from resilient.cache._stamps import Stamps

__all__ = ["AsyncTags"]


class AsyncTags:
    """Changing the stamps of tags, and of the namespace.

    Args:
        reader: What is read, and how.
    """

    def __init__(self, reader: AsyncReader) -> None:
        self._tier, self._stampbook, self._flights = reader.tier, reader.stampbook, reader.flights

    async def invalidate(self, tags: Iterable[str]) -> None:
        """Make sure that nothing that bears a tag and was loaded before this moment is served after it."""
        names = tuple(dict.fromkeys(map(tag_name, tags)))
        if names:
            keys = self._stampbook.keys(names)[1:]
            self._flights.overtake_tags(names)
            await self._stampbook.change(keys)

    async def clear(self) -> None:
        """The same for all entries of the namespace."""
        self._flights.overtake_all()
        await self._stampbook.change([self._stampbook.namespace])

    async def fence(self, tags: Iterable[str], *, everything: bool = False) -> list[Fence]:
        """Before a COMMIT: nothing that bears these tags is served or stored until `finish`, or for one lease.

        Args:
            tags: The tags.
            everything: The namespace too.

        Raises:
            DeadlineExceeded: There is no time left; what was fenced until then stands for one lease.
        """
        names = tuple(dict.fromkeys(map(tag_name, tags)))
        self._overtake(names, everything=everything)
        return await self._tier.fence(self._stampbook.keys(names)[0 if everything else 1 :])

    async def finish(
        self, fences: Sequence[Fence], tags: Iterable[str], stamps: Stamps, *, everything: bool = False
    ) -> Stamps:
        """After it: new stamps.

        Args:
            fences: What `fence` gave.
            tags: The tags that change: those that were fenced, and others.
            stamps: The stamps that the writer's own values are to bear, as they stood before the fences.
            everything: The namespace changes too.

        Returns:
            Those stamps as they are now, where nobody but this writer has changed them.
        """
        names = tuple(dict.fromkeys(map(tag_name, tags)))
        self._overtake(names, everything=everything)
        own = await self._stampbook.finish(fences)
        fenced = {fence.key for fence in fences}
        bare = [key for key in self._stampbook.keys(names)[0 if everything else 1 :] if key not in fenced]
        if bare:
            await self._stampbook.change(bare)
        keys = self._stampbook.keys(stamps.names)
        return stamps.changed({at: own[key] for at, key in enumerate(keys) if key in own})

    async def cancel(self, fences: Iterable[Fence]) -> None:
        """Nothing was written: put back what was there."""
        await self._stampbook.cancel(fences)

    def _overtake(self, names: Sequence[str], *, everything: bool) -> None:
        if everything:
            self._flights.overtake_all()
        elif names:
            self._flights.overtake_tags(names)
