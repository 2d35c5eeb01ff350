"""What a probe gets over HTTP: which path asks which question, and the bytes of the answer.

Every mount (WSGI, ASGI, Flask, Django) answers with these, so that all answer alike; their errors are an `Answer` too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from types import MappingProxyType
from typing import Final

from resilient.health._core import Details, View
from resilient.health._report import Report

__all__ = ["PATHS", "Answer", "answer", "may_see", "no_such_path", "wants_json", "wrong_method"]

PATHS: Final[Mapping[str, View]] = MappingProxyType(
    {"/livez": "live", "/readyz": "ready", "/startupz": "startup", "/health": "ready"}
)
"""The paths of the probes. ``/health`` answers as JSON, the others with one word unless JSON is asked for."""

JSON: Final = "application/health+json"
TEXT: Final = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Answer:
    """One response.

    Args:
        status: The HTTP status.
        content_type: The type of the body.
        body: The body.
        more: Further headers.
    """

    status: int
    content_type: str
    body: bytes
    more: tuple[tuple[str, str], ...] = ()

    @property
    def line(self) -> str:
        """The status with its phrase, as WSGI wants it."""
        return f"{self.status} {HTTPStatus(self.status).phrase}"

    @property
    def headers(self) -> list[tuple[str, str]]:
        """The response's headers; nothing on the way may keep it."""
        return [
            ("Content-Type", self.content_type),
            ("Content-Length", str(len(self.body))),
            ("Cache-Control", "no-store"),
            *self.more,
        ]


def wants_json(path: str, accept: str) -> bool:
    """Whether the answer is JSON: on ``/health`` always, elsewhere where the ``Accept`` header names it.

    Examples:
        >>> wants_json("/health", ""), wants_json("/readyz", "*/*"), wants_json("/readyz", "application/json")
        (True, False, True)
    """
    return path == "/health" or JSON in accept or "application/json" in accept


def may_see(details: Details, authorize: Callable[[], object]) -> bool:
    """Whether a caller is shown the details.

    Args:
        details: The policy of the `resilient.health.Health`.
        authorize: Asked under ``"authorized"``. One that raises has said no.
    """
    if details != "authorized":
        return details == "always"
    try:
        return authorize() is True
    except Exception:  # noqa: BLE001 - a door that breaks stays shut
        return False


def answer(report: Report, *, as_json: bool, details: bool) -> Answer:
    r"""The response that tells a report.

    Examples:
        >>> from resilient.health import Health
        >>> answer(Health().ready(), as_json=False, details=False)
        Answer(status=200, content_type='text/plain; charset=utf-8', body=b'pass\n', more=())
    """
    if as_json:
        return Answer(report.http_status, JSON, report.to_json(details=details).encode())
    return Answer(report.http_status, TEXT, f"{report.word}\n".encode())


def no_such_path() -> Answer:
    """The response to a path that asks nothing."""
    return Answer(404, TEXT, b"not found\n")


def wrong_method() -> Answer:
    """The response to anything but GET and HEAD."""
    return Answer(405, TEXT, b"method not allowed\n")
