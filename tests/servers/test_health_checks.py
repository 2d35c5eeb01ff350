"""Each shipped check against the real thing: what it says, and what a probe costs.

`make balancer` runs this at full size and writes the table of costs.
"""

from __future__ import annotations

import datetime as dt
import http.client
import json
import shutil
import socket
import ssl
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import redis
import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from resilient.cache import Cache
from resilient.health import Check, Health, Report, Status, checks
from resilient.policy import Breaker, Pipeline, Retry
from resilient.queue import Queue
from resilient.storage.objects import Bucket
from resilient.storage.replicas import ReplicaSet
from resilient.storage.shards import ShardMap, ShardSet
from resilient.testing.servers import (
    Gunicorn,
    MariaDbCluster,
    MotoServer,
    PostgresServer,
    RedisCluster,
    RedisSentinel,
    RedisServer,
    TcpProxy,
)

DEADLINE = 0.8
EU = {"LocationConstraint": "eu-west-1"}

Cost = Callable[..., float]


@pytest.fixture
def health() -> Iterator[Health]:
    made = Health(shared="fail", deadline=DEADLINE)
    yield made
    made.close()


@pytest.fixture
def cost(repeat: Callable[[int], int], figures: Callable[..., None]) -> Cost:
    """A function that measures a check once it is warm, and returns its requests to the dependency for each probe."""

    def measure(name: str, check: Check, requests: Callable[[], float] | None, what: str) -> float:
        probe = Health(deadline=5.0)
        probe.add("it", check, ttl=0, timeout=5.0)
        count = max(5, repeat(200))
        assert probe.ready().word == "pass", probe.ready()
        before = requests() if requests is not None else 0.0
        took = [probe.ready().checks["it"].outcome.seconds * 1000 for _ in range(count)]
        each = (requests() - before) / count if requests is not None else 0.0
        probe.close()
        figures("checks", check=name, cost_of_a_probe=what, took=f"{statistics.median(took):.2f} ms")
        return each

    return measure


