"""A replica set without servers, whose replicas lag by a clock of their own: for the tests of your application."""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from resilient.errors import InvalidInput
from resilient.storage.replicas import NodeStatus, ReplicaSet
from resilient.storage.replicas._node import Node
from resilient.storage.replicas._router import Router
from resilient.testing.clock import FakeClock
from resilient.testing.sqlite import SqliteReplication

__all__ = ["FakeReplicaSet"]

_COMMIT = 0.001  # seconds a commit takes, so that what was proven before it does not cover it


class _ByTheClock(Router):
    """Decides as it always does, once the servers are where the clock says they are."""

    def __init__(self, *parts: Any, settle: Callable[[], None], committed: Callable[[], None], **rules: Any) -> None:
        super().__init__(*parts, **rules)
        self._settle = settle
        self._committed = committed

    def pick(self, given_up: Sequence[Node] = ()) -> Node:
        if not given_up:
            self._settle()
        return super().pick(given_up)

    def require_writable(self) -> None:
        self._settle()
        super().require_writable()

    def observe(self) -> None:
        self._committed()
        super().observe()


class FakeReplicaSet(ReplicaSet):
    """A `ReplicaSet` over small SQLite files, whose replicas are behind by as much as a test wants.

    What is committed reaches the replicas when ``lag`` seconds have passed on the clock, and not before. Routing,
    consistency, sessions, tokens and errors are those of `ReplicaSet` itself; only the servers are replaced. Probes
    run whenever a server is chosen, so that a test waits for nothing.

    Args:
        replicas: How many there are.
        lag: Seconds on the clock by which every replica is behind.
        clock: What the lag is counted on; by default a `FakeClock`, to be found as ``clock``.
        **options: What `ReplicaSet` takes.

    Examples:
        >>> import sqlalchemy as sa
        >>> db = FakeReplicaSet(lag=0.5)
        >>> with db.engine.begin() as connection:
        ...     _ = connection.execute(sa.text("CREATE TABLE t (id INTEGER PRIMARY KEY)"))
        >>> db.clock.advance(1)
        >>> t = sa.table("t", sa.column("id"))
        >>> Session = db.sessionmaker()
        >>> with db.scope() as mine, Session() as session:
        ...     _ = session.execute(sa.insert(t).values(id=1))
        ...     session.commit()
        >>> with db.scope(mine.token), Session() as session:   # the writer
        ...     session.scalars(sa.select(t.c.id)).all()
        [1]
        >>> with db.scope(), Session() as session:             # somebody else, for half a second
        ...     session.scalars(sa.select(t.c.id)).all()
        []
        >>> db.close()
    """

    clock: FakeClock

    def __init__(self, replicas: int = 2, *, lag: float = 0.0, clock: FakeClock | None = None, **options: Any) -> None:
        self.lag = lag
        self.clock = clock or FakeClock()
        self._folder = tempfile.TemporaryDirectory(prefix="resilient-replicas-")
        folder = Path(self._folder.name)
        self._files = tuple(folder / f"replica-{number}.db" for number in range(1, replicas + 1))
        self._file = folder / "primary.db"
        for path in (self._file, *self._files):
            with contextlib.closing(sqlite3.connect(path)) as new:
                new.execute("PRAGMA user_version = 1")  # a file of a page, where SQLite would leave none
        self._source = sqlite3.connect(self._file, check_same_thread=False)
        # It only moves files away and back; what a replica holds is decided here, by the clock.
        self._mover = SqliteReplication(self._file, (*self._files, self._file))
        self._snapshots: list[tuple[float, bytes]] = [(self.clock.wall(), self._source.serialize())]
        self._version = self._data_version()
        self._looked = self.clock.wall()
        self._stopped: set[int] = set()
        super().__init__(
            f"sqlite:///file:{self._file}?mode=rw&uri=true",
            [f"sqlite:///{path}" for path in self._files],
            name=options.pop("name", "app"),
            probe_interval=None,
            clock=self.clock,
            **options,
        )
        self._settle()

    # ------------------------------------------------------------------------------------------- what a test does

    def stop(self, index: int) -> None:
        """Stop one replica's replication: it stays as it is now."""
        self._settle()
        self._stopped.add(self._number(index))

    def start(self, index: int) -> None:
        """Let a stopped replica go on."""
        self._stopped.discard(index)

    def kill(self, node: int | str) -> None:
        """Make a server unreachable.

        Args:
            node: A replica's index, or ``"primary"``.
        """
        self._mover.kill(self._number(node))
        self._node(node).drop_connections()

    def restart(self, node: int | str) -> None:
        """Make a killed server reachable again."""
        self._mover.restart(self._number(node))
        self._settle()

    def _number(self, node: int | str) -> int:
        if node == "primary":
            return len(self._files)
        if not isinstance(node, int) or not 0 <= node < len(self._files):
            raise InvalidInput("there is no such server", advice="a replica's index, or 'primary'")
        return node

    def _node(self, node: int | str) -> Node:
        return self._nodes[0] if node == "primary" else self._nodes[self._number(node) + 1]

    # ---------------------------------------------------------------------------------------- replication, by the clock

    def status(self) -> tuple[NodeStatus, ...]:
        """As in `ReplicaSet`, after looking at the servers."""
        self._settle()
        return super().status()

    def _make_router(self, *parts: Any, **rules: Any) -> Router:
        return _ByTheClock(*parts, **rules, settle=self._settle, committed=self._committed)

    def _committed(self) -> None:
        """Note a commit: it reaches the replicas when their lag has passed."""
        self.clock.advance(_COMMIT)
        self._snapshot(self.clock.wall())

    def _data_version(self) -> int:
        return int(self._source.execute("PRAGMA data_version").fetchone()[0])

    def _snapshot(self, at: float) -> None:
        version = self._data_version()
        if version != self._version:
            self._version = version
            self._snapshots.append((at, self._source.serialize()))

    def _settle(self) -> None:
        # What was committed by other ways than a session of this set is found late: date it early, so that no proof
        # claims too much.
        self._snapshot(self._looked)
        self._looked = self.clock.wall()
        for index, path in enumerate(self._files):
            if index not in self._stopped:
                self._bring(path, self._looked - self.lag)
        while len(self._snapshots) > 1 and self._snapshots[1][0] <= self._looked - self.lag:
            self._snapshots.pop(0)
        for _ in range(3):  # as many good probes as bring a server back
            self._watch.ask_all()

    def _bring(self, path: Path, holds: float) -> None:
        """Make a replica hold exactly what was committed up to a moment."""
        due = [data for at, data in self._snapshots if at <= holds]
        data = due[-1] if due else self._snapshots[0][1]
        with contextlib.suppress(sqlite3.Error):  # killed
            target = sqlite3.connect(f"file:{path}?mode=rw", uri=True, timeout=1.0)
            with contextlib.closing(target), contextlib.closing(sqlite3.connect(":memory:")) as staged:
                staged.deserialize(data)
                with staged:
                    staged.execute("CREATE TABLE resilient_copied (at REAL NOT NULL)")
                    staged.execute("INSERT INTO resilient_copied VALUES (?)", (holds,))
                staged.backup(target)

    def close(self) -> None:
        """Close everything and remove the files."""
        super().close()
        self._mover.close()
        self._source.close()
        self._folder.cleanup()
