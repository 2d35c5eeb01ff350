"""Health against real servers that stop, freeze and come back, and behind a real web server."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis
import sqlalchemy as sa

from resilient import events
from resilient.health import CheckChanged, Health, Status, checks
from resilient.policy import Breaker, Pipeline, Retry
from resilient.queue import Queue
from resilient.storage.objects import Bucket
from resilient.storage.replicas import ReplicaSet
from resilient.testing.servers import Gunicorn, MariaDbCluster, MotoServer, RedisServer, TcpProxy

DEADLINE = 0.8
MARGIN = 0.25  # seconds of grace on a busy machine


@pytest.fixture
def health() -> Iterator[Health]:
    """A registry with the strict behaviour, so that a failure is seen as 503."""
    made = Health(shared="fail", deadline=DEADLINE)
    yield made
    made.close()


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    began = time.monotonic()
    return function(), time.monotonic() - began


def comes_true(probe: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not probe():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


# ----------------------------------------------------------------------------------------------------------- Redis


@pytest.mark.parametrize("given", ["url", "client", "unbounded client"])
def test_a_frozen_redis_is_reported_in_time(redis_server: RedisServer, health: Health, given: str):
    """The answer comes inside the deadline, the next at once; thawed, it passes again."""
    host = {"host": "127.0.0.1", "port": redis_server.port}
    client = redis.Redis(**host) if given == "unbounded client" else redis.Redis(**host, socket_timeout=30)
    target = redis_server.url if given == "url" else client
    health.add("redis", checks.redis(target), ttl=0)
    assert health.ready().word == "pass"
    redis_server.freeze()
    report, took = timed(health.ready)
    assert (report.http_status, report.checks["redis"].reason) == (503, "timeout")
    assert took < DEADLINE + MARGIN
    redis_server.thaw()
    comes_true(lambda: health.ready().word == "pass")
    client.close()


def test_a_redis_that_restarts_comes_back(redis_server: RedisServer, health: Health):
    """Stopped it fails at once, with a word; started it passes, without a restart here."""
    health.add("redis", checks.redis(redis_server.url), ttl=0)
    assert health.ready().word == "pass"
    redis_server.stop()
    report, took = timed(health.ready)
    assert (report.http_status, report.checks["redis"].reason) == (503, "unavailable")
    assert took < DEADLINE + MARGIN
    redis_server.start()
    comes_true(lambda: health.ready().word == "pass")


def test_the_redis_check_has_one_connection_of_its_own(redis_server: RedisServer, health: Health):
    """An exhausted pool of the application is no outage, and probes open no further connections."""
    host = {"host": "127.0.0.1", "port": redis_server.port, "socket_timeout": 5}
    pool = redis.ConnectionPool(**host, max_connections=1)
    client = redis.Redis(connection_pool=pool)
    held = client.pubsub()
    held.subscribe("news")  # takes the pool's only connection
    health.add("redis", checks.redis(client), ttl=0)
    counter = redis.Redis(**host)
    before = len(counter.client_list())
    assert [health.ready().word for _ in range(10)] == ["pass"] * 10
    assert len(counter.client_list()) == before + 1
    counter.connection_pool.disconnect()
    held.close()
    client.close()
    pool.disconnect()


# --------------------------------------------------------------------------------------------------------- MariaDB


def test_a_database_that_stops_and_restarts(mariadb: MariaDbCluster, health: Health):
    """Non-200 within a second of the stop, 200 again after the start, without a restart here; two lines in the log."""
    health.add("db", checks.sqlalchemy(mariadb.primary.url), ttl=0)
    comes_true(lambda: health.ready().http_status == 200)
    sink = events.MemorySink()
    end = events.subscribe(sink, kinds=[CheckChanged])
    mariadb.primary.stop()
    for _ in range(3):
        report, took = timed(health.ready)
        assert report.http_status == 503
        assert report.checks["db"].reason in {"unavailable", "timeout"}
        assert took < DEADLINE + MARGIN
    mariadb.primary.start()
    comes_true(lambda: health.ready().http_status == 200)
    assert health._teller.finish(5)
    end()
    assert [each.status for each in sink.of(CheckChanged)] == ["fail", "pass"]


@pytest.mark.parametrize("given", ["url", "engine without limits"])
@pytest.mark.parametrize("connected", [True, False])
def test_a_frozen_database_is_reported_in_time(mariadb: MariaDbCluster, health: Health, given: str, connected: bool):
    """Also before the first connection, whose handshake hangs, and through an engine that knows no limits."""
    node = mariadb.replicas[0]
    engine = sa.create_engine(node.url)
    health.add("db", checks.sqlalchemy(engine if given != "url" else node.url), ttl=0)
    if connected:
        assert health.ready().word == "pass"
    node.freeze()
    report, took = timed(health.ready)
    assert (report.http_status, report.checks["db"].reason) == (503, "timeout")
    assert took < DEADLINE + MARGIN
    assert health.live().http_status == 200
    node.thaw()
    comes_true(lambda: health.ready().word == "pass")
    engine.dispose()


def test_a_check_of_a_frozen_database_lets_go(mariadb: MariaDbCluster, health: Health):
    """The run that hung ends by its own limit, though the server stays frozen: no thread is lost to it."""
    node = mariadb.replicas[0]
    engine = sa.create_engine(node.url)
    health.add("db", checks.sqlalchemy(engine), ttl=0)
    node.freeze()
    assert health.ready().checks["db"].reason == "timeout"
    lane = health._lanes()["db"]
    comes_true(lambda: lane._flight is None, seconds=2.0)
    node.thaw()
    comes_true(lambda: health.ready().word == "pass")
    engine.dispose()


def test_the_database_check_has_one_connection_of_its_own(mariadb: MariaDbCluster, health: Health):
    """An exhausted pool of the application is no outage, and probes open no further connections."""
    node = mariadb.replicas[1]
    engine = sa.create_engine(node.url, pool_size=1, max_overflow=0, pool_timeout=0.01)
    health.add("db", checks.sqlalchemy(engine), ttl=0)
    with engine.connect() as held:
        held.execute(sa.text("SELECT 1"))
        count = "SELECT COUNT(*) FROM information_schema.processlist WHERE user = 'app'"
        before = node.query(count)[0][0]
        assert [health.ready().word for _ in range(10)] == ["pass"] * 10
        assert node.query(count)[0][0] == before + 1
    engine.dispose()


def test_the_checks_connection_outlives_the_run_that_made_it(
    mariadb: MariaDbCluster, tcp_proxy: Callable[[int], TcpProxy], health: Health
):
    """The limit of its handshake is not that of later answers, through an engine that knows no limits either."""
    node = mariadb.replicas[1]
    proxy = tcp_proxy(node.port)
    engine, made = sa.create_engine(sa.make_url(node.url).set(port=proxy.port)), []
    sa.event.listen(engine, "connect", lambda raw, _record: made.append(raw))
    health.add("db", checks.sqlalchemy(engine), timeout=0.5, ttl=0)
    assert health.ready().word == "pass"
    time.sleep(0.6)  # past the limit of the first run
    proxy.slow(0.05)
    assert health.ready().word == "pass"
    assert len(made) == 1
    engine.dispose()


def test_a_server_that_takes_no_writes_is_told(mariadb: MariaDbCluster, health: Health):
    """A replica fails where writes are asked for, the primary passes."""
    health.add("primary", checks.sqlalchemy(mariadb.primary.url, writable=True))
    health.add("replica", checks.sqlalchemy(mariadb.replicas[0].url, writable=True))
    report = health.ready()
    assert report.checks["primary"].status is Status.PASS
    assert report.checks["replica"].reason == "read_only"


def test_a_refused_login_is_one_word(mariadb: MariaDbCluster, health: Health):
    """The driver's message names user and host; the report does not."""
    url = sa.make_url(mariadb.primary.url).set(password="wrong")
    health.add("db", checks.sqlalchemy(url.render_as_string(hide_password=False)))
    report = health.ready()
    assert report.checks["db"].reason == "auth"
    assert "app" not in report.to_json(details=True)


