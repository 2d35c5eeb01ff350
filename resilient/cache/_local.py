"""What users say of the local tier."""

from __future__ import annotations

import math
from dataclasses import dataclass

from resilient.errors import ConfigurationError

__all__ = ["Local"]


@dataclass(frozen=True, slots=True)
class Local:
    """How much of a cache each process keeps in its own memory, and how it hands it out.

    Above a server it is kept right by the server, which tells each process what has changed: a change is seen one
    message later, and at most one second later where the connection dies without a sign.

    Args:
        max_entries: How many entries at most. What is asked for again stays, what is read once goes.
        max_bytes: How many bytes at most, of keys, of values as they are written, and of what each entry needs besides.
            An entry of more than an eighth of it is not kept here.
        ttl: Seconds after which an entry is read from the server again, if its own end does not come before.
        share: Hand out the same object to every caller. Callers must not change it. Without it each caller gets a copy
            of its own, but for values that nobody can change, such as texts and numbers.

    Raises:
        ConfigurationError: A bound is not positive.

    Examples:
        >>> Local(max_entries=1000).max_bytes
        67108864
    """

    max_entries: int = 10_000
    max_bytes: int = 64 * 1024 * 1024
    ttl: float | None = None
    share: bool = False

    def __post_init__(self) -> None:
        for name in ("max_entries", "max_bytes"):
            number = getattr(self, name)
            if not isinstance(number, int) or isinstance(number, bool) or number < 1:
                raise ConfigurationError(f"{name} is a whole number above 0, not {number!r}")
        if self.ttl is not None and not (isinstance(self.ttl, int | float) and 0 < self.ttl < math.inf):  # type: ignore[redundant-expr]  # callers may not check types
            raise ConfigurationError(f"the ttl of the local tier is a positive number of seconds, not {self.ttl!r}")
