"""Reads over all shards: equal to one database that holds all rows, or refused."""

from __future__ import annotations

import datetime as dt
import decimal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func
from sqlalchemy.orm import aliased, selectinload

from resilient.errors import InvalidInput, Unavailable
from resilient.storage.shards import ShardMap, ShardSet

COLUMNS = ("id", "tenant_id", "number", "ratio", "price", "name", "day", "blob")

rows = st.lists(
    st.fixed_dictionaries(
        {
            "tenant_id": st.integers(0, 9),
            "number": st.none() | st.integers(-2, 2),
            "ratio": st.none() | st.sampled_from([-1.5, 0.0, 0.1, 0.2, 1e300]),
            "price": st.none() | st.sampled_from([decimal.Decimal("0.10"), decimal.Decimal("9.99")]),
            "name": st.none() | st.sampled_from(["", "a", "A", "b", "ä", "z", "😀", "￿"]),
            "day": st.none() | st.dates(dt.date(1999, 12, 31), dt.date(2000, 1, 2)),
            "blob": st.none() | st.sampled_from([b"", b"\x00", b"a", b"\xff"]),
        }
    ),
    max_size=12,
).map(lambda found: [{"id": number, **row} for number, row in enumerate(found, start=1)])

sorts = st.lists(
    st.tuples(st.sampled_from(COLUMNS), st.booleans(), st.sampled_from([None, True, False])), min_size=1, max_size=3
)
filters = st.sampled_from(["none", "number", "like", "or", "null", "in", "function", "case"])


def filtered(Order: Any, kind: str) -> list[Any]:
    return {
        "none": [],
        "number": [Order.number > 0],
        "like": [Order.name.like("a%")],
        "or": [sa.or_(Order.number == 1, Order.name == "b")],
        "null": [Order.price.is_not(None), ~Order.day.is_(None)],
        "in": [Order.tenant_id.in_([1, 2, 3])],
        "function": [func.coalesce(Order.number, 1) == 1],
        "case": [sa.case((Order.number.is_(None), 1), else_=0) == 0],
    }[kind]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows, sorts, filters, st.none() | st.integers(0, 6), st.none() | st.integers(0, 4), st.booleans())
def test_two_shards_equal_one_database(
    place: Any,
    held: list[dict[str, Any]],
    order: list[tuple[str, bool, bool | None]],
    kind: str,
    limit: int | None,
    offset: int | None,
    entities: bool,
) -> None:
    """Any filter, order with NULLs and ties, limit and offset: the rows and their order are those of one database."""
    place.fill(held)
    Order = place.Order
    statement = sa.select(Order) if entities else sa.select(*(getattr(Order, name) for name in COLUMNS))
    statement = statement.where(*filtered(Order, kind))
    for name, descending, nulls_first in order:
        key = getattr(Order, name).desc() if descending else getattr(Order, name).asc()
        if nulls_first is not None:
            key = key.nulls_first() if nulls_first else key.nulls_last()
        statement = statement.order_by(key)
    tie = Order.id.desc() if order[-1][1] else Order.id.asc()
    with place.one.connect() as connection:
        whole = statement.with_only_columns(*(getattr(Order, name) for name in COLUMNS)).order_by(tie)
        expected = [tuple(row) for row in connection.execute(whole.limit(limit).offset(offset))]
    with place.shards.gather() as session:
        result = session.execute(statement.limit(limit).offset(offset))
        if entities:
            found = [tuple(getattr(each, name) for name in COLUMNS) for each in result.scalars()]
        else:
            assert tuple(result.keys()) == COLUMNS
            found = [tuple(row) for row in result]
    assert found == expected


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows, filters)
def test_without_an_order_all_rows_are_there(place: Any, held: list[dict[str, Any]], kind: str) -> None:
    """No order is promised, and no row is missing or doubled."""
    place.fill(held)
    statement = sa.select(place.Order.id, place.Order.name).where(*filtered(place.Order, kind))
    with place.one.connect() as connection:
        expected = Counter(tuple(row) for row in connection.execute(statement))
    with place.shards.gather() as session:
        assert Counter(tuple(row) for row in session.execute(statement)) == expected


