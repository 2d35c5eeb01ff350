"""What happens behind the queues: pictures are made sepia, and what happened is written to the timelines."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import Session

from examples.imagery import careless
from examples.imagery.images import Happened, Images, Job, result_key
from examples.imagery.model import Charge, Image, TimelineEvent
from examples.imagery.sepia import sepia
from examples.imagery.services import Services
from examples.imagery.settings import Settings
from examples.imagery.transitions import PROCESS, take
from resilient.errors import InvalidInput, NotFound, Unavailable
from resilient.queue import Consumer, Queue, Redeliver, Reject, SqlStore
from resilient.runtime import start_thread

__all__ = ["Worker", "main"]

_log = logging.getLogger("imagery.worker")


class Worker:
    """The handlers, and the consumers that call them.

    Args:
        services: The outside world.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._images = Images(services)

    # ------------------------------------------------------------------------------------------------------ handlers

    def process(self, job: Job, session: Session) -> None:
        """Make one upload sepia.

        The result's key is the same at each attempt, so that a crash leaves nothing behind. The transition, the charge
        and the announcement are committed together with the record that this message was handled.
        """
        _log.info("begin %s", job.image_id)
        try:
            self._process(job, session)
        finally:
            _log.info("end %s", job.image_id)

    def _process(self, job: Job, session: Session) -> None:
        key = result_key(job)
        try:
            source = self._services.bucket.get(job.source_key)
        except NotFound:
            self._must_be_replaced(job, session)
            return
        self._services.bucket.put(key, self._sepia(source), content_type="image/jpeg")
        if take(session, PROCESS, job.image_id, Image.source_key == job.source_key, result_key=key):
            session.add(Charge(image_id=job.image_id, owner=job.owner))
            self._images.announce(session, job.image_id, job.owner, "processed")
            event.listen(session, "after_commit", lambda _: self._images.changed(job.image_id), once=True)
        else:  # a newer upload replaced this one: it leaves nothing behind
            self._services.bucket.delete(key)
            self._services.bucket.delete(job.source_key)

    def _must_be_replaced(self, job: Job, session: Session) -> None:
        """An upload is removed only after a newer one has replaced it; a missing one that still counts is a loss."""
        if session.scalar(sa.select(Image.source_key).where(Image.id == job.image_id)) == job.source_key:
            raise Reject("the upload is gone")

    def _sepia(self, source: bytes) -> bytes:
        clock = self._services.clock
        began = clock.monotonic()
        try:
            brown = sepia(source)
        except InvalidInput as error:
            raise Reject(error.message) from error
        clock.sleep(max(0.0, self._services.settings.work_seconds - (clock.monotonic() - began)))
        return brown

    def remember(self, happened: Happened, session: Session) -> None:
        """Write one row to the timeline of its owner, on the owner's shard, unless it was announced before."""
        if session.get(TimelineEvent, (happened.image_id, happened.what)) is None:
            session.add(
                TimelineEvent(image_id=happened.image_id, what=happened.what, owner=happened.owner, at=happened.at)
            )

    # ----------------------------------------------------------------------------------------------------- consumers

    def jobs(self) -> Consumer:
        """Takes pictures from their queue; the record of work stands in the main database."""
        services = self._services
        if services.settings.sabotage == "no-ledger":
            return self._consumer(services.jobs, self.process, session=services.session, concurrency=2)
        store = SqlStore(services.session)
        return self._consumer(services.jobs, self.process, idempotency=store, concurrency=services.settings.concurrency)

    def events(self) -> Consumer:
        """Takes what happened from its queue; the record of work stands on the shard of the timeline."""
        store = SqlStore(route=self._on_shard)
        return self._consumer(self._services.events, self.remember, idempotency=store, concurrency=2)

    def _consumer(self, queue: Queue, handler: Callable[..., None], **options: Any) -> Consumer:
        # What a poll that is given up at the end may have received comes again after the visibility: better than
        # to keep whoever stops this worker waiting.
        return Consumer(queue, handler, visibility=self._services.settings.visibility, poll_grace=0.2, **options)

    def _on_shard(self, happened: Happened) -> Session:
        """A session on the owner's shard. A dead shard puts off its own messages, and none of the others."""
        session = self._services.shards.session(key=happened.owner)
        try:
            session.connection()
        except Unavailable as error:
            session.close()
            raise Redeliver("the shard does not answer", after=1) from error
        return session

    def run(self) -> None:
        """Work until SIGTERM: pictures here, timelines and the outbox on threads of their own."""
        services = self._services
        events = self.events()
        with services.db.primary():  # what is not sent yet is asked where it was written
            services.outbox.start(services.session, interval=0.25)
        timelines = start_thread(events.run, name="imagery-timelines")
        if services.settings.sabotage == "delete-before-work":
            careless.run(services.jobs, self.process, services.session)
        else:
            self.jobs().run()
        events.stop()
        services.outbox.stop()
        timelines.join(5.0)


def main() -> int:
    """Run one worker process."""
    logging.basicConfig(format="%(asctime)s %(name)s %(message)s", stream=sys.stdout)
    for name in ("imagery", "resilient"):
        logging.getLogger(name).setLevel(logging.INFO)
    services = Services.connect(Settings.from_environment())
    try:
        Worker(services).run()
    finally:
        services.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
