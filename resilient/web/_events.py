"""What happens between the application and those who keep its pages, as events."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

from resilient.events import Event, Metric

__all__ = ["PurgeFailed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PurgeFailed(Event):
    """A shared cache could not be told what has changed; it is tried again.

    Args:
        cache: The cache's namespace.
        error: The class of the error.
        names: How many names wait.
    """

    metric: ClassVar[Metric | None] = Metric(
        "resilient.web.purge_failures",
        "counter",
        "{failure}",
        labels=(("resilient.web.cache", "cache"), ("error.type", "error")),
    )
    level: ClassVar[int] = logging.WARNING
    cache: str
    error: str
    names: int
