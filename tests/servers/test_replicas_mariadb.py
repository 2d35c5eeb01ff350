"""A replica set over a real MariaDB primary with two replicas."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from resilient.errors import DeadlineExceeded, OutcomeUnknown, Refused, ResilientError, Unavailable
from resilient.policy import deadline
from resilient.storage.replicas import ReplicaSet
from resilient.testing.servers import MariaDbCluster, TcpProxy

SERVER_ID = sa.select(sa.literal_column("@@server_id"))


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(sa.String(50))


COUNT = sa.select(sa.func.count()).select_from(Note)


@pytest.fixture
def db(mariadb: MariaDbCluster) -> Iterator[ReplicaSet]:
    engine = sa.create_engine(mariadb.primary.url)
    Base.metadata.create_all(engine)
    engine.dispose()
    mariadb.wait_caught_up()
    with ReplicaSet(
        mariadb.primary.url, [node.url for node in mariadb.replicas], probe_interval=0.1, timeout=3.0
    ) as opened:
        wait_for(lambda: states(opened) == ["up", "up", "up"])
        yield opened


def states(db: ReplicaSet) -> list[str]:
    return [node.state for node in db.status()]


def wait_for(reached: Callable[[], object], timeout: float = 10.0) -> float:
    """Seconds until a condition held; what tells of it is polled, since probes are what is waited for."""
    began = time.monotonic()
    while not reached():
        assert time.monotonic() - began < timeout, "the condition was not reached"
        time.sleep(0.01)
    return time.monotonic() - began


def test_replicas_serve_before_anything_was_written(mariadb: MariaDbCluster) -> None:
    """On a cluster whose binary log is still empty the replicas are proven, and take reads."""
    with MariaDbCluster(replicas=1) as fresh:
        assert str(fresh.primary.position()) == ""
        with ReplicaSet(fresh.primary.url, [fresh.replicas[0].url], probe_interval=0.1) as opened:
            wait_for(lambda: states(opened) == ["up", "up"])


def write(db: ReplicaSet, number: int) -> None:
    with db.sessionmaker()() as session:
        session.add(Note(id=number, text="x"))
        session.commit()


def replica_ids(mariadb: MariaDbCluster) -> set[int]:
    return {node.server_id for node in mariadb.replicas}


def test_reads_go_to_replicas_and_a_write_moves_the_transaction(db: ReplicaSet, mariadb: MariaDbCluster) -> None:
    """A read runs on a replica; after an INSERT the same session reads on the primary; the rows arrive."""
    Session = db.sessionmaker()
    with db.scope():
        seen = set()
        for _ in range(10):
            with Session() as session:
                seen.add(session.scalar(SERVER_ID))
        assert seen == replica_ids(mariadb)
        with Session() as session:
            assert session.scalar(SERVER_ID) in replica_ids(mariadb)
            session.add_all([Note(id=number, text="x") for number in range(1, 11)])
            session.flush()
            assert session.scalar(SERVER_ID) == mariadb.primary.server_id
            session.commit()
    mariadb.wait_caught_up()
    for engine in db.replica_engines:
        with engine.connect() as connection:
            assert connection.scalar(COUNT) == 10


def test_a_writer_sees_its_write_while_replication_is_stopped(db: ReplicaSet, mariadb: MariaDbCluster) -> None:
    """With the appliers stopped, the writer's next request sees its write, a stranger may not, strong does."""
    Session = db.sessionmaker()
    for node in mariadb.replicas:
        node.stop_replication()
    with db.scope() as scope, Session() as session:
        session.add(Note(id=1, text="mine"))
        session.commit()
    token = str(scope.token)
    with db.scope(token), Session() as session:
        assert session.scalar(COUNT) == 1
        assert session.scalar(SERVER_ID) == mariadb.primary.server_id
    with db.scope(), Session() as session:
        assert session.scalar(SERVER_ID) in replica_ids(mariadb)
        assert session.scalar(COUNT) == 0
    with db.scope(token), db.consistency("eventual"), Session() as session:
        assert session.scalar(COUNT) == 0
    with db.scope(), db.consistency("strong"), Session() as session:
        assert session.scalar(COUNT) == 1
    with db.scope(), db.primary(), Session() as session:
        assert session.scalar(COUNT) == 1


