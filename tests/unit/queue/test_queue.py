"""Producers."""

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from resilient import causality
from resilient.errors import ConfigurationError, InvalidInput, OutcomeUnknown, Refused
from resilient.queue import Outgoing, PartlySent, Queue
from resilient.testing.clock import FakeClock
from resilient.testing.sqs import FakeSqs


def calls(sqs, name):
    return [arguments for operation, arguments in sqs.calls if operation == name]


def test_25_messages_are_3_calls(jobs, sqs):
    """Ten in a call, in order, each with its own id."""
    results = jobs.send_many({"n": n} for n in range(25))
    assert [len(each["Entries"]) for each in calls(sqs, "SendMessageBatch")] == [10, 10, 5]
    assert len({each.message_id for each in results}) == 25
    received = [m.json()["n"] for _ in range(3) for m in jobs.receive(10)]
    assert received == list(range(25))


def test_two_failed_entries_are_one_more_call_of_two(make_queue, sqs):
    """Only the entries that SQS refused for no fault of theirs are sent again."""
    jobs = Queue(make_queue().url, client=sqs, clock=FakeClock())
    fails = {"3", "7"}

    def partly(operation, entry):
        if entry["Id"] in fails:
            fails.remove(entry["Id"])
            return "InternalError"
        return None

    sqs.entry_fault = partly
    assert all(each.ok for each in jobs.send_many(range(10)))
    assert [len(each["Entries"]) for each in calls(sqs, "SendMessageBatch")] == [10, 2]
    assert jobs.attributes().depth == 10


def test_what_cannot_be_sent_is_told_by_message(make_queue, sqs):
    """After three tries the error tells what was sent and what was not."""
    jobs = Queue(make_queue().url, client=sqs, clock=FakeClock())
    sqs.entry_fault = lambda _, entry: "InternalError" if entry["Id"] == "1" else None
    with pytest.raises(PartlySent, match="1 of 3") as caught:
        jobs.send_many("abc")
    assert [each.ok for each in caught.value.results] == [True, False, True]
    assert caught.value.results[1].error == "InternalError"
    assert len(calls(sqs, "SendMessageBatch")) == 3


def test_a_lost_answer_leaves_the_outcome_unknown(jobs, sqs):
    """Nobody can tell whether the message was taken; the same id makes a repetition harmless."""

    def lost(operation, arguments):
        raise ReadTimeoutError(endpoint_url="x")

    sqs.fault = lost
    with pytest.raises(OutcomeUnknown):
        jobs.send("x", id="order-1")
    with pytest.raises(PartlySent) as caught:
        jobs.send_many(["x", "y"])
    assert {each.error for each in caught.value.results} == {"OutcomeUnknown"}


def test_limits_are_checked_before_anything_is_sent(jobs, sqs):
    """A delay of 901 s, a message of one byte too many, a bad attribute: no request is made, not even for others."""
    room = 1_048_576 - len("resilient-idString") - 36
    jobs.send("x" * room)
    sent = len(sqs.calls)
    for wrong in (
        lambda: jobs.send("x", delay=901),
        lambda: jobs.send("x" * (room + 1)),
        lambda: jobs.send(""),
        lambda: jobs.send("x", attributes={"a b": "1"}),
        lambda: jobs.send_many(["good", Outgoing("x", delay=-1)]),
        lambda: Queue(jobs.url, client=sqs, max_bytes=100).send("x" * 100),
    ):
        with pytest.raises(InvalidInput):
            wrong()
    assert len(sqs.calls) == sent


def test_large_messages_share_a_call_only_within_its_limit(jobs, sqs):
    """Five messages of 400,000 bytes are three calls."""
    jobs.send_many(["x" * 400_000] * 5)
    assert [len(each["Entries"]) for each in calls(sqs, "SendMessageBatch")] == [2, 2, 1]


def test_attributes_and_id_travel_with_a_message(jobs):
    """The handler sees its own attributes, and the key is the id the message was sent with."""
    jobs.send("x", attributes={"kind": "note", "raw": b"\x00\x01"}, id="order-1")
    (message,) = jobs.receive()
    assert message.attributes == {"kind": "note", "raw": b"\x00\x01"}
    assert message.key == "order-1"
    assert message.receive_count == 1
    assert message.sent_at is not None


def test_the_producers_token_travels_with_a_message(jobs):
    """What the producer's scope has learned is in the message; outside a scope there is nothing to carry."""
    with causality.scope() as scope:
        scope.observe("app", causality.Instant(1_700_000_000.0))
        jobs.send("inside")
    jobs.send("outside")
    inside, outside = jobs.receive()
    assert inside.token == "1!app:t1700000000.000000"
    assert outside.token == ""


def test_a_fifo_message_needs_a_group_and_is_deduplicated_by_its_id(make_queue):
    """Two equal orders are two orders; one order sent twice with its id is one."""
    orders = make_queue("orders.fifo")
    with pytest.raises(InvalidInput):
        orders.send("x")
    with pytest.raises(InvalidInput):
        orders.send("x", group="a", delay=1)
    orders.send("same", group="a")
    orders.send("same", group="a")
    orders.send("same", group="a", id="1")
    orders.send("same", group="a", id="1")
    assert orders.attributes().depth == 3


