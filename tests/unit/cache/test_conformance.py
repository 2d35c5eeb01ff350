"""What every cache does, whatever keeps its entries and whichever face it has."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import math
import sqlite3
import threading
import time
import uuid
from decimal import Decimal
from typing import Any

import msgspec
import pytest
import sqlalchemy.exc

from resilient import events
from resilient.cache import EntryUnreadable
from resilient.errors import ConfigurationError, InvalidInput, NotFound, Refused, Unavailable
from resilient.policy import deadline
from resilient.testing import FakeClock


@dataclasses.dataclass
class Address:
    street: str
    since: dt.date


@dataclasses.dataclass
class User:
    id: int
    name: str
    address: Address | None = None
    tags: tuple[str, ...] = ()


class Colour(enum.Enum):
    RED = "red"


class Price(msgspec.Struct):
    amount: Decimal
    at: dt.datetime
    by_size: dict[int, Decimal]
    id: uuid.UUID
    raw: bytes
    colours: set[Colour]


class Database:
    """A table of rows that counts its queries."""

    def __init__(self, **rows: Any) -> None:
        self.rows: dict[int, Any] = {17: User(17, "Ada"), 18: User(18, "Bob")} | rows
        self.queries = 0
        self.down = False

    def read(self, user_id: int) -> Any:
        self.queries += 1
        if self.down:
            raise ConnectionResetError("the database is gone")
        return self.rows.get(user_id)


@pytest.fixture
def database() -> Database:
    """A database with two users."""
    return Database()


# ------------------------------------------------------------------------------------------------------ single keys


@pytest.mark.parametrize(
    "value",
    [
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
    ],
    ids=repr,
)
def test_a_plain_value_comes_back_equal_and_of_its_type(kind: Any, value: Any) -> None:
    """What is stored without a type is read back as it was, None included."""
    cache = kind()
    missing = object()
    assert cache.get("k", missing) is missing
    cache.set("k", value)
    found = cache.get("k", missing)
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


# ----------------------------------------------------------------------------------------------------- lazy loading


def test_a_cold_read_loads_once_and_a_warm_one_not_at_all(kind: Any, database: Database, clock: FakeClock) -> None:
    """First the loader, then the store, after the ttl the loader again; a second process shares the entry."""
    cache, other = kind(), kind()

    def get_user(user_id: int) -> User:
        return database.read(user_id)

    mine = cache.lazy("user:{user_id}", ttl=60)(get_user)
    theirs = other.lazy("user:{user_id}", ttl=60)(get_user)
    first = mine.lookup(17)
    assert (first.value, first.source, first.stale) == (User(17, "Ada"), "loader", False)
    clock.advance(10)
    second = theirs.lookup(17)
    assert (second.value, second.source) == (User(17, "Ada"), kind.source)
    assert second.age == pytest.approx(10, abs=0.01)
    assert database.queries == 1
    clock.advance(60)
    assert mine.lookup(17).source == "loader"
    assert database.queries == 2


def test_arguments_make_the_key(kind: Any) -> None:
    """1 and "1" are two keys, a default counts as given, and text cannot leave its part."""
    cache = kind()
    calls: list[Any] = []

    @cache.lazy("f:{a}:{b}")
    def f(a: Any, b: Any = 2) -> list[Any]:
        calls.append((a, b))
        return [a, b]

    assert f(1) == [1, 2]
    assert f(1, 2) == f(a=1, b=2) == [1, 2]
    assert f("1") == ["1", 2]
    assert f("1:2", "3") == ["1:2", "3"]
    assert f("1", "2:3") == ["1", "2:3"]
    assert f("' OR 1=1 --") == ["' OR 1=1 --", 2]
    assert len(calls) == 5


def test_without_a_template_the_whole_signature_is_the_key(kind: Any) -> None:
    """Functions of other names and methods of one class share no entries; self is no part of the key."""
    cache = kind()

    class Shop:
        @cache.lazy()
        def price(self, name: str, *, currency: str = "EUR") -> str:
            return f"{name} {currency}"

        @cache.lazy()
        def title(self, name: str) -> str:
            return f"the {name}"

    shop = Shop()
    assert shop.price("tea") == "tea EUR"
    assert shop.price("tea", currency="USD") == "tea USD"
    assert shop.title("tea") == "the tea"
    shop.price.invalidate("tea")
    assert Shop().price.lookup("tea").source == "loader"


def test_none_is_a_value(kind: Any, database: Database) -> None:
    """Without negative_ttl a loader's None is remembered like any value."""
    get_user = kind().lazy("user:{user_id}")(database.read)
    assert get_user(404) is None
    assert get_user(404) is None
    assert database.queries == 1


