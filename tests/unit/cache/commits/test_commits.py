"""The cache follows transactions of SQLAlchemy, under both faces."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import sqlalchemy as sa
from accounts import User, name_in, rename
from sqlalchemy.orm import Session

from resilient.cache import Cache
from resilient.testing import FakeClock
from resilient.testing.cache import MemoryCache


def test_values_are_written_after_the_commit_and_not_before(
    engine: sa.Engine, cache: MemoryCache, other: Cache
) -> None:
    """Nobody sees the new value before the commit, and everybody after it."""
    with Session(engine) as session, cache.on_commit(session) as after:
        rename(session)
        after.set("user:17", "new")
        assert other.get("user:17") == "old"
        session.commit()
        assert other.get("user:17") == "new"


@pytest.mark.parametrize("block", ["outside", "inside", "begin"])
def test_the_commit_may_come_in_the_block_or_after_it(
    engine: sa.Engine, cache: MemoryCache, other: Cache, block: str
) -> None:
    """The transaction decides when, wherever the block ends."""
    with Session(engine) as session:
        if block == "outside":
            with cache.on_commit(session):
                rename(session)
                cache.set("user:17", "new")
            assert other.get("user:17") == "old"
            session.commit()
        elif block == "inside":
            with cache.on_commit(session):
                rename(session)
                cache.set("user:17", "new")
                session.commit()
        else:
            with session.begin(), cache.on_commit(session):
                rename(session)
                cache.set("user:17", "new")
    assert other.get("user:17") == "new"


def test_every_way_to_change_the_cache_waits_for_the_commit(
    engine: sa.Engine, cache: MemoryCache, other: Cache
) -> None:
    """set, set_many, delete, invalidate and those of functions are collected in the block."""
    for key in "abcde":
        cache.set(key, "old")

    @cache.lazy("user:{user_id}")
    def get_user(user_id: int) -> str:
        return "loaded"

    with Session(engine) as session, cache.on_commit(session):
        rename(session)
        cache.set("a", "new")
        cache.set_many({"b": "new"})
        cache.delete("c")
        cache.invalidate("d")
        get_user.invalidate(17)
        assert [other.get(key) for key in ("a", "b", "c", "d", "user:17")] == ["old"] * 5
        assert (cache.get("a"), cache.get("c"), cache.get("d")) == ("new", None, None)
        assert cache.get_many(list("abcde")) == {"a": "new", "b": "new", "e": "old"}
        session.commit()
    assert other.get_many(["a", "b", "c", "d", "e", "user:17"]) == {"a": "new", "b": "new", "e": "old"}


def test_a_function_of_write_through_stores_at_once_and_caches_after_the_commit(
    engine: sa.Engine, cache: MemoryCache, other: Cache
) -> None:
    """In the block its database write belongs to the session's transaction, and its cache write to the commit."""
    with Session(engine) as session, cache.on_commit(session):

        @cache.write_through("user:{user_id}")
        def save_user(user_id: int, name: str) -> str:
            rename(session, name)
            return name

        assert save_user(17, "new") == "new"
        assert other.get("user:17") == "old"
        session.commit()
    assert other.get("user:17") == "new"


def test_a_writer_that_returns_a_count_invalidates(engine: sa.Engine, cache: MemoryCache, other: Cache) -> None:
    """A number of rows is not cached as the value."""
    with Session(engine) as session, cache.on_commit(session):

        @cache.write_through("user:{user_id}")
        def save_user(user_id: int) -> int:
            rename(session)
            return 1

        save_user(17)
        session.commit()
    assert other.get("user:17") is None


def test_a_writer_that_fails_forgets_its_key_should_the_rest_be_committed(
    engine: sa.Engine, cache: MemoryCache, other: Cache
) -> None:
    """What a failed writer left behind may be committed with the rest."""
    with Session(engine) as session, cache.on_commit(session):

        @cache.write_through("user:{user_id}")
        def save_user(user_id: int) -> str:
            rename(session)
            raise LookupError

        with pytest.raises(LookupError):
            save_user(17)
        session.commit()
    assert other.get("user:17") is None


