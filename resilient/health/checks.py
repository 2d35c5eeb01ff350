"""Checks that are ready to be added to a `Health`.

Each uses a connection of its own, asks one short question, and says of itself that it is a shared dependency. None
gives anything away: what a report shows of a failure is one word.

    >>> from resilient.health import Health, checks
    >>> health = Health()
    >>> health.add("breakfast", checks.callable(lambda: True))
"""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any, Protocol

from resilient.clock import SYSTEM, Clock
from resilient.errors import ConfigurationError
from resilient.health._core import Check, CheckFunction, Result, Scope
from resilient.policy import deadline

__all__ = ["Heartbeat", "breaker", "callable", "heartbeat", "redis", "replicas", "s3", "shards", "sqlalchemy", "sqs"]


def callable(  # noqa: A001 - reads as checks.callable(...)
    function: CheckFunction, *, scope: Scope = "local", dependency: bool = False, kind: str = "component"
) -> Check:
    """A function of your own.

    Args:
        function: Returns nothing or True (pass), False (fail) or a `Result`, or raises. May be async.
        scope: Whether a fault is this instance's alone, or of something that all instances use.
        dependency: Whether it asks something outside the process; liveness refuses such a check.
        kind: What is checked: ``component``, ``datastore`` or ``system``.

    Examples:
        >>> callable(lambda: True).scope
        'local'
    """
    if not builtins.callable(function):
        raise ConfigurationError(f"a {type(function).__name__} cannot be called")
    return Check(function, kind=kind, scope=scope, dependency=dependency)


# ----------------------------------------------------------------------------------------------------- dependencies


def sqlalchemy(target: Any, *, writable: bool = False) -> Check:
    """A database answers ``SELECT 1``, through one connection that is not the application's pool's.

    Args:
        target: A URL, or the application's engine, whose way to connect (TLS, credentials, ``creator``) is used.
        writable: Whether a server that takes no writes, such as a demoted primary, counts as failed
            (``read_only``). For MariaDB, MySQL, PostgreSQL and SQLite.

    Raises:
        ConfigurationError: It is an async engine, or the database cannot be asked whether it takes writes.

    Examples:
        >>> from sqlalchemy import create_engine
        >>> sqlalchemy(create_engine("sqlite://")).run().status.value
        'pass'
    """
    from resilient.health._sql import SqlProbe
    from resilient.wire import sql

    probe = SqlProbe(target, writable=writable)
    return Check(probe.run, "datastore", "shared", dependency=True, close=probe.close, classify=sql.classify)


def redis(target: Any) -> Check:
    """A Redis or Valkey answers ``PING``, through one connection that is not the application's pool's.

    Args:
        target: A URL, or the application's client, whose way to connect is used. A cluster's client is asked itself.

    Raises:
        ConfigurationError: It is neither, or an async client.

    Examples:
        >>> import fakeredis
        >>> check = redis(fakeredis.FakeRedis())
        >>> check.run()
        >>> check.close()
    """
    from resilient.health._redis import RedisProbe
    from resilient.wire import redis as wire

    probe = RedisProbe(target)
    return Check(probe.run, "datastore", "shared", dependency=True, close=probe.close, classify=wire.classify)


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


class _Depth(Protocol):
    @property
    def depth(self) -> int: ...


class _Queue(Protocol):
    def attributes(self) -> _Depth: ...


class _QueueWithDeadLetters(_Queue, Protocol):
    def dead_letters(self) -> _Queue | None: ...


def sqs(queue: _QueueWithDeadLetters | _Queue, *, max_depth: int | None = None, dead_letters: bool = True) -> Check:
    """A queue answers, is not too deep, and has no dead letters. Depth and dead letters warn; they never fail.

    Args:
        queue: A `resilient.queue.Queue`.
        max_depth: Messages waiting above which it warns (``deep``).
        dead_letters: Whether messages in its dead-letter queue warn (``dead_letters``). The queue is found by the
            redrive policy; that takes the permission to read its attributes.

    Examples:
        >>> class Quiet:
        ...     depth = 3
        ...     def attributes(self):
        ...         return self
        >>> dict(sqs(Quiet(), max_depth=100).run().values)
        {'depth': 3}
    """
    found: list[_Queue | None] = []

    def look() -> Result:
        values: dict[str, float] = {"depth": queue.attributes().depth}
        if not found:
            find = getattr(queue, "dead_letters", None) if dead_letters else None
            found.append(find() if find is not None else None)
        if found[0] is not None:
            values["dead_letters"] = found[0].attributes().depth
        if values.get("dead_letters"):
            return Result.warn("dead_letters", **values)
        if max_depth is not None and values["depth"] > max_depth:
            return Result.warn("deep", **values)
        return Result.ok(**values)

    return Check(look, "component", "shared", dependency=True)


# ---------------------------------------------------------------------------------------- what other rooms know already


