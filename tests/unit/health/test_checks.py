"""The checks that come with the library, against fakes; real servers are in tests/servers."""

from __future__ import annotations

import asyncio
import os
import warnings
from types import SimpleNamespace

import fakeredis
import pytest
import redis
import sqlalchemy as sa
from sqlalchemy.pool import NullPool, QueuePool

from resilient.errors import ConfigurationError
from resilient.health import Check, Health, Status, checks
from resilient.policy import Breaker, Pipeline
from resilient.storage.objects import Bucket
from resilient.storage.replicas import ReplicaSet
from resilient.storage.shards import ShardMap, ShardSet
from resilient.testing.clock import FakeClock
from resilient.testing.s3 import FakeS3


def ask(check: Check):
    """What a report shows of one check."""
    health = Health()
    health.add("it", check, timeout=0.8)
    try:
        return health.ready().checks["it"]
    finally:
        health.close()


# -------------------------------------------------------------------------------------------------------- callable


def test_only_what_can_be_called_is_a_check():
    """A value given by mistake is refused when the check is made."""
    with pytest.raises(ConfigurationError):
        checks.callable("SELECT 1")  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------------- SQL


@pytest.fixture
def database(tmp_path):
    engine = sa.create_engine(f"sqlite:///{tmp_path}/app.db", poolclass=QueuePool, pool_size=1, max_overflow=0)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE t (id INTEGER)"))
    yield engine
    engine.dispose()


def test_a_database_that_answers_passes(database):
    """An engine or its URL will do."""
    assert ask(checks.sqlalchemy(database)).status is Status.PASS
    assert ask(checks.sqlalchemy(str(database.url))).status is Status.PASS


def test_an_exhausted_pool_is_not_an_outage(database):
    """The check has a connection of its own: a busy application stays ready, and loses no connection to the check."""
    with database.connect():
        assert ask(checks.sqlalchemy(database)).status is Status.PASS
        assert database.pool.checkedout() == 1


def test_a_check_uses_one_connection_again_and_again(database):
    """Not one for each probe."""
    opened: list[object] = []
    sa.event.listen(database.pool, "connect", lambda *_: opened.append(1))
    health = Health()
    health.add("db", checks.sqlalchemy(database), ttl=0)
    for _ in range(5):
        assert health.ready().word == "pass"
    assert len(opened) == 1
    health.close()
    assert health.ready().word == "pass"  # opened anew
    health.close()


def test_a_missing_database_fails_and_comes_back(tmp_path):
    """Without the file it fails with one word; nothing is created; once there, it passes."""
    path = tmp_path / "later.db"
    health = Health()
    health.add("db", checks.sqlalchemy(f"sqlite:///{path}"), ttl=0)
    assert health.ready().checks["db"].status is Status.FAIL
    assert not path.exists()
    path.touch()
    assert health.ready().word == "pass"
    health.close()


def test_a_dead_connection_is_replaced_at_once(database):
    """The database restarted since the last probe: the stale connection does not make a failure."""
    made: list[sa.pool.ConnectionPoolEntry] = []
    sa.event.listen(database.pool, "checkout", lambda raw, _record, _proxy: made.append(raw))
    health = Health()
    health.add("db", checks.sqlalchemy(database), ttl=0)
    assert health.ready().word == "pass"
    made[-1].close()  # behind the pool's back
    assert health.ready().word == "pass"
    health.close()


def test_a_connection_that_cannot_be_made_is_tried_once(tmp_path):
    """The second try is for a stale connection only."""
    tries: list[int] = []

    def connect() -> object:
        tries.append(1)
        raise OSError("no route")

    engine = sa.create_engine("sqlite://", poolclass=NullPool)
    sa.event.listen(engine, "do_connect", lambda *_: connect())
    assert ask(checks.sqlalchemy(engine)).status is Status.FAIL
    assert len(tries) == 1


def test_a_read_only_database_fails_where_writes_are_asked_for(tmp_path):
    """writable=True sees a server that takes no writes."""
    engine = sa.create_engine(f"sqlite:///{tmp_path}/app.db")

    @sa.event.listens_for(engine, "connect")
    def read_only(raw, _record):
        raw.execute("PRAGMA query_only = ON")

    assert ask(checks.sqlalchemy(engine)).status is Status.PASS
    found = ask(checks.sqlalchemy(engine, writable=True))
    assert (found.status, found.reason) == (Status.FAIL, "read_only")


