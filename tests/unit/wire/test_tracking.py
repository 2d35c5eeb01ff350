"""What the channel of changes does without a server: reading messages, judging connections, finding the way."""

from __future__ import annotations

import gc
import itertools
import json
import math
import socket
import threading
import time
from contextlib import suppress

import fakeredis
import pytest
import redis
import redis.asyncio
from hypothesis import given
from hypothesis import strategies as st

from resilient.errors import ConfigurationError
from resilient.runtime import start_thread
from resilient.wire.redis._addresses import Address
from resilient.wire.redis._tracking import Answer, Messages, Push, Watch, announcement, changed_keys, is_unasked
from resilient.wire.redis._tracking_routes import address_of, route
from resilient.wire.redis.tracking import Tracking

LEAVES = st.one_of(st.none(), st.integers(-(2**63), 2**63), st.binary(max_size=20), st.booleans())
MESSAGES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4) | st.lists(inner, max_size=3).map(Push))


def encoded(value):
    """A message as a server sends it."""
    if value is None:
        return b"_\r\n"
    if isinstance(value, bool):
        return b"#t\r\n" if value else b"#f\r\n"
    if isinstance(value, int):
        return b":%d\r\n" % value
    if isinstance(value, bytes):
        return b"$%d\r\n%b\r\n" % (len(value), value)
    head = b">" if isinstance(value, Push) else b"*"
    return b"%b%d\r\n" % (head, len(value)) + b"".join(map(encoded, value))


class Ear:
    """An ear that notes what it hears."""

    def __init__(self):
        self.notes = []

    def begun(self):
        self.notes.append("begun")
        return len(self.notes)

    def heard(self, session, since):
        self.notes.append(("heard", session, since))

    def told(self, session, keys):
        self.notes.append(("told", session, keys))

    def cut(self, session):
        self.notes.append(("cut", session))


# ----------------------------------------------------------------------------------------------------- messages


@given(st.lists(MESSAGES, max_size=5), st.lists(st.integers(0, 200), max_size=8))
def test_messages_are_the_same_however_their_bytes_are_cut(messages, cuts):
    """What comes in pieces is put together; nothing is lost, doubled or taken for another kind."""
    wire = b"".join(map(encoded, messages))
    places = sorted({0, len(wire), *(min(cut, len(wire)) for cut in cuts)})
    reader = Messages()
    found = [message for at, end in itertools.pairwise(places) for message in reader.feed(wire[at:end])]
    assert found == messages
    assert [type(message) for message in found] == [type(message) for message in messages]


@pytest.mark.parametrize(
    ("wire", "value"),
    [
        (b"+OK\r\n", b"OK"),
        (b"=8\r\ntxt:some\r\n", b"some"),
        (b"$-1\r\n", None),
        (b"*-1\r\n", None),
        (b"%1\r\n+a\r\n:1\r\n", [b"a", 1]),
        (b"~1\r\n+a\r\n", [b"a"]),
        (b",1.5\r\n", b"1.5"),
        (b"|1\r\n+ttl\r\n:3\r\n+OK\r\n", b"OK"),
        (b"*2\r\n+a\r\n*0\r\n", [b"a", []]),
    ],
    ids=["status", "text", "no bulk", "no list", "pairs", "set", "fraction", "what stands beside", "empty"],
)
def test_every_kind_of_message_is_understood(wire, value):
    """Both versions of the protocol, whole or byte by byte."""
    assert Messages().feed(wire) == [value]
    reader = Messages()
    assert [message for at in range(len(wire)) for message in reader.feed(wire[at : at + 1])] == [value]


def test_errors_are_answers_with_a_text():
    """Short ones and long ones."""
    found = Messages().feed(b"-NOPERM no\r\n!7\r\nERR no!\r\n")
    assert [answer.text for answer in found] == ["NOPERM no", "ERR no!"]
    assert all(isinstance(answer, Answer) for answer in found)
    assert repr(found[0]) == "<Answer NOPERM no>"


@pytest.mark.parametrize("wire", [b"HTTP/1.1 400\r\n", b":x\r\n", b"$x\r\n"], ids=["http", "number", "size"])
def test_what_is_no_message_is_refused(wire):
    """An error, which ends the connection, and no guess."""
    with pytest.raises(ValueError, match=r"no message|invalid"):
        Messages().feed(wire)


