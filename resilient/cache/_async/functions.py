"""What the decorators return: the function, cached, with a few methods more."""

from __future__ import annotations

import copy
import functools
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from resilient.cache._codecs import ANYTHING
from resilient.cache._freshness import Policy
from resilient.cache._functions import AsyncMode, is_value, require, result_type
from resilient.cache._seen import Plan
from resilient.cache._templates import KeyMaker
from resilient.cache._values import AsyncLoader, Lookup

if TYPE_CHECKING:
    from resilient.cache._async.cache import AsyncCache

__all__ = ["AsyncLazy", "AsyncWriter"]

P = ParamSpec("P")
R = TypeVar("R")


class _AsyncCached(Generic[P, R]):
    """A function that belongs to a cache: its key, its plan, and how it becomes a method."""

    __wrapped__: AsyncLoader[P, R]

    def __init__(
        self,
        cache: AsyncCache,
        function: AsyncLoader[P, R],
        template: str | None,
        policy: Policy,
        *,
        kind: Any,
        version: int,
        shared: bool = True,  # as for a writer, whose parameters may be what it stores
    ) -> None:
        require(function, asynchronous=AsyncMode.asynchronous)
        functools.update_wrapper(self, function)  # type: ignore[arg-type]  # the classes below are callable
        self._cache = cache
        self._policy = policy
        self._make_key = KeyMaker(function, template, shared=shared)
        self._kind = kind
        self._version = version
        self._plan: Plan | None = None
        self._bound: tuple[Any, ...] = ()

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """The function as a method of an object."""
        if instance is None:
            return self
        method = copy.copy(self)
        method._bound = (instance,)  # noqa: SLF001 - a copy of this object
        return method

    def key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """The key of a call, as `AsyncCache.get` and `AsyncCache.invalidate` take it."""
        return self._make_key((*self._bound, *args), kwargs)

    async def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Forget the value of this call: what was loaded before is not served from the cache any more."""
        await self._cache.invalidate(self.key(*args, **kwargs))

    def _planned(self) -> Plan:
        if self._plan is None:
            kind = result_type(self.__wrapped__) if self._kind is ANYTHING else self._kind
            self._plan = Plan(self._policy, self._cache.codec(kind, self._version))
        return self._plan

    def _call(self, args: Any, kwargs: Any) -> partial[Any]:
        return partial(self.__wrapped__, *self._bound, *args, **kwargs)


class AsyncLazy(_AsyncCached[P, R]):
    """A function whose results are loaded lazily: run on a miss, and answered from the cache after."""

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """The value: from the cache, or from the function."""
        given: Any = (*self._bound, *args) if self._bound else args
        load = partial(self.__wrapped__, *given, **kwargs)
        value: R = await self._cache.value(self._make_key(given, kwargs), load, self._plan or self._planned())
        return value

    async def lookup(self, *args: P.args, **kwargs: P.kwargs) -> Lookup[R]:
        """The value, with where it came from, its age, and whether it is stale."""
        load = self._call(args, kwargs)
        return await self._cache.through(self.key(*args, **kwargs), load, self._planned())

    async def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function now and store what it returns. Its errors go to the caller."""
        load = self._call(args, kwargs)
        found: Lookup[R] = await self._cache.through(self.key(*args, **kwargs), load, self._planned(), refresh=True)
        return found.value


class AsyncWriter(_AsyncCached[P, R]):
    """A function that stores a value, after which the value is cached."""

    only_if_present = False

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Store first, then cache what the function returned."""
        store = self._call(args, kwargs)
        result: R = await self._cache.write(
            self.key(*args, **kwargs), store, self._planned(), keeps=is_value, present=self.only_if_present
        )
        return result
