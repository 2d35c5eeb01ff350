"""The consumer over the fake: threads and signs of life are real, only the server is not."""

import dataclasses
import logging
import os
import signal
import threading
import time

import pytest
import sqlalchemy as sa
from botocore.exceptions import EndpointConnectionError
from sqlalchemy.orm import Session, sessionmaker

from resilient import causality, events
from resilient.errors import ConfigurationError, Conflict, Unavailable
from resilient.ledger import New
from resilient.queue import (
    Backoff,
    Consumer,
    HandlerFailed,
    HeartbeatLost,
    MemoryStore,
    Message,
    MessageRejected,
    Queue,
    Redeliver,
    Reject,
    Release,
    Report,
    SqlStore,
    create_tables,
)
from resilient.testing.sqs import FakeSqs

AT_ONCE = Backoff(base=0, cap=0)
effects = sa.Table("effects", sa.MetaData(), sa.Column("n", sa.Integer))


@pytest.fixture
def engine(tmp_path):
    engine = sa.create_engine(f"sqlite:///{tmp_path}/app.db")
    create_tables(engine)
    effects.metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def heard():
    sink = events.MemorySink()
    unsubscribe = events.subscribe(sink)
    yield sink
    unsubscribe()


def effect(n: int, session: Session) -> int:
    session.execute(effects.insert().values(n=n))
    return n


def count(engine):
    with engine.connect() as connection:
        return connection.scalar(sa.select(sa.func.count()).select_from(effects))


def background(consumer):
    """Run it on a thread; returns a function that waits for its report."""
    reports = []
    thread = threading.Thread(target=lambda: reports.append(consumer.run()))
    thread.start()

    def join():
        thread.join(20)
        assert not thread.is_alive()
        return reports[0]

    return join


def until(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.005)


def named(sqs, operation):
    return [arguments for name, arguments in list(sqs.calls) if name == operation]


def test_everything_sent_is_handled_and_deleted(jobs, sqs):
    """100 messages on four threads: each handled once, deleted in batches, the queue empty."""
    jobs.send_many(range(100))
    seen = []
    report = Consumer(jobs, seen.append, idempotency=MemoryStore(), concurrency=4, wait=0).run(until_empty=True)
    assert sorted(seen) == list(range(100))
    assert report == Report(handled=100)
    assert jobs.attributes() == type(jobs.attributes())(0, 0, 0)
    assert len(named(sqs, "DeleteMessageBatch")) < 50


def test_a_delete_comes_after_the_effect(jobs, sqs, engine):
    """Never before: the books' own order loses a message that dies in between."""
    order = []
    sqs.fault = lambda operation, _: order.append((operation, count(engine))) if "Delete" in operation else None
    jobs.send(1)
    Consumer(jobs, effect, idempotency=SqlStore(sessionmaker(engine)), wait=0).run(until_empty=True)
    assert order == [("DeleteMessageBatch", 1)]


def test_a_message_delivered_twice_has_one_effect(jobs, sqs, engine):
    """Sent twice with one id, and delivered again after its visibility lapsed: one effect, all acknowledged."""
    for _ in range(2):
        jobs.send(7, id="order-7")
    store = SqlStore(sessionmaker(engine))
    sqs.entry_fault = lambda operation, _: "InternalError" if operation == "DeleteMessageBatch" else None
    first = Consumer(jobs, effect, idempotency=store, wait=0, visibility=1).run(until_empty=True)
    assert first.handled == 1
    sqs.entry_fault = None
    sqs.lapse(jobs.url)
    second = Consumer(jobs, effect, idempotency=store, wait=0).run(until_empty=True)
    assert second == Report(repeated=2)
    assert count(engine) == 1
    assert jobs.attributes().depth + jobs.attributes().in_flight == 0


def test_a_failed_handler_gets_the_message_again_and_leaves_no_effect(jobs, engine, heard, caplog):
    """What it had written is rolled back; the error is an event and a line in the log with its traceback."""
    attempts = []

    def flaky(n: int, session: Session) -> None:
        effect(n, session)
        attempts.append(n)
        if len(attempts) < 3:
            raise ValueError("boom")

    jobs.send(1)
    store = SqlStore(sessionmaker(engine))
    with caplog.at_level(logging.WARNING, "resilient.queue"):
        report = Consumer(jobs, flaky, idempotency=store, backoff=AT_ONCE, wait=0).run(until_empty=True)
    assert (report.failed, report.handled, len(attempts)) == (2, 1, 3)
    assert count(engine) == 1
    assert [each.receive_count for each in heard.of(HandlerFailed)] == [1, 2]
    assert heard.of(HandlerFailed)[0].error == "builtins.ValueError"
    assert "boom" in caplog.text
    assert "Traceback" in caplog.text


