"""What users do, and what the worker makes of it."""

import uuid

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from examples.imagery.model import Charge, Image, TimelineEvent
from examples.imagery.sepia import sepia
from resilient.cache import Cache
from resilient.errors import Conflict, InvalidInput, NotFound, Refused, Unavailable
from resilient.queue import Redeliver, Reject

SOME_ID = "5f0c2c4e-8a51-4c1e-9f5e-0b6a1d2e3f4a"
"""An id that stands for any; fixed, so that every worker of a parallel run collects the same tests."""


def charges(world, image_id=None):
    query = sa.select(sa.func.count()).select_from(Charge)
    if image_id is not None:
        query = query.where(Charge.image_id == image_id)
    with world.db.primary(), world.services.session() as session:
        return session.scalar(query)


def row(world, image_id):
    with world.db.primary(), world.services.session() as session:
        return session.get(Image, image_id)


def test_the_whole_way(world):
    """Created, uploaded, processed: the result is the sepia of the upload, charged once, told in the timeline."""
    image_id = world.created()
    jpeg = world.uploaded(image_id)
    world.work()
    world.work()  # the announcement that the first round wrote
    assert world.images.view(image_id).state == "processed"
    assert row(world, image_id).version == 2
    status, _, content = world.s3.open_link(world.images.link(image_id, "alice"))
    assert (status, content) == (200, sepia(jpeg))
    assert charges(world) == 1
    assert [each.what for each in world.images.timeline("alice")] == ["created", "uploaded", "processed"]
    assert len(world.images.timelines()) == 3


def test_create_again(world):
    """The same creation again gives the same answer and one row; the same id for another image is refused."""
    image_id = str(uuid.uuid4())
    first = world.images.create(image_id, "alice", "Evening")
    assert world.images.create(image_id, "alice", "Evening") == first
    with pytest.raises(Conflict):
        world.images.create(image_id, "alice", "Morning")
    assert [each.id for each in world.images.newest()] == [image_id]
    assert len(world.messages(world.events)) == 1


@pytest.mark.parametrize(
    ("image_id", "owner", "title"),
    [
        ("17", "alice", "t"),
        (SOME_ID.upper(), "alice", "t"),
        (SOME_ID, "../bob", "t"),
        (SOME_ID, "", "t"),
        (SOME_ID, "alice", ""),
        (SOME_ID, "alice", "t" * 201),
        (None, "alice", "t"),
        (SOME_ID, None, "t"),
    ],
)
def test_create_refuses(world, image_id, owner, title):
    """What is no UUID, no owner or no title is refused before anything is written."""
    with pytest.raises(InvalidInput):
        world.images.create(image_id, owner, title)
    assert world.images.newest() == []


def test_confirm_needs_an_upload(world):
    """A confirmation without an object changes nothing and sends nothing."""
    image_id = world.created()
    with pytest.raises(NotFound):
        world.images.confirm(image_id, world.images.ticket(image_id, "alice").token, "alice")
    assert row(world, image_id).state == "created"
    assert world.messages(world.jobs) == []


def test_confirm_again(world):
    """The same confirmation again gives the same answer and one message, also after the image is processed."""
    image_id = world.created()
    token, _ = world.posted(image_id)
    first = world.images.confirm(image_id, token, "alice")
    assert world.images.confirm(image_id, token, "alice") == first
    world.work()
    assert world.images.confirm(image_id, token, "alice") == first
    assert row(world, image_id).version == 2
    assert world.messages(world.jobs) == []


def test_upload_after_processed_is_refused_and_leaves_no_object(world):
    """A late upload is answered with a conflict, again and again, and its object is gone."""
    image_id = world.created()
    late, _ = world.posted(image_id, seed=2)
    world.uploaded(image_id, seed=1)
    world.work()
    before = {
        key for key in world.objects() if key in (row(world, image_id).source_key, row(world, image_id).result_key)
    }
    for _ in range(2):
        with pytest.raises(Conflict):
            world.images.confirm(image_id, late, "alice")
    with pytest.raises(Conflict):
        world.images.ticket(image_id, "alice")
    assert set(world.objects()) == before
    assert len(before) == 2


def test_a_later_upload_replaces_the_first(world):
    """Of two accepted uploads the last one counts, whichever message is handled first; nothing is left of the other."""
    image_id = world.created()
    world.uploaded(image_id, seed=1)
    world.clock.advance(0.1)
    last = world.uploaded(image_id, seed=2)
    consumer, messages = world.worker.jobs(), world.messages(world.jobs)
    for message in reversed(messages):
        consumer.handle_one(message.body, id=message.key)
    found = row(world, image_id)
    assert world.services.bucket.get(found.result_key) == sepia(last)
    assert set(world.objects()) == {found.source_key, found.result_key}
    assert charges(world) == 1