def comes_true(probe: Callable[[], bool], seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not probe():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def reasons(health: Health) -> dict[str, str | None]:
    return {name: each.reason for name, each in health.ready().checks.items()}


def sent(client: Any) -> Callable[[], float]:
    """How many requests an AWS client has sent."""
    count = [0]

    def add(**_: object) -> None:
        count[0] += 1

    client.meta.events.register("before-send", add)
    return lambda: float(count[0])


# -------------------------------------------------------------------------------------------------------- databases


def questions(node: Any) -> Callable[[], float]:
    """What a MariaDB was asked, without what asking that costs."""

    def told() -> float:
        return float(node.query("SHOW GLOBAL STATUS LIKE 'Questions'")[0][1])

    first = told()
    own = told() - first
    spent = [0.0]

    def count() -> float:
        spent[0] += own
        return told() - spent[0]

    return count


def test_a_mariadb_by_its_role(mariadb: MariaDbCluster, health: Health, cost: Cost):
    """One statement, on a connection that stays: it answers, takes writes, is what it has to be."""
    primary, replica = mariadb.primary, mariadb.replicas[0]
    health.add("primary", checks.sqlalchemy(primary.url, role="primary", writable=True), ttl=0)
    health.add("replica", checks.sqlalchemy(replica.url, role="replica"), ttl=0)
    health.add("wrong", checks.sqlalchemy(replica.url, role="primary"), ttl=0)
    comes_true(lambda: reasons(health) == {"primary": None, "replica": None, "wrong": "role"})
    assert dict(health.ready().checks["replica"].values) == {"read_only": 1}
    each = cost("`sqlalchemy` (MariaDB)", checks.sqlalchemy(replica.url), questions(replica), "1 statement")
    assert each == pytest.approx(1, abs=0.5)
    check = checks.sqlalchemy(primary.url, role="primary", writable=True)
    assert cost("`sqlalchemy`, `role`, `writable`", check, questions(primary), "1 statement") == pytest.approx(
        1, abs=0.5
    )


def test_a_postgres_by_its_role(postgres: PostgresServer, health: Health, cost: Cost):
    """The same for PostgreSQL; one whose transactions are read only takes no writes."""
    url = sa.make_url(postgres.url).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
    health.add("primary", checks.sqlalchemy(url, role="primary", writable=True), ttl=0)
    health.add("replica", checks.sqlalchemy(url, role="replica"), ttl=0)
    comes_true(lambda: reasons(health) == {"primary": None, "replica": "role"})
    engine = sa.create_engine(url, connect_args={"options": "-c default_transaction_read_only=on"})
    health.add("read-only", checks.sqlalchemy(engine, writable=True), ttl=0)
    comes_true(lambda: reasons(health)["read-only"] == "read_only")
    engine.dispose()
    cost("`sqlalchemy` (PostgreSQL)", checks.sqlalchemy(url), None, "1 statement")


def test_a_frozen_postgres_is_reported_in_time(postgres: PostgresServer, health: Health, limit: Callable[..., float]):
    """The answer comes inside the deadline; thawed, it passes again."""
    url = sa.make_url(postgres.url).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
    health.add("db", checks.sqlalchemy(url), ttl=0)
    comes_true(lambda: health.ready().word == "pass")
    postgres.freeze()
    began = time.monotonic()
    report = health.ready()
    took = time.monotonic() - began
    postgres.thaw()
    assert (report.http_status, report.checks["db"].reason) == (503, "timeout")
    assert took <= limit(0.85)
    comes_true(lambda: health.ready().word == "pass")


def test_a_replica_set_costs_nothing(mariadb: MariaDbCluster, cost: Cost):
    """Its own probes have asked; a warning tells of one that lags."""
    with ReplicaSet(mariadb.primary.url, [node.url for node in mariadb.replicas], probe_interval=5.0) as db:
        db.probe()
        count = questions(mariadb.primary)
        assert cost("`replicas`", checks.replicas(db), count, "none: the set knows") < 0.5


def test_shards_are_asked_side_by_side(
    mariadb: MariaDbCluster, tcp_proxy: Callable[[int], TcpProxy], health: Health, cost: Cost
):
    """One statement each. One that is cut warns, all of them fail; back, they pass."""
    paths, urls = {}, {}
    for name in "ab":
        mariadb.primary.query(f"CREATE DATABASE app_{name}")
        paths[name] = tcp_proxy(mariadb.primary.port)
        urls[name] = paths[name].through(mariadb.primary.url.removesuffix("/app") + f"/app_{name}")
    with ShardSet(urls, control=mariadb.primary.url, connect_timeout=0.3) as db:
        db.create(ShardMap.hashed("ab"))
        health.add("shards", checks.shards(db), ttl=0, timeout=DEADLINE)
        comes_true(lambda: health.ready().word == "pass")
        cost("`shards` (2 on MariaDB)", checks.shards(db), None, "1 statement for each shard, side by side")
        paths["a"].cut()
        comes_true(lambda: health.ready().checks["shards"].reason == "shards")
        assert dict(health.ready().checks["shards"].values) == {"shards": 2, "up": 1}
        paths["b"].cut()
        comes_true(lambda: health.ready().checks["shards"].reason == "down")
        for path in paths.values():
            path.restore()
        comes_true(lambda: health.ready().word == "pass")


# ------------------------------------------------------------------------------------------------------------ Redis


def processed(server: RedisServer) -> Callable[[], float]:
    """How many commands a Redis has processed, without the asking."""
    asked = [0]

    def count() -> float:
        asked[0] += 1
        told = str(server.ask("INFO", "stats"))
        return float(told.partition("total_commands_processed:")[2].split()[0].split("\\")[0]) - asked[0]

    return count


def test_a_redis_and_its_role(redis_server: RedisServer, health: Health, cost: Cost):
    """One round trip, two where writes are asked for; one that is made a replica fails there."""
    health.add("redis", checks.redis(redis_server.url), ttl=0)
    health.add("writes", checks.redis(redis_server.url, writable=True), ttl=0)
    comes_true(lambda: health.ready().word == "pass")
    assert cost("`redis`", checks.redis(redis_server.url), processed(redis_server), "1 command") == 1
    check = checks.redis(redis_server.url, writable=True)
    assert cost("`redis`, `writable`", check, processed(redis_server), "2 commands") == 2
    redis_server.command("REPLICAOF", "127.0.0.1", "1")
    try:
        comes_true(lambda: reasons(health) == {"redis": None, "writes": "read_only"})
    finally:
        redis_server.command("REPLICAOF", "NO", "ONE")
    comes_true(lambda: health.ready().word == "pass")


def test_a_cluster_by_url_and_by_client(redis_cluster: RedisCluster, health: Health, cost: Cost):
    """One node is asked for all; with nodes killed the others answer, and the Cluster is told as it is."""
    client = redis.RedisCluster.from_url(f"redis://127.0.0.1:{redis_cluster.primaries[0].port}")
    health.add("url", checks.redis(redis_cluster.url), ttl=0)
    health.add("client", checks.redis(client), ttl=0)
    comes_true(lambda: health.ready().word == "pass")
    assert dict(health.ready().checks["url"].values) == {"slots": 16384, "nodes": 6}
    cost("`redis` (Cluster)", checks.redis(redis_cluster.url), None, "1 command to one node")
    lost = redis_cluster.primaries[0]
    lost.kill()
    assert health.ready().checks["url"].status in {Status.PASS, Status.WARN, Status.FAIL}  # until the others know
    redis_cluster.wait_failover(lost)
    comes_true(lambda: {each.status for each in health.ready().checks.values()} == {Status.PASS})
    client.close()


def test_a_primary_under_sentinels(redis_sentinel: RedisSentinel, health: Health, cost: Cost):
    """The one they name is asked: after a failover the new one."""
    health.add("redis", checks.redis(redis_sentinel.url, writable=True), ttl=0)
    comes_true(lambda: health.ready().word == "pass")
    cost("`redis` (Sentinels)", checks.redis(redis_sentinel.url), None, "1 command to the primary")
    lost = redis_sentinel.primary
    lost.kill()
    assert health.ready().http_status == 503
    redis_sentinel.wait_failover(lost)
    comes_true(lambda: health.ready().word == "pass")


# -------------------------------------------------------------------------------------------------------------- AWS


def test_what_aws_is_asked(moto_server: MotoServer, health: Health, cost: Cost):
    """A bucket and a table cost a request; a queue one, and one more for its dead letters."""
    s3, sqs, dynamodb = (moto_server.client(each) for each in ("s3", "sqs", "dynamodb"))
    s3.create_bucket(Bucket="photos", CreateBucketConfiguration=EU)
    key = [{"AttributeName": "id", "AttributeType": "S"}]
    schema = [{"AttributeName": "id", "KeyType": "HASH"}]
    dynamodb.create_table(TableName="orders", AttributeDefinitions=key, KeySchema=schema, BillingMode="PAY_PER_REQUEST")
    dead = sqs.create_queue(QueueName="dead")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": "3"})
    url = sqs.create_queue(QueueName="jobs", Attributes={"RedrivePolicy": policy})["QueueUrl"]
    plain = Queue(sqs.create_queue(QueueName="plain")["QueueUrl"], client=sqs)
    assert cost("`s3`", checks.s3(Bucket("photos", client=s3)), sent(s3), "1 request (`HeadBucket`)") == 1
    table = checks.dynamodb("orders", dynamodb)
    assert cost("`dynamodb`", table, sent(dynamodb), "1 request (`DescribeTable`), no capacity") == 1
    assert cost("`sqs`", checks.sqs(plain), sent(sqs), "1 request (`GetQueueAttributes`)") == 1
    both = checks.sqs(Queue(url, client=sqs))
    assert cost("`sqs` with dead letters", both, sent(sqs), "2 requests, one for each queue") == 2
    health.add("orders", table, ttl=0, timeout=DEADLINE)
    comes_true(lambda: health.ready().word == "pass")
    dynamodb.delete_table(TableName="orders")
    comes_true(lambda: health.ready().checks["orders"].status is Status.FAIL)


def test_what_concerns_operators_warns_and_never_fails(
    moto_server: MotoServer, mariadb: MariaDbCluster, redis_server: RedisServer, health: Health
):
    """Depth, age and dead letters of a queue, lag, open breakers and a cold cache are measured, and warn."""
    sqs, watch = moto_server.client("sqs"), moto_server.client("cloudwatch")
    dead = sqs.create_queue(QueueName="dead")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": "3"})
    url = sqs.create_queue(QueueName="jobs", Attributes={"RedrivePolicy": policy})["QueueUrl"]
    for _ in range(3):
        sqs.send_message(QueueUrl=url, MessageBody="{}")
    sqs.send_message(QueueUrl=dead, MessageBody="{}")
    watch.put_metric_data(
        Namespace="AWS/SQS",
        MetricData=[
            {
                "MetricName": "ApproximateAgeOfOldestMessage",
                "Dimensions": [{"Name": "QueueName", "Value": "jobs"}],
                "Value": 900.0,
                "Timestamp": dt.datetime.now(dt.UTC),
            }
        ],
    )
    jobs = Queue(url, client=sqs)
    pipeline = Pipeline("orders", Retry(attempts=1), Breaker(consecutive=3))
    for _ in range(4):
        with pytest.raises(Exception):  # noqa: B017 - the socket's error, or the open circuit
            pipeline.call(socket.create_connection, ("127.0.0.1", 1), 1)
    with (
        Cache(redis_server.url, namespace="shop", ttl=60) as cache,
        ReplicaSet(mariadb.primary.url, [node.url for node in mariadb.replicas], probe_interval=0.1, max_lag=0.3) as db,
    ):
        for key in range(4):
            cache.get_or_load(str(key), lambda: 1)
        both = {"ttl": 0, "timeout": DEADLINE}
        health.add("deep", checks.sqs(jobs, max_depth=2, dead_letters=False), **both)
        health.add("late", checks.sqs(jobs, max_age=300, dead_letters=False, cloudwatch=watch), **both)
        health.add("dead", checks.sqs(jobs), **both)
        health.add("cache", checks.cache(cache, min_hit_ratio=0.5, min_reads=4), ttl=0)
        health.add("orders", checks.breaker(pipeline), ttl=0)
        health.add("traffic", checks.pipelines(pipeline), ttl=0)
        health.add("db", checks.replicas(db), ttl=0)
        db.probe()
        mariadb.replicas[0].stop_replication()

        reports: list[Report] = []

        def told() -> dict[str, str | None]:
            mariadb.primary.query("REPLACE INTO app.moves VALUES (1, UUID())")
            reports.append(health.ready())
            return {name: each.reason for name, each in reports[-1].checks.items()}

        mariadb.primary.query("CREATE TABLE IF NOT EXISTS app.moves (id INT PRIMARY KEY, v VARCHAR(40))")
        expected = {"deep": "deep", "late": "late", "dead": "dead_letters", "cache": "cold"}
        expected |= {"orders": "open", "traffic": "open", "db": "replicas"}
        comes_true(lambda: told() == expected and reports[-1].checks["db"].values.get("lag", 0.0) > 0.3)
        report = reports[-1]
        found = report.checks
        assert report.http_status == 200
        assert {each.status for each in found.values()} == {Status.WARN}
        assert found["late"].values["oldest"] == 900.0
        assert found["deep"].values["depth"] == 3
        assert found["dead"].values["dead_letters"] == 1
        assert found["cache"].values["hit_ratio"] == 0.0


def test_a_cloudwatch_that_hangs_takes_no_instance_out(
    moto_server: MotoServer, tcp_proxy: Callable[[int], TcpProxy], health: Health
):
    """As in a subnet without a way to it: the queue answers, its age is unknown, and the check keeps its time."""
    sqs = moto_server.client("sqs")
    jobs = Queue(sqs.create_queue(QueueName="jobs")["QueueUrl"], client=sqs)
    proxy = tcp_proxy(moto_server.port)
    proxy.stall()
    session = boto3.Session("test", "test", region_name=moto_server.region)
    watch = session.client("cloudwatch", endpoint_url=f"http://127.0.0.1:{proxy.port}")
    health.add("jobs", checks.sqs(jobs, max_age=300, cloudwatch=watch), ttl=0, timeout=DEADLINE)
    comes_true(lambda: health.ready().checks["jobs"].reason == "age_unknown")
    report = health.ready()
    assert (report.http_status, report.checks["jobs"].values["depth"]) == (200, 0)
    proxy.restore()
    watch.close()


# ------------------------------------------------------------------------------------- certificates, clocks, machines


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[tuple[int, Path, list[str]]]:
    """A TLS server with a certificate of ten days: its port, the file, and the names it was asked for."""
    key, now = ec.generate_private_key(ec.SECP256R1()), dt.datetime.now(dt.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "shop.example")])
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(now - dt.timedelta(1)).not_valid_after(now + dt.timedelta(10))
    path = tmp_path / "shop.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM) + private)
    context, names = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), []
    context.load_cert_chain(path)
    context.sni_callback = lambda _link, asked, _context: names.append(asked)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    plain, _ = listener.accept()
                except OSError:
                    return
                try:
                    with context.wrap_socket(plain, server_side=True) as link:
                        link.recv(1)
                except OSError:
                    plain.close()

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1], path, names
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_a_certificate_that_is_served(tls: tuple[int, Path, list[str]], health: Health, cost: Cost):
    """Asked for by name; it warns before its end, from the server as from the file."""
    port, path, names = tls
    place = f"127.0.0.1:{port}"
    health.add("served", checks.certificate(place, server_name="shop.example"), ttl=0)
    health.add("file", checks.certificate(path), ttl=0)
    comes_true(lambda: reasons(health) == {"served": "expiring", "file": "expiring"})
    for each in health.ready().checks.values():
        assert each.status is Status.WARN
        assert 9.9 < each.values["days"] <= 10
    assert set(names) == {"shop.example"}
    check = checks.certificate(place, server_name="shop.example", warn_days=5)
    each = cost("`certificate` (server)", check, lambda: len(names), "1 handshake; give it a `ttl` of minutes")
    assert each == 1
    cost("`certificate` (file)", checks.certificate(path, warn_days=5), None, "1 file read")


