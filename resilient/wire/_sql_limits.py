"""How the waits of a database connection are bounded, driver by driver, and how they obey a running deadline."""

from __future__ import annotations

import functools
import inspect
from typing import Any

from sqlalchemy import event, exc
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.pool import QueuePool

from resilient.clock import SYSTEM
from resilient.errors import ConfigurationError, DeadlineExceeded, Overloaded
from resilient.policy import deadline

__all__ = ["BoundedPool", "PyMySqlLimits", "SqliteLimits", "check_bounded", "connect_pymysql", "no_time_left"]

_IDLE_BEFORE_PING = 1.0  # a connection used within the last second is taken as alive


def no_time_left() -> bool:
    remaining = deadline.remaining()
    return remaining is not None and remaining < 0.001  # a timer may fire a little early


def check_bounded(given: Engine) -> None:
    """Refuse a ready engine whose connections could wait for ever.

    What a function of the user's connects (``creator=``, or their own pool) cannot be looked into, and is accepted.

    Raises:
        ConfigurationError: Its driver has no limit for an answer, or was given none.
    """
    driver = given.url.get_driver_name()
    if driver in {"pymysql", "mysqldb"}:
        # SQLAlchemy offers no public way to what an engine connects with; the test of this function notices a change.
        connect: Any = getattr(given.pool, "_creator", None)
        options = inspect.getclosurevars(connect).nonlocals.get("cparams") if inspect.isfunction(connect) else None
        if options is None or options.get("read_timeout"):
            return
        advice = 'make it with connect_args={"read_timeout": 10}, or pass its URL, or unbounded=True'
    elif driver in {"psycopg", "psycopg2"}:
        advice = "the driver has no limit for an answer: pass its URL, or unbounded=True"
    else:
        return
    raise ConfigurationError("this engine would wait for ever on a frozen server", advice=advice)


@functools.cache
def _pymysql_connection() -> type[Any]:
    """PyMySQL's connection, whose limit under a deadline is for the whole answer: its own begins anew with each packet.

    It also keeps one TLS context. PyMySQL would read all certificates of the system for each connection: some 35 ms.
    """
    from pymysql.connections import Connection as PyMySql

    contexts: list[Any] = []

    base: Any = PyMySql

    class Bounded(base):  # type: ignore[misc] # PyMySQL bears no types
        _until: float | None = None
        _limit: float | None = None

        @property
        def _read_timeout(self) -> float | None:  # PyMySQL asks before each packet
            if self._until is None:
                return self._limit
            return max(0.001, self._until - SYSTEM.monotonic())

        @_read_timeout.setter
        def _read_timeout(self, seconds: float | None) -> None:
            self._limit, self._until = seconds, None

        def bound(self, seconds: float) -> None:
            """Let each packet take that many seconds, or all that is read from now on where a deadline runs."""
            self._read_timeout = self._write_timeout = seconds
            if deadline.remaining() is not None:
                self._until = SYSTEM.monotonic() + seconds

        def _create_ssl_ctx(self, options: Any) -> Any:
            if options:
                return super()._create_ssl_ctx(options)
            if not contexts:
                contexts.append(super()._create_ssl_ctx({}))
            return contexts[0]

    return Bounded


_PYMYSQL_LIMITS = ("connect_timeout", "read_timeout", "write_timeout")


def connect_pymysql(args: Any, options: dict[str, Any], seconds: float) -> Any:
    """A new PyMySQL connection, whose connect and handshake together take at most so many seconds.

    PyMySQL's own limit ends before the handshake, which a frozen server never finishes: the read limit ends that too.
    What is read afterwards is bound by the same limit, until the next `bound`.

    Args:
        args: Positional arguments of the connection.
        options: Its options; a limit among them that is nearer holds.
        seconds: The limit.
    """
    limits = {name: min(seconds, options.get(name) or seconds) for name in _PYMYSQL_LIMITS}
    connection = _pymysql_connection()(*args, **{**options, **limits, "defer_connect": True})
    connection.bound(limits["read_timeout"])  # the handshake takes several packets
    connection.connect()
    return connection


# What may run under a limit of its own; other statements (SET, LOCK, CALL) keep to the limit of this side.
_LIMITED = ("SELECT", "INSERT", "UPDATE", "DELETE", "REPLACE", "WITH", "(SELECT")


