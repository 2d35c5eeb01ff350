"""The parts together: one deadline bounds them all and says who was late; an outage is told once by each."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest
import sqlalchemy as sa

from resilient.cache import Cache
from resilient.errors import DeadlineExceeded, ResilientError
from resilient.health import Health, checks
from resilient.policy import Breaker, Pipeline, Retry, deadline
from resilient.queue import Queue
from resilient.storage.objects import Bucket, UploadPolicy
from resilient.storage.replicas import ReplicaSet
from resilient.testing.servers import MariaDbCluster, MotoServer, RedisServer

pytestmark = pytest.mark.filterwarnings("ignore:.*scope.*")


@dataclass
class Shop:
    """An application with a cache, a database, a bucket and a queue."""

    cache: Cache
    db: ReplicaSet
    bucket: Bucket
    jobs: Queue
    sources: list[str] = field(default_factory=list)

    def request(self, seconds: float) -> None:
        """Read the cache, then SQL, then sign an upload and send a message: all within one deadline."""
        with deadline(seconds):
            found = self.cache.lookup("prices")
            self.sources.append("nobody" if found is None else found.source)
            self.cache.get_or_load("prices", lambda: {"a": 1})
            with self.db.sessionmaker()() as session:
                session.execute(sa.text("SELECT 1"))
                session.commit()
            policy = UploadPolicy(prefix="users/{owner}/", max_bytes=1000, content_types=["image/jpeg"])
            ticket = self.bucket.presign_post(policy, owner="alice", filename="a.jpg")
            self.jobs.send({"key": ticket.key})


@pytest.fixture
def shop(
    redis_server: RedisServer, mariadb: MariaDbCluster, moto_server: MotoServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Shop]:
    for name, value in moto_server.env.items():
        monkeypatch.setenv(name, value)
    s3, sqs = moto_server.client("s3"), moto_server.client("sqs")
    s3.create_bucket(Bucket="photos", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    jobs = Queue(sqs.create_queue(QueueName="jobs")["QueueUrl"], region="eu-west-1")
    with (
        Cache(redis_server.url, namespace="shop", ttl=60) as cache,
        ReplicaSet(mariadb.primary.url, [], probe_interval=5.0) as db,
    ):
        yield Shop(cache, db, Bucket("photos", client=s3, secrets=["x" * 32]), jobs)
    jobs.client.close()


def timed(function: Callable[[], Any]) -> tuple[BaseException | None, float]:
    began = time.monotonic()
    try:
        function()
    except ResilientError as error:
        return error, time.monotonic() - began
    return None, time.monotonic() - began


def comes_true(probe: Callable[[], bool], seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not probe():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


@pytest.mark.parametrize("late", ["cache", "database", "queue"])
def test_one_deadline_bounds_all_parts_and_says_which_was_late(
    shop: Shop,
    late: str,
    redis_server: RedisServer,
    mariadb: MariaDbCluster,
    moto_server: MotoServer,
    limit: Callable[[float], float],
    figures: Callable[..., None],
):
    """Frozen one by one: a late cache costs little and is named as no source, the others are named by the error."""
    comes_true(lambda: timed(lambda: shop.request(5.0))[0] is None)
    server = {"cache": redis_server, "database": mariadb.primary, "queue": moto_server}[late]
    server.freeze()
    try:
        error, took = timed(lambda: shop.request(1.0))
    finally:
        server.thaw()
    told = "the answer, without it" if error is None else str(error).split(";")[0]
    figures("deadline", frozen=late, took=f"{took:.2f} s", said=told.replace(str(mariadb.primary.port), "3306"))
    assert took <= limit(1.1)
    if late == "cache":
        assert error is None
        assert shop.sources[-1] != "shared"
        return
    assert isinstance(error, DeadlineExceeded)
    assert {"database": f"mysql app at 127.0.0.1:{mariadb.primary.port}", "queue": "sqs"}[late] in str(error)


def test_an_outage_is_told_once_by_each_part(
    shop: Shop, redis_server: RedisServer, mariadb: MariaDbCluster, caplog: pytest.LogCaptureFixture
):
    """A hundred requests and as many probes of a dead cache and a dead database: a line of each part, and no more.

    The breaker that traffic opened is in the report, though nobody asked the database for it.
    """
    orders = Pipeline("orders", Retry(attempts=1), Breaker(consecutive=3, wait=30.0))
    health = Health()
    health.add("cache", checks.redis(redis_server.url), ttl=0.05)
    health.add("orders", checks.breaker(orders), ttl=0.05)
    engine, asked = sa.create_engine(mariadb.primary.url, connect_args={"connect_timeout": 1}), []

    def read() -> None:
        asked.append(1)
        with engine.connect() as connection:
            connection.execute(sa.text("SELECT 1"))

    def serve(_: int) -> None:
        shop.cache.get_or_load("prices", lambda: 1)
        with contextlib.suppress(ResilientError, sa.exc.SQLAlchemyError):  # the page is served without it
            orders.call(read)

    serve(0)
    assert health.ready().word == "pass"
    engine.dispose()
    with caplog.at_level(logging.INFO, "resilient"):
        redis_server.stop()
        mariadb.primary.stop()
        with ThreadPoolExecutor(4) as threads:
            for _ in range(10):
                list(threads.map(serve, range(10)))
                reports = list(threads.map(lambda _: health.ready(), range(10)))
                time.sleep(0.06)
        before = len(asked)
        report = health.ready()
    assert {each.http_status for each in reports} == {200}
    assert {name: each.reason for name, each in report.checks.items()} == {"cache": "unavailable", "orders": "open"}
    assert before == len(asked) <= 3 + 4  # the three that opened it, and those under way beside them
    lines = Counter(
        next((word for word in record.getMessage().split() if "=" in word), record.getMessage())
        for record in caplog.records
        if record.levelno >= logging.WARNING and record.name.startswith("resilient")
    )
    health.close()
    engine.dispose()
    assert lines["check=cache"] == 1
    assert lines["check=orders"] == 1
    assert lines["pipeline=orders"] == 1
    assert [line for line, count in lines.items() if count > 1] == []
    assert len(lines) <= 6