class Speechless(BaseException):
    """Cannot even say what it is."""

    def __str__(self):
        raise RuntimeError("no words")


def test_an_error_that_cannot_be_told_brings_its_message_again(jobs, sqs, heard):
    """The message is given back like that of any other failure, and keeps neither its place in hand nor the drain."""
    jobs.send({"n": 1})
    calls = []

    def handle(n: dict):
        calls.append(n)
        if len(calls) == 1:
            raise Speechless

    report = Consumer(jobs, handle, wait=0, backoff=AT_ONCE).run(until_empty=True)
    assert (report.failed, report.handled, report.abandoned) == (1, 1, 0)
    assert [each.detail for each in heard.events if isinstance(each, HandlerFailed)] == [""]


def test_a_handler_decides_when_its_message_comes_again(jobs, sqs):
    """Redeliver(after) puts it off, Release gives it back at once, and neither is deleted."""

    def handle(kind: str) -> None:
        raise Redeliver(after=60) if kind == "later" else Release

    consumer = Consumer(jobs, handle, wait=0)
    jobs.send("later")
    assert consumer.run(until_empty=True) == Report(failed=1)
    (change,) = named(sqs, "ChangeMessageVisibilityBatch")
    assert [each["VisibilityTimeout"] for each in change["Entries"]] == [60]
    assert jobs.attributes().in_flight == 1
    with pytest.raises(Release):
        consumer.handle_one("now")
    assert named(sqs, "DeleteMessageBatch") == []


def test_a_rejected_message_is_parked_with_its_reason(make_queue, heard):
    """It goes to the dead-letter queue at once; so does a body that does not fit the handler."""
    dead = make_queue("dead")
    policy = '{"deadLetterTargetArn":"arn:aws:sqs:eu-west-1:0:dead","maxReceiveCount":9}'
    jobs = make_queue("work", RedrivePolicy=policy)

    def handle(order: dict) -> None:
        raise Reject("unknown product")

    jobs.send({"n": 1}, attributes={"kind": "order"}, id="order-1")
    jobs.send("not json")
    assert Consumer(jobs, handle, wait=0).run(until_empty=True).rejected == 2
    assert jobs.attributes().depth + jobs.attributes().in_flight == 0
    parked = {message.body: message for message in dead.receive()}
    assert parked['{"n":1}'].attributes == {
        "kind": "order",
        "reject-reason": "unknown product",
        "reject-queue": "work",
    }
    assert parked['{"n":1}'].key == "order-1"
    assert "does not fit" in parked["not json"].attributes["reject-reason"]
    assert all(each.parked for each in heard.of(MessageRejected))


def test_without_a_dead_letter_queue_a_rejected_message_is_not_lost(jobs, heard):
    """It stays in the queue, put off, and the event says so."""

    def handle(order: dict) -> None:
        raise Reject("unknown product")

    jobs.send({"n": 1})
    report = Consumer(jobs, handle, wait=0, backoff=Backoff(base=60, cap=60)).run(until_empty=True)
    assert (report.rejected, report.failed) == (0, 1)
    assert jobs.attributes().in_flight == 1
    assert [each.parked for each in heard.of(MessageRejected)] == [False]


def test_a_long_handler_keeps_its_message(jobs, sqs):
    """3 s of work with a visibility of 1 s: started once, kept by signs of life, and others see nothing of it."""
    starts = []

    def slow(body: str) -> None:
        starts.append(body)
        end = time.monotonic() + 3
        while time.monotonic() < end:
            assert jobs.receive(10) == []
            time.sleep(0.05)

    jobs.send("x")
    assert Consumer(jobs, slow, visibility=1, wait=0).run(until_empty=True).handled == 1
    assert starts == ["x"]
    assert len(named(sqs, "ChangeMessageVisibilityBatch")) >= 3


def test_waiting_messages_are_kept_too_in_one_call(jobs, sqs):
    """Those in hand that have not started need signs of life as well: all go in one call."""
    jobs.send_many(range(4))
    seen = []

    def slow(n: int) -> None:
        seen.append(n)
        time.sleep(0.5)

    Consumer(jobs, slow, visibility=1, concurrency=1, prefetch=4, wait=0).run(until_empty=True)
    assert sorted(seen) == [0, 1, 2, 3], "each started once"
    assert max(len(each["Entries"]) for each in named(sqs, "ChangeMessageVisibilityBatch")) >= 3