def refused(Order: Any, Country: Any) -> dict[str, tuple[Any, str]]:
    orders = sa.select(Order)
    return {
        "count": (sa.select(func.count()).select_from(Order), r"count\(\)"),
        "sum": (sa.select(func.sum(Order.number)), r"sum\(\)"),
        "unknown function": (sa.select(func.mystery(Order.number)), r"mystery\(\)"),
        "group by": (sa.select(Order.number).group_by(Order.number), r"group_by\(\)"),
        "having": (sa.select(Order.id).having(Order.id > 1), r"having\(\)"),
        "distinct": (sa.select(Order.number).distinct(), r"distinct\(\)"),
        "distinct column": (sa.select(sa.distinct(Order.number)), r"distinct\(\)"),
        "limit alone": (orders.limit(3), r"order_by\(\)"),
        "offset alone": (orders.offset(3), r"order_by\(\)"),
        "computed limit": (orders.order_by(Order.id).limit(sa.literal(1) + 1), "a number"),
        "join": (orders.join(Country, sa.true()), "one table"),
        "two tables": (sa.select(Order, Country), "one table"),
        "alias": (sa.select(aliased(Order)), "alias"),
        "subquery": (orders.where(Order.id.in_(sa.select(Country.id))), "subquery"),
        "exists": (orders.where(sa.exists(sa.select(Country.id))), "subquery"),
        "scalar subquery": (orders.where(Order.id == sa.select(Country.id).scalar_subquery()), "subquery"),
        "cte": (sa.select(sa.select(Order.id).cte().c.id), "cte"),
        "window": (sa.select(func.row_number().over(order_by=Order.id)), "over"),
        "text in where": (orders.where(sa.text("1 = 1")), r"text\(\)"),
        "order by text": (orders.order_by(sa.text("id")), r"text\(\)"),
        "order by name": (orders.order_by("id"), "named by text"),
        "order by label": (sa.select(Order.id.label("x")).order_by("x"), "named by text"),
        "order by expression": (orders.order_by(Order.number + 1), "columns of its table"),
        "literal column": (sa.select(Order.id, sa.literal_column("COUNT(*)")), r"literal_column\(\)"),
        "collation": (orders.order_by(Order.name.collate("NOCASE")), "collation"),
        "lock": (orders.with_for_update(), r"with_for_update\(\)"),
        "loader option": (orders.options(selectinload(Order.items)), r"options\(\)"),
        "prefix": (orders.prefix_with("DISTINCT"), r"prefix_with\(\)"),
        "suffix": (orders.suffix_with("LIMIT 1"), r"suffix_with\(\)"),
        "union": (sa.union(sa.select(Order.id), sa.select(Order.id)), r"takes a select\(\)"),
        "raw": (sa.text("SELECT 1"), r"takes a select\(\)"),
        "insert": (sa.insert(Order), r"takes a select\(\)"),
        "not sharded": (sa.select(Country), "no shard key"),
        "no table": (sa.select(sa.literal(1)), "one table"),
    }


def test_whatever_is_not_proven_is_refused(place: Any) -> None:
    """Each names what it cannot prove and says what to write; nothing is sent to any shard."""
    sent: list[str] = []

    def note(_c: object, _cursor: object, statement: str, *_: object) -> None:
        sent.append(statement)

    engines = [place.shards.engine_for(name) for name in ("a", "b")]
    for engine in engines:
        sa.event.listen(engine, "before_cursor_execute", note)
    with place.shards.gather() as session:
        for name, (statement, message) in refused(place.Order, place.Country).items():
            with pytest.raises(InvalidInput, match=message) as caught:
                session.execute(statement)
            assert caught.value.advice, name
    for engine in engines:
        sa.event.remove(engine, "before_cursor_execute", note)
    assert sent == []


