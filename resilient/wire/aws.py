"""S3 and SQS clients: signature version 4, time limits, no retries of their own, and the classes of their errors.

A client built here obeys the running `resilient.policy.deadline` on the wire: each request waits for its connection
and for each piece of its answer no longer than the deadline has left. It is told to try once, because retrying is the
business of the policies. A ready client is taken as it is.
"""

from __future__ import annotations

import contextvars
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import Any

from resilient.clock import SYSTEM
from resilient.errors import (
    ConfigurationError,
    Conflict,
    DeadlineExceeded,
    NotFound,
    OutcomeUnknown,
    Refused,
    ResilientError,
    Unavailable,
    needs_extra,
)
from resilient.policy import deadline
from resilient.policy.classify import Failure, Verdict
from resilient.runtime import after_fork

with needs_extra("aws"):
    import boto3.session
    import botocore.awsrequest
    import botocore.exceptions
    from botocore.config import Config
    from urllib3.util.timeout import Timeout

__all__ = ["classify", "client", "code_of", "read_limit", "sign_v4", "translated", "waiting"]

_POOL = 50
"""Connections one client keeps: more than the threads of a busy worker."""

_wait: contextvars.ContextVar[float] = contextvars.ContextVar("resilient_aws_wait", default=0.0)
_signing: contextvars.ContextVar[bool] = contextvars.ContextVar("resilient_aws_signing", default=False)


# -------------------------------------------------------------------------------------------------------- clients


def client(
    service: str,
    given: Any = None,
    *,
    endpoint: str | None = None,
    region: str | None = None,
    connect_timeout: float = 1.0,
    timeout: float = 5.0,
    unbounded: bool = False,
) -> Any:
    """A boto3 client for S3 or SQS.

    Args:
        service: ``"s3"`` or ``"sqs"``.
        given: A ready client; it is returned as it is and keeps its own time limits and retries.
        endpoint: Address of a server that speaks the same protocol; by default the AWS endpoint of the region.
        region: The AWS region; by default the one of the environment or the AWS configuration file.
        connect_timeout: Seconds to wait for a connection.
        timeout: Seconds to wait for each piece of an answer.
        unbounded: Accept a ready client that could wait for ever.

    Raises:
        ConfigurationError: No region is configured, or the endpoint is no address, or a ready client has no time limit.
    """
    if given is not None:
        _check_bounded(given, unbounded=unbounded)
        return given
    if endpoint is not None and not str(endpoint).startswith(("http://", "https://")):
        raise ConfigurationError(
            f"the endpoint of {service} is no address", advice="write it with its scheme, as in http://127.0.0.1:5000"
        )
    config = Config(
        signature_version="s3v4" if service == "s3" else "v4",
        connect_timeout=connect_timeout,
        read_timeout=timeout,
        retries={"total_max_attempts": 1, "mode": "standard"},
        max_pool_connections=_POOL,
    )
    # A session of its own: boto3's default session is shared by the process and not safe to use from threads.
    session = boto3.session.Session(region_name=region)
    try:
        made = session.client(service, endpoint_url=endpoint, config=config)
    except botocore.exceptions.NoRegionError as error:
        raise ConfigurationError(
            f"no AWS region for {service}", advice="pass region= or set AWS_DEFAULT_REGION"
        ) from error
    if service == "s3" and ".amazonaws." in made.meta.endpoint_url:
        # On AWS, links name the region's own host: the global one redirects, which breaks uploads from browsers.
        regional = {"addressing_style": "virtual", "us_east_1_regional_endpoint": "regional"}
        made = session.client(service, config=config.merge(Config(s3=regional)))
    _Guard(made).attach()
    return made


def _check_bounded(given: Any, *, unbounded: bool) -> None:
    config = getattr(getattr(given, "meta", None), "config", None)
    endless = [name for name in ("connect_timeout", "read_timeout") if getattr(config, name, 0) is None]
    if endless and not unbounded:
        raise ConfigurationError(
            f"this client would wait for ever: it has no {' and no '.join(endless)}",
            advice="make it with Config(connect_timeout=1, read_timeout=5), or pass unbounded=True",
        )


class _BoundedPool(botocore.awsrequest.AWSHTTPConnectionPool):  # type: ignore[misc]  # botocore is untyped
    """Connections that wait no longer than the running deadline allows."""

    def urlopen(self, *args: Any, **kwargs: Any) -> Any:
        return super().urlopen(*args, **{**kwargs, "timeout": _bounded(kwargs.get("timeout"), self.timeout)})


class _BoundedTlsPool(botocore.awsrequest.AWSHTTPSConnectionPool):  # type: ignore[misc]  # botocore is untyped
    """The same over TLS."""

    def urlopen(self, *args: Any, **kwargs: Any) -> Any:
        return super().urlopen(*args, **{**kwargs, "timeout": _bounded(kwargs.get("timeout"), self.timeout)})