def test_a_lost_message_is_told(jobs, sqs, heard):
    """When SQS says that another has it, the event tells, and no further signs of life are given."""
    lost = threading.Event()
    unsubscribe = events.subscribe(lambda _: lost.set(), kinds=(HeartbeatLost,))

    def handle(body: str) -> None:
        sqs.lapse(jobs.url)
        assert len(jobs.receive(10, visibility=600)) == 1, "another worker has received it"
        assert lost.wait(5)

    jobs.send("x")
    Consumer(jobs, handle, visibility=1, wait=0).run(until_empty=True)
    unsubscribe()
    assert [each.reason for each in heard.of(HeartbeatLost)] == ["ReceiptHandleIsInvalid"]


def test_no_more_is_in_hand_than_may_be(jobs):
    """Prefetch bounds what others cannot see: with 40 waiting and two running, four are in flight."""
    gate, running = threading.Event(), threading.Semaphore(0)

    def handle(n: int) -> None:
        running.release()
        gate.wait(10)

    jobs.send_many(range(40))
    consumer = Consumer(jobs, handle, concurrency=2, wait=1)
    join = background(consumer)
    for _ in range(2):
        running.acquire()
    until(lambda: jobs.attributes().in_flight == 4)
    assert jobs.attributes().in_flight == 4
    consumer.stop()
    gate.set()
    join()


def test_a_stop_lets_the_running_finish_and_gives_the_rest_back_at_once(jobs):
    """Ten in hand, two running: two are handled, eight are visible again before the two have ended."""
    gate, running = threading.Event(), threading.Semaphore(0)

    def handle(n: int) -> None:
        running.release()
        gate.wait(10)

    jobs.send_many(range(10))
    consumer = Consumer(jobs, handle, concurrency=2, prefetch=10, wait=1)
    join = background(consumer)
    for _ in range(2):
        running.acquire()
    until(lambda: jobs.attributes().in_flight == 10)
    assert consumer.running
    consumer.stop()
    assert not consumer.running
    until(lambda: jobs.attributes().depth == 8)
    assert jobs.attributes().in_flight == 2, "the running ones still run"
    gate.set()
    report = join()
    assert (report.handled, report.returned, report.abandoned) == (2, 8, 0)
    assert jobs.attributes().in_flight == 0


def test_what_an_open_poll_brings_after_the_stop_is_given_back(jobs):
    """A message that arrives while the consumer drains is handled by nobody and visible at once."""
    consumer = Consumer(jobs, lambda body: None, wait=5, poll_grace=5)
    join = background(consumer)
    until(lambda: consumer.running)
    time.sleep(0.05)  # the poll is open, whatever comes first
    consumer.stop()
    until(lambda: consumer._run is None or consumer._run._stopping)
    jobs.send("late")
    report = join()
    assert report.handled == 0
    until(lambda: jobs.attributes().depth == 1)


def test_a_second_signal_does_not_wait(jobs):
    """The first asks for the drain, the second ends it; what ran is given back."""
    gate, running = threading.Event(), threading.Event()

    def handle(body: str) -> None:
        running.set()
        gate.wait(20)

    jobs.send("x")
    consumer = Consumer(jobs, handle, wait=1)
    join = background(consumer)
    running.wait(5)
    consumer.stop()
    consumer.stop()
    report = join()
    gate.set()
    assert report.abandoned == 1
    until(lambda: jobs.attributes().depth == 1)  # the poll that was open may bring it once more, and gives it back


@pytest.mark.parametrize("thread", [threading.main_thread, threading.current_thread], ids=["main", "another"])
def test_sigterm_stops_a_run_on_the_main_thread(jobs, thread):
    """The signal drains it, whichever thread the system hands it to; the handlers of before are back afterwards."""
    before = signal.getsignal(signal.SIGTERM)
    started = threading.Event()

    def handle(body: str) -> None:
        started.set()
        time.sleep(0.2)

    def kill():
        if started.wait(30):
            signal.pthread_kill(thread().ident, signal.SIGTERM)

    jobs.send("x")
    killer = threading.Thread(target=kill)
    killer.start()
    report = Consumer(jobs, handle, wait=1).run()
    killer.join()
    assert report.handled == 1
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_idle_consumer_makes_one_request_a_poll_and_handles_at_once(jobs, sqs):
    """No busy polling; a message that arrives in an open poll is handled without a pause."""
    handled = threading.Event()
    consumer = Consumer(jobs, lambda body: handled.set(), wait=20)
    join = background(consumer)
    until(lambda: named(sqs, "ReceiveMessage"))
    time.sleep(0.3)
    assert len(named(sqs, "ReceiveMessage")) == 1
    sent = time.monotonic()
    jobs.send(1)
    assert handled.wait(5)
    assert time.monotonic() - sent < 1
    consumer.stop()
    jobs.send(2)  # ends the open poll
    join()


