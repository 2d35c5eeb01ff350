"""Connections to SQL databases whose every wait ends, and what their errors mean.

An engine made here bounds the connect, the handshake, each statement and each commit, and obeys a running
`resilient.policy.deadline` on the wire:

* PyMySQL: the socket's time limit, set anew before each statement and each commit;
* SQLite: the busy time limit and a progress handler that interrupts a long statement;
* psycopg: the server's ``statement_timeout`` and the kernel's ``TCP_USER_TIMEOUT``, fixed when the connection is made.

Failures of the connection reach the caller as errors of this library: `Unavailable` where nothing took effect,
`OutcomeUnknown` where a COMMIT was sent and no answer came, `DeadlineExceeded` where the caller's time ran out. What
the database says about the statement itself (a syntax error, a duplicate, a deadlock) stays SQLAlchemy's own error.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from resilient.errors import ConfigurationError, DeadlineExceeded, MissingExtra, OutcomeUnknown, Overloaded, Unavailable
from resilient.policy import Failure, Verdict, deadline

try:
    import sqlalchemy as sa
    from sqlalchemy import event, exc
    from sqlalchemy.engine import URL, Connection, Engine, ExceptionContext, make_url
    from sqlalchemy.pool import QueuePool
except ImportError as missing:
    raise MissingExtra("sql", "sqlalchemy") from missing

__all__ = ["classify", "create_tables", "engine", "forgive_endings", "metadata", "place", "translate_errors"]

_log = logging.getLogger("resilient.wire.sql")

metadata = sa.MetaData()
"""Every table of this library, each named ``resilient_*``; the rooms declare theirs when they are imported."""

_IDLE_BEFORE_PING = 1.0  # a connection used within the last second is taken as alive
_EXISTS_ALREADY = (exc.OperationalError, exc.ProgrammingError)


def create_tables(bind: Any) -> None:
    """Create the tables of every room imported so far, where they do not exist yet.

    Args:
        bind: An engine, a connection, or anything with an ``engine`` (a replica set).

    Example:
        >>> create_tables(engine("sqlite://"))
    """
    target = bind if isinstance(bind, Engine | Connection) else bind.engine
    try:
        metadata.create_all(target)
    except _EXISTS_ALREADY:
        metadata.create_all(target)  # another process created one between the look and the creation


# -------------------------------------------------------------------------------------------------------- engines


class _BoundedPool(QueuePool):
    """A pool in which the wait for a connection obeys the running deadline too."""

    _limit: float

    @property
    def _timeout(self) -> float:  # QueuePool reads it anew for each wait
        remaining = deadline.remaining()
        return self._limit if remaining is None else max(0.0, min(self._limit, remaining))

    @_timeout.setter
    def _timeout(self, seconds: float) -> None:
        self._limit = seconds

    def recreate(self) -> QueuePool:
        twin = super().recreate()
        twin._timeout = self._limit  # the parent hands on what was left to one caller  # noqa: SLF001
        return twin

    def connect(self) -> Any:
        try:
            return super().connect()
        except exc.TimeoutError as error:
            if _no_time_left():
                raise DeadlineExceeded("no database connection came free before the deadline") from error
            raise Overloaded(
                f"no database connection came free within {self._limit:g} s",
                advice="return sessions sooner, or make the pool larger",
            ) from error


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

    Raises:
        ConfigurationError: The URL is malformed.
        MissingExtra: The driver is not installed.

    Example:
        >>> with engine("sqlite://").connect() as connection:
        ...     connection.scalar(sa.text("SELECT 1"))
        1
    """
    if isinstance(target, Engine):
        translate_errors(target)
        return target
    url = _parse(target)
    arguments = _connect_arguments(url, connect_timeout, timeout)
    pool: dict[str, Any] = {"pool_recycle": int(recycle)}
    if _in_memory(url):
        arguments["check_same_thread"] = False
    else:
        pool |= {"poolclass": _BoundedPool, "pool_size": pool_size, "max_overflow": max_overflow}
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
        _Wire(made, connect_timeout, timeout)
    elif url.get_backend_name() == "sqlite":
        _SqliteWire(made, timeout, query_only=query_only)
    translate_errors(made)
    return made


