"""What other rooms know already: nobody is asked, so that a check adds no load to what is down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from resilient.errors import ConfigurationError
from resilient.health._core import Check, Result, Status
from resilient.policy import deadline

__all__ = ["breaker", "cache", "pipelines", "replicas", "shards"]


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

    Raises:
        ConfigurationError: That is none.

    Examples:
        >>> from resilient.storage.replicas import ReplicaSet
        >>> with ReplicaSet("sqlite://") as db:
        ...     _ = db.probe()
        ...     replicas(db).run().status.value
        'pass'
    """
    _check_set(db, "ReplicaSet")
    return Check(lambda: _judge(db.status()), "datastore", "shared", dependency=True)


def _check_set(given: object, kind: str) -> None:
    """Find at the start what would only warn with each probe. Raises ConfigurationError."""
    if not callable(getattr(given, "status", None)):
        raise ConfigurationError(
            f"a {type(given).__name__} is no {kind}", advice="for an engine or a URL there is checks.sqlalchemy"
        )


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

    Raises:
        ConfigurationError: That is none.
    """
    _check_set(shard_set, "ShardSet")

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

    return Check(look, "component", "shared", dependency=True, at_worst=Status.WARN)


class _Counts(Protocol):
    @property
    def succeeded(self) -> int: ...
    @property
    def failed(self) -> int: ...
    @property
    def rejected(self) -> int: ...
    @property
    def breaker(self) -> str | None: ...


class _Pipeline(Protocol):
    def stats(self) -> _Counts: ...


def pipelines(*given: _Pipeline, max_failed: float = 0.5, min_calls: int = 20) -> Check:
    """What traffic has met at its dependencies since the last look. Nobody is asked.

    It warns while a breaker is not closed (with its state), and when too many of the calls failed or were turned away
    (``failing``).

    Args:
        given: Pipelines of `resilient.policy`.
        max_failed: The part of calls (0 to 1) above which it warns.
        min_calls: Calls below which that part says nothing; they are kept for the next look.

    Raises:
        ConfigurationError: There is none, or a number is wrong.

    Examples:
        >>> from resilient.policy import Breaker, Pipeline
        >>> orders, mail = Pipeline("orders", Breaker()), Pipeline("mail")
        >>> check = pipelines(orders, mail)
        >>> check.run().status.value
        'pass'
        >>> orders.breaker.isolate()
        >>> check.run().reason
        'isolated'
    """
    if not given or not all(hasattr(each, "stats") for each in given):
        raise ConfigurationError("pipelines() looks at one or more pipelines")
    if not (0 <= max_failed <= 1 and min_calls > 0):
        raise ConfigurationError(f"max_failed={max_failed!r} is no part, or min_calls={min_calls!r} no number of calls")
    counted = [_Counted(each, min_calls) for each in given]

    def look() -> Result:
        states, worst = [], 0.0
        for each in counted:
            state, failed = each.look()
            worst = max(worst, failed)
            if state not in {None, "closed"}:
                states.append(str(state))
        values: dict[str, float] = {"open": len(states), "failed": round(worst, 3)}
        if states:
            return Result.warn(states[0], **values)
        return Result.warn("failing", **values) if worst > max_failed else Result.ok(**values)

    return Check(look, "component", "shared", dependency=True, at_worst=Status.WARN)


class _Counted:
    """One pipeline, and what it had counted at the last look."""

    def __init__(self, pipeline: _Pipeline, min_calls: int) -> None:
        self._pipeline = pipeline
        self._failed = _Part(min_calls)

    def look(self) -> tuple[str | None, float]:
        """The breaker's state, and the part of calls that failed."""
        now = self._pipeline.stats()
        bad = now.failed + now.rejected
        return now.breaker, self._failed.of(bad, now.succeeded + bad) or 0.0


class _Part:
    """Which part of what was counted since the last look is of one kind; ``None`` before there was enough of it."""

    def __init__(self, least: int) -> None:
        self._least = least
        self._before = (0, 0)
        self._part: float | None = None

    def of(self, some: int, everything: int) -> float | None:
        """The part, from what was counted since the beginning."""
        counted = everything - self._before[1]
        if counted >= self._least:
            self._part = (some - self._before[0]) / counted
            self._before = (some, everything)
        return self._part


class _CacheCounts(Protocol):
    @property
    def hits(self) -> int: ...
    @property
    def misses(self) -> int: ...
    @property
    def stale(self) -> int: ...
    @property
    def state(self) -> str: ...


class _Cache(Protocol):
    def stats(self) -> _CacheCounts: ...


def cache(cache: _Cache, *, min_hit_ratio: float = 0.0, min_reads: int = 100) -> Check:
    """What a cache has seen since the last look. Nobody is asked.

    It warns while its shared tier is away (``down``), and when too few reads are answered from it (``cold``). It never
    fails: a cache that is away makes an application slower, not wrong.

    Args:
        cache: A `resilient.cache.Cache` or ``AsyncCache``.
        min_hit_ratio: The part of reads (0 to 1) below which it warns.
        min_reads: Reads below which that part says nothing; they are kept for the next look.

    Raises:
        ConfigurationError: That is no cache, or a number is wrong.

    Examples:
        >>> from resilient.cache import Cache
        >>> check = cache(Cache(), min_hit_ratio=0.8)
        >>> check.run().status.value
        'pass'
    """
    if not hasattr(cache, "stats"):
        raise ConfigurationError(f"a {type(cache).__name__} is no cache")
    if not (0 <= min_hit_ratio <= 1 and min_reads > 0):
        raise ConfigurationError(
            f"min_hit_ratio={min_hit_ratio!r} is no part, or min_reads={min_reads!r} no number of reads"
        )
    answered = _Part(min_reads)

    def look() -> Result:
        now = cache.stats()
        hits = now.hits + now.stale
        ratio = answered.of(hits, hits + now.misses)
        values = {} if ratio is None else {"hit_ratio": round(ratio, 3)}
        if now.state == "down":
            return Result.warn("down", **values)
        cold = ratio is not None and ratio < min_hit_ratio
        return Result.warn("cold", **values) if cold else Result.ok(**values)

    return Check(look, "component", "shared", dependency=True, at_worst=Status.WARN)
