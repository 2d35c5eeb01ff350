"""One server of a replica set: its engines, what is known of it, and how it is asked for its position."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.engine import Connection, Engine, ExceptionContext

from resilient.causality import Gtid, Instant, Position
from resilient.errors import ConfigurationError, MissingExtra, Refused
from resilient.policy import Failure
from resilient.storage.replicas._health import Health, State
from resilient.storage.replicas._routing import forbidden_on_replica
from resilient.wire import sql

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ["Answer", "Limits", "Node", "NodeStatus"]

_ASYNC_DRIVERS = {"sqlite": ("aiosqlite",), "mysql": ("asyncmy", "aiomysql"), "mariadb": ("asyncmy", "aiomysql")}
_COPIED = sa.text("SELECT at FROM resilient_copied")
_PRIMARY = sa.text("SELECT @@gtid_binlog_pos, @@read_only, @@log_bin")
_REPLICA = sa.text("SELECT @@gtid_slave_pos")
_ALIVE = sa.text("PRAGMA schema_version")


def address(target: str | sa.URL) -> sa.URL:
    """The parts of a database URL. Raises ConfigurationError."""
    try:
        return sa.make_url(target)
    except exc.ArgumentError:
        # The parser's own message may repeat the text, which may hold a password.
        raise ConfigurationError("this is no database URL", advice="write it like mysql+pymysql://…/name") from None


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """What is known of one server of a replica set.

    Args:
        name: ``primary``, ``replica-1``, ``replica-2``, …
        role: ``primary`` or ``replica``.
        state: ``up``, ``lagging`` (answers, but is behind or unproven), ``down``, ``read_only`` (a primary that takes
            no writes) or ``unknown`` (not asked yet).
        lag: Seconds between now and the last moment up to which it is proven to hold everything; while the primary is
            silent, counted from the most advanced replica instead. ``None`` where nothing is proven. 0 for a primary.
        outstanding: Connections in use by this process.
    """

    name: str
    role: Literal["primary", "replica"]
    state: State
    lag: float | None
    outstanding: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said when it was asked.

    Args:
        position: How far it has come; ``None`` where it cannot tell.
        read_only: Whether it refuses writes.
    """

    position: Position | None
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of every connection of a set, in seconds and connections, and whether a ready engine may have none."""

    connect_timeout: float
    timeout: float
    probe_timeout: float
    pool_size: int
    max_overflow: int
    unbounded: bool = False


class Node:
    """One server.

    Args:
        set_name: The set it belongs to.
        name: What it is called in messages.
        target: Its URL or a ready engine.
        role: Its declared role; it is never guessed.
        limits: Time and size limits of the engines made here.
        failed: Told of each state in which a caller met it, at once.
        in_doubt: Called when a COMMIT failed, which may have happened all the same.
    """

    def __init__(
        self,
        set_name: str,
        name: str,
        target: str | sa.URL | Engine,
        *,
        role: Literal["primary", "replica"],
        limits: Limits,
        failed: Callable[[Node, State], None],
        in_doubt: Callable[[], None],
    ) -> None:
        self.set_name = set_name
        self.name = name
        self.role: Literal["primary", "replica"] = role
        self.health = Health(returns_after=1) if role == "primary" else Health()
        self.position: Position | None = None
        self.proven: float | None = None
        self.answered = False
        self._failed = failed
        self._in_doubt = in_doubt
        self._limits = limits
        self._url = None if isinstance(target, Engine) else address(target)
        self.engine = self._make(target)
        self.backend = self.engine.url.get_backend_name()
        if self.backend not in {"sqlite", "mysql", "mariadb"}:
            raise ConfigurationError(f"replica sets know MariaDB and SQLite, not {self.backend}")
        self._asking = self.engine if self._url is None else self._make_asking(self._url)
        self._async_engine: AsyncEngine | None = None
        self._listeners: list[tuple[Any, str, Any]] = []
        self._listen(self.engine)

    # ------------------------------------------------------------------------------------------------- engines

    def _make(self, target: str | sa.URL | Engine) -> Engine:
        limits = self._limits
        made = sql.engine(
            target,
            connect_timeout=limits.connect_timeout,
            timeout=limits.timeout,
            pool_size=limits.pool_size,
            max_overflow=limits.max_overflow,
            must_exist=self.role == "replica",
            query_only=self.role == "replica",
            unbounded=limits.unbounded,
        )
        if self.role == "replica":
            sql.forgive_endings(made)
        return made

    def _make_asking(self, url: sa.URL) -> Engine:
        limit = self._limits.probe_timeout
        return sql.engine(
            url, connect_timeout=limit, timeout=limit, pool_size=1, max_overflow=0, pool_timeout=limit, must_exist=True
        )

    def async_engine(self) -> AsyncEngine:
        """The engine for AsyncSession, made on first use.

        Raises:
            ConfigurationError: This node was given as a ready engine.
            MissingExtra: No async driver for this database is installed.
        """
        if self._async_engine is None:
            if self._url is None:
                raise ConfigurationError(
                    f"{self.name} of {self.set_name!r} is a ready sync engine",
                    advice="give the replica set URLs to use it from AsyncSession",
                )
            self._async_engine = self._make_async()
            self._listen(self._async_engine.sync_engine)
        return self._async_engine

    def _make_async(self) -> AsyncEngine:
        from sqlalchemy.ext.asyncio import create_async_engine

        drivers = _ASYNC_DRIVERS[self.backend]
        for driver in drivers:
            url = self.engine.url.set(drivername=f"{self.backend}+{driver}")
            try:
                made = create_async_engine(url, hide_parameters=True, connect_args=self._async_arguments())
            except ModuleNotFoundError:
                continue
            sql.translate_errors(made.sync_engine)
            if self.role == "replica":
                sql.forgive_endings(made.sync_engine)
            return made
        raise MissingExtra("sql", " or ".join(drivers))

    def _async_arguments(self) -> dict[str, Any]:
        if self.backend == "sqlite":
            return {"timeout": self._limits.timeout}
        return {"connect_timeout": self._limits.connect_timeout}

    # -------------------------------------------------------------------------------------------------- events

    def _listen(self, target: Engine) -> None:
        self._on(target, "handle_error", self._met_error)
        if self.role == "replica":
            self._on(target, "before_cursor_execute", self._refuse_writes)

    def _on(self, target: Engine, name: str, listener: Any) -> None:
        event.listen(target, name, listener)
        self._listeners.append((target, name, listener))

    def _met_error(self, context: ExceptionContext) -> None:
        if self.role == "primary" and sql.commit_sent(context):
            self._in_doubt()
        verdict = sql.classify(context.original_exception)
        if verdict is None:
            return
        if verdict.failure is Failure.READ_ONLY and self.role == "primary":
            self._failed(self, "read_only")
        # A primary is given up at once only where nothing listens any more: a single lost connection may have been
        # ended by an administrator, and one more try costs little. A replica is left at once: there are others.
        elif verdict.failure is Failure.UNAVAILABLE and (verdict.no_effect or self.role == "replica"):
            self._failed(self, "down")

    def _refuse_writes(self, _c: Connection, _cursor: Any, statement: str, _p: Any, context: Any, _many: Any) -> None:
        if forbidden_on_replica(statement, context):
            raise Refused(
                f"{self.name} of {self.set_name!r} is a replica: the statement writes or locks and was not sent",
                advice="send it through the session or through the set's engine, which is the primary",
            )

    # -------------------------------------------------------------------------------------------------- probing

    def ask(self) -> Answer:
        """Ask the server how far it has come. Raises what the connection raises, within the probe's time limit."""
        with self._asking.connect() as connection:
            answer = self._ask(connection)
        if self.backend == "sqlite" and self._url is not None:
            self._asking.dispose()  # an open file would still answer after it was removed
        return answer

    def _ask(self, connection: Connection) -> Answer:
        if self.backend == "sqlite":
            if self.role == "primary":
                connection.execute(_ALIVE)  # reads the file, which SELECT 1 would not
                return Answer(None)
            at = connection.scalar(_COPIED)
            return Answer(None if at is None else Instant(float(at)))
        if self.role == "replica":
            return Answer(_gtid(connection.scalar(_REPLICA)))
        row = connection.execute(_PRIMARY).one()
        # With a binary log, empty means that nothing was written yet; without one it stays empty and proves nothing.
        return Answer(_gtid(row[0]) if int(row[2]) else None, read_only=bool(int(row[1])))

    # --------------------------------------------------------------------------------------------------- the rest

    @property
    def may_be_new(self) -> bool:
        """Whether its silence may mean that it was not created yet: a SQLite primary that was never seen."""
        return self.role == "primary" and self.backend == "sqlite" and self.health.state == "unknown"

    @property
    def outstanding(self) -> int:
        """Connections in use by this process; 0 where the pool does not count them."""
        count = getattr(self.engine.pool, "checkedout", None)
        busy = int(count()) if count is not None else 0
        if self._async_engine is not None:
            count = getattr(self._async_engine.sync_engine.pool, "checkedout", None)
            busy += int(count()) if count is not None else 0
        return busy

    def drop_connections(self, *, close: bool = True) -> None:
        """Forget every pooled connection; those in use are closed when they come back.

        Args:
            close: Whether to close them as well: not in a forked child, where they belong to the parent.
        """
        self.engine.dispose(close=close)
        if self._asking is not self.engine:
            self._asking.dispose(close=close)
        if self._async_engine is not None:
            self._async_engine.sync_engine.dispose(close=False)  # only their own event loop can close them

    async def aclose(self) -> None:
        """Close the connections of async sessions."""
        if self._async_engine is not None:
            await self._async_engine.dispose()

    def close(self) -> None:
        """Close what was made here; a ready engine is left open, without what was attached to it."""
        for target, name, listener in self._listeners:
            event.remove(target, name, listener)
        self._listeners = []
        if self._url is None:
            sql.forgive_endings(self.engine, undo=True)
            return
        self.drop_connections()

    def __repr__(self) -> str:
        return f"<{self.name} of {self.set_name!r}: {self.health.state}>"


def _gtid(text: Any) -> Position:
    return Gtid.parse(str(text or ""))
