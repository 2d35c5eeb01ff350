"""The whole application on fakes: databases, cache, store and queues in this process, all on one fake clock."""

import uuid

import pytest
from sqlalchemy import create_engine
from sqlalchemy.pool import StaticPool

from examples.imagery.images import Images
from examples.imagery.sepia import sample
from examples.imagery.services import Services
from examples.imagery.settings import Settings
from examples.imagery.web import create_app
from examples.imagery.worker import Worker
from resilient.cache import Cache
from resilient.health import Health
from resilient.queue import Outbox, Queue
from resilient.storage.objects import Bucket
from resilient.storage.replicas import ReplicaSet
from resilient.storage.shards import ShardSet
from resilient.testing import FakeClock, FakeReplicaSet, FakeS3, FakeSqs


class World:
    """The application, and hands to reach behind it."""

    def __init__(self, *, lagging=False, **changes):
        self.engines = []
        self.clock = clock = FakeClock()
        self.s3, sqs = FakeS3(buckets=["imagery"], clock=clock), FakeSqs(clock=clock)
        urls = {name: sqs.create_queue(QueueName=name)["QueueUrl"] for name in ("jobs", "events")}
        self.settings = Settings(
            database="sqlite://",
            shards={"north": "sqlite://", "south": "sqlite://"},
            secret="s" * 32,
            **urls,
            **changes,
        )
        # Replicas only where a test is about them: what they cost is most of a test's time.
        alone = {"probe_interval": None, "name": "imagery", "clock": clock}
        self.db = FakeReplicaSet(name="imagery", clock=clock) if lagging else ReplicaSet(self.memory(), **alone)
        self.jobs, self.events = (Queue(url, client=sqs, clock=clock) for url in urls.values())
        self.services = Services(
            settings=self.settings,
            db=self.db,
            session=self.db.sessionmaker(expire_on_commit=False),
            shards=ShardSet({name: self.memory() for name in self.settings.shards}, control=self.db),
            cache=Cache(namespace="imagery", clock=clock),
            bucket=Bucket("imagery", client=self.s3, secrets=[self.settings.secret], clock=clock),
            jobs=self.jobs,
            events=self.events,
            outbox=Outbox({"jobs": self.jobs, "events": self.events}, clock=clock),
            clock=clock,
        )
        self.services.create_tables()
        clock.advance(1)
        self.images = Images(self.services)
        self.worker = Worker(self.services)
        self.app = create_app(self.services, Health())

    def memory(self):
        """A database in memory that all threads see."""
        engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
        self.engines.append(engine)
        return engine

    def created(self, owner="alice", title="Evening"):
        image_id = str(uuid.uuid4())
        self.images.create(image_id, owner, title)
        return image_id

    def posted(self, image_id, seed=1):
        """Upload a picture to the store, and return its token and its bytes."""
        ticket, jpeg = self.images.ticket(image_id, "alice"), sample(seed, 40, 30)
        assert self.s3.post_form(ticket.url, ticket.fields, jpeg) == 201
        return ticket.token, jpeg

    def uploaded(self, image_id, seed=1):
        token, jpeg = self.posted(image_id, seed)
        self.images.confirm(image_id, token, "alice")
        return jpeg

    def messages(self, queue):
        """Relay the outbox, and take what waits in a queue."""
        self.services.outbox.relay(self.services.session)
        found = []
        while batch := queue.receive():
            found += batch
            queue.delete_many([message.receipt for message in batch])
        return found

    def work(self):
        """Handle everything that waits, once."""
        for queue, consumer in ((self.jobs, self.worker.jobs()), (self.events, self.worker.events())):
            for message in self.messages(queue):
                consumer.handle_one(message.body, id=message.key)

    def objects(self):
        return self.s3.keys("imagery")

    def close(self):
        self.services.close()
        for engine in self.engines:
            engine.dispose()


@pytest.fixture
def make_world():
    """Makes applications, and closes them at the end."""
    made = []

    def make(**changes):
        made.append(World(**changes))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def world(make_world):
    """One application."""
    return make_world()
