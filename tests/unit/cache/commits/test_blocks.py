"""Blocks of `on_commit`: what is read and changed in them, for whom they hold, and both faces."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from accounts import Base, User, name_in, rename
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from resilient.cache import AsyncCache, Cache
from resilient.errors import ConfigurationError
from resilient.testing import FakeClock
from resilient.testing.cache import AsyncMemoryCache, MemoryCache


def test_a_loader_in_a_transaction_that_has_written_is_for_it_alone(
    engine: sa.Engine, cache: MemoryCache, other: Cache
) -> None:
    """What is not committed yet must not be cached."""

    with Session(engine) as session:

        @cache.lazy("user:{user_id}")
        def get_user(user_id: int) -> str:
            return str(session.scalar(sa.select(User.name).where(User.id == user_id)))

        cache.invalidate("user:17")
        with cache.on_commit(session):
            assert get_user(17) == "old"  # not written yet
            rename(session)
            cache.invalidate("user:17")
            assert get_user.lookup(17).source == "loader"
            assert get_user(17) == "new"
            assert other.get("user:17") == "old"
            session.rollback()
            assert get_user(17) == "old"
    assert other.get("user:17") == "old"


def test_a_loader_of_many_in_a_transaction_that_has_written_is_for_it_alone(
    engine: sa.Engine, cache: MemoryCache, other: Cache
) -> None:
    """What is to be stored is served, the rest is loaded, and nothing of it is cached."""

    def load(keys: list[str]) -> dict[str, str]:
        return dict.fromkeys(keys, "loaded")

    with Session(engine) as session, cache.on_commit(session) as after:
        assert cache.get_many(["a"], load_many=load) == {"a": "loaded"}
        assert other.get("a") == "loaded"
        rename(session)
        after.set("b", "new")
        after.invalidate("a")
        assert cache.get_many(list("abc"), load_many=load) == {"a": "loaded", "b": "new", "c": "loaded"}
        assert other.get_many(list("bc")) == {}
        assert cache.get_or_load("c", lambda: "own") == "own"
        session.rollback()
    assert other.get_many(list("abc")) == {"a": "loaded"}


def test_what_is_changed_after_the_commit_in_the_block_is_changed_at_once(
    engine: sa.Engine, cache: MemoryCache, other: Cache
) -> None:
    """With nothing left to wait for, the change is made, and no later rollback drops it."""
    with Session(engine) as session:
        with cache.on_commit(session):
            rename(session)
            session.commit()
            cache.set("user:17", "new")
            assert other.get("user:17") == "new"
            session.execute(sa.select(User.id)).all()
        session.rollback()
    assert other.get("user:17") == "new"


def test_without_a_transaction_changes_are_made_when_the_block_ends(
    engine: sa.Engine, cache: MemoryCache, other: Cache
) -> None:
    """Nothing is lost where the session was never used."""
    with Session(engine) as session:
        with cache.on_commit(session):
            cache.set("user:17", "new")
            assert other.get("user:17") == "old"
        assert other.get("user:17") == "new"


def test_a_block_that_fails_forgets_what_it_would_have_stored(
    engine: sa.Engine, cache: MemoryCache, other: Cache
) -> None:
    """Should the transaction be committed all the same, its keys are forgotten."""
    with Session(engine) as session:
        with contextlib.suppress(LookupError), cache.on_commit(session):
            rename(session)
            cache.set("user:17", "half done")
            raise LookupError
        session.commit()
    assert other.get("user:17") is None


def test_several_transactions_of_one_session(engine: sa.Engine, cache: MemoryCache, other: Cache) -> None:
    """Each has its own changes."""
    with Session(engine) as session, cache.on_commit(session) as after:
        for name in ("one", "two", "three"):
            rename(session, name)
            after.set("user:17", name)
            if name == "two":
                session.rollback()
            else:
                session.commit()
    assert other.get("user:17") == "three"
    assert name_in(engine) == "three"


def test_a_block_within_a_block_of_one_session_is_one(engine: sa.Engine, cache: MemoryCache, other: Cache) -> None:
    """Their changes go together, and their keys are fenced once."""
    with Session(engine) as session, cache.on_commit(session) as outer:
        outer.set("user:17", "one")
        with cache.on_commit(session) as inner:
            rename(session)
            inner.set("user:17", "new")
        session.commit()
    assert other.get("user:17") == "new"


def test_other_caches_and_other_threads_do_not_wait(
    engine: sa.Engine, cache: MemoryCache, other: Cache, at_once: Callable[..., list[Any]]
) -> None:
    """Only what this thread changes in this cache is collected."""
    with Session(engine) as session, cache.on_commit(session):
        rename(session)
        other.set("user:18", "direct")
        assert other.get("user:18") == "direct"
        at_once(1, lambda _: cache.set("user:19", "direct"))
        assert other.get("user:19") == "direct"
        session.rollback()


def test_what_is_no_session_is_refused(cache: MemoryCache) -> None:
    """With a word on which face goes with which session."""
    with pytest.raises(ConfigurationError, match="no session"):
        cache.on_commit(object())
    with pytest.raises(ConfigurationError, match="AsyncCache"):
        cache.on_commit(AsyncSession())
    with pytest.raises(ConfigurationError, match="Cache"):
        AsyncCache().on_commit(Session())


def test_a_scoped_session_is_followed(engine: sa.Engine, cache: MemoryCache, other: Cache) -> None:
    """A registry of sessions stands for the one of this thread."""
    from sqlalchemy.orm import scoped_session, sessionmaker

    registry = scoped_session(sessionmaker(engine))
    with cache.on_commit(registry):
        rename(registry())
        cache.set("user:17", "new")
        registry.commit()
    registry.remove()
    assert other.get("user:17") == "new"


def test_the_async_face_follows_an_async_session(tmp_path: Any) -> None:
    """Commit, rollback, savepoint and outage, with awaits."""

    async def story() -> None:
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/async.db")
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
            await connection.execute(sa.insert(User).values(id=17, name="old"))
        clock = FakeClock()
        cache = AsyncMemoryCache(namespace="shop", ttl=300, lease=10, clock=clock)
        other = AsyncCache(cache.store, namespace="shop", ttl=300, clock=clock)
        change = sa.update(User).where(User.id == 17).values(name="new")
        await cache.set("user:17", "old")

        async with AsyncSession(engine) as session:
            async with cache.on_commit(session) as after:
                await session.execute(change)
                await after.set("user:17", "dropped")
                await session.rollback()
            assert await other.get("user:17") == "old"
            async with session.begin(), cache.on_commit(session) as after:
                await session.execute(change)
                await cache.set("user:17", "new")
                async with session.begin_nested() as savepoint:
                    await after.invalidate("user:17")
                    await savepoint.rollback()
                assert await other.get("user:17") == "old"
            assert await other.get("user:17") == "new"
            with cache.outage():
                async with session.begin(), cache.on_commit(session) as after:
                    await session.execute(change.values(name="newest"))
                    await after.set("user:17", "newest")
            clock.advance(1)
            assert await cache.get("user:17") is None
        await engine.dispose()

    asyncio.run(story())