def test_a_queue_that_is_away_is_asked_again(jobs, sqs):
    """Failing receives end nothing: the pause grows, and work goes on when the queue is back."""
    failing = [4]

    def away(operation, arguments):
        if operation == "ReceiveMessage" and failing[0]:
            failing[0] -= 1
            raise EndpointConnectionError(endpoint_url="http://nowhere")

    sqs.fault = away
    jobs.send(1)
    assert Consumer(jobs, lambda n: None, wait=0).run(until_empty=True).handled == 1
    assert failing == [0]


def test_while_the_store_is_away_nothing_is_processed_and_nothing_wasted(jobs):
    """The message waits in hand; it is handled when the store is back, at its first delivery."""

    class Away(MemoryStore):
        failures = 3

        def claim(self, key, **options):
            if self.failures:
                self.failures -= 1
                raise Unavailable("the database is away")
            return super().claim(key, **options)

    counts = []

    def handle(note: Message) -> None:
        counts.append(note.receive_count)

    jobs.send(1)
    report = Consumer(jobs, handle, idempotency=Away(), wait=0).run(until_empty=True)
    assert (report, counts) == (Report(handled=1), [1])


def test_a_concurrent_twin_is_held_off_not_acknowledged(jobs):
    """While another worker has the same work in hand its copy stays in the queue, longer each time."""
    store = MemoryStore()
    held = store.claim("jobs:order-1", owner="another", lease=30, payload_hash=_digest("1"))
    assert isinstance(held, New)
    jobs.send(1, id="order-1")
    report = Consumer(jobs, lambda n: None, idempotency=store, wait=0).run(until_empty=True)
    assert report == Report(held_off=1)
    assert jobs.attributes().in_flight == 1
    store.complete(held.claim)


def _digest(body):
    import hashlib

    return hashlib.sha256(body.encode()).hexdigest()


def test_one_key_with_two_bodies_is_rejected(jobs, heard):
    """A key means one piece of work; another body under it is a mistake that a human must see."""
    consumer = Consumer(jobs, lambda n: n, idempotency=MemoryStore(), key=lambda m: "same")
    assert consumer.handle_one(1) == 1
    assert consumer.handle_one(1) == 1
    with pytest.raises(Reject):
        consumer.handle_one(2)


def test_the_handler_runs_in_its_producers_scope(jobs):
    """What the producer had written is in the handler's scope; a malformed token is none."""
    tokens = []
    consumer = Consumer(jobs, lambda n: tokens.append(str(causality.current().token)), wait=0)
    with causality.scope() as scope:
        scope.observe("app", causality.Instant(1_700_000_000.0))
        jobs.send(1)
        consumer.handle_one(2)
    consumer.run(until_empty=True)
    assert tokens == ["1!app:t1700000000.000000"] * 2


def test_handle_one_tells_what_the_handler_did(jobs, engine):
    """Its result, the kept result of the first time, its error."""
    consumer = Consumer(jobs, effect, idempotency=SqlStore(sessionmaker(engine)))
    assert consumer.handle_one(5, id="a") == 5
    assert consumer.handle_one(5, id="a") == 5
    assert count(engine) == 1
    with pytest.raises(ZeroDivisionError):
        Consumer(jobs, lambda n: 1 / n).handle_one(0)
    with pytest.raises(Reject):
        consumer.handle_one("no number")


def test_a_result_that_cannot_be_kept_does_not_fail_the_message(jobs):
    """Return is acknowledge, whatever is returned; only the fact is kept then."""
    store, thing = MemoryStore(), object()
    consumer = Consumer(jobs, lambda n: thing, idempotency=store)
    assert consumer.handle_one(1, id="a") is thing
    assert consumer.handle_one(1, id="a") is None


def endless():
    found = []
    found.append(found)
    return found


@dataclasses.dataclass
class Broken:
    n: int = 0

    def __getattribute__(self, name):
        raise RuntimeError(name)


@pytest.mark.parametrize("made", [endless, Broken])
def test_a_result_that_breaks_its_writer_does_not_fail_the_message(jobs, engine, made):
    """A list that holds itself, or an object whose attributes raise: the effect is committed and only the fact kept."""
    jobs.send({"n": 1})

    def handle(n: dict, session: Session):
        effect(1, session)
        return made()

    report = Consumer(jobs, handle, wait=0, idempotency=SqlStore(sessionmaker(engine))).run(until_empty=True)
    assert (report.handled, report.failed) == (1, 0)
    assert count(engine) == 1


