"""What must be true at the end, whatever was broken on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from examples.imagery.model import Charge, Image, TimelineEvent
from examples.imagery.parts import Parts
from examples.imagery.sepia import sepia
from examples.imagery.tour.tally import Tally
from examples.imagery.tour.users import Crowd
from resilient.clock import SYSTEM
from resilient.queue import Queue
from resilient.storage.shards import ShardMap

__all__ = ["Finding", "Inspector"]

_STEPS = {"created", "uploaded", "processed"}


@dataclass(frozen=True)
class Finding:
    """One invariant, and whether it held.

    Args:
        promise: What must be true.
        broken: What was found against it; empty if it held.
        seen: How much was looked at.
    """

    promise: str
    broken: Sequence[str]
    seen: str

    def __str__(self) -> str:
        if not self.broken:
            return f"held    {self.promise} ({self.seen})"
        more = f" and {len(self.broken) - 1} more" if len(self.broken) > 1 else ""
        return f"BROKEN  {self.promise}: {self.broken[0]}{more}"


class Inspector:
    """Looks into the databases, the store and the queues themselves, past the application.

    Args:
        parts: All the parts.
        crowd: The users, who know what was accepted.
        tally: What they saw.
        dead_shard: The shard that was stopped.
        shard_map: Which owner lives where.
    """

    def __init__(self, parts: Parts, crowd: Crowd, tally: Tally, *, dead_shard: str, shard_map: ShardMap) -> None:
        assert parts.settings is not None
        self._parts = parts
        self._settings = parts.settings
        self._accepted = crowd.accepted
        self._owners = [user.name for user in crowd.users]
        self._unfinished = crowd.unfinished
        self._tally = tally
        self._dead_shard = dead_shard
        self._map = shard_map
        self._s3 = parts.store.client("s3")

    def settle(self, timeout: float) -> float:
        """Wait until everything that was accepted is processed and all queues are empty. Returns the seconds it took.

        What is not settled in time is found by the invariants.
        """
        began = SYSTEM.monotonic()
        while SYSTEM.monotonic() < began + timeout:
            if not self._unprocessed() and not self._missing_events() and not self._queued():
                break
            SYSTEM.sleep(0.2)
        return SYSTEM.monotonic() - began

    def findings(self) -> Iterator[Finding]:
        """Check one invariant after the other."""
        images = f"{len(self._accepted)} images"
        yield Finding("every accepted image is processed, at version 2", self._unprocessed(), images)
        yield Finding(
            "each result is the sepia of the last accepted upload", [*self._pictures(), *self._tally.wrong], images
        )
        yield Finding("one result and one source for each image, and no other object", *self._objects())
        yield Finding("each image was charged once", self._charges(), f"{self._count(Charge)} charges")
        yield Finding("each step stands once in its owner's timeline, on the owner's shard", *self._timelines())
        yield Finding("all queues are empty, dead letters and the outbox too", self._queued(), "4 queues")
        yield Finding(
            "nobody read older than his own write", self._tally.stale, f"{self._tally.checked} reads compared"
        )
        yield Finding("whatever was mended recovered", self._tally.late, f"{len(self._tally.phases) - 2} faults")
        retried = sum(phase.retried for phase in self._tally.phases)
        yield Finding("every 5xx could be retried", self._tally.broken, f"{retried} were")
        yield Finding(
            "no user saw an error, but for the timelines of the stopped shard", [*self._errors(), *self._unfinished],
            f"{sum(phase.requests for phase in self._tally.phases)} requests",
        )  # fmt: skip

    # ------------------------------------------------------------------------------------------------ the database

    def _rows(self, *entities: Any) -> list[Any]:
        engine = sa.create_engine(self._settings.database)
        try:
            with Session(engine) as session:
                return list(session.execute(sa.select(*entities)).all())
        finally:
            engine.dispose()

    def _images(self) -> dict[str, Any]:
        rows = self._rows(Image.id, Image.owner, Image.state, Image.version, Image.source_key, Image.result_key)
        return {row.id: row for row in rows if row.owner in self._owners}

    def _count(self, entity: Any) -> int:
        return len([row for row in self._rows(entity.owner) if row.owner in self._owners])

    def _unprocessed(self) -> list[str]:
        rows, broken = self._images(), []
        for upload in self._accepted:
            row = rows.get(upload.id)
            if row is None or (row.state, row.version) != ("processed", 2):
                broken.append(f"image {upload.id} is {row and row.state} at version {row and row.version}")
        return broken

    def _charges(self) -> list[str]:
        counts = Counter(row.image_id for row in self._rows(Charge.image_id))
        return [
            f"image {each.id} was charged {counts[each.id]} times" for each in self._accepted if counts[each.id] != 1
        ]

    # --------------------------------------------------------------------------------------------------- the store

    def _keys(self) -> set[str]:
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._settings.bucket)
        keys = {item["Key"] for page in pages for item in page.get("Contents", ())}
        return {key for key in keys if key.split("/")[1] in self._owners}

    def _pictures(self) -> list[str]:
        rows, broken = self._images(), []
        for upload in self._accepted:
            row = rows.get(upload.id)
            if row is None or row.result_key is None:
                continue  # found by another invariant
            try:
                content = self._s3.get_object(Bucket=self._settings.bucket, Key=row.result_key)["Body"].read()
            except self._s3.exceptions.NoSuchKey:
                content = b""
            if content != sepia(upload.jpeg):
                broken.append(f"the result of image {upload.id} is another picture")
        return broken

    def _objects(self) -> tuple[list[str], str]:
        keys = self._keys()
        wanted = {key for row in self._images().values() for key in (row.source_key, row.result_key) if key}
        lost = [f"object {key} is missing" for key in sorted(wanted - keys)]
        return lost + [f"object {key} belongs to nothing" for key in sorted(keys - wanted)], f"{len(keys)} objects"

    # -------------------------------------------------------------------------------------------------- the shards

    def _events(self) -> Iterator[tuple[str, str, str, str]]:
        for shard, url in self._settings.shards.items():
            engine = sa.create_engine(url)
            try:
                with engine.connect() as connection:
                    found = sa.select(TimelineEvent.image_id, TimelineEvent.what, TimelineEvent.owner)
                    rows = list(connection.execute(found))
            finally:
                engine.dispose()
            yield from ((shard, row.image_id, row.what, row.owner) for row in rows if row.owner in self._owners)

    def _missing_events(self) -> list[str]:
        known = Counter((image, what) for _, image, what, _ in self._events())
        wanted = [(each.id, what) for each in self._accepted for what in sorted(_STEPS)]
        return [
            f"{what!r} of image {image} stands {known[image, what]} times"
            for image, what in wanted
            if known[image, what] != 1
        ]

    def _timelines(self) -> tuple[list[str], str]:
        events = list(self._events())
        strays = [
            f"an event of {owner} stands on shard {shard}"
            for shard, _, _, owner in events
            if self._map.shard_for(owner) != shard
        ]
        return self._missing_events() + strays, f"{len(events)} events"

    # -------------------------------------------------------------------------------------------------- the queues

    def _queued(self) -> list[str]:
        sqs = self._parts.store.client("sqs")
        broken = []
        for url in (
            self._settings.jobs,
            self._settings.events,
            self._settings.jobs + "-dead",
            self._settings.events + "-dead",
        ):
            found = Queue(url, client=sqs).attributes()
            if found.depth or found.in_flight or found.delayed:
                broken.append(f"{url.rpartition('/')[2]}: {found.depth} waiting, {found.in_flight} in flight")
        waiting = self._unsent()
        return broken + ([f"outbox: {waiting} not sent"] if waiting else [])

    def _unsent(self) -> int:
        outbox = sa.table("resilient_outbox", sa.column("id"), sa.column("sent_at"))
        return len([row for row in self._rows(outbox.c.id, outbox.c.sent_at) if row.sent_at is None])

    # --------------------------------------------------------------------------------------------------- the users

    def _errors(self) -> list[str]:
        allowed: Callable[[str, str], bool] = lambda phase, kind: (  # noqa: E731 - one rule, used once
            phase == "shard stopped"
            and kind.startswith("timeline of ")
            and self._map.shard_for(kind.removeprefix("timeline of ")) == self._dead_shard
        )
        return [
            f"{phase.name}: {count} x {kind}"
            for phase in self._tally.phases
            for kind, count in phase.errors.items()
            if not allowed(phase.name, kind)
        ]
