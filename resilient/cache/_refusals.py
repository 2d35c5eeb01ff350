"""Errors by which a server says that a cache is set up wrongly: nobody else would tell, since no caller sees them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilient import events
from resilient.cache._events import CacheRefused
from resilient.clock import Clock

if TYPE_CHECKING:
    from resilient.policy.classify import Classifier

__all__ = ["Refusals", "root_name"]

_EVERY = 60.0  # seconds between two lines of one kind
_LONGEST = 160  # characters of what the server said
_REFUSED = frozenset({"auth", "invalid", "permanent", "read_only"})
"""The failures that a breaker takes for an answer: the server is there, and does not do what it is asked to."""


class Refusals:
    """Tells of them, once in a while.

    Args:
        name: What it is that is set up, for events: a cache by its namespace.
        judge: Says what an error means; ``None`` leaves that to what holds for all.
        clock: Where time is read.
    """

    def __init__(self, name: str, judge: Classifier | None, clock: Clock) -> None:
        self._name = name
        self._judge = judge
        self._clock = clock
        self._next: dict[str, float] = {}

    def note(self, error: BaseException) -> None:
        """Tell of an error, if it is such a one and none of its kind was told of within the last minute."""
        from resilient.policy.classify import default  # an error is rare, and to load this takes a while

        verdict = (self._judge and self._judge(error)) or default(error)
        if verdict is None or verdict.failure.value not in _REFUSED:
            return
        kind, now = type(error).__qualname__, self._clock.monotonic()
        if now >= self._next.get(kind, now):
            self._next[kind] = now + _EVERY
            events.emit(CacheRefused(cache=self._name, error=kind, reason=_brief(str(error))))


def _brief(text: str) -> str:
    """What a server said, without the arguments that it repeats: keys and values are nobody's business."""
    return (text.partition(", with args")[0].splitlines() or [""])[0][:_LONGEST]


def root_name(error: BaseException) -> str:
    """The class of an error, or of the system's error behind it, which says more.

    Examples:
        >>> error = RuntimeError("cannot connect")
        >>> error.__cause__ = ConnectionRefusedError(111, "Connection refused")
        >>> root_name(error), root_name(ValueError())
        ('ConnectionRefusedError', 'ValueError')
    """
    found, below = error, error.__cause__ or error.__context__
    for _ in range(5):  # no deeper, and in no circles
        if below is None:
            break
        if isinstance(below, OSError):
            found = below
        below = below.__cause__ or below.__context__
    return type(found).__qualname__
