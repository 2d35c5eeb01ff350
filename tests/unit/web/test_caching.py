"""What HTTP caches may keep of pages: as much as the entries themselves say."""

from __future__ import annotations

import asyncio
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient.cache import AsyncCache, Cache, Lookup
from resilient.errors import ConfigurationError
from resilient.testing import FakeClock
from resilient.web import caching


def found(left=60.0, revalidates=0.0, stands_in=0.0, names=("shop:a", "shop:all:{shop}")):
    return Lookup("v", "shared", 0.0, left=left, revalidates=revalidates, stands_in=stands_in, names=names)


def said(header: str) -> dict[str, int]:
    return {name: int(seconds) for name, seconds in re.findall(r"([a-z-]+)=(\d+)", header)}


@pytest.mark.parametrize(
    ("page", "header"),
    [
        ([found()], "private, max-age=60"),
        (
            [found(revalidates=30.0, stands_in=90.0)],
            "private, max-age=60, stale-while-revalidate=30, stale-if-error=90",
        ),
        ([found(left=-10.0, revalidates=30.0)], "private, max-age=0, stale-while-revalidate=20"),
        ([found(left=-40.0, revalidates=30.0)], "private, max-age=0"),
        ([found(), found(left=20.5, stands_in=5.0)], "private, max-age=20, stale-if-error=5"),
        ([found(), found(left=None)], "private, no-cache"),
    ],
)
def test_a_page_is_as_good_as_its_values(page, header):
    """A page has the times of its values, of several the shortest; what is not cached is asked for each time."""
    assert caching.cache_control(*page) == header


@given(
    st.lists(
        st.tuples(st.floats(-500, 500), st.floats(0, 500), st.floats(0, 500)).map(lambda each: found(*each)), min_size=1
    )
)
def test_no_header_promises_more_than_any_of_the_values(values):
    """Whatever a page is made of, no time in its header is beyond what one of its values would be served for."""
    told = said(caching.cache_control(*values, public=True))
    fresh = told["max-age"]
    for each in values:
        assert fresh <= max(0.0, each.left) + 1e-5
        for name, after in (("stale-while-revalidate", each.revalidates), ("stale-if-error", each.stands_in)):
            assert name not in told or fresh + told[name] <= each.left + after + 1e-5


def test_browsers_may_be_told_less_than_shared_caches():
    """Nothing purges a browser, so that it may be given less of a public page; a private page has no such thing."""
    assert caching.cache_control(found(), public=True, browsers=5) == "public, max-age=5, s-maxage=60"
    assert caching.cache_control(found(left=3.0), public=True, browsers=5) == "public, max-age=3, s-maxage=3"
    for wrong in ({"browsers": 5}, {"browsers": -1, "public": True}):
        with pytest.raises(ConfigurationError, match="browsers="):
            caching.cache_control(found(), **wrong)
    with pytest.raises(ConfigurationError, match="made of values"):
        caching.cache_control()


def test_the_entry_itself_tells_how_long():
    """The header follows the life of a real entry: loaded, read later, stale, and served since its source fails."""
    clock = FakeClock()
    with Cache(namespace="shop", ttl=100, jitter=0.5, clock=clock) as cache:
        fails = []

        @cache.lazy("price:{article}", stale_while_revalidate=0, stale_if_error=50, tags=["prices"])
        def price(article: int) -> int:
            if fails:
                raise ConnectionError
            return 100

        first = price.lookup(7)
        assert first.source == "loader"
        assert first.left is not None
        assert 50 <= first.left <= 100  # as its jitter has shortened it
        assert first.names == ("shop:price:7", "shop:tag:{prices}", "shop:all:{shop}")
        clock.advance(10)
        later = price.lookup(7)
        assert (later.source, later.names) == ("local", first.names)
        assert later.left == pytest.approx(first.left - 10)
        assert said(caching.cache_control(later)) == {"max-age": math.floor(later.left + 1e-6), "stale-if-error": 50}
        fails.append(True)
        clock.advance(later.left + 20)
        old = price.lookup(7)
        assert old.stale
        assert said(caching.cache_control(old)) == {"max-age": 0, "stale-if-error": 30}


