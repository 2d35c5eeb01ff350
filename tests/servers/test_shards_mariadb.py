"""Shards that are real MariaDB schemas and servers."""

from __future__ import annotations

import datetime as dt
import decimal
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from resilient.errors import InvalidInput, Refused, Unavailable
from resilient.policy import deadline
from resilient.storage.shards import ShardMap, ShardSet
from resilient.testing.servers import MariaDbCluster, TcpProxy

NAMES = ("a", "b", "c", "d")


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"
    __shard_key__ = "id"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str | None] = mapped_column(sa.String(12))
    score: Mapped[int | None]
    balance: Mapped[decimal.Decimal | None] = mapped_column(sa.Numeric(12, 2))
    ratio: Mapped[float | None] = mapped_column(sa.Double)
    joined: Mapped[dt.datetime | None]
    active: Mapped[bool | None]
    tag: Mapped[bytes | None] = mapped_column(sa.LargeBinary(8))
    about: Mapped[str | None] = mapped_column(sa.Text)
    level: Mapped[str | None] = mapped_column(sa.Enum("low", "high", name="level"))


@pytest.fixture
def urls(mariadb: MariaDbCluster) -> dict[str, str]:
    """A schema of its own on the one primary for each shard, and ``app`` for all rows together."""
    for name in NAMES:
        mariadb.primary.query(f"CREATE DATABASE app_{name} CHARACTER SET utf8mb4")
    return {name: mariadb.primary.url.removesuffix("/app") + f"/app_{name}" for name in NAMES}


@pytest.fixture
def one(mariadb: MariaDbCluster) -> Iterator[sa.Engine]:
    """One database that holds all rows."""
    made = sa.create_engine(mariadb.primary.url, connect_args={"read_timeout": 20})
    Base.metadata.create_all(made)
    yield made
    made.dispose()


@pytest.fixture
def shards(urls: dict[str, str], one: sa.Engine) -> Iterator[ShardSet]:
    with ShardSet(urls, control=one, timeout=20.0, connect_timeout=10.0) as made:
        made.create(ShardMap.hashed(NAMES))
        for name in NAMES:
            Base.metadata.create_all(made.engine_for(name))
        yield made


def test_each_user_is_on_exactly_one_shard(shards: ShardSet) -> None:
    """A fiftieth of the full size: 2,000 users over four schemas, each where shard_for tells, and nowhere else."""
    for start in range(0, 2000, 100):
        by_shard: dict[str, list[int]] = {}
        for user in range(start, start + 100):
            by_shard.setdefault(shards.shard_for(user), []).append(user)
        for users in by_shard.values():
            with shards.session(key=users[0]) as session:
                session.add_all([User(id=user) for user in users])
                session.commit()
    with shards.gather() as session:
        held = session.each(sa.select(User.id))
        found = session.scalars(sa.select(User.id).order_by(User.id)).all()
    assert found == list(range(2000))
    for name, rows in held.items():
        assert {shards.shard_for(user) for (user,) in rows} == {name}
        assert 0.2 < len(rows) / 2000 < 0.3
    assert shards.layout().count("a") == 1024


def test_a_second_shard_and_a_missing_key_are_refused(shards: ShardSet) -> None:
    """Nothing reaches any server."""
    other = next(key for key in range(99) if shards.shard_for(key) != shards.shard_for(1))
    for wrong in (User(id=other), User()):
        with shards.session(key=1) as session:
            session.add(User(id=1))
            session.add(wrong)
            with pytest.raises(Refused, match="nothing was sent"):
                session.commit()
    with shards.gather() as session:
        assert session.scalars(sa.select(User.id)).all() == []


def fill(shards: ShardSet, one: sa.Engine, seed: int, count: int) -> None:
    """The same random rows in the one database and on their shards; many ties, many NULLs, texts that collate."""
    rng = random.Random(seed)
    alphabet = "aAbBzZäÄßéÉ _-0\t日😀"

    def maybe(value: object) -> Any:
        return None if rng.random() < 0.2 else value

    rows = [
        {
            "id": number,
            "name": maybe("".join(rng.choice(alphabet) for _ in range(rng.randint(0, 4)))),
            "score": maybe(rng.randint(-3, 3)),
            "balance": maybe(decimal.Decimal(rng.randint(-300, 300)) / 100),
            "ratio": maybe(rng.choice([0.1, 0.2, -1e300, 2.5])),
            "joined": maybe(dt.datetime(2026, 1, rng.randint(1, 3), rng.randint(0, 2), tzinfo=None)),  # noqa: DTZ001 - MariaDB's DATETIME has none
            "active": maybe(rng.random() < 0.5),
            "tag": maybe(rng.choice([b"", b"\x00", b"a", b"A", b"\xff"])),
        }
        for number in range(1, count + 1)
    ]
    with one.begin() as connection:
        connection.execute(sa.insert(User), rows)
    for name in NAMES:
        with shards.engine_for(name).begin() as connection:
            connection.execute(sa.insert(User), [row for row in rows if shards.shard_for(row["id"]) == name])


SORTABLE = ("id", "name", "score", "balance", "ratio", "joined", "active", "tag")


