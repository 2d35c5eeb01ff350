"""Versions of rows: of two values of one key the newer stays, in whatever order their writers and loaders end."""

from __future__ import annotations

import threading
import time
from typing import Any

import fakeredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient.cache._entry import (
    FENCE,
    HEAD,
    LEASE,
    TOMBSTONE,
    Entry,
    claimed,
    is_fence,
    keeping,
    kept_in,
    marker,
    new_token,
    noted,
    noted_in,
    pack,
    unpack,
    version_in,
)
from resilient.cache._memory import Table
from resilient.cache._sync.stores import MemoryStore, RedisStore
from resilient.cache._values import Written
from resilient.testing import FakeClock
from resilient.wire.redis import open_channel


def value(version: int, body: bytes = b"v") -> bytes:
    return pack(Entry(body, 1, 0, 0, new_token(), 0.0, 1e6, 1e6, 0.0, version=version))


versions = st.one_of(st.integers(0, 3), st.integers(2**53 - 1, 2**53 + 2), st.just(2**63))
notes = st.binary(max_size=300)


@given(notes, st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_a_fence_keeps_what_was_left_in_it_beside_its_note(note: bytes, left: list[int]) -> None:
    """It stays the fence of its writer, and tells the load that follows what it told before."""
    fence = first = marker(FENCE, 0.0, 10.0, note)
    for version in left:
        fence = keeping(fence, value(version))
    assert fence[:HEAD] == first[:HEAD]
    assert noted_in(fence) == noted(unpack(fence)) == note
    assert version_in(fence) == version_in(kept_in(fence)) == left[-1]


_server = fakeredis.FakeServer()


@given(st.data())
def test_the_server_writes_by_versions_as_the_table_does(data: st.DataObject) -> None:
    """The scripts and the fake agree on what is there after any steps, and on what each returns."""
    client = fakeredis.FakeRedis(server=_server)
    client.flushall()
    stores: list[Any] = [MemoryStore(clock=FakeClock()), RedisStore(open_channel(client))]
    known: list[bytes | None] = [None]
    for _ in range(data.draw(st.integers(1, 6))):
        raw = data.draw(
            st.one_of(
                st.builds(value, versions),
                st.builds(
                    lambda flag, note: marker(flag, 0.0, 10.0, note), st.sampled_from([FENCE, TOMBSTONE, LEASE]), notes
                ),
            )
        )
        step = data.draw(st.sampled_from(["put", "swap", "write_versioned", "write_versioned"]))
        if step == "write_versioned":
            raw = value(data.draw(versions.filter(bool)))
        mine = data.draw(
            st.sampled_from([each for each in known if step != "write_versioned" or each is None or is_fence(each)])
        )
        done = []
        for store in stores:
            if step == "put":
                done.append(store.put_many({"k": raw}, 60_000))
            elif step == "swap":
                done.append(store.swap("k", mine, raw, 60_000))
            else:
                done.append(store.write_versioned("k", mine, raw, 60_000, 5_000))
        assert done[0] == done[1]
        there = [store.get_many(["k"])[0] for store in stores]
        assert there[0] == there[1]
        known += [raw, there[0]]


@pytest.fixture(params=["memory", "fakeredis"])
def store(request: pytest.FixtureRequest) -> MemoryStore | RedisStore:
    """A store that needs no server."""
    if request.param == "memory":
        return MemoryStore(clock=FakeClock())
    return RedisStore(open_channel(fakeredis.FakeRedis()))


def test_the_older_of_two_writers_who_ends_last_gives_way(store: MemoryStore | RedisStore) -> None:
    """What the newer one left in the fence of the older is what stays."""
    first, second = marker(FENCE, 0.0, 10.0), marker(FENCE, 0.0, 10.0)
    older, newer = value(7), value(8)
    store.exchange_many({"k": first}, 10_000)
    store.exchange_many({"k": second}, 10_000)
    assert store.write_versioned("k", first, newer, 60_000, 10_000) == Written.LEFT
    assert store.get_many(["k"])[0][:HEAD] == second[:HEAD]  # type: ignore[index]
    assert store.write_versioned("k", second, older, 60_000, 10_000) == Written.OLDER
    assert store.get_many(["k"])[0] == newer


def test_the_older_of_two_writers_who_began_first_and_ends_last_changes_nothing(
    store: MemoryStore | RedisStore,
) -> None:
    """The newer value is there already."""
    first, second = marker(FENCE, 0.0, 10.0), marker(FENCE, 0.0, 10.0)
    older, newer = value(7), value(8)
    store.exchange_many({"k": first}, 10_000)
    store.exchange_many({"k": second}, 10_000)
    assert store.write_versioned("k", second, newer, 60_000, 10_000) == Written.STORED
    assert store.write_versioned("k", first, older, 60_000, 10_000) == Written.OLDER
    assert store.get_many(["k"])[0] == newer


def test_a_load_of_an_older_row_does_not_replace_a_newer_one(store: MemoryStore | RedisStore) -> None:
    """A copy of the database that lags behind is asked for a value that is renewed: what was there stays, unclaimed."""
    newer = value(8)
    store.put_many({"k": newer}, 60_000)
    claimed = newer[:8] + bytes(8) + newer[16:47] + b"\1\1\1\1" + newer[51:59]
    assert store.claim("k", newer, claimed, 0) is None
    assert store.swap("k", claimed, value(7), 60_000) is False
    kept = unpack(store.get_many(["k"])[0] or b"")
    assert (kept.version, kept.busy) == (8, 0.0)
    assert store.swap("k", claimed, value(8), 60_000) is True


def test_without_a_fence_of_ones_own_nothing_is_known(store: MemoryStore | RedisStore) -> None:
    """A writer whose fence is gone stores only over a value whose version tells which is newer."""
    fence = marker(FENCE, 0.0, 10.0)
    assert store.write_versioned("k", fence, value(5), 60_000, 10_000) == Written.UNKNOWN
    for there in (marker(LEASE, 0.0, 10.0), marker(TOMBSTONE, 0.0, 10.0), value(0), b"strange"):
        store.put_many({"k": there}, 60_000)
        assert store.write_versioned("k", fence, value(5), 60_000, 10_000) == Written.UNKNOWN
        assert store.get_many(["k"])[0] == there
        assert store.write_versioned("k", None, value(5), 60_000, 10_000) == Written.STORED


def test_values_of_writers_who_met_live_one_lease() -> None:
    """A third writer may have been at work: what it cannot tell goes by itself."""
    clock = FakeClock()
    table = Table(10, clock)
    table.put_many({"k": value(5)}, 60_000)
    assert table.write_versioned("k", marker(FENCE, 0.0, 10.0), value(6), 60_000, 10_000) == Written.STORED
    clock.advance(9)
    assert table.get_many(["k"]) != [None]
    clock.advance(2)
    assert table.get_many(["k"]) == [None]


def test_who_waits_is_woken_by_a_value_that_is_refused_for_its_version(store: MemoryStore | RedisStore) -> None:
    """A load that gives an older version than what is there ends like any other: nobody waits for the lease."""
    newer = value(8)
    store.put_many({"k": newer}, 60_000)
    entry = unpack(newer)
    header = claimed(entry, entry.created, 10.0)
    assert store.claim("k", newer, header, 10_000) is None
    assert store.claim("k", None, marker(LEASE, entry.created, 10.0), 10_000) is not None  # somebody waits
    ended = threading.Event()
    waiter = threading.Thread(target=lambda: (store.wait("k", unpack(header).token, 10.0), ended.set()))
    waiter.start()
    time.sleep(0.02)
    assert store.swap("k", header, value(7), 60_000) is False
    assert ended.wait(3)
    waiter.join(3)
