"""The channel of changes against real servers: what is told, what is proven, and what happens when it is cut."""

from __future__ import annotations

import asyncio
import math
import os
import threading
import time
from contextlib import contextmanager, suppress

import pytest
import redis
import redis.asyncio

from resilient.clock import SYSTEM
from resilient.errors import Unavailable
from resilient.runtime import start_thread
from resilient.testing import FakeClock
from resilient.testing.servers import RedisServer
from resilient.testing.servers.redis_cluster import RedisClusterNode
from resilient.wire.redis import open_channel
from resilient.wire.redis.tracking import Tracking

LONG = 20.0  # seconds that a loaded machine may take for what is done at once


class Ear:
    """Notes what it hears, with the time, and lets others wait for it."""

    def __init__(self):
        self.turn = threading.Condition()
        self.sessions = 0
        self.since = 0.0
        self.keys = {}
        """When each key was last told, by the session's number and key."""
        self.all = 0
        self.cuts = []
        self.proofs = []
        """Pairs of a moment and all that had been told when it was proven."""
        self.channel = None
        self.why = None
        """What the channel said of its end when that was heard."""

    def begun(self):
        with self.turn:
            self.sessions += 1
            self.turn.notify_all()
            return self.sessions

    def heard(self, session, since):
        with self.turn:
            self.since = since
            self.proofs.append((session, since, len(self.keys)))
            self.turn.notify_all()

    def told(self, session, keys):
        now = SYSTEM.monotonic()
        with self.turn:
            if keys is None:
                self.all += 1
            for key in keys or ():
                self.keys.setdefault((session, key.decode()), (now, len(self.proofs)))
            self.turn.notify_all()

    def cut(self, session):
        with self.turn:
            self.cuts.append(session)
            self.why = self.channel and self.channel.trouble
            self.turn.notify_all()

    # ------------------------------------------------------------------------------------------------ for tests

    def until(self, reached, seconds=LONG):
        with self.turn:
            assert self.turn.wait_for(reached, seconds), (self.sessions, self.cuts, len(self.keys))

    def knows(self, key):
        return (self.sessions, key) in self.keys

    @property
    def age(self):
        """Seconds since the last proof."""
        return SYSTEM.monotonic() - self.since


@contextmanager
def listening(target, *, bound=1.0):
    """An ear that hears, and the channel behind it."""
    ear = Ear()
    ear.channel = tracking = Tracking(target, prefix="shop:", ear=ear, bound=bound)
    try:
        assert tracking.wait(LONG), tracking.trouble
        yield ear, tracking
    finally:
        tracking.close()


def writer(url):
    return open_channel(url, connect_timeout=5.0, timeout=5.0)


@pytest.fixture(params=["redis_server", "valkey_server", "redis_cluster", "redis_sentinel"])
def target(request):
    """Each kind of server."""
    return request.getfixturevalue(request.param)


# -------------------------------------------------------------------------------------------------- what is told


def test_every_change_under_the_prefix_is_told(target):
    """Set, rewritten in place, deleted, expired, changed by a script or with all others: whoever did it, once more."""
    with listening(target.url) as (ear, tracking), writer(target.url) as channel:
        assert (tracking.mode, tracking.keep, tracking.trouble) == ("tracking", math.inf, None)
        assert tracking.news(["shop:a"]) == []
        channel.call("SET", "other:a", "1")
        channel.call("SET", "shop:a", "1")
        ear.until(lambda: ear.knows("shop:a"))
        for number, change in enumerate(
            [
                ("SETRANGE", "shop:a", 0, "2"),
                ("EVAL", "return redis.call('SET', KEYS[1], 'x')", 1, "shop:a"),
                ("PEXPIRE", "shop:a", 60_000),
                ("DEL", "shop:a"),
                ("XADD", "shop:wake:{shop:a}:1", "*", "f", "v"),
            ]
        ):
            ear.keys.clear()
            channel.call(*change)
            ear.until(lambda: len(ear.keys) > 0)
            assert ear.knows("shop:wake:{shop:a}:1" if number == 4 else "shop:a")
        brief = _brief(ear, channel)
        ear.until(lambda: ear.knows(brief) or _touch(channel, brief))  # it expires by itself
        assert not ear.knows("other:a")
        target.flush()
        ear.until(lambda: ear.all > 0)
        assert ear.sessions == 1
        assert ear.cuts == []
    assert ear.cuts == [1]


