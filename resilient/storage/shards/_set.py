"""The shard set: the face of this room."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import TimeoutError as StillRunning
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self, TypeAlias, cast, runtime_checkable

import sqlalchemy as sa
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from resilient.clock import SYSTEM, Clock
from resilient.errors import ConfigurationError, InvalidInput, ResilientError
from resilient.policy import deadline
from resilient.runtime import WorkerPool, after_fork, fork_safe_lock
from resilient.storage.shards import _store
from resilient.storage.shards._gather import GatherSession
from resilient.storage.shards._guard import guard
from resilient.storage.shards._map import Key, Layout, ShardMap
from resilient.wire import sql

__all__ = ["Replicated", "ShardSet", "ShardStatus", "Target"]


@runtime_checkable
class Replicated(Protocol):
    """What a shard that is a replica set of its own offers; `resilient.storage.replicas.ReplicaSet` does."""

    @property
    def engine(self) -> Engine:
        """The engine of its primary."""
        ...

    def sessionmaker(self, **options: Any) -> sessionmaker[Any]:
        """A factory of its sessions."""
        ...

    def status(self) -> tuple[Any, ...]:
        """What is known of each of its servers."""
        ...

    def close(self) -> None:
        """Close its connections."""
        ...


Target: TypeAlias = str | sa.URL | Engine | Replicated
"""A shard: a database URL, a ready engine, or a replica set."""


@dataclass(frozen=True, slots=True)
class ShardStatus:
    """What is known of one shard.

    Args:
        name: The shard.
        state: ``up``, ``down``, or ``degraded``: its replicas can be read, its primary cannot be written.
        buckets: How many buckets it holds.
        nodes: The servers of a shard that is a replica set, as that tells them; else empty.
    """

    name: str
    state: Literal["up", "degraded", "down"]
    buckets: int
    nodes: tuple[Any, ...] = ()


class ShardSet:
    """Several databases that hold the rows of different keys, used as one.

    Args:
        shards: For each name its database: a URL, a ready engine or a replica set.
        control: The database that stores the shard map: a URL, a ready engine or a replica set. Without it the layout
            is what `create` is given in this process, and can never change.
        timeout: Seconds for a read over all shards; a running `resilient.policy.deadline` shortens it.
        connect_timeout: Seconds for a connection with its handshake.
        pool_size: Connections kept to each shard.
        unbounded: Accept ready engines that could wait for ever.
        clock: Where time is read.

    Raises:
        ConfigurationError: There are no shards, or they are of different kinds of database, or a ready engine has no
            time limit.

    Examples:
        >>> shards = ShardSet({"a": "sqlite://", "b": "sqlite://"})
        >>> layout = shards.create(ShardMap.hashed(["a", "b"])).layout()
        >>> shards.shard_for(42)
        'b'
        >>> with shards.session(key=42) as session:
        ...     session.scalar(sa.text("SELECT 1"))
        1
        >>> shards.close()
    """

    def __init__(
        self,
        shards: Mapping[str, Target],
        *,
        control: Target | None = None,
        timeout: float = 5.0,
        connect_timeout: float = 1.0,
        pool_size: int = 10,
        unbounded: bool = False,
        clock: Clock = SYSTEM,
    ) -> None:
        given: object = shards
        if not isinstance(given, Mapping):
            raise ConfigurationError(
                "a shard set takes its databases by name", advice='write ShardSet({"a": url, "b": url})'
            )
        if not shards:
            raise ConfigurationError("a shard set needs at least one shard")
        self._clock = clock
        self._timeout = timeout
        self._limits: dict[str, Any] = {"connect_timeout": connect_timeout, "pool_size": pool_size}
        self._unbounded = unbounded
        self._owned: list[Engine] = []
        self._targets = {name: self._open(target) for name, target in shards.items()}
        self._control = None if control is None else _engine_of(self._open(control))
        backends = {_engine_of(target).url.get_backend_name() for target in self._targets.values()}
        if len(backends) > 1 or not backends <= {"sqlite", "mysql", "mariadb"}:
            raise ConfigurationError(f"shards are all MariaDB or all SQLite, not {', '.join(sorted(backends))}")
        self._backend = backends.pop()
        self._makers = {name: self._maker(name, target) for name, target in self._targets.items()}
        self._pool = WorkerPool("gather", size=min(64, 4 * len(shards)))
        self._map: ShardMap | None = None
        self._lock = fork_safe_lock()
        after_fork(self._after_fork)

    def _open(self, target: Target) -> Engine | Replicated:
        if isinstance(target, str | sa.URL):
            made = sql.engine(target, **self._limits)
            self._owned.append(made)
            return made
        return sql.engine(target, unbounded=self._unbounded) if isinstance(target, Engine) else target

    def _maker(self, name: str, target: Engine | Replicated) -> sessionmaker[Session]:
        made = sessionmaker(target) if isinstance(target, Engine) else target.sessionmaker()
        guard(made, name, self.shard_for)
        return cast("sessionmaker[Session]", made)

    # --------------------------------------------------------------------------------------------------- the map

    def create(self, shard_map: ShardMap) -> ShardMap:
        """Store the first shard map. To be done once; storing the same map again is no error.

        Args:
            shard_map: Which shard holds which buckets.

        Raises:
            ConfigurationError: The map names a shard that this set does not know.
            Conflict: Another map is stored already.
        """
        checked = self._checked(shard_map)
        if self._control is not None:
            checked = _store.create(self._control, checked, self._clock)
        self._map = checked
        return checked

    def _checked(self, shard_map: ShardMap) -> ShardMap:
        unknown = set(shard_map.names) - set(self._targets)
        if unknown:
            raise ConfigurationError(f"the shard map names {', '.join(sorted(unknown))}, which this set does not know")
        return shard_map

    @property
    def map(self) -> ShardMap:
        """The map in force, read from the control database on first use.

        Raises:
            ConfigurationError: None was created yet, or it names a shard that this set does not know.
            Unavailable: The control database does not answer.
        """
        found = self._map
        if found is None:
            if self._control is None:
                raise ConfigurationError("this shard set has no map", advice="give it control=, or call create()")
            with self._lock:
                found = self._map or self._checked(_store.load(self._control))
                self._map = found
        return found

    def shard_for(self, key: Key) -> str:
        """The shard that holds a key.

        Raises:
            InvalidInput: It can be no key.
        """
        return self.map.shard_for(key)

    def layout(self) -> Layout:
        """Which buckets each shard holds."""
        return self.map.layout()

    # -------------------------------------------------------------------------------------------------- sessions

    def session(self, *, key: Key, **options: Any) -> Session:
        """A session on the shard that holds a key: an ordinary SQLAlchemy Session, with ordinary transactions.

        What belongs to another shard, and a sharded object without a key, is refused when it is flushed, before
        anything is sent.

        Args:
            key: The shard key.
            **options: What a Session takes, as in ``expire_on_commit=False``.

        Raises:
            InvalidInput: It can be no key.
        """
        return self._makers[self.shard_for(key)](**options)

    def gather(self, *, partial: bool = False, timeout: float | None = None) -> GatherSession:
        """Reads over all shards that hold buckets.

        Args:
            partial: Answer without the shards that give no answer, and name them in ``missing``.
            timeout: Seconds for each read; by default the set's own.

        Raises:
            InvalidInput: The timeout is not greater than 0.
        """
        if timeout is not None and timeout <= 0:
            raise InvalidInput("a gathered read needs a timeout greater than 0")
        makers = {name: self._makers[name] for name in self.map.names}
        return GatherSession(
            makers,
            self._pool,
            backend=self._backend,
            timeout=self._timeout if timeout is None else timeout,
            partial=partial,
            clock=self._clock,
        )

    def engine_for(self, name: str) -> Engine:
        """The engine of one shard, for Core and for migrations. Nothing is checked on it.

        Raises:
            InvalidInput: There is no such shard.
        """
        if name not in self._targets:
            raise InvalidInput(f"there is no shard {name!r}", advice=f"one of {', '.join(self._targets)}")
        return _engine_of(self._targets[name])

    # ---------------------------------------------------------------------------------------------- status and end

    def status(self, timeout: float = 1.0) -> tuple[ShardStatus, ...]:
        """What is known of each shard. A shard that is one database is asked now, all of them at once.

        Args:
            timeout: Seconds for the answer.
        """
        counts = {name: self.layout().count(name) for name in self.map.names}
        asked = {
            name: self._pool.submit(_ping, target, timeout)
            for name, target in self._targets.items()
            if isinstance(target, Engine)
        }
        found: list[ShardStatus] = []
        for name, target in self._targets.items():
            buckets = counts.get(name, 0)
            if isinstance(target, Engine):
                try:
                    alive = asked[name].result(timeout + 0.25)
                except StillRunning:
                    alive = False
                found.append(ShardStatus(name, "up" if alive else "down", buckets))
            else:
                nodes = target.status()
                found.append(ShardStatus(name, _state_of(nodes), buckets, nodes))
        return tuple(found)

    def close(self) -> None:
        """Close every connection made here; ready engines and replica sets stay open."""
        self._pool.close()
        for each in self._owned:
            each.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"ShardSet({', '.join(self._targets)})"

    def _after_fork(self) -> None:
        for each in self._owned:
            each.dispose(close=False)  # the sockets belong to the parent


def _engine_of(target: Engine | Replicated) -> Engine:
    return target if isinstance(target, Engine) else target.engine


def _ping(target: Engine, timeout: float) -> bool:
    try:
        with deadline(timeout), target.connect() as connection:
            connection.execute(sa.text("SELECT 1" if target.dialect.name != "sqlite" else "PRAGMA schema_version"))
    except (ResilientError, SQLAlchemyError):
        return False
    return True


def _state_of(nodes: tuple[Any, ...]) -> Literal["up", "degraded", "down"]:
    if any(node.role == "primary" and node.state in {"up", "unknown"} for node in nodes):
        return "up"
    return "degraded" if any(node.state == "up" for node in nodes) else "down"
