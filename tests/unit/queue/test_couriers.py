"""The two threads that tell SQS, over a transport that fails on demand."""

import threading

from resilient import events
from resilient.clock import SYSTEM
from resilient.errors import Unavailable
from resilient.queue import AcknowledgeFailed, HeartbeatLost, Message
from resilient.queue._couriers import Acknowledger, Keeper
from resilient.queue._inhand import InHand


class Transport:
    """Answers each call with the next list of codes, or raises the next error; then with success."""

    name = "jobs"

    def __init__(self, *answers):
        self.answers = list(answers)
        self.deleted = []
        self.changed = []

    def _answer(self, count):
        answer = self.answers.pop(0) if self.answers else [""] * count
        if isinstance(answer, Exception):
            raise answer
        return answer

    def delete_many(self, receipts):
        self.deleted.append(list(receipts))
        return self._answer(len(receipts))

    def change_visibility_many(self, changes):
        self.changed.append(list(changes))
        return self._answer(len(changes))


class NoWait:
    """The system's clock, whose sleeps take no time."""

    monotonic = staticmethod(SYSTEM.monotonic)
    wall = staticmethod(SYSTEM.wall)

    @staticmethod
    def sleep(seconds):
        """Return at once."""


def hold(hand, count):
    now = SYSTEM.monotonic()
    return [hand.add(Message(id=str(n), body="x", receipt=f"r{n}"), now) for n in range(count)]


def heard(kind, function):
    sink = events.MemorySink()
    unsubscribe = events.subscribe(sink, kinds=(kind,))
    function()
    unsubscribe()
    return sink.of(kind)


def test_deletes_go_ten_in_a_call():
    """23 messages, put at once, are three calls."""
    transport, done = Transport(), []
    courier = Acknowledger(transport, done.append, linger=0.2, clock=SYSTEM)
    helds = hold(InHand(30), 23)
    for held in helds:
        courier.put(held)
    courier.close(5)
    assert [len(each) for each in transport.deleted] == [10, 10, 3]
    assert done == helds


def test_only_failed_deletes_are_tried_again():
    """An entry that failed for now is sent again alone; one whose receipt is void is given up and told."""
    transport, done = Transport(["", "InternalError", "ReceiptHandleIsInvalid"], Unavailable("away")), []

    def run():
        courier = Acknowledger(transport, done.append, linger=0.2, clock=NoWait)
        for held in hold(InHand(30), 3):
            courier.put(held)
        courier.close(5)

    assert [each.reason for each in heard(AcknowledgeFailed, run)] == ["ReceiptHandleIsInvalid"]
    assert transport.deleted == [["r0", "r1", "r2"], ["r1"], ["r1"]]
    assert sorted(held.message.id for held in done) == ["0", "1", "2"]


def test_a_delete_that_never_gets_through_is_told():
    """After three tries the message is let go: it comes again, and its record tells that it was done."""
    transport, done = Transport(*[Unavailable("away")] * 3), []

    def run():
        courier = Acknowledger(transport, done.append, linger=0, clock=NoWait)
        courier.put(hold(InHand(30), 1)[0])
        courier.close(5)

    assert [each.reason for each in heard(AcknowledgeFailed, run)] == ["Unavailable"]
    assert len(done) == 1


def keeper(transport, hand, done, extend=lambda held: True):
    return Keeper(transport, hand, threading.Lock(), done=done.append, extend=extend, clock=NoWait)


def test_a_return_that_fails_is_tried_again():
    """Once the whole call failed, then one entry of it: it alone is sent a third time."""
    transport, done, hand = Transport(Unavailable("away"), ["", "InternalError"]), [], InHand(30)
    courier = keeper(transport, hand, done)
    for held in hold(hand, 2):
        hand.finish(held, beating=False)
        courier.give_back(held, 5.4)
    courier.close(5)
    sent = [change for call in transport.changed for change in call]
    assert set(sent) == {("r0", 5), ("r1", 5)}
    assert len(done) == 2


def beat(transport, extend=lambda held: True):
    """Let signs of life become due for one message, and wait for the given number of calls."""
    hand, done = InHand(1), []
    courier = keeper(transport, hand, done, extend)
    hold(hand, 1)
    courier.wake()
    end = SYSTEM.monotonic() + 1.2
    while SYSTEM.monotonic() < end:
        SYSTEM.sleep(0.02)
    courier.close(5)
    return transport.changed


def test_a_sign_of_life_that_failed_is_repeated_soon():
    """A call that failed, and an entry that failed for now, are no loss: the next sign comes sooner than usual."""
    transport = Transport(Unavailable("away"), ["InternalError"])
    assert heard(HeartbeatLost, lambda: beat(transport)) == ()
    assert len(transport.changed) >= 4
    assert set(transport.changed[0]) == {("r0", 1)}


def test_a_claim_that_was_taken_over_ends_the_signs_of_life():
    """When the ledger says that another works on it, keeping the message would only hide it."""
    transport = Transport()
    told = heard(HeartbeatLost, lambda: beat(transport, lambda held: False))
    assert [each.reason for each in told] == ["another worker has taken over"]
    assert len(transport.changed) == 1