@pytest.mark.parametrize("raises", [False, True])
def test_absence_has_its_own_shorter_ttl(kind: Any, clock: FakeClock, raises: bool) -> None:
    """An unknown id is asked for once per negative_ttl, whether the loader returns None or raises NotFound."""
    calls = []

    @kind().lazy("user:{user_id}", ttl=300, negative_ttl=30)
    def get_user(user_id: int) -> User | None:
        calls.append(user_id)
        if raises:
            raise NotFound("no such user")
        return None

    def read() -> None:
        if raises:
            with pytest.raises(NotFound, match="no such user"):
                get_user(404)
        else:
            assert get_user(404) is None

    read()
    read()
    assert len(calls) == 1
    clock.advance(31)
    read()
    assert len(calls) == 2


def test_not_found_drops_the_value_there_was(kind: Any, clock: FakeClock, database: Database) -> None:
    """A thing that is gone is not served again, not even when its source fails later."""

    @kind().lazy("user:{user_id}", ttl=10, stale_if_error=1000)
    def get_user(user_id: int) -> User:
        found = database.read(user_id)
        if found is None:
            raise NotFound("no such user")
        return found

    assert get_user(17).name == "Ada"
    del database.rows[17]
    clock.advance(11)
    with pytest.raises(NotFound):
        get_user(17)
    database.down = True
    with pytest.raises(Unavailable):
        get_user(17)


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


def test_a_loaders_error_goes_through_and_is_not_cached(kind: Any, database: Database) -> None:
    """Without stale_if_error the caller gets the loader's own error, and the next call tries again."""
    database.rows[17] = "Ada"
    get_user = kind().lazy("user:{user_id}")(database.read)
    database.down = True
    with pytest.raises(ConnectionResetError):
        get_user(17)
    database.down = False
    assert get_user(17) == "Ada"


def test_refresh_loads_now_and_everybody_sees_it(kind: Any, database: Database) -> None:
    """refresh runs the loader though a fresh value is there; its error leaves the value as it was."""

    @kind().lazy("user:{user_id}")
    def get_user(user_id: int) -> User:
        return database.read(user_id)

    get_user(17)
    database.rows[17] = User(17, "Eve")
    assert get_user(17).name == "Ada"
    assert get_user.refresh(17).name == "Eve"
    assert get_user(17).name == "Eve"
    database.down = True
    with pytest.raises(ConnectionResetError):
        get_user.refresh(17)
    assert get_user(17).name == "Eve"


def test_the_methods_and_the_cache_agree_on_the_key(kind: Any) -> None:
    """fn.key is what the cache's own methods take."""
    cache = kind()

    @cache.lazy("user:{user_id}")
    def get_user(user_id: int) -> User:
        return User(user_id, "Ada")

    get_user(17)
    assert get_user.key(17) == "user:17"
    assert cache.get("user:17", type=User) == User(17, "Ada")
    cache.invalidate("user:17")
    assert get_user.lookup(17).source == "loader"


def test_get_or_load_needs_no_decorator(kind: Any, database: Database) -> None:
    """The same path with a key and a loader given by hand."""
    cache = kind()
    for _ in range(2):
        assert cache.get_or_load("user:17", lambda: database.read(17), type=User).name == "Ada"
    assert database.queries == 1


