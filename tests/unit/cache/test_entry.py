"""The bytes of an entry."""

from __future__ import annotations

import contextlib
import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient.cache._codecs import ANYTHING, Codec
from resilient.cache._entry import (
    FAILED,
    FENCE,
    HEAD,
    HEADER,
    LEASE,
    NEGATIVE,
    TOMBSTONE,
    WAITED,
    Entry,
    Life,
    Unreadable,
    claimed,
    marker,
    pack,
    pack_tags,
    released,
    unpack,
    unpack_tags,
)

seconds = st.floats(0, 1e6, width=32)
entries = st.builds(
    Entry,
    body=st.binary(max_size=50),
    codec=st.integers(0, 255),
    schema=st.integers(0, 2**32 - 1),
    flags=st.sampled_from([0, NEGATIVE, TOMBSTONE, FENCE, LEASE, FAILED]),
    token=st.integers(0, 2**64 - 1),
    created=st.floats(0, 1e10),
    fresh=seconds,
    keep=seconds,
    cost=seconds,
    generation=st.integers(0, 2**64 - 1),
    tags=st.binary(max_size=30),
    busy=seconds,
    waited=st.booleans(),
    version=st.integers(0, 2**64 - 1),
)


@given(entries)
def test_an_entry_is_read_as_it_was_written(entry: Entry) -> None:
    """pack and unpack are inverse."""
    assert unpack(pack(entry)) == entry


@given(st.binary(max_size=120))
def test_any_bytes_are_an_entry_or_unreadable(raw: bytes) -> None:
    """No bytes raise anything but Unreadable, neither in the header nor in the body."""
    with contextlib.suppress(Unreadable):
        entry = unpack(raw)
        Codec(ANYTHING).decode(entry.codec, entry.schema, entry.body)


@given(entries, st.data())
def test_a_damaged_entry_is_an_entry_or_unreadable(entry: Entry, data: st.DataObject) -> None:
    """Flipping a byte or cutting the end raises nothing else."""
    raw = bytearray(pack(entry))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    raw = raw[: data.draw(st.integers(0, len(raw)))]
    for kind in (ANYTHING, list[int], dict[str, dt.datetime]):
        try:
            found = unpack(bytes(raw))
            Codec(kind).decode(found.codec, 0, found.body)
        except Unreadable:
            continue


def test_an_entry_lives_fresh_then_stale_then_not_at_all() -> None:
    """Its life follows from its times; an age is never negative though clocks differ."""
    entry = Entry(b"", 1, 0, 0, 1, created=100.0, fresh=10.0, keep=30.0, cost=0.0)
    assert [entry.life(now) for now in (90, 100, 109.9)] == [Life.FRESH] * 3
    assert [entry.life(now) for now in (110, 129.9)] == [Life.STALE] * 2
    assert entry.life(130) is Life.GONE
    assert entry.age(90) == 0.0
    assert entry.age(105) == 5.0


@pytest.mark.parametrize("flag", [TOMBSTONE, FENCE, LEASE])
def test_what_is_no_value_is_worth_nothing(flag: int) -> None:
    """They are worth nothing at any time, and no two have the same bytes."""
    first, second = marker(flag, 100.0, 10.0), marker(flag, 100.0, 10.0)
    assert first != second
    assert unpack(first).life(100.0) is Life.GONE


def test_a_claim_rewrites_the_header_alone() -> None:
    """Who loads a value anew, and who gives up doing so, changes the head and keeps tags, body and life."""
    tags = pack_tags([("price-list", 7)])
    entry = Entry(b"body", 1, 2, NEGATIVE, 3, 1000.0, 10.0, 30.0, 0.5, generation=9, tags=tags, waited=True)
    raw = pack(entry)
    taken = claimed(entry, 1015.0, 10.0)
    assert len(taken) == HEADER.size
    after = unpack(taken + raw[HEADER.size :])
    assert after._replace(token=3, busy=0.0, waited=True) == entry
    assert taken[:HEAD] != raw[:HEAD]
    assert after.held(1015.0) == 10.0
    assert after.held(1030.0) == 0.0
    free = unpack(released(after) + raw[HEADER.size :])
    assert free.held(1015.0) == 0.0
    assert free.token != after.token


def test_a_lease_is_held_for_its_time() -> None:
    """A lease tells for how long its holder may still be loading; the byte of those who wait stands behind the head."""
    raw = marker(LEASE, 100.0, 10.0)
    assert unpack(raw).held(104.0) == 6.0
    waited = bytearray(raw)
    waited[WAITED] = 1
    assert unpack(bytes(waited)).waited is True
    assert waited[:HEAD] == raw[:HEAD]


@given(st.lists(st.tuples(st.text(st.characters(codec="utf-8"), max_size=20), st.integers(0, 2**64 - 1))))
def test_tags_are_read_as_they_were_written(tags: list[tuple[str, int]]) -> None:
    """pack_tags and unpack_tags are inverse."""
    assert unpack_tags(pack_tags(tags)) == tags


@given(st.binary(max_size=40))
def test_any_bytes_are_tags_or_unreadable(block: bytes) -> None:
    """No bytes raise anything but Unreadable."""
    with contextlib.suppress(Unreadable):
        unpack_tags(block)
