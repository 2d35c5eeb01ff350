"""What every cache does with single keys and their values, whatever keeps its entries and whichever face it has."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import uuid
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from people import Address, Database, User

from resilient import events
from resilient.cache import EntryUnreadable
from resilient.cache._entry import FORMAT, HEADER, MAGIC
from resilient.errors import ConfigurationError, InvalidInput
from resilient.testing import FakeClock


class Colour(enum.Enum):
    RED = "red"


class Price(msgspec.Struct):
    amount: Decimal
    at: dt.datetime
    by_size: dict[int, Decimal]
    id: uuid.UUID
    raw: bytes
    colours: set[Colour]


PLAIN: list[Any] = [
    0,
    "",
    None,
    False,
    -1.5,
    2**80,
    b"\x00\xff",
    [1, [2]],
    {"a": {1: "int key", (1, 2): "tuple key"}},
    (1, "two", (3,)),
    {1, 2},
    frozenset({"a"}),
    Decimal("1.10"),
    uuid.UUID(int=7),
    dt.datetime(2024, 2, 29, 12, 30, 0, 123456),  # noqa: DTZ001 - a naive one must survive too
    dt.datetime(2024, 2, 29, 12, 30, tzinfo=dt.timezone(dt.timedelta(hours=2))),
    dt.date(2024, 2, 29),
    dt.time(1, 2, 3),
    dt.timedelta(days=-1, seconds=3),
]


def test_a_plain_value_comes_back_equal_and_of_its_type(kind: Any) -> None:
    """What is stored without a type is read back as it was, None included."""
    cache = kind()
    missing = object()
    for number, value in enumerate(PLAIN):
        assert cache.get(f"k{number}", missing) is missing
        cache.set(f"k{number}", value)
    for number, value in enumerate(PLAIN):
        found = cache.get(f"k{number}", missing)
        assert found == value
        assert type(found) is type(value)


def test_an_entry_ends_with_its_ttl(kind: Any, clock: FakeClock) -> None:
    """A value is there until its ttl is over, and not after."""
    cache = kind()
    cache.set("k", "v", ttl=15)
    clock.advance(14)
    assert cache.get("k") == "v"
    clock.advance(1.5)
    assert cache.get("k") is None


def test_values_are_copies(kind: Any) -> None:
    """A caller that changes what it got changes nothing for the next caller."""
    cache = kind()
    cache.set("k", [1])
    cache.get("k").append(2)
    assert cache.get("k") == [1]


def test_what_cannot_be_brought_back_is_refused(kind: Any) -> None:
    """A value whose type would be lost is refused with advice, not stored as something else."""
    with pytest.raises(InvalidInput, match="dataclass"):
        kind().set("k", User(1, "Ada"))
    with pytest.raises(InvalidInput):
        kind().set("k", object())


def test_a_key_without_ttl_is_refused(kind: Any) -> None:
    """Neither a store nor a policy may leave an entry for ever."""
    cache = kind(ttl=None)
    with pytest.raises(ConfigurationError, match="ttl"):
        cache.set("k", 1)
    with pytest.raises(ConfigurationError, match="ttl"):
        cache.lazy("user:{user_id}")
    for wrong in (0, "60"):
        with pytest.raises(ConfigurationError, match="positive"):
            cache.lazy("user:{user_id}", ttl=wrong)


def test_a_decorator_without_brackets_is_refused(kind: Any) -> None:
    """It would be found out at the first call only."""
    with pytest.raises(ConfigurationError, match="brackets"):
        kind().lazy(lambda user_id: user_id)


def test_delete_forgets_and_add_stores_only_where_nothing_is(kind: Any) -> None:
    """After a delete a key is missing, and add may fill it; over a value add does nothing."""
    cache = kind()
    assert cache.add("k", 1) is True
    assert cache.add("k", 2) is False
    assert cache.get("k") == 1
    cache.delete("k")
    assert cache.get("k") is None
    assert cache.add("k", 3) is True
    assert cache.get("k") == 3


def test_many_keys_in_one_round_trip(kind: Any) -> None:
    """get_many returns those keys that have a value, in the order asked for."""
    cache = kind()
    cache.set_many({"a": 1, "b": None})
    assert list(cache.get_many(["c", "b", "a", "a"]).items()) == [("b", None), ("a", 1)]
    assert cache.get_many([]) == {}


def test_namespaces_do_not_meet(kind: Any) -> None:
    """Two caches over one store with different namespaces hold different entries."""
    one, two = kind(namespace="one"), kind(namespace="two")
    one.set("k", 1)
    assert two.get("k") is None


def test_none_is_a_value(kind: Any, database: Database) -> None:
    """Without negative_ttl a loader's None is remembered like any value."""
    get_user = kind().lazy("user:{user_id}")(database.read)
    assert get_user(404) is None
    assert get_user(404) is None
    assert database.queries == 1


