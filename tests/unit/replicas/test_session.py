"""What is particular to sessions: async ones, ready engines, names, and the observed commit."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from resilient import causality, events
from resilient.errors import ConfigurationError, InvalidInput, Refused, Unavailable
from resilient.storage.replicas import ReadRouted, ReplicaSet
from resilient.testing.sqlite import SqliteReplication

notes = sa.table("notes", sa.column("id"))
COUNT = sa.select(sa.func.count()).select_from(notes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with closing(sqlite3.connect(tmp_path / "shop.db")) as made:
        made.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY)")
    return tmp_path


@pytest.fixture
def copier(folder: Path) -> Iterator[SqliteReplication]:
    made = SqliteReplication(folder / "shop.db", [folder / "copy.db"])
    made.copy()
    yield made
    made.close()


@pytest.fixture
def db(folder: Path, copier: SqliteReplication) -> Iterator[ReplicaSet]:
    with ReplicaSet(f"sqlite:///{folder}/shop.db", [f"sqlite:///{folder}/copy.db"], probe_interval=None) as made:
        made.probe()
        yield made


def test_async_sessions_route_alike(db: ReplicaSet, copier: SqliteReplication) -> None:
    """A read goes to the replica, a write to the primary, and its writer sees it at once."""
    seen: list[str] = []
    end = events.subscribe(lambda event: seen.append(event.node), kinds=(ReadRouted,))

    async def use() -> None:
        Session = db.async_sessionmaker()
        async with Session() as session:
            assert await session.scalar(COUNT) == 0
        async with Session() as session:
            await session.execute(sa.insert(notes).values(id=1))
            await session.commit()
        async with Session() as session:
            assert await session.scalar(COUNT) == 1
        copier.copy()
        db.probe()
        async with Session() as session:
            assert await session.scalar(COUNT) == 1
        await db.aclose()

    with db.scope():
        asyncio.run(use())
    end()
    assert seen == ["replica-1", "primary", "primary", "replica-1"]


def test_a_dead_replica_costs_an_async_reader_nothing(db: ReplicaSet, copier: SqliteReplication) -> None:
    """The first read is made again on the primary, inside the same await."""
    copier.kill(0)

    async def use() -> int | None:
        async with db.async_sessionmaker()() as session:
            count = await session.scalar(COUNT)
        await db.aclose()
        return count

    with db.scope():
        assert asyncio.run(use()) == 0


def test_ready_engines_are_used_and_take_writes_again_afterwards(folder: Path, copier: SqliteReplication) -> None:
    """A ready engine as a replica refuses writes while the set lives, and takes them again afterwards."""
    primary = sa.create_engine(f"sqlite:///{folder}/shop.db")
    replica = sa.create_engine(f"sqlite:///{folder}/copy.db")
    with ReplicaSet(primary, [replica], probe_interval=None) as db:
        db.probe()
        assert db.engine is primary
        with db.scope():
            assert db.router.pick().engine is replica
        with replica.connect() as connection, pytest.raises(Refused):
            connection.execute(sa.insert(notes).values(id=1))
    with replica.begin() as connection:
        connection.execute(sa.insert(notes).values(id=1))
    primary.dispose()
    replica.dispose()


def test_a_read_observes_nothing_and_a_commit_does(db: ReplicaSet) -> None:
    """The token grows by a committed write alone, under the database's name: not by reads, nor by a rollback."""
    with db.scope() as scope:
        with db.sessionmaker()() as session:
            session.execute(sa.insert(notes).values(id=2))
            session.rollback()
        with db.sessionmaker()() as session:
            session.scalar(COUNT)
            session.commit()
        assert not scope.token
        with db.sessionmaker()() as session:
            session.execute(sa.insert(notes).values(id=1))
            assert not scope.token
            session.commit()
        assert list(scope.token.positions) == ["shop"]
        assert isinstance(scope.token.get("shop"), causality.Instant)


def test_no_probe_no_replica(folder: Path, copier: SqliteReplication) -> None:
    """What was never proven is not used: reads go to the primary."""
    with ReplicaSet(f"sqlite:///{folder}/shop.db", [f"sqlite:///{folder}/copy.db"], probe_interval=None) as db:
        with db.scope():
            assert db.router.pick().name == "primary"
        assert [node.state for node in db.status()] == ["unknown", "unknown"]
        assert db.status()[1].lag is None


def test_a_copy_without_the_copiers_mark_is_not_used(folder: Path) -> None:
    """A replica that cannot tell how far it has come answers nobody."""
    with closing(sqlite3.connect(folder / "copy.db")) as made:
        made.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY)")
    with (
        ReplicaSet(f"sqlite:///{folder}/shop.db", [f"sqlite:///{folder}/copy.db"], probe_interval=None) as db,
        db.scope(),
    ):
        db.probe()
        assert db.router.pick().name == "primary"


def test_wrong_settings_are_told_at_once() -> None:
    """Levels, names, limits and databases that are not known raise where they are given."""
    with pytest.raises(InvalidInput):
        ReplicaSet("sqlite://", consistency="best")  # type: ignore[arg-type] # the point of the test
    with pytest.raises(ConfigurationError):
        ReplicaSet("sqlite://", max_lag=0)
    with pytest.raises(ConfigurationError):
        ReplicaSet("sqlite://", name="a!b")
    for wrong in ({"primary": "a.db"}, {"replicas": ["b.db"]}, {"replicas": "sqlite:///b.db"}):
        with pytest.raises(ConfigurationError, match="write"):
            ReplicaSet(**{"primary": "sqlite://", **wrong})  # type: ignore[arg-type] # as above
    with pytest.raises(ConfigurationError, match="not postgresql"):
        ReplicaSet("postgresql+psycopg://a@b/c")
    with ReplicaSet("sqlite://", probe_interval=None) as db, pytest.raises(InvalidInput), db.consistency("best"):  # type: ignore[arg-type] # as above
        pass


def test_a_closed_set_says_so(db: ReplicaSet) -> None:
    """After close nothing is opened anew."""
    Session = db.sessionmaker()
    db.close()
    with db.scope(), pytest.raises(Unavailable, match="is closed"), Session() as session:
        session.scalar(COUNT)


def test_two_sets_in_one_process_do_not_mix(folder: Path, copier: SqliteReplication) -> None:
    """A chosen consistency, and a token, belong to the set of that name alone."""
    urls = (f"sqlite:///{folder}/shop.db", [f"sqlite:///{folder}/copy.db"])
    with (
        ReplicaSet(*urls, name="one", probe_interval=None) as one,
        ReplicaSet(*urls, name="two", probe_interval=None) as two,
    ):
        one.probe()
        two.probe()
        with one.scope(), one.primary():
            assert one.router.pick().name == "primary"
            assert two.router.pick().name == "replica-1"
        with one.scope():
            one.observe()
            assert one.router.pick().name == "primary"
            assert two.router.pick().name == "replica-1"


def test_a_replica_of_another_kind_of_database_is_refused():
    """It cannot be a copy of its primary."""
    with pytest.raises(ConfigurationError, match="sqlite, mysql"):
        ReplicaSet("sqlite://", ["mysql+pymysql://app@127.0.0.1:1/app"])
    ReplicaSet("mysql+pymysql://app@127.0.0.1:1/app", ["mariadb+pymysql://app@127.0.0.1:1/app"]).close()
