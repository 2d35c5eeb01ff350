"""Stamps by themselves: what an entry is worth beside them, when they are extended, and what an outage does to them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from threads import Slow, start

from resilient.cache import Cache
from resilient.cache._entry import FENCE, LEASE, TOMBSTONE, Entry, marker, pack, unpack
from resilient.cache._flight import Flights
from resilient.cache._inspect import lines_of_key
from resilient.cache._keys import physical, tag_name
from resilient.cache._stamps import (
    LIFE,
    Stamps,
    extended,
    invalidated,
    is_ours,
    is_unsure,
    namespace_key,
    number,
    planted,
    recent_note,
    tag_key,
    tags_of,
)
from resilient.cache._tags import pack_tags
from resilient.errors import InvalidInput
from resilient.testing import FakeClock

NOW = 1_700_000_000.0
NAMES = ("a", "b", "c")


def entry(**given: Any) -> Entry:
    """A value."""
    return Entry(**{"body": b"v", "codec": 1, "schema": 0, "flags": 0, "token": 5, "created": NOW, "fresh": 10.0,
                    "keep": 10.0, "cost": 0.0, **given})  # fmt: skip


RAWS = st.one_of(
    st.none(),
    st.binary(max_size=70),
    st.builds(lambda life, note: planted(NOW, life, note), st.sampled_from([10.0, LIFE]), st.binary(max_size=5)),
    st.builds(lambda flag: marker(flag, NOW, 10.0), st.sampled_from([FENCE, LEASE, TOMBSTONE])),
    st.just(pack(entry())),
)


@st.composite
def worlds(draw: st.DrawFn) -> dict[str | None, bytes | None]:
    """The stamps of the namespace (``None``) and of three tags."""
    return {name: draw(RAWS) for name in (None, *NAMES)}


def marks_in(world: dict[str | None, bytes | None], names: tuple[str, ...]) -> Stamps:
    return Stamps(names, tuple(world[name] for name in (None, *names)))


# --------------------------------------------------------------------------------------------------------- the model


@given(
    worlds(), st.lists(st.sampled_from(NAMES), unique=True), st.lists(st.sampled_from(NAMES), unique=True), st.data()
)
def test_an_entry_stands_exactly_while_its_stamps_do(
    world: dict[str | None, bytes | None], borne: list[str], asked: list[str], data: st.DataObject
) -> None:
    """The stamps it was stored with are all still there, and it lacks none of the tags it is asked for."""
    taken = marks_in(world, tuple(borne))
    made = taken.on(entry(tags=pack_tags((name, 0) for name in borne)))
    whole = all(number(world[name]) for name in (None, *borne))
    assert bool(made.generation) is whole is taken.whole
    moved = data.draw(st.sets(st.sampled_from([None, *NAMES])))
    later = {name: planted(NOW, LIFE) if name in moved else raw for name, raw in world.items()}
    stamps = marks_in(later, tuple(asked))
    raw = pack(made)
    lacking = stamps.lacking(raw)
    assert set(lacking) == set(borne) - set(asked)
    stands = stamps.stand(unpack(raw), {name: later[name] for name in lacking})
    assert stands is (whole and not moved & {None, *borne} and set(asked) <= set(borne))
    if whole:
        assert stamps.borne_by(raw) is (stands and stamps.whole and tuple(asked) == tuple(borne))
        assert tags_of(made) == tuple(borne)


@given(worlds(), worlds())
def test_who_finds_other_stamps_does_not_share_a_load(
    before: dict[str | None, bytes | None], after: dict[str | None, bytes | None]
) -> None:
    """A flight is joined by who found the very stamps that its leader found, or made; by nobody who found none."""
    flights = Flights()
    first, new = flights.join("k", None, 0.0, marks_in(before, ("a",)), away=True)
    assert new
    same = all((before[name] or b"")[8:16] == (after[name] or b"")[8:16] for name in (None, "a"))
    same = same and None not in {before[None], before["a"], after[None], after["a"]}
    assert first.suits(None, 0.0, marks_in(after, ("a",))) is same
    assert not first.suits(None, 0.0, marks_in(before, ("b",)))
    first.bears(marks_in(after, ("a",)))
    assert first.suits(None, 0.0, marks_in(after, ("a",))) is (after[None] is not None is not after["a"])
    flights.overtake_tags(["b"])
    assert not first.overtaken
    flights.overtake_tags(["b", "a"])
    assert first.overtaken
    assert flights.join("k", None, 0.0, marks_in(after, ("a",)), away=True)[1]


@given(RAWS, st.floats(0, 3 * LIFE), st.floats(0, 2 * LIFE))
def test_a_stamp_is_extended_and_never_changed_by_it(raw: bytes | None, age: float, keep: float) -> None:
    """Only a long-lived one is, past half its life or where its entries live long; its number stays."""
    longer = extended(raw, NOW + age, keep)
    if longer is None:
        assert not number(raw) or is_unsure(raw) or (age < LIFE / 2 + 1 and keep <= 0.51 * LIFE)
        return
    assert number(longer) == number(raw) != 0
    assert not is_unsure(longer)
    assert extended(longer, NOW + age, keep) is None
    assert unpack(longer).keep >= max(LIFE, 2 * keep) * 0.99


@given(RAWS)
def test_what_a_stamp_is(raw: bytes | None) -> None:
    """Only a tombstone's number can be borne; whatever else stands there, nothing is valid beside it."""
    value = number(raw)
    assert (value != 0) is (raw is not None and len(raw) >= 59 and raw[:3] == planted(NOW, LIFE)[:3])
    assert not Stamps((), (raw,)).stand(entry(generation=0))
    if value == 0:
        assert not Stamps((), (raw,)).whole
    if raw is not None and value and not is_unsure(raw):
        assert unpack(raw).keep >= LIFE / 2
    assert isinstance(recent_note(raw, NOW), bytes)