def _brief(ear, channel):
    """A key that is there, soon is not, and of which nothing is told until then: that it was set was told before."""
    lasts = 30
    while True:
        key = f"shop:brief:{lasts}"
        channel.call("SET", key, "1", "PX", lasts)
        ear.until(lambda key=key: ear.knows(key))
        ear.keys.clear()
        if channel.call("GET", key) is not None:
            return key
        lasts *= 2  # this machine was too busy to see it alive
        assert lasts < 1000 * LONG


def _touch(channel, key):
    """An expired key is told when somebody finds it so, or a little later by itself."""
    channel.call("GET", key)
    return False


def test_one_connection_to_each_primary_and_none_after_the_end(target):
    """That is all it takes of a server; when it is closed they are gone, and so is the thread."""
    before = set(threading.enumerate())  # one of a test before may still be ending
    with listening(target.url):
        nodes = getattr(target, "primaries", None) or [getattr(target, "primary", target)]
        assert [_tracked(node) for node in nodes] == [1] * len(nodes)
        threads = [thread for thread in set(threading.enumerate()) - before if thread.name == "resilient-tracking"]
        assert len(threads) == 1
    threads[0].join(LONG)
    assert not threads[0].is_alive()
    until = time.monotonic() + LONG
    while any(_tracked(node) for node in nodes):
        assert time.monotonic() < until


def _tracked(node):
    return sum(" flags=tB" in line or "resp=3" in line for line in node.ask("CLIENT", "LIST").splitlines())


@pytest.mark.parametrize("face", [redis, redis.asyncio], ids=["sync", "async"])
def test_a_ready_client_of_either_face_will_do(redis_server, face):
    """Its options are taken, not its connections; no event loop is needed."""
    client = face.Redis.from_url(redis_server.url, socket_timeout=1, socket_connect_timeout=1)
    with listening(client) as (ear, _), writer(redis_server.url) as channel:
        channel.call("SET", "shop:a", "1")
        ear.until(lambda: ear.knows("shop:a"))


@pytest.mark.parametrize("face", [redis, redis.asyncio], ids=["sync", "async"])
def test_a_ready_client_of_a_cluster_will_do(redis_cluster, face):
    """From the nodes it knows, all primaries are found."""
    start = [face.cluster.ClusterNode("127.0.0.1", node.port) for node in redis_cluster.nodes[:2]]
    client = face.RedisCluster(startup_nodes=start, socket_timeout=1, socket_connect_timeout=1)
    try:
        with listening(client) as (ear, _), writer(redis_cluster.url) as channel:
            for number in range(20):
                channel.call("SET", f"shop:{number}", "1")
            ear.until(lambda: len(ear.keys) == 20)
    finally:
        if face is redis:
            client.close()


def test_a_ready_client_led_by_sentinels_will_do(redis_sentinel):
    """It is led by the same sentinels."""
    places = [("127.0.0.1", sentinel.port) for sentinel in redis_sentinel.sentinels]
    sentinel = redis.Sentinel(places, socket_timeout=1)
    client = sentinel.master_for(redis_sentinel.service, socket_timeout=1)
    with listening(client) as (ear, _), writer(redis_sentinel.url) as channel:
        channel.call("SET", "shop:a", "1")
        ear.until(lambda: ear.knows("shop:a"))


def test_over_tls_everything_is_told_too(tls_server):
    """Many changes at once come in pieces of their own size; none is left lying until the next."""
    with listening(tls_server) as (ear, _), writer(tls_server) as channel:
        channel.call_many([("SET", f"shop:{number}:{'x' * 100}", "1") for number in range(3000)])
        ear.until(lambda: len(ear.keys) == 3000)
        now = SYSTEM.monotonic()
        ear.until(lambda: ear.since > now)


