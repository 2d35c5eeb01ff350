"""Services of AWS: buckets, queues, tables. Each look is one request that costs next to nothing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from resilient.clock import SYSTEM, Clock
from resilient.errors import ConfigurationError
from resilient.health._core import Check, Result

__all__ = ["dynamodb", "s3", "sqs"]


def s3(bucket: Any, client: Any = None) -> Check:
    """A bucket is there and may be looked at (``HeadBucket``).

    Args:
        bucket: A `resilient.storage.objects.Bucket`, or a bucket's name.
        client: A boto3 S3 client, for a name; by default one is built.

    Examples:
        >>> from resilient.storage.objects import Bucket
        >>> from resilient.testing.s3 import FakeS3
        >>> s3(Bucket("photos", client=FakeS3(buckets=["photos"]))).scope
        'shared'
    """
    from resilient.wire import aws

    name = bucket if isinstance(bucket, str) else bucket.name
    asked = aws.client("s3", client) if isinstance(bucket, str) else bucket.client

    def head() -> None:
        asked.head_bucket(Bucket=name)

    return Check(head, "datastore", "shared", dependency=True, classify=aws.classify)


def dynamodb(table: str, client: Any = None) -> Check:
    """A table is there and serves (``DescribeTable``). It warns while it is changed or its key is (``updating``).

    No capacity of the table is used, and the permission to describe it is enough.

    Args:
        table: Its name.
        client: A boto3 DynamoDB client; by default one is built.

    Examples:
        >>> class Answers:
        ...     def describe_table(self, TableName):
        ...         return {"Table": {"TableStatus": "ACTIVE"}}
        >>> dynamodb("orders", Answers()).run().status.value
        'pass'
    """
    from resilient.wire import aws

    asked = aws.client("dynamodb", client)

    def describe() -> Result:
        return _TABLE.get(asked.describe_table(TableName=table)["Table"]["TableStatus"], Result.fail("unavailable"))

    return Check(describe, "datastore", "shared", dependency=True, classify=aws.classify)


_TABLE: Final = {
    "ACTIVE": Result(),
    "UPDATING": Result.warn("updating"),  # it serves all the while
    "CREATING": Result.fail("creating"),
    "DELETING": Result.fail("deleting"),
}


# ---------------------------------------------------------------------------------------------------------- queues


class _Depth(Protocol):
    @property
    def depth(self) -> int: ...


class _Queue(Protocol):
    def attributes(self) -> _Depth: ...


class _QueueWithDeadLetters(_Queue, Protocol):
    def dead_letters(self) -> _Queue | None: ...


def sqs(
    queue: _QueueWithDeadLetters | _Queue,
    *,
    max_depth: int | None = None,
    max_age: float | None = None,
    dead_letters: bool = True,
    cloudwatch: Any = None,
    clock: Clock = SYSTEM,
) -> Check:
    """A queue answers, is not too deep, nothing waits too long, and there are no dead letters.

    Depth, age and dead letters warn; they never fail: they are for an alarm, or for more consumers.

    Args:
        queue: A `resilient.queue.Queue`.
        max_depth: Messages waiting above which it warns (``deep``).
        max_age: Seconds that the oldest message may wait before it warns (``late``). SQS does not tell; CloudWatch
            does, once a minute, and is asked no oftener. Without an answer it warns (``age_unknown``).
        dead_letters: Whether messages in its dead-letter queue warn (``dead_letters``). The queue is found by the
            redrive policy; that takes the permission to read its attributes.
        cloudwatch: A boto3 CloudWatch client, for ``max_age``; by default one is built.
        clock: Where the time comes from.

    Examples:
        >>> class Quiet:
        ...     depth = 3
        ...     def attributes(self):
        ...         return self
        >>> dict(sqs(Quiet(), max_depth=100).run().values)
        {'depth': 3}
    """
    found: list[_Queue | None] = []
    age = None if max_age is None else _Age(queue, cloudwatch, clock).seconds

    def look() -> Result:
        values: dict[str, float] = {"depth": queue.attributes().depth}
        if not found:
            find = getattr(queue, "dead_letters", None) if dead_letters else None
            found.append(find() if find is not None else None)
        if found[0] is not None:
            values["dead_letters"] = found[0].attributes().depth
        late = _late(age, max_age, values)
        if values.get("dead_letters"):
            return Result.warn("dead_letters", **values)
        if max_depth is not None and values["depth"] > max_depth:
            return Result.warn("deep", **values)
        return Result.ok(**values) if late is None else Result.warn(late, **values)

    return Check(look, "component", "shared", dependency=True, classify=_classify)


def _classify(error: BaseException) -> Any:
    from resilient.wire import aws

    return aws.classify(error)


def _late(age: Callable[[], float] | None, limit: float | None, values: dict[str, float]) -> str | None:
    """Why the oldest message is a reason to warn; its age joins the measurements."""
    if age is None or limit is None:
        return None
    try:
        values["oldest"] = age()
    except Exception:  # noqa: BLE001 - the queue answered; what cannot be measured is told, and takes nothing out
        return "age_unknown"
    return "late" if values["oldest"] > limit else None


class _Age:
    """How long a queue's oldest message has waited, as CloudWatch tells it once a minute."""

    _EVERY = 60.0

    def __init__(self, queue: Any, client: Any, clock: Clock) -> None:
        from resilient.wire import aws

        name = getattr(queue, "name", None)
        if not isinstance(name, str):
            raise ConfigurationError("max_age= needs a queue with a name", advice="pass a resilient.queue.Queue")
        self._client = aws.client("cloudwatch", client)
        self._clock = clock
        self._known: tuple[float, float] | None = None  # until when, and what
        self._metric = {
            "Namespace": "AWS/SQS",
            "MetricName": "ApproximateAgeOfOldestMessage",
            "Dimensions": [{"Name": "QueueName", "Value": name}],
        }

    def seconds(self) -> float:
        """Its age. A queue of which CloudWatch has no figure is one where nothing waits."""
        if self._known is not None and self._clock.monotonic() < self._known[0]:
            return self._known[1]
        now = datetime.fromtimestamp(self._clock.wall(), UTC)
        stat = {"Metric": self._metric, "Period": 60, "Stat": "Maximum"}
        told = self._client.get_metric_data(
            MetricDataQueries=[{"Id": "age", "MetricStat": stat}],
            StartTime=now - timedelta(minutes=5),
            EndTime=now + timedelta(minutes=1),
            ScanBy="TimestampDescending",
        )["MetricDataResults"]
        values = told[0]["Values"] if told else []
        age = float(values[0]) if values else 0.0
        self._known = (self._clock.monotonic() + self._EVERY, age)
        return age
