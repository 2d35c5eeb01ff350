"""The outside world, every part of it reached through `resilient`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import sessionmaker
from sqlalchemy.pool import NullPool

from examples.imagery.model import Base, ShardBase
from examples.imagery.settings import Settings
from resilient.cache import Cache
from resilient.clock import SYSTEM, Clock
from resilient.queue import Outbox, Queue, create_tables
from resilient.storage.objects import Bucket
from resilient.storage.replicas import ReplicaSet
from resilient.storage.shards import ShardMap, ShardSet

__all__ = ["Services"]


@dataclass(frozen=True, kw_only=True)
class Services:
    """Everything the application talks to. Tests make one of fakes.

    Args:
        settings: Where all this is.
        db: The main database: one primary, and replicas for lists.
        session: Makes sessions of the main database.
        shards: The databases of the timelines.
        cache: Keeps single images.
        bucket: Keeps the pictures.
        jobs: The queue of pictures to process.
        events: The queue of what happened.
        outbox: Sends messages if, and only if, the transaction they belong to is committed.
        clock: What time it is.
    """

    settings: Settings
    db: ReplicaSet
    session: sessionmaker[Any]
    shards: ShardSet
    cache: Cache
    bucket: Bucket
    jobs: Queue
    events: Queue
    outbox: Outbox
    clock: Clock = SYSTEM

    @classmethod
    def connect(cls, settings: Settings, *, s3: Any = None, sqs: Any = None) -> Self:
        """Reach everything where the settings say it is. Nothing is sent yet.

        Args:
            settings: Where all this is.
            s3: A ready client to use instead.
            sqs: A ready client to use instead.
        """
        db = ReplicaSet(
            settings.database, list(settings.replicas), name="imagery", max_lag=1.0, timeout=2.0, connect_timeout=0.5
        )
        jobs = Queue(settings.jobs, client=sqs, region=settings.region)
        events = Queue(settings.events, client=sqs, region=settings.region)
        return cls(
            settings=settings,
            db=db,
            session=db.sessionmaker(expire_on_commit=False),
            shards=ShardSet(
                {name: _shard(url) for name, url in settings.shards.items()},
                control=db,
                timeout=1.0,
                connect_timeout=0.5,
            ),
            cache=Cache(settings.redis, namespace="imagery", connect_timeout=0.2, timeout=0.15),
            bucket=Bucket(
                settings.bucket,
                client=s3,
                secrets=[settings.secret],
                endpoint=settings.endpoint,
                region=settings.region,
            ),
            jobs=jobs,
            events=events,
            outbox=Outbox(queues={"jobs": jobs, "events": events}, lease=5.0),
        )

    def create_tables(self) -> None:
        """Create every table, and lay out the shards; once, before anything else runs."""
        Base.metadata.create_all(self.db.engine)
        create_tables(self.db.engine)
        self.shards.create(ShardMap.hashed(sorted(self.settings.shards)))
        for name in self.settings.shards:
            engine = self.shards.engine_for(name)
            ShardBase.metadata.create_all(engine)
            create_tables(engine)

    def close(self) -> None:
        """Let go of every connection."""
        self.shards.close()
        self.db.close()
        self.cache.close()


def _shard(url: str) -> str | Engine:
    """A shard's URL; for a SQLite file an engine that opens the file anew each time, and so notices that it is gone."""
    if not url.startswith("sqlite:///"):
        return url
    path = url.removeprefix("sqlite:///")
    return create_engine(f"sqlite:///file:{path}?mode=rw&uri=true", poolclass=NullPool, connect_args={"timeout": 1.0})