def _bounded(asked: Any, usual: Timeout) -> Timeout:
    """The limits of one request: the usual ones, longer by an announced wait, within the running deadline."""
    limits = asked if isinstance(asked, Timeout) else usual
    connect, read = limits.connect_timeout, limits.read_timeout
    connect = float(connect) if isinstance(connect, int | float) else 60.0
    read = (float(read) if isinstance(read, int | float) else 60.0) + _wait.get()
    return Timeout(connect=deadline.bound(connect), read=deadline.bound(read))


class _Guard:
    """Binds one client to the deadline and keeps a forked child from using its parent's sockets."""

    def __init__(self, made: Any) -> None:
        self._events = made.meta.events
        # botocore offers no public way to the connection pools of a client; the test of this module notices a change.
        self._http = made._endpoint.http_session  # noqa: SLF001
        self._http._manager.pool_classes_by_scheme = {"http": _BoundedPool, "https": _BoundedTlsPool}  # noqa: SLF001
        after_fork(self._forget)

    def attach(self) -> None:
        # The client's event system holds the bound method, and so this object, for as long as the client lives.
        self._events.register_first("before-send.*.*", self._check)

    def _check(self, **_: Any) -> None:
        # Raised here rather than in the pool, where botocore would wrap it in an error of its own.
        left = deadline.remaining()
        if left is not None and left <= 0:
            raise DeadlineExceeded("time ran out before the request was sent; nothing took effect")

    def _forget(self) -> None:
        self._http._manager.clear()  # noqa: SLF001 - see __init__


@contextmanager
def waiting(seconds: float) -> Iterator[None]:
    """Announce that the server may take that long before it answers, as a long poll does."""
    reset = _wait.set(seconds)
    try:
        yield
    finally:
        _wait.reset(reset)


def read_limit(made: Any) -> float | None:
    """The seconds a ready client waits for an answer; ``None`` where it does not tell or was built here."""
    meta = getattr(made, "meta", None)
    config = getattr(meta, "config", None)
    http = getattr(getattr(made, "_endpoint", None), "http_session", None)
    classes = getattr(getattr(http, "_manager", None), "pool_classes_by_scheme", {})
    if config is None or classes.get("http") is _BoundedPool:
        return None
    limit = getattr(config, "read_timeout", None)
    return float(limit) if isinstance(limit, int | float) else None


# -------------------------------------------------------------------------------------------------------- signing


@contextmanager
def sign_v4(made: Any) -> Iterator[None]:
    """Make a client sign URLs and forms with signature version 4 inside the block.

    boto3 signs S3 URLs with the old version unless its configuration says otherwise. The client is not changed for
    anyone else: outside the block its own choice stands.
    """
    events = getattr(getattr(made, "meta", None), "events", None)
    if events is not None:
        events.register_first("choose-signer.s3.*", _choose_v4, unique_id="resilient-sign-v4")
    reset = _signing.set(True)
    try:
        yield
    finally:
        _signing.reset(reset)


def _choose_v4(signature_version: Any, **_: Any) -> str | None:
    if not _signing.get() or not isinstance(signature_version, str):
        return None
    for suffix in ("-query", "-presign-post"):
        if signature_version.endswith(suffix):
            return f"s3v4{suffix}"
    return None


# --------------------------------------------------------------------------------------------------------- errors

_THROTTLED = frozenset({
    "BandwidthLimitExceeded", "LimitExceededException", "OverLimit", "PriorRequestNotComplete",
    "ProvisionedThroughputExceededException", "RequestLimitExceeded", "RequestThrottled", "RequestThrottledException",
    "SlowDown", "ThrottledException", "Throttling", "ThrottlingException", "TooManyRequests",
    "TooManyRequestsException", "TransactionInProgressException", "429",
})  # fmt: skip
_AUTH = frozenset({
    "AccessDenied", "AccessDeniedException", "AllAccessDisabled", "AuthFailure", "ExpiredToken",
    "ExpiredTokenException", "Forbidden", "IncompleteSignature", "InvalidAccessKeyId", "InvalidClientTokenId",
    "InvalidSecurity", "InvalidSignatureException", "InvalidToken", "MissingAuthenticationToken",
    "RequestExpired", "RequestTimeTooSkewed", "SignatureDoesNotMatch", "UnrecognizedClientException", "401", "403",
})  # fmt: skip
_CONFLICT = frozenset({
    "BucketAlreadyExists", "BucketAlreadyOwnedByYou", "ConditionalCheckFailedException", "ConditionalRequestConflict",
    "OperationAborted", "PreconditionFailed", "QueueNameExists", "TransactionConflictException", "409", "412",
})  # fmt: skip
_MISSING = frozenset({
    "AWS.SimpleQueueService.NonExistentQueue", "NoSuchBucket", "NoSuchKey", "NoSuchUpload", "NoSuchVersion",
    "NotFound", "QueueDoesNotExist", "ResourceNotFoundException", "404",
})  # fmt: skip
_REFUSED_UNREAD = frozenset({"ServiceUnavailable", "503"})


