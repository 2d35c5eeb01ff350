"""Connections to a real PostgreSQL: every wait ends, on both sides, and its errors are told by what they mean."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import exc

from resilient.errors import DeadlineExceeded, OutcomeUnknown, Unavailable
from resilient.policy import Failure, deadline
from resilient.testing.servers import PostgresServer
from resilient.wire import sql

NOTES = sa.Table("notes", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("n", sa.Integer))
STATEMENTS = (
    "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND state = 'active' AND query LIKE '%%sleep%%'"
)


@pytest.fixture
def engine(postgres: PostgresServer) -> Iterator[sa.Engine]:
    made = sql.engine(postgres.url, connect_timeout=0.5, timeout=5.0)
    NOTES.metadata.create_all(made)
    with made.begin() as connection:
        connection.execute(NOTES.insert(), [{"id": 1, "n": 0}, {"id": 2, "n": 0}])
    yield made
    made.dispose()


def verdict_of(error: BaseException) -> tuple[Failure, bool]:
    found = sql.classify(error)
    assert found is not None, repr(error)
    return found.failure, found.no_effect


def spent(began: float) -> float:
    return time.monotonic() - began


def test_a_frozen_server_costs_the_limit(
    engine: sa.Engine, postgres: PostgresServer, limit: Callable[[float], float]
) -> None:
    """A connect and a statement end at their own limits where no deadline runs, and the pool recovers after it."""
    quick = sql.engine(postgres.url, connect_timeout=0.5, timeout=0.3)
    with quick.connect() as connection:
        connection.scalar(sa.text("SELECT 1"))
        postgres.freeze()
        began = time.monotonic()
        with pytest.raises(Unavailable):
            connection.scalar(sa.text("SELECT 1"))
        assert 0.25 < spent(began) < limit(1.0)
    began = time.monotonic()
    with pytest.raises(Unavailable, match="could not be reached"):
        quick.connect()
    assert 0.4 < spent(began) < min(limit(1.5), 1.95)  # libpq by itself knows no limit below two seconds
    postgres.thaw()
    with quick.connect() as connection:
        assert connection.scalar(sa.text("SELECT 1")) == 1
    quick.dispose()


def test_a_commit_without_an_answer_is_unknown(
    engine: sa.Engine, postgres: PostgresServer, limit: Callable[[float], float]
) -> None:
    """A server frozen at COMMIT: the caller is told that nobody knows, in time."""
    with engine.connect() as connection:
        connection.execute(NOTES.insert().values(id=7))
        postgres.freeze()
        began = time.monotonic()
        with deadline(0.5), pytest.raises(OutcomeUnknown):
            connection.commit()
        assert spent(began) < limit(1.0)


def test_the_server_gives_up_too(engine: sa.Engine, postgres: PostgresServer, limit: Callable[[float], float]) -> None:
    """A statement that its caller gave up does not run on in the server, and the next one has its full time again."""
    with engine.connect() as connection:
        began = time.monotonic()
        with deadline(0.3), pytest.raises(DeadlineExceeded):
            connection.execute(sa.text("SELECT pg_sleep(30)"))
        assert spent(began) < limit(1.0)
    until = time.monotonic() + limit(3.0)
    while postgres.query(STATEMENTS)[0][0]:
        assert time.monotonic() < until, "it still runs"
        time.sleep(0.02)
    with engine.connect() as connection:
        connection.execute(sa.text("SELECT pg_sleep(0.5)"))
        assert connection.scalar(sa.text("SHOW statement_timeout")) == "5s"


def test_a_limit_that_a_rollback_took_back_is_told_again(engine: sa.Engine) -> None:
    """The server's limit is a setting of the transaction it was told in: what is believed of it must not outlive it."""
    with engine.connect() as connection:
        with deadline(0.4):
            connection.scalar(sa.text("SELECT 1"))
            connection.rollback()
            assert connection.scalar(sa.text("SHOW statement_timeout")) != "5s"
            connection.rollback()
        assert connection.scalar(sa.text("SHOW statement_timeout")) == "5s"
        connection.execute(sa.text("SELECT pg_sleep(0.5)"))


def test_without_a_deadline_no_statement_is_added(engine: sa.Engine, postgres: PostgresServer) -> None:
    """Only a statement under a deadline pays a round trip, and those that follow soon do not."""

    def commands(times: int, seconds: float | None) -> int:
        seen: list[int] = []
        with engine.connect() as connection:
            kind: Any = type(connection.connection.dbapi_connection)
            told = kind.wait

            def counted(self: object, steps: object) -> object:
                seen.append(1)
                return told(self, steps)

            kind.wait = counted
            try:
                for _ in range(times):
                    with contextlib.nullcontext() if seconds is None else deadline(seconds):
                        connection.scalar(sa.text("SELECT 1"))
            finally:
                del kind.wait
        return len(seen)

    bare = commands(5, None)
    assert commands(5, 60.0) == bare  # longer than the limit that stands anyway
    assert bare < commands(5, 2.0) <= bare + 2  # told, and taken back by nothing in between


