"""The replica set: the face of this room."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from pathlib import PurePath
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

import sqlalchemy as sa
from sqlalchemy.engine import Engine
from sqlalchemy.orm import sessionmaker

from resilient import causality, events
from resilient.causality import Instant, Position, Scope, Token
from resilient.clock import SYSTEM, Clock
from resilient.errors import CircuitOpen, ConfigurationError, InvalidInput, Unavailable
from resilient.runtime import after_fork
from resilient.storage.replicas._events import ReadRouted
from resilient.storage.replicas._health import Copy, State, choose
from resilient.storage.replicas._node import Limits, Node, NodeStatus, address
from resilient.storage.replicas._session import RoutingSession
from resilient.storage.replicas._watch import Watch

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

__all__ = ["Consistency", "ReplicaSet"]

Consistency: TypeAlias = Literal["eventual", "session", "strong"]

_LEVELS = ("eventual", "session", "strong")
_chosen: ContextVar[Mapping[str, Consistency]] = ContextVar("resilient_consistency", default=MappingProxyType({}))


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
        clock: Where time is read.

    Raises:
        ConfigurationError: A setting is out of range, a database is neither MariaDB nor SQLite, or a replica is of
            another kind than its primary.

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
        clock: Clock = SYSTEM,
    ) -> None:
        if max_lag <= 0 or (probe_interval is not None and probe_interval <= 0):
            raise ConfigurationError("max_lag and probe_interval must be greater than 0 seconds")
        if isinstance(replicas, str):
            raise ConfigurationError("replicas= takes a list of addresses", advice="write replicas=[url]")
        self.name = name or _name_of(primary)
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", self.name):
            raise ConfigurationError("a replica set's name has 1 to 64 letters, digits, dots, dashes or underscores")
        _check_kinds(primary, replicas)
        self.max_lag = max_lag
        self._default = _checked(consistency)
        self._clock = clock
        self._interval = probe_interval
        limits = Limits(connect_timeout, timeout, min(connect_timeout, 0.5), pool_size, max_overflow)
        self.primary_node = Node(self.name, "primary", primary, role="primary", limits=limits, failed=self._failed)
        self._replicas = tuple(
            Node(self.name, f"replica-{number}", target, role="replica", limits=limits, failed=self._failed)
            for number, target in enumerate(replicas, start=1)
        )
        self._turn = itertools.count()
        self._watch = Watch(
            self.name, self.primary_node, self._replicas, max_lag=max_lag, interval=probe_interval, clock=clock
        )
        self._closed = False
        after_fork(self._after_fork)

    # --------------------------------------------------------------------------------------------------- the face

    @property
    def engine(self) -> Engine:
        """The primary's engine, for Core and for tools such as Alembic."""
        return self.primary_node.engine

    @property
    def replica_engines(self) -> tuple[Engine, ...]:
        """The replicas' engines, in their order, for reads by hand. A write through one raises Refused."""
        return tuple(node.engine for node in self._replicas)

    def sessionmaker(self, **options: Any) -> sessionmaker[RoutingSession]:
        """A factory of sessions that route.

        Args:
            **options: What SQLAlchemy's ``sessionmaker`` takes, as in ``expire_on_commit=False``.
        """
        self._ensure()
        return sessionmaker(class_=RoutingSession, replicas=self, **options)

    def async_sessionmaker(self, **options: Any) -> async_sessionmaker[AsyncSession]:
        """A factory of async sessions that route alike. Needs an async driver and nodes given as URLs.

        Args:
            **options: What SQLAlchemy's ``async_sessionmaker`` takes.

        Raises:
            ConfigurationError: A node was given as a ready engine.
            MissingExtra: The async driver is not installed.
        """
        from sqlalchemy.ext.asyncio import async_sessionmaker

        self._ensure()
        for node in self._nodes:
            node.async_engine()
        return async_sessionmaker(sync_session_class=RoutingSession, replicas=self, use_async=True, **options)

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

    @contextmanager
    def consistency(self, level: Consistency) -> Iterator[None]:
        """Choose what reads promise within the block, for transactions that begin there.

        Args:
            level: ``eventual``, ``session`` or ``strong``.

        Raises:
            InvalidInput: There is no such level.
        """
        reset = _chosen.set({**_chosen.get(), self.name: _checked(level)})
        try:
            yield
        finally:
            _chosen.reset(reset)

    def primary(self) -> AbstractContextManager[None]:
        """Send every transaction that begins within the block to the primary."""
        return self.consistency("strong")

    def status(self) -> tuple[NodeStatus, ...]:
        """What is known of each server, the primary first. Asks nobody."""
        self._ensure()
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
        self._closed = True
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
        return f"ReplicaSet({self.name!r}, replicas={len(self._replicas)})"

    # ------------------------------------------------------------------------------------- what its sessions ask

    def pick(self, given_up: Sequence[Node] = ()) -> Node:
        """The server for a transaction that begins with a pure read.

        Args:
            given_up: Servers that failed this transaction already.

        Raises:
            Unavailable: No server may serve it.
        """
        self._ensure()
        level = _chosen.get().get(self.name, self._default)
        pin = causality.current().token.get(self.name) if level == "session" else None
        reason = "strong"
        if level != "strong":
            found = self._pick_replica(given_up, pin)
            if found is not None:
                return self._routed(found, "replica")
            reason = "pinned" if pin is not None else "no-replica"
        if self.primary_node not in given_up and self.primary_node.health.state != "down":
            return self._routed(self.primary_node, reason)
        if level != "strong" and pin is None:
            found = self._most_advanced(given_up)
            if found is not None:
                return self._routed(found, "no-primary")
        needs = {"strong": "a strong read needs it", "pinned": "no replica holds what this reader has seen yet"}
        raise Unavailable(
            f"the primary of {self.name!r} is down and {needs.get(reason, 'no replica can serve')}",
            retry_after=self._interval,
        )

    def _routed(self, node: Node, reason: str) -> Node:
        if events.wanted(ReadRouted):
            events.emit(ReadRouted(set_name=self.name, node=node.name, reason=reason))
        return node

    def _pick_replica(self, given_up: Sequence[Node], pin: Position | None) -> Node | None:
        if not self._replicas:
            return None
        copies = [
            Copy(index, node.health.state, node.proven, node.outstanding)
            for index, node in enumerate(self._replicas)
            if node not in given_up
        ]
        # Should the probes themselves stand still, a proof still grows old.
        slack = 3 * (self._interval or 0.0) + 1.0
        oldest = self._clock.wall() - self.max_lag - slack if self.primary_node.answered else None
        index = choose(copies, pin=pin, oldest=oldest, turn=next(self._turn))
        return None if index is None else self._replicas[index]

    def _most_advanced(self, given_up: Sequence[Node]) -> Node | None:
        """With the primary gone before anything was proven: a replica that holds whatever any other holds."""
        told = [node for node in self._replicas if node.position is not None and node.health.state != "down"]
        for node in told:
            mine = node.position
            if node not in given_up and mine is not None:
                others = (other.position for other in told)
                if all(theirs is None or mine.covers(theirs) for theirs in others):
                    return node
        return None

    def has_other(self, node: Node, given_up: Sequence[Node]) -> bool:
        """Whether another server might serve a read that this one fails."""
        return any(each is not node and each not in given_up and each.health.state != "down" for each in self._nodes)

    def require_writable(self) -> None:
        """Raise where the primary is known to take no writes; nothing is sent.

        Raises:
            CircuitOpen: The primary is down, or read-only.
        """
        self._ensure()
        state = self.primary_node.health.state
        if state in {"down", "read_only"}:
            raise CircuitOpen(
                f"the primary of {self.name!r} is {state.replace('_', '-')}: nothing was sent",
                advice="reads go on at the replicas; write again when it is back",
                retry_after=self._interval,
            )

    def observe(self) -> None:
        """Remember, for the current scope, that something was committed just now."""
        causality.current().observe(self.name, Instant(self._clock.wall()))

    # --------------------------------------------------------------------------------------------------- the rest

    @property
    def _nodes(self) -> tuple[Node, ...]:
        return (self.primary_node, *self._replicas)

    def _ensure(self) -> None:
        if self._closed:
            raise Unavailable(f"the replica set {self.name!r} is closed")
        self._watch.ensure()

    def _failed(self, node: Node, state: State) -> None:
        self._watch.failed(node, state)

    def _after_fork(self) -> None:
        for node in self._nodes:
            node.drop_connections(close=False)  # the sockets belong to the parent


def _lag(node: Node, reference: float | None) -> float | None:
    if node.role == "primary":
        return 0.0
    if node.proven is None or reference is None:
        return None
    return max(0.0, reference - node.proven)


def _checked(level: str) -> Consistency:
    if level not in _LEVELS:
        raise InvalidInput(f"there is no consistency {level!r}", advice=f"one of {', '.join(_LEVELS)}")
    return level  # type: ignore[return-value] # just checked


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
    stem = PurePath(_url(primary).database or "memory").stem
    return re.sub(r"[^A-Za-z0-9_.-]", "_", stem)[:64] or "db"