def test_a_server_with_a_password_tells_too(redis_server):
    """It is said in the address and nowhere else."""
    with RedisServer(options={"requirepass": "s3cret"}) as server:
        with listening(server.url) as (ear, _), writer(server.url) as channel:
            channel.call("SET", "shop:a", "1")
            ear.until(lambda: ear.knows("shop:a"))
        ear = Ear()
        tracking = Tracking(server.url.replace("s3cret", "wrong"), prefix="shop:", ear=ear)
        try:
            _fails(tracking, "AuthenticationError")
            assert "s3cret" not in tracking.trouble
        finally:
            tracking.close()


def _fails(tracking, why):
    """Begin, and wait until it says why it cannot."""
    tracking.ensure()
    until = time.monotonic() + LONG
    while why not in (tracking.trouble or ""):
        assert time.monotonic() < until, tracking.trouble
        time.sleep(0.005)
    assert not tracking.wait(0)


# ------------------------------------------------------------------------------------- cut, frozen, reset, killed


class Load:
    """Writers that note when each of their writes was acknowledged."""

    def __init__(self, url, ear):
        self._url = url
        self._ear = ear
        self._stop = threading.Event()
        self.done = []
        """Session, key and moment of each acknowledged write."""
        self._thread = start_thread(self._write, name="writer")

    def _write(self):
        number = 0
        with writer(self._url) as channel:
            while not self._stop.is_set():
                number += 1
                session = self._ear.sessions
                with suppress(redis.RedisError):
                    channel.call("SET", f"shop:{number}", "1")
                    self.done.append((session, f"shop:{number}", SYSTEM.monotonic()))
                self._stop.wait(0.0005)

    def proven(self, ear, most):
        """Wait for that many writes, and then until all of them are proven to have been told."""
        self.writes(most)
        now = SYSTEM.monotonic()
        ear.until(lambda: ear.since > now)

    def writes(self, most):
        """Wait for that many writes."""
        done = len(self.done)
        until = time.monotonic() + LONG
        while len(self.done) <= done + most:
            assert time.monotonic() < until
            time.sleep(0.005)

    def end(self):
        self._stop.set()
        self._thread.join()

    def check(self):
        """Whatever was acknowledged before a moment that was proven had been told when it was proven."""
        ear, checked = self._ear, 0
        for session, key, at in self.done:
            proof = next(
                (number for number, (of, since, _) in enumerate(ear.proofs) if of == session and since > at), None
            )
            if proof is None:
                continue  # the session was cut before it came to that
            checked += 1
            assert (session, key) in ear.keys, f"{key} was never told, and proven to be"
            assert ear.keys[session, key][1] <= proof, f"{key} was told after it was proven to be"
        return checked


@contextmanager
def loaded(url, ear):
    load = Load(url, ear)
    try:
        yield load
    finally:
        load.end()


@pytest.mark.parametrize("harm", ["reset", "cut", "stall", "hold", "swallow_answers", "slow"])
def test_under_load_nothing_is_proven_that_was_not_told(redis_server, tcp_proxy, harm, repeat):
    """Whatever the network does: a proof stands only for changes that were told, and the proofs come back."""
    proxy = tcp_proxy(redis_server.port)
    with listening(proxy.through(redis_server.url), bound=0.2) as (ear, _), loaded(redis_server.url, ear) as load:
        for _ in range(repeat(50)):
            load.proven(ear, 50)
            if harm == "slow":
                proxy.slow(0.1)
            elif harm == "hold":
                proxy.stall(keep=True)
            else:
                getattr(proxy, harm)()
            load.writes(20)  # which the network loses, where it loses anything
            time.sleep(0.25)
            if harm in {"cut", "stall", "hold", "swallow_answers"}:
                assert ear.age > 0.2
            proxy.restore()
            load.proven(ear, 50)
    assert load.check() > 50
    if harm in {"reset", "cut", "stall", "swallow_answers"}:
        assert ear.sessions > 1
        assert ear.cuts == list(range(1, ear.sessions + 1))


