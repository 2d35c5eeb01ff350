"""What a probe gets over HTTP: which path asks which question, and the bytes of the answer.

Every mount (WSGI, ASGI, Flask, Django) answers with these, so that all answer alike; their errors are an `Answer` too.
A mount asks `asked` what a path means, and hands that to `reply` or `areply`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from resilient.health._core import Details, View
from resilient.health._health import Health
from resilient.health._metrics import METRICS, metrics
from resilient.health._page import PAGE, POLICY, page
from resilient.health._report import Report

__all__ = [
    "PATHS",
    "Answer",
    "Asked",
    "answer",
    "areply",
    "asked",
    "may_see",
    "no_such_path",
    "reply",
    "wants_json",
    "wrong_method",
]

PATHS: Final[Mapping[str, View]] = MappingProxyType(
    {"/livez": "live", "/readyz": "ready", "/startupz": "startup", "/health": "ready"}
)
"""The paths of the probes. ``/health`` answers as JSON, the others with one word unless JSON is asked for.

Besides them there are ``/health/<view>`` for every view and group, ``/health/page`` and ``/health/metrics``.
"""

JSON: Final = "application/health+json"
TEXT: Final = "text/plain; charset=utf-8"

Form: TypeAlias = Literal["word", "json", "page", "metrics"]


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


# ------------------------------------------------------------------------------------------------------ what is asked


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks.

    Args:
        view: The question.
        form: How the answer is written.
    """

    view: View
    form: Form


def asked(health: Health, path: str, accept: str = "") -> Asked | None:
    """What a path asks; ``None`` where it is not one of health's.

    Args:
        health: Whose views there are.
        path: The path, from where the routes are mounted.
        accept: The request's ``Accept`` header.

    Examples:
        >>> asked(Health(), "/readyz").view, asked(Health(), "/health/live").form, asked(Health(), "/health/page")
        ('ready', 'json', None)
    """
    view = PATHS.get(path)
    if view is not None:
        return Asked(view, "json" if wants_json(path, accept) else "word")
    last = path.removeprefix("/health/")
    if last == path:
        return None
    if last == "page" and health.page:
        return Asked("all", "page")
    if last == "metrics" and health.metrics:
        return Asked("all", "metrics")
    return Asked(last, "json") if last in health.views else None


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


# ---------------------------------------------------------------------------------------------------- what is answered


def reply(health: Health, question: Asked | None, *, details: bool) -> Answer:
    """The response to a question.

    The page and the metrics are only for those who may see details; for all others there is no such path.

    Args:
        health: Who is asked.
        question: What is asked; ``None`` is answered with 404.
        details: Whether the caller may see details.

    Examples:
        >>> health = Health()
        >>> reply(health, asked(health, "/health"), details=False).body
        b'{"status":"pass"}'
    """
    if question is None or _hidden(question, details=details):
        return no_such_path()
    return _written(health, question, health.report(question.view), details=details)


async def areply(health: Health, question: Asked | None, *, details: bool) -> Answer:
    """The async face of `reply`.

    Examples:
        >>> import asyncio
        >>> health = Health()
        >>> asyncio.run(areply(health, asked(health, "/livez"), details=False)).status
        200
    """
    if question is None or _hidden(question, details=details):
        return no_such_path()
    return _written(health, question, await health.areport(question.view), details=details)


def _hidden(question: Asked, *, details: bool) -> bool:
    return question.form in {"page", "metrics"} and not details


def _written(health: Health, question: Asked, report: Report, *, details: bool) -> Answer:
    if question.form == "page":
        return Answer(200, PAGE, page(health, report).encode(), (("Content-Security-Policy", POLICY),))
    if question.form == "metrics":
        return Answer(200, METRICS, metrics(health, report).encode())
    return answer(report, as_json=question.form == "json", details=details)


def answer(report: Report, *, as_json: bool, details: bool) -> Answer:
    r"""The response that tells a report.

    Examples:
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
