"""What users say of the local tier."""

from __future__ import annotations

from dataclasses import dataclass

from resilient.arguments import check_count, check_seconds
from resilient.errors import ConfigurationError

__all__ = ["Local", "check_local"]


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
            check_count(name, getattr(self, name))
        if self.ttl is not None:
            check_seconds("the ttl of the local tier", self.ttl)


def check_local(local: object) -> None:
    """Refuse what does not say how much is kept. Raises ConfigurationError."""
    if local is not None and not isinstance(local, Local):
        raise ConfigurationError(
            f"local is a Local, not {local!r}", advice="write local=Local(), or local=Local(max_entries=1000)"
        )
