"""The decorator."""

import threading

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from resilient.errors import ConfigurationError, Conflict, InvalidInput, OutcomeUnknown
from resilient.queue import MemoryStore, SqlStore, create_tables, idempotent
from resilient.testing.clock import FakeClock

posts = sa.Table(
    "posts", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("title", sa.String(50))
)


@pytest.fixture
def engine(tmp_path):
    engine = sa.create_engine(f"sqlite:///{tmp_path}/app.db")
    create_tables(engine)
    posts.metadata.create_all(engine)
    yield engine
    engine.dispose()


def test_three_equal_requests_at_once_make_one_row_and_three_successes(engine):
    """The same post, with the client's id, three times in parallel: one row, one answer for all."""

    def create(request: str, title: str, session: Session) -> dict:
        return {"id": session.execute(posts.insert().values(title=title)).inserted_primary_key[0]}

    once = idempotent(SqlStore(sessionmaker(engine)), key=lambda request, title: request)(create)
    gate, answers = threading.Barrier(3), []

    def ask():
        gate.wait()
        answers.append(once("uuid-1", "hello"))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [{"id": 1}] * 3
    with pytest.raises(Conflict, match="other arguments"):
        once("uuid-1", "another title")
    assert once("uuid-2", "hello") == {"id": 2}


def test_a_call_that_fails_leaves_nothing_and_may_be_repeated(engine):
    """Its effect is rolled back together with its record."""
    fails = [True]

    @idempotent(SqlStore(sessionmaker(engine)), key=lambda n: n)
    def create(n: int, session: Session) -> int:
        session.execute(posts.insert().values(id=n))
        if fails.pop() if fails else False:
            raise RuntimeError
        return n

    with pytest.raises(RuntimeError):
        create(1)
    assert create(1) == 1
    assert create(1) == 1


def test_a_call_in_progress_is_a_conflict_and_an_overtaken_one_unknown():
    """The second is told when to come back; a first that took longer than its lease is told that it lost it."""
    clock, inside, other = FakeClock(), [], []
    store = MemoryStore(clock=clock)

    @idempotent(store, key=lambda: "k", name="job", lease=60)
    def job() -> str:
        if not inside:
            inside.append(1)
            with pytest.raises(Conflict) as caught:
                job()
            assert caught.value.retry_after == 60
            clock.advance(61)
            other.append(job())
        return "done"

    with pytest.raises(OutcomeUnknown):
        job()
    assert other == ["done"]
    assert job() == "done"


def test_what_cannot_be_kept_or_compared_is_refused():
    """Arguments and result must be writable as JSON, and the function plain."""
    once = idempotent(MemoryStore(), key=lambda *_: "k")
    with pytest.raises(InvalidInput):
        once(lambda thing: 1)(object())
    with pytest.raises(InvalidInput):
        once(object)()

    async def later(): ...

    with pytest.raises(ConfigurationError):
        once(later)
