"""The record of work done: what makes a message that comes twice have one effect.

A `Store` keeps the record. `SqlStore` writes it in the transaction of the effect itself, which is the only way to
exactly one effect; `MemoryStore` keeps it in this process.

Work is claimed by its key and ends in one of four outcomes: `New` (it is yours), `InProgress` (another works on it),
`Done` (with the result it had), `Mismatch` (the same key with another payload).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resilient.ledger._record import Claim, Done, InProgress, Mismatch, New, Outcome
from resilient.ledger._store import MemoryStore, Store

if TYPE_CHECKING:
    from resilient.ledger._sql import SqlStore

__all__ = [
    "Claim",
    "Done",
    "InProgress",
    "MemoryStore",
    "Mismatch",
    "New",
    "Outcome",
    "SqlStore",
    "Store",
    "create_tables",
]


def create_tables(bind: Any) -> None:
    """Create the ledger's table, and those of every other room in use, where they do not exist yet.

    Args:
        bind: An engine or a connection of SQLAlchemy.

    Examples:
        >>> import sqlalchemy as sa
        >>> engine = sa.create_engine("sqlite://")
        >>> create_tables(engine)
        >>> sa.inspect(engine).has_table("resilient_ledger")
        True
        >>> engine.dispose()
    """
    import resilient.ledger._sql  # noqa: F401 - declares the table
    from resilient.wire import sql

    sql.create_tables(bind)


def __getattr__(name: str) -> Any:
    if name == "SqlStore":  # needs SQLAlchemy, which the other stores do not
        from resilient.ledger._sql import SqlStore

        return SqlStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
