"""Engines whose every wait ends, and what their errors mean."""

from __future__ import annotations

import gc
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from pymysql import err
from sqlalchemy import exc

from resilient.errors import ConfigurationError, DeadlineExceeded, Overloaded, Unavailable
from resilient.policy import Failure, deadline
from resilient.testing import FakeClock
from resilient.wire import sql
from resilient.wire._sql_limits import _hinted, _limited

SLOW = sa.text(
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50000000) SELECT COUNT(*) FROM n"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with closing(sqlite3.connect(tmp_path / "a.db")) as made:
        made.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    return tmp_path / "a.db"


@pytest.fixture
def engine(path: Path) -> Iterator[sa.Engine]:
    made = sql.engine(f"sqlite:///{path}", pool_size=1, max_overflow=0, pool_timeout=0.1)
    yield made
    made.dispose()


def test_a_deadline_interrupts_a_statement(engine: sa.Engine) -> None:
    """A long statement ends with the deadline, and the connection is good for the next one without any."""
    began = time.monotonic()
    with engine.connect() as connection:
        with deadline(0.1), pytest.raises(DeadlineExceeded):
            connection.execute(SLOW)
        assert time.monotonic() - began < 1.0
        assert connection.scalar(sa.text("SELECT 1")) == 1
    with engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT 1")) == 1


def test_a_deadline_that_has_passed_sends_nothing(engine: sa.Engine) -> None:
    """Neither a connection nor a statement is begun without time."""
    with engine.connect() as connection, deadline(0), pytest.raises(DeadlineExceeded):
        connection.execute(sa.text("INSERT INTO t VALUES (1)"))
    with engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT COUNT(*) FROM t")) == 0


def test_a_deadline_shortens_the_wait_for_a_lock(engine: sa.Engine, path: Path) -> None:
    """A locked database is waited for no longer than the deadline allows; the error stays the database's own."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()
        with engine.connect() as connection, deadline(0.1), pytest.raises((exc.OperationalError, DeadlineExceeded)):
            connection.execute(sa.text("INSERT INTO t VALUES (1)"))
        assert time.monotonic() - began < 1.0
        other.execute("ROLLBACK")


def test_the_wait_for_a_connection_is_bounded_and_named(engine: sa.Engine) -> None:
    """A full pool is Overloaded after its own limit, and DeadlineExceeded after the caller's."""
    with engine.connect():
        with pytest.raises(Overloaded, match=r"no database connection came free within 0\.1 s"):
            engine.connect()
        with deadline(0.02), pytest.raises(DeadlineExceeded):
            engine.connect()
    engine.dispose()  # the new pool has the limit of the old one, not what one caller had left
    with engine.connect(), pytest.raises(Overloaded, match=r"0\.1 s"):
        engine.connect()


def test_a_missing_file_is_unavailable_where_it_must_exist(tmp_path: Path) -> None:
    """A replica's vanished file is an error and not a new empty database."""
    made = sql.engine(f"sqlite:///{tmp_path}/none.db", must_exist=True)
    with pytest.raises(Unavailable, match="could not be reached"):
        made.connect()
    assert not (tmp_path / "none.db").exists()
    made.dispose()


def test_query_only_refuses_writes(path: Path) -> None:
    """The database itself refuses what the checks above it might miss."""
    made = sql.engine(f"sqlite:///{path}", query_only=True)
    with made.connect() as connection, pytest.raises(Unavailable, match="read-only; nothing was written"):
        connection.execute(sa.text("INSERT INTO t VALUES (1)"))
    made.dispose()


def test_what_the_database_says_about_a_statement_stays_its_own(engine: sa.Engine) -> None:
    """A duplicate and a syntax error are SQLAlchemy's errors, as callers expect them."""
    with engine.begin() as connection:
        connection.execute(sa.text("INSERT INTO t VALUES (1)"))
        with pytest.raises(exc.IntegrityError) as caught:
            connection.execute(sa.text("INSERT INTO t VALUES (1)"))
        verdict = sql.classify(caught.value)
        assert verdict is not None
        assert (verdict.failure, verdict.no_effect) == (Failure.CONFLICT, True)
    with engine.connect() as connection, pytest.raises(exc.OperationalError):
        connection.execute(sa.text("SELEC 1"))


def test_no_message_holds_a_password() -> None:
    """Neither a malformed URL nor an unreachable server tells it."""
    with pytest.raises(ConfigurationError) as caught:
        sql.engine("mysql+pymysql:/app:secret@nowhere/app")
    assert "secret" not in str(caught.value) + repr(caught.value.__cause__)
    made = sql.engine("mysql+pymysql://app:secret@127.0.0.1:1/app", connect_timeout=0.2)
    with pytest.raises(Unavailable) as missing:
        made.connect()
    assert "secret" not in str(missing.value)
    assert "127.0.0.1:1" in str(missing.value)
    made.dispose()


