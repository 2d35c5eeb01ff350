"""The shared tier behind its breaker: every call bounded, no error to the caller, changes told after an outage."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from resilient import events
from resilient.cache._causal import merged, note, raised
from resilient.cache._entry import FENCE, TOMBSTONE, is_fence, marker, noted_in
from resilient.cache._events import CacheDown, CacheUp, ChangesUntold
from resilient.cache._journal import Journal
from resilient.cache._local_tier import LocalTier
from resilient.cache._refusals import Refusals, root_name
from resilient.cache._seen import Fence, milliseconds
from resilient.cache._timer import AsyncExit, AsyncTimer
from resilient.cache._values import AsyncLoader, AsyncStore, Counts
from resilient.clock import Clock
from resilient.errors import DeadlineExceeded, Unavailable
from resilient.policy import deadline
from resilient.runtime import fork_safe_lock

if TYPE_CHECKING:
    from resilient.policy import Pipeline
    from resilient.policy.classify import Classifier

__all__ = ["UNREACHABLE", "AsyncTier"]

UNREACHABLE: Any = type("Unreachable", (), {"__repr__": lambda _: "UNREACHABLE", "__slots__": ()})()
"""The tier did not answer, or was not asked."""

_BATCH = 500
_EVERY = 0.25  # seconds between two tries to tell what the journal holds; while the breaker is open none is made


Watchers: TypeAlias = "list[Callable[[Sequence[str]], object]]"


def _forget_nothing(_: Sequence[str]) -> None:
    """Nothing is kept."""


class AsyncTier:
    """One store, guarded.

    Args:
        store: The store.
        name: The cache's namespace, for events.
        pipeline: The policies around each call; ``None`` for a store in this process.
        journal: The keys to delete once the store answers again.
        lease: Seconds that a tombstone lasts.
        clock: Where time is read.
        counts: Where calls without an answer are counted.
        watchers: Who is told of changed keys.
        judge: Says what errors of the store mean.
        local: What this process keeps of the store, above it.
    """

    def __init__(
        self,
        store: AsyncStore,
        name: str,
        *,
        pipeline: Pipeline | None,
        journal: Journal,
        lease: float,
        clock: Clock,
        counts: Counts,
        watchers: Watchers,
        judge: Classifier | None = None,
        local: LocalTier | None = None,
    ) -> None:
        self.store = store
        self.journal = journal
        self.down_since: float | None = None
        self._turn = fork_safe_lock()
        """To tell of an outage and of its end, each once."""
        self._name = name
        self._pipeline = pipeline
        self._lease = lease
        self._clock = clock
        self._counts = counts
        self._watchers = watchers
        self._refusals = Refusals(name, judge, clock)
        self._why = ""
        """The class of the last error of the store itself."""
        self._replayed = 0
        self._hooked = False
        self._over = False
        self.timer = AsyncTimer(self.replay, _EVERY, f"cache-{name}-journal")
        self._told = b""
        """What the writers have seen whose changes the journal holds."""
        self.local = local
        self._kept = None if local is None else local.kept
        self.forget: Callable[[Sequence[str]], None] = _forget_nothing if local is None else local.forget
        """Has keys read from the server again, whatever this process keeps of them."""
        if local is not None:
            local.heed(journal)
        self._caught: tuple[type[BaseException], ...] = (*store.failures, Unavailable)
        self._call = None if pipeline is None else pipeline.acall
        self._breaker = None if pipeline is None else pipeline.breaker

    @property
    def trusted(self) -> bool:
        """Whether the tier answers, as far as is known, and was told of all changes."""
        return self.down_since is None and not self.journal.keys

    async def read(self, keys: Sequence[str]) -> Any:
        """The bytes under each key: those that this process keeps, or what the store answers, or `UNREACHABLE`.

        Raises:
            DeadlineExceeded: As of `run`.
        """
        if self._kept is not None:
            kept = self._kept(keys)
            if kept is not None:
                return kept
        look, call = self.store.get_many, self._call
        if call is None:
            return await look(keys)
        if self.down_since is not None or self.journal.keys:
            return await self.run(look, keys)
        try:  # as in `run`; written out, as this is the way of every hit
            return await call(look, keys)
        except DeadlineExceeded:
            raise
        except self._caught as error:
            return self._unanswered(error)

    async def run(self, operation: AsyncLoader[..., Any], *args: Any) -> Any:
        """What an operation of the store returns, or `UNREACHABLE`.

        Raises:
            DeadlineExceeded: The caller has no time left; the store may have been asked before that was so.
        """
        call = self._call
        if call is None:
            return await operation(*args)
        if self.trusted:
            try:  # not as in `_guarded`: what was sent before an outage and answered in it does not end it
                return await call(operation, *args)
            except DeadlineExceeded:
                raise
            except self._caught as error:
                return self._unanswered(error)
        if self._kept_back():
            deadline.check()
            self._counts.add("unreachable")
            return UNREACHABLE  # no call, and no error to make of it
        while self.journal:
            if not await self._retold():
                return UNREACHABLE
        return await self._guarded(operation, *args)

    async def run_anyway(self, operation: AsyncLoader[..., Any], *args: Any) -> Any:
        """The same as `run` for what is right whatever the journal holds, such as giving a lease back."""
        if self._pipeline is None:
            return await operation(*args)
        if self._kept_back():
            return UNREACHABLE
        return await self._guarded(operation, *args)

    def _kept_back(self) -> bool:
        """Whether the breaker is open, so that no call would be made."""
        return self.down_since is not None and self._breaker is not None and bool(self._breaker.retry_after)

    async def change(self, keys: list[str], operation: AsyncLoader[..., Any], *args: Any) -> Any:
        """Run an operation that tells the tier of changed keys; when it fails, remember them."""
        try:
            done = await self.run(operation, *args)
        except BaseException:  # out of time, or cancelled midway: the server may not have heard of it
            self.remember(keys)
            raise
        if done is UNREACHABLE:
            self.remember(keys)
        elif self._watchers:
            self.tell(keys)
        return done

    def tell(self, keys: Sequence[str]) -> None:
        """These keys were changed by this process, now or a moment ago."""
        for watcher in tuple(self._watchers):
            with contextlib.suppress(Exception):  # documented: what it raises is dropped
                watcher(keys)

    async def bury(self, keys: list[str]) -> Any:
        """Invalidate keys: now, or before the tier is trusted again."""
        try:
            return await self.change(keys, self.mark, keys, TOMBSTONE)
        except DeadlineExceeded:
            return UNREACHABLE  # remembered: nothing is lost, and there is no time to tell more

    async def mark(self, keys: list[str], flag: int) -> None:
        """Leave tombstones, or fences; and where a writer's fence stood, another fence in any case.

        That writer now stores nothing itself. But a reader must not either: what it reads could be older than what the
        writer is about to write, and should the writer die, nobody would tell. What this writer has seen stands in
        them, and what stood there before. Whoever else comes between two of these steps is heeded in the next.

        Args:
            keys: The keys.
            flag: `TOMBSTONE` or `FENCE`.
        """
        now, life = self._clock.wall(), milliseconds(self._lease)
        mine = merged(raised(self._told, now) if self.journal else b"", note(now))
        marks = {key: marker(flag, now, self._lease, mine) for key in keys}
        own: dict[str, bytes] = {}
        while marks:
            before = await self.store.exchange_many(marks, life)
            again: dict[str, bytes] = {}
            for (key, mark), was in zip(marks.items(), before, strict=True):
                whole, fence = merged(noted_in(was), noted_in(mark)), is_fence(was) or is_fence(mark)
                if was != own.get(key) and (fence is not is_fence(mark) or whole != noted_in(mark)):
                    again[key] = marker(FENCE if fence else TOMBSTONE, now, self._lease, whole)
            own, marks = marks, again

    async def fence(self, keys: Iterable[str]) -> list[Fence]:
        """Put a fence into each key, which stands for one lease: nobody but its writer stores there.

        Raises:
            DeadlineExceeded: There is no time left; what was fenced until then stands for one lease.
        """
        now = self._clock.wall()
        marks = {key: marker(FENCE, now, self._lease, note(now)) for key in keys}
        if not marks:
            return []
        try:
            before = await self.run(self.store.exchange_many, marks, milliseconds(self._lease))
        except DeadlineExceeded:
            self.remember(list(marks))  # it may have been told or not
            raise
        found = [UNREACHABLE] * len(marks) if before is UNREACHABLE else before
        return [Fence(key, mark, was) for (key, mark), was in zip(marks.items(), found, strict=True)]

    def remember(self, keys: list[str]) -> None:
        """Delete these keys before the tier is trusted again."""
        if self._watchers:
            self.tell(keys)
        if self._pipeline is not None:
            now = self._clock.wall()
            self._told = merged(self._told, note(now)) if self.journal else note(now)
            for key in keys:
                self.journal.add(key)
            self.forget(keys)  # last: what is read from now on is not kept
            self.timer.ensure()
            if not self._hooked:
                self._hooked = True
                AsyncExit.hook(self.tell_the_rest)

    async def replay(self) -> bool:
        """Tell the store what the journal holds, without anybody asking. Whether something is left to tell."""
        while self.journal:
            if self._breaker is not None and self._breaker.retry_after:
                return True  # open: no call is made
            if not await self._retold():
                return True
        return False

    async def close(self) -> None:
        """Tell what the journal still holds, if the store answers: nobody will later."""
        await self.timer.close()
        await self.tell_the_rest()

    async def tell_the_rest(self) -> None:
        """Make a last try, whatever the breaker says; what could not be told is an event."""
        with contextlib.suppress(DeadlineExceeded, *self._caught):
            while (batch := self.journal.begin(_BATCH)) is not None:
                try:
                    if not await self._replay(batch):
                        break
                finally:
                    self.journal.release(batch)
        if self.journal and not self._over:
            self._over = True
            events.emit(ChangesUntold(cache=self._name, keys=len(self.journal)))

    async def _guarded(self, operation: AsyncLoader[..., Any], *args: Any) -> Any:
        deadline.check()
        try:
            result = await self._pipeline.acall(operation, *args)  # type: ignore[union-attr]  # asked in run()
        except DeadlineExceeded:
            raise
        except self._caught as error:
            return self._unanswered(error)
        if self.down_since is not None and not self.journal:
            self._back()
        return result

    def _unanswered(self, error: BaseException) -> Any:
        """The tier failed, or its breaker is open."""
        self._counts.add("unreachable")
        if not isinstance(error, Unavailable):
            self._why = root_name(error)
            self._refusals.note(error)
        self._failed()
        if deadline.remaining() == 0.0:
            raise DeadlineExceeded("the deadline passed while the cache was asked") from error
        return UNREACHABLE

    def _failed(self) -> None:
        if self.down_since is None and self._breaker is not None and self._breaker.state != "closed":
            with self._turn:
                first = self.down_since is None  # of those who failed at this moment
                if first:
                    self.down_since = self._clock.monotonic()
            if first:
                events.emit(CacheDown(cache=self._name, error=self._why))

    def _back(self) -> None:
        with self._turn:
            since, self.down_since = self.down_since, None
            replayed, self._replayed = self._replayed, 0
        if since is not None:
            seconds = self._clock.monotonic() - since
            events.emit(CacheUp(cache=self._name, seconds=seconds, replayed=replayed))

    async def _retold(self) -> bool:
        """Delete one batch of the journal's keys. Whether the caller may go on.

        Where somebody else does so already no call is made, and the breaker hears of none: what was not asked is no
        proof that the tier answers. Until the other is done the tier cannot be trusted.
        """
        batch = self.journal.begin(_BATCH)
        if batch is None:
            deadline.check()
            self._counts.add("unreachable")
            return False
        try:
            return await self._guarded(self._replay, batch) is not UNREACHABLE
        finally:
            self.journal.release(batch)

    async def _replay(self, batch: list[str]) -> bool:
        """Delete these keys. Whether there were any."""
        if batch:
            await self.mark(batch, TOMBSTONE)
        self.journal.done(batch)
        self._replayed += len(batch)
        return bool(batch)
