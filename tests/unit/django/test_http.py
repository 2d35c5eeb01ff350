"""Pages that HTTP caches may keep, in Django."""

from __future__ import annotations

import asyncio

import pytest
from django.http import HttpResponse, StreamingHttpResponse
from django.test import RequestFactory

from resilient.cache import AsyncCache, Cache
from resilient.django import http_cached
from resilient.testing import FakeClock

ask = RequestFactory()


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def price(clock):
    with Cache(namespace="shop", ttl=60, jitter=0, clock=clock) as cache:

        @cache.lazy("price:{article}", stale_while_revalidate=30, stale_if_error=300)
        def price(article: int) -> int:
            return 100

        yield price


def page(request, found):
    return http_cached(request, HttpResponse(f"{found.value} EUR"), found, public=True, browsers=5, names_in="xkey")


def test_a_page_is_sent_once_and_then_confirmed(price, clock):
    """A second request with the entity tag gets 304 and the times that are left."""
    first = page(ask.get("/"), price.lookup(7))
    assert first["Cache-Control"] == ("public, max-age=5, s-maxage=60, stale-while-revalidate=30, stale-if-error=300")
    assert first["xkey"] == "shop:price:7 shop:all:%7Bshop%7D"
    clock.advance(20)
    again = page(ask.get("/", HTTP_IF_NONE_MATCH=first["ETag"]), price.lookup(7))
    assert (again.status_code, again.content, again["ETag"]) == (304, b"", first["ETag"])
    assert "s-maxage=40" in again["Cache-Control"]
    assert page(ask.get("/", HTTP_IF_NONE_MATCH='"other"'), price.lookup(7)).status_code == 200


@pytest.mark.parametrize(
    ("request_", "response"),
    [
        (ask.post("/"), HttpResponse("posted")),
        (ask.get("/"), StreamingHttpResponse(iter([b"a"]))),
        (ask.get("/"), HttpResponse("gone", status=410)),
    ],
)
def test_what_is_no_plain_page_is_left_alone(price, request_, response):
    """An answer to a POST, a stream and an error are kept by nobody."""
    answered = http_cached(request_, response, price.lookup(7))
    assert answered is response
    assert not answered.has_header("ETag")
    assert not answered.has_header("Cache-Control")


def test_it_serves_async_views_too():
    """A lookup of an async function tells the same."""

    async def view() -> HttpResponse:
        async with AsyncCache(namespace="shop", ttl=60, jitter=0, clock=FakeClock()) as cache:

            @cache.lazy("price:{article}")
            async def price(article: int) -> int:
                return 100

            return page(ask.get("/"), await price.lookup(7))

    assert asyncio.run(view())["Cache-Control"] == "public, max-age=5, s-maxage=60"