def place(target: Engine) -> str:
    """Where an engine's database is, without its credentials, for messages.

    Example:
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
        # PyMySQL's connect limit ends before the handshake, which a frozen server never finishes: the read limit
        # ends that too. It is replaced before the first statement.
        return {"connect_timeout": connect_timeout, "read_timeout": connect_timeout, "write_timeout": timeout}
    if url.get_backend_name() == "sqlite":
        return {"timeout": timeout}
    if driver in {"psycopg", "psycopg2"}:
        return {
            "connect_timeout": max(2, round(connect_timeout)),  # libpq knows whole seconds, and no less than two
            "options": f"-c statement_timeout={round(timeout * 1000)}",
            "tcp_user_timeout": round(timeout * 1000),
        }
    return {}


# ------------------------------------------------------------------------------------------- deadlines on the wire


def _no_time_left() -> bool:
    remaining = deadline.remaining()
    return remaining is not None and remaining < 0.001  # a timer may fire a little early


class _Wire:
    """Sets a PyMySQL connection's time limit before each wait, and pings a connection that was idle."""

    def __init__(self, made: Engine, connect_timeout: float, timeout: float) -> None:
        self._connect_timeout = connect_timeout
        self._timeout = timeout
        event.listen(made, "do_connect", self._connecting)
        event.listen(made, "checkout", self._checked_out)
        event.listen(made, "checkin", self._checked_in)
        event.listen(made, "before_cursor_execute", self._executing)
        event.listen(made, "commit", self._ending)
        event.listen(made, "rollback", self._rolling_back)

    def _connecting(self, _dialect: Any, _record: Any, _args: Any, options: dict[str, Any]) -> None:
        limit = deadline.bound(self._connect_timeout)
        options["connect_timeout"] = options["read_timeout"] = limit

    def _checked_out(self, raw: Any, record: Any, _proxy: Any) -> None:
        raw._read_timeout = deadline.bound(self._timeout)  # noqa: SLF001 - PyMySQL offers no public way
        if not raw.open:  # it broke while it was given back
            raise exc.InvalidatePoolError("a database connection had broken")
        used = record.info.get("resilient_used")
        if used is not None and time.monotonic() - used > _IDLE_BEFORE_PING:
            raw._read_timeout = deadline.bound(self._connect_timeout)  # noqa: SLF001 - as above
            try:
                raw.ping(reconnect=False)
            except Exception as error:  # whatever ended it, the connection is of no use
                raise exc.InvalidatePoolError("an idle database connection had died") from error

    def _checked_in(self, raw: Any, record: Any) -> None:
        record.info["resilient_used"] = time.monotonic()
        if raw is not None:
            raw._read_timeout = self._timeout  # noqa: SLF001 - as above

    def _executing(self, connection: Connection, *_: object) -> None:
        self._ending(connection)

    def _ending(self, connection: Connection) -> None:
        raw: Any = connection.connection.dbapi_connection
        raw._read_timeout = raw._write_timeout = deadline.bound(self._timeout)  # noqa: SLF001 - as above

    def _rolling_back(self, connection: Connection) -> None:
        remaining = deadline.remaining()  # a rollback is tried even when no time is left, but briefly
        limit = self._connect_timeout if remaining is None else max(0.05, min(self._connect_timeout, remaining))
        connection.connection.dbapi_connection._read_timeout = limit  # type: ignore[union-attr]  # noqa: SLF001


class _SqliteWire:
    """Interrupts SQLite statements, and shortens its waits for locks, when a deadline runs."""

    def __init__(self, made: Engine, timeout: float, *, query_only: bool) -> None:
        self._timeout = timeout
        self._query_only = query_only
        event.listen(made, "connect", self._connected)
        event.listen(made, "before_cursor_execute", self._executing)
        event.listen(made, "commit", self._bound)

    def _connected(self, raw: Any, _record: Any) -> None:
        if self._query_only:
            cursor = raw.cursor()
            cursor.execute("PRAGMA query_only = ON")
            cursor.close()

    def _executing(self, connection: Connection, *_: object) -> None:
        self._bound(connection)

    def _bound(self, connection: Connection) -> None:
        remaining = deadline.remaining()
        info = connection.info
        if remaining is None and "resilient_bounded" not in info:
            return
        raw: Any = connection.connection.dbapi_connection
        if remaining is None:
            del info["resilient_bounded"]
            raw.set_progress_handler(None, 0)
            raw.execute(f"PRAGMA busy_timeout = {round(self._timeout * 1000)}")
            return
        limit = deadline.bound(self._timeout)
        info["resilient_bounded"] = True
        end = time.monotonic() + remaining
        raw.set_progress_handler(lambda: time.monotonic() > end, 10_000)
        raw.execute(f"PRAGMA busy_timeout = {max(1, round(limit * 1000))}")


# ---------------------------------------------------------------------------------------------------- typed errors


def translate_errors(target: Engine) -> None:
    """Make failures of the connection reach callers as errors of this library. Doing it twice is harmless.

    Args:
        target: The engine, one made here or a ready one.
    """
    if event.contains(target, "handle_error", _translate):
        return
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