def test_a_replaced_upload_never_comes_back(world):
    """Confirmed once more after a newer one was accepted, it is refused and leaves no object."""
    image_id = world.created()
    old, _ = world.posted(image_id, seed=1)
    world.images.confirm(image_id, old, "alice")
    world.clock.advance(0.1)
    new = world.uploaded(image_id, seed=2)
    with pytest.raises(Conflict):
        world.images.confirm(image_id, old, "alice")
    world.work()
    found = row(world, image_id)
    assert set(world.objects()) == {found.source_key, found.result_key}
    assert world.services.bucket.get(found.result_key) == sepia(new)


def test_an_upload_that_is_gone_is_a_loss_not_a_result(world):
    """A source that vanished from the store leaves the image as it is, and the message is set aside with the reason."""
    image_id = world.created()
    world.uploaded(image_id)
    world.services.bucket.delete(row(world, image_id).source_key)
    [message] = world.messages(world.jobs)
    with pytest.raises(Reject, match="gone"):
        world.worker.jobs().handle_one(message.body, id=message.key)
    assert row(world, image_id).state == "uploaded"


def test_what_was_announced_twice_stands_once(world):
    """Two announcements of one step, as two racing confirmations make them, are one row of the timeline."""
    image_id = world.created()
    with world.services.session.begin() as session:
        world.images.announce(session, image_id, "alice", "created")
    messages = world.messages(world.events)
    assert len(messages) == 2
    for message in messages:
        world.worker.events().handle_one(message.body, id=message.key)
    assert [each.what for each in world.images.timeline("alice")] == ["created"]


def test_a_ticket_of_another_image_is_refused(world):
    """A token confirms the image it was given for, and no other one of the same owner."""
    one, other = world.created(), world.created()
    token, _ = world.posted(one)
    with pytest.raises(Refused):
        world.images.confirm(other, token, "alice")


def test_a_message_delivered_twice_is_charged_once(world):
    """A second delivery finds the record of the first, and does nothing."""
    world.uploaded(world.created())
    consumer, [message] = world.worker.jobs(), world.messages(world.jobs)
    for _ in range(3):
        consumer.handle_one(message.body, id=message.key)
    assert charges(world) == 1


def test_without_the_ledger_it_is_charged_twice(make_world):
    """The sabotage does what it says."""
    world = make_world(sabotage="no-ledger")
    world.uploaded(world.created())
    consumer, [message] = world.worker.jobs(), world.messages(world.jobs)
    for _ in range(2):
        consumer.handle_one(message.body, id=message.key)
    assert charges(world) == 2


def test_what_is_no_picture_is_rejected(world):
    """Bytes that only say they are a JPEG are set aside at once, without an effect."""
    image_id = world.created()
    ticket = world.images.ticket(image_id, "alice")
    assert world.s3.post_form(ticket.url, ticket.fields, b"no JPEG " * 20) == 201
    world.images.confirm(image_id, ticket.token, "alice")
    [message] = world.messages(world.jobs)
    with pytest.raises(Reject):
        world.worker.jobs().handle_one(message.body, id=message.key)
    assert row(world, image_id).state == "uploaded"
    assert charges(world) == 0


def test_a_crash_before_the_commit_repeats_to_the_same_end(world):
    """A worker that dies after it stored the result leaves nothing that the next attempt does not use."""
    image_id = world.created()
    jpeg = world.uploaded(image_id)
    [message] = world.messages(world.jobs)
    died = []

    def die(session):
        if not died:
            died.append(session)
            raise Unavailable("the worker died")

    sa.event.listen(world.services.session, "before_commit", die)
    with pytest.raises(Unavailable):
        world.worker.jobs().handle_one(message.body, id=message.key)
    assert (row(world, image_id).state, charges(world)) == ("uploaded", 0)
    world.worker.jobs().handle_one(message.body, id=message.key)
    found = row(world, image_id)
    assert set(world.objects()) == {found.source_key, found.result_key}
    assert world.services.bucket.get(found.result_key) == sepia(jpeg)
    assert charges(world) == 1


def test_only_the_owner_gets_a_link(world):
    """A stranger gets no link at all, and nobody gets one before the image is processed."""
    image_id = world.created()
    with pytest.raises(Conflict):
        world.images.link(image_id, "alice")
    world.uploaded(image_id)
    world.work()
    for reader in (None, "bob", ""):
        with pytest.raises(Refused):
            world.images.link(image_id, reader)


