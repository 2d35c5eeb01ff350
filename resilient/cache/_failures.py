"""Which errors of a loader or a writer mean what."""

from __future__ import annotations

import threading

from resilient.errors import DeadlineExceeded, InvalidInput, NotFound, OutcomeUnknown, Refused

__all__ = ["Throttle", "ambiguous", "is_failure"]

_MISTAKES = (
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    NameError,
    AssertionError,
    NotImplementedError,
    InvalidInput,
    NotFound,
    Refused,
)
"""Errors of the program or of the request: an old value would hide them."""

_THROTTLE = 1.0  # seconds between two tries to reach a source that failed, for one key
_TRACKED = 10_000


def is_failure(error: Exception) -> bool:
    """Whether a loader's error means that its source cannot serve, so that an old value may stand in."""
    return not isinstance(error, _MISTAKES)


def ambiguous(error: BaseException) -> bool:
    """Whether a writer that raised this may yet have changed its store."""
    if not isinstance(error, Exception):
        return True  # cancelled or interrupted midway
    unknown = isinstance(error, OutcomeUnknown | DeadlineExceeded | OSError)
    return unknown or bool(getattr(error, "connection_invalidated", False))


class Throttle:
    """Keys whose source failed a moment ago, and is not asked again for a second."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until: dict[str, float] = {}

    def holds(self, key: str, now: float) -> bool:
        """Whether the source is left alone at this moment."""
        return self._until.get(key, 0.0) > now

    def hold(self, key: str, now: float) -> None:
        """Leave the source alone for a while."""
        with self._lock:
            if len(self._until) >= _TRACKED:
                self._until = {each: until for each, until in self._until.items() if until > now}
            if len(self._until) < _TRACKED:
                self._until[key] = now + _THROTTLE

    def lift(self, key: str) -> None:
        """The source answered."""
        self._until.pop(key, None)