def test_a_stopped_replica_leaves_after_max_lag_and_returns(mariadb: MariaDbCluster, db: ReplicaSet) -> None:
    """Beyond max_lag a replica leaves the rotation for everybody; caught up, it comes back within seconds."""
    with ReplicaSet(
        mariadb.primary.url, [node.url for node in mariadb.replicas], probe_interval=0.05, max_lag=0.5
    ) as strict:
        wait_for(lambda: states(strict) == ["up", "up", "up"])
        mariadb.replicas[0].stop_replication()
        with db.scope():
            write(db, 1)
        wait_for(lambda: states(strict) == ["up", "lagging", "up"], 3.0)
        lag = strict.status()[1].lag
        assert lag is not None
        assert lag > 0.5
        Session = strict.sessionmaker()
        for _ in range(20):
            with strict.scope(), Session() as session:
                assert session.scalar(SERVER_ID) == mariadb.replicas[1].server_id
        mariadb.replicas[0].start_replication()
        assert wait_for(lambda: states(strict) == ["up", "up", "up"]) < 5.0


def test_every_write_is_read_back_at_once(
    db: ReplicaSet, mariadb: MariaDbCluster, repeat: Callable[[int], int]
) -> None:
    """Every write is read back at once, each in a new session and by the token of the request before (of 500)."""
    Session = db.sessionmaker()
    token = ""
    for number in range(1, repeat(500) + 1):
        with db.scope(token) as scope, Session() as session:
            session.add(Note(id=number, text="x"))
            session.commit()
        token = str(scope.token)
        with db.scope(token), Session() as session:
            assert session.get(Note, number) is not None
    with db.scope(token), Session() as session:
        wait_for(lambda: _asks(Session) in replica_ids(mariadb))  # and then the replicas serve this reader again


def _asks(Session: Callable) -> int:
    with Session() as session:
        return session.scalar(SERVER_ID)


def test_what_is_no_proven_read_runs_on_the_primary(db: ReplicaSet, mariadb: MariaDbCluster) -> None:
    """Locks, functions with a side effect and raw text stay on the primary, and so does their transaction."""
    Session = db.sessionmaker()
    primary = mariadb.primary.server_id
    for statement in (
        sa.select(Note).with_for_update(),
        sa.select(sa.func.get_lock("a", 0)),
        sa.text("SELECT 1"),
        sa.text("CREATE TEMPORARY TABLE t (id INT)"),
    ):
        with db.scope(), Session() as session:
            assert session.scalar(SERVER_ID) in replica_ids(mariadb)
            session.execute(statement)
            assert session.scalar(SERVER_ID) == primary
    with db.scope(), Session() as session:
        note = Note(id=1, text="x")
        session.add(note)
        session.commit()
        assert note.text == "x"  # expired by the commit: read anew, on the primary
        session.refresh(note)


def test_a_killed_replica_costs_no_reader_an_error(
    db: ReplicaSet, mariadb: MariaDbCluster, limit: Callable[[float], float]
) -> None:
    """One replica is killed under load: no reader sees an error; back, it is used again within seconds."""
    Session = db.sessionmaker()
    stop = threading.Event()
    errors: list[BaseException] = []
    served: list[int] = []

    def read() -> None:
        while not stop.is_set():
            try:
                with db.scope(), Session() as session:
                    served.append(session.scalar(SERVER_ID))
            except Exception as error:  # noqa: BLE001 - any error is one too many
                errors.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(served) > 50)
    mariadb.replicas[0].kill()
    wait_for(lambda: states(db)[1] == "down")
    killed_at = len(served)
    wait_for(lambda: len(served) > killed_at + 50)
    mariadb.replicas[0].restart()
    back = wait_for(lambda: states(db)[1] == "up")
    restarted_at = len(served)
    wait_for(lambda: mariadb.replicas[0].server_id in served[restarted_at:])
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert back < limit(5.0)


def test_a_frozen_replica_keeps_no_caller_beyond_its_deadline(
    db: ReplicaSet, mariadb: MariaDbCluster, limit: Callable[[float], float]
) -> None:
    """One replica is frozen: with a deadline of 1 s each read is answered within it; soon it is not asked."""
    Session = db.sessionmaker()
    mariadb.replicas[0].freeze()
    slowest = 0.0
    until = time.monotonic() + 3.0
    while time.monotonic() < until:
        began = time.monotonic()
        with deadline(1.0), db.scope(), Session() as session:
            assert session.scalar(SERVER_ID) != mariadb.replicas[0].server_id
        slowest = max(slowest, time.monotonic() - began)
    assert slowest < min(limit(1.1), 2.9)  # the statement's own limit is 3 s
    assert states(db)[1] == "down"
    mariadb.replicas[0].thaw()
    assert wait_for(lambda: states(db)[1] == "up") < 5.0


def test_without_replicas_reads_go_to_the_primary(db: ReplicaSet, mariadb: MariaDbCluster) -> None:
    """With all replicas gone the primary answers."""
    Session = db.sessionmaker()
    for node in mariadb.replicas:
        node.kill()
    for _ in range(10):
        with db.scope(), Session() as session:
            assert session.scalar(SERVER_ID) == mariadb.primary.server_id