def test_a_clock_against_a_real_server(moto_server: MotoServer, health: Health, cost: Cost):
    """The date of an HTTP answer, a refusal's too; its whole seconds alone are no skew."""
    health.add("clock", checks.clock(moto_server.url, max_skew=1.0), ttl=0, timeout=DEADLINE)
    comes_true(lambda: health.ready().word == "pass")
    assert abs(health.ready().checks["clock"].values["skew"]) < 1.0
    cost("`clock`", checks.clock(moto_server.url), None, "1 request (`HEAD`); give it a `ttl` of minutes")


def test_a_real_disk(tmp_path: Path, cost: Cost):
    """What it says is what the system says."""
    found = checks.disk(tmp_path, warn_free=0, fail_free=0).run()
    usage = shutil.disk_usage(tmp_path)
    assert found.values["free"] == pytest.approx(usage.free / usage.total, abs=0.1)
    cost("`disk`", checks.disk(tmp_path, warn_free=0, fail_free=0), None, "1 system call")


def test_what_is_known_in_the_process_costs_nothing(redis_server: RedisServer, tmp_path: Path, cost: Cost):
    """Breakers, pipelines, caches and loops are looked at; nobody is asked."""
    pipeline = Pipeline("orders", Breaker())
    with Cache(redis_server.url, namespace="shop", ttl=60) as cache:
        cache.get_or_load("a", lambda: 1)
        for name, check in {
            "`breaker`": checks.breaker(pipeline),
            "`pipelines`": checks.pipelines(pipeline),
            "`cache`": checks.cache(cache),
            "`heartbeat`": checks.heartbeat(30),
            "`callable`": checks.callable(lambda: True),
        }.items():
            what = "what your function costs" if name == "`callable`" else "none: it is known here"
            assert cost(name, check, processed(redis_server), what) == 0


