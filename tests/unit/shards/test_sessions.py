"""Keyed sessions: one shard each, and nothing of another one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.orm import aliased, load_only

from resilient.errors import ConfigurationError, Conflict, InvalidInput, Refused, Unavailable
from resilient.storage.replicas import ReplicaSet
from resilient.storage.shards import ShardMap, ShardSet
from resilient.testing.replicas import FakeReplicaSet


@pytest.fixture
def sent(place: Any) -> Iterator[list[str]]:
    """The statements that reach any shard."""
    statements: list[str] = []

    def note(_c: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    engines = [place.shards.engine_for(name) for name in ("a", "b")]
    for engine in engines:
        sa.event.listen(engine, "before_cursor_execute", note)
    yield statements
    for engine in engines:
        sa.event.remove(engine, "before_cursor_execute", note)


def test_each_key_is_on_its_shard_and_nowhere_else(place: Any) -> None:
    """A hundred keys written through their sessions: each is found on exactly the shard that shard_for tells."""
    place.fill([])
    for key in range(100):
        with place.shards.session(key=key) as session:
            session.add(place.Order(id=key, tenant_id=key))
            session.commit()
    with place.shards.gather() as session:
        found = session.each(sa.select(place.Order.tenant_id))
    assert sorted(key for rows in found.values() for (key,) in rows) == list(range(100))
    for name, rows in found.items():
        assert {place.shards.shard_for(key) for (key,) in rows} == {name}


def writes(place: Any, other: int, key: int) -> dict[str, Callable[[Any], object]]:
    Order = place.Order

    def flush(order: Any) -> Callable[[Any], object]:
        return lambda session: (session.add(order), session.flush())

    return {
        "an object of another shard": flush(Order(id=1, tenant_id=other)),
        "an object without a key": flush(Order(id=1)),
        "an object with None as its key": flush(Order(id=1, tenant_id=None)),
        "insert for another shard": lambda s: s.execute(sa.insert(Order).values(id=1, tenant_id=other)),
        "insert without a key": lambda s: s.execute(sa.insert(Order).values(id=1)),
        "insert of nothing": lambda s: s.execute(sa.insert(Order)),
        "insert of rows, one of another shard": lambda s: s.execute(
            sa.insert(Order), [{"id": 1, "tenant_id": key}, {"id": 2, "tenant_id": other}]
        ),
        "insert of rows, one without a key": lambda s: s.execute(
            sa.insert(Order), [{"id": 1, "tenant_id": key}, {"id": 2}]
        ),
        "insert of many values": lambda s: s.execute(
            sa.insert(Order).values([{"id": 1, "tenant_id": key}, {"id": 2, "tenant_id": other}])
        ),
        "insert from select": lambda s: s.execute(sa.insert(Order).from_select(["id"], sa.select(Order.id))),
        "update of all": lambda s: s.execute(sa.update(Order).values(number=1)),
        "update of another shard": lambda s: s.execute(
            sa.update(Order).where(Order.tenant_id == other).values(number=1)
        ),
        "update of either": lambda s: s.execute(
            sa.update(Order).where(sa.or_(Order.tenant_id == key, Order.id == 7)).values(number=1)
        ),
        "update of several keys": lambda s: s.execute(
            sa.update(Order).where(Order.tenant_id.in_([key, other])).values(number=1)
        ),
        "update that moves a row": lambda s: s.execute(
            sa.update(Order).where(Order.tenant_id == key).values(tenant_id=other)
        ),
        "update that moves a row by its parameters": lambda s: s.execute(
            sa.update(Order).where(Order.tenant_id == key), {"tenant_id": other}
        ),
        "update where another row has the key": lambda s: s.execute(
            sa.update(Order).where(aliased(Order).tenant_id == key).values(number=1)
        ),
        "insert that moves the row it meets": lambda s: s.execute(
            sqlite_insert(Order)
            .values(id=1, tenant_id=key)
            .on_conflict_do_update(index_elements=["id"], set_={"tenant_id": other})
        ),
        "insert of a named parameter": lambda s: s.execute(
            sa.insert(Order).values(id=1, tenant_id=sa.bindparam("who", key)), {"who": other}
        ),
        "insert of tuples": lambda s: s.execute(
            sa.insert(Order).values([(1, other, None, None, None, None, None, None)])
        ),
        "an object whose key is stored in another form": flush(Order(id=1, tenant_id=f"{key:07}")),
        "insert of a key that is stored in another form": lambda s: s.execute(
            sa.insert(Order).values(id=1, tenant_id=f"{key:07}")
        ),
        "update by primary keys": lambda s: s.execute(sa.update(Order), [{"id": 1, "number": 2}]),
        "delete of all": lambda s: s.execute(sa.delete(Order)),
        "delete by something else": lambda s: s.execute(sa.delete(Order).where(Order.id == 1)),
        "bulk objects": lambda s: s.bulk_save_objects([Order(id=1, tenant_id=other)]),
        "bulk rows": lambda s: s.bulk_insert_mappings(Order, [{"id": 1, "tenant_id": other}]),
    }


def test_what_does_not_belong_is_refused_before_it_is_sent(place: Any, sent: list[str]) -> None:
    """A second shard, and a write without a key, in every way a session can write: refused, never sent."""
    key, other = place.key_of("a"), place.key_of("b")
    for name, write in writes(place, other, key).items():
        with place.shards.session(key=key) as session:
            with pytest.raises(Refused, match="nothing was sent"):
                write(session)
            assert sent == [], name


@pytest.mark.parametrize("how", ["expired", "without its key", "loaded"])
@pytest.mark.parametrize(
    "take",
    [lambda s, order: s.add(order), lambda s, order: s.delete(order), lambda s, order: s.merge(order, load=False)],
)
def test_an_object_of_another_shard_does_not_touch_the_row_that_has_its_number(
    place: Any, sent: list[str], how: str, take: Callable[[Any, Any], object]
) -> None:
    """Both shards have a row 1. The object of one, taken into a session of the other, is refused when it comes in."""
    place.fill([])
    key, other = place.key_of("a"), place.key_of("b")
    for each in (key, other):
        with place.shards.session(key=each) as session:
            session.add(place.Order(id=1, tenant_id=each, number=each))
            session.commit()
    with place.shards.session(key=other) as session:
        only = [load_only(place.Order.number)] if how == "without its key" else []
        order = session.scalars(sa.select(place.Order).options(*only)).one()
        if how == "expired":
            session.commit()
    sent.clear()
    with place.shards.session(key=key) as session:
        with pytest.raises(Refused, match="nothing was sent"):
            take(session, order)
        session.commit()
        assert sent == []
        assert order not in session


def test_an_object_of_this_shard_may_come_back(place: Any) -> None:
    """One that was read here and has its key is taken into the next session of its shard, and written."""
    place.fill([])
    key = place.key_of("a")
    with place.shards.session(key=key, expire_on_commit=False) as session:
        session.add(order := place.Order(id=1, tenant_id=key))
        session.commit()
    with place.shards.session(key=key) as session:
        session.add(order)
        order.number = 5
        session.commit()
        statement = sqlite_insert(place.Order).values(id=1, tenant_id=key, number=6)
        keep = {"number": statement.excluded.number, "tenant_id": statement.excluded.tenant_id}
        session.execute(statement.on_conflict_do_update(index_elements=["id"], set_=keep))
        session.commit()
        assert session.get(place.Order, 1).number == 6


def test_an_object_cannot_be_moved_to_another_shard(place: Any) -> None:
    """Giving a stored object a key of another shard is refused at the flush, and the row stays as it was."""
    key, other = place.key_of("a"), place.key_of("b")
    place.fill([{"id": 1, "tenant_id": key}])
    with place.shards.session(key=key) as session:
        order = session.get(place.Order, 1)
        order.tenant_id = other
        with pytest.raises(Refused, match="belongs to shard 'b'"):
            session.commit()
        session.rollback()
        assert order.tenant_id == key


def test_ordinary_writes_pass(place: Any) -> None:
    """Objects, statements that name the key, lists of rows, deletes, and tables that are not sharded."""
    key = place.key_of("a")
    Order = place.Order
    place.fill([])
    with place.shards.session(key=key, expire_on_commit=False) as session:
        session.add(Order(id=1, tenant_id=key))
        session.execute(sa.insert(Order), [{"id": 2, "tenant_id": key}, {"id": 3, "tenant_id": key}])
        session.execute(sa.insert(Order).values(id=4, tenant_id=key))
        session.execute(sa.insert(Order).values({"id": 5}), {"tenant_id": key})
        session.execute(sa.update(Order).where(Order.tenant_id == key, Order.id == 2).values(number=9))
        session.execute(sa.update(Order).where(sa.and_(Order.tenant_id.in_([key]), Order.id == 3)).values(number=8))
        session.execute(sa.delete(Order).where(Order.tenant_id == key).where(Order.id == 4))
        session.add(place.Country(id=1))
        session.commit()
        assert [(each.id, each.number) for each in session.scalars(sa.select(Order).order_by(Order.id))] == [
            (1, None),
            (2, 9),
            (3, 8),
            (5, None),
        ]
        session.delete(session.get(place.Country, 1))
        session.delete(session.get(Order, 1))
        session.commit()


def test_a_session_needs_a_key(place: Any) -> None:
    """Without a key nothing is opened."""
    with pytest.raises(InvalidInput):
        place.shards.session(key=None)
    with pytest.raises(TypeError):
        place.shards.session()


def test_the_stored_map_is_the_truth(tmp_path: Path) -> None:
    """A second process reads the map that the first created; creating another one is a Conflict, the same one not."""
    urls = {name: f"sqlite:///{tmp_path}/{name}.db" for name in ("a", "b")}
    control = f"sqlite:///{tmp_path}/control.db"
    with ShardSet(urls, control=control) as first, ShardSet(urls, control=control) as second:
        with pytest.raises(ConfigurationError, match="no shard map is stored yet"):
            second.shard_for(1)
        first.create(ShardMap.hashed(["a", "b"], buckets=64))
        assert second.layout() == first.layout()
        assert second.layout().buckets == 64
        second.create(ShardMap.hashed(["a", "b"], buckets=64))
        with pytest.raises(Conflict, match="stored already"):
            second.create(ShardMap.hashed(["b", "a"], buckets=64))
        with pytest.raises(ConfigurationError, match="does not know"):
            second.create(ShardMap.hashed(["a", "c"]))
    with ShardSet({"a": urls["a"]}, control=control) as smaller, pytest.raises(ConfigurationError, match="names b"):
        smaller.shard_for(1)


def test_the_control_database_is_not_needed_once_the_map_is_known(tmp_path: Path) -> None:
    """Its death stops nobody who has read the map, and is Unavailable to those who have not."""
    urls = {"a": f"sqlite:///{tmp_path}/a.db"}
    control = f"sqlite:///file:{tmp_path}/control.db?mode=rw&uri=true"
    (tmp_path / "control.db").touch()
    with ShardSet(urls, control=control) as known, ShardSet(urls, control=control) as late:
        known.create(ShardMap.hashed(["a"]))
        (tmp_path / "control.db").rename(tmp_path / "away.db")
        with known.session(key=1) as session:
            assert session.scalar(sa.text("SELECT 1")) == 1
        with pytest.raises(Unavailable):
            late.shard_for(1)


def test_without_control_the_map_is_given(tmp_path: Path) -> None:
    """No control database and no create: told, and what to do about it."""
    with ShardSet({"a": "sqlite://"}) as shards, pytest.raises(ConfigurationError, match="has no map"):
        shards.layout()
    with pytest.raises(ConfigurationError):
        ShardSet({})


def test_a_shard_may_be_a_replica_set(place: Any) -> None:
    """Reads of a shard go to its replicas, its writer sees its writes, and it is gathered like any other."""
    sets = {name: FakeReplicaSet(replicas=1, name=name) for name in ("a", "b")}
    for each in sets.values():
        place.Base.metadata.create_all(each.engine)
        each.status()
    assert isinstance(sets["a"], ReplicaSet)
    with ShardSet(sets) as shards:
        shards.create(ShardMap.hashed(["a", "b"]))
        key = place.key_of("a")
        for each in sets.values():
            each.lag = 0.5
        with sets["a"].scope() as mine, shards.session(key=key) as session:
            session.add(place.Order(id=1, tenant_id=key))
            session.commit()
        statement = sa.select(place.Order.id).order_by(place.Order.id)
        with sets["a"].scope(mine.token):
            with shards.session(key=key) as session:
                assert session.scalars(statement).all() == [1]
            with shards.gather() as session:
                assert session.scalars(statement).all() == [1]
        with sets["a"].scope(), shards.gather() as session:
            assert session.scalars(statement).all() == []
        with shards.session(key=key) as session:
            session.add(place.Order(id=2, tenant_id=place.key_of("b")))
            with pytest.raises(Refused):
                session.flush()
        assert [each.state for each in shards.status()] == ["up", "up"]
        sets["b"].kill("primary")
        assert [each.state for each in shards.status()] == ["up", "degraded"]
        with sets["a"].scope(), shards.gather() as session:
            assert session.scalars(statement).all() == []
    for each in sets.values():
        each.close()