def test_a_write_through_a_replica_is_refused_before_it_is_sent(db: ReplicaSet, mariadb: MariaDbCluster) -> None:
    """A write on a replica's connection is our own error, and the server has never heard of it."""
    before = mariadb.replicas[0].query("SHOW GLOBAL STATUS LIKE 'Com_insert'")
    with db.replica_engines[0].connect() as connection:
        for statement in (
            sa.insert(Note).values(id=1, text="x"),
            sa.text("INSERT INTO notes VALUES (1, 'x')"),
            sa.text("  insert into notes values (1, 'x')"),
            sa.select(Note).with_for_update(),
            sa.text("SELECT id FROM notes FOR UPDATE"),
            sa.text("CREATE TABLE t (id INT)"),
            sa.text("SET STATEMENT max_statement_time=5 FOR INSERT INTO notes VALUES (1, 'x')"),
            sa.text("/*!INSERT INTO notes*/ SELECT 1, 'x'"),
            sa.text("/*M!100000 INSERT INTO notes */ SELECT 1, 'x'"),
            sa.text("SELECT id FROM notes FOR/**/UPDATE"),
            sa.text("SELECT '/*' FROM notes FOR UPDATE /* */"),
            sa.text("SELECT NEXT VALUE FOR numbers"),
        ):
            with pytest.raises(Refused, match="replica-1 of 'app' is a replica"):
                connection.execute(statement)
        assert connection.scalar(COUNT) == 0
    assert mariadb.replicas[0].query("SHOW GLOBAL STATUS LIKE 'Com_insert'") == before


def test_with_the_primary_killed_reads_go_on_and_writes_fail_at_once(
    db: ReplicaSet, mariadb: MariaDbCluster, limit: Callable[[float], float]
) -> None:
    """Eventual reads and proven ones go on, after an attempt to write too; writes fail in milliseconds; it heals."""
    Session = db.sessionmaker()
    with db.scope() as scope:
        write(db, 1)
    token = scope.token
    wait_for(lambda: all(_sees(db, engine) for engine in db.replica_engines))
    with db.scope(token):  # until the replicas are proven to hold what this reader wrote
        wait_for(lambda: _asks(Session) in replica_ids(mariadb))
    mariadb.primary.kill()
    wait_for(lambda: states(db)[0] == "down")
    for _ in range(20):
        with db.scope(), Session() as session:
            assert session.scalar(COUNT) == 1
    with db.scope(token), Session() as session:
        assert session.get(Note, 1) is not None
    for _ in range(20):
        began = time.monotonic()
        with db.scope() as scope, pytest.raises(Unavailable):
            write(db, 2)
        assert time.monotonic() - began < limit(0.05)
        assert not scope.token
    time.sleep(2 * db.max_lag / 4)  # longer than a probe: the replicas are judged against each other, not against now
    assert states(db)[1:] == ["up", "up"]
    mariadb.primary.restart()
    wait_for(lambda: states(db)[0] == "up")
    with db.scope():
        write(db, 2)


def _sees(db: ReplicaSet, engine: sa.Engine) -> bool:
    with engine.connect() as connection:
        return connection.scalar(COUNT) == 1


def test_a_reader_ahead_of_every_replica_gets_no_stale_answer(db: ReplicaSet, mariadb: MariaDbCluster) -> None:
    """A write that no replica holds, then the primary dies: its writer is told so, not served stale data."""
    Session = db.sessionmaker()
    for node in mariadb.replicas:
        node.stop_replication()
    with db.scope() as scope:
        write(db, 1)
    mariadb.primary.kill()
    wait_for(lambda: states(db)[0] == "down")
    with db.scope(scope.token), Session() as session, pytest.raises(Unavailable, match="no replica holds"):
        session.get(Note, 1)
    with db.scope(), Session() as session:
        assert session.get(Note, 1) is None


def test_a_demoted_primary_is_noticed_and_its_connections_dropped(
    db: ReplicaSet, mariadb: MariaDbCluster, limit: Callable[[float], float]
) -> None:
    """The primary turns read-only: writes are Unavailable, nothing is written; writable again, they succeed at once."""
    with db.scope():
        write(db, 1)
    mariadb.primary.query("SET GLOBAL read_only = 1")
    for _ in range(3):
        with db.scope(), pytest.raises(Unavailable, match="read-only"):
            write(db, 2)
    assert states(db)[0] == "read_only"
    mariadb.primary.query("SET GLOBAL read_only = 0")
    assert wait_for(lambda: states(db)[0] == "up") < limit(2.0)
    with db.scope():
        write(db, 2)


