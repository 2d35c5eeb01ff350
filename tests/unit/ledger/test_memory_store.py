"""The store in memory."""

import threading

import pytest

from resilient.errors import Overloaded
from resilient.ledger import Done, InProgress, MemoryStore, Mismatch, New
from resilient.testing.clock import FakeClock


def test_a_worker_that_was_overtaken_cannot_complete():
    """A zombie that wakes after its lease was taken over is refused; the later result counts."""
    clock = FakeClock()
    store = MemoryStore(clock=clock)
    zombie = store.claim("k", owner="a", lease=10).claim
    assert store.claim("k", owner="b", lease=10) == InProgress(10)
    clock.advance(10)
    second = store.claim("k", owner="b", lease=10).claim
    assert not store.extend(zombie, 10)
    assert not store.complete(zombie, b"1")
    assert store.extend(second, 10)
    assert store.complete(second, b"2")
    assert store.claim("k", owner="c", lease=10) == Done(b"2")
    assert store.claim("k", owner="c", lease=10, payload_hash="other") == Mismatch()


def test_released_work_can_be_claimed_at_once():
    """Giving back ends the lease."""
    store = MemoryStore(clock=FakeClock())
    store.release(store.claim("k", owner="a", lease=10).claim)
    assert isinstance(store.claim("k", owner="b", lease=10), New)


def test_many_threads_get_one_claim():
    """Of many workers that ask at once, one is granted."""
    store, gate, granted = MemoryStore(), threading.Barrier(8), []

    def ask():
        gate.wait()
        if isinstance(store.claim("k", owner="x", lease=10), New):
            granted.append(1)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert granted == [1]


def test_it_is_bounded():
    """A full store drops what was done longest ago, and refuses rather than drop work in progress."""
    store = MemoryStore(capacity=2)
    store.complete(store.claim("a", owner="x", lease=10).claim)
    store.claim("b", owner="x", lease=10)
    store.claim("c", owner="x", lease=10)
    assert len(store) == 2
    with pytest.raises(Overloaded):
        store.claim("d", owner="x", lease=10)