# ------------------------------------------------------------------------------------------------- stale on failure


def test_while_the_source_fails_the_old_value_is_served_up_to_its_limit(
    kind: Any, clock: FakeClock, database: Database
) -> None:
    """Reads go on, marked stale, up to the hard limit; then a typed Unavailable; on recovery they refresh."""

    @kind().lazy("user:{user_id}", ttl=10, stale_if_error=60)
    def get_user(user_id: int) -> User:
        return database.read(user_id)

    get_user(17)
    database.down = True
    database.rows[17] = User(17, "Eve")
    clock.advance(11)
    stale = get_user.lookup(17)
    assert (stale.value.name, stale.stale, stale.source) == ("Ada", True, kind.source)
    assert stale.age == pytest.approx(11, abs=0.01)
    asked = database.queries
    for _ in range(50):
        assert get_user(17).name == "Ada"
    assert database.queries == asked  # a source that just failed is left alone for a moment
    clock.advance(1.5)
    assert get_user.lookup(17).stale
    assert database.queries == asked + 1
    database.down = False
    clock.advance(1.5)
    fresh = get_user.lookup(17)
    assert (fresh.value.name, fresh.stale, fresh.source) == ("Eve", False, "loader")
    database.down = True
    clock.advance(71)
    with pytest.raises(Unavailable) as failure:
        get_user(17)
    assert isinstance(failure.value.__cause__, ConnectionResetError)


def test_a_mistake_of_the_program_is_not_hidden_by_an_old_value(kind: Any, clock: FakeClock) -> None:
    """stale_if_error covers a source that fails, not a loader that is wrong."""
    answers: list[Any] = ["old"]

    @kind().lazy("k", ttl=10, stale_if_error=60)
    def load() -> str:
        return answers[0] + ""

    load()
    answers[0] = None
    clock.advance(11)
    with pytest.raises(TypeError):
        load()


# ---------------------------------------------------------------------------------------------------- invalidation


def test_a_load_that_began_before_an_invalidation_is_not_stored(kind: Any) -> None:
    """The value read before the change never overwrites it, whichever process invalidates."""
    cache, other = kind(), kind()
    for invalidator in (cache, other):
        row = ["old"]

        def load(row: list[str] = row, invalidator: Any = invalidator) -> str:
            value = row[0]
            if value == "old":  # while this load is on its way, somebody writes and invalidates
                row[0] = "new"
                invalidator.invalidate("k")
            return value

        assert cache.get_or_load("k", load) == "old"
        assert cache.get("k") is None
        assert cache.get_or_load("k", load) == "new"
        assert cache.get_or_load("k", lambda: "newer") == "new"
        cache.invalidate("k")


def test_a_load_that_began_before_a_set_does_not_overwrite_it(kind: Any) -> None:
    """What was set while a load ran stays."""
    cache, other = kind(), kind()

    def load() -> str:
        other.set("k", "set")
        return "loaded"

    assert cache.get_or_load("k", load) == "loaded"
    assert cache.get("k") == "set"


def test_who_comes_after_an_invalidation_does_not_share_a_load_from_before(kind: Any) -> None:
    """A reader that starts after an invalidation gets a value read after it, though an older load still runs."""
    cache = kind()
    started, finish = threading.Event(), threading.Event()
    answers = iter(["old", "new"])

    def load() -> str:
        value = next(answers)
        if value == "old":
            started.set()
            assert finish.wait(10)
        return value

    results: list[str] = []
    slow = threading.Thread(target=lambda: results.append(cache.get_or_load("k", load)))
    slow.start()
    assert started.wait(10)
    cache.invalidate("k")
    assert cache.get_or_load("k", load) == "new"
    finish.set()
    slow.join(10)
    assert results == ["old"]
    assert cache.get("k") == "new"


# -------------------------------------------------------------------------------------------------- single flight


