"""The cache as a backend of cachelib.

    from resilient.contrib.cachelib import ResilientCache

    cache = ResilientCache("redis://127.0.0.1:6379/0", secret="...", default_timeout=300)

Needs ``cachelib``, and the extra ``redis`` for a server.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any

from resilient.cache import Cache
from resilient.contrib._faces import options_of
from resilient.contrib._sync.values import Values
from resilient.errors import MissingExtra

try:
    import cachelib
except ImportError as error:
    raise MissingExtra("cachelib", "cachelib") from error

__all__ = ["ResilientCache"]


class ResilientCache(cachelib.BaseCache):
    """A ``cachelib.BaseCache`` that answers while its server is away: then there is nothing in it.

    Args:
        target: As for `resilient.cache.Cache`: an address, a ready client, or nothing to keep values in this process.
        default_timeout: Seconds a value lives where nothing else is said; 0 is without end.
        key_prefix: What all keys begin with, or a function that tells it.
        ignore_delete_many_errors: As in cachelib; nothing here makes ``delete_many`` fail.
        namespace: What this cache's keys begin with on the server; ``clear`` forgets all that is in it.
        **options: Other arguments of `resilient.cache.Cache`, most of all ``secret``. Values are signed pickle, or
            with ``codec="safe"`` msgpack, which needs no secret and takes plain values only.

    Raises:
        ConfigurationError: An argument is wrong, or values on a server have no secret.

    Examples:
        >>> cache = ResilientCache()
        >>> cache.set("greeting", "hello", timeout=60)
        True
        >>> cache.get("greeting")
        'hello'
    """

    def __init__(
        self,
        target: Any = None,
        default_timeout: int | dt.timedelta = 300,
        key_prefix: str | Callable[[], str] | None = None,
        ignore_delete_many_errors: bool = True,  # noqa: FBT001, FBT002 - cachelib's own argument
        *,
        namespace: str = "cachelib",
        **options: Any,
    ) -> None:
        super().__init__(default_timeout=default_timeout)  # pyright: ignore[reportArgumentType]  # older: a number only
        self.ignore_delete_many_errors = ignore_delete_many_errors  # its releases before 0.16 do not take it
        self.key_prefix = key_prefix or ""
        self._values = Values(Cache(target, **options_of(target, options, namespace)))

    @property
    def cache(self) -> Cache:
        """The cache behind it."""
        return self._values.cache

    def _name(self, key: str) -> str:
        prefix = self.key_prefix() if callable(self.key_prefix) else self.key_prefix
        return f"{prefix}{key}"

    def _life(self, timeout: Any) -> float | None:
        """Seconds as the values take them: 0 is without end, as everywhere in cachelib."""
        given = self.default_timeout if timeout is None else timeout
        seconds = given.total_seconds() if isinstance(given, dt.timedelta) else given
        return seconds or None

    def _took(self) -> bool:
        """Whether what was stored is there, as far as is known: not while the server is away."""
        return self.cache.stats().state == "up"

    def get(self, key: str) -> Any:
        """The value of a key, or ``None``."""
        return self._values.get(self._name(key), None)

    def get_many(self, *keys: str) -> list[Any]:
        """The values of keys, ``None`` for each without one; in one round trip."""
        names = [self._name(key) for key in keys]
        found = self._values.get_many(names)
        return [found.get(name) for name in names]

    def has(self, key: str) -> bool:
        """Whether there is a value."""
        return self._values.has(self._name(key))

    def set(self, key: str, value: Any, timeout: Any = None) -> bool:
        """Store a value. Whether it is there: false while the server is away."""
        self._values.set(self._name(key), value, self._life(timeout))
        return self._took()

    def set_many(self, mapping: Mapping[str, Any], timeout: Any = None) -> list[Any]:
        """Store several values, in one round trip. The keys that were stored."""
        self._values.set_many({self._name(key): value for key, value in mapping.items()}, self._life(timeout))
        return list(mapping) if self._took() else []

    def add(self, key: str, value: Any, timeout: Any = None) -> bool:
        """Store a value where none is. Whether none was."""
        return self._values.add(self._name(key), value, self._life(timeout))

    def delete(self, key: str) -> bool:
        """Forget a value. Whether there was one."""
        return self._values.delete(self._name(key))

    def delete_many(self, *keys: str) -> list[Any]:
        """Forget several values, in one round trip. The keys that have none now: all of them."""
        self._values.delete_many(map(self._name, keys))
        return list(keys)

    def clear(self) -> bool:
        """Forget everything in the namespace, whatever its prefix."""
        self._values.clear()
        return True

    def inc(self, key: str, delta: int = 1) -> int | None:
        """Add to a number; where there is none it begins at 0. ``None`` while the server is away."""
        return self._values.incr(self._name(key), delta, self._life(None))

    def dec(self, key: str, delta: int = 1) -> int | None:
        """Take from a number; see `inc`."""
        return self.inc(key, -delta)

    def close(self) -> None:
        """Close the connections that were made here."""
        self.cache.close()
