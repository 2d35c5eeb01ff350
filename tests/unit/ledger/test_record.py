"""The decisions of the ledger, against a model."""

import hypothesis.strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from resilient.ledger import Done, InProgress, Mismatch
from resilient.ledger import _record as core


class Ledger(RuleBasedStateMachine):
    """Any number of workers on one key: at most one may complete, and only the one that claimed last."""

    claims = Bundle("claims")

    def __init__(self):
        super().__init__()
        self.now = 0.0
        self.record = None
        self.last = None  # the fence granted last
        self.lease_end = 0.0
        self.completed = []

    @rule(seconds=st.floats(0, 30))
    def pass_time(self, seconds):
        self.now += seconds

    @rule(target=claims, owner=st.sampled_from("abc"), lease=st.floats(1, 20), digest=st.sampled_from(["x", "x", "y"]))
    def claim(self, owner, lease, digest):
        granted, refusal = core.claim(self.record, owner=owner, lease=lease, payload_hash=digest, now=self.now)
        if self.record is not None and self.record.payload_hash != digest:
            assert refusal == Mismatch()
        elif self.completed:
            assert refusal == Done(self.completed[0])
        elif self.last is not None and self.now < self.lease_end:
            assert isinstance(refusal, InProgress)
            assert refusal.retry_after == self.lease_end - self.now
        else:
            assert refusal is None
            assert granted.fence > (self.last or 0)
            self.record, self.last, self.lease_end = granted, granted.fence, self.now + lease
            return granted.fence
        assert granted is None
        return multiple()

    @rule(fence=claims, lease=st.floats(1, 20))
    def extend(self, fence, lease):
        changed = core.extend(self.record, fence, lease=lease, now=self.now)
        assert (changed is not None) == (fence == self.last and not self.completed)
        if changed is not None:
            self.record, self.lease_end = changed, self.now + lease

    @rule(fence=claims, result=st.binary(max_size=3))
    def complete(self, fence, result):
        changed = core.complete(self.record, fence, result)
        assert (changed is not None) == (fence == self.last and not self.completed)
        if changed is not None:
            self.record = changed
            self.completed.append(result)

    @rule(fence=consumes(claims))
    def release(self, fence):
        changed = core.release(self.record, fence, now=self.now)
        assert (changed is not None) == (fence == self.last and not self.completed)
        if changed is not None:
            self.record, self.lease_end = changed, self.now

    @invariant()
    def done_once(self):
        assert len(self.completed) <= 1


TestLedger = Ledger.TestCase


def test_nothing_can_be_done_to_a_record_that_is_not_there():
    """Steps without a claim change nothing."""
    assert core.extend(None, 1, lease=1, now=0) is None
    assert core.complete(None, 1, None) is None
    assert core.release(None, 1, now=0) is None


def test_a_grant_says_whose_it_is_and_for_which_payload():
    """The first claim has fence 1; one that takes over has the next fence, its own owner and lease."""
    first, refused = core.claim(None, owner="a", lease=30, payload_hash="x", now=5)
    assert (first, refused) == (core.Record("a", 1, 35, "x"), None)
    taken_over = core.claim(first, owner="b", lease=10, payload_hash="x", now=35)
    assert taken_over == (core.Record("b", 2, 45, "x"), None)