@pytest.mark.parametrize(
    ("message", "keys"),
    [
        (Push([b"invalidate", [b"shop:a", b"shop:b"]]), [b"shop:a", b"shop:b"]),
        (Push([b"invalidate", None]), None),
        (Push([b"moving", 1, 2]), ()),
        (Push([b"alone"]), ()),
        ([b"message", b"shop:changed", b'["shop:\\u00e4"]'], ["shop:ä".encode()]),
        ([b"message", b"shop:changed", b"{"], None),
        ([b"message", b"shop:changed", b"[1]"], None),
        ([b"message", b"shop:changed", b"5"], None),
        ([b"message", b"shop:changed", b"[" * 100_000], None),
        ([b"message", b"shop:changed", b"[]"], []),
        ([b"pong", b""], ()),
        (b"PONG", ()),
        (Answer("NOPERM"), ()),
    ],
    ids=[
        "pushed",
        "all",
        "other push",
        "bare push",
        "published",
        "no JSON",
        "no texts",
        "no list",
        "too deep",
        "no keys",
        "pong of the second version",
        "pong",
        "error",
    ],
)
def test_what_was_changed_is_read_from_a_message(message, keys):
    """What is published there by others, and cannot be read, may have been about any key."""
    assert changed_keys(message) == keys
    if keys is None or keys:
        assert is_unasked(message)


def test_a_published_message_is_no_answer():
    """Not even one that names no key: else whoever may publish could prove a dead connection alive."""
    assert is_unasked([b"message", b"shop:changed", b"[]"])
    assert not is_unasked([b"pong", b""])
    assert not is_unasked(b"PONG")


@given(st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1))
def test_what_a_writer_announces_is_what_is_heard(keys):
    """Every key a cache may have comes through."""
    command = announcement("shop:", keys)
    assert command[:2] == ("PUBLISH", "shop:changed")
    assert changed_keys([b"message", b"shop:changed", command[2].encode()]) == [key.encode() for key in keys]


# ------------------------------------------------------------------------------------------------------- a watch


@given(st.lists(st.tuples(st.floats(0, 3), st.booleans()), max_size=30))
def test_a_proof_is_never_younger_than_the_question(steps):
    """Whatever the delays: what is proven is when an answered question was sent; one question is out at a time."""
    watch, now, sent = Watch(100.0, bound=1.0), 100.0, None
    for delay, answers in steps:
        now += delay
        if answers and sent is not None:
            watch.answered()
            assert watch.proven == sent
            sent = None
        elif watch.is_due(now):
            assert sent is None
            watch.asked(now)
            sent = now
        assert watch.waits == (sent is not None)
        assert watch.is_lost(now) == (sent is not None and now - sent > 2.0)
        assert 0 <= watch.next(now) <= 2.0 + 1e-9  # of rounding


def test_an_answer_that_nobody_asked_for_proves_nothing():
    """It is not counted, and the next question is asked all the same."""
    watch = Watch(10.0, bound=1.0)
    watch.answered()
    assert watch.proven == 10.0
    assert watch.is_due(10.25)


# ------------------------------------------------------------------------------------------------------- the way


def same(address, other):
    return (address, address.options, address.sentinel_options) == (other, other.options, other.sentinel_options)


@pytest.mark.parametrize("module", [redis, redis.asyncio], ids=["sync", "async"])
@pytest.mark.parametrize("url", ["redis://:pw@h:7000/3", "rediss://h:7000/0", "unix:///tmp/r.sock?db=2"])
def test_a_ready_client_leads_where_its_address_does(module, url):
    """Place, password, database and TLS of a client of either face are those of the URL it was made from."""
    client = module.Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1)
    found, wanted = address_of(client), Address.parse(url)
    assert found is not None
    assert (found.kind, found.places, found.way) == (wanted.kind, wanted.places, wanted.way)
    assert {name: found.options.get(name, 0) for name in wanted.options} == wanted.options
    route(found, 1.0)


def test_a_client_that_sentinels_lead_is_followed_through_them():
    """The sentinels' places and password, the service, and the servers' own password."""
    sentinel = redis.Sentinel([("a", 1), ("b", 2)], sentinel_kwargs={"password": "s"}, socket_timeout=1)
    found = address_of(sentinel.master_for("shop", password="p", db=1, socket_timeout=1))
    assert found is not None
    assert (found.kind, found.places, found.service) == ("sentinel", (("a", 1), ("b", 2)), "shop")
    assert (found.options["password"], found.options["db"]) == ("p", 1)
    assert found.sentinel_options["password"] == "s"
    assert address_of(sentinel.slave_for("shop", socket_timeout=1)) is None
    route(found, 1.0).close()


