"""The replica set: the face of this room. It owns the servers' lives; `_router` decides which one serves."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Self

import sqlalchemy as sa
from sqlalchemy.engine import Engine
from sqlalchemy.orm import sessionmaker

from resilient import causality
from resilient.arguments import check_name, one_of, to_name
from resilient.causality import Scope, Token
from resilient.clock import SYSTEM, Clock
from resilient.errors import ConfigurationError, InvalidInput
from resilient.runtime import after_fork
from resilient.storage.replicas._health import State
from resilient.storage.replicas._node import Limits, Node, NodeStatus, address
from resilient.storage.replicas._router import LEVELS, Consistency, Router
from resilient.storage.replicas._session import RoutingSession
from resilient.storage.replicas._watch import Watch

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

__all__ = ["ReplicaSet"]


class ReplicaSet:
    """One primary and its read-only copies, used as one database.

    A transaction runs on one server, chosen at its first statement. It leaves the primary only if that statement is
    proven to be a pure read, and a write moves it to the primary for its rest.

    Args:
        primary: The URL of the database that takes the writes, or a ready engine.
        replicas: The URLs of its copies, or ready engines. A ready engine given here becomes read-only.
        name: What it is called in tokens, events and messages; by default the database's name. Processes that share
            tokens must use the same name.
        max_lag: Seconds a replica may be behind and still serve reads.
        consistency: What a read promises where `consistency` says nothing: ``session`` (a reader sees what it wrote),
            ``eventual`` (any replica within ``max_lag``) or ``strong`` (the primary).
        probe_interval: Seconds between two probes of one server; ``None`` leaves probing to calls of `probe`.
        connect_timeout: Seconds for a connection with its handshake.
        timeout: Seconds for one statement; a running `resilient.policy.deadline` shortens it.
        pool_size: Connections kept to each server.
        max_overflow: Connections to each server beyond that.
        unbounded: Accept ready engines that could wait for ever.
        clock: Where time is read.

    Raises:
        ConfigurationError: A setting is out of range, a ready engine has no time limit, a database is neither MariaDB
            nor SQLite, or a replica is of another kind than its primary.

    Examples:
        >>> db = ReplicaSet("sqlite://", max_lag=2.0)
        >>> Session = db.sessionmaker()
        >>> with Session() as session:
        ...     session.scalar(sa.text("SELECT 1"))
        1
        >>> [node.role for node in db.status()]
        ['primary']
        >>> db.close()
    """

    def __init__(
        self,
        primary: str | sa.URL | Engine,
        replicas: Sequence[str | sa.URL | Engine] = (),
        *,
        name: str | None = None,
        max_lag: float = 2.0,
        consistency: Consistency = "session",
        probe_interval: float | None = 0.2,
        connect_timeout: float = 1.0,
        timeout: float = 10.0,
        pool_size: int = 10,
        max_overflow: int = 10,
        unbounded: bool = False,
        clock: Clock = SYSTEM,
    ) -> None:
        if max_lag <= 0 or (probe_interval is not None and probe_interval <= 0):
            raise ConfigurationError("max_lag and probe_interval must be greater than 0 seconds")
        if isinstance(replicas, str):
            raise ConfigurationError("replicas= takes a list of addresses", advice="write replicas=[url]")
        self.name = check_name("a replica set", name or _name_of(primary))
        _check_kinds(primary, replicas)
        self.max_lag = max_lag
        one_of("consistency", consistency, LEVELS, InvalidInput)
        limits = Limits(connect_timeout, timeout, min(connect_timeout, 0.5), pool_size, max_overflow, unbounded)
        told: dict[str, Any] = {"limits": limits, "failed": self._failed, "in_doubt": self._in_doubt}
        primary_node = Node(self.name, "primary", primary, role="primary", **told)
        replica_nodes = tuple(
            Node(self.name, f"replica-{number}", target, role="replica", **told)
            for number, target in enumerate(replicas, start=1)
        )
        self._nodes = (primary_node, *replica_nodes)
        self._watch = Watch(
            self.name, primary_node, replica_nodes, max_lag=max_lag, interval=probe_interval, clock=clock
        )
        self.router = self._make_router(
            self.name,
            primary_node,
            replica_nodes,
            self._watch,
            max_lag=max_lag,
            consistency=consistency,
            interval=probe_interval,
            clock=clock,
        )
        after_fork(self._after_fork)

    # --------------------------------------------------------------------------------------------------- the face

    @property
    def engine(self) -> Engine:
        """The primary's engine, for Core and for tools such as Alembic."""
        return self.router.primary.engine

    @property
    def replica_engines(self) -> tuple[Engine, ...]:
        """The replicas' engines, in their order, for reads by hand. A write through one raises Refused."""
        return tuple(node.engine for node in self.router.replicas)

    def sessionmaker(self, **options: Any) -> sessionmaker[RoutingSession]:
        """A factory of sessions that route.

        Args:
            **options: What SQLAlchemy's ``sessionmaker`` takes, as in ``expire_on_commit=False``.
        """
        self._watch.ensure()
        return sessionmaker(class_=RoutingSession, router=self.router, **options)

    def async_sessionmaker(self, **options: Any) -> async_sessionmaker[AsyncSession]:
        """A factory of async sessions that route alike. Needs an async driver and nodes given as URLs.

        Args:
            **options: What SQLAlchemy's ``async_sessionmaker`` takes.

        Raises:
            ConfigurationError: A node was given as a ready engine.
            MissingExtra: The async driver is not installed.
        """
        from sqlalchemy.ext.asyncio import async_sessionmaker

        self._watch.ensure()
        for node in self._nodes:
            node.async_engine()
        return async_sessionmaker(sync_session_class=RoutingSession, router=self.router, use_async=True, **options)

    def scope(self, token: Token | str | None = None) -> AbstractContextManager[Scope]:
        """Open the scope of one user's request: see `resilient.causality.scope`.

        Args:
            token: What the user's last request ended with.

        Examples:
            >>> db = ReplicaSet("sqlite://")
            >>> with db.scope() as scope:
            ...     str(scope.token)
            ''
            >>> db.close()
        """
        return causality.scope(token)

    def consistency(self, level: Consistency) -> AbstractContextManager[None]:
        """Choose what reads promise within the block, for transactions that begin there.

        Args:
            level: ``eventual``, ``session`` or ``strong``.

        Raises:
            InvalidInput: There is no such level.
        """
        return self.router.consistency(level)

    def primary(self) -> AbstractContextManager[None]:
        """Send every transaction that begins within the block to the primary."""
        return self.consistency("strong")

    def observe(self) -> None:
        """Tell, for the current scope, of a commit that no session of this set made: its reader is to see it."""
        self.router.observe()

    def status(self) -> tuple[NodeStatus, ...]:
        """What is known of each server, the primary first. Asks nobody."""
        self._watch.ensure()
        reference = self._watch.reference()
        return tuple(
            NodeStatus(node.name, node.role, node.health.state, _lag(node, reference), node.outstanding)
            for node in self._nodes
        )

    def probe(self) -> tuple[NodeStatus, ...]:
        """Ask every server now, one after the other, and return the `status`. For tests and tools."""
        self._watch.ask_all()
        return self.status()

    def close(self) -> None:
        """End the probes and close every connection made here. Async engines are closed by `aclose`."""
        self._watch.close()
        for node in self._nodes:
            node.close()

    async def aclose(self) -> None:
        """As `close`, with the connections of async sessions."""
        for node in self._nodes:
            await node.aclose()
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"ReplicaSet({self.name!r}, replicas={len(self.router.replicas)})"

    # --------------------------------------------------------------------------------------------------- the rest

    def _make_router(self, *parts: Any, **rules: Any) -> Router:
        """What decides for the sessions of this set: the place where a set for tests puts its own."""
        return Router(*parts, **rules)

    def _failed(self, node: Node, state: State) -> None:
        self._watch.failed(node, state)

    def _in_doubt(self) -> None:
        self.router.observe()  # if it did happen, its writer must see it

    def _after_fork(self) -> None:
        for node in self._nodes:
            node.drop_connections(close=False)  # the sockets belong to the parent


def _lag(node: Node, reference: float | None) -> float | None:
    if node.role == "primary":
        return 0.0
    if node.proven is None or reference is None:
        return None
    return max(0.0, reference - node.proven)


def _check_kinds(primary: str | sa.URL | Engine, replicas: Sequence[str | sa.URL | Engine]) -> None:
    kinds = [_url(each).get_backend_name().replace("mariadb", "mysql") for each in (primary, *replicas)]
    if len(set(kinds)) > 1:
        raise ConfigurationError(
            f"a replica is a copy of its primary: these are {', '.join(dict.fromkeys(kinds))}",
            advice="give replicas= the copies of this primary",
        )


def _url(target: str | sa.URL | Engine) -> sa.URL:
    return target.url if isinstance(target, Engine) else address(target)


def _name_of(primary: str | sa.URL | Engine) -> str:
    return to_name(PurePath(_url(primary).database or "memory").stem, otherwise="db")