LOOP = """
import threading, time
from flask import Flask
from resilient.flask import health_blueprint
from resilient.health import Health, checks

app, health, hung = Flask(__name__), Health(), threading.Event()
worker = checks.heartbeat(max_age=0.3)
health.add("worker", worker, views=["live", "ready"], ttl=0)
app.register_blueprint(health_blueprint(health))

def loop():
    while True:
        worker.beat()
        while hung.is_set():
            time.sleep(0.01)
        time.sleep(0.02)

threading.Thread(target=loop, daemon=True).start()

@app.get("/hang")
def hang():
    hung.set()
    return "hangs"

@app.get("/mend")
def mend():
    hung.clear()
    return "goes on"
"""


def test_a_worker_loop_that_hangs_is_noticed(tmp_path: Path):
    """Behind a real server: liveness fails while the server itself answers, and passes when the loop goes on."""
    (tmp_path / "loop_app.py").write_text(LOOP)
    environment = {"PYTHONPATH": str(Path(__file__).parents[2])}
    with Gunicorn("loop_app:app", env=environment, cwd=tmp_path, ready="/readyz") as web:
        comes_true(lambda: web.get("/livez") == (200, b"pass\n"))
        assert web.get("/hang")[0] == 200
        comes_true(lambda: web.get("/livez") == (503, b"fail\n"))
        assert web.get("/mend")[0] == 200
        comes_true(lambda: web.get("/livez") == (200, b"pass\n"))


