"""What the face of a cache calls: the engine, or what collects changes inside a block of `on_commit`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from resilient.cache._codecs import Codec
from resilient.cache._entry import Entry
from resilient.cache._freshness import Policy
from resilient.cache._seen import Plan
from resilient.cache._values import AsyncLoader, Lookup

__all__ = ["AsyncBypass", "AsyncLoading", "AsyncWork"]


class AsyncLoading(Protocol):
    """What single values are loaded through."""

    async def load(self, key: str, load: AsyncLoader[[], Any], plan: Plan) -> Any:
        """A fresh value, or a loaded one."""
        ...


class AsyncBypass(AsyncLoading):
    """Does without the cache."""

    async def load(self, key: str, load: AsyncLoader[[], Any], plan: Plan) -> Any:  # noqa: ARG002 - as the engine's
        """A loaded value."""
        return await load()


class AsyncWork(AsyncLoading, Protocol):
    """The operations of a cache on keys as the store knows them."""

    # ----------------------------------------------------------------------------------------------------------- reads

    async def lookup(self, key: str, codec: Codec, tags: tuple[str, ...] = ()) -> Lookup[Any] | None:
        """A fresh value with its source and age, or ``None``."""
        ...

    async def get_many(self, keys: Sequence[str], codec: Codec, tags: tuple[str, ...] = ()) -> list[Any]:
        """The fresh values of some keys, at least one; `NOTHING` where there is none."""
        ...

    async def load_lookup(
        self, key: str, load: AsyncLoader[[], Any], plan: Plan, *, refresh: bool = False
    ) -> Lookup[Any]:
        """The same with where it came from."""
        ...

    async def load_many(
        self, keys: Sequence[str], load: AsyncLoader[[list[int]], Mapping[int, Any]], plan: Plan
    ) -> list[Any]:
        """The values of several keys, told to the loader by their places; `NOTHING` for what does not exist."""
        ...

    # --------------------------------------------------------------------------------------------------------- changes

    def entry(self, value: Any, plan: Plan, version: int | None = None) -> Entry:
        """The entry for a value that is new now."""
        ...

    async def put(self, key: str, entry: Entry) -> None:
        """Store, whatever was there."""
        ...

    async def put_many(self, entries: Mapping[str, Entry]) -> None:
        """Store several."""
        ...

    async def add(self, key: str, entry: Entry, codec: Codec) -> bool:
        """Store only where nothing is."""
        ...

    async def write(
        self, key: str, store: AsyncLoader[[], Any], plan: Plan, *, keeps: Callable[[Any], bool], present: bool
    ) -> Any:
        """Run what stores a value, then cache the value."""
        ...

    async def incr(self, key: str, by: int, plan: Plan) -> int | None:
        """Add to a number."""
        ...

    async def touch(self, key: str, policy: Policy) -> bool:
        """Give a value a new ttl from now on."""
        ...

    async def invalidate(self, keys: list[str]) -> None:
        """Forget the values of keys."""
        ...

    async def invalidate_tags(self, tags: Iterable[str]) -> None:
        """Forget all that bears one of these tags."""
        ...

    async def clear(self) -> None:
        """Forget everything."""
        ...