def test_of_many_callers_one_loads(kind: Any, at_once: Any, gathered: Any) -> None:
    """Many callers on a cold key run the loader once, and each gets a copy of its own."""
    cache = kind()
    calls = []

    @cache.lazy("hot")
    def load() -> list[int]:
        calls.append(1)
        gathered(29, cache)
        return [1]

    results = at_once(30, lambda _: load())
    assert results == [[1]] * 30
    assert len({id(each) for each in results}) == 30
    assert len(calls) == 1


def test_waiters_share_the_loaders_error(kind: Any, at_once: Any, gathered: Any) -> None:
    """A failing source is asked once, not once per waiter."""
    cache = kind()
    calls = []

    def load() -> str:
        calls.append(1)
        gathered(9, cache)
        raise ConnectionResetError("gone")

    results = at_once(10, lambda _: cache.get_or_load("hot", load))
    assert all(isinstance(each, ConnectionResetError) for each in results)
    assert len(calls) == 1


def test_a_waiter_obeys_its_deadline(kind: Any) -> None:
    """Who waits for another's load waits no longer than its own deadline."""
    cache = kind()
    started, finish = threading.Event(), threading.Event()

    def load() -> str:
        started.set()
        assert finish.wait(10)
        return "v"

    leader = threading.Thread(target=lambda: cache.get_or_load("k", load))
    leader.start()
    try:
        assert started.wait(10)
        with deadline(0.05), pytest.raises(TimeoutError):
            cache.get_or_load("k", load)
    finally:
        finish.set()
        leader.join(10)
    assert cache.get("k") == "v"


@pytest.mark.parametrize("seconds", [1e12, math.inf])
def test_a_waiter_may_have_all_the_time_there_is(kind: Any, seconds: float) -> None:
    """A deadline further away than the machine can wait is no error: the value comes when it is loaded."""
    cache = kind()
    started = threading.Event()

    def load() -> str:
        started.set()
        time.sleep(0.1)
        return "v"

    leader = threading.Thread(target=lambda: cache.get_or_load("k", load))
    leader.start()
    assert started.wait(10)
    with deadline(seconds):
        assert cache.get_or_load("k", load) == "v"
    leader.join(10)


# --------------------------------------------------------------------------------------------------- write-through


def writer(cache: Any, database: Database, **options: Any) -> tuple[Any, Any]:
    @cache.lazy("user:{user_id}")
    def get_user(user_id: int) -> User:
        return database.read(user_id)

    @cache.write_through("user:{user_id}", **options)
    def save_user(user_id: int, name: str, fails: BaseException | None = None) -> User:
        if fails is not None:
            raise fails
        database.rows[user_id] = User(user_id, name)
        return database.rows[user_id]

    return get_user, save_user


def test_a_write_stores_first_and_then_caches(kind: Any, database: Database) -> None:
    """After a save the new value is served without a query, to every process."""
    get_user, save_user = writer(kind(), database)
    theirs, _ = writer(kind(), database)
    assert get_user(17).name == "Ada"
    assert save_user(17, "Eve") == User(17, "Eve")
    assert theirs.lookup(17).source == kind.source
    assert get_user(17).name == "Eve"
    assert database.queries == 1


def test_a_failed_write_leaves_the_cache_as_it_was(kind: Any, database: Database, clock: FakeClock) -> None:
    """A rollback keeps the cached value and its age; a key that was not cached stays uncached."""
    get_user, save_user = writer(kind(), database)
    get_user(17)
    clock.advance(5)
    with pytest.raises(Refused):
        save_user(17, "Eve", Refused("rolled back"))
    kept = get_user.lookup(17)
    assert (kept.value.name, kept.source) == ("Ada", kind.source)
    assert kept.age == pytest.approx(5, abs=0.01)
    with pytest.raises(Refused):
        save_user(18, "Eve", Refused("rolled back"))
    assert get_user.lookup(18).source == "loader"