def test_what_was_not_stored_is_kept_by_nobody():
    """A value whose key was changed while it was loaded, or that was read around the cache, is asked for each time."""
    with Cache(namespace="shop", ttl=100) as cache:

        @cache.lazy("price:{article}")
        def price(article: int) -> int:
            cache.invalidate(f"price:{article}")
            return 100

        assert caching.cache_control(price.lookup(7)) == "private, no-cache"
        with cache.bypass():
            assert caching.cache_control(price.lookup(7)) == "private, no-cache"
        cache.set("note", "n", tags=["notes"])
        note = cache.lookup("note")
        assert note is not None
        assert note.names == ("shop:note", "shop:tag:{notes}", "shop:all:{shop}")
        assert said(caching.cache_control(note)).keys() == {"max-age"}  # nobody would load it anew


def test_a_body_is_sent_once():
    """The second request brings the entity tag, and gets 304 without a body; another body is sent."""
    first = caching.page(b"hello", found(), public=True)
    tag = dict(first.headers)["ETag"]
    again = caching.page(b"hello", found(), if_none_match=f'"other", W/{tag}')
    assert (first.status, first.body) == (200, b"hello")
    assert (again.status, again.body, dict(again.headers)["ETag"]) == (304, b"", tag)
    assert "Content-Length" not in dict(again.headers)
    assert caching.page(b"hallo", found(), if_none_match=tag).status == 200


def test_names_stand_in_the_header_that_is_asked_for():
    """Blanks and commas part names, so that none is in one; a page of very many values is named by its namespace."""
    one = found(names=('shop:user:"Ada, L"', "shop:all:{shop}"))
    told = dict(caching.headers(one, one, names_in="Surrogate-Key"))
    assert told["Surrogate-Key"] == "shop:user:%22Ada%2C%20L%22 shop:all:%7Bshop%7D"
    assert dict(caching.headers(one, names_in="Cache-Tag"))["Cache-Tag"].count(",") == 1
    many = [found(names=(f"shop:{'x' * 150}:{at}", "shop:all:{shop}")) for at in range(200)]
    assert dict(caching.headers(*many, names_in="xkey"))["xkey"] == "shop:all:%7Bshop%7D"


# ------------------------------------------------------------------------------------------------------------- watching


def test_who_watches_is_told_of_every_kind_of_change():
    """Values, deletions, counters, tags and the whole; by the names that lookups bear."""
    with Cache(namespace="shop", ttl=100) as cache:
        told: list[str] = []
        end = cache.watch(told.extend)

        @cache.write_through("user:{user_id}")
        def save(user_id: int) -> dict[str, int]:
            return {"id": user_id}

        for change, names in (
            (lambda: cache.set("a", 1), ["shop:a"]),
            (lambda: cache.add("b", 1), ["shop:b"]),
            (lambda: cache.add("b", 2), []),
            (lambda: cache.incr("n"), ["shop:n"]),
            (lambda: cache.set_many({"c": 1, "d": 2}), ["shop:c", "shop:d"]),
            (lambda: cache.invalidate("a", "c"), ["shop:a", "shop:c"]),
            (lambda: save(17), ["shop:user:17"]),
            (lambda: cache.invalidate_tags("users"), ["shop:tag:{users}"]),
            (cache.clear, [cache.everything]),
            (lambda: cache.get_or_load("e", lambda: 1), []),
        ):
            told.clear()
            change()
            assert told == names
        end()
        end()
        cache.set("a", 2)
        assert told == []


def test_a_watcher_that_fails_disturbs_nobody():
    """What a watcher raises is dropped; the change is made, and the others are told."""

    async def run() -> None:
        async with AsyncCache(namespace="shop", ttl=100) as cache:
            told: list[str] = []
            cache.watch(lambda _: 1 / 0)
            cache.watch(told.extend)
            await cache.set("a", 1)
            assert await cache.get("a") == 1
            assert told == ["shop:a"]

    asyncio.run(run())
