"""All the parts on one machine: servers, two web processes, two workers. Started together, always stopped."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import msgspec

from examples.imagery.databases import Databases, databases
from examples.imagery.services import Services
from examples.imagery.settings import Settings
from resilient.testing.servers import EmbeddedRedis, Gunicorn, MotoServer, Process, RedisServer, together

__all__ = ["Parts"]

ROOT = Path(__file__).parents[2]

_QUEUES = {"jobs": 8, "events": 60}
"""How often a message may be received before it is set aside. A timeline waits for its shard, so it may try longer."""


class Parts:
    """The whole environment.

    Args:
        port: The port of the first web process; by default a free one.
        work_seconds: Seconds each picture takes at least.
        visibility: Seconds after which a dead worker's message goes to another.
        sabotage: See `settings.SABOTAGES`.
        embedded: Use no server of the machine even where it has them.
        processes: How many web processes, and how many workers.
    """

    def __init__(
        self,
        *,
        port: int | None = None,
        work_seconds: float = 0.25,
        visibility: int = 4,
        sabotage: str = "",
        embedded: bool = False,
        processes: int = 2,
    ) -> None:
        from examples.imagery.databases import SqliteDatabases

        self._limits = (work_seconds, visibility, sabotage)
        self._port = port
        self._processes = processes
        self.databases: Databases = SqliteDatabases() if embedded else databases()
        real = RedisServer.missing() is None and not embedded
        self.redis: RedisServer | EmbeddedRedis = RedisServer() if real else EmbeddedRedis()
        self.store = MotoServer()
        self.webs: list[Gunicorn] = []
        self.workers: list[Process] = []
        self.settings: Settings | None = None
        redis = "redis-server" if real else "fakeredis, embedded"
        self.what = {"databases": self.databases.what, "cache": redis, "S3 and SQS": "moto, embedded"}

    # ------------------------------------------------------------------------------------------------------ starting

    def start(self) -> Self:
        """Start everything, side by side where possible. What was started is stopped if anything fails."""
        try:
            together([self.redis.start, self.store.start, *self.databases.starts])
            self.settings = self._make_settings()
            self._make_tables(self.settings)
            self.databases.replicate()
            self._start_processes(self.settings)
        except BaseException:
            self.stop()
            raise
        return self

    def _make_settings(self) -> Settings:
        work, visibility, sabotage = self._limits
        self.store.client("s3").create_bucket(
            Bucket="imagery", CreateBucketConfiguration={"LocationConstraint": self.store.region}
        )
        queues = {name: self._make_queue(name, tries) for name, tries in _QUEUES.items()}
        return Settings(
            database=self.databases.primary,
            replicas=self.databases.replicas,
            shards=dict(self.databases.shards),
            redis=self.redis.url,
            endpoint=self.store.url,
            region=self.store.region,
            jobs=queues["jobs"],
            events=queues["events"],
            secret=secrets.token_hex(32),
            work_seconds=work if self.databases.concurrency > 1 else min(work, 0.1),
            visibility=visibility,
            concurrency=self.databases.concurrency,
            sabotage=sabotage,
        )

    def _make_queue(self, name: str, tries: int) -> str:
        sqs = self.store.client("sqs")
        dead = sqs.create_queue(QueueName=f"{name}-dead")["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        redrive = msgspec.json.encode({"deadLetterTargetArn": arn, "maxReceiveCount": tries}).decode()
        return str(sqs.create_queue(QueueName=name, Attributes={"RedrivePolicy": redrive})["QueueUrl"])

    def _make_tables(self, settings: Settings) -> None:
        services = Services.connect(settings, s3=self.store.client("s3"), sqs=self.store.client("sqs"))
        try:
            services.create_tables()
        finally:
            services.close()

    def _start_processes(self, settings: Settings) -> None:
        environment = {**settings.to_environment(), **self.store.env, "PYTHONUNBUFFERED": "1"}
        for number in range(self._processes):
            self.webs.append(
                Gunicorn(
                    "examples.imagery.wsgi:app",
                    env=environment,
                    cwd=ROOT,
                    threads=8,
                    ready="/livez",
                    port=self._port if number == 0 else None,
                )
            )
            command = [sys.executable, "-m", "examples.imagery.worker"]
            self.workers.append(Process(command, env=environment, cwd=ROOT, name=f"worker-{number + 1}"))
        together([each.start for each in (*self.webs, *self.workers)])

    # ------------------------------------------------------------------------------------------------------- the rest

    def processes(self) -> Mapping[str, int]:
        """Names and process numbers, for those who want to break something by hand."""
        named = [(f"web-{number}", web.pid) for number, web in enumerate(self.webs, start=1)]
        named += [(worker.name, worker.pid) for worker in self.workers]
        named += [("cache", self.redis.pid), ("S3 and SQS", self.store.pid), *self.databases.processes()]
        return dict(named)

    def keep_logs(self, folder: Path) -> None:
        """Write what each process printed to a file of that folder."""
        folder.mkdir(parents=True, exist_ok=True)
        for number, web in enumerate(self.webs, start=1):
            (folder / f"web-{number}.log").write_text(web.output())
        for process in (*self.workers, self.redis, self.store):
            (folder / f"{process.name}.log").write_text(process.output())

    def stop(self) -> None:
        """End everything and remove every file. May be repeated."""
        together([process.stop for process in (*self.webs, *self.workers)])
        together([self.redis.stop, self.store.stop, self.databases.stop])

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()