def test_a_shard_that_sorts_by_other_rules_is_noticed(tmp_path: Path, place: Any) -> None:
    """A table made with a collation that the model does not tell: refused instead of merged wrongly."""
    with ShardSet({name: f"sqlite:///{tmp_path}/{name}.db" for name in ("a", "b")}) as shards:
        shards.create(ShardMap.hashed(["a", "b"]))
        table = sa.Table(
            "t",
            sa.MetaData(),
            sa.Column("id", sa.Integer, primary_key=True),
            sa.Column("name", sa.String),
            info={"shard_key": "id"},
        )
        for name in ("a", "b"):
            with shards.engine_for(name).begin() as connection:
                connection.execute(sa.text("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT COLLATE NOCASE)"))
                connection.execute(sa.insert(table), [{"id": 1, "name": "a"}, {"id": 2, "name": "B"}])
        with shards.gather() as session, pytest.raises(InvalidInput, match="sorts by other rules"):
            session.execute(sa.select(table).order_by(table.c.name))


def test_relations_are_not_followed(place: Any) -> None:
    """A relation may lead to another shard: reading it raises instead of answering half."""
    place.fill([{"id": 1, "tenant_id": 1}])
    with place.shards.gather() as session:
        found = session.scalars(sa.select(place.Order)).one()
        with pytest.raises(sa.exc.InvalidRequestError):
            _ = found.items


def test_each_gives_the_answers_one_by_one(place: Any) -> None:
    """What cannot be merged can be asked of each shard by itself."""
    place.fill([{"id": number, "tenant_id": number} for number in range(1, 21)])
    with place.shards.gather() as session:
        counts = session.each(sa.select(func.count()).select_from(place.Order))
        assert sum(rows[0][0] for rows in counts.values()) == 20
        with pytest.raises(InvalidInput):
            session.each(sa.insert(place.Order))


def test_a_missing_shard_is_named(tmp_path: Path, place: Any) -> None:
    """One shard's file is gone: the whole read is Unavailable and names it; partial answers and tells; status too."""
    urls = {name: f"sqlite:///file:{tmp_path}/{name}.db?mode=rw&uri=true" for name in ("a", "b")}
    for name in urls:
        engine = sa.create_engine(f"sqlite:///{tmp_path}/{name}.db")
        place.Base.metadata.create_all(engine)
        engine.dispose()
    with ShardSet(urls) as shards:
        shards.create(ShardMap.hashed(["a", "b"]))
        here, gone = place.key_of("a"), place.key_of("b")
        for number, key in enumerate((here, gone), start=1):
            with shards.session(key=key) as session:
                session.add(place.Order(id=number, tenant_id=key))
                session.commit()
        (tmp_path / "b.db").rename(tmp_path / "b.away")
        shards.engine_for("b").dispose()
        statement = sa.select(place.Order.id).order_by(place.Order.id)
        with shards.gather() as session, pytest.raises(Unavailable, match="no answer from 'b' of 2 shards"):
            session.execute(statement)
        with shards.gather(partial=True) as session:
            result = session.execute(statement)
            assert result.missing == ("b",)
            assert session.missing == ("b",)
            assert result.scalars().all() == [1]
        assert [(each.name, each.state) for each in shards.status()] == [("a", "up"), ("b", "down")]
        with shards.session(key=here) as session:
            assert session.get(place.Order, 1) is not None
        with shards.session(key=gone) as session, pytest.raises(Unavailable):
            session.get(place.Order, 2)
        (tmp_path / "a.db").rename(tmp_path / "a.away")
        shards.engine_for("a").dispose()
        with shards.gather(partial=True) as session, pytest.raises(Unavailable, match="'a', 'b' of 2"):
            session.execute(statement)