def test_a_statement_that_the_database_refused_leaves_the_cache_as_it_was(kind: Any, database: Database) -> None:
    """A duplicate key, told by the driver's number, changed nothing."""
    get_user, save_user = writer(kind(), database)
    get_user(17)
    with sqlite3.connect(":memory:") as base:
        base.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")
        base.execute("INSERT INTO t VALUES (1)")
        with pytest.raises(sqlite3.IntegrityError) as duplicate:
            base.execute("INSERT INTO t VALUES (1)")
    base.close()
    with pytest.raises(sqlalchemy.exc.IntegrityError):
        save_user(17, "Eve", sqlalchemy.exc.IntegrityError("INSERT", {}, duplicate.value))
    assert get_user.lookup(17).source == kind.source


class DriverError(Exception):
    """An error of a driver that nobody knows."""


@pytest.mark.parametrize("error", [KeyError("id"), DriverError(2013, "Lost connection during query")], ids=repr)
def test_a_writer_that_commits_and_then_fails_forgets_the_value(kind: Any, database: Database, error: Any) -> None:
    """Whatever does not say that nothing was changed may come after the commit: the old value is not served again."""
    cache = kind()
    get_user, _ = writer(cache, database)

    @cache.write_through("user:{user_id}")
    def save(user_id: int, name: str) -> User:
        database.rows[user_id] = User(user_id, name)
        raise error

    get_user(17)
    with pytest.raises(type(error)):
        save(17, "Eve")
    assert get_user(17).name == "Eve"


def test_a_write_whose_outcome_is_unknown_forgets_the_value(kind: Any, database: Database) -> None:
    """When the connection broke at COMMIT, the row may be new: it is read again."""
    get_user, save_user = writer(kind(), database)
    get_user(17)
    with pytest.raises(ConnectionResetError):
        save_user(17, "Eve", ConnectionResetError("at COMMIT"))
    assert get_user.lookup(17).source == "loader"


@pytest.mark.parametrize("result", [1, None, True], ids=repr)
def test_a_writer_that_returns_no_value_invalidates(kind: Any, database: Database, result: Any) -> None:
    """A count of rows is not cached as the value."""
    cache = kind()
    get_user, _ = writer(cache, database)

    @cache.write_through("user:{user_id}")
    def rename(user_id: int, name: str) -> Any:
        database.rows[user_id] = User(user_id, name)
        return result

    get_user(17)
    assert rename(17, "Eve") == result
    assert get_user.lookup(17).source == "loader"
    assert get_user(17).name == "Eve"


def test_a_written_value_that_cannot_be_cached_is_no_error(kind: Any, database: Database) -> None:
    """The store has taken it, so the call succeeds; the key is invalidated."""
    cache = kind()
    get_user, _ = writer(cache, database)
    cursor = object()

    @cache.write_through("user:{user_id}")
    def rename(user_id: int, name: str) -> Any:
        database.rows[user_id] = User(user_id, name)
        return cursor

    get_user(17)
    assert rename(17, "Eve") is cursor
    assert get_user(17).name == "Eve"


def test_only_if_present_leaves_unread_keys_alone(kind: Any, database: Database) -> None:
    """A value nobody reads is not cached by its writer; one that is cached is replaced."""
    get_user, save_user = writer(kind(), database, only_if_present=True)
    save_user(18, "Eve")
    assert get_user.lookup(18).source == "loader"
    save_user(18, "Fay")
    assert get_user.lookup(18).value.name == "Fay"
    assert get_user.lookup(18).source == kind.source


def test_of_two_racing_writers_the_newer_value_is_served(kind: Any, database: Database) -> None:
    """The older writer, delayed before its cache write, does not put its value over the newer one."""
    mine, other = kind(), kind()
    get_user, _ = writer(mine, database)
    _, save_quickly = writer(other, database)

    @mine.write_through("user:{user_id}")
    def save_slowly(user_id: int) -> User:
        older = database.rows[user_id] = User(user_id, "older")
        save_quickly(user_id, "newer")  # commits and caches while this one is still on its way back
        return older

    get_user(17)
    save_slowly(17)
    assert database.rows[17].name == "newer"
    assert get_user(17).name == "newer"


