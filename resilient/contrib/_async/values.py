"""The operations that libraries of caching agree on, over a cache of ours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from resilient.cache import AsyncCache
from resilient.cache.rooms import AsyncLoader
from resilient.contrib._faces import MISSING, seconds_of, their_errors

__all__ = ["AsyncValues"]


class AsyncValues:
    """Values by keys, with lives that may have no end, and answers that tell what was there.

    Args:
        cache: The cache that keeps them. While its server is away there is nothing in it.

    Examples:
        >>> import asyncio
        >>> values = AsyncValues(AsyncCache(namespace="shop"))
        >>> asyncio.run(values.set("greeting", "hello", None))
        >>> asyncio.run(values.get("greeting"))
        'hello'
        >>> asyncio.run(values.delete("greeting"))
        True
        >>> asyncio.run(values.delete("greeting"))
        False
    """

    __slots__ = ("cache",)

    def __init__(self, cache: AsyncCache) -> None:
        self.cache = cache

    async def get(self, key: str, default: Any = MISSING) -> Any:
        """The value of a key."""
        return await self.cache.get(key, default)

    async def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """The values of those keys that have one."""
        return await self.cache.get_many(keys)

    async def has(self, key: str) -> bool:
        """Whether there is a value."""
        return await self.cache.lookup(key) is not None

    async def set(self, key: str, value: Any, life: float | None) -> None:
        """Store a value for so many seconds; ``None`` is without end, and with 0 or less it is forgotten."""
        ttl = seconds_of(life)
        if not ttl:
            await self.cache.invalidate(key)
            return
        with their_errors():
            await self.cache.set(key, value, ttl)

    async def set_many(self, values: Mapping[str, Any], life: float | None) -> None:
        """Store several values, in one round trip."""
        ttl = seconds_of(life)
        if not ttl:
            await self.cache.invalidate(*values)
            return
        with their_errors():
            await self.cache.set_many(values, ttl)

    async def add(self, key: str, value: Any, life: float | None) -> bool:
        """Store a value where none is. Whether none was; false while the server is away."""
        ttl = seconds_of(life)
        if not ttl:
            return not await self.has(key)
        with their_errors():
            return await self.cache.add(key, value, ttl)

    async def get_or_set(self, key: str, load: AsyncLoader[[], Any], life: float | None) -> Any:
        """The value of a key; where there is none, what the function returns, which is stored. One of many loads."""
        ttl = seconds_of(life)
        if not ttl:
            found = await self.get(key)
            return await load() if found is MISSING else found
        return await self.cache.get_or_load(key, load, ttl)

    async def touch(self, key: str, life: float | None) -> bool:
        """Let a value live for so many seconds from now on. Whether there was one."""
        ttl = seconds_of(life)
        return await self.cache.touch(key, ttl) if ttl else await self.delete(key)

    async def incr(self, key: str, delta: int, life: float | None) -> int | None:
        """Add to a number, which keeps its end; where there is none it begins at 0, and lives for so many seconds.

        ``None`` while the server is away.
        """
        return await self.cache.incr(key, delta, seconds_of(life) or 1.0)

    async def delete(self, key: str) -> bool:
        """Forget a value. Whether there was one: of two who ask at the same time both may be told so."""
        there = await self.has(key)
        await self.cache.invalidate(key)
        return there

    async def delete_many(self, keys: Iterable[str]) -> None:
        """Forget several values, in one round trip."""
        await self.cache.invalidate(*keys)

    async def clear(self) -> None:
        """Forget all values of the cache's namespace."""
        await self.cache.clear()
