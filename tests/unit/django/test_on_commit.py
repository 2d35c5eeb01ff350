"""The cache follows Django's transactions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import cache as django_cache
from django.core.cache import caches
from django.db import transaction
from django.db.utils import ConnectionHandler
from django.test import override_settings

from resilient.cache import AsyncCache, Cache
from resilient.django import on_commit
from resilient.errors import ConfigurationError
from resilient.testing import FakeClock
from resilient.testing.cache import MemoryCache


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def cache(clock: FakeClock) -> MemoryCache:
    """A cache with an old value."""
    made = MemoryCache(namespace="shop", ttl=300, lease=10, jitter=0.0, clock=clock)
    made.set_many(dict.fromkeys("abcd", "old"))
    return made


@pytest.fixture
def other(cache: MemoryCache, clock: FakeClock) -> Cache:
    """The cache of another process."""
    return Cache(cache.store, namespace="shop", ttl=300, lease=10, jitter=0.0, clock=clock)


@pytest.fixture(autouse=True)
def databases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two databases of Django's."""
    lite = {"ENGINE": "django.db.backends.sqlite3"}
    made = ConnectionHandler(
        {
            "default": {**lite, "NAME": str(tmp_path / "one.db")},
            "second": {**lite, "NAME": str(tmp_path / "two.db")},
        }
    )
    monkeypatch.setattr(transaction, "connections", made)
    yield
    made.close_all()


def test_values_are_written_after_the_commit_and_not_before(cache: MemoryCache, other: Cache) -> None:
    """Between the change and the commit nobody caches; after it all see the new value."""
    with transaction.atomic(), on_commit(cache) as after:
        after.set("a", "new")
        cache.set("b", "new")
        cache.invalidate("c")
        assert (cache.get("a"), cache.get("c")) == ("new", None)
        assert other.get_or_load("a", lambda: "loaded") == "loaded"
        assert other.get("a") is None
    assert other.get_many(list("abcd")) == {"a": "new", "b": "new", "d": "old"}


def test_the_commit_may_come_in_the_block(cache: MemoryCache, other: Cache) -> None:
    """And a block may see several transactions."""
    with on_commit(cache) as after:
        for value in ("one", "two"):
            with transaction.atomic():
                after.set("a", value)
            assert other.get("a") == value


def test_outside_of_any_transaction_changes_are_made_at_once(cache: MemoryCache, other: Cache) -> None:
    """As Django's own on_commit does."""
    with on_commit(cache) as after:
        after.set("a", "new")
        after.delete("b")
        assert other.get_many(list("ab")) == {"a": "new"}


def test_a_rollback_leaves_the_cache_untouched(cache: MemoryCache, other: Cache) -> None:
    """An error in the block lifts its fences."""
    with pytest.raises(LookupError), transaction.atomic(), on_commit(cache) as after:
        _fail(after)
    assert other.get_many(list("abcd")) == dict.fromkeys("abcd", "old")


def _fail(after: Any) -> None:
    after.set("a", "new")
    after.invalidate("b")
    raise LookupError


def test_a_rollback_in_the_block_lifts_its_fences(cache: MemoryCache, other: Cache) -> None:
    """Also where the error does not pass through the block."""
    with on_commit(cache) as after:
        try:
            with transaction.atomic():
                _fail(after)
        except LookupError:
            after.set("c", "new")
    assert other.get_many(list("abcd")) == {"a": "old", "b": "old", "c": "new", "d": "old"}


def test_a_rollback_after_the_block_costs_one_lease(cache: MemoryCache, other: Cache, clock: FakeClock) -> None:
    """Readers load for themselves so long, and then cache again; nothing new is served."""
    with transaction.atomic():
        with on_commit(cache) as after:
            after.set("a", "new")
        transaction.set_rollback(True)
    assert other.get_or_load("a", lambda: "old") == "old"
    assert other.get("a") is None
    clock.advance(10.1)
    assert other.get_or_load("a", lambda: "old") == "old"
    assert other.get("a") == "old"


def test_a_savepoint_that_is_rolled_back_takes_its_changes_with_it(cache: MemoryCache, other: Cache) -> None:
    """And what stood before it counts again."""
    with transaction.atomic(), on_commit(cache) as after:
        after.set("a", "outer")
        with transaction.atomic():
            after.set("b", "kept")
        try:
            with transaction.atomic():
                after.set("a", "inner")
                with transaction.atomic():
                    after.set("c", "inner")
                raise LookupError
        except LookupError:
            pass
        assert cache.get("a") == "outer"
    assert other.get_many(list("abcd")) == {"a": "outer", "b": "kept", "c": "old", "d": "old"}


def test_a_block_that_failed_forgets_if_it_is_committed_all_the_same(cache: MemoryCache, other: Cache) -> None:
    """What it would have become is unknown."""
    with transaction.atomic():
        try:
            with on_commit(cache) as after:
                _fail(after)
        except LookupError:
            pass
    assert other.get_many(list("abcd")) == {"c": "old", "d": "old"}


def test_a_function_of_write_through_caches_after_the_commit(cache: MemoryCache, other: Cache) -> None:
    """Its result, once the transaction stands."""

    @cache.write_through("user:{user_id}")
    def save_user(user_id: int) -> str:
        return "new"

    with transaction.atomic(), on_commit(cache):
        assert save_user(17) == "new"
        assert other.get("user:17") is None
    assert other.get("user:17") == "new"


