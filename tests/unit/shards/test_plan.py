"""What a gathered read sends to each shard, and what it refuses, by the statement alone."""

from __future__ import annotations

import re
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import func
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.orm import DeclarativeBase, Mapped, column_property, mapped_column

from resilient.errors import InvalidInput
from resilient.storage.shards._merge import Order
from resilient.storage.shards._plan import plan

orders = sa.Table(
    "orders",
    sa.MetaData(),
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("number", sa.Integer),
    sa.Column("name", sa.String(20)),
    sa.Column("essay", sa.Text),
    sa.Column("folded", sa.String(20, collation="NOCASE")),
    sa.Column("document", sa.JSON),
    sa.Column("span", sa.Interval),
    sa.Column("kind", sa.Enum("a", "b")),
    info={"shard_key": "id"},
)
others = sa.Table("others", sa.MetaData(), sa.Column("number", sa.Integer))
texts = sa.Table("texts", sa.MetaData(), sa.Column("id", sa.String(3), primary_key=True), info={"shard_key": "id"})
essays = sa.Table(
    "essays",
    sa.MetaData(),
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("number", sa.Integer),
    info={"shard_key": "id"},
)


class Base(DeclarativeBase):
    pass


class Computed(Base):
    """A class with an attribute that is no column."""

    __tablename__ = "computed"
    __shard_key__ = "id"
    id: Mapped[int] = mapped_column(primary_key=True)
    twice = column_property(sa.literal(2) * 2)


