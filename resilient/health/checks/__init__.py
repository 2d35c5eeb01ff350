"""Checks that are ready to be added to a `Health`.

Each uses a connection of its own, asks one short question, and says of itself whether it is a shared dependency. None
gives anything away: what a report shows of a failure is one word.

    >>> from resilient.health import Health, checks
    >>> health = Health()
    >>> health.add("breakfast", checks.callable(lambda: True))
"""

from resilient.health.checks._aws import dynamodb, s3, sqs
from resilient.health.checks._certificate import certificate
from resilient.health.checks._databases import redis, sqlalchemy
from resilient.health.checks._own import callable  # noqa: A004 - reads as checks.callable(...)
from resilient.health.checks._process import Heartbeat, disk, heartbeat
from resilient.health.checks._rooms import breaker, cache, pipelines, replicas, shards
from resilient.health.checks._time import clock

__all__ = [
    "Heartbeat",
    "breaker",
    "cache",
    "callable",
    "certificate",
    "clock",
    "disk",
    "dynamodb",
    "heartbeat",
    "pipelines",
    "redis",
    "replicas",
    "s3",
    "shards",
    "sqlalchemy",
    "sqs",
]