def test_a_cluster_client_is_followed_from_the_nodes_it_was_given():
    """A client of the async face makes no connection when it is made, so that this needs no server."""
    client = redis.asyncio.RedisCluster(
        startup_nodes=[redis.asyncio.cluster.ClusterNode("h", 7000), redis.asyncio.cluster.ClusterNode("h", 7001)],
        password="p",
        socket_timeout=1,
    )
    found = address_of(client)
    assert found is not None
    assert (found.kind, set(found.places), found.way) == ("cluster", {("h", 7000), ("h", 7001)}, "tcp")
    assert found.options["password"] == "p"
    route(found, 1.0)


def test_a_fake_tells_nothing_and_says_so():
    """No thread is started, and waiting is in vain."""
    ear = Ear()
    tracking = Tracking(fakeredis.FakeRedis(), prefix="shop:", ear=ear)
    assert not tracking.wait(0.01)
    assert tracking.mode is None
    assert "cannot be made" in (tracking.trouble or "")
    assert tracking.news(["shop:a"]) == []
    tracking.close()
    assert "cannot be made" in (tracking.trouble or "")
    assert ear.notes == []


def test_an_address_that_is_none_is_refused():
    """When it is made, not later on a thread."""
    with pytest.raises(ConfigurationError):
        Tracking("http://h", prefix="shop:", ear=Ear())


def trackers():
    return [thread for thread in threading.enumerate() if thread.name == "resilient-tracking"]


def test_nothing_runs_until_it_is_needed(unused_port):
    """Making one starts no thread; without a server it keeps trying until it is closed, which may be repeated."""
    until(lambda: not trackers())  # those of other tests have ended
    ear = Ear()
    tracking = Tracking(f"redis://127.0.0.1:{unused_port}/0", prefix="shop:", ear=ear, bound=0.1)
    assert not trackers()
    assert tracking.keep == 0.1
    assert not tracking.wait(0.15)
    assert trackers()
    until(lambda: "no connection" in (tracking.trouble or ""))
    tracking.close()
    tracking.close()
    until(lambda: not trackers())
    tracking.ensure()
    assert not trackers()
    assert ear.notes == []


def test_a_thread_that_cannot_be_started_is_no_error(unused_port, monkeypatch):
    """Whoever reads at the interpreter's end, or where there are too many, is told nothing, and no error either."""

    def full(*_, **__):
        raise RuntimeError("can't start new thread")

    ear = Ear()
    tracking = Tracking(f"redis://127.0.0.1:{unused_port}/0", prefix="shop:", ear=ear, bound=0.1)
    with monkeypatch.context() as patch:
        patch.setattr("resilient.wire.redis.tracking.start_thread", full)
        tracking.ensure()
        assert tracking.trouble == "no thread: can't start new thread"
    tracking.ensure()
    assert trackers()
    tracking.close()


def test_the_thread_ends_with_the_ear(unused_port):
    """Who forgets to close leaves nothing behind."""
    ear = Ear()
    tracking = Tracking(f"redis://127.0.0.1:{unused_port}/0", prefix="shop:", ear=ear, bound=0.1)
    tracking.ensure()
    thread = tracking._thread
    assert thread is not None
    del ear
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()
    tracking.close()


