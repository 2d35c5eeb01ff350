"""The part of a cache's face that writes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from resilient.cache._async.face.base import AsyncFace
from resilient.cache._async.functions import AsyncWriter
from resilient.cache._async.write_behind import AsyncWriteBehind, Pace
from resilient.cache._codecs import ANYTHING
from resilient.cache._freshness import Said
from resilient.cache._functions import check_template
from resilient.cache._keys import tag_names, tag_templates
from resilient.cache._seen import Plan
from resilient.cache._values import AsyncLoader
from resilient.cache._versions import VersionOf

if TYPE_CHECKING:
    from resilient.policy import Pipeline

__all__ = ["AsyncWriting"]

P = ParamSpec("P")
R = TypeVar("R")
V = TypeVar("V")


class AsyncWriting(AsyncFace):
    """Writing to a cache, through it, and behind it."""

    # -------------------------------------------------------------------------------------------------- single keys

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
            await self.invalidate(key)
        else:
            await self._engine.put(self.physical(key), self._engine.entry(value, plan, version))

    async def add(
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
        return await self._engine.add(self.physical(key), self._engine.entry(value, plan), plan.codec)

    async def touch(self, key: str, ttl: float | None = None) -> bool:
        """Let the value of a key live so many seconds from now on.

        Args:
            key: The key, without the namespace.
            ttl: Seconds; the cache's own by default.

        Returns:
            Whether there was a value; also false while the server is away.
        """
        return not self._off() and await self._engine.touch(self.physical(key), self._policy(ttl))

    async def incr(self, key: str, by: int = 1, ttl: float | None = None, *, tags: Iterable[str] = ()) -> int | None:
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
        plan = self.plan(ttl, tag_names(tags))
        number: int | None = await self._engine.incr(self.physical(key), by, plan)
        return number

    async def delete(self, *keys: str) -> None:
        """The same as `invalidate`."""
        await self.invalidate(*keys)

    async def invalidate(self, *keys: str) -> None:
        """Forget the values of keys: nothing loaded before this call is served from the cache after it.

        Any number of keys costs one round trip to each server, and another where writers are at work on some of them.
        While the server is away the keys are remembered, and deleted there before it is trusted again.
        """
        await self._engine.invalidate([self.physical(key) for key in keys])

    # ------------------------------------------------------------------------------------------------ several keys

    async def set_many(
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
            await self.invalidate(*values)
        else:
            await self._engine.put_many(
                {self.physical(key): self._engine.entry(each, plan) for key, each in values.items()}
            )

    # ----------------------------------------------------------------------------------------------- write-through

    def write_through(
        self,
        template: str,
        ttl: float | None = None,
        *,
        only_if_present: bool = False,
        version: int | None = None,
        type: Any = ANYTHING,  # noqa: A002 - same
        tags: Iterable[str] | None = None,
        version_of: VersionOf | None = None,
    ) -> Callable[[AsyncLoader[P, R]], AsyncWriter[P, R]]:
        """Store with a function, then cache what it returned. The function ends its own transaction.

        If it raises an error which says that nothing was changed (`Refused`, `InvalidInput`, `Conflict`, `CircuitOpen`
        and the like; what SQLAlchemy raises for a statement that the database refused), the cache is as it was. After
        any other error it may have committed all the same, and the key is invalidated. So it is if the function returns
        ``None`` or a number (a count of rows).

        Two writers of one key at the same time leave it uncached for one lease, since neither can tell whose value is
        the newer; with ``version_of`` they can, and the newer value stays, for one lease.

        Args:
            template: The key, the same as that of the function that loads it, whose values these are: what is not said
                here (``ttl``, ``version``, ``tags``, ``version_of``, and for how long they are served stale) is as
                there. Of several such functions it is the shortest ttl, and all tags.
            ttl: Seconds the value lives; without a function that loads it the cache's own by default.
            only_if_present: Cache the value only where the key was cached before.
            version: The version of what the value means; see `lazy`.
            type: The type of the value; by default the one the function says it returns.
            tags: The tags' templates.
            version_of: The name of an attribute or a key of the values, or a function of one, that tells the version of
                its row: a whole number that grows with each change.

        Raises:
            ConfigurationError: Neither the decorator nor the cache has a ttl, or the template names no parameter. A tag
                names what is no parameter: then ``tags=`` is needed here; told at the first call.
        """
        check_template(template, "write_through")
        said = Said(ttl, version, version_of)
        policy = self._policy_to_write(template, said)
        names = None if tags is None else tag_templates(tags)

        def decorate(function: AsyncLoader[P, R]) -> AsyncWriter[P, R]:
            writer = AsyncWriter(self, function, template, policy, kind=type, version=version or 0)
            writer.only_if_present, writer.said, writer.tags = only_if_present, said, names
            return writer

        return decorate

    def write_behind(
        self,
        template: str,
        ttl: float | None = None,
        *,
        every: float = 1.0,
        batch: int = 100,
        size: int = 10_000,
        tries: int = 10,
        pipeline: Pipeline | None = None,
        version: int | None = None,
        type: Any = ANYTHING,  # noqa: A002 - same
        tags: Iterable[str] = (),
    ) -> Callable[[AsyncLoader[[list[V]], Any]], AsyncWriteBehind[V]]:
        """Cache values at once, and store them a little later, many in one call: for what changes often.

        The function takes a list of values and stores them all; it is called with one value at a time, which returns
        at once. Of several values of one key the last one is stored. Storing the same value twice must do no harm.

        What can be lost: a process that is killed, or ends by a signal it does not handle, loses what it has taken
        within the last ``every`` seconds and what could not be stored until then; others are served it from the cache
        for ``2 * every`` seconds and one lease at most. A value is also lost, which is an event (`WritesLost`), when
        storing it has failed ``tries`` times, or once by a mistake of its own (a `ValueError`, say), and when it cannot
        be stored within 5 seconds of ``close()`` or of the process's end. `AsyncCache` stores nothing at the end of the
        process: close it before its loop ends. Where several processes write one key, the one that stores last counts.

        Args:
            template: The key, the same as that of the function that loads: ``{user_id}`` is the attribute, or in a
                mapping the key, of that name in a value.
            ttl: Seconds a value lives once it is stored; by default, as is for how long it is served stale, as for the
                function that loads under the same template, or the cache's own.
            every: Seconds between two rounds of storing.
            batch: How many values one call stores at most. So many start a round at once.
            size: How many keys may wait; one more is refused.
            tries: How often storing a value may fail; each round tries again.
            pipeline: The policies around each call, such as retries and a breaker.
            version: The version of what a value means; by default that of the function that loads.
            type: The type of a value; by default the one in the list that the function says it takes.
            tags: The tags' templates, with names as in the key's.

        Raises:
            ConfigurationError: There is no ttl, a number makes no sense, or the template names nothing.

        Examples:
            ::

                @cache.write_behind("seen:{user_id}", ttl=300)
                def save_seen(seen: list[Seen]) -> None:
                    with Session.begin() as session:
                        session.execute(upsert, [asdict(each) for each in seen])

                save_seen(Seen(user_id=17, at=now))   # Overloaded where 10,000 users wait already
        """
        pace = Pace(every, batch, size, tries, pipeline)
        pace.check()
        check_template(template, "write_behind")
        said = Said(ttl, version)
        policy, names = self._policy_to_write(template, said), tag_templates(tags)

        def decorate(function: AsyncLoader[[list[V]], Any]) -> AsyncWriteBehind[V]:
            made: AsyncWriteBehind[V] = AsyncWriteBehind(
                self, function, template, policy, pace, kind=type, said=said, tags=names
            )
            self._before_close.append(made.drain)
            return made

        return decorate

    async def write(
        self, key: str, store: AsyncLoader[[], Any], plan: Plan, *, keeps: Callable[[Any], bool], present: bool
    ) -> Any:
        """What the functions of `write_through` call."""
        keep = _never if self._off() else keeps
        return await self._engine.write(self.physical(key), store, plan, keeps=keep, present=present)


def _never(_: Any) -> bool:
    return False