def test_a_server_that_is_killed_is_noticed_at_once_and_followed_when_it_is_back(target_server):
    """The ear hears of it in a moment, not when the bound is over; a restarted server is listened to."""
    with listening(target_server.url, bound=10 * LONG) as (ear, tracking):
        target_server.kill()
        ear.until(lambda: ear.cuts == [1])
        assert tracking.mode is None
        target_server.restart()
        ear.until(lambda: ear.sessions == 2)
        with writer(target_server.url) as channel:
            channel.call("SET", "shop:a", "1")
            ear.until(lambda: ear.knows("shop:a"))


@pytest.fixture(params=["redis_server", "valkey_server"])
def target_server(request):
    """Each kind of single server."""
    return request.getfixturevalue(request.param)


def test_a_server_that_was_frozen_shortly_gives_back_what_it_had_given(redis_server):
    """No proof comes while it is frozen; the session goes on afterwards, since nothing was lost."""
    with listening(redis_server.url, bound=1.0) as (ear, _), writer(redis_server.url) as channel:
        redis_server.freeze()
        frozen = SYSTEM.monotonic()
        time.sleep(0.6)
        since = ear.since
        assert since <= frozen
        redis_server.thaw()
        thawed = SYSTEM.monotonic()
        ear.until(lambda: ear.since > thawed)
        if SYSTEM.monotonic() - since < 2.0:  # the machine may have frozen us too
            assert ear.sessions == 1
        channel.call("SET", "shop:a", "1")
        ear.until(lambda: ear.knows("shop:a"))


def test_a_server_that_stays_frozen_is_given_up_and_found_again(redis_server):
    """Twice the bound without an answer ends the session."""
    with listening(redis_server.url, bound=0.5) as (ear, tracking):
        redis_server.freeze()
        ear.until(lambda: ear.cuts == [1])
        assert ear.age >= 1.0
        assert tracking.mode is None
        assert "does not answer" in ear.why
        redis_server.thaw()
        ear.until(lambda: ear.sessions > 1)


def test_a_killed_connection_is_noticed_and_made_anew(redis_server, repeat):
    """An administrator's CLIENT KILL costs one session each time, and nothing is missed unnoticed."""
    with listening(redis_server.url) as (ear, _), loaded(redis_server.url, ear) as load:
        for _ in range(repeat(100)):
            load.proven(ear, 20)
            session = ear.sessions
            line = next(line for line in redis_server.ask("CLIENT", "LIST").splitlines() if "resp=3" in line)
            words = dict(word.split("=", 1) for word in line.split())
            redis_server.command("CLIENT", "KILL", "ID", words["id"])
            ear.until(lambda session=session: session in ear.cuts and ear.sessions > session)
        load.proven(ear, 20)
    assert load.check() > 20


# --------------------------------------------------------------------------------------------- where nodes change


def test_a_cluster_is_followed_through_a_failover(redis_cluster):
    """A killed primary ends the session at once; it begins again when another has taken over, and that one tells."""
    with listening(redis_cluster.url) as (ear, _), writer(redis_cluster.url) as channel:
        lost = redis_cluster.primary_of(0)
        lost.kill()
        ear.until(lambda: ear.cuts[:1] == [1])
        redis_cluster.wait_failover(lost)
        ear.until(lambda: ear.sessions > 1)
        _all_are_told(ear, channel)


def test_a_primary_that_hands_over_is_noticed(redis_cluster):
    """No connection breaks when a replica takes over in good order: the nodes themselves are asked."""
    with listening(redis_cluster.url) as (ear, _), writer(redis_cluster.url) as channel:
        _hand_over(redis_cluster)
        ear.until(lambda: ear.sessions > 1)
        _all_are_told(ear, channel)


