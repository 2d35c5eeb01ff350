"""What a pipeline tells: changes of its breaker, and what was tried again, refused or substituted."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

from resilient.events import Event, Metric

__all__ = [
    "ArmChanged",
    "AttemptFailed",
    "BreakerChanged",
    "BreakerProbed",
    "CallRejected",
    "FellBack",
    "Hedged",
    "Retried",
    "RetrySuppressed",
]

_PIPELINE = ("resilience.pipeline.name", "pipeline")


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerChanged(Event):
    """A breaker went from one state to another.

    Args:
        pipeline: The name of its pipeline.
        old: The state before: ``closed``, ``open``, ``half_open`` or ``isolated``.
        new: The state now; ``would_open`` from a breaker that only measures.
        reason: What was seen, for people.
    """

    level: ClassVar[int] = logging.WARNING
    metric: ClassVar[Metric | None] = Metric(
        "resilience.breaker.changes", "counter", "{change}", None, (_PIPELINE, ("resilience.breaker.state", "new"))
    )
    pipeline: str
    old: str
    new: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerProbed(BreakerChanged):
    """An open breaker lets a probe through, or the probe failed: the outage that was told of goes on."""

    level: ClassVar[int] = logging.DEBUG


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFailed(Event):
    """One attempt failed.

    Args:
        pipeline: The name of the pipeline.
        failure: The kind of failure.
        error: The name of the exception's class.
        attempt: Which attempt it was, from 1.
    """

    metric: ClassVar[Metric | None] = Metric(
        "resilience.attempt.failures", "counter", "{attempt}", None, (_PIPELINE, ("error.type", "error"))
    )
    pipeline: str
    failure: str
    error: str
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Retried(Event):
    """An attempt will be made again.

    Args:
        pipeline: The name of the pipeline.
        attempt: Which attempt failed, from 1.
        wait: Seconds until the next.
    """

    metric: ClassVar[Metric | None] = Metric("resilience.retries", "counter", "{retry}", None, (_PIPELINE,))
    pipeline: str
    attempt: int
    wait: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrySuppressed(Event):
    """An attempt could have been made again and was not.

    Args:
        pipeline: The name of the pipeline.
        reason: ``attempts``, ``breaker``, ``budget``, ``deadline``, ``not_idempotent``,
            ``retried_below``, ``retry_after`` or ``stop``.
    """

    metric: ClassVar[Metric | None] = Metric(
        "resilience.retries.suppressed", "counter", "{retry}", None, (_PIPELINE, ("resilience.reason", "reason"))
    )
    pipeline: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRejected(Event):
    """A call was not made.

    Args:
        pipeline: The name of the pipeline.
        reason: ``breaker``, ``bulkhead``, ``rate_limit`` or ``deadline``.
    """

    metric: ClassVar[Metric | None] = Metric(
        "resilience.rejections", "counter", "{call}", None, (_PIPELINE, ("resilience.reason", "reason"))
    )
    pipeline: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hedged(Event):
    """A second call was made because the first was late.

    Args:
        pipeline: The name of the pipeline.
        delay: Seconds the first had by then.
    """

    metric: ClassVar[Metric | None] = Metric("resilience.hedges", "counter", "{call}", None, (_PIPELINE,))
    pipeline: str
    delay: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FellBack(Event):
    """A substitute was given.

    Args:
        pipeline: The name of the pipeline.
        error: The name of the class of the error it stands for.
    """

    metric: ClassVar[Metric | None] = Metric(
        "resilience.fallbacks", "counter", "{call}", None, (_PIPELINE, ("error.type", "error"))
    )
    pipeline: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmChanged(Event):
    """An arm of a weighted choice was withdrawn, or restored.

    Args:
        choice: The name of the choice.
        arm: The name of the arm.
        withdrawn: Whether it was withdrawn.
        reason: What was seen, for people.
    """

    level: ClassVar[int] = logging.WARNING
    metric: ClassVar[Metric | None] = Metric(
        "resilience.choice.changes",
        "counter",
        "{change}",
        None,
        (("resilience.choice.name", "choice"), ("resilience.choice.arm", "arm")),
    )
    choice: str
    arm: str
    withdrawn: bool
    reason: str
