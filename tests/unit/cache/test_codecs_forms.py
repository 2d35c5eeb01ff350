"""JSON, pickle and a codec of one's own; compression; and what tells that bytes are as they were written."""

from __future__ import annotations

import json
import math
import os
import pickle
import random
import zlib
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from resilient.cache import AsyncCache, Cache
from resilient.cache._codecs import (
    ABSENCE,
    ANYTHING,
    JSON,
    OWN,
    PICKLE,
    SIGNED,
    TAGGED,
    ZLIB,
    ZSTD,
    Codec,
    Settings,
    describe,
)
from resilient.cache._codecs._seal import Seal
from resilient.cache._entry import Unreadable
from resilient.errors import ConfigurationError, InvalidInput

SECRET = "a secret of more than sixteen bytes"
ROWS = [
    {
        "id": number,
        "nickname": f"gamer{number}",
        "score": number * 37 % 1000,
        "country": "GB",
        "active": number % 3 == 0,
    }
    for number in range(200)
]


def codec(*args: Any, **options: Any) -> Codec:
    return Codec(ANYTHING, 0, Settings(*args, **options))


def roundtrip(made: Codec, value: Any) -> Any:
    number, body = made.encode(value)
    return made.decode(number, made.schema, body)


# ------------------------------------------------------------------------------------------------------------ JSON

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(json_values)
def test_json_brings_back_what_json_can_say(value: Any) -> None:
    """Both writers; either reads what the other wrote, and so does anybody else."""
    one, other = codec("json"), codec("orjson")
    for writer, reader in ((one, other), (other, one)):
        number, body = writer.encode(value)
        assert number == JSON
        assert reader.decode(number, reader.schema, body) == value
        assert json.loads(body[4:]) == value


@pytest.mark.parametrize("name", ["json", "orjson"])
@pytest.mark.parametrize(
    "value",
    [(1,), {1: 2}, {"a": {1}}, [b"x"], float("nan"), [math.inf, {}], {"a": (1,)}, [[object()]], {True: 1}],
)
def test_json_refuses_what_it_would_change(name: str, value: Any) -> None:
    """Rather than bringing back a list for a tuple, text for a number, null for NaN."""
    with pytest.raises(InvalidInput, match="safe"):
        codec(name).encode(value)


def test_a_missing_library_is_named_when_the_cache_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not at the first store."""
    import sys

    monkeypatch.setitem(sys.modules, "orjson", None)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(ConfigurationError, match="orjson"):
        Cache(codec="orjson", ttl=60)
    with pytest.raises(ConfigurationError, match="zstd"):
        Cache(compress="zstd", ttl=60)
    number, body = codec().encode("x" * 9000)
    assert codec().decode(number, 0, body) == "x" * 9000
    with pytest.raises(Unreadable, match="zstandard"):
        codec().decode(TAGGED | ZSTD, 0, Seal().close(TAGGED | ZSTD, b"x"))


# ---------------------------------------------------------------------------------------------------------- pickle


class Executed:
    """Runs a function when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


def test_pickle_needs_a_secret() -> None:
    """Without one it is refused when the cache is made, as is a short one."""
    with pytest.raises(ConfigurationError, match="secret"):
        Cache(codec="pickle", ttl=60)
    for wrong in ("short", b"", [], [SECRET, "short"], 3):
        with pytest.raises((ConfigurationError, TypeError)):
            codec("pickle", secret=wrong)


def test_pickle_is_never_read_without_its_signature(tmp_path: Any) -> None:
    """A pickle bomb in whatever clothes is unreadable, and nothing of it runs."""
    made = codec("pickle", secret=SECRET)
    bomb = pickle.dumps(Executed(str(tmp_path / "executed")))
    other = codec("pickle", secret="another secret, also long")
    bodies = [bomb, Seal().close(PICKLE, bomb), Seal().close(PICKLE | SIGNED, bomb), b"\0" * 32 + bomb]
    bodies += [other._seal.close(number, bomb) for number in (PICKLE, PICKLE | SIGNED)]
    for body in bodies:
        for number in range(256):
            for reader in (made, codec(), codec("json")):
                with pytest.raises(Unreadable):
                    reader.decode(number, 0, body)
    assert list(tmp_path.iterdir()) == []
    number, body = made.encode(Executed(str(tmp_path / "executed")))
    made.decode(number, 0, body)
    assert len(list(tmp_path.iterdir())) == 1  # so the bomb was a bomb


