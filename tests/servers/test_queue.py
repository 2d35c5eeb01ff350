"""The queue room on moto's SQS, with workers that are killed and SQL that is real."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from resilient import events
from resilient.ledger import InProgress, New
from resilient.queue import Consumer, HeartbeatLost, Outbox, Queue, SqlStore, create_tables
from resilient.runtime import start_thread

WORKER = Path(__file__).with_name("test_queue_worker.py")
effects = sa.Table("effects", sa.MetaData(), sa.Column("n", sa.Integer), mysql_engine="InnoDB")


PATIENCE = 120.0  # seconds that a machine with better things to do may take
pytestmark = pytest.mark.timeout(300)


def until(condition, seconds=PATIENCE, seen=lambda: "nothing"):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"it did not come to pass; to be seen is {seen()}"
        time.sleep(0.05)
    return found


@pytest.fixture
def jobs(moto_server, monkeypatch):
    for name, value in moto_server.env.items():
        monkeypatch.setenv(name, value)
    queue = Queue(moto_server.client("sqs").create_queue(QueueName="jobs")["QueueUrl"])
    yield queue
    queue.client.close()


def prepared(url):
    engine = sa.create_engine(url)
    create_tables(engine)
    effects.metadata.drop_all(engine)
    effects.metadata.create_all(engine)
    return engine


@pytest.fixture
def engine(tmp_path):
    engine = prepared(f"sqlite:///{tmp_path}/app.db")
    yield engine
    engine.dispose()


def rows(engine):
    with engine.connect() as connection:
        return sorted(connection.scalars(sa.select(effects.c.n)))


def insert(n: int, session: Session) -> None:
    session.execute(effects.insert().values(n=n))


@pytest.fixture
def worker(jobs, engine, tmp_path):
    """Starts a worker process in a mode; it ends with the test at the latest."""
    started = []

    def start(mode):
        mark = tmp_path / f"mark-{len(started)}"
        arguments = [sys.executable, str(WORKER), mode, jobs.url, str(engine.url), str(mark)]
        process = subprocess.Popen(arguments, env=dict(os.environ))
        started.append(process)
        process.mark, process.up = mark, tmp_path / f"{mark.name}-up"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def empty(queue):
    attributes = queue.attributes()
    return attributes.depth + attributes.in_flight + attributes.delayed == 0


def test_a_worker_killed_in_the_middle_leaves_one_effect(jobs, engine, worker):
    """kill -9 after the effect was written and before its commit: the next delivery does it, once."""
    jobs.send(1)
    first = worker("hang")
    until(first.mark.exists)
    first.kill()
    first.wait()
    assert rows(engine) == []
    consumer = Consumer(jobs, insert, idempotency=SqlStore(sessionmaker(engine)), wait=0)
    until(lambda: consumer.run(until_empty=True).handled)
    assert rows(engine) == [1]
    assert empty(jobs)


def handling(process, jobs):
    """Wait until a worker has a message in its handler, or there is none left.

    A process that starts slowly says nothing about the queue. One that is up and gets nothing does: what a dead worker
    had in hand is to come to others two seconds later, whoever else is slow.
    """
    until(lambda: process.up.exists() or process.poll() is not None, PATIENCE, lambda: "a worker that does not start")
    until(
        lambda: process.mark.exists() or process.poll() is not None or empty(jobs),
        PATIENCE / 2,
        lambda: f"a worker that is up and gets nothing of {jobs.attributes()}",
    )
    assert process.poll() is None, "no worker ends by itself"


@pytest.mark.timeout(1800)
def test_workers_killed_at_random_leave_one_effect_each(jobs, engine, worker, repeat, seed):
    """kill -9 at random moments, 150 times in all: each message has its effect once, and the queue ends empty."""
    random_moments = random.Random(seed)
    for number in range(repeat(50)):
        expected = range(number * 20, number * 20 + 20)
        jobs.send_many(expected)
        for _ in range(3):
            process = worker("steady")
            handling(process, jobs)
            time.sleep(random_moments.uniform(0, 0.2))
            process.kill()
            process.wait()
        consumer = Consumer(jobs, insert, idempotency=SqlStore(sessionmaker(engine)), wait=0)
        until(lambda consumer=consumer: consumer.run(until_empty=True) and empty(jobs), PATIENCE, jobs.attributes)
        assert rows(engine) == list(range(number * 20 + 20))


def test_a_worker_that_dies_between_effect_and_delete_leaves_one_effect(jobs, engine, worker):
    """The effect is committed, the delete was never sent: the next delivery only deletes."""
    jobs.send(1)
    assert worker("die-before-delete").wait(PATIENCE) == 9
    assert rows(engine) == [1]
    ran = []
    consumer = Consumer(jobs, ran.append, idempotency=SqlStore(sessionmaker(engine)), wait=0)
    until(lambda: consumer.run(until_empty=True).repeated)
    assert (ran, rows(engine)) == ([], [1])
    assert empty(jobs)


@pytest.mark.timeout(300)
def test_sigterm_drains_a_worker(jobs, engine, worker, tmp_path):
    """Ten in hand, two running: those two are handled, the rest is visible again before they end, exit is clean."""
    jobs.send_many(range(10))
    process = worker("held")

    def running():
        return len(list(tmp_path.glob(f"{process.mark.name}-runs-*")))

    until(lambda: jobs.attributes().in_flight == 10 and running() == 2, PATIENCE, jobs.attributes)
    process.send_signal(signal.SIGTERM)
    until(lambda: jobs.attributes().depth == 8, PATIENCE, jobs.attributes)
    assert (process.poll(), rows(engine), jobs.attributes().in_flight) == (None, [], 2), "the two still run"
    process.mark.touch()  # now they may end
    assert process.wait(PATIENCE) == 0  # and nothing else is waited for: the worker would wait 90 s for a handler
    assert running() == len(rows(engine)) == 2
    assert jobs.attributes().in_flight == 0
    assert Consumer(jobs, insert, idempotency=SqlStore(sessionmaker(engine)), wait=0).run(until_empty=True).handled == 8
    assert rows(engine) == list(range(10))


@pytest.mark.parametrize("mode", ["relay-die-after-claim", "relay-die-after-send"])
def test_a_relay_that_dies_loses_no_message(jobs, engine, worker, mode):
    """Killed after its claim or after its sending: another relay sends the rest, and there is one effect for each."""
    outbox = Outbox({"jobs": jobs})
    maker = sessionmaker(engine)
    with maker.begin() as session:
        for number in range(3):
            outbox.send(session, "jobs", number)
    assert worker(mode).wait(PATIENCE) == 9
    until(lambda: outbox.relay(maker))  # once the dead relay's claim of a second has lapsed
    consumer = Consumer(jobs, insert, idempotency=SqlStore(maker), wait=0)
    report = consumer.run(until_empty=True)
    assert rows(engine) == [0, 1, 2]
    assert report.repeated == (3 if mode == "relay-die-after-send" else 0)
    assert empty(jobs)


def test_a_message_delivered_twice_has_one_effect(jobs, engine):
    """The same message sent twice: one effect, both copies gone."""
    for _ in range(2):
        jobs.send(7, id="order-7")
    report = Consumer(jobs, insert, idempotency=SqlStore(sessionmaker(engine)), wait=0).run(until_empty=True)
    assert (report.handled, rows(engine)) == (1, [7])
    until(
        lambda: (
            Consumer(jobs, insert, idempotency=SqlStore(sessionmaker(engine)), wait=0).run(until_empty=True)
            and empty(jobs)
        )
    )
    assert rows(engine) == [7]


def test_a_handler_longer_than_its_visibility_runs_once(jobs, engine, moto_server):
    """3 s of work with a visibility of 1 s while a second consumer waits for it: one start, at least 3 extensions."""
    starts, lost = [], []
    unsubscribe = events.subscribe(lost.append, kinds=(HeartbeatLost,))
    extensions = []
    real = jobs.change_visibility_many
    jobs.change_visibility_many = lambda changes: (extensions.append(changes), real(changes))[1]

    def slow(n: int, session: Session) -> None:
        starts.append(n)
        insert(n, session)
        time.sleep(3)

    jobs.send(1)
    consumers = [
        Consumer(jobs, slow, idempotency=SqlStore(sessionmaker(engine)), visibility=1, wait=1, concurrency=1)
        for _ in range(2)
    ]
    threads = [start_thread(each.run, name="test") for each in consumers]
    until(lambda: rows(engine) == [1])
    until(lambda: empty(jobs))
    for each in consumers:
        each.stop()
    for thread in threads:
        thread.join(20)
    unsubscribe()
    assert (starts, lost) == ([1], [])
    assert len(extensions) >= 3


def test_a_dead_letter_queue_takes_what_is_rejected(jobs, moto_server):
    """A body that fits no handler is moved there at once, with its reason."""
    client = moto_server.client("sqs")
    dead = Queue(client.create_queue(QueueName="dead")["QueueUrl"])
    arn = client.get_queue_attributes(QueueUrl=dead.url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    policy = f'{{"deadLetterTargetArn":"{arn}","maxReceiveCount":"5"}}'
    client.set_queue_attributes(QueueUrl=jobs.url, Attributes={"RedrivePolicy": policy})
    jobs.send("no number")

    def handle(n: int) -> None: ...

    assert Consumer(jobs, handle, wait=0).run(until_empty=True).rejected == 1
    (message,) = dead.receive()
    assert message.attributes["reject-queue"] == "jobs"
    assert empty(jobs)
    dead.client.close()


def test_attributes_and_tokens_survive_the_wire(jobs):
    """Text and bytes, the id and the number of deliveries."""
    jobs.send({"ü": 1}, attributes={"kind": "note", "raw": b"\x00\xff"}, id="order-1")
    (message,) = jobs.receive(wait=1, visibility=0)
    assert message.json() == {"ü": 1}
    assert message.attributes == {"kind": "note", "raw": b"\x00\xff"}
    assert (message.key, message.receive_count) == ("order-1", 1)


def test_on_mariadb_a_twin_is_held_off_and_the_effect_is_one(jobs, mariadb):
    """A second connection with the same key waits a second on the row, then learns that it is in progress."""
    engine = prepared(mariadb.primary.url)
    store = SqlStore(sessionmaker(engine))
    first = store.claim("k", owner="a", lease=30)
    assert isinstance(first, New)
    insert(1, first.claim.session)
    begun = time.monotonic()
    assert store.claim("k", owner="b", lease=30) == InProgress()
    assert 0.5 < time.monotonic() - begun < 5
    assert store.complete(first.claim)
    with engine.connect() as connection:
        now, usual = connection.execute(
            sa.text("SELECT @@SESSION.innodb_lock_wait_timeout, @@GLOBAL.innodb_lock_wait_timeout")
        ).one()
        assert now == usual, "the wait was put back"
    for number in (5, 5, 6):
        jobs.send(number, id=f"order-{number}")
    report = Consumer(jobs, insert, idempotency=store, wait=0).run(until_empty=True)
    assert report.handled == 2
    assert rows(engine) == [1, 5, 6]
    engine.dispose()


def test_on_mariadb_the_outbox_relays(jobs, mariadb):
    """Claim, send and mark, in order, on the real database."""
    engine = prepared(mariadb.primary.url)
    maker, outbox = sessionmaker(engine), Outbox({"jobs": jobs})
    with maker.begin() as session:
        for number in range(12):
            outbox.send(session, "jobs", {"text": "ü" * 70_000, "n": number})
    assert outbox.relay(maker) == 12
    assert outbox.relay(maker) == 0
    numbers = [message.json()["n"] for _ in range(2) for message in jobs.receive()]
    assert sorted(numbers) == list(range(12))
    engine.dispose()
