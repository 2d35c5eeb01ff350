"""The part of a cache's face that reads, with a loader or without."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ParamSpec, TypeVar, Unpack, overload

from resilient.cache._aside import apart
from resilient.cache._async.face.base import AsyncFace
from resilient.cache._async.functions import AsyncLazy
from resilient.cache._codecs import ANYTHING
from resilient.cache._freshness import Loaded, LoadOptions
from resilient.cache._functions import check_template
from resilient.cache._keys import physical, physical_many, tag_templates
from resilient.cache._quick import NOTHING
from resilient.cache._seen import Plan
from resilient.cache._told import told
from resilient.cache._values import AsyncLoader, Lookup
from resilient.errors import ConfigurationError, InvalidInput

__all__ = ["AsyncReading"]

D = TypeVar("D")
P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class AsyncReading(AsyncFace):
    """Reading through a cache."""

    # ------------------------------------------------------------------------------------------------ without a loader

    @overload
    async def get(self, key: str, default: None = None, *, type: type[T]) -> T | None: ...

    @overload
    async def get(self, key: str, default: D, *, type: type[T]) -> T | D: ...

    @overload
    async def get(self, key: str, default: Any = None, *, type: Any = ANYTHING) -> Any: ...

    async def get(self, key: str, default: Any = None, *, type: Any = ANYTHING) -> Any:  # noqa: A002 - as msgspec says it
        """The value of a key.

        Args:
            key: The key, without the namespace.
            default: What is returned where there is none.
            type: The type to read it as; without it dataclasses come back as dicts.
        """
        if self._off():
            return default
        (value,) = await self._engine.get_many((self.physical(key),), self.codec(type))
        return default if value is NOTHING else value

    @overload
    async def lookup(self, key: str, *, type: type[T]) -> Lookup[T] | None: ...

    @overload
    async def lookup(self, key: str, *, type: Any = ANYTHING) -> Lookup[Any] | None: ...

    async def lookup(self, key: str, *, type: Any = ANYTHING) -> Lookup[Any] | None:  # noqa: A002 - same
        """The value of a key with its source and age; ``None`` where there is none."""
        if self._off():
            return None
        name = self.physical(key)
        found: Lookup[Any] | None = await self._engine.lookup(name, self.codec(type))
        return None if found is None else told(found, self.namespace, name)

    @overload
    async def get_many(
        self,
        keys: Iterable[str],
        *,
        load_many: AsyncLoader[[list[str]], Mapping[str, T]] | None = None,
        ttl: float | None = None,
        type: type[T],
        tags: Iterable[str] = (),
        **options: Unpack[LoadOptions],
    ) -> dict[str, T]: ...

    @overload
    async def get_many(
        self,
        keys: Iterable[str],
        *,
        load_many: AsyncLoader[[list[str]], Mapping[str, Any]] | None = None,
        ttl: float | None = None,
        type: Any = ANYTHING,
        tags: Iterable[str] = (),
        **options: Unpack[LoadOptions],
    ) -> dict[str, Any]: ...

    async def get_many(
        self,
        keys: Iterable[str],
        *,
        load_many: AsyncLoader[[list[str]], Mapping[str, Any]] | None = None,
        ttl: float | None = None,
        type: Any = ANYTHING,  # noqa: A002 - same
        tags: Iterable[str] = (),
        **options: Unpack[LoadOptions],
    ) -> dict[str, Any]:
        """The values of those keys that have one, in the order asked for, in one round trip.

        Args:
            keys: The keys, without the namespace.
            load_many: Called once with the keys that are missing and that nobody else is loading, in this process or
                another; returns a mapping from key to value. What it leaves out does not exist. Those that others load
                are waited for.
            ttl: Seconds the loaded values live; the cache's own by default.
            type: The type of the values; dataclasses need it.
            tags: The tags that all loaded values bear; see `get_or_load`.
            **options: As for `get_or_load`, for each key; but for ``cache_errors`` and ``error_ttl``, since an error of
                one load for many keys does not tell of which it is.

        Raises:
            InvalidInput: One text was given instead of a list.
            ConfigurationError: An option makes no sense here.
            Unavailable: The loader failed, and for some key nothing is left to serve.
        """
        if isinstance(keys, str):
            raise InvalidInput("keys are a list of texts", advice=f"write get_many([{keys!r}])")
        if not options.keys().isdisjoint(("cache_errors", "error_ttl")):
            raise ConfigurationError(
                "get_many remembers no errors, since one of many keys does not tell of which it is",
                advice="leave out cache_errors and error_ttl, or use get_or_load for each key",
            )
        names = list(dict.fromkeys(keys))
        if not names:
            return {}
        if load_many is None:
            if self._off():
                return {}
            found = await self._engine.get_many(physical_many(self.namespace, names), self.codec(type))
        else:
            plan = self._plan(ttl, type, options, tags)
            if self._off():
                values = await load_many(names)
                return {name: values[name] for name in names if name in values}
            ask = _Asked(names, load_many)
            found = await self._engine.load_many(physical_many(self.namespace, names), ask, plan)
        return {name: value for name, value in zip(names, found, strict=True) if value is not NOTHING}

    # --------------------------------------------------------------------------------------------------- with a loader

    async def get_or_load(
        self,
        key: str,
        loader: AsyncLoader[[], R],
        ttl: float | None = None,
        *,
        type: Any = ANYTHING,  # noqa: A002 - same
        tags: Iterable[str] = (),
        **options: Unpack[LoadOptions],
    ) -> R:
        """The value of a key; where there is none, what the loader returns, which is then stored.

        Of all callers that miss a key at once, in this process and in others, one loads and the rest wait for it.
        Should its process die, another takes over within one lease. What was loaded is not stored if the key was
        changed since.

        Args:
            key: The key, without the namespace.
            loader: Called without arguments on a miss. No lock is held while it runs.
            ttl: Seconds the value lives; the cache's own by default.
            type: The type of the value; dataclasses need it.
            tags: What the value depends on, as texts: `invalidate_tags` forgets all that bear a tag. A stored value
                that lacks one of them is a miss.
            **options: ``negative_ttl``: seconds for which it is remembered that there is no such thing: that the loader
                returned ``None`` or raised `resilient.errors.NotFound`; without it ``None`` is an ordinary value.
                ``stale_while_revalidate``: seconds after the ttl for which the old value is served at once, while one
                process loads it anew in the background. ``stale_if_error``: seconds after the ttl for which the old
                value is served when the loader fails. ``soft_timeout``: seconds to wait for the loader where an old
                value is at hand, which is served then. ``hard_timeout``: seconds to wait for it in any case; the load
                goes on without its caller, and is stored. ``early``: ``True``, or a factor: now and then a value is
                loaded anew a little before its end, the sooner the longer it takes. ``cache_errors``: classes of errors
                that are remembered for ``error_ttl`` seconds, by name and message.

        Raises:
            NotFound: The loader raised it, now or within the last ``negative_ttl``.
            Unavailable: The loader failed and ``stale_if_error`` is over, or ``hard_timeout`` was. Without
                ``stale_if_error`` the loader's error goes through as it is.
            Overloaded: ``max_loads`` loaders run already, and none ended in time.
        """
        if tags or options:
            plan = self._plan(ttl, type, options, tags)
        else:
            try:  # where `_plan` would find it: on the way of every hit a call of another is a cost that is seen
                plan = self._plans[ttl, type]
            except (KeyError, TypeError):
                plan = self._plan(ttl, type, options)
        work = self.work() if apart.get() else self.main
        value: R = await work.load(physical(self.namespace, key), loader, plan)
        return value

    def lazy(
        self,
        template: str | None = None,
        ttl: float | None = None,
        *,
        version: int = 0,
        type: Any = ANYTHING,  # noqa: A002 - same
        shared: bool = False,
        tags: Iterable[str] = (),
        share: bool | None = None,
        **options: Unpack[LoadOptions],
    ) -> Callable[[AsyncLoader[P, R]], AsyncLazy[P, R]]:
        """Load the results of a function lazily: run it on a miss, answer from the cache after.

        Args:
            template: The key, as in ``user:{user_id}``; without it the function's name and all its parameters but self.
            ttl: Seconds a value lives; the cache's own by default.
            version: Change it when values stored so far must not be read any more.
            type: The type of the values; by default the one the function says it returns.
            shared: Accept a template without any parameter though the function takes some: one value for all calls.
            tags: What a value depends on, as templates like that of the key: ``["users", "user:{user_id}"]``. See
                `invalidate_tags`.
            share: Whether callers are handed the same object where it is kept in this process, which they must not
                change then; by default what the cache's `Local` says.
            **options: As for `get_or_load`.

        Raises:
            ConfigurationError: Neither the decorator nor the cache has a ttl, or the template names no parameter, or a
                tag what is none.
        """
        check_template(template, "lazy")
        policy = self._policy(ttl, options)
        names = tag_templates(tags)
        self._note(template, Loaded(policy, version, names))
        return lambda function: AsyncLazy(
            self, function, template, policy, kind=type, version=version, shared=shared, tags=names, share=share
        )

    async def load_lookup(
        self, key: str, load: AsyncLoader[[], Any], plan: Plan, *, refresh: bool = False
    ) -> Lookup[Any]:
        """What the functions of `lazy` call."""
        if self._off():
            return Lookup(await load(), "loader", 0.0)
        name = self.physical(key)
        return told(await self._engine.load_lookup(name, load, plan, refresh=refresh), self.namespace, name, plan)


class _Asked:
    """A loader of several keys, told by their places."""

    def __init__(self, names: list[str], load_many: AsyncLoader[[list[str]], Mapping[str, Any]]) -> None:
        self._names = names
        self._load_many = load_many

    async def __call__(self, places: list[int]) -> dict[int, Any]:
        values = await self._load_many([self._names[place] for place in places])
        return {place: values[self._names[place]] for place in places if self._names[place] in values}