def test_an_async_engine_is_refused():
    """A check runs on a thread; the error says what to pass instead."""
    pytest.importorskip("aiosqlite")
    from sqlalchemy.ext.asyncio import create_async_engine

    with pytest.raises(ConfigurationError, match="sync engine"):
        checks.sqlalchemy(create_async_engine("sqlite+aiosqlite://"))


def test_a_forked_child_does_not_use_its_parents_connection(database):
    """The child opens its own, and the parent's still works when the child has ended."""
    health = Health()
    health.add("db", checks.sqlalchemy(database), ttl=0)
    assert health.ready().word == "pass"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of any fork beside threads
        child = os.fork()
    if child == 0:
        try:
            os._exit(0 if health.ready().word == "pass" else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert health.ready().word == "pass"
    health.close()


# ----------------------------------------------------------------------------------------------------------- Redis


def test_a_redis_that_answers_passes():
    """A ready client lends its way to connect, not its pool."""
    client = fakeredis.FakeRedis(server=fakeredis.FakeServer())
    assert ask(checks.redis(client)).status is Status.PASS
    client.close()


def test_a_redis_that_is_down_is_one_word():
    """No host and no port in it."""
    server = fakeredis.FakeServer()
    client = fakeredis.FakeRedis(server=server)
    server.connected = False
    found = ask(checks.redis(client))
    assert (found.status, found.reason) == (Status.FAIL, "unavailable")
    client.close()


def test_no_redis_there_at_all():
    """A URL where nobody listens."""
    found = ask(checks.redis("redis://127.0.0.1:1/0"))
    assert (found.status, found.reason) == (Status.FAIL, "unavailable")


@pytest.mark.parametrize("target", ["http://x", 42, object()])
def test_what_is_no_redis_is_refused(target):
    """Wrong targets are found when the check is made."""
    with pytest.raises(ConfigurationError):
        checks.redis(target)


def test_an_async_redis_client_is_refused():
    """A check runs on a thread; the error says what to pass instead."""
    client = redis.asyncio.Redis()
    with pytest.raises(ConfigurationError, match="sync client"):
        checks.redis(client)
    asyncio.run(client.connection_pool.disconnect())


def test_a_look_alike_is_asked_itself():
    """A cluster's client, for one, knows best how to reach its servers."""
    asked: list[str] = []
    assert ask(checks.redis(SimpleNamespace(ping=lambda: asked.append("ping")))).status is Status.PASS
    assert asked == ["ping"]


# ------------------------------------------------------------------------------------------------------- S3 and SQS


def test_a_bucket_that_is_there_passes():
    """By bucket object, or by name and client."""
    store = FakeS3(buckets=["photos"])
    assert ask(checks.s3(Bucket("photos", client=store))).status is Status.PASS
    assert ask(checks.s3("photos", store)).status is Status.PASS


def test_a_bucket_that_is_not_there_fails():
    """With one word."""
    found = ask(checks.s3("others", FakeS3(buckets=["photos"])))
    assert found.status is Status.FAIL
    assert found.reason in {"error", "auth"}


class FakeQueue:
    def __init__(self, depth: int, dead: FakeQueue | None = None) -> None:
        self.depth, self.dead, self.looks = depth, dead, 0

    def attributes(self):
        return SimpleNamespace(depth=self.depth)

    def dead_letters(self):
        self.looks += 1
        return self.dead


def test_a_deep_queue_warns_and_never_fails():
    """Depth is for an alarm, not for the balancer."""
    found = ask(checks.sqs(FakeQueue(1200), max_depth=1000))
    assert (found.status, found.reason, dict(found.values)) == (Status.WARN, "deep", {"depth": 1200})
    assert ask(checks.sqs(FakeQueue(1000), max_depth=1000)).status is Status.PASS


def test_dead_letters_warn():
    """One message nobody could handle is enough; the dead-letter queue is looked up once."""
    queue = FakeQueue(0, dead=FakeQueue(1))
    check = checks.sqs(queue)
    assert [ask(check).reason, ask(check).reason] == ["dead_letters", "dead_letters"]
    assert queue.looks == 1
    assert ask(checks.sqs(queue, dead_letters=False)).status is Status.PASS


def test_a_queue_that_does_not_answer_fails():
    """An error of the queue is an error of the check."""

    def broken() -> object:
        raise TimeoutError("sqs.eu-west-1")

    found = ask(checks.sqs(SimpleNamespace(attributes=broken)))
    assert (found.status, found.reason) == (Status.FAIL, "timeout")


# --------------------------------------------------------------------------------------------- replicas and shards


def nodes(*states: str, lag: float | None = 0.1):
    return [
        SimpleNamespace(role="replica" if number else "primary", state=state, lag=lag if number else 0.0)
        for number, state in enumerate(states)
    ]


@pytest.mark.parametrize(
    ("states", "status", "reason"),
    [
        (["up"], "pass", None),
        (["up", "up", "up"], "pass", None),
        (["up", "up", "lagging"], "warn", "replicas"),
        (["up", "down", "down"], "warn", "replicas"),
        (["down", "up", "up"], "warn", "read_only"),
        (["read_only", "up"], "warn", "read_only"),
        (["down", "lagging"], "warn", "read_only"),
        (["down", "down"], "fail", "down"),
        (["unknown", "unknown"], "unknown", "unprobed"),
    ],
)
def test_a_replica_set_is_judged_by_what_it_can_still_do(states, status, reason):
    """Reads and writes: pass; reads only: a warning; nothing: a failure."""
    found = ask(checks.replicas(SimpleNamespace(status=lambda: nodes(*states))))
    assert (found.status.value, found.reason) == (status, reason)


def test_the_greatest_lag_is_measured():
    """In seconds, with the number of replicas that are up."""
    found = ask(checks.replicas(SimpleNamespace(status=lambda: nodes("up", "up", "lagging", lag=1.25))))
    assert dict(found.values) == {"replicas_up": 1, "lag": 1.25}


def test_a_real_replica_set_tells_its_state():
    """The check fits the room it is for."""
    with ReplicaSet("sqlite://") as db:
        db.probe()
        assert ask(checks.replicas(db)).status is Status.PASS


@pytest.mark.parametrize(
    ("states", "status", "reason"),
    [
        (["up", "up"], "pass", None),
        (["up", "down"], "warn", "shards"),
        (["degraded", "degraded"], "warn", "shards"),
        (["down", "down"], "fail", "down"),
    ],
)
def test_a_dead_shard_is_that_shard(states, status, reason):
    """The others serve on, so it only warns."""
    told = [SimpleNamespace(state=state) for state in states]
    found = ask(checks.shards(SimpleNamespace(status=lambda timeout=1.0: told)))
    assert (found.status.value, found.reason) == (status, reason)
    assert dict(found.values) == {"shards": 2, "up": states.count("up")}


def test_a_real_shard_set_tells_its_state(tmp_path):
    """The check fits the room it is for."""
    shards = ShardSet({name: f"sqlite:///{tmp_path}/{name}.db" for name in "ab"})
    shards.create(ShardMap.hashed(["a", "b"]))
    assert ask(checks.shards(shards)).status is Status.PASS
    shards.close()


# ------------------------------------------------------------------------------------------------ breaker, heartbeat


def test_a_breaker_opened_by_traffic_is_reported_without_a_probe():
    """The check asks nobody: what traffic has learned is told, as a warning."""
    calls: list[int] = []

    def load() -> None:
        calls.append(1)
        raise OSError("down")

    orders = Pipeline("orders", Breaker())
    orders.breaker.isolate()
    for check in (checks.breaker(orders), checks.breaker(orders.breaker)):
        assert (ask(check).status, ask(check).reason) == (Status.WARN, "isolated")
    orders.breaker.close()
    assert ask(checks.breaker(orders)).status is Status.PASS
    assert calls == []


def test_what_has_no_breaker_is_refused():
    """A pipeline without one says how to add it; so does anything else."""
    with pytest.raises(ConfigurationError):
        checks.breaker(Pipeline("orders"))
    with pytest.raises(ConfigurationError):
        checks.breaker(object())  # type: ignore[arg-type]


def test_a_silent_loop_fails_after_its_time():
    """The time counts from when it was made, so a loop that never began is noticed too."""
    clock = FakeClock()
    loop = checks.heartbeat(10, clock=clock)
    clock.advance(10)
    assert ask(loop).status is Status.PASS
    clock.advance(0.001)
    assert (ask(loop).status, ask(loop).reason) == (Status.FAIL, "silent")
    loop.beat()
    assert ask(loop).status is Status.PASS
    with pytest.raises(ConfigurationError):
        checks.heartbeat(0)


@pytest.mark.parametrize("make", [checks.replicas, checks.shards])
@pytest.mark.parametrize("given", ["sqlite://", None])
def test_what_is_no_replica_set_and_no_shard_set_is_refused_at_once(make, given):
    """A URL in its place would warn for ever, and say no more than one word."""
    with pytest.raises(ConfigurationError, match=r"checks\.sqlalchemy"):
        make(given)
