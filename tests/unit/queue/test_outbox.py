"""The outbox, on SQLite files and the fake queue."""

import threading
import time

import pytest
import sqlalchemy as sa
from botocore.exceptions import EndpointConnectionError
from sqlalchemy.orm import sessionmaker

from resilient import causality, events
from resilient.errors import ConfigurationError, InvalidInput, ResilientError
from resilient.queue import Consumer, Outbox, OutboxFailed, PartlySent, Queue, SqlStore, create_tables
from resilient.queue._outbox import table
from resilient.testing.clock import FakeClock
from resilient.testing.sqs import FakeSqs


class Killed(BaseException):
    """Stands for kill -9: nothing catches it."""


@pytest.fixture
def engine(tmp_path):
    engine = sa.create_engine(f"sqlite:///{tmp_path}/app.db")
    create_tables(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def Session(engine):
    return sessionmaker(engine)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def outbox(jobs, clock):
    return Outbox({"jobs": jobs}, clock=clock)


def fill(outbox, Session, count):
    with Session.begin() as session:
        for number in range(count):
            outbox.send(session, "jobs", {"n": number}, attributes={"kind": "note"})


def bodies(jobs):
    found = []
    while batch := jobs.receive():
        found += [message.json()["n"] for message in batch]
    return found


def test_a_message_is_sent_if_its_transaction_commits(outbox, jobs, Session):
    """Committed: sent once, with its id and attributes. Rolled back: never."""
    with Session() as session:
        outbox.send(session, "jobs", {"n": 99})
        session.rollback()
    fill(outbox, Session, 1)
    assert jobs.attributes().depth == 0, "nothing is sent before the relay"
    assert outbox.relay(Session) == 1
    assert outbox.relay(Session) == 0
    (message,) = jobs.receive()
    assert message.json() == {"n": 0}
    assert message.attributes == {"kind": "note"}


def test_25_messages_keep_their_order(outbox, jobs, Session, sqs):
    """Sent in the order they were written, ten in a call."""
    fill(outbox, Session, 25)
    assert outbox.relay(Session) == 25
    assert bodies(jobs) == list(range(25))
    assert sum(name == "SendMessageBatch" for name, _ in sqs.calls) == 3


@pytest.mark.parametrize("point", ["after claim", "after send", "before mark commits"])
def test_a_relay_killed_anywhere_loses_nothing(jobs, Session, clock, monkeypatch, point):
    """Another relay sends the rest once the claim has lapsed: at least once, each copy with the same id."""
    outbox = Outbox({"jobs": jobs}, clock=clock, lease=60)
    fill(outbox, Session, 3)

    def kill(*_, **__):
        raise Killed

    with monkeypatch.context() as patch:
        if point == "after claim":
            patch.setattr(jobs, "send_many", kill)
        elif point == "after send":
            patch.setattr(outbox, "_mark", kill)
        else:

            def halfway(session, me, sent, unsent):
                with session() as work:
                    work.execute(table.update().values(sent_at=1.0))
                raise Killed  # leaving the block has rolled back, as a dying connection does

            patch.setattr(outbox, "_mark", halfway)
        with pytest.raises(Killed):
            outbox.relay(Session)
    other = Outbox({"jobs": jobs}, clock=clock)
    assert other.relay(Session) == 0, "the claim of the dead relay still holds"
    clock.advance(61)
    assert other.relay(Session) == 3
    received = [message for _ in range(3) for message in jobs.receive()]
    assert sorted({message.json()["n"] for message in received}) == [0, 1, 2]
    assert len({message.key for message in received}) == 3, "copies carry the same id"
    assert len(received) == (3 if point == "after claim" else 6)


def test_copies_have_one_effect(outbox, jobs, Session, engine, clock, monkeypatch):
    """What is sent twice by a relay that died is handled once by a consumer with a record."""
    fill(outbox, Session, 2)
    with monkeypatch.context() as patch:
        patch.setattr(outbox, "_mark", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            outbox.relay(Session)
    clock.advance(61)
    outbox.relay(Session)
    seen = []
    report = Consumer(jobs, seen.append, idempotency=SqlStore(Session), wait=0).run(until_empty=True)
    assert sorted(each["n"] for each in seen) == [0, 1]
    assert (report.handled, report.repeated) == (2, 2)


def test_two_relays_share_the_work(jobs, Session, clock):
    """Rows that one has claimed the other leaves alone: nothing is sent twice."""
    outboxes = [Outbox({"jobs": jobs}, clock=clock) for _ in range(4)]
    fill(outboxes[0], Session, 40)
    gate, sent = threading.Barrier(4), []

    def relay(outbox):
        gate.wait()
        while got := outbox.relay(Session, limit=7):
            sent.append(got)

    threads = [threading.Thread(target=relay, args=(each,)) for each in outboxes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    while got := outboxes[0].relay(Session):
        sent.append(got)
    assert sum(sent) == 40
    assert jobs.attributes().depth == 40


def test_a_queue_that_is_away_keeps_the_messages(outbox, jobs, Session, sqs):
    """The error is raised, nothing is marked, and the next relay sends them at once."""
    fill(outbox, Session, 2)

    def away(operation, arguments):
        raise EndpointConnectionError(endpoint_url="http://nowhere")

    sqs.fault = away
    with pytest.raises(ResilientError):
        outbox.relay(Session)
    sqs.fault = None
    assert outbox.relay(Session) == 2


def test_what_was_partly_sent_is_finished(outbox, jobs, Session, sqs):
    """Only the rows that failed are sent again."""
    fill(outbox, Session, 3)
    sqs.entry_fault = lambda _, entry: "InternalError" if entry["Id"] == "1" else None
    with pytest.raises(PartlySent):
        outbox.relay(Session)
    sqs.entry_fault = None
    assert outbox.relay(Session) == 1
    assert sorted(bodies(jobs)) == [0, 1, 2]


def test_wrong_messages_are_refused_where_they_are_written(outbox, Session, jobs):
    """An unknown queue, a message that is too large, attributes that are no text: the caller is told."""
    with Session() as session:
        for wrong in (
            lambda: outbox.send(session, "nowhere", 1),
            lambda: outbox.send(session, "jobs", "x" * 1_048_577),
            lambda: outbox.send(session, "jobs", 1, attributes={"a": b"1"}),
            lambda: outbox.send(session, "jobs", 1, delay=901),
            lambda: outbox.send(session, "jobs", 1, id="x" * 101),
            lambda: outbox.send(session, "jobs", 1, id="a\0b"),
            lambda: outbox.send(session, "jobs", 1, id="\ud800"),
        ):
            with pytest.raises(InvalidInput):
                wrong()
        assert session.scalar(sa.select(sa.func.count()).select_from(table)) == 0
    with pytest.raises(ConfigurationError):
        Outbox({})


def test_rows_of_a_queue_that_is_gone_hold_up_no_others(jobs, Session, clock):
    """They are kept and told; the other queues' messages are sent."""
    both = Outbox({"jobs": jobs, "old": jobs}, clock=clock)
    with Session.begin() as session:
        both.send(session, "old", {"n": 1})
        both.send(session, "jobs", {"n": 2})
    with pytest.raises(ConfigurationError):
        Outbox({"jobs": jobs}, clock=clock).relay(Session)
    assert bodies(jobs) == [2]
    assert both.relay(Session) == 1


@pytest.mark.parametrize("how", ["gone", "away"])
def test_a_full_relay_of_one_queue_leaves_room_for_the_others(make_queue, Session, clock, sqs, how):
    """More rows than a relay takes wait for a queue that takes none: what was written after them is sent."""
    jobs, old = make_queue("jobs"), make_queue("old")
    both = Outbox({"old": old, "jobs": jobs}, clock=clock)
    with Session.begin() as session:
        for number in range(5):
            both.send(session, "old", {"n": number})
        both.send(session, "jobs", {"n": 9})
    if how == "away":
        sqs.fault = lambda _, arguments: _away() if arguments["QueueUrl"] == old.url else None
    relay = both if how == "away" else Outbox({"jobs": jobs}, clock=clock)
    with pytest.raises(ResilientError):
        relay.relay(Session, limit=3)
    sqs.fault = None
    assert bodies(jobs) == [9]
    while both.relay(Session):
        pass
    assert bodies(old) == [0, 1, 2, 3, 4]


def _away():
    raise EndpointConnectionError(endpoint_url="http://nowhere")


def test_a_token_as_long_as_can_be_does_not_spoil_those_of_others(outbox, jobs, Session):
    """A token may come from a forged cookie: its names are sent with its own message, and with no other."""
    for letter in "abc":
        forged = causality.Token({letter * 50 + str(n): causality.Instant(1.0) for n in range(25)})
        with causality.scope(forged), Session.begin() as session:
            outbox.send(session, "jobs", letter)
    with causality.scope() as scope, Session.begin() as session:
        scope.observe("app", causality.Instant(100.0))
        outbox.send(session, "jobs", "honest")
    assert outbox.relay(Session) == 4
    tokens = {message.body: causality.Token.parse(message.token) for message in jobs.receive()}
    assert tokens["honest"].get("app") == causality.Instant(100.0)


def test_a_message_carries_what_its_producer_and_the_relay_have_seen(outbox, jobs, Session, monkeypatch):
    """The producer's token, and the position of the relay's own commit, which covers the producer's."""
    with causality.scope() as scope, Session.begin() as session:
        scope.observe("app", causality.Instant(100.0))
        outbox.send(session, "jobs", {"n": 1})
    claim = outbox._claim

    def observed(*arguments):
        rows = claim(*arguments)
        causality.current().observe("app", causality.Instant(200.0))  # as a replica set does after a commit
        causality.current().observe("other", causality.Instant(300.0))
        return rows

    monkeypatch.setattr(outbox, "_claim", observed)
    outbox.relay(Session)
    (message,) = jobs.receive()
    assert message.token == "1!app:t200.000000!other:t300.000000"


def test_a_running_relay_is_woken_by_a_commit(jobs, Session):
    """Though it looks only every 30 s by itself, a commit in its process is sent at once; stop ends it."""
    outbox = Outbox({"jobs": jobs})
    outbox.start(Session, interval=30)
    for _ in range(3):
        fill(outbox, Session, 1)
        assert len(jobs.receive(wait=10)) == 1
    outbox.stop()
    assert outbox._threads == []


def test_a_running_relay_survives_failures(jobs, Session, sqs):
    """It tells each, waits longer each time, and goes on when the queue is back."""
    failing, sink = [2], events.MemorySink()

    def away(operation, arguments):
        if operation == "SendMessageBatch" and failing[0]:
            failing[0] -= 1
            raise EndpointConnectionError(endpoint_url="http://nowhere")

    sqs.fault = away
    unsubscribe = events.subscribe(sink)
    outbox = Outbox({"jobs": jobs})
    fill(outbox, Session, 1)
    outbox.start(Session, interval=0.01)
    begun = time.monotonic()
    assert len(jobs.receive(wait=10)) == 1
    outbox.stop()
    unsubscribe()
    assert [each.pause for each in sink.of(OutboxFailed)] == [0.02, 0.04]
    assert time.monotonic() - begun < 5


def test_sent_rows_are_purged(jobs, Session, clock):
    """Those sent longer ago than `keep` go, in batches; what waits stays."""
    outbox = Outbox({"jobs": jobs}, clock=clock, keep=100)
    fill(outbox, Session, 5)
    outbox.relay(Session)
    fill(outbox, Session, 1)
    clock.advance(101)
    assert outbox.purge(Session, batch=2) == 5
    assert outbox.relay(Session) == 1


def test_an_outbox_takes_its_queues_by_name():
    """A list, and addresses instead of queues, are refused with what to write."""
    for wrong in (["jobs"], {"jobs": "http://127.0.0.1:5000/1/jobs"}):
        with pytest.raises(ConfigurationError, match="by their names"):
            Outbox(queues=wrong)


def test_a_missing_table_says_how_it_is_made():
    """By send, relay and purge; what is missing of the application's own goes through as it is."""
    engine = sa.create_engine("sqlite://")
    bare = sessionmaker(engine)
    sqs = FakeSqs()
    outbox = Outbox({"jobs": Queue(sqs.create_queue(QueueName="jobs")["QueueUrl"], client=sqs)})
    with bare() as session, pytest.raises(ConfigurationError, match=r"create_tables\(engine\)") as failure:
        outbox.send(session, "jobs", {"image": 1})
    assert isinstance(failure.value.__cause__, sa.exc.OperationalError)
    for use in (outbox.relay, outbox.purge):
        with pytest.raises(ConfigurationError, match="no table resilient_outbox"):
            use(bare)
    engine.dispose()
