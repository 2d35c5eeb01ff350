"""The short ways of reading many, which must give what the careful ways give."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from resilient.cache import _keys
from resilient.cache._codecs import ABSENCE, ANYTHING
from resilient.cache._codecs._codec import Codec, Settings
from resilient.cache._entry import (
    FORMAT,
    HEADER,
    LEASE,
    MAGIC,
    NEGATIVE,
    SIZE,
    TOMBSTONE,
    Entry,
    Unreadable,
    bearing,
    pack,
)
from resilient.cache._keys import physical, physical_many
from resilient.cache._quick import NOTHING, fresh, fresh_many
from resilient.cache._tags import pack_tags
from resilient.errors import InvalidInput

NOW, GENERATION = 1000.0, 7
CODECS = [
    Codec(ANYTHING),
    Codec(ANYTHING, 1),
    Codec(ANYTHING, 2),
    Codec(ANYTHING, settings=Settings(secret="a secret of a test")),
    Codec(ANYTHING, settings=Settings(compress="zlib", compress_over=0)),
]
BLOCK = pack_tags([("tag", 5)])

ENTRIES = st.builds(
    lambda codec, value, flags, created, lasts, generation, tags: pack(
        Entry(
            codec.encode(value)[1],
            codec.encode(value)[0],
            codec.schema,
            flags,
            1,
            created,
            lasts,
            lasts * 2,
            0.0,
            generation=generation,
            tags=tags,
        )
    ),
    st.sampled_from(CODECS),
    st.one_of(st.none(), st.integers(-5, 5), st.text(max_size=5), st.lists(st.integers(0, 3), max_size=3)),
    st.sampled_from([0, 0, 0, NEGATIVE, TOMBSTONE, LEASE]),
    st.sampled_from([NOW - 5, NOW - 50, NOW + 5]),
    st.sampled_from([10.0, 100.0]),
    st.sampled_from([GENERATION, GENERATION, 0, 8]),
    st.sampled_from([b"", b"", BLOCK]),
)
CUT = st.builds(lambda raw, at: raw[: at % len(raw)], ENTRIES, st.integers(0, 200))
TURNED = st.builds(
    lambda raw, at, bit: bytes(
        [each ^ (1 << bit) if place == at % len(raw) else each for place, each in enumerate(raw)]
    ),
    ENTRIES,
    st.integers(0, 200),
    st.integers(0, 7),
)


RAWS = st.one_of(st.none(), ENTRIES, CUT, TURNED)
STAMPS = st.sampled_from([(GENERATION, b""), (0, b""), (GENERATION, BLOCK), (0, BLOCK)])


def careful(raw, generation, block, codec):
    """What a value is that is plainly fresh, told from its header part by part."""
    if raw is None or len(raw) < SIZE:
        return NOTHING
    parts = HEADER.unpack_from(raw)
    (magic, form, flags, number, schema, _, created, lasts), (length, bears) = parts[:8], parts[11:13]
    end = SIZE + length
    if (magic, form, flags) != (MAGIC, FORMAT, 0) or number == ABSENCE or not NOW - created < lasts < 1e10:
        return NOTHING
    if not generation or bears != generation or raw[SIZE:end] != block or length != len(block):
        return NOTHING
    try:
        return codec.decode(number, schema, raw[end:])
    except Unreadable:
        return NOTHING


@given(RAWS, st.sampled_from(CODECS), STAMPS)
def test_the_short_way_gives_what_the_parts_say(raw, codec, stamps):
    """Whatever stands there, damaged bytes included: the value by its stamps, its age, its type and its checksum."""
    generation, block = stamps
    short = fresh(raw, NOW, bearing(generation, block), block, codec)
    assert short == careful(raw, generation, block, codec)


@given(st.lists(RAWS, max_size=8), st.sampled_from(CODECS), STAMPS)
def test_many_are_judged_as_each_alone(raws, codec, stamps):
    """Whatever stands there, damaged bytes included: the same values, and the same left to be looked at with care."""
    generation, block = stamps
    found, left = fresh_many(raws, NOW, bearing(generation, block), block, codec)
    assert found == [fresh(raw, NOW, bearing(generation, block), block, codec) for raw in raws]
    assert left == [place for place, value in enumerate(found) if value is NOTHING]


def test_a_plain_fresh_value_is_read_the_short_way():
    """With tags and without; one under another stamp is not."""
    codec = CODECS[0]
    number, body = codec.encode({"a": [1]})
    bare = pack(Entry(body, number, codec.schema, 0, 1, NOW - 5, 10.0, 20.0, 0.0, generation=GENERATION))
    tagged = pack(Entry(body, number, codec.schema, 0, 1, NOW - 5, 10.0, 20.0, 0.0, generation=GENERATION, tags=BLOCK))
    assert fresh_many([bare, tagged], NOW, bearing(GENERATION), b"", codec) == ([{"a": [1]}, NOTHING], [1])
    assert fresh_many([bare, tagged], NOW, bearing(GENERATION, BLOCK), BLOCK, codec) == ([NOTHING, {"a": [1]}], [0])
    assert fresh_many([bare], NOW, bearing(GENERATION + 1), b"", codec) == ([NOTHING], [0])


KEYS = st.one_of(
    st.text(min_size=1, max_size=8),
    st.text("ab#{}:é", min_size=1, max_size=50),
    st.integers(190, 210).map(lambda length: "k" * length),
    st.just("k" * 100 + "#" + "0" * 32),
)


@given(KEYS)
def test_a_key_that_is_as_most_are_is_what_the_careful_way_gives(key):
    """In one step, or looked at part by part."""
    assert physical("shop", key) == f"shop:{_keys._stored(key)}"


@given(st.lists(KEYS, min_size=1, max_size=5))
def test_keys_of_many_are_those_of_each_alone(keys):
    """Together or alone, plain or hashed."""
    assert physical_many("shop", keys) == [physical("shop", key) for key in keys]


@given(st.lists(st.one_of(KEYS, st.sampled_from(["", 3, None, b"k"])), min_size=1, max_size=5))
def test_what_is_no_key_is_refused_among_many_too(keys):
    """An empty text, or no text."""
    good = all(isinstance(key, str) and key for key in keys)
    try:
        physical_many("shop", keys)
    except InvalidInput:
        assert not good
    else:
        assert good
