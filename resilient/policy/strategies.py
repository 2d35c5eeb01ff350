"""Waits of our own in the shape of tenacity's strategies: a callable that takes tenacity's retry state."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

__all__ = ["GrowingWait"]


@dataclass(frozen=True, slots=True)
class GrowingWait:
    """A wait that grows by a factor, as Step Functions describes it.

    Args:
        first: The first wait, in seconds.
        rate: By what each is longer than the one before.
        longest: The longest wait, in seconds.
        jitter: Draw each wait between zero and its length.

    Examples:
        >>> from types import SimpleNamespace
        >>> GrowingWait(2, 1.5, 60)(SimpleNamespace(attempt_number=3))
        4.5
    """

    first: float
    rate: float
    longest: float
    jitter: bool = False

    def __call__(self, retry_state: Any) -> float:
        """Seconds to wait after the attempt of that number failed."""
        try:
            length = min(self.longest, self.first * self.rate ** (retry_state.attempt_number - 1))
        except OverflowError:
            length = self.longest
        return random.uniform(0, length) if self.jitter else length  # noqa: S311 - spreads load, guards nothing