class PyMySqlLimits:
    """Sets a PyMySQL connection's time limit before each wait, and pings a connection that was idle.

    Under a deadline MariaDB gets the limit with the statement, so that it ends what nobody waits for any more. MySQL
    gets it as a hint of a SELECT, the only statement it can bound.
    """

    def __init__(self, made: Engine, connect_timeout: float, timeout: float) -> None:
        self._connect_timeout = connect_timeout
        self._timeout = timeout
        event.listen(made, "do_connect", self._connecting)
        event.listen(made, "checkout", self._checked_out)
        event.listen(made, "checkin", self._checked_in)
        event.listen(made, "reset", self._reset)
        event.listen(made, "before_cursor_execute", self._executing)
        event.listen(made, "do_execute", _limited)
        event.listen(made, "commit", self._ending)
        event.listen(made, "rollback", self._rolling_back)

    def _connecting(self, _dialect: Any, _record: Any, args: Any, options: dict[str, Any]) -> Any:
        return connect_pymysql(args, options, deadline.bound(self._connect_timeout))

    def _checked_out(self, raw: Any, record: Any, _proxy: Any) -> None:
        if not raw.open:  # it broke while it was given back
            raise exc.InvalidatePoolError("a database connection had broken")
        used = record.info.get("resilient_used")
        if used is not None and SYSTEM.monotonic() - used > _IDLE_BEFORE_PING:
            raw.bound(deadline.bound(self._connect_timeout))
            try:
                raw.ping(reconnect=False)
            except Exception as error:  # whatever ended it, the connection is of no use
                raise exc.InvalidatePoolError("an idle database connection had died") from error

    def _checked_in(self, raw: Any, record: Any) -> None:
        record.info["resilient_used"] = SYSTEM.monotonic()
        if raw is not None:
            self._reset(raw)

    def _reset(self, raw: Any, *_: object) -> None:
        raw._read_timeout = raw._write_timeout = self._connect_timeout  # noqa: SLF001 - PyMySQL offers no public way

    def _executing(self, connection: Connection, *_: object) -> None:
        self._ending(connection)

    def _ending(self, connection: Connection) -> None:
        raw: Any = connection.connection.dbapi_connection
        raw.bound(deadline.bound(self._timeout))

    def _rolling_back(self, connection: Connection) -> None:
        if connection.invalidated:
            return  # nothing is sent: the server has rolled back already
        remaining = deadline.remaining()  # a rollback is tried even when no time is left, but briefly
        limit = self._connect_timeout if remaining is None else max(0.05, min(self._connect_timeout, remaining))
        raw: Any = connection.connection.dbapi_connection
        raw.bound(limit)


def _limited(cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
    """Execute a statement together with its limit, without a round trip of its own; ``False`` leaves it as it is."""
    remaining = deadline.remaining()
    if remaining is None:
        return False
    if not getattr(context.dialect, "is_mariadb", False):
        hinted = _hinted(statement, remaining)
        if hinted is not None:
            cursor.execute(hinted, parameters)
        return hinted is not None
    if not statement.lstrip()[:7].upper().startswith(_LIMITED):
        return False
    cursor.execute(f"SET STATEMENT max_statement_time={max(0.001, remaining):.3f} FOR {statement}", parameters)
    return True


def _hinted(statement: str, seconds: float) -> str | None:
    """A query with its limit for MySQL, which bounds nothing but a SELECT; ``None`` for what takes no such hint."""
    text = statement.lstrip()
    # The first hint alone is obeyed, so one of the user's own is left where it stands.
    if text[:6].upper() != "SELECT" or not text[6:7].isspace() or text[6:].lstrip().startswith("/*+"):
        return None
    return f"{text[:6]} /*+ MAX_EXECUTION_TIME({max(1, int(seconds * 1000))}) */{text[6:]}"


class SqliteLimits:
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
        end = SYSTEM.monotonic() + remaining
        raw.set_progress_handler(lambda: SYSTEM.monotonic() > end, 10_000)
        raw.execute(f"PRAGMA busy_timeout = {max(1, round(limit * 1000))}")


class BoundedPool(QueuePool):
    """A pool in which the wait for a connection obeys the running deadline too.

    Once disposed of, it closes also what was in use then and comes back later, instead of leaving it to the garbage
    collector.
    """

    _limit: float
    _retired = False

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

    def dispose(self) -> None:
        self._retired = True
        super().dispose()

    def _do_return_conn(self, record: Any) -> None:
        super()._do_return_conn(record)
        if self._retired:
            super().dispose()

    def connect(self) -> Any:
        try:
            return super().connect()
        except exc.TimeoutError as error:
            if no_time_left():
                raise DeadlineExceeded("no database connection came free before the deadline") from error
            raise Overloaded(
                f"no database connection came free within {self._limit:g} s",
                advice="return sessions sooner, or make the pool larger",
            ) from error