NOISY = """
import os
from flask import Flask
from resilient.flask import health_blueprint
from resilient.health import Health
from resilient.web import quiet_probes

quiet_probes()
app, health = Flask(__name__), Health()
health.add("it", lambda: not os.path.exists(os.environ["BROKEN"]), ttl=0)
app.register_blueprint(health_blueprint(health))

@app.get("/")
def index():
    return "hello"
"""


def test_a_real_access_log_is_spared_probes_that_went_well(tmp_path: Path):
    """gunicorn's has the page and the probe that failed, and no other."""
    (tmp_path / "noisy_app.py").write_text(NOISY)
    broken, log = tmp_path / "broken", tmp_path / "access.log"
    environment = {"PYTHONPATH": str(Path(__file__).parents[2]), "BROKEN": str(broken)}
    arguments = ["--access-logfile", str(log)]
    with Gunicorn("noisy_app:app", env=environment, cwd=tmp_path, ready="/livez", arguments=arguments) as web:
        for _ in range(5):
            assert web.get("/readyz")[0] == 200
        assert web.get("/")[0] == 200
        broken.touch()
        assert web.get("/readyz")[0] == 503
    lines = [line.split('"')[1:3] for line in log.read_text().splitlines()]
    assert [(line[0].split()[1], line[1].split()[0]) for line in lines] == [("/", "200"), ("/readyz", "503")]


def test_an_http_server_that_is_not_there_is_a_warning_of_the_clock(health: Health):
    """Nothing listens: that says nothing of this clock."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(OSError):
        http.client.HTTPConnection("127.0.0.1", port, timeout=1).connect()
    health.add("clock", checks.clock(f"http://127.0.0.1:{port}/"))
    assert (health.ready().word, health.ready().checks["clock"].reason) == ("warn", "unreachable")


def test_a_source_of_time_that_is_frozen_takes_no_instance_out(moto_server: MotoServer, health: Health):
    """It takes the connection and is silent: a warning each time, within the deadline."""
    health.add("clock", checks.clock(moto_server.url), ttl=0)
    comes_true(lambda: health.ready().word == "pass")
    moto_server.freeze()
    for _ in range(3):
        report = health.ready()
        assert (report.http_status, report.word) == (200, "warn")
        assert report.checks["clock"].reason in {"timeout", "unreachable"}
    moto_server.thaw()
    comes_true(lambda: health.ready().word == "pass")
