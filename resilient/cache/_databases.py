"""Which database a session reads, and as of when."""

from __future__ import annotations

import uuid
import weakref
from typing import Any

from resilient.cache._sessions import begun
from resilient.errors import needs_extra
from resilient.wire.sql import place

with needs_extra("sql"):
    from sqlalchemy.engine import Engine
    from sqlalchemy.orm import Session

__all__ = ["database_of", "snapshot_of"]

_MOVING = frozenset({"READ COMMITTED", "READ UNCOMMITTED", "AUTOCOMMIT"})
"""Levels at which every statement sees what was committed before it."""
_in_memory: weakref.WeakKeyDictionary[Engine, str] = weakref.WeakKeyDictionary()


def database_of(session: Session, statement: Any) -> tuple[Any, str]:
    """The dialect a session's statement will be sent in, and what tells its database from others.

    All servers of a replica set are one database; its sessions say which.
    """
    known: tuple[Any, str] | None = getattr(session, "__database__", None)
    if known is not None:
        return known
    engine = session.get_bind(clause=statement).engine
    if engine.url.get_backend_name() == "sqlite" and engine.url.database in (None, "", ":memory:"):
        return engine.dialect, _in_memory.setdefault(engine, f"memory {uuid.uuid4()}")
    return engine.dialect, place(engine)


def snapshot_of(session: Session) -> float | None:
    """Since when a session sees the same data, by the wall clock; ``None`` where its next statement sees the newest.

    Most databases show a transaction what was there when it began. What it reads may then be older than the latest
    invalidation, however late it asks.
    """
    since = begun(session)
    if since is None or not isinstance(session.bind, Engine):
        return since
    options = session.bind.get_execution_options()
    level = options.get("isolation_level") or getattr(session.bind.dialect, "default_isolation_level", None)
    return None if level in _MOVING else since