def test_a_note_is_told_for_an_hour() -> None:
    """Long after it, whatever copies a database has hold what the writer had seen."""
    raw = planted(NOW, LIFE, b"1!app:5")
    assert recent_note(raw, NOW + 60) == b"1!app:5"
    assert recent_note(raw, NOW + 3601) == b""
    assert Stamps(("t",), (planted(NOW, LIFE), raw)).note(NOW) == b"1!app:5"
    assert Stamps(("t",), (None, None)).note(NOW) == b""
    assert recent_note(marker(FENCE, NOW, 10.0, b"1!app:5"), NOW) == b"1!app:5"
    assert invalidated(NOW, 10.0, b"1!app:5").body == b"1!app:5"


# ------------------------------------------------------------------------------------------------------------- names


@given(st.text(min_size=1, max_size=300) | st.text("{}#\ud800", min_size=1))
def test_a_tag_has_one_key_that_no_value_has(tag: str) -> None:
    """Its name stays as it is when it is made again, can be sent, and tells a Cluster its slot by all of itself."""
    name = tag_name(tag)
    assert tag_name(name) == name
    key = tag_key("shop", name)
    assert key.encode().count(b"{") == key.encode().count(b"}") == 1
    assert key.endswith("}")
    assert is_ours(key)
    assert is_ours(namespace_key("shop"))
    assert not is_ours(physical("shop", tag))
    assert unpack(pack(entry(tags=pack_tags([(name, 7)])))).tags == pack_tags([(name, 7)])


def test_an_entry_bears_only_so_many_tags() -> None:
    """Their names must fit into its header's count of bytes: refused with a message, not by the packing."""
    cache = Cache(namespace="shop", ttl=60)
    with pytest.raises(InvalidInput, match="tags"):
        cache.set("k", 1, tags=[f"{number:0200}" for number in range(400)])
    cache.set("k", 1, tags=[f"{number:0200}" for number in range(300)])
    assert cache.get("k") == 1


def test_inspect_tells_whether_tags_stand() -> None:
    """An entry whose tag was invalidated is served to nobody, and the line says why."""
    cache = Cache(namespace="shop", ttl=60)
    cache.set("k", 1, tags=["price", "user:17"])
    served, lines = lines_of_key(cache, "k")
    assert served
    assert "  tags: price, user:17" in lines
    cache.invalidate_tags("price")
    served, lines = lines_of_key(cache, "k")
    assert not served
    assert "  tags: price (invalidated), user:17" in lines
    cache.clear()
    served, lines = lines_of_key(cache, "k")
    assert not served
    assert "  its namespace was cleared" in lines


# ---------------------------------------------------------------------------------------------------------- an outage


@pytest.fixture
def store_name() -> str:
    """The one kind of store that can be away at will."""
    return "fake"


def test_what_is_invalidated_during_an_outage_is_gone_after_it(kind: Any, clock: FakeClock) -> None:
    """The stamps' keys stand in the journal, and are told before anything is read from the server again."""
    cache, other = kind(), kind()
    cache.set("k", "old", tags=["t"])
    cache.set("n", "old")
    table = cache.store.table
    for forget in (lambda: cache.invalidate_tags("t"), cache.clear):
        cache.set("k", "old", tags=["t"])
        table.away = ConnectionError("away")
        forget()
        assert cache.stats().journal == 1
        slow = Slow()
        loading, first = start(lambda: cache.get_or_load("k", slow, tags=["t"]))  # noqa: B023 - it ends in this round
        assert slow.inside.wait(10)
        forget()
        assert cache.get_or_load("k", lambda: "new", tags=["t"]) == "new", "it shared a load from before"
        slow.go.set()
        loading.join(10)
        table.away = None
        clock.advance(60)  # the breaker lets a call through
        assert cache.get("k") is None
        assert cache.stats().journal == 0
        assert other.get("k") is None
        assert first == ["old"]
    assert other.get("n") is None