def _translate(context: ExceptionContext) -> BaseException | None:
    verdict = classify(context.original_exception)
    if verdict is None or context.engine is None:
        return None
    where = place(context.engine)
    info: dict[Any, Any] = {}
    if context.connection is not None and not context.connection.invalidated:
        info = dict(context.connection.info)
    if verdict.failure is Failure.READ_ONLY and info.get("resilient_wrote"):
        context.is_disconnect = True  # the pool would keep the connections of a demoted primary for ever
        return Unavailable(
            f"{where} is read-only; nothing was written", advice="it is a replica, or was demoted: write to the primary"
        )
    if verdict.failure not in {Failure.UNAVAILABLE, Failure.TIMEOUT}:
        return None
    if info.get("resilient_committing") and info.get("resilient_wrote"):
        return OutcomeUnknown(
            f"{where} did not answer a COMMIT: it may or may not have happened",
            advice="look for what was written before writing it again",
        )
    if _no_time_left():
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


# ------------------------------------------------------------------------------------------- what an error means

_MYSQL: dict[int, tuple[Failure, bool]] = {
    **dict.fromkeys((2002, 2003, 2005, 1129), (Failure.UNAVAILABLE, True)),
    **dict.fromkeys((2006, 2013, 2055, 1053, 1927), (Failure.UNAVAILABLE, False)),
    **dict.fromkeys((1040, 1203), (Failure.THROTTLED, True)),
    **dict.fromkeys((1290, 1792, 1836), (Failure.READ_ONLY, True)),
    1205: (Failure.TRANSIENT, True),
    **dict.fromkeys((1969, 3024), (Failure.TIMEOUT, True)),
    **dict.fromkeys((1020, 1062, 1169, 1213, 1586), (Failure.CONFLICT, True)),
    **dict.fromkeys((1044, 1045, 1142, 1143, 1227, 1698), (Failure.AUTH, True)),
    **dict.fromkeys((1048, 1054, 1064, 1146, 1264, 1292, 1364, 1366, 1406, 1451, 1452, 4025), (Failure.INVALID, True)),
}

_SQLSTATE: dict[str, tuple[Failure, bool]] = {
    **dict.fromkeys(("08001", "08004", "57P03"), (Failure.UNAVAILABLE, True)),
    **dict.fromkeys(("08", "57P01", "57P02"), (Failure.UNAVAILABLE, False)),
    **dict.fromkeys(("53300", "53400"), (Failure.THROTTLED, True)),
    "25006": (Failure.READ_ONLY, True),
    "55P03": (Failure.TRANSIENT, True),
    "57014": (Failure.TIMEOUT, True),
    **dict.fromkeys(("23505", "40001", "40P01"), (Failure.CONFLICT, True)),
    **dict.fromkeys(("28", "42501"), (Failure.AUTH, True)),
    **dict.fromkeys(("22", "23", "42"), (Failure.INVALID, True)),
}

_SQLITE: dict[int, tuple[Failure, bool]] = {
    **dict.fromkeys((5, 6), (Failure.TRANSIENT, True)),
    8: (Failure.READ_ONLY, True),
    9: (Failure.TIMEOUT, True),
    14: (Failure.UNAVAILABLE, True),
    **dict.fromkeys((1555, 2067, 2579), (Failure.CONFLICT, True)),
    19: (Failure.INVALID, True),
}


def classify(error: BaseException) -> Verdict | None:
    """What a database's error means, for `resilient.policy`.

    MariaDB and MySQL are told by their error numbers, PostgreSQL by its SQLSTATE, SQLite by its result code.

    Args:
        error: An error of SQLAlchemy or of a driver.

    Returns:
        The verdict, or ``None`` where the error is none of a database's.
    """
    if isinstance(error, exc.TimeoutError):
        return Verdict(Failure.THROTTLED, no_effect=True)
    original = error.orig if isinstance(error, exc.DBAPIError) and error.orig is not None else error
    state = getattr(original, "sqlstate", None) or getattr(original, "pgcode", None)
    found: tuple[Failure, bool] | None = None
    if isinstance(state, str):
        found = _SQLSTATE.get(state) or _SQLSTATE.get(state[:2])
    elif isinstance(code := getattr(original, "sqlite_errorcode", None), int):
        found = _SQLITE.get(code) or _SQLITE.get(code & 0xFF)
    elif type(original).__module__.split(".")[0] in {"pymysql", "MySQLdb", "aiomysql", "asyncmy"}:
        found = _mysql(original)
    return None if found is None else Verdict(found[0], no_effect=found[1])


def _mysql(error: BaseException) -> tuple[Failure, bool] | None:
    number = error.args[0] if error.args else None
    if not isinstance(number, int):
        # PyMySQL's InterfaceError(0, '') means a connection that is closed on our side.
        return (Failure.UNAVAILABLE, False) if type(error).__name__ == "InterfaceError" else None
    if number == 0 and type(error).__name__ == "InterfaceError":
        return Failure.UNAVAILABLE, False
    text = str(error.args[1]) if len(error.args) > 1 else ""
    if number == 1290 and "read" not in text.lower():  # the number is shared by every option that forbids a statement
        return Failure.INVALID, True
    if number in {2003, 2013} and "timed out" in text:
        return Failure.TIMEOUT, number == 2003
    return _MYSQL.get(number)
