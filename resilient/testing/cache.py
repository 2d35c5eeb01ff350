"""A cache for tests: entries in memory, and an outage at will."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from resilient.cache import AsyncCache, AsyncMemoryStore, Cache, MemoryStore
from resilient.cache.rooms import Table, is_ours
from resilient.clock import SYSTEM, Clock

__all__ = ["AsyncMemoryCache", "MemoryCache"]

_SIZE = 100_000


class _Table(Table):
    """A table that can be away, as a server can."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(_SIZE, clock)
        self.away: BaseException | None = None
        self.asked = 0

    def _answer(self) -> None:
        self.asked += 1
        if self.away is not None:
            raise self.away

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        self._answer()
        return super().get_many(keys)

    def put_many(self, entries: Mapping[str, bytes], life: int) -> None:
        self._answer()
        super().put_many(entries, life)

    def swap(self, key: str, expected: bytes | None, raw: bytes | None, life: int) -> bool:
        self._answer()
        return super().swap(key, expected, raw, life)

    def write_versioned(self, key: str, fence: bytes | None, raw: bytes, life: int, lease: int) -> int:
        self._answer()
        return super().write_versioned(key, fence, raw, life, lease)

    def exchange(self, key: str, raw: bytes, life: int) -> bytes | None:
        self._answer()
        return super().exchange(key, raw, life)

    def keys(self) -> list[str]:
        """The keys of values that are there."""
        with self._lock:
            return [key for key in list(self._entries) if not is_ours(key) and self._live(key) is not None]


class _Outages:
    """What both fakes add to a cache."""

    _table: _Table

    def fail(self, error: BaseException | None = None) -> None:
        """From now on the store does not answer, as a server that is gone.

        Args:
            error: What it raises; a `ConnectionError` by default.
        """
        self._table.away = error or ConnectionError("the store of this test is away")

    def restore(self) -> None:
        """The store answers again, with the entries it had."""
        self._table.away = None

    @contextmanager
    def outage(self, error: BaseException | None = None) -> Iterator[None]:
        """The store does not answer in this block."""
        self.fail(error)
        try:
            yield
        finally:
            self.restore()

    @property
    def asked(self) -> int:
        """How many operations reached the store, answered or not."""
        return self._table.asked

    def keys(self) -> list[str]:
        """The keys that are in the store, with the namespace; those of tombstones too."""
        return self._table.keys()


class MemoryCache(_Outages, Cache):
    """A `Cache` whose store is in memory and can be made to fail; it behaves as one over a server does.

    Args:
        namespace: As for `Cache`.
        ttl: As for `Cache`.
        clock: Where time is read: a `resilient.testing.FakeClock` lets entries grow old at once.
        **options: The other arguments of `Cache`.

    Examples:
        >>> cache = MemoryCache()
        >>> cache.set("greeting", "hello")
        >>> with cache.outage():
        ...     cache.get("greeting", "the cache is away")
        'the cache is away'
        >>> cache.lookup("greeting").source
        'shared'
    """

    def __init__(
        self, *, namespace: str = "test", ttl: float | None = 300.0, clock: Clock = SYSTEM, **options: Any
    ) -> None:
        self._table = _Table(clock)
        store = MemoryStore(clock=clock)
        store.table = self._table
        store.local = False
        store.failures = (OSError,)
        super().__init__(store, namespace=namespace, ttl=ttl, clock=clock, **options)


class AsyncMemoryCache(_Outages, AsyncCache):
    """An `AsyncCache` whose store is in memory and can be made to fail; the arguments are those of `MemoryCache`."""

    def __init__(
        self, *, namespace: str = "test", ttl: float | None = 300.0, clock: Clock = SYSTEM, **options: Any
    ) -> None:
        self._table = _Table(clock)
        store = AsyncMemoryStore(clock=clock)
        store.table = self._table
        store.local = False
        store.failures = (OSError,)
        super().__init__(store, namespace=namespace, ttl=ttl, clock=clock, **options)
