"""What every cache does for who writes through it, also where that fails."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest
import sqlalchemy.exc
from people import Database, User, said, writer

from resilient.errors import Refused
from resilient.testing import FakeClock


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
    assert said(get_user.lookup(17)) == ("newer", "loader")  # nobody knew whose value was newer


@pytest.mark.parametrize("late", [False, True], ids=["in turn", "the older is late"])
def test_with_versions_the_newer_of_racing_writers_is_served_from_the_cache(
    kind: Any, database: Database, late: bool
) -> None:
    """It is kept, whichever of the two is done last."""
    mine, other = kind(), kind()
    options = {"version_of": lambda user: len(user.name)}
    get_user, save = writer(mine, database, **options)
    _, save_quickly = writer(other, database, **options)

    @mine.write_through("user:{user_id}", **options)
    def save_slowly(user_id: int) -> User:
        older = database.rows[user_id] = User(user_id, "older")
        save_quickly(user_id, "the newer")
        return older

    get_user(17)
    if late:
        save_slowly(17)
    else:
        save(17, "older")
        save_quickly(17, "the newer")
    assert said(get_user.lookup(17)) == ("the newer", kind.source)


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
    cache, dead = kind(lease=kind.lease), kind(lease=kind.lease)
    get_user, _ = writer(cache, database)
    assert get_user(17).name == "Ada"
    kind.done(dead.main.commits.begin([dead.physical("user:17")]))  # it fences the key, and then
    database.rows[17] = User(17, "Eve")  # commits, and is no more
    for _ in range(2):
        assert said(get_user.lookup(17)) == ("Eve", "loader")  # nobody stores
    kind.a_lease_later()
    assert get_user(17).name == "Eve"
    assert said(get_user.lookup(17)) == ("Eve", kind.source)


def test_a_written_value_is_kept_as_one_that_is_loaded(kind: Any, database: Database, clock: FakeClock) -> None:
    """What the writer does not say the function that loads does: the ttl, how long it is served stale, the version."""
    cache = kind()

    @cache.lazy("user:{user_id}", ttl=60, stale_if_error=600, version=2)
    def get_user(user_id: int) -> User:
        return database.read(user_id)

    @cache.write_through("user:{user_id}")
    def save_user(user_id: int, name: str) -> User:
        database.rows[user_id] = User(user_id, name)
        return database.rows[user_id]

    save_user(17, "Eve")
    assert said(get_user.lookup(17)) == ("Eve", kind.source)
    clock.advance(61)
    database.down = True
    found = get_user.lookup(17)
    assert (found.value.name, found.stale) == ("Eve", True)
    database.down = False
    clock.advance(2)  # until then the failing database is left alone
    assert get_user.lookup(17).source == "loader"


def test_a_writer_may_name_a_life_of_its_own(kind: Any, database: Database, clock: FakeClock) -> None:
    """The ttl that a writer names counts, whatever the function that loads says."""
    cache = kind()

    @cache.lazy("user:{user_id}", ttl=600)
    def get_user(user_id: int) -> User:
        return database.read(user_id)

    @cache.write_through("user:{user_id}", ttl=5)
    def save_user(user_id: int, name: str) -> User:
        database.rows[user_id] = User(user_id, name)
        return database.rows[user_id]

    save_user(17, "Eve")
    assert get_user.lookup(17).source == kind.source
    clock.advance(6)
    assert get_user.lookup(17).source == "loader"
