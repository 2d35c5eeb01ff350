"""What all groups of a cache's face share: how values are kept, whom they ask, and when they ask nobody."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from resilient.cache._aside import apart, bypassed
from resilient.cache._async.deferred import deferred
from resilient.cache._async.engine.work import AsyncWork
from resilient.cache._async.host import AsyncHost
from resilient.cache._codecs import ANYTHING, Codec
from resilient.cache._freshness import LoadOptions, Policy
from resilient.cache._keys import physical, tag_names, tag_templates
from resilient.cache._seen import Plan
from resilient.cache._values import AsyncLoader
from resilient.clock import Clock

__all__ = ["AsyncFace"]

_PLANS = 256  # kept for calls that name their options each time


class AsyncFace(AsyncHost):
    """The base of the groups.

    Args:
        namespace: What the keys begin with.
        codec: How values of a type become bytes.
        ttl: Seconds for which entries live where nothing else is said.
        jitter: By which part a ttl is shortened at random, at most.
        lease: Seconds that a lease, a tombstone or a fence lasts.
        clock: Where time is read.
    """

    def __init__(
        self,
        namespace: str,
        codec: Callable[..., Codec],
        *,
        ttl: float | None,
        jitter: float,
        lease: float,
        clock: Clock,
    ) -> None:
        self.namespace = namespace
        self.codec = codec
        self.lease = lease
        self.clock = clock
        self._ttl = ttl
        self._jitter = jitter
        self._plans: dict[Any, Plan] = {}
        self._tagged: dict[str, tuple[str, ...]] = {}
        """The tags of what is loaded lazily, by its key's template: what is written through to it bears the same."""
        self._before_close: list[AsyncLoader[[], None]] = []
        """What is to be done before the cache is closed."""

    @property
    def _engine(self) -> AsyncWork:
        found = deferred(self)
        return self.main if found is None else found

    def physical(self, key: str) -> str:
        """A key as the store knows it."""
        return physical(self.namespace, key)

    # --------------------------------------------------------------------------------------------- how values are kept

    def plan(self, ttl: float | None, tags: tuple[str, ...] = ()) -> Plan:
        """How values of any type are kept for so long, with the tags that they bear."""
        return Plan(self._policy(ttl), self.codec(ANYTHING), tags)

    def _policy(self, ttl: float | None, options: LoadOptions | None = None) -> Policy:
        seconds: Any = self._ttl if ttl is None else ttl
        given: Any = dict(options or {})
        unknown = given.keys() - LoadOptions.__annotations__.keys()
        if unknown:
            raise TypeError(
                f"no option is called {min(unknown)!r}; there are: {', '.join(LoadOptions.__annotations__)}"
            )
        if "early" in given:
            given["early"] = float(given["early"])
        if "cache_errors" in given:
            given["cache_errors"] = tuple(given["cache_errors"])
        return Policy(seconds, jitter=self._jitter, **given)

    def _plan(self, ttl: float | None, kind: Any, options: LoadOptions, tags: Iterable[str] = ()) -> Plan:
        """How the values of one call are kept; made once for calls that say the same, tags aside."""
        if tags:
            return self._plan(ttl, kind, options)._replace(tags=tag_names(tags))
        said = (ttl, kind, *options.items()) if options else (ttl, kind)
        try:
            return self._plans[said]
        except KeyError:
            if len(self._plans) >= _PLANS:
                self._plans.clear()
            return self._plans.setdefault(said, Plan(self._policy(ttl, options), self.codec(kind)))
        except TypeError:  # what cannot be hashed, such as a list of errors, is made anew each time
            return Plan(self._policy(ttl, options), self.codec(kind))

    def _note_tags(self, template: str | None, tags: Iterable[str]) -> tuple[str, ...]:
        names = tag_templates(tags)
        if template is not None and names:
            self._tagged[template] = tuple(dict.fromkeys((*self._tagged.get(template, ()), *names)))
        return names

    def tags_under(self, template: str) -> tuple[str, ...]:
        """The templates of the tags of what is loaded lazily under a key's template."""
        return self._tagged.get(template, ())

    # ---------------------------------------------------------------------------------------------------------- bypass

    def _off(self) -> bool:
        return id(self) in bypassed.get()

    @contextmanager
    def bypass(self) -> Iterator[None]:
        """Do without the cache in this block: reads go to their loaders, writes invalidate.

        It holds for this task or thread and those it starts, not for others.
        """
        token, also = bypassed.set(bypassed.get() | {id(self)}), apart.set(True)
        try:
            yield
        finally:
            apart.reset(also)
            bypassed.reset(token)
