"""What holds for every replica set: the fake, SQLite files, and (see tests/servers) a MariaDB cluster."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import sqlalchemy as sa

from resilient import events
from resilient.errors import Refused, Unavailable
from resilient.policy import deadline
from resilient.storage.replicas import NodeChanged, ReadMoved, ReadRouted


def test_a_transaction_stays_on_the_server_of_its_first_read(bench: Any) -> None:
    """A transaction asks for a server once, whatever number of reads it makes."""
    seen: list[Any] = []
    end = events.subscribe(seen.append, kinds=(ReadRouted,))
    with bench.db.scope(), bench.db.sessionmaker()() as session:
        for _ in range(5):
            session.scalars(sa.select(bench.Note)).all()
    end()
    assert [event.reason for event in seen] == ["replica"]


def test_reads_are_spread(bench: Any) -> None:
    """Idle replicas take turns."""
    with bench.db.scope():
        assert {bench.db.router.pick().name for _ in range(10)} == {"replica-1", "replica-2"}


def test_a_write_moves_its_transaction_to_the_primary(bench: Any) -> None:
    """After a write the same transaction sees it, flushed or not, and goes on on the primary."""
    with bench.db.scope(), bench.db.sessionmaker()() as session:
        assert session.scalars(sa.select(bench.Note)).all() == []
        session.add(bench.Note(id=1, text="x"))
        assert len(session.scalars(sa.select(bench.Note)).all()) == 1
        assert session.get_bind() is bench.db.engine


def test_the_writer_sees_its_write_and_a_stranger_may_not(bench: Any) -> None:
    """With replication stopped: the writer's token leads to the primary; without it, a replica answers."""
    for number in (0, 1):
        bench.stop_replication(number)
    with bench.db.scope() as scope:
        bench.write(1)
        assert bench.count() == 1
    with bench.db.scope(str(scope.token)):
        assert bench.count() == 1
    with bench.db.scope():
        assert bench.count() == 0
        with bench.db.primary():
            assert bench.count() == 1
        with bench.db.consistency("strong"):
            assert bench.count() == 1
        assert bench.count() == 0
    with bench.db.scope(scope.token), bench.db.consistency("eventual"):
        assert bench.count() == 0
    for number in (0, 1):
        bench.start_replication(number)
    bench.proven(scope.token)
    with bench.db.scope(scope.token):
        assert bench.count() == 1


def test_a_caught_up_replica_serves_while_the_other_is_stopped(bench: Any) -> None:
    """A reader with a token is sent to the replica that is proven to hold what it has seen, and never to the other."""
    bench.stop_replication(0)
    with bench.db.scope() as scope:
        bench.write(1)
    bench.proven(scope.token)
    with bench.db.scope(scope.token):
        for _ in range(10):
            assert bench.db.router.pick().name == "replica-2"
            assert bench.count() == 1


def test_the_token_crosses_into_threads(bench: Any) -> None:
    """A write on a worker thread of a request is seen by the request: the scope is an object, not a value."""
    for number in (0, 1):
        bench.stop_replication(number)
    import contextvars

    with bench.db.scope() as scope:
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(bench.write, 1))
        thread.start()
        thread.join()
        assert scope.token
        assert bench.count() == 1


def test_a_rolled_back_write_is_nowhere(bench: Any) -> None:
    """A rollback leaves nothing behind, and the session is as new."""
    with bench.db.scope(), bench.db.sessionmaker()() as session:
        session.add(bench.Note(id=1, text="x"))
        session.flush()
        session.rollback()
        assert session.scalars(sa.select(bench.Note)).all() == []
        assert bench.count() == 0