def test_tables_are_created_by_several_at_once(tmp_path: Path) -> None:
    """Processes that start together may all create the tables."""
    made = sql.engine(f"sqlite:///{tmp_path}/new.db")
    errors: list[BaseException] = []

    def create() -> None:
        try:
            sql.create_tables(made)
        except Exception as error:  # noqa: BLE001 - any error is one too many
            errors.append(error)

    threads = [threading.Thread(target=create) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    made.dispose()
    assert errors == []


MYSQL = {
    2003: (Failure.UNAVAILABLE, True),
    2013: (Failure.UNAVAILABLE, False),
    1040: (Failure.THROTTLED, True),
    1836: (Failure.READ_ONLY, True),
    1213: (Failure.CONFLICT, True),
    1205: (Failure.TRANSIENT, True),
    1062: (Failure.CONFLICT, True),
    1045: (Failure.AUTH, True),
    1064: (Failure.INVALID, True),
    1969: (Failure.TIMEOUT, True),
}


@pytest.mark.parametrize("number", MYSQL)
def test_a_mariadb_error_is_told_by_its_number(number: int) -> None:
    """Raw or wrapped by SQLAlchemy, whatever SQLSTATE it bears."""
    raw: Any = err.OperationalError(number, "text")
    raw.sqlstate = "HY000"
    wrapped = exc.OperationalError("SELECT 1", {}, raw)
    for error in (raw, wrapped):
        verdict = sql.classify(error)
        assert verdict is not None
        assert (verdict.failure, verdict.no_effect) == MYSQL[number]


def test_1290_is_read_only_only_where_it_says_so() -> None:
    """The number is shared by every server option that forbids a statement."""
    read_only = sql.classify(err.OperationalError(1290, "running with the --read-only option so it cannot"))
    other = sql.classify(err.OperationalError(1290, "running with the --secure-file-priv option so it cannot"))
    assert read_only is not None
    assert other is not None
    assert (read_only.failure, other.failure) == (Failure.READ_ONLY, Failure.INVALID)


@pytest.mark.parametrize(
    ("state", "failure"),
    [
        ("25006", Failure.READ_ONLY),
        ("40001", Failure.CONFLICT),
        ("57P01", Failure.UNAVAILABLE),
        ("08006", Failure.UNAVAILABLE),
        ("23505", Failure.CONFLICT),
        ("23503", Failure.INVALID),
        ("57014", Failure.TIMEOUT),
        ("28P01", Failure.AUTH),
    ],
)
def test_a_postgresql_error_is_told_by_its_sqlstate(state: str, failure: Failure) -> None:
    """The whole state, or else its class."""

    class FromPostgres(Exception):
        sqlstate = state

    verdict = sql.classify(FromPostgres())
    assert verdict is not None
    assert verdict.failure is failure


def test_a_strangers_error_is_not_judged() -> None:
    """What is no database's error is left to others."""
    assert sql.classify(ValueError("x")) is None
    assert sql.classify(exc.InvalidRequestError("x")) is None


@pytest.mark.parametrize("module", ["resilient.wire.sql", "resilient.storage.replicas", "resilient.storage.shards"])
def test_without_sqlalchemy_the_extra_is_named(module: str) -> None:
    """The error says which extra brings it."""
    code = f"""
import sys
sys.modules["sqlalchemy"] = None
from resilient.errors import MissingExtra
try:
    import {module}
except MissingExtra as error:
    print(error.extra)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout == "sql\n", done.stderr


@pytest.mark.parametrize(
    ("original", "told"),
    [
        (err.ProgrammingError(1146, "Table 'app.resilient_ledger' doesn't exist"), True),
        (err.ProgrammingError(1146, "Table 'app.orders' doesn't exist"), False),
        (err.ProgrammingError(1064, "You have an error near resilient_ledger"), False),
        (sqlite3.OperationalError("no such table: resilient_ledger"), True),
    ],
)
def test_only_a_missing_table_of_ours_is_explained(original, told):
    """Every other error goes through as it is."""
    error = sa.exc.ProgrammingError("INSERT", {}, original)
    with pytest.raises(ConfigurationError if told else sa.exc.ProgrammingError), sql.needs_table("resilient_ledger"):
        raise error


def test_errors_are_translated_for_an_engine_in_the_place_of_another(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """An engine made at the address of one that is gone, whose dialect lives on, tells errors as ours."""
    dialects, addresses = [], set()
    gc.freeze()  # what the other tests left is not searched again at each turn
    request.addfinalizer(gc.unfreeze)
    for _ in range(200):
        made = sql.engine(f"sqlite:///{tmp_path}/gone/app.db")
        again = id(made) in addresses
        with pytest.raises(Unavailable), made.connect():
            pytest.fail("a file in a folder that is not there was opened")
        if again:
            return
        addresses.add(id(made))
        dialects.append(made.dialect)
        made.dispose()
        del made
        gc.collect()
    pytest.skip("no address was used twice, so nothing could be tried")


class _Cursor:
    def __init__(self) -> None:
        self.executed: list[str] = []

    def execute(self, statement: str, parameters: Any) -> None:
        self.executed.append(statement)


@pytest.mark.parametrize(
    ("mariadb", "statement", "sent"),
    [
        (False, "SELECT 1", "SELECT /*+ MAX_EXECUTION_TIME(1500) */ 1"),
        (False, "  select\n1", "select /*+ MAX_EXECUTION_TIME(1500) */\n1"),
        (False, "SELECT /*+ NO_ICP(t) */ a FROM t", None),
        (False, "SELECTED", None),
        (False, "INSERT INTO t SELECT 1", None),
        (False, "SET autocommit=0", None),
        (True, "SELECT 1", "SET STATEMENT max_statement_time=1.500 FOR SELECT 1"),
        (True, "INSERT INTO t VALUES (1)", "SET STATEMENT max_statement_time=1.500 FOR INSERT INTO t VALUES (1)"),
        (True, "SET autocommit=0", None),
    ],
)
def test_mysql_and_mariadb_are_told_what_remains(mariadb: bool, statement: str, sent: str | None) -> None:
    """MariaDB gets a limit with each statement that may bear one, MySQL with its queries; others stay as they are."""
    clock, cursor, context = FakeClock(), _Cursor(), SimpleNamespace(dialect=SimpleNamespace(is_mariadb=mariadb))
    with deadline(1.5, clock=clock):
        assert _limited(cursor, statement, (), context) is (sent is not None)
    assert cursor.executed == ([] if sent is None else [sent])
    assert not _limited(cursor, statement, (), context), "without a deadline nothing is told"


def test_a_query_with_hardly_any_time_left_gets_a_millisecond() -> None:
    """Zero would mean no limit at all."""
    assert _hinted("SELECT %s", 0.0001) == "SELECT /*+ MAX_EXECUTION_TIME(1) */ %s"


@pytest.mark.parametrize(
    ("url", "limits", "advice"),
    [
        ("mysql+pymysql://a@127.0.0.1:1/x", {}, "read_timeout"),
        ("mysql+pymysql://a@127.0.0.1:1/x?connect_timeout=1", {"write_timeout": 1}, "read_timeout"),
        ("postgresql+psycopg://a@127.0.0.1:1/x", {"connect_timeout": 2}, "pass its URL"),
    ],
)
def test_a_ready_engine_that_could_wait_for_ever_is_refused(url: str, limits: dict[str, Any], advice: str) -> None:
    """At construction, unless the caller says that it may; in every place that takes ready engines."""
    ready = sa.create_engine(url, connect_args=limits)
    with pytest.raises(ConfigurationError, match=advice):
        sql.engine(ready)
    assert sql.engine(ready, unbounded=True) is ready


@pytest.mark.parametrize(
    "ready",
    [
        sa.create_engine("mysql+pymysql://a@127.0.0.1:1/x", connect_args={"read_timeout": 3}),
        sa.create_engine("mysql+pymysql://a@127.0.0.1:1/x?read_timeout=3"),
        sa.create_engine("mysql+pymysql://", creator=lambda: None),
        sa.create_engine("sqlite://"),
    ],
    ids=["options", "url", "creator", "sqlite"],
)
def test_a_ready_engine_with_limits_is_taken_as_it_is(ready: sa.Engine) -> None:
    """Wherever the limit was written; what a function of the user's connects cannot be looked into."""
    assert sql.engine(ready) is ready


def test_a_connection_in_use_at_dispose_is_closed_when_it_comes_back(tmp_path: Path) -> None:
    """Nothing is left to the garbage collector, and the engine goes on with others."""
    made = sql.engine(f"sqlite:///{tmp_path}/app.db")
    used = made.connect()
    old = used.connection.dbapi_connection
    assert old is not None
    made.dispose()
    assert used.scalar(sa.text("SELECT 1")) == 1, "whoever uses it may end"
    used.close()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        old.cursor()
    with made.connect() as connection:
        assert connection.scalar(sa.text("SELECT 2")) == 2
    made.dispose()