def test_only_if_present_is_judged_at_the_commit(engine: sa.Engine, cache: MemoryCache, other: Cache) -> None:
    """A key that nobody reads is not filled; one that is read is."""
    with Session(engine) as session, cache.on_commit(session):

        @cache.write_through("user:{user_id}", only_if_present=True)
        def save_user(user_id: int) -> str:
            rename(session)
            return "new"

        save_user(17)
        save_user(18)
        session.commit()
    assert other.get("user:17") == "new"
    assert other.get("user:18") is None


@pytest.mark.parametrize("how", ["rollback", "close", "error"])
def test_a_rollback_leaves_the_cache_untouched(engine: sa.Engine, cache: MemoryCache, other: Cache, how: str) -> None:
    """What was collected is dropped, and nothing was fenced."""
    asked = cache.asked
    try:
        with Session(engine) as session, cache.on_commit(session) as after:
            rename(session)
            after.set("user:17", "new")
            if how == "error":
                raise LookupError
            session.rollback() if how == "rollback" else session.close()
    except LookupError:
        pass
    assert cache.asked == asked
    assert other.get("user:17") == "old"


def test_a_flush_that_fails_in_the_commit_fences_nothing(engine: sa.Engine, cache: MemoryCache, other: Cache) -> None:
    """What cannot be flushed is found out before the first fence."""
    asked = cache.asked
    with Session(engine) as session, cache.on_commit(session) as after:
        session.add(User(id=18, name="old"))  # the name is taken
        after.set("user:17", "new")
        with pytest.raises(sa.exc.IntegrityError):
            session.commit()
        session.rollback()
    assert cache.asked == asked
    assert other.get("user:17") == "old"


def test_a_savepoint_that_is_rolled_back_takes_its_changes_with_it(
    engine: sa.Engine, cache: MemoryCache, other: Cache
) -> None:
    """What was collected in it is dropped; the rest is not, nor what was collected in one that was kept."""
    for key in "abcd":
        cache.set(key, "old")
    with Session(engine) as session, cache.on_commit(session) as after:
        after.set("a", "new")
        with session.begin_nested():
            rename(session)
            after.set("b", "new")
            inner = session.begin_nested()
            after.set("c", "new")
            after.set("a", "newer")
            inner.rollback()
        outer = session.begin_nested()
        with session.begin_nested():
            after.set("d", "new")
        outer.rollback()
        session.commit()
    assert other.get_many(list("abcd")) == {"a": "new", "b": "new", "c": "old", "d": "old"}


def test_a_block_in_a_savepoint_belongs_to_it(engine: sa.Engine, cache: MemoryCache, other: Cache) -> None:
    """A block that begins within a savepoint is dropped with it."""
    with Session(engine) as session:
        rename(session, "middle")
        with session.begin_nested() as savepoint:
            with cache.on_commit(session) as after:
                after.set("user:17", "new")
            savepoint.rollback()
        session.commit()
    assert other.get("user:17") == "old"


def test_keys_are_fenced_while_the_commit_runs(engine: sa.Engine, cache: MemoryCache, other: Cache) -> None:
    """Between the fence and the end of the commit nobody can cache what is about to become old."""
    seen: list[Any] = []
    with Session(engine) as session, cache.on_commit(session) as after:
        rename(session)
        after.set("user:17", "new")

        def committing(_: sa.Connection) -> None:
            seen.append(other.get("user:17"))
            seen.append(other.get_or_load("user:17", lambda: "stale"))
            seen.append(other.get("user:17"))

        sa.event.listen(engine, "commit", committing)
        session.commit()
        sa.event.remove(engine, "commit", committing)
    assert seen == [None, "stale", None]
    assert other.get("user:17") == "new"