def code_of(error: BaseException) -> str:
    """The code of a service's error, such as ``NoSuchKey``; empty for any other error."""
    if not isinstance(error, botocore.exceptions.ClientError):
        return ""
    code = str(error.response.get("Error", {}).get("Code", ""))
    return code.rpartition("#")[2]


def classify(error: BaseException) -> Verdict | None:
    """What an error of botocore means for a retry; ``None`` for errors of others.

    AWS tells some kinds by their code only: a throttled request may come with HTTP status 400.
    """
    if isinstance(error, botocore.exceptions.ClientError):
        return _classify_answer(error)
    if isinstance(error, botocore.exceptions.BotoCoreError):
        return _classify_local(error)
    return None


def _hint(headers: Mapping[str, Any]) -> float | None:
    """The seconds to wait that a service asks for: as a number, as a date, or in AWS's own header of milliseconds."""
    millis, text = str(headers.get("x-amz-retry-after", "")), str(headers.get("retry-after", ""))
    if millis.isdecimal():
        return int(millis) / 1000
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = max(0.0, parsedate_to_datetime(text).timestamp() - SYSTEM.wall())
        except (ValueError, OverflowError):
            return None
    return seconds if 0 <= seconds < math.inf else None


def _classify_answer(error: botocore.exceptions.ClientError) -> Verdict:
    code, meta = code_of(error), error.response.get("ResponseMetadata", {})
    status = int(meta.get("HTTPStatusCode") or (code if code.isdigit() else 0))
    retry_after = _hint(meta.get("HTTPHeaders", {}))
    if code in _THROTTLED or status == 429:
        return Verdict(Failure.THROTTLED, no_effect=True, retry_after=retry_after)
    if code == "RequestTimeout":  # S3 gave up reading our request
        return Verdict(Failure.TIMEOUT, no_effect=True, retry_after=retry_after)
    if code in _AUTH or status in (401, 403):
        return Verdict(Failure.AUTH, no_effect=True, retry_after=None)
    if code in _CONFLICT or status in (409, 412):
        return Verdict(Failure.CONFLICT, no_effect=True, retry_after=None)
    if status >= 500:
        unread = code in _REFUSED_UNREAD
        return Verdict(Failure.UNAVAILABLE, no_effect=unread, retry_after=retry_after)
    if code in _MISSING or status == 404:
        return Verdict(Failure.PERMANENT, no_effect=True, retry_after=None)
    return Verdict(Failure.INVALID, no_effect=True, retry_after=None)


def _classify_local(error: botocore.exceptions.BotoCoreError) -> Verdict:
    kinds = botocore.exceptions
    if isinstance(error, kinds.ConnectTimeoutError):
        return Verdict(Failure.TIMEOUT, no_effect=True, retry_after=None)
    if isinstance(error, kinds.EndpointConnectionError | kinds.ProxyConnectionError | kinds.SSLError):
        return Verdict(Failure.UNAVAILABLE, no_effect=True, retry_after=None)
    if isinstance(error, kinds.ReadTimeoutError):
        return Verdict(Failure.TIMEOUT, no_effect=False, retry_after=None)
    if isinstance(error, kinds.ConnectionError):
        return Verdict(Failure.UNAVAILABLE, no_effect=False, retry_after=None)
    if isinstance(error, kinds.HTTPClientError | kinds.IncompleteReadError):
        return Verdict(Failure.TRANSIENT, no_effect=False, retry_after=None)
    if isinstance(error, kinds.NoCredentialsError | kinds.PartialCredentialsError | kinds.CredentialRetrievalError):
        return Verdict(Failure.AUTH, no_effect=True, retry_after=None)
    return Verdict(Failure.INVALID, no_effect=True, retry_after=None)


@contextmanager
def translated(tried: str, *, effect: bool = False) -> Iterator[None]:
    """Turn the errors of botocore into those of this library.

    Args:
        tried: What the block does, as in ``"S3 HeadObject"``; starts the message.
        effect: Whether a lost answer leaves the outcome unknown; a read has no effect.
    """
    try:
        yield
    except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError) as error:
        raise _translate(error, tried, effect=effect) from error


def _translate(error: Exception, tried: str, *, effect: bool) -> ResilientError:
    verdict = classify(error)
    code = code_of(error) or type(error).__name__
    message = f"{tried} failed: {code}"
    left = deadline.remaining()
    if left is not None and left <= 0:
        return DeadlineExceeded(f"{tried}: time ran out")
    if code in _MISSING:
        return NotFound(message)
    failure = verdict.failure if verdict else Failure.TRANSIENT
    if failure is Failure.CONFLICT:
        return Conflict(message)
    if failure is Failure.AUTH:
        return Refused(message, advice="check the credentials and what they permit")
    if failure in (Failure.INVALID, Failure.PERMANENT):
        return Refused(message)
    if effect and verdict is not None and not verdict.no_effect:
        return OutcomeUnknown(message, retry_after=verdict.retry_after)
    return Unavailable(message, retry_after=verdict.retry_after if verdict else None)
