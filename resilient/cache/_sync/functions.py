# Generated from resilient/cache/_async/functions.py by tools/unasync.py: do not edit.
"""What the decorators return: the function, cached, with a few methods more."""

from __future__ import annotations

import copy
import functools
from functools import partial
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, overload

from resilient.cache._aside import apart
from resilient.cache._codecs import ANYTHING
from resilient.cache._freshness import Policy, Said
from resilient.cache._functions import Mode, is_value, require, result_type
from resilient.cache._local_keys import key_of
from resilient.cache._local_quick import Shortcut
from resilient.cache._quick import NOTHING
from resilient.cache._seen import Plan
from resilient.cache._sync.host import Host
from resilient.cache._templates import KeyMaker, TagMaker
from resilient.cache._values import Loader, Lookup

__all__ = ["Lazy", "Writer"]

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
S = TypeVar("S")


class _Cached(Generic[P, R]):
    """A function that belongs to a cache: its key, its plan, and how it becomes a method."""

    __wrapped__: Loader[P, R]

    def __init__(
        self,
        cache: Host,
        function: Loader[P, R],
        template: str | None,
        policy: Policy,
        *,
        kind: Any,
        version: int,
        shared: bool = True,  # as for a writer, whose parameters may be what it stores
        tags: tuple[str, ...] | None = (),
        share: bool | None = None,
    ) -> None:
        require(function, asynchronous=Mode.asynchronous)
        functools.update_wrapper(self, function)  # type: ignore[arg-type]  # the classes below are callable
        self._cache = cache
        self._policy = policy
        self._make_key = KeyMaker(function, template, shared=shared)
        self._stored_under = key_of(self._make_key, cache.namespace)
        self._kind = kind
        self._version = version
        self._share = share
        self._template = template
        self._plan: Plan | None = None
        self._make_tags: TagMaker | None = None
        if tags is not None:
            self._tag_with(tags)
        self._bound: tuple[Any, ...] = ()
        self._function: Self | None = None
        """Of a method: the function it was made of, whose plan is its own."""
        self._shortcut = Shortcut(self._make_key, cache.namespace)

    def _method(self, instance: object) -> Self:
        """The function as a method of an object."""
        if instance is None:
            return self
        method = copy.copy(self)
        method._bound, method._function = (instance,), self  # noqa: SLF001 - a copy of this object
        return method

    def key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """The key of a call, as `Cache.get` and `Cache.invalidate` take it."""
        return self._make_key((*self._bound, *args), kwargs)

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Forget the value of this call: what was loaded before is not served from the cache any more."""
        self._cache.invalidate(self.key(*args, **kwargs))

    def _tag_with(self, tags: tuple[str, ...]) -> None:
        self._make_tags = TagMaker(self.__wrapped__, tags) if tags else None

    def _planned(self) -> Plan:
        """How the values are kept, their tags aside."""
        if self._plan is None and self._function is not None:
            self._plan, self._make_tags = self._function._planned(), self._function._make_tags  # noqa: SLF001 - as above
        if self._plan is None:
            self._settle()
            kind = result_type(self.__wrapped__) if self._kind is ANYTHING else self._kind
            self._shortcut.judge(self._policy, self._make_tags)
            codec = self._cache.codec(kind, self._version)
            self._plan = Plan(self._policy, codec, (), self._shortcut.owner, self._share)
        return self._plan

    def _settle(self) -> None:
        """Before the plan is made, at the first call: what could not be known before it."""

    def _plan_of(self, args: Any, kwargs: Any) -> Plan:
        """How the value of one call is kept."""
        plan, tags = self._planned(), self._make_tags
        return plan if tags is None else plan._replace(tags=tags((*self._bound, *args), kwargs))

    def _call(self, args: Any, kwargs: Any) -> partial[Any]:
        return partial(self.__wrapped__, *self._bound, *args, **kwargs)


class Lazy(_Cached[P, R]):
    """A function whose results are loaded lazily: run on a miss, and answered from the cache after."""

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> Self: ...

    @overload
    def __get__(self: Lazy[Concatenate[S, Q], R], instance: S, owner: type | None = None) -> Lazy[Q, R]: ...

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """The function as a method of an object."""
        return self._method(instance)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """The value: from the cache, or from the function."""
        given: Any = (*self._bound, *args) if self._bound else args
        cache = self._cache
        if (local := cache.local) is not None:
            short = self._shortcut
            found: R = short.quick(given, kwargs) if short.tier is local else short.on(local, given, kwargs)
            if found is not NOTHING:
                return found
        load = partial(self.__wrapped__, *given, **kwargs)
        plan, tags = self._plan or self._planned(), self._make_tags
        if tags is not None:
            plan = Plan(plan.policy, plan.codec, tags(given, kwargs), plan.owner, plan.share)
        work = cache.work() if apart.get() else cache.main
        value: R = work.load(self._stored_under(given, kwargs), load, plan)
        return value

    def lookup(self, *args: P.args, **kwargs: P.kwargs) -> Lookup[R]:
        """The value, with where it came from, its age, and whether it is stale."""
        load = self._call(args, kwargs)
        return self._cache.load_lookup(self.key(*args, **kwargs), load, self._plan_of(args, kwargs))

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function now and store what it returns. Its errors go to the caller."""
        load = self._call(args, kwargs)
        plan = self._plan_of(args, kwargs)
        found: Lookup[R] = self._cache.load_lookup(self.key(*args, **kwargs), load, plan, refresh=True)
        return found.value


class Writer(_Cached[P, R]):
    """A function that stores a value, after which the value is cached."""

    only_if_present = False
    said = Said()
    """What it says of how its values are kept; all else is as for what is loaded lazily under the same template."""
    tags: tuple[str, ...] | None = None
    """The tags' templates; ``None``: those of what is loaded so."""

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> Self: ...

    @overload
    def __get__(self: Writer[Concatenate[S, Q], R], instance: S, owner: type | None = None) -> Writer[Q, R]: ...

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """The function as a method of an object."""
        return self._method(instance)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Store first, then cache what the function returned."""
        store = self._call(args, kwargs)
        plan = self._plan_of(args, kwargs)
        result: R = self._cache.write(
            self.key(*args, **kwargs), store, plan, keeps=is_value, present=self.only_if_present
        )
        return result

    def _settle(self) -> None:
        """Follow the function that loads, which is defined by now."""
        loaded = self._cache.loaded_under(self._template or "")
        theirs = () if loaded is None else loaded.tags
        self._tag_with(theirs if self.tags is None else self.tags)
        self._policy, self._version = self.said.kept(self._policy, loaded)
