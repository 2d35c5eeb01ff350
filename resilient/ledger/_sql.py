"""The record of work in the same transaction as its effect: both are committed, or neither is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Any

from resilient.clock import SYSTEM, Clock
from resilient.errors import InvalidInput, Refused, Unavailable, needs_extra
from resilient.ledger._record import Claim, Done, InProgress, Mismatch, New, Outcome

with needs_extra("sql"):
    import sqlalchemy as sa
    from sqlalchemy import event
    from sqlalchemy.dialects import mysql, postgresql, sqlite
    from sqlalchemy.exc import DBAPIError, IntegrityError
    from sqlalchemy.orm import Session

from resilient.policy.classify import Failure
from resilient.wire import sql

__all__ = ["SqlClaim", "SqlStore", "table"]

_MAX_RESULT = 60_000  # bytes: a BLOB of MySQL holds 65,535

table = sa.Table(
    "resilient_ledger",
    sql.metadata,
    # A digest of the key: of one length, and compared byte by byte whatever the database's collation is.
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("payload_hash", sa.String(64), nullable=False),
    sa.Column("owner", sa.String(100), nullable=False),
    sa.Column("result", sa.LargeBinary(_MAX_RESULT)),
    sa.Column("at", sa.Double(), nullable=False, index=True),
)

_AWAY = {Failure.UNAVAILABLE, Failure.TIMEOUT, Failure.TRANSIENT, Failure.READ_ONLY}
_BUSY_CODES = {1205, 1213}  # MySQL and MariaDB: lock wait timeout, deadlock
_BUSY_STATES = {"55P03", "40P01", "40001"}  # PostgreSQL: lock not available, deadlock, serialization failure


@dataclass(slots=True)
class SqlClaim(Claim):
    """The right to do one piece of work inside the transaction of ``session``."""

    transaction: Any = None
    stack: ExitStack = field(default_factory=ExitStack)
    completing: bool = False


class SqlStore:
    """Keeps the record in the transaction of the effect itself.

    `claim` opens a session and inserts the record before anything else; the handler writes its effect through the same
    session; `complete` commits both. A process killed at any point leaves both or neither. A second worker with the
    same key waits on the record's row for at most ``lock_wait`` seconds and is then told that work is in progress.

    Args:
        session: A ``sessionmaker``, or any callable that returns a session or a context manager of one.
        route: Chooses the database by the decoded payload, for sharded effects: takes the payload, returns a session
            or a context manager of one. The record then stands on the shard of the effect.
        lock_wait: Seconds a second worker waits on the row. SQLite takes one writer at a time, whatever it writes: the
            others wait as long as their connection's ``timeout``, and a consumer longer, with its message in hand.
        clock: Where the time of the record comes from.

    The handler must not end the transaction itself: a ``commit`` in it raises Refused.

    Examples:
        >>> import sqlalchemy as sa
        >>> from sqlalchemy.orm import sessionmaker
        >>> from resilient.ledger import create_tables
        >>> engine = sa.create_engine("sqlite://")
        >>> create_tables(engine)
        >>> store = SqlStore(sessionmaker(engine))
        >>> granted = store.claim("order-1", owner="me", lease=30)
        >>> store.complete(granted.claim, b"42")
        True
        >>> store.claim("order-1", owner="you", lease=30)
        Done(result=b'42')
        >>> engine.dispose()
    """

    guarantee = "exactly once, for effects written through the session that is handed out"

    def __init__(
        self,
        session: Callable[[], Session | AbstractContextManager[Session]] | None = None,
        *,
        route: Callable[[Any], Session | AbstractContextManager[Session]] | None = None,
        lock_wait: float = 1.0,
        clock: Clock = SYSTEM,
    ) -> None:
        if (session is None) == (route is None):
            raise InvalidInput("a SqlStore takes a sessionmaker, or route=", advice="pass one of both")
        if not callable(session or route):
            raise InvalidInput(
                f"a SqlStore takes what makes sessions, not {session or route!r}",
                advice="write SqlStore(sessionmaker(engine))",
            )
        self._session = session
        self._route = route
        self._lock_wait = lock_wait
        self._clock = clock

    def claim(self, key: str, *, owner: str, lease: float, payload_hash: str = "", about: Any = None) -> Outcome:  # noqa: ARG002 - the lease is the transaction
        """Open a transaction and insert the record in it.

        Raises:
            Unavailable: The database is not there, or is SQLite and busy with another writer; nothing was done.
            ConfigurationError: The database has no table for the record.
        """
        digest = _digest(key)
        values = {
            "id": digest,
            "name": key[:255],
            "payload_hash": payload_hash,
            "owner": owner[:100],
            "at": self._clock.wall(),
        }
        with ExitStack() as stack:
            session = stack.enter_context(self._open(about))
            # A caller's own context manager may commit when it is left; unless granted, nothing may stay.
            stack.callback(session.rollback)
            try:
                with sql.needs_table(table.name):
                    inserted = self._insert(session, values)
                known = None if inserted else _find(session, digest)
            except DBAPIError as error:
                if _busy(error):
                    return InProgress()
                if _locked(error):
                    raise Unavailable("SQLite takes one writer at a time, and another writes") from error
                verdict = sql.classify(error)
                if verdict is None or verdict.failure not in _AWAY:
                    raise
                raise Unavailable("the ledger's database cannot be reached; nothing was done") from error
            if not inserted:
                return _outcome(known, payload_hash)
            granted = SqlClaim(key, owner, 1, session, session.get_transaction())
            _guard(session, granted)
            granted.stack = stack.pop_all()
            return New(granted)

    def _open(self, about: Any) -> AbstractContextManager[Session]:
        if self._route is not None:
            return self._route(about)
        assert self._session is not None  # noqa: S101 - checked in __init__; tells the type checker
        return self._session()

    def _insert(self, session: Session, values: dict[str, Any]) -> bool:
        """Insert the record; False if its key is there already."""
        bind = session.get_bind(clause=table.insert())
        name = bind.dialect.name
        if name == "sqlite":
            return _count(session, sqlite.insert(table).values(values).on_conflict_do_nothing()) == 1
        if name == "postgresql":
            session.execute(sa.text(f"SET LOCAL lock_timeout = {int(self._lock_wait * 1000)}"))
            made = _count(session, postgresql.insert(table).values(values).on_conflict_do_nothing()) == 1
            session.execute(sa.text("SET LOCAL lock_timeout TO DEFAULT"))
            return made
        if name in ("mysql", "mariadb"):
            return self._insert_mysql(session, values)
        try:
            return _count(session, table.insert().values(values)) == 1
        except IntegrityError:
            session.rollback()
            return False

    def _insert_mysql(self, session: Session, values: dict[str, Any]) -> bool:
        # The wait is set for the connection, which returns to its pool: so it is put back, also after a failure.
        insert = mysql.insert(table).values(values).prefix_with("IGNORE")
        connection = session.connection(bind_arguments={"clause": insert})
        before = connection.scalar(sa.text("SELECT @@SESSION.innodb_lock_wait_timeout"))
        connection.execute(sa.text(f"SET SESSION innodb_lock_wait_timeout = {max(1, round(self._lock_wait))}"))
        try:
            return _count(session, insert) == 1
        finally:
            if not connection.invalidated:
                connection.execute(sa.text(f"SET SESSION innodb_lock_wait_timeout = {int(before or 50)}"))

    def extend(self, claim: SqlClaim, lease: float) -> bool:  # noqa: ARG002 - the lease is the transaction
        """Nothing to do: the record is held by the open transaction, for as long as its connection lives."""
        return claim.session is not None

    def complete(self, claim: SqlClaim, result: bytes | None = None) -> bool:
        """Commit the record together with the effect.

        Raises:
            InvalidInput: The result is longer than 60,000 bytes; nothing was committed.
            Refused: The handler has ended the transaction itself; what is open was rolled back.
            sqlalchemy.exc.DBAPIError: The database refused, or its answer to the commit was lost; in the second case
                the record tells at the next claim what became of it.
        """
        session = claim.session
        with claim.stack:
            if result is not None and len(result) > _MAX_RESULT:
                raise InvalidInput(f"a kept result has at most {_MAX_RESULT} bytes", advice="return a reference to it")
            if session.get_transaction() is not claim.transaction:
                raise Refused("the handler has ended the transaction that held its record")
            if result is not None:
                session.execute(table.update().where(table.c.id == _digest(claim.key)).values(result=result))
            claim.completing = True
            session.commit()
        return True

    def release(self, claim: SqlClaim) -> None:
        """Roll back the effect and its record."""
        claim.stack.close()

    def purge(self, *, older_than: float = 28 * 86_400, batch: int = 500) -> int:
        """Delete old records, in small transactions.

        Args:
            older_than: Seconds. A message may return for 14 days, and for another 14 from a dead-letter queue.
            batch: Records for each transaction.

        Returns:
            How many were deleted.
        """
        if self._session is None:
            raise InvalidInput("a store with route= knows no single database", advice="purge a SqlStore of each shard")
        return sql.purge(self._session, table.c.at, before=self._clock.wall() - older_than, batch=batch)


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _count(session: Session, statement: Any) -> int:
    return int(getattr(session.execute(statement), "rowcount", 0))


def _find(session: Session, digest: str) -> Any:
    query = sa.select(table.c.payload_hash, table.c.result).where(table.c.id == digest)
    return session.execute(query).one_or_none()


def _outcome(known: Any, payload_hash: str) -> Outcome:
    if known is None:  # it was there a moment ago: rolled back or purged since
        return InProgress()
    return Done(known.result) if known.payload_hash == payload_hash else Mismatch()


def _guard(session: Session, claim: SqlClaim) -> None:
    """Make a commit by the handler fail: it would mark work as done that may still break off."""

    def refuse(committing: Session) -> None:
        if not claim.completing and not committing.in_nested_transaction():
            raise Refused(
                "the transaction that holds the record is committed when the handler returns",
                advice="do not commit in the handler",
            )

    event.listen(session, "before_commit", refuse)
    claim.stack.callback(event.remove, session, "before_commit", refuse)


def _busy(error: DBAPIError) -> bool:
    """Whether a statement gave up waiting for another transaction."""
    original: Any = error.orig
    arguments = getattr(original, "args", ())
    return getattr(original, "sqlstate", None) in _BUSY_STATES or bool(arguments and arguments[0] in _BUSY_CODES)


def _locked(error: DBAPIError) -> bool:
    """Whether SQLite's one writer's place is taken: by the same work or by any other, which cannot be told."""
    return "database is locked" in str(error.orig)