def test_what_is_loaded_in_a_transaction_is_for_it_alone(cache: MemoryCache, other: Cache) -> None:
    """It may not be committed yet."""
    with transaction.atomic(), on_commit(cache):
        assert cache.get_or_load("e", lambda: "mine") == "mine"
        assert cache.get_or_load("a", lambda: "mine") == "old"
    assert other.get("e") is None


def test_another_database_has_transactions_of_its_own(cache: MemoryCache, other: Cache) -> None:
    """``using`` says which one."""
    with transaction.atomic(using="second"):
        with on_commit(cache) as after:
            after.set("a", "new")
            assert other.get("a") == "new"
        with on_commit(cache, using="second") as after:
            after.set("b", "new")
        assert other.get("b") is None
    assert other.get("b") == "new"


def test_a_cache_that_is_away_fails_no_commit(cache: MemoryCache, clock: FakeClock) -> None:
    """And the old value is not served once it is back."""
    with cache.outage(), transaction.atomic(), on_commit(cache) as after:
        after.set("a", "new")
    clock.advance(1)
    assert cache.get("a") is None


def test_hooks_of_others_run_though_ours_fails(cache: MemoryCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commit has happened: an error in the cache's own step stops nothing that follows it."""
    done: list[str] = []

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError

    with transaction.atomic():
        with on_commit(cache) as after:
            after.set("a", "new")
        transaction.on_commit(lambda: done.append("other"))
        monkeypatch.setattr(cache.main.commits, "finish", fail)
    assert done == ["other"]


def test_an_async_cache_is_refused() -> None:
    """Django's transactions are synchronous."""
    with pytest.raises(ConfigurationError, match="AsyncCache"):
        on_commit(AsyncCache())


def test_a_cache_of_django_follows_by_its_own_keys() -> None:
    """What a view deletes under the name that Django gave it is gone with the commit, whatever prefix stands before."""
    ours = {"BACKEND": "resilient.django.cache.Cache", "LOCATION": "here", "KEY_PREFIX": "shop", "VERSION": 3}
    with override_settings(CACHES={"default": ours}):
        django_cache.set_many(dict.fromkeys("abcde", "old"))
        with transaction.atomic(), on_commit(django_cache) as after:
            after.delete("a")
            after.set("b", "new", 60)
            after.set_many({"c": "new"})
            after.delete_many(["d"])
            django_cache.delete("e")
            assert [django_cache.get(key) for key in "abcde"] == [None, "new", "new", None, None]
            assert caches["default"].cache.main.lookup("django:shop:3:a", caches["default"].cache.codec()) is None
        assert django_cache.get_many("abcde") == {"b": "new", "c": "new"}
        with suppress(ZeroDivisionError), transaction.atomic(), on_commit(caches["default"]) as after:
            after.clear()
            1 / 0  # noqa: B018 - rolls back
        assert django_cache.get("b") == "new"
        with transaction.atomic(), on_commit(django_cache) as after:
            after.clear()
        assert django_cache.get_many("abcde") == {}


def test_another_cache_of_django_is_refused() -> None:
    """One that cannot be fenced."""
    theirs = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
    with override_settings(CACHES={"default": theirs}), pytest.raises(ConfigurationError, match="BACKEND"):
        on_commit(django_cache)


def test_tags_are_fenced_until_the_commit_and_forgotten_with_it(cache: MemoryCache, other: Cache) -> None:
    """Django does not say that a COMMIT is about to come: from its change on nothing that bears the tag is cached."""
    cache.set("a", "old", tags=["t"])
    cache.set("b", "old", tags=["u"])
    with transaction.atomic(), on_commit(cache) as after:
        after.invalidate_tags("t")
        after.set("c", "new", tags=["t", "u"])
        assert other.get_many(["a", "b", "d"]) == {"b": "old", "d": "old"}
        assert other.get_or_load("a", lambda: "loaded", tags=["t"]) == "loaded"
        assert cache.get_or_load("a", lambda: "own", tags=["t"]) == "own"
    assert other.get_many(["a", "b", "c", "d"]) == {"b": "old", "c": "new", "d": "old"}
    with transaction.atomic(), on_commit(cache) as after:
        after.clear()
        after.set("d", "new")
    assert other.get_many(["a", "b", "c", "d"]) == {"d": "new"}


def test_tags_of_what_was_rolled_back_stay(cache: MemoryCache, other: Cache) -> None:
    """Of a savepoint, or of the whole transaction; and outside of any transaction they are forgotten at once."""
    cache.set("a", "old", tags=["t"])
    cache.set("b", "old", tags=["u"])
    with transaction.atomic(), on_commit(cache) as after:
        after.invalidate_tags("u")
        with suppress(ZeroDivisionError), transaction.atomic():
            after.invalidate_tags("t")
            raise ZeroDivisionError
    assert other.get_many(["a", "b"]) == {"a": "old"}
    with suppress(ZeroDivisionError), transaction.atomic(), on_commit(cache) as after:
        after.invalidate_tags("t")
        raise ZeroDivisionError
    assert other.get_many(["a", "b"]) == {"a": "old"}
    with on_commit(cache) as after:
        after.invalidate_tags("t")
        assert other.get("a") is None
