"""The engine as it is seen inside a block of `on_commit`: changes are collected, and reads know of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from resilient import events
from resilient.cache._aside import apart, deferring_engines
from resilient.cache._async.engine.engine import AsyncEngine
from resilient.cache._async.engine.work import AsyncWork
from resilient.cache._async.host import AsyncHost
from resilient.cache._codecs import ANYTHING, Codec
from resilient.cache._entry import Entry
from resilient.cache._events import ValueRefused
from resilient.cache._freshness import Policy
from resilient.cache._keys import tag_name
from resilient.cache._pending import Changes
from resilient.cache._quick import NOTHING
from resilient.cache._seen import Plan
from resilient.cache._values import AsyncLoader, Lookup
from resilient.errors import InvalidInput

__all__ = ["AsyncAfter", "AsyncDeferred", "AsyncSink", "deferred", "deferring"]


def deferred(cache: object) -> AsyncDeferred | None:
    """The engine that collects what this task or thread changes in a cache; ``None`` outside any block."""
    found: AsyncDeferred | None = deferring_engines.get().get(id(cache))
    return found


@contextmanager
def deferring(cache: object, engine: AsyncDeferred) -> Iterator[None]:
    """Collect, in this block, what is changed in a cache; for this task or thread and those it starts."""
    reset, also = deferring_engines.set({**deferring_engines.get(), id(cache): engine}), apart.set(True)
    try:
        yield
    finally:
        apart.reset(also)
        deferring_engines.reset(reset)


class AsyncSink(Protocol):
    """Where changes go until their transaction has ended."""

    def wrote(self) -> bool:
        """Whether the transaction has written, so that what is read in it is not for others."""
        ...

    def find(self, key: str) -> tuple[bool, Entry | None]:
        """Whether a key is among the changes, and its new entry."""
        ...

    def forgets(self, tags: Collection[str]) -> bool:
        """Whether one of these tags is among what is to be forgotten, or everything is."""
        ...

    async def collect(self, changes: Changes) -> None:
        """Take changes."""
        ...


class AsyncDeferred(AsyncWork):
    """What the face of a cache calls inside a block instead of its engine.

    Whatever is not about values of the database (locks and counters by `add`, `incr` and `touch`) happens at once, on
    the engine itself.

    Args:
        name: The cache's namespace, for events.
        main: The engine.
        sink: Where changes go.
    """

    def __init__(self, name: str, main: Callable[[], AsyncEngine], sink: AsyncSink) -> None:
        self._name = name
        self._main = main
        self._sink = sink

    # ------------------------------------------------------------------------------------------------------- changes

    async def put(self, key: str, entry: Entry) -> None:
        """Store it after the commit."""
        changes = Changes()
        changes.put(key, entry)
        await self._sink.collect(changes)

    async def put_many(self, entries: Mapping[str, Entry]) -> None:
        """Store them after the commit."""
        await self._sink.collect(Changes(dict(entries)))

    async def invalidate(self, keys: list[str]) -> None:
        """Forget them after the commit."""
        await self._sink.collect(Changes(dict.fromkeys(keys)))

    async def invalidate_tags(self, tags: Iterable[str]) -> None:
        """Forget all that bears them after the commit."""
        await self._sink.collect(Changes(tags=dict.fromkeys(map(tag_name, tags))))

    async def clear(self) -> None:
        """Forget everything after the commit."""
        await self._sink.collect(Changes(everything=True))

    async def write(
        self, key: str, store: AsyncLoader[[], Any], plan: Plan, *, keeps: Callable[[Any], bool], present: bool
    ) -> Any:
        """Run the function now; cache what it returned after the commit."""
        changes = Changes()
        changes.put(key, None)
        try:
            result = await store()
        except BaseException:
            await self._sink.collect(changes)  # it may have written before it failed, and be committed all the same
            raise
        try:
            if keeps(result):
                changes.put(key, self._main().entry(result, plan), present=present)
        except InvalidInput as error:  # what it has written stands: an error now would say that it does not
            events.emit(ValueRefused(cache=self._name, advice=str(error)))
        await self._sink.collect(changes)
        return result

    # ------------------------------------------------------------------------------------------- what happens at once

    def entry(self, value: Any, plan: Plan, version: int | None = None) -> Entry:
        """The entry for a value that is new now."""
        return self._main().entry(value, plan, version)

    async def add(self, key: str, entry: Entry, codec: Codec) -> bool:
        """Store only where nothing is."""
        return await self._main().add(key, entry, codec)

    async def incr(self, key: str, by: int, plan: Plan) -> int | None:
        """Add to a number."""
        return await self._main().incr(key, by, plan)

    async def touch(self, key: str, policy: Policy) -> bool:
        """Give a value a new ttl from now on."""
        return await self._main().touch(key, policy)

    # --------------------------------------------------------------------------------------------------------- reads

    async def lookup(self, key: str, codec: Codec, tags: tuple[str, ...] = ()) -> Lookup[Any] | None:
        """What this transaction is to store, or what is stored."""
        among, entry = self._sink.find(key)
        if not among:
            return await self._main().lookup(key, codec, tags, forgets=self._sink.forgets)
        return None if entry is None else self._lookup(entry, codec)

    async def get_many(self, keys: Sequence[str], codec: Codec, tags: tuple[str, ...] = ()) -> list[Any]:
        """The values of several keys; `NOTHING` where there is none."""
        ours = {key: entry for key in keys for among, entry in [self._sink.find(key)] if among}
        others = [key for key in keys if key not in ours]
        there = await self._main().get_many(others, codec, tags, forgets=self._sink.forgets) if others else []
        found = dict(zip(others, there, strict=True))
        for key, entry in ours.items():
            found[key] = self._value(entry, codec)
        return [found[key] for key in keys]

    async def load_lookup(
        self, key: str, load: AsyncLoader[[], Any], plan: Plan, *, refresh: bool = False
    ) -> Lookup[Any]:
        """A value for this transaction alone, once it has written: what it loads then is not committed yet."""
        among, entry = self._sink.find(key)
        if among and entry is not None and not refresh:
            return self._lookup(entry, plan.codec)
        if not among and not self._sink.wrote() and not self._sink.forgets(plan.tags):
            return await self._main().load_lookup(key, load, plan, refresh=refresh)
        if not among and not refresh and not self._sink.forgets(plan.tags):
            found = await self._main().lookup(key, plan.codec, plan.tags, forgets=self._sink.forgets)
            if found is not None:
                return found
        return Lookup(await load(), "loader", 0.0)

    async def load(self, key: str, load: AsyncLoader[[], Any], plan: Plan) -> Any:
        """The same, without where it came from."""
        return (await self.load_lookup(key, load, plan)).value

    async def load_many(
        self, keys: Sequence[str], load: AsyncLoader[[list[int]], Mapping[int, Any]], plan: Plan
    ) -> list[Any]:
        """The values of several keys, told to the loader by their places; `NOTHING` for what does not exist."""
        forgets = self._sink.forgets(plan.tags)
        if not self._sink.wrote() and not forgets and not any(self._sink.find(key)[0] for key in keys):
            return await self._main().load_many(keys, load, plan)
        if forgets:
            found = [self._value(self._sink.find(key)[1], plan.codec) for key in keys]
        else:
            found = await self.get_many(list(keys), plan.codec, plan.tags)
        missing = [place for place, each in enumerate(found) if each is NOTHING]
        for place, value in (await load(missing) if missing else {}).items():
            found[place] = value
        return found

    @staticmethod
    def _value(entry: Entry | None, codec: Codec) -> Any:
        return NOTHING if entry is None else codec.decode(entry.codec, entry.schema, entry.body)

    def _lookup(self, entry: Entry, codec: Codec) -> Lookup[Any]:
        return Lookup(codec.decode(entry.codec, entry.schema, entry.body), "local", 0.0)


class AsyncAfter:
    """The changes that belong to a transaction: its methods are those of the cache, and take effect after the commit.

    They go on working after the block, until the transaction ends.

    Args:
        cache: The cache.
        sink: Where changes go.
    """

    def __init__(self, cache: AsyncHost, sink: AsyncSink) -> None:
        self._cache = cache
        self._engine = AsyncDeferred(cache.namespace, lambda: cache.main, sink)

    async def set(
        self,
        key: str,
        value: Any,
        ttl: float | None = None,
        *,
        type: Any = ANYTHING,  # noqa: A002 - as msgspec says it
        tags: Iterable[str] = (),
        version: int | None = None,
    ) -> None:
        """As `AsyncCache.set`, after the commit."""
        with deferring(self._cache, self._engine):
            await self._cache.set(key, value, ttl, type=type, tags=tags, version=version)

    async def set_many(
        self,
        values: Mapping[str, Any],
        ttl: float | None = None,
        *,
        type: Any = ANYTHING,  # noqa: A002 - same
        tags: Iterable[str] = (),
    ) -> None:
        """As `AsyncCache.set_many`, after the commit."""
        with deferring(self._cache, self._engine):
            await self._cache.set_many(values, ttl, type=type, tags=tags)

    async def delete(self, *keys: str) -> None:
        """As `AsyncCache.delete`, after the commit."""
        await self.invalidate(*keys)

    async def invalidate(self, *keys: str) -> None:
        """As `AsyncCache.invalidate`, after the commit."""
        with deferring(self._cache, self._engine):
            await self._cache.invalidate(*keys)

    async def invalidate_tags(self, *tags: str) -> None:
        """As `AsyncCache.invalidate_tags`, after the commit."""
        with deferring(self._cache, self._engine):
            await self._cache.invalidate_tags(*tags)

    async def clear(self) -> None:
        """As `AsyncCache.clear`, after the commit."""
        with deferring(self._cache, self._engine):
            await self._cache.clear()
