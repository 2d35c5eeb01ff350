"""Tags and transactions of SQLAlchemy: fenced before the COMMIT, forgotten after it, as they were after a rollback."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import sqlalchemy as sa
from accounts import rename
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from resilient.cache import Cache
from resilient.testing import FakeClock
from resilient.testing.cache import AsyncMemoryCache, MemoryCache


@pytest.fixture
def cache() -> MemoryCache:
    """A cache with values that bear tags."""
    made = MemoryCache(namespace="shop", ttl=300, lease=10, jitter=0.0, clock=FakeClock())
    made.set("user:17", "old", tags=["users"])
    made.set("list", "old", tags=["users", "lists"])
    made.set("bare", "old")
    return made


KEYS = ("user:17", "list", "bare")


def test_tags_are_forgotten_with_the_commit_and_its_own_values_stay(
    engine: sa.Engine, cache: MemoryCache, other: Cache
) -> None:
    """Until then others are served; after it what bears the tag is gone, but for what the transaction itself stored."""
    with Session(engine) as session, cache.on_commit(session) as after:
        rename(session)
        after.invalidate_tags("users")
        after.set("user:17", "new", tags=["users"])
        assert other.get_many(KEYS) == dict.fromkeys(KEYS, "old")
        session.commit()
    assert other.get_many(KEYS) == {"user:17": "new", "bare": "old"}
    assert other.get_or_load("list", lambda: "new", tags=["users", "lists"]) == "new"
    other.invalidate_tags("users")
    assert cache.get_many(KEYS) == {"bare": "old"}


def test_nothing_that_bears_a_tag_is_cached_while_the_commit_runs(
    engine: sa.Engine, cache: MemoryCache, other: Cache
) -> None:
    """Neither from before, nor what is read meanwhile: nobody knows which side of the commit that is from."""
    seen: list[Any] = []

    def look(*_: Any) -> None:
        seen.append(other.get_many(KEYS))
        seen.append(other.get_or_load("list", lambda: "meanwhile", tags=["users", "lists"]))

    with Session(engine) as session, cache.on_commit(session) as after:
        rename(session)
        after.invalidate_tags("users")
        sa.event.listen(engine, "commit", look, once=True)
        session.commit()
    assert seen == [{"bare": "old"}, "meanwhile"]
    assert other.get_many(KEYS) == {"bare": "old"}


@pytest.mark.parametrize("how", ["rollback", "failed commit"])
def test_a_rollback_leaves_what_bears_the_tags(engine: sa.Engine, cache: MemoryCache, other: Cache, how: str) -> None:
    """Nothing was changed, and nothing is forgotten; a COMMIT that was sent and failed forgets, as nobody knows."""
    with Session(engine) as session, cache.on_commit(session) as after:
        rename(session)
        after.invalidate_tags("users")
        if how == "rollback":
            session.rollback()
        else:
            sa.event.listen(engine, "commit", _fail, once=True)
            with pytest.raises(ConnectionError):
                session.commit()
    expected = dict.fromkeys(KEYS, "old") if how == "rollback" else {"bare": "old"}
    assert other.get_many(KEYS) == expected


def _fail(*_: Any) -> None:
    raise ConnectionError("no answer")


def test_clear_waits_for_the_commit(engine: sa.Engine, cache: MemoryCache, other: Cache) -> None:
    """All but what the transaction stored is forgotten with it."""
    with Session(engine) as session, cache.on_commit(session) as after:
        rename(session)
        after.clear()
        after.set("bare", "new")
        assert other.get_many(KEYS) == dict.fromkeys(KEYS, "old")
        session.commit()
    assert other.get_many(KEYS) == {"bare": "new"}


def test_a_value_does_not_survive_an_invalidation_by_another_meanwhile(
    engine: sa.Engine, cache: MemoryCache, other: Cache
) -> None:
    """It bears the stamps of before the COMMIT, unless they are its own transaction's."""
    with Session(engine) as session, cache.on_commit(session) as after:
        rename(session)
        after.set("list", "mine", tags=["lists"])
        sa.event.listen(engine, "commit", lambda *_: other.invalidate_tags("lists"), once=True)
        session.commit()
    assert cache.get("list") is None
    assert other.get("list") is None


def test_a_transaction_reads_for_itself_what_it_is_about_to_forget(
    engine: sa.Engine, cache: MemoryCache, other: Cache
) -> None:
    """A function whose tag is among its changes runs, and what it returns is stored nowhere; others are answered."""

    def ask(cache: Any, key: str, *tags: str) -> Any:
        return cache.get_or_load(key, lambda: "own", tags=tags)

    with Session(engine) as session, cache.on_commit(session) as after:
        rename(session)
        assert ask(cache, "user:17", "users") == "old"
        after.invalidate_tags("users")
        assert ask(cache, "user:17", "users") == "own"
        many = cache.get_many(["user:17", "new"], load_many=lambda keys: dict.fromkeys(keys, "own"), tags=["users"])
        assert many == {"user:17": "own", "new": "own"}
        assert ask(cache, "bare") == "old"
        assert other.get_many([*KEYS, "new"]) == dict.fromkeys(KEYS, "old")
        session.rollback()
    assert other.get("user:17") == "old"


def test_what_a_transaction_is_about_to_forget_it_does_not_get(
    engine: sa.Engine, cache: MemoryCache, other: Cache
) -> None:
    """By a tag that only the value names, by one that its reader names, or all; before it has written as well."""
    with Session(engine) as session, cache.on_commit(session) as after:
        assert cache.get("list") == "old"
        after.invalidate_tags("lists")
        assert cache.get("list") is None
        assert cache.get_many(KEYS) == {"user:17": "old", "bare": "old"}
        rename(session)
        assert cache.get_or_load("list", lambda: "own", tags=["users"]) == "own"
        after.clear()
        assert cache.get("bare") is None
        assert cache.get_many(KEYS) == {}
        assert other.get_many(KEYS) == dict.fromkeys(KEYS, "old")
        session.rollback()
    with Session(engine) as session, cache.on_commit(session) as after:
        after.clear()
        assert cache.get_or_load("bare", lambda: "own") == "own"
        assert cache.get_many(KEYS, load_many=lambda keys: dict.fromkeys(keys, "own")) == dict.fromkeys(KEYS, "own")
        assert other.get_many(KEYS) == dict.fromkeys(KEYS, "old")
        session.rollback()


def test_a_task_does_not_get_what_its_transaction_is_about_to_forget(tmp_path: Any) -> None:
    """The same with tasks."""

    async def main() -> None:
        cache = AsyncMemoryCache(namespace="shop", ttl=300)
        await cache.set("list", "old", tags=["lists"])
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/own.db")
        async with AsyncSession(engine) as session, cache.on_commit(session) as after:
            assert await cache.get("list") == "old"
            await after.invalidate_tags("lists")
            assert await cache.get("list") is None
            assert await cache.get_many(["list"]) == {}
            await session.rollback()
        await engine.dispose()
        await cache.aclose()

    asyncio.run(main())
