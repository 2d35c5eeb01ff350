"""Asking a database through a connection of its own, so that a busy pool does not look like an outage."""

from __future__ import annotations

import contextlib
import weakref
from contextvars import ContextVar
from typing import Any, Literal, TypeAlias

from resilient.arguments import one_of
from resilient.clock import SYSTEM
from resilient.errors import ConfigurationError, needs_extra
from resilient.health._core import Result
from resilient.policy import deadline
from resilient.runtime import after_fork
from resilient.wire import sql

with needs_extra("sql"):
    import sqlalchemy as sa
    from sqlalchemy import event, exc
    from sqlalchemy.engine import Engine

__all__ = ["SqlProbe"]

Role: TypeAlias = Literal["primary", "replica"]

_LIMIT = 1.0  # seconds for one wait; the check's own deadline is nearer
_LIFE = 300.0  # seconds until a connection is made anew, so that it follows a name that leads elsewhere by then
_PLAIN = "SELECT 1"
# What tells whether a server takes no writes, and whether it is a replica.
_STATE = {
    "mysql": "SELECT @@global.read_only, @@global.read_only",
    "mariadb": "SELECT @@global.read_only, @@global.read_only",
    "postgresql": "SELECT current_setting('transaction_read_only'), pg_is_in_recovery()",
    "sqlite": "PRAGMA query_only",
}
_probing: ContextVar[bool] = ContextVar("resilient_health_probing", default=False)


class SqlProbe:
    """One connection to one database.

    Args:
        target: A URL, or the application's engine, whose way to connect is used and whose pool is not.
        writable: Whether a server that takes no writes counts as failed.
        role: What the server has to be.
    """

    def __init__(self, target: Any, *, writable: bool, role: Role | None = None) -> None:
        if role is not None:
            one_of("role", role, ("primary", "replica"))
        if hasattr(target, "sync_engine"):
            raise ConfigurationError(
                "a check runs on a thread, where an async engine is of no use", advice="pass the URL, or a sync engine"
            )
        if isinstance(target, Engine):
            _listen(target)
            engine, self._pool = target, target.pool.recreate()
        else:
            engine = sql.engine(
                target, connect_timeout=_LIMIT, timeout=_LIMIT, pool_size=1, max_overflow=0, must_exist=True
            )
            _listen(engine)
            self._pool = engine.pool
        self._dialect = engine.dialect
        name = engine.dialect.name
        if writable and name not in _STATE:
            raise ConfigurationError(f"whether a {name} server takes writes cannot be asked here")
        if role is not None and name not in _STATE.keys() - {"sqlite"}:
            raise ConfigurationError(f"whether a {name} server is a replica cannot be asked here")
        self._statement = _STATE[name] if writable or role else _PLAIN
        self._writable = writable
        self._role = role
        self._held: _Held | None = None
        self._inherited: list[Any] = []
        after_fork(self._forked)

    def _forked(self) -> None:
        self._inherited += [self._pool, self._held]  # kept, since closing would speak on the parent's connection
        self._pool, self._held = self._pool.recreate(), None

    def run(self) -> Result:
        """Ask. A connection that had died since the last time is replaced, once."""
        reset = _probing.set(True)
        try:
            row, alive = self._ask()
            if not alive:
                row, _ = self._ask()
        finally:
            _probing.reset(reset)
        return self._judge(row)

    def _judge(self, row: Any) -> Result:
        if self._statement == _PLAIN:
            return Result()
        if row is None:
            return Result.unknown("unreadable")
        read_only, replica = _is_on(row[0]), _is_on(row[-1])
        if self._role is not None and replica is not (self._role == "replica"):
            return Result.fail("role")
        if self._writable and read_only:
            return Result.fail("read_only")
        return Result.ok(read_only=int(read_only))

    def _ask(self) -> tuple[Any, bool]:
        """The answer, and whether the connection was alive; an error where that was not the reason."""
        held, self._held = self._held, None
        if held is not None and SYSTEM.monotonic() >= held.until:
            held.raw.close()
            held = None
        stale = held is not None
        try:
            if held is None:
                held = self._connect()
            _renew_limit(held.raw)
            row = held.fetch(self._statement)
        except Exception:
            if held is not None:
                with contextlib.suppress(Exception):  # it is broken already
                    held.raw.close()
            if stale and deadline.remaining() != 0.0:
                return None, False
            raise
        if held.stays:
            self._held = held
        else:
            held.raw.close()
        return row, True

    def _connect(self) -> _Held:
        """A connection of the pool's making that is not the pool's: giving it back would cost a rollback each time."""
        made = self._pool.connect()
        raw: Any = made.dbapi_connection
        made.detach()
        if self._dialect.name == "sqlite":
            bound = isinstance(self._pool, sa.pool.SingletonThreadPool | sa.pool.StaticPool)  # to its thread
            return _Held(raw, commits=True, stays=not bound)
        try:
            self._dialect.set_isolation_level(raw, "AUTOCOMMIT")
        except (NotImplementedError, exc.ArgumentError):
            return _Held(raw, commits=False)
        except BaseException:
            raw.close()
            raise
        return _Held(raw, commits=True)

    def close(self) -> None:
        """Close the connection."""
        held, self._held = self._held, None
        if held is not None:
            held.raw.close()
        self._pool.dispose()
        self._pool = self._pool.recreate()


class _Held:
    """A connection that is kept from one run to the next.

    Args:
        raw: The driver's connection.
        commits: Whether each statement is a transaction of its own; otherwise each is rolled back.
        stays: Whether it may be used again.
    """

    def __init__(self, raw: Any, *, commits: bool, stays: bool = True) -> None:
        self.raw = raw
        self.stays = stays
        self.until = SYSTEM.monotonic() + _LIFE
        self._commits = commits

    def fetch(self, statement: str) -> Any:
        """The first row of an answer."""
        cursor = self.raw.cursor()
        try:
            cursor.execute(statement)
            row = cursor.fetchone()
        finally:
            cursor.close()
        if not self._commits:
            self.raw.rollback()
        return row


def _is_on(value: Any) -> bool:
    return str(value).upper() not in {"0", "OFF", "FALSE"}


_listened: weakref.WeakSet[Engine] = weakref.WeakSet()


def _listen(engine: Engine) -> None:
    """Have a say in how an engine connects, after its other listeners (one that brings a token, say)."""
    if engine not in _listened:  # event.contains() goes by id(), which may be that of an engine that is gone
        _listened.add(engine)
        event.listen(engine, "do_connect", _bound)


def _renew_limit(raw: Any) -> None:
    """Bound this answer. A PyMySQL connection made here bears the limit of the check that made it."""
    if hasattr(raw, "bound"):
        raw.bound(deadline.bound(_LIMIT))


def _bound(dialect: Any, _record: Any, args: Any, options: dict[str, Any]) -> Any:
    """Bound the handshake of a connection made for a check; connections of the application pass by."""
    if not _probing.get() or dialect.driver != "pymysql":
        return None
    return sql.connect_pymysql(args, options, deadline.bound(_LIMIT))