@pytest.fixture
def unused_port():
    """A port at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused, and given to nobody else
        yield taken.getsockname()[1]


class Scripted:
    """A server on loopback that gives one reply to each kind of command, whoever asks."""

    def __init__(self, **replies):
        self.asked = []
        self._replies = {name.encode(): reply for name, reply in replies.items()}
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"
        self._threads = [start_thread(self._accept, name="scripted")]

    def _accept(self):
        with suppress(OSError):
            while True:
                accepted, _ = self._listener.accept()
                self._threads.append(start_thread(self._serve, accepted, name="scripted"))

    def _serve(self, accepted):
        messages = Messages()
        with accepted, suppress(OSError):
            while data := accepted.recv(65536):
                for command in messages.feed(data):
                    self.asked.append(b" ".join(command[:2]))
                    accepted.sendall(self._replies.get(command[0], b"+OK\r\n"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)


def until(reached):
    end = time.monotonic() + 10
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_an_old_server_is_listened_to_by_publish_and_subscribe():
    """One that knows neither the third version of the protocol nor tracking."""
    subscribed = b"*3\r\n$9\r\nsubscribe\r\n$12\r\nshop:changed\r\n:1\r\n"
    told = b'*3\r\n$7\r\nmessage\r\n$12\r\nshop:changed\r\n$10\r\n["shop:a"]\r\n'
    pong = b"*2\r\n$4\r\npong\r\n$0\r\n\r\n"
    with Scripted(HELLO=b"-ERR unknown command 'HELLO'\r\n", SUBSCRIBE=subscribed + told, PING=told + pong) as server:
        ear = Ear()
        tracking = Tracking(server.url, prefix="shop:", ear=ear, bound=1.0)
        assert tracking.wait(10)
        assert (tracking.mode, tracking.keep) == ("pubsub", 1.0)
        assert tracking.news(["shop:a"]) == [("PUBLISH", "shop:changed", '["shop:a"]')]
        until(lambda: sum(note[0] == "heard" for note in ear.notes) > 3)
        tracking.close()
        assert ear.notes[0] == "begun"
        assert ear.notes.count(("told", 1, [b"shop:a"])) >= 3
        assert ear.notes[-1] == ("cut", 1)
        assert b"SUBSCRIBE shop:changed" in server.asked


@pytest.mark.parametrize(
    ("replies", "why", "subscribes"),
    [
        ({"HELLO": b"-LOADING the data\r\n"}, "LOADING", False),
        ({"HELLO": b"-ERR max number of clients reached\r\n"}, "max number", False),
        ({"HELLO": b"HTTP/1.1 400\r\n"}, "not understood", False),
        ({"CLIENT": b"-NOPERM no\r\n", "SUBSCRIBE": b"-NOPERM no channel\r\n"}, "no channel", True),
    ],
    ids=["loading", "full", "no server of this kind", "both forbidden"],
)
def test_what_is_wrong_for_the_moment_does_not_change_the_way(replies, why, subscribes):
    """Only a refusal leads to publish and subscribe: else a busy server would be listened to in the lesser way."""
    with Scripted(**replies) as server:
        ear = Ear()
        tracking = Tracking(server.url, prefix="shop:", ear=ear, bound=0.2)
        tracking.ensure()
        until(lambda: why in (tracking.trouble or ""))
        tracking.close()
        assert ear.notes == []
        assert any(asked.startswith(b"SUBSCRIBE") for asked in server.asked) is subscribes


def test_a_primary_that_became_a_replica_is_left():
    """Its connection does not break, and what is written now is written elsewhere: the session is over."""
    with Scripted(ROLE=b"*1\r\n$6\r\nmaster\r\n", PING=b"+PONG\r\n") as server:
        ear = Ear()
        tracking = Tracking(server.url, prefix="shop:", ear=ear, bound=0.2)
        assert tracking.wait(10)
        server._replies[b"ROLE"] = b"*1\r\n$5\r\nslave\r\n"
        until(lambda: ("cut", 1) in ear.notes)
        tracking.close()


def test_whoever_hears_of_the_end_finds_it_so_and_why():
    """What is said of the channel is said before the ear hears it, so that the ear may ask."""
    with Scripted(ROLE=b"*1\r\n$6\r\nmaster\r\n", PING=b"+PONG\r\n") as server:
        found = []

        class Asking(Ear):
            def cut(self, session):
                found.append((session, tracking.mode, tracking.trouble, tracking.wait(0)))

        ear = Asking()
        tracking = Tracking(server.url, prefix="shop:", ear=ear, bound=1.0)
        assert tracking.wait(10)
        server._replies[b"ROLE"] = b"*1\r\n$5\r\nslave\r\n"
        until(lambda: found)
        tracking.close()
        assert found[0] == (1, None, "the server is no longer what it was", False)


def test_the_payload_is_plain_json():
    """Other programs that write can announce too; keys may be kept for ever only where the server tells."""
    assert json.loads(announcement("shop:", ["shop:a"])[2]) == ["shop:a"]
    tracking = Tracking("redis://127.0.0.1:1/0", prefix="shop:", ear=Ear())
    tracking.mode = "tracking"
    assert tracking.keep == math.inf
    tracking.close()
