"""The face of the room: a bucket that gives out forms and links, and confirms what came in."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

from resilient import events
from resilient.clock import SYSTEM, Clock
from resilient.errors import InvalidInput, Refused
from resilient.policy import Pipeline, Retry
from resilient.storage.objects._events import UploadConfirmed, UploadRejected
from resilient.storage.objects._keys import check_bucket, check_filename, check_key, disposition, make_key
from resilient.storage.objects._policy import UploadPolicy, check_expiry
from resilient.storage.objects._token import Grant, Sealer
from resilient.wire import aws

__all__ = ["Bucket", "Link", "StoredObject", "Ticket"]

T = TypeVar("T")

_GRACE = 3600
"""Seconds a token outlives its form: an upload begun in the form's last second takes its time."""

_PURPOSE = "upload"


@dataclass(frozen=True, slots=True)
class Ticket:
    """Everything a client needs for one upload.

    Args:
        url: Where to POST the form, as ``multipart/form-data``.
        fields: The form's fields; the file goes last, as ``file``.
        token: Hand it back to `Bucket.confirm` after the upload.
        expires_at: Seconds since 1970-01-01 UTC after which the form is refused.
        key: The object's key, chosen by the server.
    """

    url: str
    fields: Mapping[str, str]
    token: str = field(repr=False)
    expires_at: float
    key: str


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as it lies in the bucket.

    Args:
        key: Its key.
        size: Its size in bytes.
        content_type: The type it was stored with, as its uploader declared it.
        etag: The entity tag, without quotes; it changes when the object is replaced.
    """

    key: str
    size: int
    content_type: str
    etag: str


class Link(str):
    """A signed URL: a ``str`` that knows when it ends.

    Attributes:
        expires_at: Seconds since 1970-01-01 UTC after which the link is refused.
    """

    __slots__ = ("expires_at",)
    expires_at: float

    def __new__(cls, url: str, expires_at: float) -> Self:
        link = super().__new__(cls, url)
        link.expires_at = expires_at
        return link


class Bucket:
    """A bucket of S3, or of a server that speaks its protocol.

    Browsers upload straight to it with a signed form and download with a signed link; the application only decides
    who may, and checks what came in. Forms and links are signed with signature version 4 in every region.

    Args:
        name: The bucket's name.
        client: A ready boto3 S3 client, taken as it is, with its own time limits and retries. By default one is built
            that obeys the running deadline, and reads and writes are tried three times.
        secrets: Secrets for upload tokens, the newest first; without one, only links are given out.
        endpoint: Address of a server that speaks S3, where no client is given.
        region: The region, where no client is given.
        pipeline: Policies for each request instead of the built-in retry.
        unbounded: Accept a ready client that could wait for ever.
        clock: Where the time comes from.

    Raises:
        ConfigurationError: That can be no bucket's name, or the endpoint is no address, or there is no region, or
            a ready client has no time limit.

    Examples:
        >>> from resilient.testing.s3 import FakeS3
        >>> store = FakeS3(buckets=["photos"])
        >>> photos = Bucket("photos", client=store, secrets=["32 random bytes from your vault"])
        >>> policy = UploadPolicy(prefix="users/{owner}/", max_bytes=1000, content_types=["image/jpeg"])
        >>> ticket = photos.presign_post(policy, owner="alice", filename="a.jpg")
        >>> store.post_form(ticket.url, ticket.fields, b"...")
        201
        >>> photos.confirm(ticket.token).size
        3
    """

    def __init__(
        self,
        name: str,
        client: Any = None,
        *,
        secrets: Sequence[str | bytes] = (),
        endpoint: str | None = None,
        region: str | None = None,
        pipeline: Pipeline | None = None,
        unbounded: bool = False,
        clock: Clock = SYSTEM,
    ) -> None:
        self.name = check_bucket(name)
        self.client = aws.client("s3", client, endpoint=endpoint, region=region, unbounded=unbounded)
        self._sealer = Sealer(secrets)
        self._clock = clock
        if pipeline is None and client is None:
            pipeline = Pipeline("s3", Retry(attempts=3), classify=aws.classify)
        self._pipeline = pipeline

    def __repr__(self) -> str:
        return f"Bucket({self.name!r})"

    # ----------------------------------------------------------------------------------------------------- uploads

    def presign_post(
        self, policy: UploadPolicy, *, owner: str, filename: str, content_type: str | None = None
    ) -> Ticket:
        """A form with which a client uploads one file straight to the bucket. Nothing is sent to S3.

        Args:
            policy: What may be uploaded.
            owner: Whose upload it is, by an id; it becomes part of the key.
            filename: The client's name for the file; its harmless remains end the key.
            content_type: The type the client wants, where the policy allows several.

        Raises:
            InvalidInput: The owner, the file name or the type is not acceptable.
            ConfigurationError: The bucket has no secret.
        """
        key = make_key(policy.prefix, owner, filename)
        kind = policy.type_for(filename, content_type)
        fields, conditions = policy.conditions(kind)
        now = self._clock.wall()
        grant = Grant(
            _PURPOSE,
            self.name,
            owner,
            key,
            policy.min_bytes,
            policy.max_bytes,
            kind,
            int(now) + policy.expires + _GRACE,
        )
        token = self._sealer.seal(grant)
        try:
            with aws.sign_v4(self.client), aws.translated("signing an upload form"):
                form = self.client.generate_presigned_post(
                    Bucket=self.name, Key=key, Fields=fields, Conditions=conditions, ExpiresIn=policy.expires
                )
        except AttributeError as error:
            if error.name != "access_key":
                raise
            # What botocore says to a form without credentials; to a link it says NoCredentialsError.
            raise Refused(
                "signing an upload form failed: NoCredentialsError", advice="check the credentials and what they permit"
            ) from error
        return Ticket(form["url"], form["fields"], token, now + policy.expires, key)

    def confirm(self, token: str, *, owner: str | None = None) -> StoredObject:
        """Look at what was uploaded with a ticket. May be called any number of times.

        Args:
            token: The ticket's token, as the client handed it back.
            owner: Who hands it back, where that is known; another owner's token is refused.

        Returns:
            The object, whose size and declared type are what the policy allows.

        Raises:
            Refused: The token is forged, foreign or expired, or the object breaks the policy.
            NotFound: There is no such object: nothing was uploaded.
            Unavailable: S3 did not answer.
        """
        grant = self._sealer.open(token, purpose=_PURPOSE, now=self._clock.wall())
        if grant.bucket != self.name or (
            owner is not None and not hmac.compare_digest(grant.owner.encode(), owner.encode(errors="replace"))
        ):
            raise self._rejected("owner", "the upload token is for another owner or bucket")
        stored = self.head(grant.key)
        if not grant.min_bytes <= stored.size <= grant.max_bytes:
            raise self._rejected("size", f"the object has {stored.size} bytes, which its policy does not allow")
        if stored.content_type.lower() != grant.content_type:
            raise self._rejected("content_type", "the object's content type is not the one its policy allows")
        if events.wanted(UploadConfirmed):
            events.emit(UploadConfirmed(bucket=self.name, size=stored.size))
        return stored

    def _rejected(self, reason: str, message: str) -> Refused:
        events.emit(UploadRejected(bucket=self.name, reason=reason))
        return Refused(message)

    # --------------------------------------------------------------------------------------------------- downloads

    def presign_get(self, key: str, *, expires: int = 300, filename: str | None = None, inline: bool = False) -> Link:
        """A link with which anybody can download one object until it expires. Nothing is sent to S3.

        Args:
            key: The object's key. Whether the caller may see it is for the application to decide first.
            expires: Seconds for which the link is good: 1 to 604,800.
            filename: The name the browser saves it under; by default the last part of the key.
            inline: Show it in the browser instead of saving it. Only for types that cannot run scripts.

        Raises:
            InvalidInput: The key, the expiry or the file name is not acceptable.
        """
        seconds = check_expiry(expires)
        name = check_filename(filename) if filename is not None else key.rpartition("/")[2] or "file"
        if filename is None and name in (".", ".."):
            raise InvalidInput("a key may hold no '.' or '..' as a part")
        params = {
            "Bucket": self.name,
            "Key": check_key(key),
            "ResponseContentDisposition": disposition(name[-255:].replace("..", "_"), inline=inline),
        }
        now = self._clock.wall()
        with aws.sign_v4(self.client), aws.translated("signing a link"):
            url = self.client.generate_presigned_url("get_object", Params=params, ExpiresIn=seconds)
        return Link(url, now + seconds)

    # ---------------------------------------------------------------------------------------------- the bytes here

    def head(self, key: str) -> StoredObject:
        """What is known of an object. Raises NotFound."""
        answer = self._call("HeadObject", self.client.head_object, Key=check_key(key))
        return StoredObject(
            key, int(answer["ContentLength"]), str(answer.get("ContentType", "")), _plain(answer.get("ETag"))
        )

    def get(self, key: str, *, max_bytes: int = 104_857_600) -> bytes:
        """An object's bytes, all in memory.

        Args:
            key: The object's key.
            max_bytes: An object larger than that is refused before its bytes are read.

        Raises:
            NotFound: There is no such object.
            Refused: It is too large.
        """

        def load() -> bytes:
            answer = self.client.get_object(Bucket=self.name, Key=check_key(key))
            with answer["Body"] as body:
                if int(answer["ContentLength"]) > max_bytes:
                    raise Refused(f"the object has {answer['ContentLength']} bytes, more than the {max_bytes} allowed")
                return bytes(body.read())

        return self._run("GetObject", load)

    def put(
        self,
        key: str,
        data: bytes,
        *,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] | None = None,
    ) -> StoredObject:
        """Store bytes under a key; what was there is replaced."""
        extra = {"Metadata": dict(metadata)} if metadata else {}
        answer = self._call(
            "PutObject",
            self.client.put_object,
            effect=True,
            Key=check_key(key),
            Body=data,
            ContentType=content_type,
            **extra,
        )
        return StoredObject(key, len(data), content_type, _plain(answer.get("ETag")))

    def delete(self, key: str) -> None:
        """Remove an object; that it was not there is no error."""
        self._call("DeleteObject", self.client.delete_object, effect=True, Key=check_key(key))

    def copy(self, source: str, target: str, *, if_etag: str | None = None) -> StoredObject:
        """Copy an object inside the bucket, on the server.

        Args:
            source: The key to copy from.
            target: The key to copy to; what was there is replaced.
            if_etag: Copy only what still has this entity tag, as `confirm` or `head` told it.

        Raises:
            NotFound: There is no source.
            Conflict: The source was replaced since.
        """
        extra = {} if if_etag is None else {"CopySourceIfMatch": f'"{if_etag}"'}
        place = {"Bucket": self.name, "Key": check_key(source)}
        self._call("CopyObject", self.client.copy_object, effect=True, Key=check_key(target), CopySource=place, **extra)
        return self.head(target)

    def _call(self, name: str, method: Callable[..., Any], *, effect: bool = False, **arguments: Any) -> Any:
        return self._run(name, lambda: method(Bucket=self.name, **arguments), effect=effect)

    def _run(self, name: str, function: Callable[[], T], *, effect: bool = False) -> T:
        """One request. Each of S3's that are used here ends the same when made twice, so each may be retried."""
        with aws.translated(f"S3 {name}", effect=effect):
            return function() if self._pipeline is None else self._pipeline.idempotent.call(function)


def _plain(etag: Any) -> str:
    return str(etag or "").strip('"')
