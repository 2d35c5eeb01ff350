"""How long an entry lives: one policy, and the times it gives an entry. Pure: no clock, no I/O."""

from __future__ import annotations

import math
from dataclasses import dataclass

from resilient.errors import ConfigurationError

__all__ = ["Policy"]


@dataclass(frozen=True, slots=True)
class Policy:
    """How long entries live.

    Args:
        ttl: Seconds for which a value is served without asking its source.
        negative_ttl: Seconds for which it is remembered that there is no such thing; ``None`` does not remember it.
        stale_if_error: Seconds after ``ttl`` for which a value is served when its source fails.
        jitter: By which part of it a ttl is shortened at random, at most; so that what was stored together does not end
            together. Never lengthens.

    Raises:
        ConfigurationError: A time is missing, not positive or not finite.
    """

    ttl: float
    negative_ttl: float | None = None
    stale_if_error: float = 0.0
    jitter: float = 0.1

    def __post_init__(self) -> None:
        if self.ttl is None:  # pyright: ignore[reportUnnecessaryComparison]  # what users forget
            raise ConfigurationError(
                "a cache policy needs a ttl: without one a forgotten entry is wrong for ever",
                advice="pass ttl= here or to the cache",
            )
        for name in ("ttl", "negative_ttl"):
            seconds = getattr(self, name)
            if seconds is not None and not (isinstance(seconds, int | float) and 0 < seconds < math.inf):
                raise ConfigurationError(f"{name} is a positive number of seconds, not {seconds!r}")
        if not 0 <= self.stale_if_error < math.inf:
            raise ConfigurationError(f"stale_if_error is a number of seconds, not {self.stale_if_error!r}")
        if not 0 <= self.jitter < 1:
            raise ConfigurationError(f"jitter is a part between 0 and 1, not {self.jitter!r}")

    def lives(self, chance: float, *, negative: bool = False) -> tuple[float, float]:
        """Seconds fresh and seconds kept for one entry.

        Args:
            chance: A random number from 0 up to 1.
            negative: Whether the entry says that there is no such thing; such an entry is never served stale.

        Examples:
            >>> Policy(100, stale_if_error=60).lives(0.5)
            (95.0, 155.0)
        """
        shorter = 1.0 - self.jitter * chance
        if negative:
            fresh = (self.negative_ttl or self.ttl) * shorter
            return fresh, fresh
        fresh = self.ttl * shorter
        return fresh, fresh + self.stale_if_error