def test_a_replica_set_and_its_lag_are_reported(mariadb: MariaDbCluster, health: Health):
    """All up: pass. A replica down, then the primary down: warnings that say which."""
    with ReplicaSet(mariadb.primary.url, [node.url for node in mariadb.replicas], probe_interval=0.1) as db:
        mariadb.primary.query("CREATE TABLE IF NOT EXISTS app.t (id INT)")
        health.add("db", checks.replicas(db), ttl=0)
        comes_true(lambda: health.ready().word == "pass")
        assert set(health.ready().checks["db"].values) == {"replicas_up", "lag"}
        mariadb.replicas[0].kill()
        comes_true(lambda: health.ready().checks["db"].reason == "replicas")
        mariadb.primary.kill()
        comes_true(lambda: health.ready().checks["db"].reason == "read_only")
        assert health.ready().http_status == 200


def test_a_breaker_opened_by_traffic_is_in_the_report(mariadb: MariaDbCluster, health: Health):
    """Without a probe of its own: the check adds no load to what is down."""
    pipeline = Pipeline("orders", Retry(attempts=1), Breaker(consecutive=3))
    health.add("orders", checks.breaker(pipeline), ttl=0)
    url = sa.make_url(mariadb.replicas[0].url)
    engine = sa.create_engine(url, connect_args={"connect_timeout": 1})

    def load() -> object:
        with engine.connect() as connection:
            return connection.scalar(sa.text("SELECT 1"))

    assert pipeline.call(load) == 1
    assert health.ready().word == "pass"
    engine.dispose()
    mariadb.replicas[0].kill()
    for _ in range(5):
        with pytest.raises(Exception):  # noqa: B017 - the driver's error, or the open circuit
            pipeline.call(load)
    report = health.ready()
    assert (report.word, report.checks["orders"].reason) == ("warn", "open")
    engine.dispose()