def test_a_group_or_a_deduplication_id_that_sqs_would_refuse_is_not_sent(make_queue, jobs, sqs):
    """Also the message's own id, where it serves for deduplication; one given for that takes its place."""
    orders = make_queue("orders.fifo")
    for refused in ({"group": "a b"}, {"group": "a", "deduplication": ""}, {"group": "a", "id": "Bestellung 1"}):
        with pytest.raises(InvalidInput):
            orders.send("x", **refused)
        with pytest.raises(InvalidInput):
            orders.send_many([Outgoing("fine", group="a"), Outgoing("x", **refused)])
    with pytest.raises(InvalidInput):
        jobs.send("x", group="ü")
    assert not [call for call in sqs.calls if call[0].startswith("SendMessage")]
    orders.send("x", group="a", id="Bestellung 1", deduplication="b1")
    assert orders.receive()[0].key == "Bestellung 1"


def test_the_fake_refuses_group_and_deduplication_ids_as_sqs_does(make_queue, sqs):
    """For those who speak to it without a queue of ours."""
    url = make_queue("orders.fifo").url
    for group, deduplication in (("a b", "1"), ("a", "x" * 129)):
        with pytest.raises(ClientError, match="InvalidParameterValue"):
            sqs.send_message(QueueUrl=url, MessageBody="x", MessageGroupId=group, MessageDeduplicationId=deduplication)


def test_a_queue_knows_its_dead_letters(make_queue, jobs):
    """The redrive policy names the queue; without one there is none."""
    assert jobs.dead_letters() is None
    dead = make_queue("dead")
    arn = "arn:aws:sqs:eu-west-1:000000000000:dead"
    source = make_queue("work", RedrivePolicy=f'{{"deadLetterTargetArn":"{arn}","maxReceiveCount":3}}')
    assert source.dead_letters().url == dead.url


def test_a_queue_that_is_not_there_is_told(sqs):
    """The address is checked when the queue is made, its existence by the first call."""
    with pytest.raises(ConfigurationError):
        Queue("jobs", client=sqs)
    with pytest.raises(Exception, match="NonExistentQueue"):
        Queue("https://sqs.eu-west-1.amazonaws.com/1/nowhere", client=sqs).send("x")


def test_one_call_changes_or_deletes_ten(jobs, sqs):
    """Batches answer for each entry; a stale receipt is refused alone."""
    jobs.send_many("ab")
    first, second = jobs.receive(visibility=30)
    sqs.lapse(jobs.url)
    again = jobs.receive()
    assert len(again) == 2
    assert jobs.delete_many([first.receipt, again[1].receipt]) == ["ReceiptHandleIsInvalid", ""]
    assert jobs.change_visibility_many([(second.receipt, 5), (again[0].receipt, 0)])[1] == ""
    assert jobs.attributes() == type(jobs.attributes())(depth=1, in_flight=0, delayed=0)


def test_refused_credentials_are_not_retried_away(jobs, sqs):
    """A denial is told as such."""
    from botocore.exceptions import ClientError

    def denied(operation, arguments):
        raise ClientError({"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}}, operation)

    sqs.fault = denied
    with pytest.raises(Refused):
        jobs.send("x")


def test_the_fake_keeps_time_by_its_clock():
    """Delays, visibility and the receive count, with a clock that moves when told."""
    clock = FakeClock()
    sqs = FakeSqs(clock=clock)
    jobs = Queue(sqs.create_queue(QueueName="jobs")["QueueUrl"], client=sqs, clock=clock)
    jobs.send("x", delay=60)
    assert jobs.receive() == []
    before = clock.wall()
    (message,) = [*jobs.receive(wait=20), *jobs.receive(wait=20), *jobs.receive(wait=20)]
    assert clock.wall() - before == 60, "a long poll ends when the message becomes visible"
    assert jobs.receive() == []
    clock.advance(30)
    (again,) = jobs.receive()
    assert again.receive_count == 2
    assert jobs.delete_many([message.receipt]) == ["ReceiptHandleIsInvalid"]
    assert jobs.change_visibility_many([(again.receipt, 43_201)]) == ["InvalidParameterValue"]
    clock.advance(30)
    assert jobs.change_visibility_many([(again.receipt, 5)]) == ["AWS.SimpleQueueService.MessageNotInflight"]


def test_the_fake_moves_what_was_received_too_often():
    """After maxReceiveCount receipts the next one moves it to the dead-letter queue."""
    sqs = FakeSqs(clock=FakeClock())
    dead = Queue(sqs.create_queue(QueueName="dead")["QueueUrl"], client=sqs)
    policy = '{"deadLetterTargetArn":"arn:aws:sqs:eu-west-1:0:dead","maxReceiveCount":2}'
    jobs = Queue(sqs.create_queue(QueueName="jobs", Attributes={"RedrivePolicy": policy})["QueueUrl"], client=sqs)
    jobs.send("x")
    for _ in range(2):
        assert len(jobs.receive()) == 1
        sqs.lapse(jobs.url)
    assert jobs.receive() == []
    assert dead.attributes().depth == 1


def test_the_fake_keeps_fifo_groups_in_order(make_queue, sqs):
    """While one of a group is in flight its followers are withheld, other groups are not."""
    orders = make_queue("o.fifo")
    for body, group in (("a1", "a"), ("a2", "a"), ("b1", "b")):
        orders.send(body, group=group)
    (a1,) = orders.receive(1)
    assert [m.body for m in orders.receive(10)] == ["b1"]
    orders.delete_many([a1.receipt])
    assert [m.body for m in orders.receive(10)] == ["a2"]