def test_a_primary_that_joins_is_listened_to_before_it_has_slots(redis_cluster):
    """While a slot moves there it is written there already; when it leaves, it is missed by nobody."""
    first, *_ = redis_cluster.nodes
    with RedisClusterNode(name="redis-new") as new, listening(redis_cluster.url) as (ear, tracking):
        first.command("CLUSTER", "MEET", "127.0.0.1", str(new.port))
        try:
            ear.until(lambda: ear.sessions > 1)
            until = time.monotonic() + LONG
            while not _tracked(new) or tracking.mode is None:
                assert time.monotonic() < until
                time.sleep(0.05)
        finally:
            name = new.id
            until = time.monotonic() + LONG
            while not all(name in node.ask("CLUSTER", "NODES") for node in redis_cluster.nodes):
                assert time.monotonic() < until  # who has not heard of it cannot forget it
                time.sleep(0.05)
            for node in redis_cluster.nodes:
                node.command("CLUSTER", "FORGET", name)
        ear.until(lambda: ear.sessions > 2)


def test_without_leave_to_ask_for_nodes_a_cluster_is_followed_all_the_same(redis_cluster):
    """By the map of slots, which is asked for once in each bound."""
    for node in redis_cluster.nodes:
        node.command("ACL", "SETUSER", "limited", "on", ">pw", "~*", "+@all", "-cluster|nodes", "&*")
    try:
        with listening(redis_cluster.url.replace("://", "://limited:pw@")) as (ear, tracking):
            assert tracking.mode == "tracking"
            _hand_over(redis_cluster)
            ear.until(lambda: ear.sessions > 1)
            with writer(redis_cluster.url) as channel:
                _all_are_told(ear, channel)
    finally:
        for node in redis_cluster.nodes:
            node.command("ACL", "DELUSER", "limited")


def _hand_over(cluster):
    """A replica takes over in good order: no connection breaks."""
    replica = next(node for node in cluster.nodes if node.ask("ROLE")[0] == "slave")
    until = time.monotonic() + LONG
    while not replica.is_primary:
        assert time.monotonic() < until
        with suppress(Unavailable):  # it takes over already
            replica.command("CLUSTER", "FAILOVER")
        time.sleep(0.2)


def _all_are_told(ear, channel):
    """Keys of all nodes, over and over, until one session has told them all."""
    until = time.monotonic() + LONG
    while True:
        with suppress(redis.RedisError):
            for number in range(30):
                channel.call("SET", f"shop:{number}", "1")
        time.sleep(0.05)
        if all(ear.knows(f"shop:{number}") for number in range(30)):
            return
        assert time.monotonic() < until


def test_the_primary_that_sentinels_name_is_followed(redis_sentinel):
    """The old one is killed, another takes over, and its changes are told."""
    with listening(redis_sentinel.url) as (ear, _), writer(redis_sentinel.url) as channel:
        lost = redis_sentinel.primary
        lost.kill()
        ear.until(lambda: ear.cuts[:1] == [1])
        redis_sentinel.wait_failover(lost)
        ear.until(lambda: ear.sessions > 1)
        _all_are_told(ear, channel)


# ------------------------------------------------------------------------------------ where tracking is forbidden


@pytest.fixture
def restricted(redis_server):
    """A function that makes a user who may do what it says, and gives the address for that user."""
    names = []

    def make(*rules):
        name = f"user{len(names)}"
        names.append(name)
        assert redis_server.command("ACL", "SETUSER", name, "on", ">pw", "~*", *rules) == "+OK"
        return redis_server.url.replace("redis://", f"redis://{name}:pw@")

    yield make
    redis_server.heal()
    redis_server.command("ACL", "DELUSER", *names)


@pytest.mark.parametrize("forbidden", ["-client", "-client|tracking"], ids=["all of CLIENT", "tracking alone"])
def test_where_tracking_is_forbidden_writers_tell_each_other(redis_server, restricted, forbidden):
    """By publish and subscribe; and since that may be lost, a value is kept for the bound at most."""
    url = restricted("+@all", forbidden, "&*")
    with listening(url) as (ear, tracking), writer(url) as channel:
        assert (tracking.mode, tracking.keep) == ("pubsub", 1.0)
        news = tracking.news(["shop:a", "shop:ä"])
        channel.call_many([("SET", "shop:a", "1"), *news])
        ear.until(lambda: ear.knows("shop:a") and ear.knows("shop:ä"))
        now = SYSTEM.monotonic()
        ear.until(lambda: ear.since > now)
        channel.call("PUBLISH", "shop:changed", "no list")
        ear.until(lambda: ear.all == 1)
        redis_server.kill()
        ear.until(lambda: ear.cuts == [1])
        assert len(tracking.news(["shop:a"])) == 1  # others may still hear it


