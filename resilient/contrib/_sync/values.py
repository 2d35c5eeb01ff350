# Generated from resilient/contrib/_async/values.py by tools/unasync.py: do not edit.
"""The operations that libraries of caching agree on, over a cache of ours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from resilient.cache import Cache
from resilient.cache.rooms import Loader
from resilient.contrib._faces import MISSING, seconds_of, their_errors

__all__ = ["Values"]


class Values:
    """Values by keys, with lives that may have no end, and answers that tell what was there.

    Args:
        cache: The cache that keeps them. While its server is away there is nothing in it.

    Examples:
        >>> import asyncio
        >>> values = Values(Cache(namespace="shop"))
        >>> values.set("greeting", "hello", None)
        >>> values.get("greeting")
        'hello'
        >>> values.delete("greeting")
        True
        >>> values.delete("greeting")
        False
    """

    __slots__ = ("cache",)

    def __init__(self, cache: Cache) -> None:
        self.cache = cache

    def get(self, key: str, default: Any = MISSING) -> Any:
        """The value of a key."""
        return self.cache.get(key, default)

    def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """The values of those keys that have one."""
        return self.cache.get_many(keys)

    def has(self, key: str) -> bool:
        """Whether there is a value."""
        return self.cache.lookup(key) is not None

    def set(self, key: str, value: Any, life: float | None) -> None:
        """Store a value for so many seconds; ``None`` is without end, and with 0 or less it is forgotten."""
        ttl = seconds_of(life)
        if not ttl:
            self.cache.invalidate(key)
            return
        with their_errors():
            self.cache.set(key, value, ttl)

    def set_many(self, values: Mapping[str, Any], life: float | None) -> None:
        """Store several values, in one round trip."""
        ttl = seconds_of(life)
        if not ttl:
            self.cache.invalidate(*values)
            return
        with their_errors():
            self.cache.set_many(values, ttl)

    def add(self, key: str, value: Any, life: float | None) -> bool:
        """Store a value where none is. Whether none was; false while the server is away."""
        ttl = seconds_of(life)
        if not ttl:
            return not self.has(key)
        with their_errors():
            return self.cache.add(key, value, ttl)

    def get_or_set(self, key: str, load: Loader[[], Any], life: float | None) -> Any:
        """The value of a key; where there is none, what the function returns, which is stored. One of many loads."""
        ttl = seconds_of(life)
        if not ttl:
            found = self.get(key)
            return load() if found is MISSING else found
        return self.cache.get_or_load(key, load, ttl)

    def touch(self, key: str, life: float | None) -> bool:
        """Let a value live for so many seconds from now on. Whether there was one."""
        ttl = seconds_of(life)
        return self.cache.touch(key, ttl) if ttl else self.delete(key)

    def incr(self, key: str, delta: int, life: float | None) -> int | None:
        """Add to a number, which keeps its end; where there is none it begins at 0, and lives for so many seconds.

        ``None`` while the server is away.
        """
        return self.cache.incr(key, delta, seconds_of(life) or 1.0)

    def delete(self, key: str) -> bool:
        """Forget a value. Whether there was one: of two who ask at the same time both may be told so."""
        there = self.has(key)
        self.cache.invalidate(key)
        return there

    def delete_many(self, keys: Iterable[str]) -> None:
        """Forget several values, in one round trip."""
        self.cache.invalidate(*keys)

    def clear(self) -> None:
        """Forget all values of the cache's namespace."""
        self.cache.clear()