class _Node(Protocol):
    @property
    def role(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def lag(self) -> float | None: ...


class _ReplicaSet(Protocol):
    def status(self) -> Sequence[_Node]: ...


def replicas(db: _ReplicaSet) -> Check:
    """What a replica set knows of its servers. Asks nobody: the set's own probes did.

    It fails with no server up, warns while the primary takes no writes (``read_only``) or a replica is out of the
    rotation (``replicas``), and measures the greatest lag in seconds.

    Args:
        db: A `resilient.storage.replicas.ReplicaSet`.

    Examples:
        >>> from resilient.storage.replicas import ReplicaSet
        >>> with ReplicaSet("sqlite://") as db:
        ...     _ = db.probe()
        ...     replicas(db).run().status.value
        'pass'
    """
    return Check(lambda: _judge(db.status()), "datastore", "shared", dependency=True)


def _judge(nodes: Sequence[_Node]) -> Result:
    up = [node for node in nodes if node.state == "up"]
    copies = [node for node in nodes if node.role == "replica"]
    primary_up = any(node.role == "primary" for node in up)
    values: dict[str, float] = {"replicas_up": sum(node.role == "replica" for node in up)}
    lags = [node.lag for node in copies if node.lag is not None]
    if lags:
        values["lag"] = round(max(lags), 3)
    if any(node.role == "primary" and node.state == "unknown" for node in nodes) and not up:
        return Result.unknown("unprobed", **values)
    if not up and not any(node.state in {"lagging", "read_only"} for node in nodes):
        return Result.fail("down", **values)
    if not primary_up:
        return Result.warn("read_only", **values)
    if len(up) < len(nodes):
        return Result.warn("replicas", **values)
    return Result.ok(**values)


class _Shard(Protocol):
    @property
    def state(self) -> str: ...


class _ShardSet(Protocol):
    def status(self, timeout: float = ...) -> Sequence[_Shard]: ...


_REST = 0.3  # seconds of the check's time that are left for everything but the shards' answers


def shards(shard_set: _ShardSet) -> Check:
    """What a shard set knows of its shards: warns while some are down (``shards``), fails when none is up (``down``).

    Args:
        shard_set: A `resilient.storage.shards.ShardSet`.
    """

    def look() -> Result:
        left = deadline.bound(_REST + 0.5)
        states = [each.state for each in shard_set.status(max(0.05, left - _REST))]
        up = sum(state == "up" for state in states)
        values: dict[str, float] = {"shards": len(states), "up": up}
        if up == len(states):
            return Result.ok(**values)
        if not any(state in {"up", "degraded"} for state in states):
            return Result.fail("down", **values)
        return Result.warn("shards", **values)

    return Check(look, "datastore", "shared", dependency=True)


class _Breaker(Protocol):
    @property
    def state(self) -> str: ...


class _Guarded(Protocol):
    @property
    def breaker(self) -> _Breaker: ...


def breaker(pipeline: _Guarded | _Breaker) -> Check:
    """What traffic has taught a breaker: it warns unless closed. The dependency is not asked.

    Args:
        pipeline: A `resilient.policy.Pipeline` with a `Breaker`, or the pipeline's ``.breaker``.

    Examples:
        >>> from resilient.policy import Breaker, Pipeline
        >>> orders = Pipeline("orders", Breaker())
        >>> check = breaker(orders)
        >>> orders.breaker.isolate()
        >>> check.run().reason
        'isolated'
    """
    control: Any = getattr(pipeline, "breaker", pipeline)
    if not hasattr(control, "state"):
        raise ConfigurationError(f"a {type(pipeline).__name__} has no breaker", advice="add Breaker() to the pipeline")

    def look() -> Result:
        state = str(control.state)
        return Result() if state == "closed" else Result.warn(state)

    return Check(look, "component", "shared", dependency=True)


# ---------------------------------------------------------------------------------------------------- this process


class Heartbeat:
    """Notices a loop that stands still: the loop beats, and the check fails when the last beat is too old.

    It is a fact about this process, so liveness takes it. Give it as the check, and call `beat` in the loop.

    Args:
        max_age: Seconds without a beat after which it fails (``silent``); they begin to count when it is made.
        clock: Where the time comes from.

    Examples:
        >>> from resilient.health import Health, checks
        >>> worker, health = checks.heartbeat(max_age=30), Health()
        >>> health.add("worker", worker.check, views=["live", "ready"])
        >>> worker.beat()
        >>> health.live().word
        'pass'
    """

    def __init__(self, max_age: float, *, clock: Clock = SYSTEM) -> None:
        if not max_age > 0:
            raise ConfigurationError(f"a heartbeat needs max_age > 0 seconds, got {max_age!r}")
        self.max_age = max_age
        self._clock = clock
        self._last = clock.monotonic()

    def beat(self) -> None:
        """Say that the loop goes round."""
        self._last = self._clock.monotonic()

    @property
    def check(self) -> Check:
        """What to add to a `Health`."""
        return Check(self._look)

    def _look(self) -> Result:
        age = self._clock.monotonic() - self._last
        values = {"age": round(age, 3)}
        return Result.fail("silent", **values) if age > self.max_age else Result.ok(**values)


heartbeat = Heartbeat
"""Make a `Heartbeat`."""
