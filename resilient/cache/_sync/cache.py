# Generated from resilient/cache/_async/cache.py by tools/unasync.py: do not edit.
"""The face of the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Self, TypeVar

from resilient.arguments import check_count, check_seconds
from resilient.cache._codecs import CodecChoice, Codecs, Secret, Settings
from resilient.cache._freshness import Policy
from resilient.cache._journal import Journal
from resilient.cache._keys import check_namespace
from resilient.cache._local import Local, check_local
from resilient.cache._local_tier import LocalTier
from resilient.cache._stamps import namespace_key
from resilient.cache._sync.engine.engine import Engine
from resilient.cache._sync.engine.tier import Tier
from resilient.cache._sync.face.reading import Reading
from resilient.cache._sync.face.sql import SqlFace
from resilient.cache._sync.face.tags import Tagging
from resilient.cache._sync.face.writing import Writing
from resilient.cache._sync.local import LocalStore
from resilient.cache._sync.stores import MemoryStore, RedisStore
from resilient.cache._values import CacheStats, Counts, Store, checked_store, is_store
from resilient.clock import SYSTEM, Clock
from resilient.errors import ConfigurationError
from resilient.runtime import after_fork

if TYPE_CHECKING:
    from resilient.policy import Classifier, Pipeline

__all__ = ["Cache"]

P = ParamSpec("P")
R = TypeVar("R")


class Cache(Reading, Writing, Tagging, SqlFace):
    """A cache that answers while its server is away.

    Args:
        target: The address of a Redis or Valkey server (``redis://127.0.0.1:6379/0``, ``rediss://``, ``unix://``), a
            ready client of redis-py, a store, or nothing: then entries live in this process. A ready client keeps its
            own time limits and retries; one without any limit is refused.
        namespace: What this cache's keys begin with, a word without colons; also its name in events.
        ttl: Seconds for which entries live where nothing else is said; ``None`` demands a ttl at each place.
        jitter: By which part a ttl is shortened at random, at most, so that what was stored together does not end
            together.
        lease: Seconds for which an invalidation keeps loads that began before it from being stored, and for which a
            writer that died keeps a key uncached. Make it longer than the slowest loader and the slowest writer.
        codec: ``safe``, ``json``, ``orjson``, ``pickle`` (needs ``secret``) or a `ValueCodec`.
        compress: ``zlib``, ``zstd`` or nothing, for bodies of more than ``compress_over`` bytes.
        compress_over: Bytes.
        secret: Signs entries; of several the first signs and all verify.
        max_loads: How many loaders run at once in this process; one more waits its turn, at most until its deadline or
            for one lease, and gets `resilient.errors.Overloaded` then. By default 64, and only while the server is
            away, when all that it would have answered falls on the loaders.
        local: How much this process keeps in its own memory of what it reads from the server; by default nothing. It
            is served while a connection of its own tells of every change: one message late, and for a second at most
            once that is cut. For an in-process cache: how much it holds, and how it hands it out.
        size: How many entries an in-process cache holds at most, if ``local`` does not say.
        journal: How many changed keys are remembered at most while the server is away; beyond that all entries of the
            namespace count as changed.
        connect_timeout: Seconds to connect, for clients made here.
        timeout: Seconds for each read or write, for clients made here; a `resilient.policy.deadline` shortens it.
        unbounded: Accept a ready client that could wait for ever.
        clock: Where time is read; tests give a fake one.

    Raises:
        ConfigurationError: An argument is wrong.

    When the server does not answer, reads go to their loaders, writes and invalidations are remembered and told to the
    server before it is trusted again, and a breaker keeps calls from waiting. No error of the server reaches a caller.

    Examples:
        >>> import asyncio
        >>> cache = Cache(namespace="shop", ttl=300)
        >>> cache.set("greeting", "hello")
        >>> cache.get("greeting")
        'hello'
        >>> cache.get("farewell", "none yet")
        'none yet'
    """

    def __init__(
        self,
        target: Any = None,
        *,
        namespace: str = "cache",
        ttl: float | None = None,
        jitter: float = 0.1,
        lease: float = 10.0,
        codec: CodecChoice = "safe",
        compress: Literal["zlib", "zstd"] | None = None,
        compress_over: int = 1024,
        secret: Secret = None,
        max_loads: int | None = None,
        local: Local | None = None,
        size: int = 10_000,
        journal: int = 10_000,
        connect_timeout: float = 0.1,
        timeout: float = 0.05,
        unbounded: bool = False,
        clock: Clock = SYSTEM,
    ) -> None:
        check_namespace(namespace)
        check_local(local)
        for name, seconds in (("lease", lease), ("connect_timeout", connect_timeout), ("timeout", timeout)):
            check_seconds(name, seconds)
        for name, count in (("size", size), ("journal", journal), ("max_loads", 1 if max_loads is None else max_loads)):
            check_count(name, count)
        Policy(lease if ttl is None else ttl, jitter=jitter)  # refuses a wrong default here
        codecs = Codecs(Settings(codec, compress=compress, compress_over=compress_over, secret=secret))
        super().__init__(namespace, codecs, ttl=ttl, jitter=jitter, lease=lease, clock=clock)
        self._max_loads = max_loads
        self._counts = Counts()
        self._watchers: list[Callable[[Sequence[str]], object]] = []
        self._journal_size = journal
        options = {"connect_timeout": connect_timeout, "timeout": timeout, "unbounded": unbounded}
        store, judge = self._open(target, size, local, options)
        self.main = self._make_engine(store, judge)
        self.local = self.main.tier.local
        after_fork(self._forget)

    def _make_engine(self, store: Store, judge: Classifier | None = None) -> Engine:
        tier = Tier(
            store,
            self.namespace,
            pipeline=None if store.local else self._guarded(judge),
            journal=Journal(self._journal_size, namespace_key(self.namespace)),
            lease=self.lease,
            clock=self.clock,
            counts=self._counts,
            judge=judge,
            watchers=self._watchers,
            local=store.tier if isinstance(store, LocalStore) else None,
        )
        return Engine(
            self.namespace,
            tier,
            lease=self.lease,
            clock=self.clock,
            counts=self._counts,
            max_loads=self._max_loads,
        )

    def _guarded(self, judge: Classifier | None) -> Pipeline:
        from resilient.cache._guard import guard  # who keeps all in this process does without policies

        return guard(self.namespace, judge, self.clock)

    def _forget(self) -> None:
        """In a forked child: locks may be held by threads that do not exist, and loads are led by them."""
        self._counts.reset()
        self.main.reset()

    # ----------------------------------------------------------------------------------------------------- the rest

    @contextmanager
    def use(self, store: Store | Cache) -> Iterator[Self]:
        """Keep entries in another store in this block, for the whole process: for tests.

        Args:
            store: A store, or a cache whose store is taken. Raises ConfigurationError where it is neither.
        """
        before = self.main
        other = checked_store(store.store if isinstance(store, Cache) else store, Store)
        self.main = self._make_engine(other)
        self.local = self.main.tier.local
        try:
            yield self
        finally:
            self.main = before
            self.local = before.tier.local

    def watch(self, watcher: Callable[[Sequence[str]], object]) -> Callable[[], None]:
        """Tell a function what this process changes: for whoever keeps what was made of values elsewhere.

        It is told after the change was made, or remembered while the server is away; of a commit, after the commit. It
        may be told more than once, and of a change that did not come about. Other processes tell their own.

        Args:
            watcher: Takes the names of what was changed, as they stand in `Lookup.names`: keys, tags, and the namespace
                for all there is. Called on the thread that makes the change: it must be short and not wait. What it
                raises is dropped.

        Returns:
            A function that ends it.

        Examples:
            >>> import asyncio
            >>> cache, told = Cache(namespace="shop", ttl=300), []
            >>> end = cache.watch(told.extend)
            >>> cache.set("greeting", "hello")
            >>> told
            ['shop:greeting']
            >>> end()
        """
        self._watchers.append(watcher)

        def end() -> None:
            with suppress(ValueError):  # ended before
                self._watchers.remove(watcher)

        return end

    @property
    def everything(self) -> str:
        """The name that all values of this cache have among others in `Lookup.names`: `clear` changes it."""
        return namespace_key(self.namespace)

    @property
    def store(self) -> Store:
        """Where entries are kept at this moment."""
        return self.main.tier.store

    def stats(self) -> CacheStats:
        """What this cache did in this process so far."""
        tier = self.main.tier
        state: Literal["up", "down"] = "up" if tier.down_since is None else "down"
        counted, held = self._counts.read(), {}
        hits = counted.pop("kept", 0)
        if tier.local is not None:
            figures = tier.local.figures()
            held = {"local_entries": figures["entries"], "local_bytes": figures["bytes"]}
            hits += figures["hits"]
        counted["hits"] += hits
        return CacheStats(**counted, **held, local_hits=hits, journal=len(tier.journal), state=state)

    def close(self) -> None:
        """Close the connections that were made here; an in-process cache forgets its entries.

        What waits to be stored by functions of `write_behind` is stored now, and what the server was not told yet of
        changed keys it is told, if it answers.
        """
        for end in self._before_close:
            end()
        self.main.close()
        self.main.tier.store.close()

    def _open(
        self, target: Any, size: int, local: Local | None, options: dict[str, Any]
    ) -> tuple[Store, Classifier | None]:
        """The store for what the user named, and who judges its errors."""
        if target is None:
            much = local or Local(max_entries=size)
            tier = LocalTier(self.namespace, much, self.clock, lease=self.lease)
            tier.always()
            store = MemoryStore(much.max_entries, much.max_bytes, clock=self.clock)
            store.table.beneath(tier)
            return LocalStore(store, tier), None
        if is_store(target):
            if local is not None:
                raise ConfigurationError(
                    "a store of your own tells of no changes, so that nothing of it can be kept beside it",
                    advice="leave out local=, or give the address of a server",
                )
            given: Store = checked_store(target, Store)
            return given, None
        from resilient.wire.redis import classify, open_channel

        server = RedisStore(open_channel(target, **options))
        if local is None:
            return server, classify
        from resilient.wire.redis.tracking import Tracking

        tier = LocalTier(self.namespace, local, self.clock, lease=self.lease)
        tier.changes = Tracking(target, prefix=f"{self.namespace}:", ear=tier, clock=self.clock)
        return LocalStore(server, tier), classify

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(namespace={self.namespace!r})"
