"""Which database a session reads."""

from __future__ import annotations

import uuid
import weakref
from typing import Any

from resilient.errors import needs_extra
from resilient.wire.sql import place

with needs_extra("sql"):
    from sqlalchemy.engine import Engine
    from sqlalchemy.orm import Session

__all__ = ["database_of"]

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
