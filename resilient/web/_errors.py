"""What an error of this library means to a client over HTTP: its status and its body, the same in every mount."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

from resilient.errors import (
    ConfigurationError,
    Conflict,
    DeadlineExceeded,
    InvalidInput,
    NotFound,
    Refused,
    ResilientError,
    Unavailable,
)
from resilient.health.answer import Answer

__all__ = ["MAPPED", "HttpError", "http_error"]

_STATUS: tuple[tuple[type[ResilientError], int, str], ...] = (
    (Unavailable, 503, "unavailable"),
    (DeadlineExceeded, 504, "deadline_exceeded"),
    (NotFound, 404, "not_found"),
    (Conflict, 409, "conflict"),
    (Refused, 403, "refused"),
    (InvalidInput, 400, "invalid_input"),
)

MAPPED: tuple[type[ResilientError], ...] = tuple(kind for kind, _, _ in _STATUS)
"""The errors that have a status of their own; all others stay the framework's 500."""


@dataclass(frozen=True, slots=True)
class HttpError:
    """The response that an error becomes.

    Args:
        status: The HTTP status.
        word: What it is, as one word. The error's text stays in the process.
        retry_after: Whole seconds after which another try is worth making; for 503.
    """

    status: int
    word: str
    retry_after: int | None = None

    def answer(self) -> Answer:
        """The response itself: the word as JSON, with ``Retry-After`` where there is one.

        Examples:
            >>> HttpError(503, "unavailable", retry_after=3).answer().body
            b'{"error":"unavailable"}'
        """
        more = () if self.retry_after is None else (("Retry-After", str(self.retry_after)),)
        body = json.dumps({"error": self.word}, separators=(",", ":")).encode()
        return Answer(self.status, "application/json", body, more)


def http_error(error: BaseException) -> HttpError | None:
    """The response that an error becomes; ``None`` where it has none and is a plain 500.

    `Unavailable` with its kinds `CircuitOpen` and `Overloaded` is 503 with ``Retry-After``, `DeadlineExceeded` 504,
    `NotFound` 404, `Conflict` 409, `Refused` 403, `InvalidInput` 400.

    Examples:
        >>> http_error(Unavailable("the database is down", retry_after=2.5))
        HttpError(status=503, word='unavailable', retry_after=3)
        >>> http_error(ZeroDivisionError()) is None
        True
    """
    if isinstance(error, ConfigurationError):
        return None
    for kind, status, word in _STATUS:
        if isinstance(error, kind):
            return HttpError(status, word, _whole(error.retry_after) if status == 503 else None)
    return None


def _whole(seconds: float | None) -> int:
    return 1 if seconds is None or not math.isfinite(seconds) else max(1, math.ceil(seconds))
