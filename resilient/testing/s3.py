"""S3 in memory, with the methods of a boto3 client that the library uses, and strict about signatures."""

from __future__ import annotations

import base64
import calendar
import hashlib
import hmac
import io
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import msgspec

from resilient.clock import SYSTEM, Clock
from resilient.errors import InvalidInput, needs_extra
from resilient.storage.objects import Refusal, evaluate

with needs_extra("aws"):
    from botocore.exceptions import ClientError
    from botocore.response import StreamingBody

__all__ = ["FakeS3"]

_ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass(frozen=True, slots=True)
class _Object:
    data: bytes
    content_type: str
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def etag(self) -> str:
        return f'"{hashlib.md5(self.data, usedforsecurity=False).hexdigest()}"'


class FakeS3:
    """A stand-in for a boto3 S3 client, its server and the browser that talks to it.

    Forms and links are verified as S3 does it: signature, expiry, every condition, every field. A form that was
    changed by one character is refused here too.

    Args:
        buckets: The buckets that exist.
        clock: Where the time comes from; give a `resilient.testing.FakeClock` to test expiry.
        region: The region it plays.
        access_key: The key id that signs.
        secret_key: Its secret.

    Attributes:
        calls: Each request made, as the name of the operation and its arguments.
        fault: Called before each request with the same; what it raises, the caller gets.

    Examples:
        >>> store = FakeS3(buckets=["photos"])
        >>> _ = store.put_object(Bucket="photos", Key="a", Body=b"abc")
        >>> store.head_object(Bucket="photos", Key="a")["ContentLength"]
        3
    """

    def __init__(
        self,
        buckets: Iterable[str] = (),
        *,
        clock: Clock = SYSTEM,
        region: str = "eu-west-1",
        access_key: str = "AKIAFAKE",
        secret_key: str = "fake secret",  # noqa: S107 - it guards nothing
    ) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.fault: Callable[[str, dict[str, Any]], None] | None = None
        self._objects: dict[str, dict[str, _Object]] = {name: {} for name in buckets}
        self._lock = threading.Lock()
        self._clock = clock
        self._region = region
        self._access_key = access_key
        self._secret_key = secret_key

    # ------------------------------------------------------------------------------------------- requests of a client

    def create_bucket(self, *, Bucket: str, **_: Any) -> dict[str, Any]:  # noqa: N803 - boto3's spelling
        """Make a bucket."""
        self._begin("CreateBucket", Bucket=Bucket)
        with self._lock:
            self._objects.setdefault(Bucket, {})
        return {}

    def put_object(
        self,
        *,
        Bucket: str,  # noqa: N803 - boto3's spelling, here and below
        Key: str,  # noqa: N803
        Body: bytes = b"",  # noqa: N803
        ContentType: str = "binary/octet-stream",  # noqa: N803
        Metadata: Mapping[str, str] | None = None,  # noqa: N803
    ) -> dict[str, Any]:
        """Store an object."""
        self._begin("PutObject", Bucket=Bucket, Key=Key, Size=len(Body))
        stored = _Object(bytes(Body), ContentType, dict(Metadata or {}))
        with self._lock:
            self._bucket(Bucket, "PutObject")[Key] = stored
        return {"ETag": stored.etag}

    def head_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803
        """What is known of an object."""
        self._begin("HeadObject", Bucket=Bucket, Key=Key)
        return self._describe(self._find(Bucket, Key, "HeadObject", "404"))

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803
        """An object and its bytes."""
        self._begin("GetObject", Bucket=Bucket, Key=Key)
        found = self._find(Bucket, Key, "GetObject", "NoSuchKey")
        return {**self._describe(found), "Body": StreamingBody(io.BytesIO(found.data), len(found.data))}

    def copy_object(
        self,
        *,
        Bucket: str,  # noqa: N803
        Key: str,  # noqa: N803
        CopySource: Mapping[str, str],  # noqa: N803
        CopySourceIfMatch: str | None = None,  # noqa: N803
    ) -> dict[str, Any]:
        """Copy an object on the server."""
        self._begin("CopyObject", Bucket=Bucket, Key=Key, CopySource=dict(CopySource))
        found = self._find(CopySource["Bucket"], CopySource["Key"], "CopyObject", "NoSuchKey")
        if CopySourceIfMatch is not None and CopySourceIfMatch.strip('"') != found.etag.strip('"'):
            raise _error("CopyObject", "PreconditionFailed", 412)
        with self._lock:
            self._bucket(Bucket, "CopyObject")[Key] = found
        return {"CopyObjectResult": {"ETag": found.etag}}

    def delete_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803
        """Remove an object."""
        self._begin("DeleteObject", Bucket=Bucket, Key=Key)
        with self._lock:
            self._bucket(Bucket, "DeleteObject").pop(Key, None)
        return {}

    def head_bucket(self, *, Bucket: str) -> dict[str, Any]:  # noqa: N803
        """Whether a bucket is there."""
        self._begin("HeadBucket", Bucket=Bucket)
        with self._lock:
            self._bucket(Bucket, "HeadBucket", "404")
        return {}

    def keys(self, bucket: str) -> list[str]:
        """The keys in a bucket, sorted."""
        with self._lock:
            return sorted(self._objects[bucket])

    # ------------------------------------------------------------------------------------------------------ signing

    def generate_presigned_post(
        self,
        Bucket: str,  # noqa: N803
        Key: str,  # noqa: N803
        Fields: Mapping[str, str] | None = None,  # noqa: N803
        Conditions: Iterable[Any] = (),  # noqa: N803
        ExpiresIn: int = 3600,  # noqa: N803
    ) -> dict[str, Any]:
        """A signed form, as boto3 makes it."""
        now = self._clock.wall()
        stamp = _stamp(now)
        fields = {
            **(Fields or {}),
            "key": Key,
            "x-amz-algorithm": _ALGORITHM,
            "x-amz-credential": f"{self._access_key}/{self._scope(stamp)}",
            "x-amz-date": stamp,
        }
        signed = [{name: fields[name]} for name in ("x-amz-algorithm", "x-amz-credential", "x-amz-date")]
        document = {
            "expiration": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now + ExpiresIn)),
            "conditions": [*Conditions, {"bucket": Bucket}, {"key": Key}, *signed],
        }
        fields["policy"] = base64.b64encode(msgspec.json.encode(document)).decode()
        fields["x-amz-signature"] = self._sign(stamp, fields["policy"])
        return {"url": self._address(Bucket), "fields": fields}

    def generate_presigned_url(
        self,
        ClientMethod: str,  # noqa: N803
        Params: Mapping[str, str],  # noqa: N803
        ExpiresIn: int = 3600,  # noqa: N803
        HttpMethod: str | None = None,  # noqa: N803
    ) -> str:
        """A signed link, as boto3 makes it."""
        method = HttpMethod or {"get_object": "GET", "head_object": "HEAD", "put_object": "PUT"}[ClientMethod]
        stamp = _stamp(self._clock.wall())
        names = {
            "ResponseContentDisposition": "response-content-disposition",
            "ResponseContentType": "response-content-type",
        }
        query = {names[name]: value for name, value in Params.items() if name in names}
        query |= {
            "X-Amz-Algorithm": _ALGORITHM,
            "X-Amz-Credential": f"{self._access_key}/{self._scope(stamp)}",
            "X-Amz-Date": stamp,
            "X-Amz-Expires": str(ExpiresIn),
            "X-Amz-SignedHeaders": "host",
        }
        address = self._address(Params["Bucket"])
        path = quote(f"/{Params['Key']}", safe="/~")
        signature = self._sign(
            stamp,
            _to_sign(stamp, self._scope(stamp), method=method, path=path, query=query, host=urlsplit(address).netloc),
        )
        return f"{address.rstrip('/')}{path}?{_query(query)}&X-Amz-Signature={signature}"

    # --------------------------------------------------------------------------------------- what a browser may send

    def post_form(self, url: str, fields: Mapping[str, str], data: bytes) -> int:
        """Upload with a form, as a browser does.

        Returns:
            The HTTP status: 201 or 204 if the object was stored, 400 or 403 if the form was refused.
        """
        bucket = urlsplit(url).netloc.partition(".")[0]
        refusal = self._judge_form(bucket, fields, len(data))
        self.calls.append(("PostObject", {"Bucket": bucket, "Key": fields.get("key"), "Size": len(data)}))
        if refusal is not None:
            return refusal.status
        given = {name.lower(): value for name, value in fields.items()}
        stored = _Object(bytes(data), given.get("content-type", "binary/octet-stream"))
        with self._lock:
            self._bucket(bucket, "PostObject")[given["key"]] = stored
        return int(given.get("success_action_status", "204"))

    def _judge_form(self, bucket: str, fields: Mapping[str, str], size: int) -> Refusal | None:
        given = {name.lower(): value for name, value in fields.items()}
        policy, stamp = given.get("policy", ""), given.get("x-amz-date", "")
        expected = f"{self._access_key}/{self._scope(stamp)}"
        signed = hmac.compare_digest(self._sign(stamp, policy), given.get("x-amz-signature", ""))
        if given.get("x-amz-credential") != expected or given.get("x-amz-algorithm") != _ALGORITHM or not signed:
            return Refusal("AccessDenied", "the form's signature does not fit")
        try:
            document = msgspec.json.decode(base64.b64decode(policy, validate=True), type=dict[str, Any])
            return evaluate(document, fields, bucket=bucket, size=size, now=self._clock.wall())
        except (InvalidInput, ValueError, msgspec.MsgspecError):
            return Refusal("InvalidPolicyDocument", "the policy is no policy")

    def open_link(self, url: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        """Follow a link, as a browser does.

        Returns:
            The HTTP status, the headers, and the body.
        """
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        signature, stamp = query.pop("X-Amz-Signature", ""), query.get("X-Amz-Date", "")
        text = _to_sign(stamp, self._scope(stamp), method=method, path=parts.path, query=query, host=parts.netloc)
        known = query.get("X-Amz-Credential") == f"{self._access_key}/{self._scope(stamp)}"
        if not known or not hmac.compare_digest(self._sign(stamp, text), signature):
            return 403, {}, b"SignatureDoesNotMatch"
        if self._clock.wall() >= _seconds(stamp) + int(query["X-Amz-Expires"]):
            return 403, {}, b"AccessDenied: Request has expired"
        bucket, key = parts.netloc.partition(".")[0], unquote(parts.path[1:])
        with self._lock:
            found = self._objects.get(bucket, {}).get(key)
        if found is None:
            return 404, {}, b"NoSuchKey"
        headers = {"Content-Type": query.get("response-content-type", found.content_type), "ETag": found.etag}
        if "response-content-disposition" in query:
            headers["Content-Disposition"] = query["response-content-disposition"]
        return 200, headers, b"" if method == "HEAD" else found.data

    # ------------------------------------------------------------------------------------------------------- inside

    def _begin(self, operation: str, **arguments: Any) -> None:
        self.calls.append((operation, arguments))
        if self.fault is not None:
            self.fault(operation, arguments)

    def _bucket(self, name: str, operation: str, code: str = "NoSuchBucket") -> dict[str, _Object]:
        if name not in self._objects:
            raise _error(operation, code, 404)
        return self._objects[name]

    def _find(self, bucket: str, key: str, operation: str, code: str) -> _Object:
        with self._lock:
            found = self._bucket(bucket, operation).get(key)
        if found is None:
            raise _error(operation, code, 404)
        return found

    def _describe(self, found: _Object) -> dict[str, Any]:
        return {
            "ContentLength": len(found.data),
            "ContentType": found.content_type,
            "ETag": found.etag,
            "Metadata": dict(found.metadata),
        }

    def _address(self, bucket: str) -> str:
        return f"https://{bucket}.s3.{self._region}.amazonaws.com/"

    def _scope(self, stamp: str) -> str:
        return f"{stamp[:8]}/{self._region}/s3/aws4_request"

    def _sign(self, stamp: str, text: str) -> str:
        key = f"AWS4{self._secret_key}".encode()
        for part in (stamp[:8], self._region, "s3", "aws4_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        return hmac.digest(key, text.encode(), "sha256").hex()


def _error(operation: str, code: str, status: int) -> ClientError:
    answer = {
        "Error": {"Code": code, "Message": code},
        "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": {}},
    }
    return ClientError(answer, operation)


def _stamp(moment: float) -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(moment))


def _seconds(stamp: str) -> float:
    return float(calendar.timegm(time.strptime(stamp, "%Y%m%dT%H%M%SZ")))


def _query(query: Mapping[str, str]) -> str:
    return "&".join(f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in sorted(query.items()))


def _to_sign(stamp: str, scope: str, *, method: str, path: str, query: Mapping[str, str], host: str) -> str:
    """The text that signature version 4 signs for a link."""
    request = f"{method}\n{path}\n{_query(query)}\nhost:{host}\n\nhost\nUNSIGNED-PAYLOAD"
    return f"{_ALGORITHM}\n{stamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