def test_dead_replicas_cost_no_error(bench: Any) -> None:
    """One replica dead, then both: every read is answered; the dead are told by an event; back, they serve again."""
    seen: list[Any] = []
    end = events.subscribe(seen.append, kinds=(NodeChanged,))
    with bench.db.scope():
        bench.kill(0)
        for _ in range(10):
            assert bench.count() == 0
        bench.down(1)
        bench.kill(1)
        for _ in range(10):
            assert bench.count() == 0
        bench.down(1, 2)
        assert bench.db.router.pick().name == "primary"
        bench.restart(0)
        bench.restart(1)
        bench.all_up()
        assert {bench.db.router.pick().name for _ in range(10)} == {"replica-1", "replica-2"}
    end()
    assert {(event.node, event.after) for event in seen} >= {("replica-1", "down"), ("replica-1", "up")}


def test_a_dead_primary_leaves_reads(bench: Any) -> None:
    """Reads go on; a write is Unavailable at once; what no replica holds is Unavailable to its writer only."""
    with bench.db.scope() as known:
        bench.write(1)
    bench.proven(known.token)
    bench.kill_primary()
    bench.down(0)
    with bench.db.scope(known.token):
        assert bench.count() == 1
    with bench.db.scope(), pytest.raises(Unavailable, match="nothing was sent"):
        bench.write(2)
    with bench.db.scope(), bench.db.primary(), pytest.raises(Unavailable, match="a strong read needs it"):
        bench.count()
    ahead = str(known.token).replace("app:t1", "app:t9")  # a moment no replica holds
    with bench.db.scope(ahead), pytest.raises(Unavailable, match="no replica holds what this reader has seen"):
        bench.count()
    bench.restart_primary()
    bench.all_up()
    with bench.db.scope():
        bench.write(2)


def test_a_write_by_hand_through_a_replica_is_refused(bench: Any) -> None:
    """Writes, locks and DDL on a replica's engine are our own error, and change nothing."""
    with bench.db.replica_engines[0].connect() as connection:
        for statement in (
            sa.insert(bench.Note).values(id=1, text="x"),
            sa.update(bench.Note).values(text="y"),
            sa.delete(bench.Note),
            sa.text("INSERT INTO notes VALUES (1, 'x')"),
            sa.text("/* quick */ delete from notes"),
            sa.text("SELECT 1 FOR UPDATE"),
            sa.text("DROP TABLE notes"),
        ):
            with pytest.raises(Refused, match="replica-1 of 'app' is a replica"):
                connection.execute(statement)
        assert connection.scalar(sa.select(sa.func.count()).select_from(bench.Note)) == 0
        assert connection.scalar(sa.text("SELECT COUNT(*) FROM notes")) == 0


def test_a_first_read_that_fails_keeps_what_the_session_holds(bench: Any) -> None:
    """The read is made again on another server inside the same transaction: pending objects and the block survive."""
    seen: list[Any] = []
    end = events.subscribe(seen.append, kinds=(ReadMoved,))
    with bench.db.scope():  # nothing is known of a write: replicas may serve
        node = bench.db.router.pick()
        other = bench.db.router.pick(given_up=(node,))

    def break_once(*_: object) -> None:
        sa.event.remove(node.engine, "before_cursor_execute", break_once)
        raise Unavailable("the connection broke")

    assert other is not node
    sa.event.listen(node.engine, "before_cursor_execute", break_once)
    with bench.db.scope(), bench.db.sessionmaker()() as session, session.begin():
        with session.no_autoflush:
            session.add(bench.Note(id=1, text="x"))
            for _ in range(2):
                if not seen:
                    assert session.scalars(sa.select(bench.Note)).all() == []
                    session._forget()  # another first read: whichever replica's turn it is, one of two is the broken
        assert len(session.new) == 1
    end()
    assert [event.node for event in seen] == [node.name]
    with bench.db.scope(), bench.db.primary():
        assert bench.count() == 1


def test_a_deadline_that_has_passed_sends_nothing(bench: Any) -> None:
    """With no time left, neither a read nor a write is sent."""
    with bench.db.scope(), pytest.raises(TimeoutError), deadline(0):
        bench.count()
    with bench.db.scope(), pytest.raises(TimeoutError), deadline(0):
        bench.write(1)
    with bench.db.scope(), bench.db.primary():
        assert bench.count() == 0
