"""The bytes of an entry."""

from __future__ import annotations

import contextlib
import datetime as dt
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient.cache._codecs import ANYTHING, Codec
from resilient.cache._entry import (
    FAILED,
    FENCE,
    FORMAT,
    GENERATION,
    HEAD,
    HEADER,
    LEASE,
    NEGATIVE,
    TOMBSTONE,
    WAITED,
    Entry,
    Life,
    Unreadable,
    bearing,
    claimed,
    is_fence,
    keeping,
    kept_in,
    marker,
    noted,
    noted_in,
    pack,
    released,
    unpack,
    version_in,
)
from resilient.cache._tags import pack_tags, unpack_tags
from resilient.errors import InvalidInput

TAGS = pack_tags([("price-list", 7)])
VALUE = Entry(b"body", 1, 2, 0, 3, 1000.0, 10.0, 30.0, 0.5, generation=9, tags=TAGS, version=2**40 + 5)
NOTE = b"seen" * 100
EMPTY = [TOMBSTONE, FENCE, LEASE]

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


@pytest.mark.parametrize("flag", EMPTY)
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


def test_nobody_waits_any_more_for_who_begins_or_ends_a_load() -> None:
    """Who waits for a load says so while it runs; a new claim and the end of one begin without anybody who waits."""
    body = TAGS + b"body"
    waited = VALUE._replace(busy=20.0, waited=True)
    begun = unpack(claimed(waited, 1015.0, 10.0) + body)
    assert begun == waited._replace(token=begun.token, busy=25.0, waited=False)
    ended = unpack(released(waited) + body)
    assert ended == waited._replace(token=ended.token, busy=0.0, waited=False)


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


def test_tags_fill_an_entry_to_the_last_byte() -> None:
    """As many bytes of tags as the header can count are borne, and one more is refused."""
    most = 0xFFFF - 10
    assert unpack_tags(pack_tags([("x" * most, 7)])) == [("x" * most, 7)]
    with pytest.raises(InvalidInput, match="cannot bear 2 tags"):
        pack_tags([("x" * (most - 10), 7), ("y", 7)])


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "too short"),
        (pack(VALUE)[: HEADER.size - 1], "too short"),
        (b"\0" + pack(VALUE)[1:], "no entry"),
        (pack(VALUE)[:1] + bytes([FORMAT + 1]) + pack(VALUE)[2:], "other version"),
        (pack(VALUE._replace(flags=32)), "other version"),
        (pack(VALUE)[:WAITED] + b"\2" + pack(VALUE)[WAITED + 1 :], "bad header"),
        (pack(VALUE)[: HEADER.size + 1], "bad header"),
        *((pack(VALUE._replace(**{name: math.inf})), "bad header") for name in ("created", "fresh", "keep", "cost")),
        (pack(VALUE._replace(busy=math.nan)), "bad header"),
    ],
)
def test_what_cannot_be_read_says_why(raw: bytes, reason: str) -> None:
    """Bytes that are cut, foreign, of another version or without sense are told apart by one of a few words."""
    with pytest.raises(Unreadable) as caught:
        unpack(raw)
    assert caught.value.reason == reason


def test_an_entry_bears_its_stamps_where_bearing_says() -> None:
    """What `bearing` gives is what stands in the header; without a namespace's stamp nothing can bear it."""
    where = slice(HEAD, GENERATION.stop)
    assert bearing(9, TAGS) == pack(VALUE)[where]
    assert bearing(9) == pack(VALUE._replace(tags=b""))[where]
    assert bearing(2**64 - 1) == pack(VALUE._replace(generation=2**64 - 1, tags=b""))[where]
    assert bearing(0, TAGS) == b""


@pytest.mark.parametrize("flag", EMPTY)
def test_a_marker_holds_what_it_is_given_and_nothing_else(flag: int) -> None:
    """It is of no codec and no type, was never fresh and cost nothing; by default it bears no note and no stamps."""
    bare = unpack(marker(flag, 100.0, 10.0))
    assert bare == Entry(b"", 0, 0, flag, bare.token, 100.0, 0.0, 10.0, 0.0)
    full = unpack(marker(flag, 100.0, 10.0, NOTE, generation=9, tags=TAGS))
    assert full == Entry(NOTE, 0, 0, flag, full.token, 100.0, 0.0, 10.0, 0.0, 9, TAGS)


def test_a_fence_is_told_by_its_head_alone() -> None:
    """A header is enough, and nothing but a fence of ours is one."""
    fence = marker(FENCE, 100.0, 10.0)
    assert len(fence) == HEADER.size
    assert is_fence(fence) is True
    others = [marker(TOMBSTONE, 100.0, 10.0), marker(LEASE, 100.0, 10.0), pack(VALUE._replace(codec=FENCE))]
    assert not any(map(is_fence, [None, b"", fence[:-1], b"\0" + fence[1:], *others]))


@pytest.mark.parametrize("flag", EMPTY)
def test_a_note_is_told_to_the_load_that_follows(flag: int) -> None:
    """Whether it is read from the entry or from its bytes, with tags before it or without."""
    for tags in (b"", TAGS):
        raw = marker(flag, 100.0, 10.0, NOTE, tags=tags)
        assert noted(unpack(raw)) == NOTE
        assert noted_in(raw) == NOTE


def test_nothing_is_told_by_what_bears_no_note() -> None:
    """A value's body is no note, and bytes that are none of ours say nothing."""
    assert noted(None) == noted(VALUE) == b""
    raw = marker(TOMBSTONE, 100.0, 10.0, NOTE)
    foreign = [b"\0" + raw[1:], raw[:1] + bytes([FORMAT + 1]) + raw[2:]]
    for other in (None, b"", raw[:10], raw[: HEADER.size], pack(VALUE), *foreign):
        assert noted_in(other) == b""


def test_a_version_is_read_from_whole_headers_only() -> None:
    """It stands at the header's end; bytes that end before have none."""
    raw = pack(VALUE)
    assert version_in(raw) == version_in(raw[: HEADER.size]) == VALUE.version
    assert version_in(raw[: HEADER.size - 1]) == version_in(b"") == 0


def test_a_fence_keeps_the_newest_value_of_another_writer() -> None:
    """The fence stays its writer's and keeps its note; of the values left in it the last one stands."""
    fence = marker(FENCE, 100.0, 10.0, NOTE, generation=9, tags=TAGS)
    first, second = pack(VALUE), pack(VALUE._replace(body=b"newer", version=VALUE.version + 1))
    once = keeping(fence, first)
    twice = keeping(once, second)
    for kept, value in ((once, first), (twice, second)):
        assert kept_in(kept) == value
        assert version_in(kept) == version_in(value)
        assert kept[:HEAD] == fence[:HEAD]
        assert noted_in(kept) == noted(unpack(kept)) == NOTE
        assert unpack(kept).tags == b""
        assert unpack(kept).generation == 9
