"""Replica sets of every kind under one face, so that one test holds for all of them."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from resilient.storage.replicas import ReplicaSet
from resilient.testing.replicas import FakeReplicaSet
from resilient.testing.sqlite import SqliteReplication


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(sa.String(50))


def wait_for(reached: Callable[[], object], timeout: float = 10.0) -> None:
    """Poll what tells of a condition: probes are what is waited for."""
    until = time.monotonic() + timeout
    while not reached():
        assert time.monotonic() < until, "the condition was not reached"
        time.sleep(0.01)


class Bench:
    """A replica set, and what can be done to its servers."""

    Note = Note
    db: ReplicaSet

    def states(self) -> list[str]:
        return [node.state for node in self.db.status()]

    def all_up(self) -> None:
        wait_for(lambda: set(self.states()) == {"up"})

    def down(self, *numbers: int) -> None:
        """Wait until those servers (0 is the primary) are known to be down."""
        wait_for(lambda: all(self.states()[number] == "down" for number in numbers))

    def proven(self, token: Any) -> None:
        """Wait until a reader with that token is served by a replica."""

        def served() -> bool:
            with self.db.scope(token):
                return self.db.router.pick().role == "replica"

        wait_for(served)

    def write(self, number: int) -> None:
        with self.db.sessionmaker()() as session:
            session.add(Note(id=number, text="x"))
            session.commit()

    def count(self) -> int:
        with self.db.sessionmaker()() as session:
            return session.scalar(sa.select(sa.func.count()).select_from(Note)) or 0


class FakeBench(Bench):
    def __init__(self) -> None:
        self.db = self.fake = FakeReplicaSet()
        Base.metadata.create_all(self.fake.engine)
        self.all_up()

    def stop_replication(self, number: int) -> None:
        self.fake.stop(number)

    def start_replication(self, number: int) -> None:
        self.fake.start(number)

    def kill(self, number: int) -> None:
        self.fake.kill(number)

    def restart(self, number: int) -> None:
        self.fake.restart(number)

    def kill_primary(self) -> None:
        self.fake.kill("primary")

    def restart_primary(self) -> None:
        self.fake.restart("primary")

    def close(self) -> None:
        self.fake.close()


class FileBench(Bench):
    def __init__(self, folder: Path) -> None:
        files = [folder / name for name in ("primary.db", "replica-1.db", "replica-2.db")]
        with closing(sqlite3.connect(files[0])) as made:
            made.execute("PRAGMA user_version = 1")
        self.copier = SqliteReplication(files[0], files[1:], interval=0.02)
        self.mover = SqliteReplication(files[1], files[:1])
        self.copier.start()
        urls = [f"sqlite:///file:{path}?mode=rw&uri=true" for path in files]
        self.db = ReplicaSet(urls[0], urls[1:], name="app", probe_interval=0.03)
        Base.metadata.create_all(self.db.engine)
        self.copier.copy()
        self.all_up()

    def stop_replication(self, number: int) -> None:
        self.copier.stop(number)

    def start_replication(self, number: int) -> None:
        self.copier.start(number)

    def kill(self, number: int) -> None:
        self.copier.kill(number)

    def restart(self, number: int) -> None:
        self.copier.restart(number)

    def kill_primary(self) -> None:
        self.mover.kill(0)

    def restart_primary(self) -> None:
        self.mover.restart(0)

    def close(self) -> None:
        self.db.close()
        self.copier.close()


@pytest.fixture(params=["fake", "files"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """A primary and two replicas, all up and with an empty table of notes."""
    made = FakeBench() if request.param == "fake" else FileBench(tmp_path)
    yield made
    made.close()
