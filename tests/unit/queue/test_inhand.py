"""Which messages are in hand, against a model."""

import hypothesis.strategies as st
import pytest
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from resilient.queue import Message
from resilient.queue._inhand import Held, InHand, State
from resilient.queue._limits import batches

LIMIT = 43_200


class Hand(RuleBasedStateMachine):
    """Time passes, messages come and go, signs of life succeed or fail: a kept message is never seen by others."""

    def __init__(self):
        super().__init__()
        self.now = 0.0
        self.hand = InHand(30)
        self.visible_at = {}
        self.number = 0
        self.fates = {}

    @rule()
    def receive(self):
        self.number += 1
        held = self.hand.add(Message(id=str(self.number), body="x", receipt=str(self.number)), self.now)
        self.visible_at[held.message.receipt] = self.now + 30

    @precondition(lambda self: self.hand.held)
    @rule(data=st.data())
    def start(self, data):
        held = data.draw(st.sampled_from(list(self.hand.held.values())))
        waiting = held.state is State.WAITING
        assert self.hand.start(held) == waiting, "a handler starts once"

    @precondition(lambda self: self.hand.held)
    @rule(data=st.data(), beating=st.booleans())
    def finish(self, data, beating):
        held = data.draw(st.sampled_from(list(self.hand.held.values())))
        first = held.message.receipt not in self.fates
        assert self.hand.finish(held, beating=beating) == first, "a fate is decided once"
        if first:
            self.fates[held.message.receipt] = beating
        assert not self.hand.start(held), "what is decided does not start"

    @precondition(lambda self: self.hand.held)
    @rule(data=st.data())
    def told(self, data):
        held = data.draw(st.sampled_from(list(self.hand.held.values())))
        self.hand.remove(held)
        assert held.beat_at is None
        assert not self.hand.start(held)

    @rule(data=st.data())
    def wake_when_due(self, data):
        """The keeper sleeps until the next sign of life is due; some fail to get through, not three in a row."""
        due = self.hand.next_due()
        if due is None:
            self.now += 5
            return
        self.now = max(self.now, due)
        for held in self.hand.due(self.now):
            seconds = self.hand.seconds(held, self.now)
            assert 0 <= seconds <= 30
            if seconds == 0:
                self.hand.lost(held)
            elif data.draw(st.integers(0, 3)) == 0 and self.visible_at[held.message.receipt] - self.now > 12:
                self.hand.missed(held, self.now)
            else:
                self.visible_at[held.message.receipt] = self.now + seconds
                assert self.now + seconds - held.received < LIMIT, "SQS would refuse to go beyond twelve hours"
                self.hand.beaten(held, self.now)

    @invariant()
    def kept_from_others(self):
        for receipt, held in self.hand.held.items():
            if held.beat_at is not None:
                assert self.visible_at[receipt] > self.now

    @invariant()
    def undecided_are_kept(self):
        for receipt, held in self.hand.held.items():
            if receipt not in self.fates:
                assert held.beat_at is not None or self.now - held.received > LIMIT - 31


TestHand = Hand.TestCase


def test_signs_of_life_end_at_twelve_hours():
    """The last one is shorter, and then there is none: SQS refuses to keep a message longer."""
    hand = InHand(3600)
    held = hand.add(Message(id="1", body="x", receipt="r"), 0.0)
    assert hand.seconds(held, 40_000) == 3199
    assert hand.seconds(held, 43_198) == 1
    assert hand.seconds(held, 43_199) == 0


def hand_with(*asked: float) -> tuple[InHand, list[Held]]:
    """Messages that were asked for at these times, in a hand of 30 seconds."""
    hand = InHand(30)
    return hand, [hand.add(Message(id=str(at), body="x", receipt=str(at)), at) for at in asked]


def test_a_sign_of_life_is_given_at_each_third_and_sooner_after_one_that_failed():
    """Each is due at its moment and not before it."""
    hand, (held,) = hand_with(100.0)
    assert hand.next_due() == 110.0
    assert hand.due(109.9) == []
    assert hand.due(110.0) == [held]
    hand.beaten(held, 111.0)
    assert hand.next_due() == 121.0
    hand.missed(held, 121.0)
    assert hand.next_due() == 123.5
    hand.lost(held)
    assert hand.next_due() is None
    assert held.beat_at is None


def test_the_most_urgent_signs_come_first():
    """In the order in which messages would be lost."""
    hand, (late, early) = hand_with(101.0, 100.0)
    assert hand.due(200.0) == [early, late]


def test_twelve_hours_count_from_when_it_was_received():
    """Not from when the consumer began."""
    hand, (held,) = hand_with(1000.0)
    assert hand.seconds(held, 1000.0 + LIMIT - 11) == 10


def test_messages_are_found_by_where_they_stand():
    """Waiting, running, finishing, and not at all any more."""
    hand, (first, second) = hand_with(1.0, 2.0)
    assert hand.start(first)
    assert (hand.of(State.RUNNING), hand.of(State.WAITING)) == ([first], [second])
    hand.finish(first, beating=True)
    assert hand.of(State.FINISHING) == [first]
    hand.remove(first)
    hand.remove(first)
    assert hand.of(State.FINISHING) == []
    assert hand.unfinished() == 1


def test_a_message_given_back_gets_no_more_signs_of_life():
    """Else one could overtake its return and hide it again."""
    hand = InHand(30)
    held = hand.add(Message(id="1", body="x", receipt="r"), 0.0)
    assert hand.start(held)
    assert hand.unfinished() == 1
    hand.finish(held, beating=False)
    hand.beaten(held, 5)
    hand.missed(held, 5)
    assert hand.next_due() is None
    assert hand.unfinished() == 0


@pytest.mark.parametrize(("count", "calls"), [(0, 0), (1, 1), (10, 1), (11, 2), (25, 3)])
def test_signs_of_life_go_ten_in_a_call(count, calls):
    """Twenty-five messages cost three calls."""
    hand = InHand(30)
    for number in range(count):
        hand.add(Message(id="1", body="x", receipt=str(number)), 0.0)
    assert len(batches(hand.due(100))) == calls
