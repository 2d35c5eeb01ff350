"""The cache follows a transaction of Django."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Collection, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self, overload

from django.core.cache.backends.base import DEFAULT_TIMEOUT
from django.db import DEFAULT_DB_ALIAS, transaction

from resilient.cache import Cache
from resilient.cache.rooms import UNKNOWN, After, Changes, Entry, Fence, deferring
from resilient.errors import ConfigurationError, ResilientError

__all__ = ["BackendOnCommit", "OnCommit", "on_commit"]


@overload
def on_commit(  # pyright: ignore[reportOverlappingOverload]  # Django's caches have no type: any other is one of them
    cache: Cache, using: str | None = None
) -> OnCommit: ...


@overload
def on_commit(cache: Any, using: str | None = None) -> BackendOnCommit: ...


def on_commit(cache: Any, using: str | None = None) -> OnCommit | BackendOnCommit:
    """Change the cache when, and only when, a transaction of Django commits.

    In the block, and on the object it gives, all changes of this cache (``set``, ``invalidate``, ``invalidate_tags``,
    functions of ``write_through``) are collected, and made by ``transaction.on_commit``: those of a savepoint that is
    rolled back are dropped with it, and outside of any transaction they are made at once.

    With ``django.core.cache.cache``, or one of its ``caches``, whose backend is `resilient.django.cache.Cache`, keys
    and methods are Django's: ``after.set(key, value, timeout)``, ``after.delete(key)``.

    Django tells nobody that a COMMIT is about to come, so each key is fenced when its change is collected, for one
    lease of the cache. From then on until the commit readers load it for themselves, and after a rollback that this
    block does not see they do so for the rest of the lease. A transaction that takes longer than the lease after that,
    and whose process dies between COMMIT and the change of the cache, leaves the old value for its ttl: make the lease
    longer than your transactions. A function of ``lazy`` that is called in the block and in a transaction is answered
    from the cache, or runs without storing what it gives: it may read what is not committed yet.

    Args:
        cache: A `resilient.cache.Cache`, or a cache of Django that is one behind.
        using: The database whose transaction it is; the default one where nothing is said.

    Raises:
        ConfigurationError: It is neither.

    Examples:
        The cache is told with the commit:

            with transaction.atomic(), on_commit(cache) as after:
                player.save()
                after.set(f"player:{player.pk}", {"score": player.score})
    """
    if isinstance(cache, Cache):
        return OnCommit(cache, using or DEFAULT_DB_ALIAS)
    if isinstance(getattr(cache, "cache", None), Cache) and hasattr(cache, "make_key"):
        return BackendOnCommit(cache, using or DEFAULT_DB_ALIAS)
    raise ConfigurationError(
        f"a {type(cache).__name__} cannot follow a transaction of Django",
        advice="pass a resilient.cache.Cache, or a cache of Django whose BACKEND is resilient.django.cache.Cache",
    )


class _Change:
    """Changes that wait for a commit. Django alone holds them: once they are gone, they were rolled back."""

    __slots__ = ("__weakref__", "_batch", "changes")

    def __init__(self, batch: _Batch, changes: Changes) -> None:
        self._batch = batch
        self.changes = changes

    def committed(self) -> None:
        """What Django calls after the commit."""
        self._batch.finish()


class _Batch:
    """The changes of one block, until their transaction has ended."""

    def __init__(self, cache: Cache, using: str) -> None:
        self._cache = cache
        self._using = using
        self._changes: list[weakref.ref[_Change]] = []
        self._fences: dict[str, Fence] = {}
        self._tags: dict[str, Fence] = {}
        self._stamps = UNKNOWN

    # ------------------------------------------------------------------------------------------- what `Deferred` asks

    def wrote(self) -> bool:
        """Whether a transaction runs: what it has written nobody tells."""
        return bool(transaction.get_connection(self._using).in_atomic_block)

    def find(self, key: str) -> tuple[bool, Entry | None]:
        """Whether a key is among the changes, and its new entry."""
        for change in reversed(list(self._alive())):
            if key in change.changes.keys:
                return True, change.changes.keys[key]
        return False, None

    def forgets(self, tags: Collection[str]) -> bool:
        """Whether one of these tags is to be forgotten, or everything is."""
        changes = [change.changes for change in self._alive()]
        return any(each.everything or not each.tags.keys().isdisjoint(tags) for each in changes)

    def collect(self, changes: Changes) -> None:
        """Fence the keys, and have the changes made after the commit."""
        if self.wrote():
            self._fence(changes)
        change = _Change(self, changes)
        self._changes.append(weakref.ref(change))
        transaction.on_commit(change.committed, using=self._using, robust=True)

    def _fence(self, changes: Changes) -> None:
        engine = self._cache.main
        borne = (*self._stamps.names, *changes.borne())
        if changes.entries() and (not self._stamps.raws or set(borne) - set(self._stamps.names)):
            # Stamps that were taken before stay as they were: another may have changed them since.
            stamps = engine.stampbook.taken(borne)
            self._stamps = stamps.changed(dict(enumerate(self._stamps.raws)))
        new = [key for key in changes.keys if key not in self._fences]
        for fence in engine.commits.begin(new) if new else ():
            self._fences[fence.key] = fence
        keys = engine.stampbook.keys(tuple(changes.tags))[0 if changes.everything else 1 :]
        for each in engine.tier.fence([key for key in keys if key not in self._tags]):
            self._tags[each.key] = each

    # ------------------------------------------------------------------------------------------------------- its end

    def _alive(self) -> Iterator[_Change]:
        for each in self._changes:
            change = each()
            if change is not None:
                yield change

    def finish(self) -> None:
        """After the commit: make all that was not rolled back."""
        changes = Changes()
        for each in self._alive():
            changes.update(each.changes)
        self._changes.clear()
        with contextlib.suppress(ResilientError):  # no time left: the fences stand for one lease
            self._make(changes)

    def _make(self, changes: Changes) -> None:
        fences, self._fences = self._fences, {}
        tags, self._tags = self._tags, {}
        stamps, self._stamps = self._stamps, UNKNOWN
        engine, entries = self._cache.main, changes.entries()
        names = tuple(changes.tags)
        changed = set(engine.stampbook.keys(names)[0 if changes.everything else 1 :])
        ended = [fence for key, fence in tags.items() if key in changed]
        if names or changes.everything:  # first, so that the new entries bear the new stamps
            stamps = engine.tags.finish(ended, names, stamps, everything=changes.everything)
        engine.tags.cancel([fence for key, fence in tags.items() if key not in changed])
        fenced = [fence for key, fence in fences.items() if key in changes.keys]
        if fenced:
            engine.commits.finish(fenced, entries, stamps, present=changes.present)
        # Outside of any transaction nothing is fenced, and of a block that failed nothing is stored.
        bare = [key for key in changes.keys if key not in fences]
        stored = [key for key in bare if key in entries and key not in changes.present]
        for key in stored:
            engine.put(key, entries[key])
        forgotten = [key for key in bare if key not in stored]
        if forgotten:
            engine.invalidate(forgotten)
        dropped = [fence for key, fence in fences.items() if key not in changes.keys]
        if dropped:
            engine.commits.cancel(dropped)

    def left(self, *, failed: bool) -> None:
        """The block is over: lift the fences of what was rolled back, or is about to be."""
        alive = list(self._alive())
        if failed:
            for each in alive:
                each.changes.only_forget()  # should it be committed all the same
        keys = set() if failed else {key for each in alive for key in each.changes.keys}
        gone = [fence for key, fence in self._fences.items() if key not in keys]
        self._fences = {key: fence for key, fence in self._fences.items() if key in keys}
        engine = self._cache.main
        kept = set(engine.stampbook.keys({tag for each in alive for tag in each.changes.tags} if not failed else ()))
        if failed or not any(each.changes.everything for each in alive):
            kept.discard(engine.stampbook.namespace)
        lifted = [fence for key, fence in self._tags.items() if key not in kept]
        self._tags = {key: fence for key, fence in self._tags.items() if key in kept}
        with contextlib.suppress(ResilientError):  # no time left: they stand for one lease
            engine.commits.cancel(gone)
            engine.tags.cancel(lifted)


class OnCommit(After):
    """What `on_commit` gives: a block, and in it the changes that belong to the transaction."""

    def __init__(self, cache: Cache, using: str) -> None:
        self._batch = _Batch(cache, using)
        super().__init__(cache, self._batch)
        self._block = contextlib.ExitStack()

    def collecting(self) -> contextlib.AbstractContextManager[None]:
        """Collect, in this block, what is changed in the cache."""
        return deferring(self._cache, self._engine)

    def __enter__(self) -> Self:
        self._block.enter_context(self.collecting())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._block.close()
        self._batch.left(failed=kind is not None)


class BackendOnCommit:
    """What `on_commit` gives for a cache of Django: its methods are Django's, and take effect after the commit.

    Args:
        backend: The cache of Django.
        using: The database whose transaction it is.
    """

    def __init__(self, backend: Any, using: str) -> None:
        self._backend = backend
        self._inner = OnCommit(backend.cache, using)

    def set(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> None:
        """Store a value, after the commit."""
        with self._inner.collecting():
            self._backend.set(key, value, timeout, version=version)

    def set_many(self, data: Mapping[Any, Any], timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> None:
        """Store several values, after the commit."""
        with self._inner.collecting():
            self._backend.set_many(data, timeout, version=version)

    def delete(self, key: Any, version: int | None = None) -> None:
        """Forget a value, after the commit."""
        self.delete_many([key], version=version)

    def delete_many(self, keys: Iterable[Any], version: int | None = None) -> None:
        """Forget several values, after the commit."""
        with self._inner.collecting():
            self._backend.delete_many(keys, version=version)

    def clear(self) -> None:
        """Forget everything in the cache's namespace, after the commit."""
        with self._inner.collecting():
            self._backend.clear()

    def invalidate_tags(self, *tags: str) -> None:
        """Forget all that bears one of these tags, after the commit; they are given by the cache behind."""
        self._inner.invalidate_tags(*tags)

    def __enter__(self) -> Self:
        self._inner.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._inner.__exit__(kind, error, trace)
