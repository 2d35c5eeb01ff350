"""The room of the local tier: its bounds, and what stays in it."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Sequence
from itertools import accumulate

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from resilient.cache._local_room import Room, Slot

ENTRIES, BYTES = 16, 100  # of the largest entries fewer have room than may be there
KEYS = st.sampled_from([f"k{number}" for number in range(24)])


class RoomModel(RuleBasedStateMachine):
    """Whatever is done, what is there is what was put there last, and no more than there is room for."""

    def __init__(self) -> None:
        super().__init__()
        self.room = Room(ENTRIES, BYTES)
        self.newest: dict[str, Slot] = {}

    @rule(key=KEYS, size=st.integers(0, 30))
    def put(self, key: str, size: int) -> None:
        slot = Slot(key, b"", 0.0, size)
        taken = self.room.put(slot)
        assert taken is (size <= BYTES // 8)
        assert (self.room.table.get(key) is slot) is taken  # a newcomer is not itself what goes for it
        self.newest[key] = slot

    @rule(key=KEYS, size=st.integers(0, 30))
    def weigh(self, key: str, size: int) -> None:
        slot = self.room.table.get(key)
        before = None if slot is None else slot.size
        if slot is not None and self.room.weigh(slot, size):
            assert slot.size == size
            assert self.room.table[key] is slot
        elif slot is not None:
            assert slot.size == before or key not in self.room.table
        assert not self.room.weigh(Slot(key, b"", 0.0, 1), 1)  # another one of that name

    @rule(key=KEYS)
    def hit(self, key: str) -> None:
        slot = self.room.table.get(key)
        if slot is not None:
            slot.hot = True

    @rule(key=KEYS)
    def drop(self, key: str) -> None:
        there = self.room.table.get(key)
        assert self.room.drop(key) is there
        assert key not in self.room.table

    @rule()
    def clear(self) -> None:
        self.room.clear()
        assert not len(self.room)

    @invariant()
    def agrees(self) -> None:
        room = self.room
        parts = {**room._small, **room._main}
        assert parts == room.table
        assert len(parts) == len(room._small) + len(room._main)
        assert all(slot.main is (key in room._main) for key, slot in room.table.items())
        assert all(self.newest[key] is slot for key, slot in room.table.items())
        assert room.bytes == sum(slot.size for slot in room.table.values())
        assert room._main_bytes == sum(slot.size for slot in room._main.values())
        assert len(room.table) <= ENTRIES
        assert room.bytes <= BYTES
        assert len(room._ghosts) <= 64


RoomModel.TestCase.settings = settings(max_examples=40, stateful_step_count=50, deadline=None)
TestRoom = RoomModel.TestCase
TestRoom.runTest.__doc__ = "Bounds hold, sums agree, and what is there was put there last, after any steps."


def hits(trace: Sequence[int], entries: int, most: int) -> float:
    """The part of requests that a room answers."""
    room, count = Room(entries, most), 0
    for key in map(str, trace):
        slot = room.table.get(key)
        if slot is None:
            room.put(Slot(key, b"", 0.0, 1))
        else:
            slot.hot = True
            count += 1
    return count / len(trace)


def lru(trace: Sequence[int], entries: int) -> float:
    """The part that a cache answers in which the least recently used goes first."""
    kept: OrderedDict[int, None] = OrderedDict()
    count = 0
    for key in trace:
        if key in kept:
            kept.move_to_end(key)
            count += 1
        else:
            kept[key] = None
            if len(kept) > entries:
                kept.popitem(last=False)
    return count / len(trace)


def popular(length: int, keys: int = 5_000) -> list[int]:
    weights = list(accumulate(1 / (rank + 1) ** 0.9 for rank in range(keys)))
    return random.Random(7).choices(range(keys), cum_weights=weights, k=length)


@pytest.mark.parametrize(("entries", "most"), [(100, 10**6), (10**6, 100)], ids=["entries", "bytes"])
def test_what_is_asked_for_often_stays_while_a_job_reads_everything_once(entries: int, most: int) -> None:
    """Reads of keys that nobody wants again cost few hits, whichever bound is the tighter one."""
    usual, trace, fresh = popular(20_000), [], 10_000
    for start in range(0, len(usual), 200):
        trace += [*usual[start : start + 200], *range(fresh, fresh + 100)]
        fresh += 100
    alone, disturbed = hits(usual, entries, most), hits(trace, entries, most) * 1.5
    assert disturbed > 0.93 * alone
    assert disturbed > 1.25 * lru(trace, 100) * 1.5


@pytest.mark.parametrize(("entries", "most"), [(100, 10**6), (10**6, 100)], ids=["entries", "bytes"])
def test_keys_read_round_and_round_do_not_drive_each_other_out(entries: int, most: int) -> None:
    """Of half as many more keys than there is room for, most of what fits stays."""
    trace = [place % 150 for place in range(15_000)]
    assert lru(trace, 100) == 0
    assert hits(trace, entries, most) > 0.58


def test_what_was_popular_once_gives_way() -> None:
    """After the popular keys have changed, the new ones are kept as the old ones were."""
    before, after = popular(10_000), [key + 10_000 for key in popular(10_000)]
    both = hits([*before, *after], 100, 10**6)
    assert both > 0.88 * hits(before, 100, 10**6)


def test_a_key_that_was_dropped_keeps_its_standing() -> None:
    """A popular value that is invalidated comes back to where it was, not behind what is read once."""
    room = Room(100, 10**6)
    for number in range(100):
        room.put(Slot(f"k{number}", b"", 0.0, 1))
        room.table[f"k{number}"].hot = True
    room.put(Slot("new", b"", 0.0, 1))
    kept = next(key for key, slot in room.table.items() if slot.main)
    room.drop(kept)
    room.put(Slot(kept, b"", 0.0, 1))
    assert room.table[kept].main


def test_a_large_entry_is_not_taken_in_and_takes_its_older_one_out() -> None:
    """What would need more than an eighth of the room is not kept, nor is what it replaces."""
    room = Room(10, 80)
    assert room.put(Slot("k", b"", 0.0, 10))
    assert not room.put(Slot("k", b"", 0.0, 11))
    assert "k" not in room.table


def test_an_entry_that_grows_makes_others_give_way() -> None:
    """In a room that is full of bytes the oldest entry comes back with more of them: it stays, another one goes."""
    room = Room(100, 80)
    for number, size in enumerate([5, 10, 10, 10, 10, 10, 10, 10, 5]):
        assert room.put(Slot(f"k{number}", b"", 0.0, size))
    assert (len(room), room.bytes) == (9, 80)
    grown = Slot("k0", b"", 0.0, 10)
    assert room.put(grown)
    assert room.table["k0"] is grown
    assert "k1" not in room.table
    assert room.bytes == 75


def test_one_entry_fits_into_a_room_for_one() -> None:
    """The newest takes the place of the one that was there."""
    room = Room(1, 1000)
    for key in "abc":
        room.put(Slot(key, b"", 0.0, 1))
        assert list(room.table) == [key]
    assert room.evicted == 2