def test_a_dead_shard_puts_off_its_own_messages(world, monkeypatch):
    """The message of an owner whose shard is away comes again; the shard of others is not concerned."""
    owners = {world.services.shards.shard_for(f"user-{n}"): f"user-{n}" for n in range(20)}
    for owner in owners.values():
        world.created(owner)
    real = world.services.shards.session

    def session(*, key):
        made = real(key=key)
        if key == owners["north"]:
            monkeypatch.setattr(made, "connection", lambda: (_ for _ in ()).throw(Unavailable("away")))
        return made

    monkeypatch.setattr(world.services.shards, "session", session)
    consumer, put_off = world.worker.events(), []
    for message in world.messages(world.events):
        try:
            consumer.handle_one(message.body, id=message.key)
        except Redeliver:
            put_off.append(message.body)
    assert len(put_off) == 1
    assert owners["north"] in put_off[0]
    assert len(world.images.timeline(owners["south"])) == 1


def test_own_writes_are_read_though_the_cache_was_out_of_reach(world):
    """An entry that should have been dropped, and could not be, is not served to who made the change."""
    image_id = world.created()
    token, _ = world.posted(image_id)
    with world.db.scope():
        assert world.images.view(image_id).version == 0
        world.clock.advance(0.1)
        with world.services.cache.use(Cache(namespace="imagery")):  # what is dropped there is not dropped here
            world.images.confirm(image_id, token, "alice")
        assert world.images.view(image_id).version == 1
    with world.db.scope():
        world.clock.advance(60)
        assert world.images.view(image_id).version == 1


def test_the_writer_s_list_is_current_and_a_stranger_s_may_lag(make_world):
    """Behind lagging replicas the writer finds the new image at once; a stranger does when it has arrived."""
    world = make_world(lagging=True)
    world.db.lag = 0.5
    with world.db.scope():
        image_id = world.created()
        assert [each.id for each in world.images.newest("alice")] == [image_id]
    with world.db.scope():
        assert world.images.newest("alice") == []
        world.clock.advance(1)
        assert [each.id for each in world.images.newest("alice")] == [image_id]


def test_create_and_announce_are_one(world):
    """If the announcement cannot be written, the image is not created either."""
    world.services.outbox._queues.pop("events")
    with pytest.raises(InvalidInput):
        world.created()
    assert world.images.newest() == []


class Story:
    """Random users, workers, repetitions and crashes, and what must be true after each story."""

    def __init__(self, world):
        self.world = world
        self.image = world.created()
        world.messages(world.events)
        self.tokens, self.accepted = [], None
        self.known = []

    def post(self):
        self.world.clock.advance(0.01)
        try:
            self.tokens.append(self.world.posted(self.image, seed=len(self.tokens)))
        except Conflict:
            assert row(self.world, self.image).state == "processed"

    def confirm(self, draw):
        if not self.tokens:
            return
        token, jpeg = self.tokens[draw % len(self.tokens)]
        try:
            self.world.images.confirm(self.image, token, "alice")
        except (Conflict, NotFound):
            return
        self.accepted = jpeg

    def handle(self, draw):
        self.known += self.world.messages(self.world.jobs)
        if self.known:
            message = self.known[draw % len(self.known)]
            self.world.worker.jobs().handle_one(message.body, id=message.key)

    def end(self):
        for _, (token, _) in enumerate(self.tokens):  # each user asks until there is an answer
            try:
                self.world.images.confirm(self.image, token, "alice")
            except (Conflict, NotFound):
                continue
            self.accepted = next(jpeg for known, jpeg in self.tokens if known == token)
        for _ in range(2):
            self.known += self.world.messages(self.world.jobs)
            for message in self.known:
                self.world.worker.jobs().handle_one(message.body, id=message.key)


def own_keys(world, story):
    return {key for key in world.objects() if story.image in key}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=settings.default.max_examples // 2)
@given(st.lists(st.tuples(st.sampled_from(["post", "confirm", "handle"]), st.integers(0, 5)), max_size=10))
def test_every_order_of_uploads_confirmations_and_deliveries_ends_well(world, steps):
    """Whatever the order and however often: processed, the last accepted upload, one result, one charge, no orphan."""
    story = Story(world)
    for step, draw in steps:
        if step == "post":
            story.post()
        else:
            getattr(story, step)(draw)
    story.end()
    found = row(world, story.image)
    if story.accepted is None:
        assert (found.state, own_keys(world, story)) == ("created", set())
        return
    assert (found.state, found.version, charges(world, story.image)) == ("processed", 2, 1)
    assert world.services.bucket.get(found.result_key) == sepia(story.accepted)
    assert own_keys(world, story) == {found.source_key, found.result_key}
    world.work()
    with world.services.shards.session(key="alice") as session:
        told = session.scalars(sa.select(TimelineEvent.what).where(TimelineEvent.image_id == story.image)).all()
    assert sorted(told) == ["processed", "uploaded"]