def sent(statement: Any, backend: str = "sqlite") -> str:
    """The statement for each shard as text, from its columns on."""
    dialect = sqlite.dialect() if backend == "sqlite" else mysql.dialect()
    text = str(plan(statement, backend).statement.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
    return re.sub(r"\s+", " ", text)


def test_each_shard_is_asked_for_what_the_whole_answer_may_need() -> None:
    """The rows that are passed over may all come from one shard: each sends them too, and the merge counts."""
    found = plan(sa.select(orders.c.id).order_by(orders.c.id).limit(3).offset(2), "sqlite")
    assert (found.limit, found.offset) == (3, 2)
    assert " LIMIT 5 OFFSET 0" in sent(sa.select(orders.c.id).order_by(orders.c.id).limit(3).offset(2))
    assert " LIMIT 3 OFFSET 0" in sent(sa.select(orders.c.id).order_by(orders.c.id).limit(3))
    passed = plan(sa.select(orders.c.id).order_by(orders.c.id).offset(2), "sqlite")
    assert (passed.limit, passed.offset) == (None, 2)
    assert "LIMIT" not in sent(sa.select(orders.c.id).order_by(orders.c.id).offset(2))


def test_the_sort_keys_stand_at_the_end_with_the_primary_key_behind() -> None:
    """Equal keys are told apart by the primary key, in the direction of the last key, so that an index serves both."""
    descending = sa.select(orders.c.name).order_by(orders.c.number, orders.c.name.desc())
    assert sent(descending) == (
        "SELECT orders.name, orders.number AS resilient_sort_0, orders.name AS resilient_sort_1, "
        "orders.id AS resilient_sort_2 FROM orders ORDER BY orders.number, orders.name DESC, orders.id DESC"
    )
    assert plan(descending, "sqlite").orders == (Order(), Order(True, False), Order(True, False))
    ascending = sa.select(orders.c.name).order_by(orders.c.number.desc(), orders.c.name.asc())
    assert plan(ascending, "sqlite").orders == (Order(True, False), Order(False, True), Order(False, True))
    assert plan(sa.select(orders.c.id), "sqlite").orders == ()


def test_texts_are_compared_as_the_server_compares_them() -> None:
    """MariaDB sends the weights of a text under its collation, as wide as its column."""
    for backend in ("mysql", "mariadb"):
        assert "weight_string(texts.id AS CHAR(6)) AS resilient_sort_0" in sent(
            sa.select(texts.c.id).order_by(texts.c.id), backend
        )
        assert "orders.number AS resilient_sort_0" in sent(sa.select(orders.c.id).order_by(orders.c.number), backend)


def test_values_are_compared_as_they_are_stored() -> None:
    """A key comes back without what its column's type would make of it."""
    statement = plan(sa.select(orders.c.id).order_by(orders.c.kind), "sqlite").statement
    assert isinstance(statement.selected_columns.resilient_sort_0.type, sa.types.NullType)


def test_a_primary_key_that_cannot_be_sorted_breaks_no_tie() -> None:
    """Equal keys then come in any order, as they may from one database."""
    statement = sa.select(essays.c.id).order_by(essays.c.number)
    assert plan(statement, "mysql").orders == (Order(),)
    assert plan(statement, "sqlite").orders == (Order(), Order())


def test_nulls_may_be_placed_where_the_server_knows_how() -> None:
    """SQLite places them as it is told; of MariaDB it is refused."""
    last = sa.select(orders.c.id).order_by(orders.c.number.desc().nulls_first())
    assert plan(last, "sqlite").orders[0] == Order(True, True)
    with pytest.raises(InvalidInput, match="NULLS FIRST"):
        plan(last, "mariadb")


ORDERED = {
    "a collation": (orders.c.folded, "sqlite", "collation of its own"),
    "a text without a length": (orders.c.essay, "mysql", "without a length"),
    "a document": (orders.c.document, "mysql", "is not known here"),
    "a span": (orders.c.span, "mysql", "is not known here"),
    "an enum": (orders.c.kind, "mysql", "is not known here"),
    "a column of another table": (others.c.number, "sqlite", "columns of its table"),
    "a stranger of the same name": (sa.column("number"), "sqlite", "columns of its table"),
    "a number": (sa.literal(1), "sqlite", "columns of its table"),
    "a function": (func.lower(orders.c.name), "sqlite", "columns of its table"),
}


@pytest.mark.parametrize("name", ORDERED)
def test_an_order_that_is_not_known_here_is_refused(name: str) -> None:
    """What the database compares by rules that are not known here cannot be merged."""
    key, backend, message = ORDERED[name]
    with pytest.raises(InvalidInput, match=message) as caught:
        plan(sa.select(orders.c.id).order_by(key), backend)
    assert caught.value.advice


every = sa.select(orders.c.id)
CLAUSES = {
    "distinct()": every.distinct(),
    "group_by()": every.group_by(orders.c.id),
    "having()": every.having(orders.c.id > 1),
    "with_for_update()": every.with_for_update(),
    "fetch()": every.fetch(1),
    "prefix_with()": every.prefix_with("ALL"),
    "suffix_with()": every.suffix_with("LIMIT 1"),
    "with_hint()": every.with_hint(orders, "NOT INDEXED"),
    "add_cte()": every.add_cte(sa.select(others.c.number).cte()),
    "options()": every.options(sa.orm.raiseload("*")),
}
PARTS = {
    "a subquery": (every.where(orders.c.id.in_(sa.select(others.c.number))), "read the keys first"),
    "text()": (every.where(sa.text("1 = 1")), "expressions instead of text"),
    "literal_column()": (sa.select(orders.c.id, sa.literal_column("COUNT(*)")), "read each shard by itself"),
    "over()": (sa.select(func.abs(orders.c.id).over()), "read each shard by itself"),
    "a column named by text": (every.order_by("id"), "by the column itself"),
    "collation": (every.order_by(orders.c.name.collate("NOCASE")), "leave out collate"),
    "table valued alias": (sa.select(func.json_each(orders.c.name).table_valued("value").c.value), "by itself"),
    "funcfilter": (sa.select(func.abs(orders.c.id).filter(orders.c.id > 1)), "read each shard by itself"),
}


@pytest.mark.parametrize("name", CLAUSES)
def test_a_clause_that_looks_at_several_rows_is_named(name: str) -> None:
    """The message names the clause, and the advice says what to do instead."""
    with pytest.raises(InvalidInput, match=rf"^{re.escape(name)} in a gathered read") as caught:
        plan(CLAUSES[name], "sqlite")
    assert "each(statement)" in str(caught.value.advice)


def test_either_kind_of_hint_is_refused() -> None:
    """A hint of the statement as well as one of a table."""
    with pytest.raises(InvalidInput, match=r"with_hint\(\)"):
        plan(sa.select(orders.c.id).with_statement_hint("X"), "sqlite")  # SQLAlchemy 2.0 changes it in place


@pytest.mark.parametrize("name", PARTS)
def test_a_part_that_is_not_proven_is_named(name: str) -> None:
    """The message names the part in the caller's words, and the advice fits it."""
    statement, advice = PARTS[name]
    with pytest.raises(InvalidInput, match=rf"a gathered read with {re.escape(name)} is not proven") as caught:
        plan(statement, "sqlite")
    assert advice in str(caught.value.advice)


def test_functions_of_somebodys_package_are_unknown() -> None:
    """A known name in a package of the database is another function."""
    assert "lower(orders.name)" in sent(every.where(func.lower(orders.c.name) == "a"))
    with pytest.raises(InvalidInput, match=r"lower\(\) over several shards"):
        plan(every.where(func.own.lower(orders.c.name) == "a"), "sqlite")


def test_one_table_is_read_and_the_message_says_what_was_found() -> None:
    """None, or more than one."""
    with pytest.raises(InvalidInput, match="this one has no table"):
        plan(sa.select(sa.literal(1)), "sqlite")
    with pytest.raises(InvalidInput, match="this one has a join, an alias or several tables"):
        plan(sa.select(orders.c.id, others.c.number), "sqlite")


def test_a_computed_attribute_is_refused() -> None:
    """What is computed from other rows or tables would be computed on each shard by itself."""
    with pytest.raises(InvalidInput, match="the attribute twice is computed"):
        plan(sa.select(Computed), "sqlite")
