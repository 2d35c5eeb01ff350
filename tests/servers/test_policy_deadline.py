"""One outer deadline round three tries, against real servers that were frozen."""

from __future__ import annotations

import asyncio
import functools
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
import redis.asyncio
import sqlalchemy as sa

from resilient.errors import DeadlineExceeded, ResilientError, Unavailable
from resilient.policy import Budget, Deadline, Pipeline, Retry, deadline
from resilient.testing.servers import MariaDbCluster, PostgresServer, RedisServer
from resilient.wire import redis as wire_redis
from resilient.wire import sql

SCALED = 0.5
"""Seconds of the outer deadline in a quick run; a full-size run takes the whole second."""
ALLOWED = 0.020
TIMES = 5


def allowed() -> float:
    """Twenty milliseconds, and what this machine is late by just now for a wait that nothing of ours has a part in."""
    late = []
    for _ in range(TIMES):
        began = time.perf_counter()
        time.sleep(0.01)
        late.append(time.perf_counter() - began - 0.01)
    return ALLOWED + max(late)


@pytest.fixture
def outer(repeat: Callable[[int], int]) -> float:
    return 1.0 if repeat(50) >= 50 else SCALED


@pytest.fixture(autouse=True)
def no_thread_stays(redis_server: RedisServer, mariadb: MariaDbCluster, postgres: PostgresServer) -> Iterator[None]:
    """Whatever a test's calls waited for, no thread of theirs is left to wait on.

    All servers are up before the threads are counted: those that start them are not the test's.
    """
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def tries(name: str, *, classify: Any) -> Pipeline:
    """Three tries, and a budget that never refuses one, so that time alone ends them."""
    return Pipeline(name, Retry(attempts=3, base=0.001), Budget(ratio=1.0, burst=100), classify=classify)


def overshoot(
    call: Callable[[], object],
    seconds: float,
    errors: tuple[type[Exception], ...] = (redis.RedisError, ResilientError),
    times: int = TIMES,
) -> float:
    """By how much the median of the calls exceeded their deadline; each must have failed, and have used its time."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        with pytest.raises(errors) as caught, deadline(seconds):
            call()
        taken.append(time.perf_counter() - began)
    assert min(taken) > seconds * 0.9, f"something failed for another reason: {caught.value!r}"
    return statistics.median(taken) - seconds


def test_sync_redis(redis_server: RedisServer, outer: float) -> None:
    """Three tries of half the deadline each end with the deadline."""
    connector = wire_redis.Connector(redis_server.url, connect_timeout=outer / 2, timeout=outer / 2)
    cache = tries("cache", classify=wire_redis.classify)
    assert cache.idempotent.call(connector.get().set, "k", "v")
    redis_server.freeze()
    assert overshoot(lambda: cache.idempotent.call(connector.get().get, "k"), outer) <= allowed()
    connector.close()


def test_sync_redis_with_each_try_bounded(redis_server: RedisServer, outer: float) -> None:
    """The pipeline's own deadlines, round all tries and round each, do the same as the block."""
    connector = wire_redis.Connector(redis_server.url, connect_timeout=30.0, timeout=30.0)
    cache = Pipeline(
        "cache",
        Deadline(outer),
        Retry(attempts=3, base=0.001),
        Budget(ratio=1.0, burst=100),
        Deadline(outer * 0.4),
        classify=wire_redis.classify,
    )
    redis_server.freeze()
    taken = []
    for _ in range(TIMES):
        began = time.perf_counter()
        with pytest.raises((redis.RedisError, DeadlineExceeded)):
            cache.idempotent.call(connector.get().get, "k")
        taken.append(time.perf_counter() - began)
    assert statistics.median(taken) - outer <= allowed()
    assert cache.stats().retried >= TIMES
    connector.close()


def test_ready_redis(redis_server: RedisServer, outer: float) -> None:
    """A client that a user made is bounded by its own limits: three of them, and no try after the deadline."""
    limit = outer / 2.5
    ready = redis.Redis.from_url(redis_server.url, socket_timeout=limit, socket_connect_timeout=limit, retry=None)
    cache = tries("cache", classify=wire_redis.classify)
    client = wire_redis.Connector(ready).get()
    redis_server.freeze()
    assert overshoot(lambda: cache.idempotent.call(client.get, "k"), outer) <= limit + allowed()
    ready.close()


def test_async_redis(redis_server: RedisServer, outer: float) -> None:
    """A client of redis.asyncio is bounded on the wire, and the call is cancelled when time is up."""
    cache = tries("cache", classify=wire_redis.classify)

    async def main() -> float:
        connector = wire_redis.AsyncConnector(redis_server.url, connect_timeout=outer / 2, timeout=outer / 2)
        await cache.idempotent.acall(connector.get().set, "k", "v")
        redis_server.freeze()
        taken = []
        for _ in range(TIMES):
            began = time.perf_counter()
            with pytest.raises((redis.RedisError, DeadlineExceeded)):
                async with deadline(outer):
                    await cache.idempotent.acall(connector.get().get, "k")
            taken.append(time.perf_counter() - began)
        assert min(taken) > outer * 0.9
        await connector.aclose()
        return statistics.median(taken) - outer

    assert asyncio.run(main()) <= allowed()


