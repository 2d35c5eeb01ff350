"""Connections to SQL databases whose every wait ends, and what their errors mean.

An engine made here bounds the connect, the handshake, each statement and each commit, and obeys a running
`resilient.policy.deadline` on the wire:

* PyMySQL: the socket's time limit, set anew before each statement and each commit; under a deadline MariaDB is told
  too what remains (``max_statement_time``, in the statement itself), so that it ends what this side gave up;
* SQLite: the busy time limit and a progress handler that interrupts a long statement;
* psycopg: every wait of the connection ends, and the server is told what remains (``statement_timeout``);
* psycopg2: ``statement_timeout`` and the kernel's ``TCP_USER_TIMEOUT``, fixed when the connection is made.

Failures of the connection reach the caller as errors of this library: `Unavailable` where nothing took effect,
`OutcomeUnknown` where a COMMIT was sent and no answer came, `DeadlineExceeded` where the caller's time ran out. What
the database says about the statement itself (a syntax error, a duplicate, a deadlock) stays SQLAlchemy's own error.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any
from urllib.parse import quote

from resilient.errors import (
    ConfigurationError,
    DeadlineExceeded,
    InvalidInput,
    MissingExtra,
    OutcomeUnknown,
    Unavailable,
    needs_extra,
)
from resilient.policy import Failure

with needs_extra("sql"):
    import sqlalchemy as sa
    from sqlalchemy import event, exc
    from sqlalchemy.engine import URL, Connection, Engine, ExceptionContext, make_url
    from sqlalchemy.orm import Session

from resilient.wire._postgres import PsycopgLimits
from resilient.wire._sql_errors import classify, needs_table
from resilient.wire._sql_limits import (
    BoundedPool,
    PyMySqlLimits,
    SqliteLimits,
    check_bounded,
    connect_pymysql,
    no_time_left,
)

__all__ = [
    "classify",
    "commit_sent",
    "connect_pymysql",
    "create_tables",
    "engine",
    "forgive_endings",
    "metadata",
    "needs_table",
    "place",
    "purge",
    "translate_errors",
]

_log = logging.getLogger("resilient.wire.sql")

metadata = sa.MetaData()
"""Every table of this library, each named ``resilient_*``; the rooms declare theirs when they are imported."""

_EXISTS_ALREADY = (exc.OperationalError, exc.ProgrammingError)


def create_tables(bind: Any) -> None:
    """Create the tables of every room imported so far, where they do not exist yet.

    Args:
        bind: An engine, a connection, or anything with an ``engine`` (a replica set).

    Examples:
        >>> create_tables(engine("sqlite://"))
    """
    target = bind if isinstance(bind, Engine | Connection) else bind.engine
    for _ in metadata.tables:
        try:
            metadata.create_all(target)
        except _EXISTS_ALREADY:
            continue  # another process created one of them between the look and the creation
        return
    metadata.create_all(target)


def purge(
    session: Callable[[], AbstractContextManager[Session]], at: sa.Column[float], *, before: float, batch: int
) -> int:
    """Delete old rows of one of this library's tables, oldest first, in small transactions.

    Args:
        session: A sessionmaker for the table's database.
        at: The column with the time of a row; the table has a primary key ``id``.
        before: Rows of earlier times go.
        batch: Rows for each transaction.

    Returns:
        How many were deleted.

    Raises:
        InvalidInput: ``batch`` is less than one.
        ConfigurationError: The database has no such table.
    """
    if batch < 1:
        raise InvalidInput("rows are deleted by one or more at a time", advice="pass batch >= 1")
    table, total = at.table, 0
    old = sa.select(table.c.id).where(at < before).order_by(at).limit(batch)
    while True:
        with needs_table(table.name), session() as work:
            found = list(work.scalars(old))
            if found:
                work.execute(sa.delete(table).where(table.c.id.in_(found)))
                work.commit()
        total += len(found)
        if len(found) < batch:
            return total


# -------------------------------------------------------------------------------------------------------- engines


def engine(
    target: str | URL | Engine,
    *,
    connect_timeout: float = 1.0,
    timeout: float = 10.0,
    pool_size: int = 10,
    max_overflow: int = 10,
    pool_timeout: float = 5.0,
    recycle: float = 1800.0,
    must_exist: bool = False,
    query_only: bool = False,
    unbounded: bool = False,
) -> Engine:
    """An engine whose every wait ends.

    Args:
        target: A database URL, or a ready engine. A ready engine keeps its own time limits; it gets the typed errors.
        connect_timeout: Seconds for a connection, with its handshake.
        timeout: Seconds for one answer of the server; for SQLite seconds to wait for a lock.
        pool_size: Connections kept.
        max_overflow: Connections beyond that, closed after use.
        pool_timeout: Seconds to wait for a free connection.
        recycle: Seconds after which a pooled connection is replaced.
        must_exist: For SQLite: a missing file is an error instead of a new empty database.
        query_only: For SQLite: refuse writes.
        unbounded: Accept a ready engine that could wait for ever.

    Raises:
        ConfigurationError: The URL is malformed, or a ready engine has no time limit.
        MissingExtra: The driver is not installed.

    Examples:
        >>> with engine("sqlite://").connect() as connection:
        ...     connection.scalar(sa.text("SELECT 1"))
        1
    """
    if isinstance(target, Engine):
        if not unbounded:
            check_bounded(target)
        translate_errors(target)
        return target
    url = _parse(target)
    arguments = _connect_arguments(url, connect_timeout, timeout)
    pool: dict[str, Any] = {"pool_recycle": int(recycle)}
    if _in_memory(url):
        arguments["check_same_thread"] = False
    else:
        pool |= {"poolclass": BoundedPool, "pool_size": pool_size, "max_overflow": max_overflow}
        pool |= {"pool_timeout": pool_timeout}
    if must_exist and url.get_backend_name() == "sqlite" and not _in_memory(url):
        url = _existing_file(url)
    try:
        made = sa.create_engine(url, connect_args=arguments, hide_parameters=True, **pool)
    except ModuleNotFoundError as error:
        extra = {"mysql": "mysql", "mariadb": "mysql", "postgresql": "postgres"}.get(url.get_backend_name(), "sql")
        raise MissingExtra(extra, error.name or url.drivername) from error
    except exc.ArgumentError as error:
        raise ConfigurationError(f"no such database driver: {url.drivername}") from error
    if url.get_driver_name() == "pymysql":
        PyMySqlLimits(made, connect_timeout, timeout)
    elif url.get_backend_name() == "sqlite":
        SqliteLimits(made, timeout, query_only=query_only)
    elif url.get_driver_name() == "psycopg":
        PsycopgLimits(made, connect_timeout, timeout)
    translate_errors(made)
    return made


def place(target: Engine) -> str:
    """Where an engine's database is, without its credentials, for messages.

    Examples:
        >>> place(engine("sqlite://"))
        'sqlite :memory:'
    """
    url = target.url
    at = f" at {url.host}:{url.port}" if url.port else f" at {url.host}" if url.host else ""
    return f"{url.get_backend_name()} {url.database or ':memory:'}{at}"


def _parse(target: str | URL) -> URL:
    try:
        return make_url(target)
    except exc.ArgumentError:
        # The parser's own message repeats the text, which may hold a password.
        raise ConfigurationError("this is no database URL", advice="write it like mysql+pymysql://…/name") from None


def _in_memory(url: URL) -> bool:
    return url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:")


def _existing_file(url: URL) -> URL:
    if url.database is not None and url.database.startswith("file:"):
        return url
    return url.set(database=f"file:{quote(url.database or '')}", query={**url.query, "mode": "rw", "uri": "true"})


def _connect_arguments(url: URL, connect_timeout: float, timeout: float) -> dict[str, Any]:
    driver = url.get_driver_name()
    if driver == "pymysql":
        # The read limit is for the handshake; it is replaced before the first statement.
        return {"connect_timeout": connect_timeout, "read_timeout": connect_timeout, "write_timeout": timeout}
    if url.get_backend_name() == "sqlite":
        return {"timeout": timeout}
    if driver in {"psycopg", "psycopg2"}:  # a limit of the server's is the one that also ends the statement there
        return {
            "connect_timeout": max(2, round(connect_timeout)),  # libpq knows whole seconds, and no less than two
            "options": f"-c statement_timeout={round(timeout * 1000)}",
            "tcp_user_timeout": round(timeout * 1000),
        }
    return {}


# ---------------------------------------------------------------------------------------------------- typed errors


# SQLAlchemy's own event.contains() goes by id(), which a new engine may have inherited from one that is gone.
_translated: weakref.WeakSet[Engine] = weakref.WeakSet()


def translate_errors(target: Engine) -> None:
    """Make failures of the connection reach callers as errors of this library. Doing it twice is harmless.

    Args:
        target: The engine, one made here or a ready one.
    """
    if target in _translated:
        return
    _translated.add(target)
    event.listen(target, "handle_error", _translate)
    event.listen(target, "begin", _began)
    event.listen(target, "commit", _committing)
    event.listen(target, "before_cursor_execute", _noted)


def _began(connection: Connection) -> None:
    connection.info["resilient_wrote"] = connection.info["resilient_committing"] = False


def _committing(connection: Connection) -> None:
    connection.info["resilient_committing"] = True


def _noted(connection: Connection, _cursor: Any, statement: str, _parameters: Any, context: Any, _many: Any) -> None:
    if statement.lstrip()[:6].upper() == "SELECT":
        return
    connection.info["resilient_wrote"] = True
    if context.isddl or _commits_itself(connection):
        connection.info["resilient_committing"] = True


def _commits_itself(connection: Connection) -> bool:
    chosen = connection.get_execution_options().get("isolation_level")
    chosen = chosen or getattr(connection.dialect, "_on_connect_isolation_level", None)
    return chosen == "AUTOCOMMIT"


def _info(context: ExceptionContext) -> dict[Any, Any]:
    connection = context.connection
    return {} if connection is None or connection.invalidated else dict(connection.info)


def commit_sent(context: ExceptionContext) -> bool:
    """Whether what failed is the COMMIT of something written, or a statement that commits itself.

    Args:
        context: What SQLAlchemy tells of the error, on an engine of `translate_errors`.
    """
    info = _info(context)
    return bool(info.get("resilient_committing") and info.get("resilient_wrote"))


def _translate(context: ExceptionContext) -> BaseException | None:
    verdict = classify(context.original_exception)
    if verdict is None or context.engine is None:
        return None
    where = place(context.engine)
    if verdict.failure is Failure.READ_ONLY and _info(context).get("resilient_wrote"):
        context.is_disconnect = True  # the pool would keep the connections of a demoted primary for ever
        return Unavailable(
            f"{where} is read-only; nothing was written", advice="it is a replica, or was demoted: write to the primary"
        )
    if verdict.failure not in {Failure.UNAVAILABLE, Failure.TIMEOUT}:
        return None
    if commit_sent(context):
        return OutcomeUnknown(
            f"{where} did not answer a COMMIT: it may or may not have happened",
            advice="look for what was written before writing it again",
        )
    if no_time_left():
        return DeadlineExceeded(f"{where} did not answer before the deadline")
    done = "could not be reached" if context.connection is None else "stopped answering; the transaction is lost"
    return Unavailable(f"{where} {done}", advice="look at the server and at the network in between")


def forgive_endings(target: Engine, *, undo: bool = False) -> None:
    """Make COMMIT and ROLLBACK on a replica never fail: there is nothing on it to commit or to take back.

    Without this a replica that dies between a read and the end of its transaction would fail a request that already
    has its answer. A connection whose ending failed is recognised as broken when it is next taken from the pool.

    Args:
        target: The replica's engine.
        undo: Take it back.
    """
    dialect: Any = target.dialect
    for name in ("do_commit", "do_rollback"):
        if undo:
            dialect.__dict__.pop(name, None)
        elif name not in dialect.__dict__:
            setattr(dialect, name, _forgiving(getattr(dialect, name), dialect))


def _forgiving(end: Callable[[Any], None], dialect: Any) -> Callable[[Any], None]:
    def forgiving(raw: Any) -> None:
        try:
            end(raw)
        except dialect.loaded_dbapi.Error as error:
            _log.debug("a replica's transaction could not be ended: %s", type(error).__name__)

    return forgiving