def test_a_session_without_a_store_is_committed_after_the_handler(jobs, engine):
    """At least once: the effect is committed, then the message is deleted."""
    jobs.send(1)
    Consumer(jobs, effect, session=sessionmaker(engine), wait=0).run(until_empty=True)
    assert count(engine) == 1


def test_a_fifo_queue_is_handled_in_order(make_queue):
    """One at a time, in order; more at once is refused."""
    orders = make_queue("orders.fifo")
    for n in range(5):
        orders.send(n, group="a")
    seen = []
    Consumer(orders, seen.append, concurrency=1, wait=0).run(until_empty=True)
    assert seen == [0, 1, 2, 3, 4]
    with pytest.raises(ConfigurationError):
        Consumer(orders, seen.append)


def test_one_run_at_a_time(jobs):
    """A second run of the same consumer is refused; stopping one that does not run does nothing."""
    consumer = Consumer(jobs, lambda m: None, wait=1)
    consumer.stop()
    join = background(consumer)
    until(lambda: consumer.running)
    with pytest.raises(Conflict):
        consumer.run()
    consumer.stop()
    join()


@pytest.mark.parametrize(
    "options",
    [
        {"concurrency": 0},
        {"prefetch": 1},
        {"visibility": 0},
        {"visibility": 43_201},
        {"visibility": 1.5},
        {"wait": 21},
        {"stop_timeout": -1},
    ],
)
def test_options_that_make_no_sense_are_refused(jobs, options):
    """A mistake is told where it is written."""
    with pytest.raises(ConfigurationError):
        Consumer(jobs, lambda m: None, **options)


def test_a_handler_that_wants_a_session_needs_one(jobs):
    """Told when the consumer is made, not at the first message."""
    with pytest.raises(ConfigurationError):
        Consumer(jobs, effect)
    with pytest.raises(ConfigurationError):
        Consumer(jobs, effect, idempotency=MemoryStore())


def test_a_consumer_takes_a_queue_and_not_its_url():
    """The two are easily mistaken for each other."""
    with pytest.raises(ConfigurationError, match=r"Queue\(url\)"):
        Consumer("http://127.0.0.1:5000/123456789012/jobs", lambda m: None)


def test_the_backoff_grows_and_is_bounded():
    """Doubling from its base to its cap, between half and all of it."""
    backoff = Backoff(base=2, cap=60)
    assert [backoff.delay(n, draw=1.0) for n in (1, 2, 3, 10, 5000)] == [2, 4, 8, 60, 60]
    assert backoff.delay(1, draw=0.0) == 1
    with pytest.raises(ConfigurationError):
        Backoff(base=10, cap=5)


def test_the_message_is_handed_out(jobs):
    """Id, count and attributes for those who ask."""
    seen = []

    def handle(message: Message) -> None:
        seen.append((message.body, message.receive_count, dict(message.attributes), message.queue))

    jobs.send("x", attributes={"a": "1"})
    Consumer(jobs, handle, wait=0).run(until_empty=True)
    assert seen == [("x", 1, {"a": "1"}, "jobs")]


def test_a_consumer_takes_a_store_and_not_its_name():
    """What cannot keep a record is refused before the first message."""
    sqs = FakeSqs()
    queue = Queue(sqs.create_queue(QueueName="orders")["QueueUrl"], client=sqs)
    with pytest.raises(ConfigurationError, match="SqlStore"):
        Consumer(queue, lambda order: None, idempotency="sql")


@pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")
def test_a_child_forked_while_a_consumer_runs_has_one_that_does_not(jobs):
    """The run is the parent's: in the child nothing runs, nothing is locked, and records bear the child's own name."""
    begun, end = threading.Event(), threading.Event()

    def handle(body: str) -> None:
        begun.set()
        end.wait(10)

    consumer = Consumer(jobs, handle, wait=0)
    jobs.send('"x"')
    thread = threading.Thread(target=lambda: consumer.run(until_empty=True))
    thread.start()
    try:
        assert begun.wait(5)
        with consumer._lock:
            child = os.fork()
            if child == 0:
                free = not consumer.running and consumer._lock.acquire(timeout=1)
                os._exit(0 if free and f":{os.getpid()}:" in consumer._options.owner else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert consumer.running
    finally:
        end.set()
        thread.join(5)
