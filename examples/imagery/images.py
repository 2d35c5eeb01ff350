"""What a user can do with images. No HTTP here: `web` turns requests into these calls and errors into answers."""

from __future__ import annotations

import hashlib
import re
import uuid
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from examples.imagery.model import Image, TimelineEvent
from examples.imagery.services import Services
from examples.imagery.transitions import UPLOAD, take
from resilient import causality
from resilient.errors import Conflict, InvalidInput, NotFound, Refused
from resilient.storage.objects import Link, StoredObject, Ticket, UploadPolicy

__all__ = ["Happened", "Images", "Job", "View", "result_key"]

_OWNER = re.compile(r"[A-Za-z0-9_-]{1,40}")


class View(msgspec.Struct, frozen=True):
    """One image as its readers see it, and as the cache keeps it."""

    id: str
    owner: str
    title: str
    state: str
    version: int
    result_key: str | None

    @classmethod
    def of(cls, image: Image) -> View:
        """The view of a row."""
        return cls(image.id, image.owner, image.title, image.state, image.version, image.result_key)


class Job(msgspec.Struct, frozen=True):
    """The message that asks a worker to process one upload."""

    image_id: str
    owner: str
    source_key: str


class Happened(msgspec.Struct, frozen=True):
    """The message that becomes one row of a timeline."""

    image_id: str
    what: str
    owner: str
    at: float


def result_key(job: Job) -> str:
    """Where the result of an upload goes: the same upload always to the same place, another upload to another."""
    upload = hashlib.sha256(job.source_key.encode()).hexdigest()[:16]
    return f"results/{job.owner}/{job.image_id}/{upload}.jpg"


