"""What a SQLAlchemy session has done in its transaction: whether it wrote, to which tables, since when it reads.

The cache asks this before it answers a query, and when a transaction commits. A session is watched from its first
statement: by listeners for all sessions, and by two more for each engine that a session has used.
"""

from __future__ import annotations

import re
import weakref
from typing import Any

from resilient.cache._statements import tables_in, written_in
from resilient.clock import SYSTEM
from resilient.errors import ConfigurationError, needs_extra

with needs_extra("sql"):
    from sqlalchemy import event
    from sqlalchemy.engine import Connection, Engine
    from sqlalchemy.orm import Session, SessionTransaction, object_mapper

__all__ = ["ending", "plain", "snapshot_of", "tables", "wrote"]

_HARMLESS = re.compile(
    r"\s*(?:/\*.*?\*/\s*)*\(*\s*(SELECT|SHOW|EXPLAIN|DESCRIBE|DESC|PRAGMA|VALUES|SET|SAVEPOINT|RELEASE|ROLLBACK|BEGIN)\b",
    re.IGNORECASE | re.DOTALL,
)
_ISOLATION = re.compile(r"isolation", re.IGNORECASE)
_MOVING = frozenset({"READ COMMITTED", "READ UNCOMMITTED", "AUTOCOMMIT"})
"""Levels at which every statement sees what was committed before it."""


class _Doings:
    """What one connection did in one transaction of a session."""

    __slots__ = ("began", "ending", "moving", "tables", "wrote")

    def __init__(self, *, wrote: bool, moving: bool = False) -> None:
        self.wrote = wrote
        self.moving = moving
        """Its next statement sees what was committed since it began."""
        self.ending = False
        """Its COMMIT was sent."""
        self.tables: set[str] = set()
        self.began = SYSTEM.wall()


_sessions: weakref.WeakKeyDictionary[Session, list[_Doings]] = weakref.WeakKeyDictionary()
_connections: weakref.WeakKeyDictionary[Connection, _Doings] = weakref.WeakKeyDictionary()
_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


# ---------------------------------------------------------------------------------------------------------- questions


def plain(session: Any, *, asynchronous: bool) -> Session:
    """The plain session that does the work of what a caller calls a session.

    Args:
        session: A Session, an AsyncSession, or a scoped one of them.
        asynchronous: Whether the cache that asks is an async one.

    Raises:
        ConfigurationError: It is none, or one of the other world: its commit could not wait for the cache.
    """
    if callable(getattr(session, "registry", None)):  # scoped_session, async_scoped_session
        session = session.registry()
    inner = getattr(session, "sync_session", None)
    found = session if inner is None else inner
    if not isinstance(found, Session):
        raise ConfigurationError(
            f"a {type(session).__name__} is no session of SQLAlchemy", advice="pass a Session or an AsyncSession"
        )
    if (inner is not None) is not asynchronous:
        face, kind = ("Cache", "a Session") if inner is None else ("AsyncCache", "an AsyncSession")
        raise ConfigurationError(
            f"this cache cannot follow this session: {kind} goes with {face}",
            advice="use the other face, over the same server and namespace: both read the same entries",
        )
    return found


def wrote(session: Session) -> bool:
    """Whether its transaction has written, or is about to. Also true where that is not known."""
    if session.new or session.dirty or session.deleted:
        return True
    if not session.in_transaction():
        return False
    return any(each.wrote for each in _of(session))


def snapshot_of(session: Session) -> float | None:
    """Since when a session sees the same data, by the wall clock; ``None`` where its next statement sees the newest.

    Most databases show a transaction what was there when it began. What it reads may then be older than the latest
    invalidation, however late it asks.
    """
    begun = _of(session) if session.in_transaction() else []
    return min((each.began for each in begun if not each.moving), default=None)


def ending(session: Session) -> bool:
    """Whether a COMMIT was sent for its transaction."""
    return any(each.ending for each in _sessions.get(session, ()))  # also asked when the transaction has ended


def tables(session: Session) -> set[str]:
    """The tables to which its transaction wrote, also by pending changes of its objects."""
    names = set().union(*(each.tables for each in _sessions.get(session, ())))
    for each in (*session.new, *session.dirty, *session.deleted):
        for table in object_mapper(each).tables:
            names.update(tables_in(table))
    return names


def _of(session: Session) -> list[_Doings]:
    found = _sessions.get(session)
    if found is None:
        # It began before this module was there to see it.
        found = _sessions[session] = [_Doings(wrote=True)] if session.in_transaction() else []
    return found


# ---------------------------------------------------------------------------------------------------------- listeners


@event.listens_for(Session, "after_transaction_create")
def _created(session: Session, transaction: SessionTransaction) -> None:
    if transaction.parent is None:
        _sessions[session] = []


@event.listens_for(Session, "after_begin")
def _after_begin(session: Session, _transaction: SessionTransaction, connection: Connection) -> None:
    known = _connections.get(connection)
    # A session may join a transaction that its caller began on this connection, and wrote in.
    joined = isinstance(session.bind, Connection) and known is None
    if known is not None and connection.in_nested_transaction():
        doings = known
    else:
        level = connection.get_execution_options().get("isolation_level") or connection.default_isolation_level
        doings = _Doings(wrote=joined, moving=not joined and level in _MOVING)
    if not any(each is doings for each in _of(session)):
        _of(session).append(doings)
    _connections[connection] = doings
    if connection.engine not in _engines:
        _engines.add(connection.engine)
        event.listen(connection.engine, "before_cursor_execute", _executing)
        event.listen(connection.engine, "commit", _committing)
        event.listen(connection.engine, "prepare_twophase", _committing)


def _executing(connection: Connection, _cursor: Any, text: str, _parameters: Any, context: Any, _many: bool) -> None:  # noqa: FBT001 - SQLAlchemy's signature
    doings = _connections.get(connection)
    if doings is None:
        return
    if _HARMLESS.match(text):
        if _ISOLATION.search(text):
            doings.moving = False  # which level that is, and from when, only the database knows
        return
    names, writes = written_in(None if context is None else context.compiled, text)
    if writes:
        doings.wrote = True
        doings.tables |= names


def _committing(connection: Connection, *_: Any) -> None:
    doings = _connections.get(connection)
    if doings is not None:
        doings.ending = True
