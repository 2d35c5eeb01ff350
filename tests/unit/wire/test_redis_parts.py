"""The parts of the Redis channel that need no server: commands, slots, addresses, redirects."""

from __future__ import annotations

import asyncio

import fakeredis
import hiredis
import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from resilient.errors import ConfigurationError
from resilient.policy.classify import Failure
from resilient.wire.redis import Script, classify, open_async_channel, open_channel
from resilient.wire.redis import _parsing as parsing
from resilient.wire.redis._addresses import Address
from resilient.wire.redis._commands import Unparsed, key_of, plain, slot_of
from resilient.wire.redis._limits import Busy, Closed
from resilient.wire.redis._slots import forwarded, read_slots

ARGUMENTS = st.one_of(
    st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20),
    st.binary(max_size=40),
    st.integers(-(2**63), 2**63),
    st.floats(allow_nan=False),
)


@settings(deadline=None)
@given(st.lists(ARGUMENTS, min_size=1, max_size=6))
def test_commands_are_packed_alike_with_and_without_hiredis(args):
    """Our own packing is what redis-py without hiredis falls back on: the bytes are those of hiredis."""
    assert parsing._pack(args) == hiredis.pack_command(tuple(args))


@given(st.one_of(st.text(alphabet=st.characters(exclude_categories=["Cs"])), st.binary()))
def test_the_short_way_for_a_get_packs_the_same(key):
    """The command of a cache hit is packed without the general code, to the same bytes."""
    assert parsing.pack(("GET", key)) == parsing._pack(("GET", key))


@pytest.mark.parametrize("args", [("SET", "k", None), ("GET", object()), ("SET", "k", [1])])
def test_what_is_no_argument_is_refused(args):
    """A value that has no form on the wire is refused before anything is sent, with redis-py's error."""
    with pytest.raises(redis.exceptions.DataError):
        parsing.pack(args)


@given(st.binary())
def test_slots_are_those_of_redis_py(key):
    """The slot of any key, with braces or without, is the one the nodes compute."""
    assert slot_of(key) == redis.cluster.key_slot(key)


@given(st.text(alphabet="{}ab", max_size=8))
def test_slots_of_keys_with_braces_are_those_of_redis_py(key):
    """Empty braces and nested ones count as the nodes count them."""
    assert slot_of(key) == redis.cluster.key_slot(key.encode())


@pytest.mark.parametrize(
    ("args", "key"),
    [
        (("GET", "k"), "k"),
        (("EVALSHA", "sha", 2, "k", "l", "arg"), "k"),
        (("EVAL", "return 1", 0), None),
        (("XREAD", "BLOCK", 10, "STREAMS", "s", "0"), "s"),
        (("XREADGROUP", "GROUP", "g", "c", "STREAMS", "s", ">"), "s"),
        (("OBJECT", "FREQ", "k"), "k"),
        (("PING",), None),
        (("SCRIPT", "FLUSH"), None),
    ],
)
def test_the_first_key_of_a_command_is_known(args, key):
    """Routing needs no question to a server."""
    assert key_of(args) == key


def test_addresses_of_all_kinds_are_read():
    """Each scheme says what it names; Valkey's words mean the same."""
    assert Address.parse("redis://h:1/2") == Address("server", (("h", 1),), "tcp", "", {"db": 2})
    assert Address.parse("valkeys://h").way == "tls"
    assert Address.parse("unix:///tmp/s").way == "unix"
    cluster = Address.parse("rediss+cluster://u:p%40@a:1,b/?ssl_cert_reqs=none")
    assert (cluster.kind, cluster.places, cluster.way) == ("cluster", (("a", 1), ("b", 6379)), "tls")
    assert cluster.options == {"username": "u", "password": "p@", "ssl_cert_reqs": "none"}
    watched = Address.parse("valkey+sentinel://:pw@a,b:9/shop/3?sentinel_password=other")
    assert (watched.kind, watched.places, watched.service) == ("sentinel", (("a", 26379), ("b", 9)), "shop")
    assert (watched.options, watched.sentinel_options) == ({"password": "pw", "db": 3}, {"password": "other"})


