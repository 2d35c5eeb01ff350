"""What is broken, how it is mended, and when it has recovered."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import sqlalchemy as sa
import urllib3

from examples.imagery.model import Image
from examples.imagery.parts import Parts
from resilient.clock import SYSTEM
from resilient.errors import Unavailable
from resilient.queue import Queue

__all__ = ["PHASES", "Fault", "Site", "open_site"]

_BEGUN = re.compile(r"imagery\.worker (begin|end) (\S+)")


class Site:
    """The running application, as the one who breaks it sees it.

    Args:
        parts: All its parts.
        dead_shard: The shard that will be stopped.
        its_owner: An owner who lives there.
    """

    def __init__(self, parts: Parts, *, dead_shard: str, its_owner: str) -> None:
        self.parts = parts
        self.dead_shard = dead_shard
        self.its_owner = its_owner
        self.image = ""
        """An image that exists, for looking whether the cache answers."""
        self.done = ""
        """What the fault hit, for the table."""
        self.hit: list[str] = []
        """Images that were in the hands of a worker that was killed."""
        self._pool = urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(3.0))
        assert parts.settings is not None
        self.jobs = Queue(parts.settings.jobs, client=parts.store.client("sqs"))
        self.engine = sa.create_engine(parts.settings.database, pool_size=2)

    def everywhere(self, path: str, good: Callable[[int, str], bool], *, tries: int = 1) -> bool:
        """Whether each web process answers like that, at one of so many tries: status, and source of the answer."""
        return all(any(good(*self._ask(web.url + path)) for _ in range(tries)) for web in self.parts.webs)

    def _ask(self, url: str) -> tuple[int, str]:
        try:
            reply = self._pool.request("GET", url)
        except urllib3.exceptions.HTTPError:
            return 0, ""
        return reply.status, reply.headers.get("Imagery-Source", "")

    def states(self, ids: list[str]) -> list[str]:
        """The states of some images, from the primary."""
        with self.engine.connect() as connection:
            return list(connection.scalars(sa.select(Image.state).where(Image.id.in_(ids))))

    def newest_jobs(self, count: int) -> list[tuple[str, str]]:
        """The names and bodies of the newest messages to the workers, as the outbox keeps them."""
        outbox = sa.table("resilient_outbox", *map(sa.column, ("id", "queue", "message_id", "body")))
        columns = outbox.c
        newest = sa.select(columns.message_id, columns.body).where(columns.queue == "jobs").order_by(columns.id.desc())
        with self.engine.connect() as connection:
            return [(row.message_id, row.body) for row in connection.execute(newest.limit(count))]

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()
        self.engine.dispose()


@dataclass(frozen=True)
class Fault:
    """One phase of the tour.

    Args:
        name: What it is called in the table.
        breaks: Breaks something.
        mends: Mends it.
        recovered: Whether the application is as before; asked again and again after mending.
        what: What has recovered then, in words.
        hold: Seconds between breaking and mending.
    """

    name: str
    breaks: Callable[[Site], object]
    mends: Callable[[Site], object]
    recovered: Callable[[Site], bool]
    what: str
    hold: float = 2.5


# ---------------------------------------------------------------------------------------------------------- breaking


def _kill_mid_image(site: Site) -> None:
    """Kill a worker at a moment when it has begun an image and not ended it."""
    until = SYSTEM.monotonic() + 10.0
    while SYSTEM.monotonic() < until:
        for worker in site.parts.workers:
            if _in_hand(worker.output()):
                worker.kill()
                site.hit = sorted(_in_hand(worker.output()))
                site.done = f"{worker.name}, {len(site.hit)} image(s) in hand"
                if site.hit:
                    return
                worker.start()
        SYSTEM.sleep(0.01)
    raise Unavailable("no worker had an image in hand within 10 s")


def _in_hand(output: str) -> set[str]:
    held: set[str] = set()
    for verb, image in _BEGUN.findall(output):
        (held.add if verb == "begin" else held.discard)(image)
    return held


def _deliver_twice(site: Site) -> None:
    """Send the newest messages to the workers twice more: some while they are being handled, some after."""
    sent: set[str] = set()
    until = SYSTEM.monotonic() + 10.0
    while len(sent) < 5:
        for name, body in site.newest_jobs(3):
            if name not in sent:
                sent.add(name)
                for _ in range(2):
                    site.jobs.send(body, id=name)
        if SYSTEM.monotonic() > until:
            raise Unavailable("fewer than 5 images were uploaded within 10 s")
        SYSTEM.sleep(0.1)
    site.done = f"{len(sent)} messages, each sent 3 times"


def _stop_shard(site: Site) -> None:
    site.parts.databases.kill_shard(site.dead_shard)
    site.done = site.dead_shard


# ---------------------------------------------------------------------------------------------------------- the list


def _cache_answers(site: Site) -> bool:
    return site.everywhere(f"/images/{site.image}", lambda status, source: status == 200 and source == "shared")


def _replica_answers(site: Site) -> bool:
    return site.everywhere("/images", lambda status, source: status == 200 and source.startswith("replica"))


def _killed_replica_answers(site: Site) -> bool:
    return site.everywhere("/images", lambda status, source: status == 200 and source == "replica-1", tries=6)


def _shard_answers(site: Site) -> bool:
    return site.everywhere(f"/users/{site.its_owner}/timeline", lambda status, _: status == 200)


def _interrupted_are_done(site: Site) -> bool:
    return set(site.states(site.hit)) == {"processed"}


def _nothing(_site: Site) -> None:
    """Nothing to do."""


PHASES = (
    Fault(
        "cache killed",
        lambda site: site.parts.redis.kill(),
        lambda site: site.parts.redis.start(),
        _cache_answers,
        "cache answers",
    ),
    Fault(
        "cache frozen",
        lambda site: site.parts.redis.freeze(),
        lambda site: site.parts.redis.thaw(),
        _cache_answers,
        "cache answers",
    ),
    Fault(
        "replica killed",
        lambda site: site.parts.databases.kill_replica(0),
        lambda site: site.parts.databases.restart_replica(0),
        _killed_replica_answers,
        "replica-1 answers",
    ),
    Fault(
        "replication stopped",
        lambda site: site.parts.databases.stop_replication(),
        lambda site: site.parts.databases.start_replication(),
        _replica_answers,
        "replicas answer",
        hold=3.0,
    ),
    Fault(
        "worker kill -9",
        _kill_mid_image,
        lambda site: [worker.start() for worker in site.parts.workers],
        _interrupted_are_done,
        "its images are done",
        hold=0.5,
    ),
    Fault("delivered twice", _deliver_twice, _nothing, lambda _: True, "", hold=1.5),
    Fault(
        "shard stopped",
        _stop_shard,
        lambda site: site.parts.databases.restart_shard(site.dead_shard),
        _shard_answers,
        "its timelines answer",
    ),
)


@contextmanager
def open_site(parts: Parts, *, dead_shard: str, its_owner: str) -> Iterator[Site]:
    """A `Site`, closed at the end."""
    site = Site(parts, dead_shard=dead_shard, its_owner=its_owner)
    try:
        yield site
    finally:
        site.close()