def test_an_object_comes_back_from_pickle() -> None:
    """Whatever pickle takes; what it does not take is refused."""
    made = codec("pickle", secret=SECRET)
    value = {"a": (1, {2}, math.sqrt), 3: TypeError("x").args}
    assert roundtrip(made, value) == value
    with pytest.raises(InvalidInput, match="pickle"):
        made.encode(lambda: None)


def test_secrets_can_be_changed_while_entries_live() -> None:
    """The first of several signs, and all verify; a secret that is gone verifies nothing."""
    for name in ("pickle", "safe", "json"):
        old, both, new = (codec(name, secret=secret) for secret in ("o" * 16, ["n" * 16, "o" * 16], b"n" * 16))
        number, body = old.encode([1])
        assert number & SIGNED
        assert both.decode(number, both.schema, body) == [1]
        with pytest.raises(Unreadable, match="signature"):
            new.decode(number, new.schema, body)
        number, body = both.encode([1])
        assert new.decode(number, new.schema, body) == [1]
        assert both.decode(*both.absence("gone")[:1], 0, both.absence("gone")[1]) == "gone"


def test_a_cache_with_a_secret_reads_signed_entries_only() -> None:
    """And one without a secret reads none of them."""
    plain, signed = codec(), codec(secret=SECRET)
    for writer, reader in ((plain, signed), (signed, plain)):
        for number, body in (writer.encode([1]), writer.absence("gone")):
            with pytest.raises(Unreadable):
                reader.decode(number, 0, body)
    with pytest.raises(Unreadable, match="not signed"):
        signed.decode(TAGGED, 0, signed._seal.close(TAGGED, b"\x01"))


# --------------------------------------------------------------------------------------------------------- one's own


class Reversed:
    name = "reversed"

    def encode(self, value: Any) -> bytes:
        return value.encode()[::-1]

    def decode(self, raw: bytes) -> Any:
        return raw[::-1].decode()


def test_a_codec_of_ones_own() -> None:
    """It has a name, and its entries are not read by one of another name."""
    made = codec(Reversed())
    number, body = made.encode("abc")
    assert number == OWN
    assert made.decode(number, made.schema, body) == "abc"
    other = Reversed()
    other.name = "other"
    with pytest.raises(Unreadable, match="schema"):
        codec(other).decode(number, made.schema, body)
    with pytest.raises(Unreadable):
        codec().decode(number, 0, body)
    with pytest.raises(InvalidInput, match="reversed"):
        made.encode(3)
    broken = Reversed()
    broken.encode = lambda value: value  # type: ignore[method-assign]  # no bytes
    with pytest.raises(InvalidInput, match="not bytes"):
        codec(broken).encode("x")
    cache = Cache(ttl=60, codec=Reversed())
    cache.set("k", "abc")
    assert cache.get("k") == "abc"


@pytest.mark.parametrize(
    "options",
    [
        {"codec": "yaml"},
        {"codec": 3},
        {"codec": object()},
        {"compress": "lz4"},
        {"compress_over": -1},
        {"secret": "short"},
    ],
)
@pytest.mark.parametrize("face", [Cache, AsyncCache])
def test_a_wrong_choice_is_refused_when_the_cache_is_made(face: Any, options: dict[str, Any]) -> None:
    """With the choices there are."""
    with pytest.raises(ConfigurationError):
        face(ttl=60, **options)


# ------------------------------------------------------------------------------------------------------ compression


@pytest.mark.parametrize("method", ["zlib", "zstd"])
def test_two_hundred_rows_shrink_to_a_quarter(method: Any) -> None:
    """Against their JSON, and the longer value comes back; a value of seven bytes is stored raw."""
    for name in ("safe", "json", "orjson"):
        made = codec(name, compress=method)
        number, body = made.encode(ROWS)
        assert number & (ZLIB | ZSTD)
        assert len(body) <= len(json.dumps(ROWS)) * 0.25
        assert made.decode(number, made.schema, body) == ROWS
        number, body = made.encode("7 bytes")
        assert not number & (ZLIB | ZSTD)
        assert b"7 bytes" in body
        assert len(body) <= 13