def test_async_ready_redis(redis_server: RedisServer, outer: float) -> None:
    """An async client of the user's own, however patient, is cancelled when time is up."""
    cache = Pipeline("cache", Deadline(outer), Retry(attempts=3), classify=wire_redis.classify)

    async def main() -> float:
        ready = redis.asyncio.Redis.from_url(redis_server.url, socket_timeout=30.0, socket_connect_timeout=30.0)
        client = wire_redis.AsyncConnector(ready).get()
        redis_server.freeze()
        taken = []
        for _ in range(TIMES):
            began = time.perf_counter()
            with pytest.raises((redis.RedisError, DeadlineExceeded)):
                await cache.idempotent.acall(client.get, "k")
            taken.append(time.perf_counter() - began)
        await ready.connection_pool.disconnect()
        return statistics.median(taken) - outer

    assert asyncio.run(main()) <= allowed()


def select_one(engine: sa.Engine) -> object:
    with engine.connect() as connection:
        return connection.scalar(sa.text("SELECT 1"))


def frozen_sql(url: str, freeze: Callable[[], None], seconds: float) -> None:
    """Both with a connection in the pool and without one."""
    made = sql.engine(url, connect_timeout=seconds / 2, timeout=seconds / 2, pool_size=1)
    orders = tries("orders", classify=sql.classify)
    assert orders.idempotent.call(select_one, made) == 1
    freeze()
    assert (
        overshoot(lambda: orders.idempotent.call(select_one, made), seconds, (Unavailable, DeadlineExceeded))
        <= allowed()
    )
    made.dispose()


def test_mariadb(mariadb: MariaDbCluster, outer: float) -> None:
    """A statement and a handshake that never end, in three tries, end with the deadline."""
    frozen_sql(mariadb.primary.url, mariadb.primary.freeze, outer)


def test_postgres(postgres: PostgresServer, outer: float) -> None:
    """The same for psycopg, whose sync connection by itself knows no limit for an answer."""
    frozen_sql(postgres.url, postgres.freeze, outer)


def test_frozen_within_a_transaction(mariadb: MariaDbCluster, postgres: PostgresServer, outer: float) -> None:
    """The rollback of what was begun does not come on top of the deadline."""
    for server in (mariadb.primary, postgres):
        taken = []
        for _ in range(TIMES):
            made = sql.engine(server.url)
            began = time.perf_counter()
            with pytest.raises(DeadlineExceeded), deadline(outer), made.connect() as connection:  # noqa: PT012 - the last step
                connection.scalar(sa.text("SELECT 1"))
                server.freeze()
                began = time.perf_counter() + (deadline.remaining() or 0.0) - outer
                connection.scalar(sa.text("SELECT 2"))
            taken.append(time.perf_counter() - began)
            server.thaw()
            made.dispose()
        assert statistics.median(taken) - outer <= allowed(), server


def test_ready_mariadb(mariadb: MariaDbCluster, outer: float) -> None:
    """An engine that a user made is bounded by its own limits, and no try begins after the deadline."""
    limit = 1  # PyMySQL's limits for the handshake are whole seconds
    ready = sa.create_engine(mariadb.primary.url, connect_args={"read_timeout": limit, "connect_timeout": limit})
    engine = sql.engine(ready)
    orders = tries("orders", classify=sql.classify)
    mariadb.primary.freeze()
    errors = (Unavailable, DeadlineExceeded)
    call = functools.partial(orders.idempotent.call, select_one, engine)
    # A try after the deadline would add its own second each time; a machine that is busy adds some now and then.
    assert any(overshoot(call, outer, errors, times=1) <= limit + allowed() for _ in range(10))
    ready.dispose()


def test_mariadb_ends_what_was_given_up(mariadb: MariaDbCluster) -> None:
    """A statement under a deadline carries its limit: the server does not run on with it when its caller has gone."""
    made = sql.engine(mariadb.primary.url)

    def running() -> list[object]:
        rows = mariadb.primary.query("SHOW PROCESSLIST")
        return [row for row in rows if row[1] == "app" and "SLEEP" in str(row[7]).upper()]

    seen: list[object] = []
    with made.connect() as connection:
        with deadline(0.4), pytest.raises(DeadlineExceeded):  # noqa: PT012 - the last step raises
            watcher = threading.Timer(0.2, lambda: seen.extend(running()))
            watcher.start()
            connection.execute(sa.text("SELECT SLEEP(30)"))
        watcher.join()
    assert "max_statement_time" in str(seen[0])
    until = time.monotonic() + 3.0
    while running():
        assert time.monotonic() < until, "the server runs on with it"
        time.sleep(0.02)
    made.dispose()


def test_mariadb_statements_without_a_deadline_are_sent_as_they_are(mariadb: MariaDbCluster) -> None:
    """No deadline, no prefix; under one, writes with RETURNING, several rows and placeholders mean what they meant."""
    table = sa.Table("limits", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("t", sa.Text))
    made = sql.engine(mariadb.primary.url)
    table.create(made)
    with made.begin() as connection:
        assert connection.scalar(sa.text("SELECT info FROM information_schema.processlist WHERE id = CONNECTION_ID()"))
        with deadline(5.0):
            connection.execute(table.insert().values(id=1, t="50% : ok"))
            connection.execute(table.insert(), [{"id": 2, "t": "a"}, {"id": 3, "t": "b"}])
            assert connection.scalars(table.insert().values(id=4).returning(table.c.id)).all() == [4]
            assert connection.execute(table.update().where(table.c.id == 2).values(t="%s")).rowcount == 1
            assert connection.scalars(sa.select(table.c.t).order_by(table.c.id)).all() == ["50% : ok", "%s", "b", None]
            query = "SELECT info FROM information_schema.processlist WHERE id = CONNECTION_ID()"
            assert str(connection.scalar(sa.text(query))).startswith("SET STATEMENT max_statement_time=")
        assert connection.scalar(sa.text(query)) == query
    table.drop(made)
    made.dispose()
