"""`resilient cache inspect`: what it tells of keys and of caches, and how it ends."""

from __future__ import annotations

import asyncio
import sys
import types
from collections.abc import Iterator
from typing import Any

import fakeredis
import pytest

from resilient.cache import AsyncCache, Cache
from resilient.cache._entry import FENCE, LEASE, TOMBSTONE, Entry, marker, pack
from resilient.cache._inspect import lines_of_cache, lines_of_key
from resilient.cache._tags import pack_tags
from resilient.cli import main
from resilient.errors import NotFound
from resilient.testing import FakeClock


@pytest.fixture
def cache(clock: FakeClock) -> Cache:
    """A cache on a server that is a fake."""
    return Cache(fakeredis.FakeRedis(), namespace="shop", ttl=60, jitter=0, clock=clock, compress="zlib")


def told(cache: Any, key: str) -> str:
    return "\n".join(lines_of_key(cache, key)[1])


def test_a_value_is_told_with_its_life_codec_and_size(cache: Cache, clock: FakeClock) -> None:
    """Seconds left, both sizes, age; never the value."""
    cache.set("k", "secret words " * 500)
    clock.advance(10)
    served, lines = lines_of_key(cache, "k")
    text = "\n".join(lines)
    assert served
    assert "value, fresh for 50 s" in text
    assert "codec tagged, zlib" in text
    assert "6,503 decoded" in text
    assert "age 10 s" in text
    assert "the server keeps it for" in text
    assert "secret" not in text


def test_a_stale_value_and_one_that_is_gone(cache: Cache, clock: FakeClock) -> None:
    """Stale is still served; gone is not."""
    cache.get_or_load("k", lambda: 1, stale_if_error=30)
    assert "then stale for 30 s" in told(cache, "k")
    clock.advance(70)
    assert lines_of_key(cache, "k")[0]
    assert "stale, may be served for 20 s" in told(cache, "k")
    clock.advance(25)
    assert not lines_of_key(cache, "k")[0]
    assert "gone since 5 s" in told(cache, "k")


@pytest.mark.parametrize(
    ("flag", "words"), [(TOMBSTONE, "tombstone"), (FENCE, "fence: a writer"), (LEASE, "lease: somebody")], ids=str
)
def test_what_is_no_value_is_told_by_its_kind(cache: Cache, clock: FakeClock, flag: int, words: str) -> None:
    """A tombstone, a fence, a lease."""
    cache.store.put_many({"shop:k": marker(flag, clock.wall(), 10.0)}, 10_000)
    served, lines = lines_of_key(cache, "k")
    assert not served
    assert words in lines[1]
    assert "for 10 s at most" in lines[1]


def test_an_absence_tags_and_a_load_on_its_way(cache: Cache, clock: FakeClock) -> None:
    """What else an entry may say."""

    def missing() -> int:
        raise NotFound("no such user")

    with pytest.raises(NotFound):
        cache.get_or_load("gone", missing, negative_ttl=30)
    assert "absence: there is no such thing" in told(cache, "gone")
    number, body = cache.codec().encode(1)
    tags = pack_tags([("users", 1), ("user:1", 2)])
    entry = Entry(body, number, 0, 0, 1, clock.wall(), 60.0, 60.0, 0.25, tags=tags, busy=5.0)
    cache.store.put_many({"shop:k": pack(entry)}, 10_000)
    text = told(cache, "k")
    assert "tags: users, user:1" in text
    assert "its load took 0.25 s" in text
    assert "loads it anew, for 5 s at most" in text


def test_bytes_that_are_none_of_ours_are_told(cache: Cache) -> None:
    """Foreign, damaged or signed: with the reason, and not as served."""
    assert lines_of_key(cache, "nothing") == (False, ["nothing", "  nothing"])
    cache.store.put_many({"shop:foreign": b"hello"}, 10_000)
    assert "no entry of this version" in told(cache, "foreign")
    cache.set("k", 1)
    raw = cache.store.get_many(["shop:k"])[0]
    assert raw is not None
    cache.store.put_many({"shop:k": raw[:-1] + b"\xff"}, 10_000)
    served, lines = lines_of_key(cache, "k")
    assert not served
    assert "bad checksum" in "\n".join(lines)
    signed = Cache(cache.store, namespace="shop", ttl=60, secret="a secret of sixteen bytes")
    signed.set("s", 1)
    assert "unreadable here" in told(cache, "s")
    assert lines_of_key(signed, "s")[0]