@pytest.mark.parametrize(
    "url",
    [
        "localhost:6379",
        "http://secret@x",
        "redis+cluster://:secret@a,b/1",
        "redis+sentinel://:secret@a",
        "redis://:secret@a,b",
        "redis://:secret@a:port",
        "redis://:secret@a/0?decode_responses=yes",
        "redis+cluster://:secret@a?no_such_word=1",
    ],
)
def test_a_wrong_address_is_refused_without_saying_it(url):
    """No socket is needed to refuse it, and its password stands in no message."""
    for opened in (open_channel, open_async_channel):
        with pytest.raises(ConfigurationError) as failure:
            opened(url)
        assert "secret" not in f"{failure.value} {failure.value.__cause__}"


def test_no_text_form_holds_a_password():
    """What is printed or logged of a channel and its parts is free of secrets."""
    for url in (
        "redis://:secret@h",
        "redis+cluster://:secret@h",
        "redis+sentinel://:secret@h/s?sentinel_password=secret",
    ):
        address = Address.parse(url)
        assert "secret" not in repr(address)
        assert "secret" not in repr(open_channel(url))


def test_the_map_of_a_cluster_is_read():
    """Ranges with their primary; a node that does not know its own name is where it was asked."""
    reply = [[0, 100, [b"a", 1, b"id", []], [b"b", 2, b"id", []]], [101, 16383, [None, 3, b"id"]]]
    assert list(read_slots(reply, ("here", 9))) == [(0, 100, ("a", 1)), (101, 16383, ("here", 3))]
    assert forwarded(redis.exceptions.AskError("7 10.0.0.1:6381"), ("here", 9)) == ("10.0.0.1", 6381)


def test_a_name_without_a_table_is_the_name_in_every_other_respect():
    """redis-py packs it, compares it and routes by it; its tables of reply functions do not know it."""
    name = Unparsed("SET")
    assert name == "SET"
    assert name.lower() == "set"
    assert name.upper() not in {"SET": 1}
    assert name.encode() == b"SET"


@pytest.mark.parametrize(
    ("reply", "name", "expected"),
    [
        ({b"a": b"1"}, "HGETALL", [b"a", b"1"]),
        ({b"s": [[b"1-0", [b"f", b"v"]]]}, "XREAD", [[b"s", [[b"1-0", [b"f", b"v"]]]]]),
        ([[b"m", 2.0], [b"n", float("inf")]], "ZRANGE", [b"m", b"2", b"n", b"inf"]),
        (True, "EXISTS", 1),
        (1.5, "ZSCORE", b"1.5"),
        (None, "GET", None),
    ],
)
def test_replies_of_the_third_protocol_are_brought_to_the_second(reply, name, expected):
    """A ready client may speak either; who reads the reply need not know."""
    assert plain(reply, name) == expected


def test_a_ready_client_must_fit():
    """The other face, a decoding client and one that waits for ever are refused where they are given."""
    endless = redis.Redis(socket_timeout=None)
    for wrong in (fakeredis.FakeAsyncRedis(), fakeredis.FakeRedis(decode_responses=True), endless, object()):
        with pytest.raises(ConfigurationError):
            open_channel(wrong)
    with pytest.raises(ConfigurationError):
        open_async_channel(fakeredis.FakeRedis())
    open_channel(endless, unbounded=True)


def test_new_errors_are_judged():
    """A closed connection says nothing of what was sent; one that was never had did nothing."""
    closed, none_free = classify(Closed("Connection closed by server.")), classify(Busy())
    assert closed is not None
    assert none_free is not None
    assert (closed.failure, closed.no_effect) == (Failure.UNAVAILABLE, False)
    assert (none_free.failure, none_free.no_effect) == (Failure.THROTTLED, True)


def test_a_ready_fake_serves_both_faces():
    """fakeredis, sync and async, runs commands, pipelines and scripts through a channel."""
    script = Script("return {KEYS[1], ARGV[1]}")
    channel = open_channel(fakeredis.FakeRedis())
    assert channel.call("SET", "k", "v") == b"OK"
    assert channel.call_many([("GET", "k"), ("GET", "none")]) == [b"v", None]
    assert channel.script(script, ["k"], ["x"]) == [b"k", b"x"]

    async def main():
        channel = open_async_channel(fakeredis.FakeAsyncRedis())
        assert await channel.call("SET", "k", "v") == b"OK"
        assert await channel.script_many(script, [(["a"], ["1"]), (["b"], ["2"])]) == [[b"a", b"1"], [b"b", b"2"]]
        assert await channel.get_many(["k", "none"]) == [b"v", None]

    asyncio.run(main())
