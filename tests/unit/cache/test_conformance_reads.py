"""What every cache does for who reads through it, alone or beside others."""

from __future__ import annotations

import math
import threading
import time
from typing import Any

import pytest
from people import Database, User

from resilient.errors import NotFound, Unavailable
from resilient.policy import deadline
from resilient.testing import FakeClock


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
