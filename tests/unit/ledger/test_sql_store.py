"""The record in the effect's own transaction, on SQLite files."""

import threading

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from resilient.errors import ConfigurationError, InvalidInput, Refused, Unavailable
from resilient.ledger import Done, Mismatch, New, SqlStore, create_tables
from resilient.ledger._sql import table

effects = sa.Table("effects", sa.MetaData(), sa.Column("key", sa.String(50)))


def make_engine(path, timeout=5.0):
    engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": timeout})
    create_tables(engine)
    effects.metadata.create_all(engine)
    return engine


@pytest.fixture
def engine(tmp_path):
    engine = make_engine(tmp_path / "app.db")
    yield engine
    engine.dispose()


@pytest.fixture
def store(engine):
    return SqlStore(sessionmaker(engine))


def count(engine, what=effects):
    with engine.connect() as connection:
        return connection.scalar(sa.select(sa.func.count()).select_from(what))


def work(claim, key="k"):
    claim.session.execute(effects.insert().values(key=key))


def test_record_and_effect_are_committed_together(store, engine):
    """Both are there after `complete`, and the result is kept."""
    claim = store.claim("k", owner="a", lease=30).claim
    work(claim)
    assert store.extend(claim, 30)
    assert store.complete(claim, b"42")
    assert (count(engine), count(engine, table)) == (1, 1)
    assert store.claim("k", owner="b", lease=30) == Done(b"42")
    assert store.claim("k", owner="b", lease=30, payload_hash="other") == Mismatch()


def test_release_takes_both_back(store, engine):
    """Neither is there after `release`, and the work can be claimed again."""
    claim = store.claim("k", owner="a", lease=30).claim
    work(claim)
    store.release(claim)
    assert (count(engine), count(engine, table)) == (0, 0)
    again = store.claim("k", owner="b", lease=30)
    assert isinstance(again, New)
    store.release(again.claim)


def test_a_connection_that_dies_takes_both_back(store, engine):
    """As after kill -9: what was not committed is gone, record and effect alike."""
    claim = store.claim("k", owner="a", lease=30).claim
    work(claim)
    claim.session.connection().connection.invalidate()
    claim.stack.close()
    assert (count(engine), count(engine, table)) == (0, 0)


def test_a_concurrent_twin_is_held_off(tmp_path, store, engine):
    """While the first works, a second gets nothing (SQLite cannot tell why it waits); afterwards that it is done."""
    other = make_engine(tmp_path / "app.db", timeout=0.05)
    twin = SqlStore(sessionmaker(other))
    claim = store.claim("k", owner="a", lease=30).claim
    with pytest.raises(Unavailable):
        twin.claim("k", owner="b", lease=30)
    assert store.complete(claim)
    assert twin.claim("k", owner="b", lease=30) == Done(None)
    other.dispose()


def test_of_many_at_once_one_has_the_effect(store, engine):
    """Eight threads with one key: one effect, and everyone else learns that it is done."""
    gate, outcomes = threading.Barrier(8), []

    def run():
        gate.wait()
        outcome = store.claim("k", owner="x", lease=30)
        if isinstance(outcome, New):
            work(outcome.claim)
            store.complete(outcome.claim)
        outcomes.append(type(outcome))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count(engine) == 1
    assert outcomes.count(New) == 1
    assert outcomes.count(Done) == 7


def test_the_handler_cannot_commit(store, engine):
    """A commit in the handler would mark half the work as done: it is refused, a savepoint is not."""
    claim = store.claim("k", owner="a", lease=30).claim
    with claim.session.begin_nested():
        work(claim)
    with pytest.raises(Refused):
        claim.session.commit()
    store.release(claim)
    assert (count(engine), count(engine, table)) == (0, 0)


def test_a_handler_that_rolled_back_is_not_recorded(store, engine):
    """A rollback in the handler took the record with it: what came after must not be committed without."""
    claim = store.claim("k", owner="a", lease=30).claim
    claim.session.rollback()
    work(claim)
    with pytest.raises(Refused):
        store.complete(claim)
    assert (count(engine), count(engine, table)) == (0, 0)


def test_keys_are_compared_byte_by_byte_and_may_be_long(store, engine):
    """`a` is not `A`, and a key of 1,000 characters is one as good as another."""
    for key in ("a", "A", "ä", "x" * 1000, "x" * 1001):
        outcome = store.claim(key, owner="a", lease=30)
        assert isinstance(outcome, New), key
        store.complete(outcome.claim)
    assert count(engine, table) == 5


def test_a_result_that_is_too_long_is_refused_and_nothing_committed(store, engine):
    """The record has room for 60,000 bytes."""
    claim = store.claim("k", owner="a", lease=30).claim
    with pytest.raises(InvalidInput):
        store.complete(claim, b"x" * 60_001)
    assert count(engine, table) == 0


def test_the_record_stands_on_the_shard_of_the_effect(tmp_path):
    """With route= the payload chooses the database, also where the session comes from a context manager."""
    engines = {name: make_engine(tmp_path / f"{name}.db") for name in "ab"}
    store = SqlStore(route=lambda payload: Session(engines[payload["shard"]]))
    claim = store.claim("k", owner="x", lease=30, about={"shard": "b"}).claim
    work(claim)
    store.complete(claim)
    assert (count(engines["a"], table), count(engines["b"], table)) == (0, 1)
    with pytest.raises(InvalidInput):
        store.purge()
    with pytest.raises(InvalidInput):
        SqlStore()
    with pytest.raises(InvalidInput, match="sessionmaker"):
        SqlStore(engines["a"])
    for engine in engines.values():
        engine.dispose()


def test_a_database_that_is_away_is_unavailable(tmp_path):
    """Without its ledger nothing is processed, and the error says that nothing was."""
    engine = sa.create_engine(f"sqlite:///{tmp_path}/missing/app.db")
    with pytest.raises(Unavailable):
        SqlStore(sessionmaker(engine)).claim("k", owner="x", lease=30)
    engine.dispose()


def test_old_records_are_purged_in_batches(engine):
    """Those older than asked for go, the others stay."""
    from resilient.testing.clock import FakeClock

    clock = FakeClock()
    store = SqlStore(sessionmaker(engine), clock=clock)
    for number in range(5):
        store.complete(store.claim(f"old-{number}", owner="x", lease=30).claim)
    clock.advance(100)
    store.complete(store.claim("new", owner="x", lease=30).claim)
    assert store.purge(older_than=50, batch=2) == 5
    assert store.claim("new", owner="x", lease=30) == Done(None)


def test_a_purge_by_no_records_at_a_time_is_refused(engine):
    """It would never end."""
    with pytest.raises(InvalidInput, match="batch"):
        SqlStore(sessionmaker(engine)).purge(batch=0)


def test_a_missing_table_says_how_it_is_made():
    """The database's own error stays as the cause."""
    engine = sa.create_engine("sqlite://")
    store = SqlStore(sessionmaker(engine))
    for use in (lambda: store.claim("k", owner="me", lease=30), store.purge):
        with pytest.raises(
            ConfigurationError, match=r"no table resilient_ledger; .*create_tables\(engine\)"
        ) as failure:
            use()
        assert isinstance(failure.value.__cause__, sa.exc.OperationalError)
    engine.dispose()