# ------------------------------------------------------------------------------------------------------ S3 and SQS


def test_a_bucket_and_a_queue_are_reported(moto_server: MotoServer, health: Health):
    """There they pass, with dead letters or deep they warn, and gone they fail with a word."""
    s3, sqs = moto_server.client("s3"), moto_server.client("sqs")
    s3.create_bucket(Bucket="photos", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    dead = sqs.create_queue(QueueName="dead")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    redrive = {"RedrivePolicy": f'{{"deadLetterTargetArn":"{arn}","maxReceiveCount":"3"}}'}
    url = sqs.create_queue(QueueName="jobs", Attributes=redrive)["QueueUrl"]
    health.add("photos", checks.s3(Bucket("photos", client=s3)), ttl=0, timeout=DEADLINE)
    health.add("jobs", checks.sqs(Queue(url, client=sqs), max_depth=2), ttl=0, timeout=DEADLINE)
    comes_true(lambda: health.ready().word == "pass")
    for _ in range(3):
        sqs.send_message(QueueUrl=url, MessageBody="{}")
    comes_true(lambda: health.ready().checks["jobs"].reason == "deep")
    sqs.send_message(QueueUrl=dead, MessageBody="{}")
    comes_true(lambda: health.ready().checks["jobs"].reason == "dead_letters")
    assert dict(health.ready().checks["jobs"].values) == {"depth": 3, "dead_letters": 1}
    s3.delete_bucket(Bucket="photos")
    comes_true(lambda: health.ready().checks["photos"].status is Status.FAIL)


def test_a_frozen_store_is_reported_in_time(moto_server: MotoServer, health: Health):
    """Also through a client that would wait for a minute."""
    s3 = moto_server.client("s3")
    s3.create_bucket(Bucket="photos", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    health.add("photos", checks.s3("photos", s3), ttl=0, timeout=DEADLINE)
    comes_true(lambda: health.ready().word == "pass")
    moto_server.freeze()
    report, took = timed(health.ready)
    assert (report.http_status, report.checks["photos"].reason) == (503, "timeout")
    assert took < DEADLINE + MARGIN
    moto_server.thaw()
    comes_true(lambda: health.ready().word == "pass")


# ---------------------------------------------------------------------------------------------- a real web server

APP = """
import os, time
import redis
from flask import Flask
from resilient.flask import Resilient, health_blueprint
from resilient.health import Health, checks

runs = 0
app, sick, well = Flask(__name__), Health(shared="fail"), Health(shared="fail")
sick.add("redis", checks.redis(os.environ["REDIS"]), ttl=0)
Resilient(app, health=sick)
app.register_blueprint(health_blueprint(sick))

@well.check("slow", ttl=5)
def slow():
    global runs
    runs += 1
    time.sleep(0.1)

app.register_blueprint(health_blueprint(well, name="well"), url_prefix="/well")

@app.get("/")
def index():
    return "hello"

@app.get("/runs")
def told():
    return str(runs)

@app.get("/drain")
def drain():
    well.drain()
    return "draining"
"""


@pytest.fixture
def web(redis_server: RedisServer, tmp_path: Path) -> Iterator[Gunicorn]:
    (tmp_path / "health_app.py").write_text(APP)
    environment = {"REDIS": redis_server.url, "PYTHONPATH": str(Path(__file__).parents[2])}
    with Gunicorn("health_app:app", env=environment, cwd=tmp_path, threads=32) as server:
        yield server


def test_probes_of_a_hung_dependency_do_not_hold_up_the_server(web: Gunicorn, redis_server: RedisServer):
    """40 probes that hang: all are answered in time, an ordinary route is quick, a healthy group passes."""
    assert web.get("/readyz")[0] == 200
    redis_server.freeze()
    with ThreadPoolExecutor(40) as threads:
        probes = [threads.submit(timed, lambda: web.get("/readyz")) for _ in range(40)]
        ordinary = [timed(lambda: web.get("/")) for _ in range(5)]
        (well, _), (live, _) = timed(lambda: web.get("/well/readyz")), timed(lambda: web.get("/livez"))
        answers = [probe.result() for probe in probes]
        assert web.get("/readyz") == (503, b"fail\n")
    # Four wait for the run and tell what it found; the others tell what was known a moment before.
    assert {(503, b"fail\n")} <= {answer for answer, _ in answers} <= {(503, b"fail\n"), (200, b"pass\n")}
    assert max(took for _, took in answers) < DEADLINE + 4 * MARGIN
    assert {answer for answer, _ in ordinary} == {(200, b"hello")}
    assert statistics.median(took for _, took in ordinary) < 0.5
    assert (well, live) == ((200, b"pass\n"), (200, b"pass\n"))
    redis_server.thaw()
    comes_true(lambda: web.get("/readyz")[0] == 200)


def test_two_hundred_probes_cost_one_round_trip(web: Gunicorn):
    """Uncoordinated checkers share one run and its outcome."""
    with ThreadPoolExecutor(40) as threads:
        answers = list(threads.map(lambda _: web.get("/well/readyz"), range(200)))
    assert set(answers) == {(200, b"pass\n")}
    assert web.get("/runs") == (200, b"1")


def test_a_draining_instance_is_taken_out_and_goes_on_serving(web: Gunicorn):
    """Ready is 503 at once; live and the application are as before."""
    assert web.get("/well/readyz")[0] == 200
    assert web.get("/drain")[0] == 200
    assert (web.get("/well/readyz"), web.get("/well/livez")) == ((503, b"fail\n"), (200, b"pass\n"))
    assert web.get("/") == (200, b"hello")