def test_types_survive(kind: Any) -> None:
    """Dataclasses, structs and what is in them come back as what the function says it returns."""
    cache = kind()
    price = Price(
        Decimal("1.50"),
        dt.datetime(2024, 1, 1, tzinfo=dt.UTC),
        {42: Decimal("2.25")},
        uuid.UUID(int=1),
        b"\x00",
        {Colour.RED},
    )

    @cache.lazy("user:{user_id}")
    def get_user(user_id: int) -> User:
        return User(user_id, "Ada", Address("Main", dt.date(2020, 1, 1)), ("a", "b"))

    @cache.lazy("price")
    def get_price() -> Price:
        return price

    @cache.lazy("all")
    def get_all() -> dict[int, list[User]]:
        return {1: [User(1, "Ada")]}

    @cache.lazy("loose")
    def get_loose() -> dict[str, Any]:
        return {"set": {1}, "when": dt.datetime(2024, 1, 1), "cost": Decimal(1)}  # noqa: DTZ001 - naive on purpose

    for function, *args in ((get_user, 1), (get_price,), (get_all,), (get_loose,)):
        loaded, cached = function(*args), function.lookup(*args)
        assert cached.source == kind.source
        assert cached.value == loaded
        assert type(cached.value) is type(loaded)


@pytest.mark.parametrize(
    "raw",
    [
        b"x",
        bytes([MAGIC]) * 10,
        bytes([MAGIC, FORMAT]) + bytes(20),
        bytes([MAGIC, FORMAT + 1]) + bytes(100),
        b"{}" * 40,
        bytes(range(256)),
    ],
    ids=["one byte", "no header", "a short header", "another format", "JSON", "anything"],
)
def test_bytes_that_cannot_be_read_are_a_miss_and_an_event(kind: Any, raw: bytes) -> None:
    """Whatever stands under the key, the loader answers and its value replaces it."""
    cache = kind()
    seen = events.MemorySink()
    unsubscribe = events.subscribe(seen, kinds=[EntryUnreadable])
    try:
        kind.put_raw(cache, "k", raw)
        assert cache.get("k", "nothing") == "nothing"
        assert cache.get_or_load("k", lambda: "v") == "v"
        assert cache.get("k") == "v"
    finally:
        unsubscribe()
    assert cache.stats().unreadable >= 1
    assert seen.events


def test_a_header_whose_life_is_over_is_a_plain_miss(kind: Any) -> None:
    """It can be read, and says nothing: its place is taken by what is loaded."""
    cache = kind()
    kind.put_raw(cache, "k", bytes([MAGIC, FORMAT]) + bytes(HEADER.size))
    assert cache.get("k") is None
    assert cache.get_or_load("k", lambda: "v") == "v"
    assert cache.get("k") == "v"
    assert cache.stats().unreadable == 0


def test_no_bytes_at_all_are_a_miss(kind: Any) -> None:
    """An empty string under a key is nobody's: the loader answers, and a value that is set replaces it."""
    cache = kind()
    kind.put_raw(cache, "k", b"")
    assert cache.get("k", "nothing") == "nothing"
    assert cache.get_or_load("k", lambda: "v") == "v"
    cache.set("k", "w")
    assert cache.get("k") == "w"


def test_an_entry_written_for_another_layout_is_a_miss(kind: Any) -> None:
    """Entries of a former version of the type count as a miss, never as an error."""
    old = dataclasses.make_dataclass("User", [("id", int)])
    new = dataclasses.make_dataclass("User", [("id", int), ("name", str, "new")])
    cache = kind()
    assert cache.get_or_load("k", lambda: old(1), type=old) == old(1)
    assert cache.get_or_load("k", lambda: new(2), type=new) == new(2)
    assert cache.get("k", type=new) == new(2)
    assert cache.get("k", type=old) is None
