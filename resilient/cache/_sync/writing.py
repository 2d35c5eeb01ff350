# Generated from resilient/cache/_async/writing.py by tools/unasync.py: do not edit.
"""The part of a cache's face that writes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ParamSpec, TypeVar

from resilient.cache._codecs import ANYTHING
from resilient.cache._seen import Plan
from resilient.cache._sync.functions import Writer
from resilient.cache._sync.reading import Reading
from resilient.cache._sync.tagged import tag_names
from resilient.cache._values import Loader

__all__ = ["Writing"]

P = ParamSpec("P")
R = TypeVar("R")


class Writing(Reading):
    """Writing to a cache, and through it."""

    # -------------------------------------------------------------------------------------------------- single keys

    def set(
        self,
        key: str,
        value: Any,
        ttl: float | None = None,
        *,
        type: Any = ANYTHING,  # noqa: A002 - as msgspec says it
        tags: Iterable[str] = (),
        version: int | None = None,
    ) -> None:
        """Store a value, whatever was there.

        Args:
            key: The key, without the namespace.
            value: The value; ``None`` is one.
            ttl: Seconds it lives; the cache's own by default.
            type: The type to write it as; dataclasses need it.
            tags: What it depends on, as texts: `invalidate_tags` forgets all that bear a tag.
            version: The version of the row it was made of, a whole number: then a value with a higher one stays.

        Raises:
            InvalidInput: The value cannot be brought back from bytes.
            ConfigurationError: Neither this call nor the cache has a ttl.
        """
        plan = Plan(self._policy(ttl), self.codec(type), tag_names(tags))
        if self._off():
            self.invalidate(key)
        else:
            self._engine.put(self.physical(key), self._engine.entry(value, plan, version))

    def add(
        self,
        key: str,
        value: Any,
        ttl: float | None = None,
        *,
        type: Any = ANYTHING,  # noqa: A002 - same
        tags: Iterable[str] = (),
    ) -> bool:
        """Store a value where none is. Whether it was stored; also false while the server is away."""
        plan = Plan(self._policy(ttl), self.codec(type), tag_names(tags))
        if self._off():
            return False
        return self._engine.add(self.physical(key), self._engine.entry(value, plan), plan.codec)

    def touch(self, key: str, ttl: float | None = None) -> bool:
        """Let the value of a key live so many seconds from now on.

        Args:
            key: The key, without the namespace.
            ttl: Seconds; the cache's own by default.

        Returns:
            Whether there was a value; also false while the server is away.
        """
        return not self._off() and self._engine.touch(self.physical(key), self._policy(ttl))

    def incr(self, key: str, by: int = 1, ttl: float | None = None, *, tags: Iterable[str] = ()) -> int | None:
        """Add to the number under a key, in one step as far as others can see.

        The number is a value like any other: ``get`` reads it, ``delete`` forgets it. A count that must not be lost
        belongs in a database: a server may evict it, and forgets it when it dies.

        Args:
            key: The key, without the namespace.
            by: What is added; below 0 it is taken away.
            ttl: Seconds that a number lives which begins here, at 0; one that is there keeps its end.
            tags: The tags of a number that begins here.

        Returns:
            The new number. ``None`` while the server is away, or a function of `write_through` is at work on this key:
            then nothing was counted, or it is not known whether it was.

        Raises:
            InvalidInput: The value is no whole number.
            Overloaded: Too many others count under this key at this moment.

        Examples:
            ::

                cache.incr("visits:17", ttl=86_400)   # 1
                cache.incr("visits:17", 5)            # 6
        """
        if self._off():
            return None
        plan = Plan(self._policy(ttl), self.codec(ANYTHING), tag_names(tags))
        number: int | None = self._engine.incr(self.physical(key), by, plan)
        return number

    def delete(self, *keys: str) -> None:
        """The same as `invalidate`."""
        self.invalidate(*keys)

    def invalidate(self, *keys: str) -> None:
        """Forget the values of keys: nothing loaded before this call is served from the cache after it.

        Any number of keys costs one round trip to each server, and another where writers are at work on some of them.
        While the server is away the keys are remembered, and deleted there before it is trusted again.
        """
        self._engine.invalidate([self.physical(key) for key in keys])

    # ------------------------------------------------------------------------------------------------ several keys

    def set_many(
        self,
        values: Mapping[str, Any],
        ttl: float | None = None,
        *,
        type: Any = ANYTHING,  # noqa: A002 - same
        tags: Iterable[str] = (),
    ) -> None:
        """Store several values, all with the same tags, in as many round trips as one."""
        plan = Plan(self._policy(ttl), self.codec(type), tag_names(tags))
        if self._off():
            self.invalidate(*values)
        else:
            self._engine.put_many({self.physical(key): self._engine.entry(each, plan) for key, each in values.items()})

    # ----------------------------------------------------------------------------------------------- write-through

    def write_through(
        self,
        template: str,
        ttl: float | None = None,
        *,
        only_if_present: bool = False,
        version: int = 0,
        type: Any = ANYTHING,  # noqa: A002 - same
        tags: Iterable[str] | None = None,
        version_of: VersionOf | None = None,
    ) -> Callable[[Loader[P, R]], Writer[P, R]]:
        """Store with a function, then cache what it returned. The function ends its own transaction.

        If it raises, the cache is as it was. If it returns ``None`` or a number (a count of rows), the key is
        invalidated instead. Two writers of one key at the same time leave it uncached for one lease, since neither can
        tell whose value is the newer; with ``version_of`` they can, and the newer value stays, for one lease.

        Args:
            template: The key, the same as that of the function that loads it.
            ttl: Seconds the value lives; the cache's own by default.
            only_if_present: Cache the value only where the key was cached before.
            version: The same as that of the function that loads it.
            type: The type of the value; by default the one the function says it returns.
            tags: The tags' templates; by default those of the function that `lazy` loads with under the same template.
            version_of: The name of an attribute or a key of the values, or a function of one, that tells the version of
                its row: a whole number that grows with each change. Give it to the function that loads too.

        Raises:
            ConfigurationError: Neither the decorator nor the cache has a ttl, or the template names no parameter. A tag
                names what is no parameter: then ``tags=`` is needed here; told at the first call.
        """
        policy = self._policy(ttl, {"version_of": version_of})
        names = None if tags is None else tag_names(tags)

        def decorate(function: Loader[P, R]) -> Writer[P, R]:
            writer = Writer(self, function, template, policy, kind=type, version=version)
            writer.only_if_present = only_if_present
            writer.tags = names
            return writer

        return decorate

    def write(
        self, key: str, store: Loader[[], Any], plan: Plan, *, keeps: Callable[[Any], bool], present: bool
    ) -> Any:
        """What the functions of `write_through` call."""
        keep = _never if self._off() else keeps
        return self._engine.write(self.physical(key), store, plan, keeps=keep, present=present)


def _never(_: Any) -> bool:
    return False
