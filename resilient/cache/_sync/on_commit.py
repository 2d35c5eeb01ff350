# Generated from resilient/cache/_async/on_commit.py by tools/unasync.py: do not edit.
"""The cache follows a transaction of SQLAlchemy: fenced before its COMMIT, changed after it, untouched without it."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from types import TracebackType
from typing import Any, Self

from sqlalchemy import event
from sqlalchemy.orm import Session, SessionTransaction

from resilient.cache._bridge import Bridge
from resilient.cache._entry import Entry
from resilient.cache._functions import Mode
from resilient.cache._pending import Changes, Pending
from resilient.cache._seen import Fence
from resilient.cache._stamps import UNKNOWN, Stamps
from resilient.cache._sync.deferred import After, deferring
from resilient.cache._sync.host import Host
from resilient.cache._transactions import ending, plain, tables, wrote
from resilient.errors import ResilientError

__all__ = ["Commit", "OnCommit"]

_INFO = "resilient_cache"


class Commit:
    """The changes of one cache that wait for the commits of one session. It lives as long as the session does.

    Args:
        cache: The cache.
        session: The session, the plain one.
    """

    def __init__(self, cache: Host, session: Session) -> None:
        self.cache = cache
        self._session = session
        self._pending = Pending()
        self._fences: list[Fence] = []
        self._tag_fences: list[Fence] = []
        self._stamps = UNKNOWN
        self._tags: tuple[str, ...] = ()
        self._kept: SessionTransaction | None = None
        self.commits = 0
        """How many commits it saw since the block began."""
        savepoint = session.get_nested_transaction()
        if savepoint is not None:
            self._pending.begin(savepoint)
        for name, listener in (
            ("after_transaction_create", self._created),
            ("before_commit", self._before_commit),
            ("after_commit", self._after_commit),
            ("after_transaction_end", self._after_end),
        ):
            event.listen(session, name, listener)

    @classmethod
    def of(cls, cache: Host, session: Session) -> Commit:
        """The one for a cache and a session."""
        made: dict[int, Commit] = session.info.setdefault(_INFO, {})
        found = made.get(id(cache))
        if found is None:
            found = made[id(cache)] = cls(cache, session)
        return found

    # ------------------------------------------------------------------------------------------- what `Deferred` asks

    def wrote(self) -> bool:
        """Whether the session's transaction has written."""
        return wrote(self._session)

    def find(self, key: str) -> tuple[bool, Entry | None]:
        """Whether a key is among the changes, and its new entry."""
        return self._pending.find(key)

    def forgets(self, tags: Collection[str]) -> bool:
        """Whether one of these tags is to be forgotten, or everything is."""
        return self._pending.forgets(tags)

    def collect(self, changes: Changes) -> None:
        """Keep changes for the commit; after it, with no other transaction begun, they are made at once."""
        if self.commits and not self._session.in_transaction():
            self._apply(changes)
        else:
            self._pending.top.update(changes)

    # ------------------------------------------------------------------------------------------------ the block's end

    def left(self, *, failed: bool) -> None:
        """The block is over; the transaction may not be."""
        if failed:
            self._pending.only_forget()  # what it would have become is unknown, should it be committed all the same
        if self._pending and not self._session.in_transaction():
            # No transaction was begun: the changes are made now, and their keys forgotten by the one that may follow.
            self._apply(self._pending.whole())
            self._pending.only_forget()

    def _apply(self, changes: Changes) -> None:
        engine = self.cache.main
        if changes.everything:
            engine.clear()
        engine.invalidate_tags(changes.tags)
        for key, entry in changes.keys.items():
            if entry is not None and key not in changes.present:
                engine.put(key, entry)
        forgotten = [key for key, entry in changes.keys.items() if entry is None or key in changes.present]
        if forgotten:
            engine.invalidate(forgotten)

    # --------------------------------------------------------------------------------------------------- the listeners

    def _created(self, _session: Session, transaction: SessionTransaction) -> None:
        if transaction.nested:
            self._pending.begin(transaction)

    def _before_commit(self, session: Session) -> None:
        if session.in_nested_transaction():
            return
        session.flush()  # what is flushed may change the cache, and should fail before anything is fenced
        Bridge.wait(self._fence)

    def _after_commit(self, session: Session) -> None:
        if session.in_nested_transaction():
            self._kept = session.get_nested_transaction()
            return
        self.commits += 1
        Bridge.wait(self._finish)

    def _after_end(self, _session: Session, transaction: SessionTransaction) -> None:
        if transaction.nested:
            self._pending.end(transaction, kept=transaction is self._kept)
        elif transaction.parent is None and (self._pending or self._fences or self._tag_fences):
            with contextlib.suppress(ResilientError):  # no time left: the fences go by themselves
                Bridge.wait(self._ended)

    # ----------------------------------------------------------------------------------------------------- the steps

    def _changed(self, changes: Changes) -> tuple[str, ...]:
        """The tags that this transaction changes: those it was told of, and those of the tables it wrote to."""
        return tuple(dict.fromkeys((*changes.tags, *(f"table:{name}" for name in sorted(tables(self._session))))))

    def _fence(self) -> None:
        """Before COMMIT: nobody caches what is about to become old."""
        changes, engine = self._pending.whole(), self.cache.main
        self._tags = self._changed(changes)
        if changes.entries():
            self._stamps = engine.stampbook.taken(changes.borne())
        if changes.keys:
            self._fences = engine.commits.begin(list(changes.keys))
        if self._tags or changes.everything:
            self._tag_fences = engine.tags.fence(self._tags, everything=changes.everything)

    def _finish(self) -> None:
        """After COMMIT: the new values, or none. The commit has happened, whatever becomes of this."""
        fences, tag_fences, stamps, tags = self._taken()
        changes, engine = self._pending.take(), self.cache.main
        everything, tags = changes.everything, tuple(dict.fromkeys((*tags, *changes.tags)))
        with contextlib.suppress(ResilientError):  # no time left: the fences stand for one lease, the journal remembers
            if tags or everything:  # first, so that the new entries bear the new stamps
                stamps = engine.tags.finish(tag_fences, tags, stamps, everything=everything)
            engine.commits.finish(fences, changes.entries(), stamps, present=changes.present)

    def _taken(self) -> tuple[list[Fence], list[Fence], Stamps, tuple[str, ...]]:
        """What was put before the COMMIT, which is now for the caller to end."""
        taken = self._fences, self._tag_fences, self._stamps, self._tags
        self._fences, self._tag_fences, self._stamps, self._tags = [], [], UNKNOWN, ()
        return taken

    def _ended(self) -> None:
        """The transaction ended without a commit, or without one that was confirmed."""
        fences, tag_fences, stamps, tags = self._taken()
        everything, engine = self._pending.whole().everything, self.cache.main
        self._pending = Pending()
        if not ending(self._session):
            engine.tags.cancel(tag_fences)
            engine.commits.cancel(fences)
            return
        engine.tags.finish(tag_fences, tags, stamps, everything=everything and bool(tag_fences))
        engine.commits.finish(fences, {}, stamps)


class OnCommit(After):
    """What ``on_commit`` gives: a block, and in it the changes that belong to the transaction."""

    def __init__(self, cache: Host, session: Any) -> None:
        self._commit = Commit.of(cache, plain(session, asynchronous=Mode.asynchronous))
        super().__init__(cache, self._commit)
        self._block = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._commit.commits = 0
        self._block.enter_context(deferring(self._cache, self._engine))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._block.close()
        self._commit.left(failed=kind is not None)