def test_a_gathered_read_equals_one_database(shards: ShardSet, one: sa.Engine) -> None:
    """120 random reads, ordered by every type, with limits and offsets: row for row those of one database."""
    fill(shards, one, seed=7, count=300)
    rng = random.Random(11)
    conditions: list[Any] = [
        User.score > 0,
        User.name.like("a%"),
        User.balance.is_not(None),
        sa.func.coalesce(User.score, 2) == 2,
        User.id.in_(range(1, 300, 3)),
    ]
    columns = [getattr(User, name) for name in SORTABLE]
    for _ in range(120):
        chosen = rng.sample(columns, rng.randint(1, 3))
        keys = [column.desc() if rng.random() < 0.5 else column for column in chosen]
        last_descends = isinstance(keys[-1], sa.UnaryExpression)
        tie = User.id.desc() if last_descends else User.id
        statement = sa.select(*columns).where(*rng.sample(conditions, rng.randint(0, 2))).order_by(*keys)
        if rng.random() < 0.8:
            statement = statement.limit(rng.randint(0, 40))
            if rng.random() < 0.5:
                statement = statement.offset(rng.randint(0, 100))
        with one.connect() as connection:
            expected = [tuple(row) for row in connection.execute(statement.order_by(tie))]
        with shards.gather() as session:
            assert [tuple(row) for row in session.execute(statement)] == expected


def test_orders_that_are_not_known_are_refused(shards: ShardSet) -> None:
    """Texts without a length, enumerations and NULLS LAST, which MariaDB sorts in ways not known here."""
    with shards.gather() as session:
        for key in (User.about, User.level, User.score.nulls_last()):
            with pytest.raises(InvalidInput):
                session.execute(sa.select(User.id).order_by(key))


def test_shards_are_asked_in_parallel(shards: ShardSet) -> None:
    """Four shards of which each takes 0.2 s cost about one, not four."""
    began = time.monotonic()
    with shards.gather() as session:
        session.each(sa.select(sa.func.sleep(0.2)))
    assert time.monotonic() - began < 0.6


def test_a_stopped_shard_hurts_only_its_keys(
    urls: dict[str, str],
    one: sa.Engine,
    mariadb: MariaDbCluster,
    tcp_proxy: Callable[[int], TcpProxy],
    limit: Callable[[float], float],
) -> None:
    """Dead or silent: its keys fail typed and in time, others are served, a gathered read names it or tells."""
    proxy = tcp_proxy(mariadb.primary.port)
    places = {"a": urls["a"], "b": proxy.through(urls["b"])}
    with ShardSet(places, timeout=1.0, connect_timeout=0.5) as shards:
        shards.create(ShardMap.hashed(["a", "b"]))
        for name in ("a", "b"):
            Base.metadata.create_all(shards.engine_for(name))
        here = next(key for key in range(1, 99) if shards.shard_for(key) == "a")
        there = next(key for key in range(1, 99) if shards.shard_for(key) == "b")
        for key in (here, there):
            with shards.session(key=key) as session:
                session.add(User(id=key))
                session.commit()
        everybody = sa.select(User.id).order_by(User.id)
        for fault in (proxy.cut, proxy.stall):
            fault()
            began = time.monotonic()
            with (
                shards.session(key=there) as session,
                deadline(0.5),
                pytest.raises((Unavailable, TimeoutError)),
            ):
                session.get(User, there)
            with shards.session(key=here) as session:
                assert session.get(User, here) is not None
            with shards.gather(timeout=0.5) as session, pytest.raises(Unavailable, match="no answer from 'b'"):
                session.scalars(everybody)
            with shards.gather(partial=True, timeout=0.5) as session:
                result = session.execute(everybody)
                assert result.missing == ("b",)
                assert result.scalars().all() == [here]
            assert [each.state for each in shards.status(timeout=0.3)] == ["up", "down"]
            assert time.monotonic() - began < min(limit(3.0), 9.0)
            proxy.restore()
        with shards.session(key=there) as session:
            assert session.get(User, there) is not None
        with shards.gather() as session:
            assert session.scalars(everybody).all() == sorted([here, there])


def test_shards_on_two_servers(mariadb: MariaDbCluster, limit: Callable[[float], float]) -> None:
    """Two instances; one is killed and the other goes on; restarted, its keys are served again."""
    second = mariadb.replicas[0]
    second.query("SET GLOBAL read_only = 0")  # used here as a server of its own, for a schema the primary lacks
    second.query("CREATE DATABASE app_second CHARACTER SET utf8mb4")
    mariadb.primary.query("CREATE DATABASE app_first CHARACTER SET utf8mb4")
    places = {
        "first": mariadb.primary.url.removesuffix("/app") + "/app_first",
        "second": second.url.removesuffix("/app") + "/app_second",
    }
    with ShardSet(places, timeout=1.0) as shards:
        shards.create(ShardMap.hashed(["first", "second"]))
        for name in places:
            Base.metadata.create_all(shards.engine_for(name))
        for key in range(1, 21):
            with shards.session(key=key) as session:
                session.add(User(id=key))
                session.commit()
        second.kill()
        for key in range(1, 21):
            began = time.monotonic()
            with shards.session(key=key) as session:
                if shards.shard_for(key) == "first":
                    assert session.get(User, key) is not None
                else:
                    with pytest.raises(Unavailable):
                        session.get(User, key)
            assert time.monotonic() - began < limit(1.0)
        second.restart()
        with shards.gather() as session:
            assert session.scalars(sa.select(User.id).order_by(User.id)).all() == list(range(1, 21))