def test_in_a_cluster_what_is_published_at_one_node_is_heard_at_all(redis_cluster):
    """The listener subscribes at any node, and the writer publishes at any."""
    for node in redis_cluster.nodes:
        node.command("ACL", "SETUSER", "limited", "on", ">pw", "~*", "+@all", "-client", "&*")
    try:
        url = redis_cluster.url.replace("://", "://limited:pw@")
        with listening(url) as (ear, tracking), writer(url) as channel:
            assert tracking.mode == "pubsub"
            for number in range(10):
                channel.call(*tracking.news([f"shop:{number}"])[0])
            ear.until(lambda: len(ear.keys) == 10)
    finally:
        for node in redis_cluster.nodes:
            node.command("ACL", "DELUSER", "limited")


def test_where_both_are_forbidden_nothing_is_proven(restricted):
    """There is no session, and it says why."""
    ear = Ear()
    tracking = Tracking(restricted("+@all", "-client", "resetchannels"), prefix="shop:", ear=ear)
    try:
        _fails(tracking, "NOPERM")
        assert (ear.sessions, tracking.mode, tracking.news(["shop:a"])) == (0, None, [])
    finally:
        tracking.close()


# ------------------------------------------------------------------------------------------ processes and the end


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_has_a_session_of_its_own(redis_server):
    """In the child the session is over before anything else runs; it begins another, and the parent's goes on."""
    with listening(redis_server.url) as (ear, tracking), writer(redis_server.url) as channel:
        read, write = os.pipe()
        with ear.turn:  # or another thread might hold it, and in the child nobody would give it back
            child = os.fork()
        if not child:  # no exception may leave this block: it would run the test's end twice
            code = 1
            try:
                right = ear.cuts == [1] and tracking.mode is None
                right = right and tracking.wait(LONG) and ear.sessions == 2
                os.write(write, b"r")
                with suppress(AssertionError):
                    ear.until(lambda: ear.knows("shop:a"))
                tracking.close()
                code = 0 if right and ear.knows("shop:a") else 2
            finally:
                os._exit(code)
        assert os.read(read, 1) == b"r"
        channel.call("SET", "shop:a", "1")
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        os.close(read)
        os.close(write)
        ear.until(lambda: ear.knows("shop:a"))
        assert (ear.sessions, ear.cuts) == (1, [])


def test_a_blocked_event_loop_does_not_delay_what_is_told(redis_server):
    """It is a thread that listens, whatever the loop does that the ear serves."""
    with listening(redis_server.url) as (ear, _), writer(redis_server.url) as channel:

        async def main():
            channel.call("SET", "shop:a", "1")
            ear.until(lambda: ear.knows("shop:a"))  # blocks the loop

        asyncio.run(main())


def test_proofs_are_of_the_ears_own_time(redis_server):
    """Whoever is given a clock compares nothing with another."""
    ear, clock = Ear(), FakeClock()
    tracking = Tracking(redis_server.url, prefix="shop:", ear=ear, clock=clock)
    try:
        assert tracking.wait(LONG)
        began = clock.monotonic()
        assert ear.since == began
        clock.advance(0.5)
        ear.until(lambda: ear.since == began + 0.5)
    finally:
        tracking.close()


def test_a_change_is_told_in_a_few_milliseconds(redis_server, figures, limit):
    """From before the foreign write to the ear: the 99th of a hundred."""
    with listening(redis_server.url) as (ear, _), writer(redis_server.url) as channel:
        took = []
        for number in range(1000):
            began = SYSTEM.monotonic()
            channel.call("SET", f"shop:{number}", "1")
            ear.until(lambda number=number: ear.knows(f"shop:{number}"))
            took.append(ear.keys[ear.sessions, f"shop:{number}"][0] - began)
        took.sort()
        figures("tracking", median_ms=f"{1000 * took[500]:.2f}", p99_ms=f"{1000 * took[990]:.2f}")
        assert took[990] <= limit(0.010)
