"""Which statements may leave the primary."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import func
from sqlalchemy.orm import DeclarativeBase, Mapped, aliased, mapped_column
from sqlalchemy.sql.elements import ColumnElement

from resilient.storage.replicas._routing import forbidden_on_replica, why_primary


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Unheard(ColumnElement[int]):
    """An element of a statement that nobody has heard of."""

    __visit_name__ = "unheard"


users = User.__table__
changed = {"update": sa.update(users), "delete": sa.delete(users)}

PURE = {
    "entity": sa.select(User),
    "columns": sa.select(User.id, User.name).where(User.id.in_([1, 2]), User.name.like("a%")),
    "order": sa.select(User).order_by(User.name.desc().nulls_last()).limit(1).offset(2),
    "count": sa.select(func.count()).select_from(User),
    "aggregate": sa.select(func.max(User.id.distinct())).group_by(User.name).having(func.count() > 1),
    "scalar subquery": sa.select(User).where(User.id == sa.select(func.max(User.id)).scalar_subquery()),
    "exists": sa.select(User).where(sa.exists().where(User.id == 1)),
    "alias": sa.select(aliased(User)),
    "union": sa.union(sa.select(User.id), sa.select(User.id)).order_by("id").limit(1),
    "variable": sa.select(sa.literal_column("@@server_id")),
    "case": sa.select(sa.case((User.id == 1, 2), else_=3), sa.cast(User.id, sa.String)),
    "extract": sa.select(sa.extract("year", func.now())),
    "window": sa.select(func.row_number().over(order_by=User.id)),
    "subquery": sa.select(sa.select(User.id).subquery()),
    "cte": sa.select(sa.select(User.id).cte()),
    "filter": sa.select(func.sum(User.id).filter(User.id > 1)),
    "join": sa.select(User).join(aliased(User), sa.true()),
    "label": sa.select(User.id.label("x")).order_by("x"),
    "not in": sa.select(User).where(~User.id.in_(sa.select(User.id))),
    "core": users.select().where(users.c.id == 1),
}

NOT_PURE = {
    "for update": (sa.select(User).with_for_update(), "lock"),
    "for share": (sa.select(User).with_for_update(read=True), "lock"),
    "lock in a subquery": (sa.select(sa.select(User).with_for_update().subquery()), "lock"),
    "lock in a union": (sa.union(sa.select(User.id), sa.select(User.id).with_for_update()), "lock"),
    "insert": (sa.insert(User), "write"),
    "update": (sa.update(User), "write"),
    "delete": (sa.delete(User), "write"),
    "insert in a cte": (sa.select(sa.insert(users).values(id=1).returning(users.c.id).cte()), "write"),
    "independent cte": (sa.select(User).add_cte(sa.insert(users).values(id=1).cte()), "write"),
    "update in a cte": (sa.select(changed["update"].returning(users.c.id).cte()), "write"),
    "delete in a cte": (sa.select(changed["delete"].returning(users.c.id).cte()), "write"),
    "update beside it": (sa.select(User).add_cte(changed["update"].cte()), "write"),
    "delete beside it": (sa.select(User).add_cte(changed["delete"].cte()), "write"),
    "lock of a union": (sa.union(sa.select(User.id), sa.select(User.id)).with_for_update(), "lock"),
    "hint": (sa.select(User).with_hint(users, "FORCE INDEX (x)"), "text"),
    "unheard of": (sa.select(Unheard()), "unknown"),
    "no statement": ("SELECT 1", "not-a-select"),
    "text": (sa.text("SELECT 1"), "text"),
    "text in where": (sa.select(User).where(sa.text("1 = 1")), "text"),
    "text as a column": (sa.select(sa.text("GET_LOCK('a', 1)")), "text"),
    "literal column": (sa.select(sa.literal_column("GET_LOCK('a', 1)")), "text"),
    "sequence as a literal column": (sa.select(sa.literal_column("NEXT VALUE FOR numbers")), "text"),
    "suffix": (sa.select(User).suffix_with("FOR UPDATE"), "text"),
    "prefix": (sa.select(User).prefix_with("SQL_CALC_FOUND_ROWS"), "text"),
    "statement hint": (sa.select(User).with_statement_hint("FOR UPDATE"), "text"),
    "lock function": (sa.select(func.get_lock("a", 1)), "function"),
    "unknown function": (sa.select(func.charge_customer(1)), "function"),
    "unknown schema's count": (sa.select(func.evil.count(1)), "function"),
    "connection's memory": (sa.select(func.last_insert_id()), "function"),
    "sleep": (sa.select(func.sleep(1)), "function"),
    "sequence": (sa.select(sa.Sequence("s").next_value()), None),
    "from statement": (sa.select(User).from_statement(sa.text("SELECT 1")), "not-a-select"),
    "text columns": (sa.text("SELECT 1").columns(User.id), None),
    "ddl": (sa.DDL("DROP TABLE users"), "not-a-select"),
    "nothing": (None, "unknown"),
}


@pytest.mark.parametrize("name", PURE)
def test_a_pure_read_may_leave_the_primary(name: str) -> None:
    """Everyday reads are recognised as such."""
    assert why_primary(PURE[name]) is None


@pytest.mark.parametrize("name", NOT_PURE)
def test_anything_else_stays(name: str) -> None:
    """What writes, locks, has a side effect or is not understood stays on the primary, with a reason."""
    statement, reason = NOT_PURE[name]
    found = why_primary(statement)
    assert found is not None
    assert reason in {None, found}


def told(statement: Any) -> bool:
    """Whether the last check before the wire forbids it, asked with the context of a real execution."""
    engine = sa.create_engine("sqlite://")
    answers = []

    def ask(_conn: Any, _cursor: Any, sql: str, _parameters: Any, context: Any, _many: bool) -> None:
        answers.append(forbidden_on_replica(sql, context))

    try:
        with engine.connect() as connection:
            users.create(connection)
            sa.event.listen(connection, "before_cursor_execute", ask)
            try:
                connection.exec_driver_sql(statement) if isinstance(statement, str) else connection.execute(statement)
            except sa.exc.OperationalError:
                assert answers  # SQLite may not know it; the question was put before
    finally:
        engine.dispose()
    (answer,) = answers
    return answer


ALLOWED = {
    "select": sa.select(users),
    "union": sa.union(sa.select(users.c.id), sa.select(users.c.id)),
    "cte": sa.select(sa.select(users.c.id).cte()),
    "text": sa.text("SELECT 1"),
    "text with columns": sa.text("SELECT id FROM users").columns(users.c.id),
    "by hand": "SELECT 1",
    "small letters": "  select 1",
    "behind a comment": "/* a\nb */ /**/ SELECT 1",
    "show": "SHOW TABLES",
    "explain": "EXPLAIN SELECT 1",
    "pragma": "PRAGMA user_version",
    "a setting of the connection": "SET time_zone = 'UTC'",
}

FORBIDDEN = {
    "insert": sa.insert(users).values(id=1, name="a"),
    "update": sa.update(users).values(name="a"),
    "delete": sa.delete(users),
    "create": sa.schema.CreateTable(sa.Table("others", sa.MetaData(), sa.Column("id", sa.Integer))),
    "ddl": sa.DDL("DROP TABLE users"),
    "for update": sa.select(users).with_for_update(),
    "for update of a union": sa.union(sa.select(users.c.id), sa.select(users.c.id)).with_for_update(),
    "insert in a cte": sa.select(sa.insert(users).values(id=1).returning(users.c.id).cte()),
    "delete in the second cte": sa.select(sa.select(users.c.id).cte("a")).add_cte(sa.delete(users).cte("b")),
    "text that writes": sa.text("DELETE FROM users"),
    "text with columns that writes": sa.text("DELETE FROM users RETURNING id").columns(users.c.id),
    "text that locks": sa.text("SELECT 1 FROM users FOR UPDATE"),
    "by hand": "DELETE FROM users",
    "no words": "",
    "a lock by hand": "SELECT 1 FROM users FOR SHARE",
    "a lock hidden by comments": "SELECT 1 FROM users FOR/**/UPDATE",
    "a lock in a comment that runs": "SELECT 1 FROM users /*!50000 FOR UPDATE */",
    "an old lock": "SELECT 1 FROM users LOCK IN SHARE MODE",
    "a file": "SELECT 1 INTO OUTFILE '/x'",
    "a sequence": "SELECT NEXT VALUE FOR numbers",
    "a write under a setting": "SET STATEMENT max_statement_time=1 FOR DELETE FROM users",
    "what only begins like a read": "SELECTION",
}


@pytest.mark.parametrize("name", ALLOWED)
def test_reads_by_hand_may_go_over_a_replica(name: str) -> None:
    """What is sent over a replica's own engine and reads is let through, also as text."""
    assert told(ALLOWED[name]) is False


@pytest.mark.parametrize("name", FORBIDDEN)
def test_writes_and_locks_by_hand_may_not(name: str) -> None:
    """The last check before the wire sees what writes or locks, however it is written."""
    assert told(FORBIDDEN[name]) is True
