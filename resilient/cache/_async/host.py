"""What the parts of a cache that stand in modules of their own ask of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from resilient.cache._async.engine.engine import AsyncEngine
from resilient.cache._async.engine.work import AsyncLoading
from resilient.cache._codecs import ANYTHING, Codec
from resilient.cache._freshness import Loaded
from resilient.cache._local_tier import LocalTier
from resilient.cache._seen import Plan
from resilient.cache._values import AsyncLoader, Lookup
from resilient.clock import Clock

__all__ = ["AsyncHost"]


class AsyncHost(Protocol):
    """A cache, as its decorated functions, its queries and its transactions know it: `AsyncCache`.

    It stands below them all, so that they need not know the class that is built of them.
    """

    namespace: str
    main: AsyncEngine
    """The engine itself; inside a block of `on_commit` the face calls another one, which collects."""
    local: LocalTier | None
    """What this process keeps of the store, if anything."""
    clock: Clock
    lease: float
    codec: Callable[..., Codec]
    """How values of a type become bytes here."""

    def physical(self, key: str) -> str:
        """A key as the store knows it."""
        ...

    def plan(self, ttl: float | None, tags: tuple[str, ...] = ()) -> Plan:
        """How values of any type are kept for so long, with the tags that they bear."""
        ...

    def loaded_under(self, template: str) -> Loaded | None:
        """What is known of the functions that load lazily under a key's template."""
        ...

    # ----------------------------------------------------------------------------------------------- through functions

    def work(self) -> AsyncLoading:
        """What loads where `apart` holds: the engine, what collects for a commit, or what does without the cache."""
        ...

    async def load_lookup(
        self, key: str, load: AsyncLoader[[], Any], plan: Plan, *, refresh: bool = False
    ) -> Lookup[Any]:
        """What the functions of `lazy` call."""
        ...

    async def write(
        self, key: str, store: AsyncLoader[[], Any], plan: Plan, *, keeps: Callable[[Any], bool], present: bool
    ) -> Any:
        """What the functions of `write_through` call."""
        ...

    # --------------------------------------------------------------------------------------------------- single values

    async def get(self, key: str, default: Any = None, *, type: Any = ANYTHING) -> Any:  # noqa: A002 - as msgspec says it
        """The value of a key."""
        ...

    async def set(
        self,
        key: str,
        value: Any,
        ttl: float | None = None,
        *,
        type: Any = ANYTHING,  # noqa: A002 - same
        tags: Iterable[str] = (),
        version: int | None = None,
    ) -> None:
        """Store a value, whatever was there."""
        ...

    async def set_many(
        self,
        values: Mapping[str, Any],
        ttl: float | None = None,
        *,
        type: Any = ANYTHING,  # noqa: A002 - same
        tags: Iterable[str] = (),
    ) -> None:
        """Store several values, all with the same tags."""
        ...

    async def invalidate(self, *keys: str) -> None:
        """Forget the values of keys."""
        ...

    async def invalidate_tags(self, *tags: str) -> None:
        """Forget all values that bear one of these tags."""
        ...

    async def clear(self) -> None:
        """Forget all values of this namespace."""
        ...