def test_a_whole_cache_is_told_with_its_keys_and_reads(cache: Cache) -> None:
    """Keys of this namespace only, and the hit ratio of this process."""
    cache.set_many({f"k{number}": number for number in range(30)})
    cache.store.put_many({"other:k": b"x"}, 10_000)
    cache.get("k1")
    cache.get("nothing")
    text = "\n".join(lines_of_cache(cache))
    assert "shop: a server, up" in text
    assert "keys: 30" in text
    assert "2 reads, hit ratio 50.0%" in text


def test_the_count_of_keys_is_bounded(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server with many keys is not asked for all of them."""
    monkeypatch.setattr("resilient.cache._inspect._ROUNDS", 2)
    monkeypatch.setattr("resilient.cache._inspect._PART", 5)
    cache.set_many({f"k{number}": number for number in range(100)})
    assert "keys: at least " in "\n".join(lines_of_cache(cache))


def test_an_async_cache_is_told_in_the_same_words(clock: FakeClock) -> None:
    """On a server and in this process."""
    server = fakeredis.FakeServer()
    one = Cache(fakeredis.FakeRedis(server=server), namespace="shop", ttl=60, jitter=0, clock=clock)
    other = AsyncCache(fakeredis.FakeAsyncRedis(server=server), namespace="shop", ttl=60, jitter=0, clock=clock)
    one.set("k", 1)
    assert lines_of_key(other, "k")[0]
    assert told(other, "k").splitlines()[:3] == told(one, "k").splitlines()[:3]
    assert "keys: 1" in "\n".join(lines_of_cache(other))
    local: AsyncCache = AsyncCache(ttl=60, clock=clock)
    asyncio.run(local.set("k", 1))
    assert lines_of_key(local, "k")[0]
    assert lines_of_cache(local) == ["cache: in this process, up"]


# --------------------------------------------------------------------------------------------------------- the command


@pytest.fixture
def module(cache: Cache) -> Iterator[None]:
    """A module with caches, as a target."""
    made = types.ModuleType("inspected_module")
    made.cache = cache  # type: ignore[attr-defined]  # made here
    made.other = 3  # type: ignore[attr-defined]  # same
    made.function = cache.lazy("n:{n}", 60)(lambda n: n)  # type: ignore[attr-defined]  # same
    made.away = Cache("redis://127.0.0.1:1/0", ttl=60)  # type: ignore[attr-defined]  # same
    sys.modules["inspected_module"] = made
    yield
    del sys.modules["inspected_module"]


def test_the_command_tells_keys_and_ends_with_0_if_all_are_served(
    module: None, cache: Cache, capsys: pytest.CaptureFixture[str]
) -> None:
    """1 where one of them is not."""
    cache.set("a", 1)
    assert main(["cache", "inspect", "inspected_module:cache", "a"]) == 0
    assert "value, fresh" in capsys.readouterr().out
    assert main(["cache", "inspect", "inspected_module:cache", "a", "b"]) == 1
    assert "b\n  nothing\n" in capsys.readouterr().out
    assert main(["cache", "inspect", "inspected_module:cache", "--namespace", "any", "a", "b"]) == 1
    assert "b\n  nothing\n" in capsys.readouterr().out
    for strays in (["--nowhere", "a"], ["a", "-x"]):
        with pytest.raises(SystemExit):
            main(["cache", "inspect", "inspected_module:cache", *strays])
    assert main(["cache", "inspect", "inspected_module:cache"]) == 0
    assert "keys: 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("inspected_module:other", "is a int, not a Cache"),
        ("inspected_module:function", "name its cache, and the key that its .key(...) tells"),
        ("inspected_module:away", "does not answer"),
        ("redis://127.0.0.1:1/0", "does not answer"),
        ("nowhere:cache", "no module"),
        ("http://127.0.0.1", "ConfigurationError"),
    ],
)
def test_the_command_ends_with_2_if_it_could_not_ask(
    module: None, target: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one line."""
    assert main(["cache", "inspect", target, "k"]) == 2
    out, err = capsys.readouterr()
    assert words in err
    assert out == ""
    assert err.count("\n") == 1
