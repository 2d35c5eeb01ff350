"""What happens in a shard set, as events."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

from resilient import events

__all__ = ["Gathered", "ShardMissing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardMissing(events.Event):
    """A shard gave no answer to a gathered read.

    Args:
        shard: The shard.
        error: The type of its error.
    """

    level: ClassVar[int] = logging.WARNING
    metric: ClassVar[events.Metric | None] = events.Metric(
        "resilient.shards.missing", "counter", "{read}", labels=(("resilient.shards.shard", "shard"),)
    )
    shard: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered(events.Event):
    """A read over all shards was answered.

    Args:
        shards: How many shards were asked.
        missing: How many of them gave no answer.
        seconds: How long it took.
    """

    metric: ClassVar[events.Metric | None] = events.Metric(
        "resilient.shards.gather.duration", "histogram", "s", value="seconds"
    )
    shards: int
    missing: int
    seconds: float