def test_a_load_that_began_before_the_commit_is_not_stored_after_it(
    engine: sa.Engine, cache: MemoryCache, other: Cache, clock: FakeClock
) -> None:
    """A reader that read the old row and is late cannot put it over the new value."""
    cache.delete("user:17")
    clock.advance(11)  # nothing is left of it

    def slow() -> str:
        with Session(engine) as session, cache.on_commit(session) as after:
            rename(session)
            after.invalidate("user:17")
            session.commit()
        return "old"

    assert other.get_or_load("user:17", slow) == "old"
    assert other.get("user:17") is None


class Crash(BaseException):
    """Stands for the end of the process."""


def test_a_crash_between_commit_and_cache_costs_one_lease(
    engine: sa.Engine, cache: MemoryCache, other: Cache, clock: FakeClock
) -> None:
    """The fence outlives its writer by one lease, in which readers load; then they cache again."""

    def die(*_: Any, **__: Any) -> None:
        raise Crash

    def save(session: Session) -> None:
        with cache.on_commit(session) as after:
            rename(session)
            after.set("user:17", "new")
            session.commit()

    session = Session(engine)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache.main.commits, "finish", die)
        with pytest.raises(Crash):
            save(session)
    read = functools.partial(name_in, engine)
    assert other.get("user:17") is None
    assert other.get_or_load("user:17", read) == "new"
    clock.advance(10.1)
    assert other.get_or_load("user:17", read) == "new"
    assert other.get("user:17") == "new"
    session.close()


def test_a_cache_that_is_away_fails_no_commit(engine: sa.Engine, cache: MemoryCache, clock: FakeClock) -> None:
    """The save succeeds, and the old value is not served once the cache is back."""
    with cache.outage():
        with Session(engine) as session, cache.on_commit(session) as after:
            rename(session)
            after.set("user:17", "new")
            session.commit()
        assert name_in(engine) == "new"
    clock.advance(1)
    assert cache.get("user:17") is None
    assert cache.get_or_load("user:17", lambda: name_in(engine)) == "new"


@pytest.mark.parametrize("sent", [True, False])
def test_a_commit_that_fails_forgets_only_once_it_was_sent(
    engine: sa.Engine, cache: MemoryCache, other: Cache, *, sent: bool
) -> None:
    """A COMMIT without an answer may have happened; one that was never sent has not."""
    with Session(engine) as session:

        def fail(*_: Any) -> None:
            raise ConnectionError

        with cache.on_commit(session) as after:
            rename(session)
            after.set("user:17", "new")
            place: tuple[Any, str] = (
                (engine, "commit") if sent else (session, "before_commit")
            )  # which comes after the fence
            sa.event.listen(place[0], place[1], fail)
            with pytest.raises(ConnectionError):
                session.commit()
            sa.event.remove(place[0], place[1], fail)
        session.rollback()
    assert other.get("user:17") == (None if sent else "old")


def test_two_transactions_that_write_one_key_at_once_leave_it_uncached(
    engine: sa.Engine, cache: MemoryCache, other: Cache
) -> None:
    """Neither can tell whose value is newer."""
    with Session(engine) as session, cache.on_commit(session) as after:
        rename(session)
        after.set("user:17", "new")

        def committing(_: sa.Connection) -> None:
            other.set("user:17", "newest")

        sa.event.listen(engine, "commit", committing)
        session.commit()
        sa.event.remove(engine, "commit", committing)
    assert other.get("user:17") is None


@pytest.mark.parametrize(("mine", "theirs", "kept"), [(2, 3, "newest"), (3, 2, "new")])
def test_with_versions_two_transactions_leave_the_newer_value(
    engine: sa.Engine, cache: MemoryCache, other: Cache, mine: int, theirs: int, kept: str
) -> None:
    """The version tells whose value stays, whoever comes last."""
    with Session(engine) as session, cache.on_commit(session) as after:
        rename(session)
        after.set("user:17", "new", version=mine)

        def committing(_: sa.Connection) -> None:
            other.set("user:17", "newest", version=theirs)

        sa.event.listen(engine, "commit", committing)
        session.commit()
        sa.event.remove(engine, "commit", committing)
        assert other.get("user:17") == kept
        after.delete("user:17", "user:18")
    assert other.get("user:17") is None
