"""What all groups of a cache's face share: how values are kept, whom they ask, and when they ask nobody."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from resilient.cache._aside import apart, bypassed
from resilient.cache._async.deferred import deferred
from resilient.cache._async.engine.work import AsyncBypass, AsyncLoading, AsyncWork
from resilient.cache._async.host import AsyncHost
from resilient.cache._codecs import ANYTHING, Codec
from resilient.cache._freshness import Loaded, LoadOptions, Policy, Said
from resilient.cache._keys import physical, tag_names
from resilient.cache._seen import Plan
from resilient.cache._values import AsyncLoader
from resilient.clock import Clock

__all__ = ["AsyncFace"]

_OWN = ("ttl", "type", "tags")
"""The options that every call with a loader has, beside `LoadOptions`."""
_BYPASS = AsyncBypass()
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
        self._loaded: dict[str, Loaded] = {}
        """How what is loaded lazily is kept, by its key's template: what is written to it is kept the same way."""
        self._before_close: list[AsyncLoader[[], None]] = []
        """What is to be done before the cache is closed."""

    @property
    def _engine(self) -> AsyncWork:
        found = deferred(self)
        return self.main if found is None else found

    def work(self) -> AsyncLoading:
        """What loads where `apart` holds: the engine, what collects for a commit, or what does without the cache."""
        return _BYPASS if self._off() else self._engine

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
                f"no option is called {min(unknown)!r}; there are: {', '.join((*_OWN, *LoadOptions.__annotations__))}"
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

    def _note(self, template: str | None, loaded: Loaded) -> None:
        if template is not None:
            before = self._loaded.get(template)
            self._loaded[template] = loaded if before is None else before.also(loaded)

    def loaded_under(self, template: str) -> Loaded | None:
        """What is known of the functions that load lazily under a key's template."""
        return self._loaded.get(template)

    def _policy_to_write(self, template: str, said: Said) -> Policy:
        """How a function that writes keeps its values, as far as is known before those that load are defined."""
        loaded = self.loaded_under(template)
        ttl = loaded.policy.ttl if said.ttl is None and self._ttl is None and loaded is not None else said.ttl
        return self._policy(ttl, {"version_of": said.version_of})

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