def test_a_frozen_primary_bounds_a_write_by_its_deadline(
    db: ReplicaSet, mariadb: MariaDbCluster, limit: Callable[[float], float]
) -> None:
    """A frozen primary: a write fails within its deadline at first, and at once when the probes have noticed."""
    mariadb.primary.freeze()
    began = time.monotonic()
    with deadline(0.5), db.scope(), pytest.raises(ResilientError):
        write(db, 1)
    assert time.monotonic() - began < min(limit(0.8), 2.9)  # the statement's own limit is 3 s
    wait_for(lambda: states(db)[0] == "down")
    began = time.monotonic()
    with db.scope(), pytest.raises(Unavailable):
        write(db, 1)
    assert time.monotonic() - began < limit(0.05)


def test_a_commit_without_an_answer_is_an_unknown_outcome(
    mariadb: MariaDbCluster, db: ReplicaSet, tcp_proxy: Callable[[int], TcpProxy]
) -> None:
    """The answer to COMMIT is lost: the caller is told that it may have happened, and reads after it are not stale."""
    proxy = tcp_proxy(mariadb.primary.port)
    with ReplicaSet(proxy.through(mariadb.primary.url), [], probe_interval=None, timeout=0.5) as through:
        with through.scope() as scope:
            write(through, 1)
            known = scope.token
            proxy.swallow_answers(to=b"COMMIT")
            with pytest.raises(OutcomeUnknown):
                write(through, 2)
            assert scope.token != known
        proxy.restore()
    with db.scope(), db.primary():
        assert [note.id for note in db.sessionmaker()().scalars(sa.select(Note).order_by(Note.id))] == [1, 2]


def test_a_lost_statement_is_unavailable_and_leaves_nothing(
    mariadb: MariaDbCluster, db: ReplicaSet, tcp_proxy: Callable[[int], TcpProxy]
) -> None:
    """The connection breaks before COMMIT: Unavailable, nothing was written, and the next transaction succeeds."""
    proxy = tcp_proxy(mariadb.primary.port)
    with ReplicaSet(proxy.through(mariadb.primary.url), [], probe_interval=None, timeout=0.5) as through:
        with through.scope() as scope, through.sessionmaker()() as session:
            session.add(Note(id=1, text="x"))
            session.flush()
            proxy.reset()
            with pytest.raises(Unavailable):
                session.execute(sa.update(Note).values(text="y"))
            session.rollback()
            assert not scope.token, "what was certainly not committed sends no reader to the primary"
        with through.scope():
            write(through, 2)
    with db.scope(), db.primary(), db.sessionmaker()() as session:
        assert [note.id for note in session.scalars(sa.select(Note))] == [2]


def test_a_deadline_ends_a_statement_on_the_wire(
    mariadb: MariaDbCluster, db: ReplicaSet, tcp_proxy: Callable[[int], TcpProxy], limit: Callable[[float], float]
) -> None:
    """A silent connection is waited for until the deadline and no longer, at connecting and within a statement."""
    proxy = tcp_proxy(mariadb.primary.port)
    with ReplicaSet(proxy.through(mariadb.primary.url), [], probe_interval=None, connect_timeout=10.0) as through:
        with through.scope(), through.sessionmaker()() as session:
            assert session.scalar(SERVER_ID) == mariadb.primary.server_id
            proxy.stall()
            began = time.monotonic()
            with deadline(0.3), pytest.raises(DeadlineExceeded):
                session.scalar(sa.select(sa.func.count()).select_from(Note))
            assert 0.2 < time.monotonic() - began < limit(0.6)
        began = time.monotonic()
        with deadline(0.3), through.scope(), pytest.raises(DeadlineExceeded):
            write(through, 1)
        assert 0.2 < time.monotonic() - began < limit(0.6)


def test_a_forked_child_uses_connections_of_its_own(db: ReplicaSet, mariadb: MariaDbCluster) -> None:
    """Parent and child read at the same time after a fork, and neither gets the other's answer."""
    Session = db.sessionmaker()
    with db.scope():
        assert _asks(Session) in replica_ids(mariadb)
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with db.scope():
                numbers = [_echo(Session, number) for number in range(100)]
            status = 0 if numbers == list(range(100)) and len(db.status()) == 3 else 2
        finally:
            os.write(sending, b"x")
            os._exit(status)
    with db.scope():
        assert [_echo(Session, -number) for number in range(100)] == [-number for number in range(100)]
    os.read(receiving, 1)
    os.close(receiving)
    os.close(sending)
    assert os.waitpid(child, 0)[1] == 0


def _echo(Session: Callable, number: int) -> int:
    with Session() as session:
        return session.scalar(sa.select(sa.literal(number)))
