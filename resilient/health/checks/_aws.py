"""Services of AWS: buckets, queues, tables. Each look is one request that costs next to nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from resilient.clock import SYSTEM, Clock
from resilient.errors import ConfigurationError
from resilient.health._core import Check, Result
from resilient.health.checks._aside import Aside
from resilient.policy import deadline

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

    Depth, age and dead letters warn; they never fail: they are for an alarm, or for more consumers. The check fails
    where the queue itself does not answer. Age and dead letters are asked beside it, on threads of their own: where
    they are refused or hang, it warns (``age_unknown``, ``dead_letters_unknown``), within half of its time.

    Args:
        queue: A `resilient.queue.Queue`.
        max_depth: Messages waiting above which it warns (``deep``).
        max_age: Seconds that the oldest message may wait before it warns (``late``). SQS does not tell; CloudWatch
            does, once a minute, and is asked no oftener, whether it answers or not.
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
    dead = _dead_letters(queue, clock) if dead_letters else None
    age = None if max_age is None else _age(queue, cloudwatch, clock)

    def look() -> Result:
        left = deadline.remaining()
        within = 0.5 if left is None else left / 2
        for each in (dead, age):
            if each is not None:
                each.begin()
        values: dict[str, float] = {"depth": queue.attributes().depth}
        unknown: list[str] = []
        found = (None,) if dead is None else dead.known(within)
        if found is None:
            unknown.append("dead_letters_unknown")
        elif found[0] is not None:
            values["dead_letters"] = found[0]
        oldest = None if age is None else age.known(within)
        if oldest is not None:
            values["oldest"] = oldest[0]
        elif age is not None:
            unknown.append("age_unknown")
        reasons = [*_reasons(values, max_depth, max_age), *unknown]
        return Result.warn(reasons[0], **values) if reasons else Result.ok(**values)

    return Check(look, "component", "shared", dependency=True, classify=_classify)


def _classify(error: BaseException) -> Any:
    from resilient.wire import aws

    return aws.classify(error)


def _reasons(values: Mapping[str, float], max_depth: int | None, max_age: float | None) -> Iterator[str]:
    """Why a queue is for people to look at, the most urgent first."""
    if values.get("dead_letters"):
        yield "dead_letters"
    if max_depth is not None and values["depth"] > max_depth:
        yield "deep"
    if max_age is not None and values.get("oldest", 0.0) > max_age:
        yield "late"


def _dead_letters(queue: Any, clock: Clock) -> Aside[int | None] | None:
    """How many messages nobody could handle; an answer of ``None`` where the queue has no queue for them."""
    find = getattr(queue, "dead_letters", None)
    if find is None:
        return None
    found: list[_Queue | None] = []

    def count() -> int | None:
        if not found:
            found.append(find())
        return None if found[0] is None else found[0].attributes().depth

    return Aside(f"{getattr(queue, 'name', 'sqs')}-dead-letters", count, keep=0.0, clock=clock)


_EVERY: Final = 60.0  # seconds between two questions to CloudWatch, which has a new figure each minute


def _age(queue: Any, client: Any, clock: Clock) -> Aside[float]:
    """How long a queue's oldest message has waited. One of which CloudWatch has no figure is one where nothing waits.

    Raises ConfigurationError for a queue without a name.
    """
    from resilient.wire import aws

    name = getattr(queue, "name", None)
    if not isinstance(name, str):
        raise ConfigurationError("max_age= needs a queue with a name", advice="pass a resilient.queue.Queue")
    asked = aws.client("cloudwatch", client)
    metric = {
        "Namespace": "AWS/SQS",
        "MetricName": "ApproximateAgeOfOldestMessage",
        "Dimensions": [{"Name": "QueueName", "Value": name}],
    }

    def seconds() -> float:
        now = datetime.fromtimestamp(clock.wall(), UTC)
        told = asked.get_metric_data(
            MetricDataQueries=[{"Id": "age", "MetricStat": {"Metric": metric, "Period": 60, "Stat": "Maximum"}}],
            StartTime=now - timedelta(minutes=5),
            EndTime=now + timedelta(minutes=1),
            ScanBy="TimestampDescending",
        )["MetricDataResults"]
        values = told[0]["Values"] if told else []
        return float(values[0]) if values else 0.0

    return Aside(f"{name}-age", seconds, keep=_EVERY, clock=clock)