def test_what_does_not_shrink_is_stored_as_it_is() -> None:
    """Random bytes, and what shrinks so far that it would be taken for a bomb; both are read."""
    for method in ("zlib", "zstd"):
        made = codec(compress=method)
        for value in (random.Random(1).randbytes(5000), b"\0" * 3_000_000):
            number, body = made.encode(value)
            assert roundtrip(made, value) == value
            assert number == TAGGED or len(body) * 1000 >= len(value)


def test_entries_of_other_settings_are_read() -> None:
    """What was compressed or not, by either method, is read whatever is chosen now; signed ones too."""
    for options in ({}, {"secret": SECRET}):
        writers = [codec(**options), codec(compress="zlib", **options), codec(compress="zstd", **options)]
        for writer in writers:
            number, body = writer.encode(ROWS)
            assert all(reader.decode(number, 0, body) == ROWS for reader in writers)


def test_the_size_from_which_bodies_are_compressed() -> None:
    """Only longer ones."""
    made = codec(compress="zlib", compress_over=2000)
    assert made.encode("x" * 1900)[0] == TAGGED
    assert made.encode("x" * 2100)[0] == TAGGED | ZLIB


def bombs() -> list[tuple[int, bytes]]:
    """Hundreds of megabytes in a few bytes, in several clothes."""
    deflated = zlib.compressobj(1)
    block = b"\0" * (1 << 20)
    flat = b"".join(deflated.compress(block) for _ in range(200)) + deflated.flush()
    compressor = zstandard.ZstdCompressor(level=3)
    known = compressor.compress(b"\0" * (200 << 20))
    stream = zstandard.ZstdCompressor(level=3).compressobj()
    unknown = b"".join(stream.compress(block) for _ in range(200)) + stream.flush()
    liar = bytearray(zstandard.ZstdCompressor().compress(b"abc" * 400))
    return [(ZLIB, flat), (ZSTD, known), (ZSTD, unknown), (ZSTD, bytes(liar[:5]) + b"\xff" * 8)]


def test_a_bomb_is_unreadable_and_takes_no_memory() -> None:
    """A body that says or turns out to be longer than the limits is not decompressed."""
    import tracemalloc

    made = codec()
    sealed = [(TAGGED | bit, Seal().close(TAGGED | bit, data)) for bit, data in bombs()]
    tracemalloc.start()
    try:
        for number, body in sealed:
            with pytest.raises(Unreadable):
                made.decode(number, 0, body)
        assert tracemalloc.get_traced_memory()[1] < 160 << 20  # the longest body allowed, and a copy of it
    finally:
        tracemalloc.stop()


# ------------------------------------------------------------------------------------------------------------ numbers


def test_an_unknown_number_is_unreadable() -> None:
    """Every number that this reader does not know is a miss, also with a good checksum."""
    made = codec()
    for number in range(256):
        if number & 31 in {1, 2, 3, 4} and not number & SIGNED:
            continue
        with pytest.raises(Unreadable):
            made.decode(number, 0, Seal().close(number, b"\x01"))


def test_the_numbers_never_change() -> None:
    """They stand in entries that outlive a deployment."""
    made = {
        codec().encode(1)[0]: 2,
        Codec(int).encode(1)[0]: 1,
        Codec(list[Any]).encode([(1,)])[0]: 4,
        codec("json").encode(1)[0]: 5,
        codec("pickle", secret=SECRET).encode(1)[0]: 6 | 32,
        codec(Reversed()).encode("a")[0]: 31,
        codec().absence("x")[0]: 3,
        codec(compress="zlib").encode(ROWS)[0]: 2 | 64,
        codec(compress="zstd").encode(ROWS)[0]: 2 | 128,
    }
    assert list(made) == list(made.values())
    assert codec().encode({"a": 1, "b": (2,)})[1].hex() == "e98efd9d82a16101a162d5029102"
    assert describe(ABSENCE) == "absence"
