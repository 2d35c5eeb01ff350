"""Where an answer came from: the library tells it in events, and the page and the tour show it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from resilient import events
from resilient.cache import CacheRead
from resilient.storage.replicas import ReadRouted

__all__ = ["Trail", "follow"]


class Trail:
    """What answered, during one request."""

    def __init__(self) -> None:
        self.cache = ""
        self.database = ""

    @property
    def source(self) -> str:
        """``local`` or ``shared`` for the cache, ``replica-1``, ``primary`` and so on for the database."""
        return self.cache if self.cache in {"local", "shared"} else self.database or self.cache


_current: ContextVar[Trail | None] = ContextVar("imagery_trail", default=None)


def _note(event: events.Event) -> None:
    trail = _current.get()
    if trail is None:
        return
    if isinstance(event, CacheRead):
        trail.cache = event.source
    elif isinstance(event, ReadRouted):
        trail.database = event.node  # a read that was moved away from a dead server is told once more


events.subscribe(_note, kinds=(CacheRead, ReadRouted))


@contextmanager
def follow() -> Iterator[Trail]:
    """Follow what happens in this block, on this thread."""
    trail = Trail()
    reset = _current.set(trail)
    try:
        yield trail
    finally:
        _current.reset(reset)
