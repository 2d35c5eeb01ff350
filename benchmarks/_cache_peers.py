"""The caches that are compared: each set up as its documentation shows it, over one Redis, with one value.

Peers keep pickles unless another codec is named, as they do by default; raw redis-py decodes nothing unless it says so.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import orjson
import redis
import redis.asyncio

from resilient.cache import AsyncCache, Cache

TTL = 300
VALUE: dict[str, Any] = {
    "id": 17,
    "nickname": "ada",
    "email": "ada@example.org",
    "score": 1815.12,
    "active": True,
    "created": "2026-11-20T10:00:00+00:00",
    "tags": [f"tag-{number}" for number in range(10)],
    "address": {"street": "St James's Square 12", "city": "London", "zip": "SW1Y 4JH", "country": "GB"},
    "orders": [{"id": 1000 + number, "total": 19.9 + number, "state": "shipped"} for number in range(5)],
    "settings": {"theme": "dark", "mails": False, "language": "en"},
    "note": "n" * 400,
}
RAW = orjson.dumps(VALUE)
KEY = "user:17"
MANY = [f"many:{number}" for number in range(100)]


@dataclass
class Contender:
    """What one cache does, as calls without arguments; ``miss`` is given a key that nobody has used."""

    name: str
    hit: Callable[[], Any] | None = None
    miss: Callable[[str], Any] | None = None
    many: Callable[[], Any] | None = None
    close: Callable[[], Any] | None = None
    fill: Callable[[], Any] | None = None
    """Stores what ``many`` reads, where that has to be awaited."""


def load() -> dict[str, Any]:
    return VALUE


async def aload() -> dict[str, Any]:
    return VALUE


def load_many(keys: Any) -> dict[str, Any]:
    return dict.fromkeys(keys, VALUE)


async def aload_many(keys: Any) -> dict[str, Any]:
    return dict.fromkeys(keys, VALUE)


# ------------------------------------------------------------------------------------------------------------- sync


def raw_redis(url: str) -> Iterator[Contender]:
    client = redis.Redis.from_url(url)
    client.set("raw", RAW)
    client.mset(dict.fromkeys(MANY, RAW))
    yield Contender("redis-py GET", lambda: client.get("raw"), close=client.close)
    yield Contender(
        "redis-py + orjson",
        lambda: orjson.loads(client.get("raw")),
        lambda key: client.get(key) or client.set(key, orjson.dumps(load()), ex=TTL),
        lambda: [orjson.loads(raw) for raw in client.mget(MANY)],
    )


def ours(url: str) -> Iterator[Contender]:
    ready = redis.Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1)
    for name, target in (("resilient", url), ("resilient, a ready client", ready)):
        cache = Cache(target, namespace=name.replace(", ", "-").replace(" ", "-"), ttl=TTL)
        function = cache.lazy("lazy:{user_id}")(lambda user_id: VALUE)
        cache.get_or_load(KEY, load)
        function(17)
        cache.get_many(MANY, load_many=load_many)
        yield Contender(
            f"{name}: get_or_load",
            functools.partial(cache.get_or_load, KEY, load),
            functools.partial(lambda cache, key: cache.get_or_load(key, load), cache),
            functools.partial(cache.get_many, MANY, load_many=load_many),
            cache.close,
        )
        yield Contender(f"{name}: @lazy", functools.partial(function, 17), function)
        yield Contender(f"{name}: get_or_load among hits", miss=functools.partial(_lone_miss, cache))
    yield Contender("the ready client itself", close=ready.close)


def _lone_miss(cache: Cache, key: str) -> Any:
    """A miss as it is where most reads find something: its claim is not sent along with the look."""
    cache.main.loads.missed = 0
    return cache.get_or_load(key, load)


def dogpile(url: str) -> Iterator[Contender]:
    from dogpile.cache import make_region

    for name, options in (
        ("dogpile.cache", {}),
        ("dogpile.cache, distributed_lock", {"distributed_lock": True, "thread_local_lock": False}),
    ):
        region = make_region(key_mangler=lambda key: f"dogpile:{key}").configure(
            "dogpile.cache.redis", expiration_time=TTL, arguments={"url": url, **options}
        )
        region.set(KEY, VALUE)
        region.set_multi(dict.fromkeys(MANY, VALUE))
        yield Contender(
            name,
            functools.partial(region.get_or_create, KEY, load),
            functools.partial(lambda region, key: region.get_or_create(key, load), region),
            functools.partial(region.get_multi, MANY),
        )


def cachelib(url: str) -> Iterator[Contender]:
    from cachelib import RedisCache

    cache = RedisCache(urlsplit(url).hostname, urlsplit(url).port, key_prefix="cachelib:", default_timeout=TTL)
    yield _getting("cachelib", cache)


def flask_caching(url: str) -> Iterator[Contender]:
    from flask import Flask
    from flask_caching import Cache as FlaskCache

    cache = FlaskCache(
        Flask("bench"),
        config={"CACHE_TYPE": "RedisCache", "CACHE_REDIS_URL": url, "CACHE_KEY_PREFIX": "flask:"},
    )
    yield _getting("Flask-Caching", cache)


def _getting(name: str, cache: Any) -> Contender:
    """A cache without get-or-load: the two lines that its users write."""
    cache.set(KEY, VALUE)
    cache.set_many(dict.fromkeys(MANY, VALUE))
    return Contender(
        name,
        lambda: cache.get(KEY),
        lambda key: cache.get(key) or cache.set(key, load()),
        lambda: cache.get_many(*MANY),
    )


@functools.cache
def configured(url: str) -> None:
    """Django, once for each process."""
    import django
    from django.conf import settings

    settings.configure(
        INSTALLED_APPS=["cacheops"],
        CACHEOPS_REDIS=url,
        CACHEOPS_PREFIX=lambda _: "cacheops:",
        CACHES={
            "default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": url},
            "django-redis": {
                "BACKEND": "django_redis.cache.RedisCache",
                "LOCATION": url,
                "KEY_PREFIX": "django-redis",
            },
        },
    )
    django.setup()


def django(url: str) -> Iterator[Contender]:
    configured(url)
    from django.core.cache import caches

    for name, alias in (("Django core", "default"), ("django-redis", "django-redis")):
        cache = caches[alias]
        cache.set(KEY, VALUE)
        cache.set_many(dict.fromkeys(MANY, VALUE))
        yield Contender(
            name,
            functools.partial(cache.get_or_set, KEY, load, TTL),
            functools.partial(lambda cache, key: cache.get_or_set(key, load, TTL), cache),
            functools.partial(cache.get_many, MANY),
        )


def cacheops(url: str) -> Iterator[Contender]:
    configured(url)
    from cacheops import cached

    function = cached(timeout=TTL)(lambda key: VALUE)
    function(KEY)
    yield Contender("cacheops", functools.partial(function, KEY), function)


SYNC = (raw_redis, ours, dogpile, cachelib, flask_caching, django, cacheops)


# ------------------------------------------------------------------------------------------------------------ asyncio


def araw_redis(url: str) -> Iterator[Contender]:
    client = redis.asyncio.Redis.from_url(url)

    async def decoded() -> Any:
        return orjson.loads(await client.get("raw"))

    async def many() -> Any:
        return [orjson.loads(raw) for raw in await client.mget(MANY)]

    async def miss(key: str) -> None:
        if await client.get(key) is None:
            await client.set(key, orjson.dumps(await aload()), ex=TTL)

    yield Contender("redis.asyncio GET", lambda: client.get("raw"), close=client.aclose)
    yield Contender("redis.asyncio + orjson", decoded, miss, many)


def aours(url: str) -> Iterator[Contender]:
    cache = AsyncCache(url, namespace="aresilient", ttl=TTL)
    yield Contender(
        "resilient: get_or_load",
        lambda: cache.get_or_load(KEY, aload),
        lambda key: cache.get_or_load(key, aload),
        lambda: cache.get_many(MANY, load_many=aload_many),
        cache.aclose,
    )


def cashews(url: str) -> Iterator[Contender]:
    from cashews import Cache as Cashews

    cache = Cashews()
    cache.setup(url)

    keys = [f"cashews:{key}" for key in MANY]
    yield Contender(
        "cashews",
        lambda: cache.get_or_set(f"cashews:{KEY}", aload, expire=TTL),
        lambda key: cache.get_or_set(f"cashews:{key}", aload, expire=TTL),
        lambda: cache.get_many(*keys),
        cache.close,
        lambda: cache.set_many(dict.fromkeys(keys, VALUE), expire=TTL),
    )


def aiocache(url: str) -> Iterator[Contender]:
    from aiocache import Cache as Aiocache
    from aiocache.serializers import PickleSerializer

    cache = Aiocache(
        Aiocache.REDIS,
        endpoint=urlsplit(url).hostname,
        port=urlsplit(url).port,
        namespace="aiocache:",
        serializer=PickleSerializer(),
    )

    async def hit() -> Any:
        return await cache.get(KEY) or await cache.set(KEY, VALUE, ttl=TTL)

    async def miss(key: str) -> Any:
        return await cache.get(key) or await cache.set(key, await aload(), ttl=TTL)

    def fill() -> Any:
        return cache.multi_set([(key, VALUE) for key in MANY], ttl=TTL)

    yield Contender("aiocache", hit, miss, lambda: cache.multi_get(MANY), cache.close, fill)


ASYNC = (araw_redis, aours, cashews, aiocache)


def installed(makers: Any, url: str) -> list[Contender]:
    """The contenders that are installed."""
    found: list[Contender] = []
    for maker in makers:
        try:
            found += maker(url)
        except ImportError as missing:
            print(f"# {maker.__name__}: left out, {missing.name} is not installed")
    return found