class Images:
    """Create, upload, confirm, look, list: every call may be repeated after a lost answer.

    Args:
        services: The outside world.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._session = services.session
        # Read through the cache; the loader asks the primary, so that what is cached was never old when it was stored.
        self._cached = services.cache.lazy("image:{image_id}", ttl=30)(self._load)

    # ------------------------------------------------------------------------------------------------------- writing

    def create(self, image_id: str, owner: str, title: str) -> View:
        """Begin a process. The same call again gives the same answer.

        Raises:
            InvalidInput: The id is no UUID, or the owner or title is not acceptable.
            Conflict: The id is taken, with another owner or title.
        """
        _check(image_id, owner, title)
        row = Image(
            id=image_id,
            owner=owner,
            title=title,
            state="created",
            version=0,
            source_at=0,
            created_at=self._now(),
        )
        answer = View.of(row)
        try:
            with self._session.begin() as session:
                session.add(row)
                session.flush()
                self.announce(session, image_id, owner, "created")
        except IntegrityError as error:
            known = self._find(image_id)
            if known is None:
                raise  # it was not the id
            if (known.owner, known.title) != (owner, title):
                raise Conflict("this id is taken by another image", advice="make a new UUID for a new image") from error
        return answer

    def ticket(self, image_id: str, user: str | None) -> Ticket:
        """The form with which a browser uploads the JPEG straight to the store, for its owner alone.

        Raises:
            NotFound: There is no such image.
            Refused: The user is not the owner.
            Conflict: The image is processed; nothing can be uploaded any more.
        """
        image = self._load(image_id)
        _only_its_owner(image, user)
        if image.state == "processed":
            raise _too_late()
        now = round(self._services.clock.wall() * 1e6)
        return self._services.bucket.presign_post(_policy(image_id), owner=image.owner, filename=f"{now}.jpg")

    def confirm(self, image_id: str, token: str, user: str | None) -> View:
        """Accept what was uploaded: created -> uploaded, and the message to the workers, in one transaction.

        An upload with a newer form replaces one that is not processed yet. What was replaced never comes back, so
        that whoever finds it replaced may remove it. An upload that comes too late is refused and leaves no object.

        Raises:
            NotFound: Nothing was uploaded.
            Refused: The user is not the owner, the token is for another image, or the upload breaks the policy.
            Conflict: The image is processed, or this upload was replaced by a newer one.
        """
        image = self._load(image_id)
        _only_its_owner(image, user)
        stored = self._uploaded(image, token)
        job = Job(image_id, image.owner, stored.key)
        with self._session.begin() as session:
            at = _given_out(stored.key)
            accepted = take(session, UPLOAD, image_id, Image.source_at < at, source_key=stored.key, source_at=at)
            if accepted:
                self._services.outbox.send(session, "jobs", job)
                if image.version == 0:
                    self.announce(session, image_id, image.owner, "uploaded")
            else:
                accepted = session.scalar(sa.select(Image.source_key).where(Image.id == image_id)) == stored.key
        if not accepted:
            self._services.bucket.delete(stored.key)
            raise _too_late()
        self.changed(image_id)
        return View(image_id, image.owner, image.title, "uploaded", 1, None)

    def _uploaded(self, image: View, token: str) -> StoredObject:
        bucket = self._services.bucket
        try:
            stored = bucket.confirm(token, owner=image.owner)
        except NotFound:
            if image.state == "processed":
                raise _too_late() from None  # refused before, and its object removed
            raise
        if not stored.key.startswith(_policy(image.id).prefix.format(owner=image.owner)):
            raise Refused("this token is for another image")
        return stored

    def announce(self, session: Any, image_id: str, owner: str, what: str) -> None:
        """Tell the timelines what happened, in the transaction in which it happens."""
        happened = Happened(image_id, what, owner, self._now())
        self._services.outbox.send(session, "events", happened)

    def _now(self) -> float:
        return round(self._services.clock.wall(), 3)

    def changed(self, image_id: str) -> None:
        """The row was changed and committed: what is cached of it is old."""
        self._cached.invalidate(image_id)

    # ------------------------------------------------------------------------------------------------------- reading

    def view(self, image_id: str, reader: str | None = None) -> View:
        """One image, from the cache.

        The cache may have been out of reach when the reader's own change was to be dropped from it. So an entry that
        is older than the reader's last write is loaded again, unless the image is known to be somebody else's.

        Raises:
            NotFound: There is no such image.
        """
        found = self._cached.lookup(image_id)
        perhaps_own = found.source != "loader" and reader in (None, found.value.owner)
        if perhaps_own and self._older_than_own_write(found.age):
            return self._cached.refresh(image_id)
        return found.value

    def _older_than_own_write(self, age: float) -> bool:
        written = causality.current().token.get(self._services.db.name)
        return isinstance(written, causality.Instant) and written.at > self._services.clock.wall() - age

    def _load(self, image_id: str) -> View:
        found = self._find(image_id)
        if found is None:
            raise NotFound("there is no such image")
        return found

    def _find(self, image_id: str) -> View | None:
        with self._services.db.primary(), self._session() as session:
            row = session.get(Image, image_id)
            return None if row is None else View.of(row)

    def newest(self, owner: str | None = None, limit: int = 50) -> list[View]:
        """The newest images, of one owner or of all, from a replica that holds what the reader has written."""
        query = sa.select(Image).order_by(Image.created_at.desc(), Image.id).limit(limit)
        if owner is not None:
            query = query.where(Image.owner == owner)
        with self._session() as session:
            return [View.of(row) for row in session.scalars(query)]

    def link(self, image_id: str, reader: str | None) -> Link:
        """A link to the result, good for five minutes, for its owner alone.

        Raises:
            Refused: The reader is not the owner.
            Conflict: It is not processed yet.
        """
        image = self.view(image_id, reader)
        _only_its_owner(image, reader)
        if image.result_key is None:
            image = self._cached.refresh(image_id)
        if image.result_key is None:
            raise Conflict("the image is not processed yet", advice="ask again in a moment", retry_after=1)
        return self._services.bucket.presign_get(image.result_key, expires=300, filename="sepia.jpg", inline=True)

    def timeline(self, owner: str) -> list[TimelineEvent]:
        """What happened to one owner's images, from the shard where the owner lives."""
        query = sa.select(TimelineEvent).where(TimelineEvent.owner == owner).order_by(TimelineEvent.at)
        with self._services.shards.session(key=owner) as session:
            return list(session.scalars(query))

    def timelines(self, limit: int = 50) -> list[TimelineEvent]:
        """What happened lately, over all shards."""
        query = sa.select(TimelineEvent).order_by(TimelineEvent.at.desc()).limit(limit)
        with self._services.shards.gather() as session:
            return list(session.scalars(query))


def _check(image_id: object, owner: object, title: object) -> None:
    try:
        valid = str(uuid.UUID(str(image_id))) == image_id
    except ValueError:
        valid = False
    if not valid:
        raise InvalidInput("the id is a UUID in lower case, made by the client")
    if not isinstance(owner, str) or not _OWNER.fullmatch(owner):
        raise InvalidInput("an owner has 1 to 40 letters, digits, dashes or underscores")
    if not isinstance(title, str) or not 0 < len(title) <= 200:
        raise InvalidInput("a title has 1 to 200 characters")


def _only_its_owner(image: View, user: str | None) -> None:
    if user != image.owner:
        raise Refused("this image is somebody else's", advice="say who asks with ?owner=")


def _policy(image_id: str) -> UploadPolicy:
    return UploadPolicy(
        prefix=f"uploads/{{owner}}/{image_id}/", max_bytes=10_485_760, min_bytes=100, content_types=["image/jpeg"]
    )


def _given_out(key: str) -> int:
    """When the form of an upload was given out: it stands in the key, which its user cannot choose."""
    return int(key.rpartition("/")[2].removesuffix(".jpg"))


def _too_late() -> Conflict:
    return Conflict("the image is processed, or has a newer upload", advice="create a new one for another picture")