def test_a_reader_during_a_write_does_not_bring_the_old_value_back(kind: Any, database: Database) -> None:
    """What is read from the source before COMMIT is not cached after it."""
    mine, other = kind(), kind()
    theirs, _ = writer(other, database)

    @mine.write_through("user:{user_id}")
    def save(user_id: int, name: str) -> User:
        assert theirs(user_id).name == "Ada"  # read while the transaction is open
        database.rows[user_id] = User(user_id, name)
        return database.rows[user_id]

    save(17, "Eve")
    assert theirs(17).name == "Eve"


def test_a_writer_that_dies_costs_one_lease(kind: Any, database: Database, clock: FakeClock) -> None:
    """After a crash between COMMIT and the cache write nothing old is served, and caching resumes."""
    cache = kind(lease=5.0)
    get_user, _ = writer(cache, database)
    dead: Any = kind(lease=5.0)

    class Killed(BaseException):
        pass

    @dead.write_through("user:{user_id}")
    def save(user_id: int) -> User:
        database.rows[user_id] = User(user_id, "Eve")
        raise Killed

    get_user(17)
    with pytest.raises(Killed):
        save(17)
    assert get_user(17).name == "Eve"
    if kind.source == "local" or kind.face == "sync":
        clock.advance(6)
    assert get_user(17).name == "Eve"


# ------------------------------------------------------------------------------------------------------- the rest


@pytest.mark.parametrize(
    "raw",
    [b"", b"x", b"\xce" * 10, b"\xce\x01" + b"\x00" * 40, b"\xce\x03" + b"\x00" * 40, b"{}" * 40, bytes(range(256))],
    ids=repr,
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
        assert cache.get("k") == "v" or not raw
    finally:
        unsubscribe()
    if raw != b"\xce\x01" + b"\x00" * 40:  # a well-formed header, whose life is over
        assert cache.stats().unreadable >= 1
        assert seen.events


def test_an_entry_written_for_another_layout_is_a_miss(kind: Any) -> None:
    """Entries of a former version of the type count as a miss, never as an error."""
    old = dataclasses.make_dataclass("User", [("id", int)])
    new = dataclasses.make_dataclass("User", [("id", int), ("name", str, "new")])
    cache = kind()
    assert cache.get_or_load("k", lambda: old(1), type=old) == old(1)
    assert cache.get_or_load("k", lambda: new(2), type=new) == new(2)
    assert cache.get("k", type=new) == new(2)
    assert cache.get("k", type=old) is None


def test_a_bypassed_cache_answers_nothing_and_writes_invalidate(kind: Any, database: Database) -> None:
    """In a bypass reads load and writes leave nothing old behind; after it the cache is used again."""
    cache = kind()
    get_user, save_user = writer(cache, database)
    get_user(17)
    cache.set("k", 1)
    with cache.bypass():
        assert get_user.lookup(17).source == "loader"
        assert cache.get("k") is None
        save_user(17, "Eve")
        cache.set("k", 2)
    assert get_user.lookup(17).source == "loader"
    assert get_user(17).name == "Eve"
    assert cache.get("k") is None


def test_another_store_can_be_used_for_a_while(kind: Any) -> None:
    """use() swaps the store for a test, and back."""
    cache, other = kind(), kind(namespace="other")
    cache.set("k", 1)
    with cache.use(other):
        cache.set("k2", 2)
        assert cache.get("k2") == 2
    assert cache.get("k") == 1


def test_stats_count_what_happened(kind: Any, database: Database) -> None:
    """Hits, misses, loads and stores are counted, and the ratio follows from them."""
    cache = kind()
    get_user = cache.lazy("user:{user_id}")(database.read)
    database.rows[17] = "Ada"
    for _ in range(4):
        get_user(17)
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.loads, stats.stores) == (3, 1, 1, 1)
    assert stats.hit_ratio == 0.75
    assert stats.state == "up"