def test_an_idle_connection_that_died_is_replaced(engine: sa.Engine, postgres: PostgresServer) -> None:
    """After a restart of the server the pool's connections are dead; a caller does not see it."""
    with engine.connect() as connection:
        connection.scalar(sa.text("SELECT 1"))
    postgres.restart()
    time.sleep(1.1)  # only then is a connection idle
    with engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM notes")) == 2


def test_what_the_server_says_of_a_statement(engine: sa.Engine) -> None:
    """A duplicate, a clash of serializable transactions, a syntax error and a time limit, as the server raises them."""
    with engine.connect() as connection, pytest.raises(exc.IntegrityError) as duplicate:
        connection.execute(NOTES.insert().values(id=1))
    assert verdict_of(duplicate.value) == (Failure.CONFLICT, True)
    with engine.connect() as connection, pytest.raises(exc.ProgrammingError) as wrong:
        connection.execute(sa.text("SELEC 1"))
    assert verdict_of(wrong.value) == (Failure.INVALID, True)
    level = engine.execution_options(isolation_level="SERIALIZABLE")
    with level.connect() as first, level.connect() as second:
        for connection in (first, second):
            connection.scalar(sa.select(sa.func.sum(NOTES.c.n)))
        first.execute(NOTES.update().where(NOTES.c.id == 1).values(n=1))
        second.execute(NOTES.update().where(NOTES.c.id == 2).values(n=1))
        first.commit()
        with pytest.raises(exc.OperationalError) as clash:
            second.commit()
    assert verdict_of(clash.value) == (Failure.CONFLICT, True)
    with engine.connect() as connection, pytest.raises(Unavailable) as late:  # noqa: PT012 - the last step raises
        connection.execute(sa.text("SET statement_timeout = 20"))
        connection.execute(sa.text("SELECT pg_sleep(5)"))
    assert late.value.__cause__ is not None
    assert verdict_of(late.value.__cause__) == (Failure.TIMEOUT, True)


def test_a_read_only_server_wrote_nothing(engine: sa.Engine, postgres: PostgresServer) -> None:
    """As after a failover: the write is refused, and said to have had no effect."""
    with engine.connect() as connection:
        connection.execute(sa.text("SET TRANSACTION READ ONLY"))
        with pytest.raises(Unavailable, match="read-only; nothing was written") as caught:
            connection.execute(NOTES.insert().values(id=9))
    assert caught.value.__cause__ is not None
    assert verdict_of(caught.value.__cause__) == (Failure.READ_ONLY, True)


def test_a_connection_ended_by_the_administrator(engine: sa.Engine, postgres: PostgresServer) -> None:
    """57P01: the server is going away; what the open transaction did is lost."""
    with engine.connect() as connection:
        connection.execute(NOTES.insert().values(id=9))
        postgres.end_connections()
        with pytest.raises(Unavailable, match="the transaction is lost") as caught:
            connection.scalar(sa.text("SELECT 1"))
    assert caught.value.__cause__ is not None
    assert verdict_of(caught.value.__cause__) == (Failure.UNAVAILABLE, False)
    state = getattr(caught.value.__cause__, "sqlstate", None)
    assert state in {"57P01", None}  # psycopg 3.1 hands on the text alone
    with engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM notes")) == 2


@pytest.mark.parametrize(
    ("user", "database", "failure"), [("app:wrong", "app", Failure.AUTH), ("app:app", "none", Failure.INVALID)]
)
def test_a_refused_login(postgres: PostgresServer, user: str, database: str, failure: Failure) -> None:
    """psycopg hands on no SQLSTATE of a refused connection; its kind is told all the same, and without the password."""
    made = sql.engine(f"postgresql+psycopg://{user}@127.0.0.1:{postgres.port}/{database}")
    with pytest.raises(exc.OperationalError) as caught:
        made.connect()
    assert verdict_of(caught.value) == (failure, True)
    assert "wrong" not in str(caught.value)


def test_a_server_that_is_down(engine: sa.Engine, postgres: PostgresServer) -> None:
    """A refused connection had no effect."""
    postgres.kill()
    engine.dispose()
    with pytest.raises(Unavailable) as caught:
        engine.connect()
    assert caught.value.__cause__ is not None
    assert verdict_of(caught.value.__cause__) == (Failure.UNAVAILABLE, True)
