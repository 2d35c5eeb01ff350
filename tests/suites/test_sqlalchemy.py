"""SQLAlchemy's own tests of its Session, with our session in its place (see sqlalchemy_swap.py)."""

from collections.abc import Callable
from pathlib import Path

import pytest

from resilient.testing.servers import MariaDbCluster

ORM = ["test/orm/test_session.py", "test/orm/test_bind.py", "test/orm/test_transaction.py"]
ASYNC = ["test/ext/asyncio/test_session.py", "--db", "aiosqlite"]
SWAP = ["-p", "sqlalchemy_swap"]

SERVED_BY_A_REPLICA = {
    # They ask which engine a read is sent to, and expect the one they gave; it is the replica's, as it should be.
    "test.orm.test_bind.BindIntegrationTest.test_get_bind": 16,
    "test.orm.test_bind.BindIntegrationTest.test_bind_through_execute": 9,
}

TWO_WRITERS = {
    # Two sessions write to one SQLite file at once; it fails with SQLAlchemy's own Session too.
    "test.orm.test_cascade.PartialFlushTest.test_o2m_m2o": 1,
}
TYPED_ERRORS = {
    # It makes a ROLLBACK TO SAVEPOINT fail as a lost connection does: callers get this library's Unavailable for it.
    "test.orm.test_transaction.SessionTransactionTest_mariadb+pymysql.test_failed_rollback_deactivates_transaction": 1,
}


def test_sessions_on_a_primary_alone(source: Callable[..., Path], run_theirs: Callable) -> None:
    """Each test of sessions, binds and transactions that passes with SQLAlchemy's Session passes with ours."""
    folder = source("SQLAlchemy")
    plain, ours = run_theirs(folder, *ORM), run_theirs(folder, *SWAP, *ORM, SWAP="primary")
    assert ours.failed == plain.failed == frozenset()
    assert ours.passed == plain.passed
    assert len(ours.passed) > 400
    assert ours.routed["primary"] > 150  # reads that were proven pure and given a server
    assert ours.routed["needs-primary"] > 200


def test_the_whole_orm_with_reads_that_a_replica_serves(source: Callable[..., Path], run_theirs: Callable) -> None:
    """With every pure read served by another connection, which can only read, all tests of the ORM pass as well."""
    ours = run_theirs(source("SQLAlchemy"), *SWAP, "test/orm", "--db", "sqlite_file", SWAP="replica")
    assert ours.failures == SERVED_BY_A_REPLICA | TWO_WRITERS
    assert len(ours.passed) > 10_000
    assert ours.routed["replica"] > 4_000
    assert "primary" not in ours.routed  # no read that may leave it stayed there


def test_sessions_on_a_replicated_pair(source: Callable[..., Path], run_theirs: Callable) -> None:
    """On a real MariaDB pair, with savepoints, every pure read is served by the proven replica, and they pass."""
    if (missing := MariaDbCluster.missing()) is not None:
        pytest.skip(f"missing server: {missing}")
    folder = source("SQLAlchemy")
    with MariaDbCluster(replicas=1) as cluster:
        cluster.primary.query("CREATE DATABASE test_schema CHARACTER SET utf8mb4")
        cluster.primary.query("GRANT ALL PRIVILEGES ON test_schema.* TO app@'%'")
        cluster.wait_caught_up()
        database = ["--dburi", f"{cluster.primary.url}?charset=utf8mb4"]
        plain = run_theirs(folder, *ORM, *database)
        ours = run_theirs(folder, *SWAP, *ORM, *database, SWAP="pair", SWAP_REPLICA=cluster.replicas[0].url)
    assert plain.failed == frozenset()
    assert ours.failures == SERVED_BY_A_REPLICA | TYPED_ERRORS
    assert ours.passed | ours.failed == plain.passed
    assert ours.routed["replica"] > 150
    assert "primary" not in ours.routed


def test_async_sessions(source: Callable[..., Path], run_theirs: Callable) -> None:
    """Each test of AsyncSession that passes with SQLAlchemy's Session beneath passes with ours beneath."""
    folder = source("SQLAlchemy")
    plain, ours = run_theirs(folder, *ASYNC), run_theirs(folder, *SWAP, *ASYNC, SWAP="primary")
    assert ours.failed == plain.failed == frozenset()
    assert ours.passed == plain.passed
    assert len(ours.passed) > 100
    assert ours.routed["primary"] > 50
