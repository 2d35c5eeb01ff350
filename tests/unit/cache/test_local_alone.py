"""A cache in this process alone: one bound for what it holds, by the marks of all who ask for it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient.cache import Cache, Local
from resilient.cache._entry import FENCE, LEASE, TOMBSTONE, marker
from resilient.cache._local import Local as Options
from resilient.cache._local_room import OVERHEAD, Room, Slot
from resilient.cache._local_tier import LocalTier
from resilient.cache._memory import Table
from resilient.testing import FakeClock


def counting(cache: Cache) -> tuple[Any, Counter[int]]:
    loads: Counter[int] = Counter()

    @cache.lazy("square:{number}")
    def square(number: int) -> int:
        loads[number] += 1
        return number * number

    return square, loads


def held(cache: Cache) -> int:
    """Values in the process, wherever they stand."""
    below: Any = cache.store
    assert set(below.tier.table) <= set(below.store.table._entries)
    return len(below.store.table._places)


def test_no_more_is_held_than_was_said() -> None:
    """There are no more values in the process than was said, and what is served is there to be changed."""
    with Cache(ttl=60, local=Local(max_entries=10)) as cache:
        square, loads = counting(cache)
        for _ in range(3):
            for number in range(10):
                square(number)
        for number in range(100, 130):
            for _ in range(3):
                square(number)
            assert held(cache) <= 10
        for number in range(130):
            before = loads[number]
            there = cache.get(f"square:{number}") is not None
            square(number)
            assert (loads[number] == before) is there
            assert not cache.add(f"square:{number}", 0)


def test_what_is_asked_for_stays() -> None:
    """Values that are served in few steps are known to be asked for: a thousand others do not drive them out."""
    with Cache(ttl=60, size=100) as cache:
        square, loads = counting(cache)
        for number in range(1000):
            square(number)
            for hot in range(2000, 2020):
                square(hot)
        assert all(loads[hot] == 1 for hot in range(2000, 2020))


def test_reading_round_and_round_keeps_a_part() -> None:
    """A few more keys than there is room for, in the same order again and again, still hit: as the room alone would."""
    room, hits = Room(100, 2**40), 0
    with Cache(ttl=60, size=100) as cache:
        square, loads = counting(cache)
        for number in [*range(150)] * 6:
            square(number)
            slot = room.table.get(str(number))
            if slot is not None:
                slot.hot = True
                hits += 1
            else:
                room.put(Slot(str(number), b"", 0.0, 1))
        assert hits > 300
        assert 900 - loads.total() == hits


def test_a_load_is_stored_though_others_come_and_go_meanwhile() -> None:
    """Leases and stamps have room of their own, so that values that come and go do not drive them out."""
    with Cache(ttl=60, size=5) as cache:
        loads = []

        @cache.lazy("slow", tags=["all"])
        def slow() -> int:
            loads.append(1)
            for number in range(50):
                cache.set(f"other:{number}", number)
            return 7

        assert slow() == slow() == 7
        assert loads == [1]


def test_bytes_are_bounded_too() -> None:
    """Values that are many bytes go for each other, and one of more than an eighth is not held at all."""
    with Cache(ttl=60, local=Local(max_bytes=80_000)) as cache:
        for number in range(100):
            cache.set(f"text:{number}", "x" * 5_000)
        table: Any = cache.store.store.table  # type: ignore[attr-defined]  # beneath what is kept
        assert table._bytes < 81_000
        assert 10 <= held(cache) <= 16
        cache.set("great", "x" * 11_000)
        assert cache.get("great") is None


KEYS = ["s:a", "s:b", "s:c", "s:d", "s:tag:{t}"]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["value", "lease", "fence", "tombstone", "get", "drop", "late", "fork", "clear"]),
        st.sampled_from(KEYS),
    ),
    max_size=60,
)


@given(STEPS, st.integers(1, 3))
def test_the_parts_of_a_table_agree(steps: list[tuple[str, str]], size: int) -> None:
    """Whatever is done to it, its values have one place each, its markers another, and its bytes are those it holds."""
    clock = FakeClock()
    table, tier = Table(size, clock), LocalTier("s", Options(), clock)
    table.beneath(tier)
    flags = {"lease": LEASE, "fence": FENCE, "tombstone": TOMBSTONE}
    for step, key in steps:
        if step == "get":
            table.get_many([key])
        elif step == "drop":
            with table._lock:
                table._drop(key)
        elif step == "late":
            clock.advance(0.6)
        elif step == "fork":
            table._reset()
        elif step == "clear":
            table.clear()
        else:
            raw = marker(flags[step], 0.0, 1.0) if step in flags else bytes([82, 1, 0]) + b"x" * 60
            table.put_many({key: raw}, 1000)
        places = table._places
        assert places is not None
        assert set(places.table) | set(table._markers) == set(table._entries)
        assert not set(places.table) & set(table._markers)
        assert len(places) <= size
        assert table._bytes == sum(len(key) + len(raw) for key, (raw, _) in table._entries.items())
        assert places.bytes == sum(OVERHEAD + len(key) + len(table._entries[key][0]) for key in places.table)
        assert all(key not in places.table for key in KEYS if "{" in key)


@pytest.mark.parametrize("step", [LEASE, FENCE, TOMBSTONE])
def test_old_markers_go_for_new_ones(step: int) -> None:
    """What no value is, is bounded as well: the oldest goes, and is forgotten above."""
    table, tier = Table(1), LocalTier("s", Options(), FakeClock())
    table.beneath(tier)
    table.put_many({f"s:{number}": marker(step, 0.0, 1.0) for number in range(1500)}, 10_000)
    assert len(table._entries) == 1001
    assert "s:0" not in table._entries
