"""The databases of the demonstration: MariaDB where the machine has it, else SQLite files. Each can be broken."""

from __future__ import annotations

import contextlib
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from resilient.testing.servers import MariaDbCluster, MariaDbServer, Process
from resilient.testing.servers.process import guard
from resilient.testing.sqlite import SqliteReplication

__all__ = ["Databases", "MariaDatabases", "SqliteDatabases", "databases"]

SHARDS = ("north", "south")


class Databases(Protocol):
    """One primary with two replicas, and two shards."""

    what: str
    """What they are, in a few words."""
    concurrency: int
    """How many pictures each worker may have in hand: a SQLite file has one writer at a time."""

    @property
    def primary(self) -> str:
        """The primary's URL."""
        ...

    @property
    def replicas(self) -> tuple[str, ...]:
        """The replicas' URLs."""
        ...

    @property
    def shards(self) -> Mapping[str, str]:
        """Name to URL of the shards."""
        ...

    @property
    def starts(self) -> Sequence[Callable[[], object]]:
        """What starts them; each may run on a thread of its own."""
        ...

    def replicate(self) -> None:
        """Begin to replicate; called once there are tables."""
        ...

    def kill_replica(self, index: int) -> None:
        """End a replica as a crash does."""
        ...

    def restart_replica(self, index: int) -> None:
        """Bring it back."""
        ...

    def stop_replication(self) -> None:
        """Let every replica fall behind."""
        ...

    def start_replication(self) -> None:
        """Let them catch up."""
        ...

    def kill_shard(self, name: str) -> None:
        """End a shard as a crash does."""
        ...

    def restart_shard(self, name: str) -> None:
        """Bring it back with its data."""
        ...

    def processes(self) -> list[tuple[str, int]]:
        """Names and process numbers, for those who want to break them by hand."""
        ...

    def stop(self) -> None:
        """End all of them and remove their data."""
        ...


def databases() -> Databases:
    """The best this machine has."""
    return MariaDatabases() if MariaDbCluster.missing() is None else SqliteDatabases()


class MariaDatabases:
    """Five servers: a primary with two replicas that follow it by GTID, and two shards."""

    what = "MariaDB: a primary, 2 replicas (GTID), 2 shards"
    concurrency = 4

    def __init__(self) -> None:
        self._cluster = MariaDbCluster(replicas=2)
        self._shards = {name: MariaDbServer(name=f"mariadb-{name}") for name in SHARDS}

    @property
    def primary(self) -> str:
        return self._cluster.url

    @property
    def replicas(self) -> tuple[str, ...]:
        return tuple(node.url for node in self._cluster.replicas)

    @property
    def shards(self) -> Mapping[str, str]:
        return {name: server.url for name, server in self._shards.items()}

    @property
    def starts(self) -> Sequence[Callable[[], object]]:
        return [self._cluster.start, *(server.start for server in self._shards.values())]

    def replicate(self) -> None:
        self._cluster.wait_caught_up()

    def kill_replica(self, index: int) -> None:
        self._cluster.replicas[index].kill()

    def restart_replica(self, index: int) -> None:
        self._cluster.replicas[index].start()

    def stop_replication(self) -> None:
        for node in self._cluster.replicas:
            node.stop_replication()

    def start_replication(self) -> None:
        for node in self._cluster.replicas:
            node.start_replication()

    def kill_shard(self, name: str) -> None:
        self._shards[name].kill()

    def restart_shard(self, name: str) -> None:
        self._shards[name].start()

    def processes(self) -> list[tuple[str, int]]:
        replicas = [(f"replica-{number}", node.pid) for number, node in enumerate(self._cluster.replicas, start=1)]
        shards = [(f"shard {name}", server.pid) for name, server in self._shards.items()]
        return [("primary", self._cluster.primary.pid), *replicas, *shards]

    def stop(self) -> None:
        self._cluster.stop()
        for server in self._shards.values():
            server.stop()


class SqliteDatabases:
    """Five files, and a process that copies the primary to its replicas again and again."""

    what = "SQLite files: a primary, 2 replicas fed by a copier, 2 shards"
    concurrency = 1

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="imagery-"))
        guard.add("folder", self._folder)
        self._files = {name: self._folder / f"{name}.db" for name in ("primary", "replica-1", "replica-2", *SHARDS)}
        copies = [self._files["replica-1"], self._files["replica-2"]]
        self._replication = SqliteReplication(self._files["primary"], copies)
        command = [sys.executable, "-m", "resilient.testing.sqlite", self._files["primary"], *copies]
        self._copier = Process(list(map(str, command)), cwd=Path(__file__).parents[2], name="copier")

    def _url(self, name: str) -> str:
        return f"sqlite:///{self._files[name]}"

    @property
    def primary(self) -> str:
        return self._url("primary")

    @property
    def replicas(self) -> tuple[str, ...]:
        return self._url("replica-1"), self._url("replica-2")

    @property
    def shards(self) -> Mapping[str, str]:
        return {name: self._url(name) for name in SHARDS}

    @property
    def starts(self) -> Sequence[Callable[[], object]]:
        return [self._make_files]

    def _make_files(self) -> None:
        for name in ("primary", *SHARDS):
            with contextlib.closing(sqlite3.connect(self._files[name])) as made:
                made.execute("PRAGMA user_version = 1")

    def replicate(self) -> None:
        self._replication.copy()
        self._copier.start()

    def kill_replica(self, index: int) -> None:
        self._replication.kill(index)

    def restart_replica(self, index: int) -> None:
        self._replication.restart(index)

    def stop_replication(self) -> None:
        for index in range(2):
            self._replication.stop(index)

    def start_replication(self) -> None:
        for index in range(2):
            self._replication.start(index)

    def kill_shard(self, name: str) -> None:
        # Under an exclusive lock nobody is in the midst of a transaction, whose journal would stay behind.
        with contextlib.closing(sqlite3.connect(self._files[name], timeout=5.0, isolation_level=None)) as holder:
            holder.execute("BEGIN EXCLUSIVE")
            self._files[name].rename(self._grave(name))
            holder.execute("ROLLBACK")

    def restart_shard(self, name: str) -> None:
        self._grave(name).rename(self._files[name])

    def _grave(self, name: str) -> Path:
        return self._folder / f"{name}.killed"

    def processes(self) -> list[tuple[str, int]]:
        return [("copier of the replicas", self._copier.pid)]

    def stop(self) -> None:
        import shutil

        self._copier.stop()
        self._replication.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        guard.drop("folder", self._folder)
