"""What a probe gets over HTTP: which path asks which question, who sees details, and the bytes of the answer.

There is one doorway, `probe`, with `aprobe` for event loops. Every mount (WSGI, ASGI, Flask, Django, AWS Lambda) reads
its request, goes through it and writes the `Answer`, so that all answer alike; their errors are an `Answer` too.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias

from resilient.errors import ConfigurationError
from resilient.health._core import View
from resilient.health._health import Health
from resilient.health._metrics import METRICS, metrics
from resilient.health._page import PAGE, POLICY, page
from resilient.health._report import Report
from resilient.policy import deadline

__all__ = ["PATHS", "Answer", "Leave", "aprobe", "check_mount", "no_such_path", "probe"]

PATHS: Final[Mapping[str, View]] = MappingProxyType(
    {"/livez": "live", "/readyz": "ready", "/startupz": "startup", "/health": "ready"}
)
"""The paths of the probes. ``/health`` answers as JSON, the others with one word unless JSON is asked for.

Besides them there are ``/health/<view>`` for every view and group, ``/health/page`` and ``/health/metrics``.
"""

Leave: TypeAlias = Callable[[], object]
"""Says whether who asks may see details, by returning True; for `aprobe` also an awaitable of it."""

JSON: Final = "application/health+json"
TEXT: Final = "text/plain; charset=utf-8"

_METHODS: Final = ("GET", "HEAD")
_LEAVE: Final = 0.05  # seconds that who says whether details may be seen has, however long the report took

_Form: TypeAlias = Literal["word", "json", "page", "metrics"]


@dataclass(frozen=True, slots=True)
class Answer:
    """One response.

    Args:
        status: The HTTP status.
        content_type: The type of the body.
        body: The body.
        more: Further headers.
        length: The length of the body that is told, where it is not sent.
    """

    status: int
    content_type: str
    body: bytes
    more: tuple[tuple[str, str], ...] = ()
    length: int | None = None

    @property
    def line(self) -> str:
        """The status with its phrase, as WSGI wants it."""
        return f"{self.status} {HTTPStatus(self.status).phrase}"

    @property
    def headers(self) -> list[tuple[str, str]]:
        """The response's headers; nothing on the way may keep it."""
        return [
            ("Content-Type", self.content_type),
            ("Content-Length", str(len(self.body) if self.length is None else self.length)),
            ("Cache-Control", "no-store"),
            *self.more,
        ]

    def to(self, method: str) -> Answer:
        """The answer as a request of that method gets it: HEAD gets the headers alone.

        Examples:
            >>> Answer(200, "text/plain", b"pass").to("HEAD").body
            b''
        """
        if method != "HEAD" or self.length is not None:
            return self
        return replace(self, body=b"", length=len(self.body))


# ------------------------------------------------------------------------------------------------------- the doorway


def check_mount(health: object, authorize: object, *, awaits: bool = False) -> None:
    """Find at the start what would go wrong with each probe, or quietly show no details to anybody.

    Args:
        health: Who is asked.
        authorize: Says whether details may be seen, if anybody does.
        awaits: Whether the mount awaits what that returns.

    Raises:
        ConfigurationError: The one is no `Health`, or the other no function that can be asked here.
    """
    if not isinstance(health, Health):
        raise ConfigurationError(f"health routes report a Health, not a {type(health).__name__}")
    if authorize is not None and not callable(authorize):
        raise ConfigurationError(
            f"authorize={authorize!r} is no function", advice="give one that returns True or False"
        )
    if not awaits and inspect.iscoroutinefunction(authorize):
        raise ConfigurationError(
            "authorize= is async, and nothing awaits it here", advice="give a plain function; ASGI takes both"
        )


def probe(
    health: Health, path: str, method: str = "GET", accept: str = "", leave: Leave | None = None
) -> Answer | None:
    r"""The answer to a request; ``None`` where its path is not one of health's.

    Who sees details is what ``details=`` of the `Health` says. Under ``"authorized"`` it is asked after the report,
    within a deadline of what the report has left of its own (at least 0.05 s), so that the two together keep it; one
    that raises has said no. The page and the metrics are only for those who may see details: for all others there is
    no such path.

    Args:
        health: Who is asked.
        path: The path, from where the routes are mounted.
        method: The request's method: GET or HEAD, everything else is answered with 405.
        accept: The request's ``Accept`` header.
        leave: Asked under ``"authorized"``, and only where details would be shown.

    Examples:
        >>> health = Health()
        >>> probe(health, "/readyz").body, probe(health, "/health").body
        (b'pass\n', b'{"status":"pass"}')
        >>> probe(health, "/orders") is None, probe(health, "/livez", "POST").status
        (True, 405)
    """
    asked = _asked(health, path, accept)
    if asked is None or method not in _METHODS:
        return None if asked is None else _WRONG_METHOD
    until = health.clock.monotonic() + health.deadline
    report = health.report(asked.view)
    said: object = None
    if leave is not None and _is_asked(health, asked):
        try:
            with deadline(_left(health, until)):
                said = leave()
        except Exception:  # noqa: BLE001 - a door that breaks stays shut
            said = None
    return _written(health, asked, report, said).to(method)


async def aprobe(
    health: Health, path: str, method: str = "GET", accept: str = "", leave: Leave | None = None
) -> Answer | None:
    """The async face of `probe`: what ``leave`` awaits is cancelled when the time is over.

    Examples:
        >>> import asyncio
        >>> asyncio.run(aprobe(Health(), "/livez")).status
        200
    """
    asked = _asked(health, path, accept)
    if asked is None or method not in _METHODS:
        return None if asked is None else _WRONG_METHOD
    until = health.clock.monotonic() + health.deadline
    report = await health.areport(asked.view)
    said: object = None
    if leave is not None and _is_asked(health, asked):
        try:
            async with deadline(_left(health, until)):
                given: Any = leave()
                said = await given if inspect.isawaitable(given) else given
        except Exception:  # noqa: BLE001 - a door that breaks stays shut
            said = None
    return _written(health, asked, report, said).to(method)


def no_such_path() -> Answer:
    """The answer to a path that asks nothing."""
    return _NO_SUCH_PATH


# ------------------------------------------------------------------------------------------------------ what is asked


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a request asks.

    Args:
        view: The question.
        form: How the answer is written.
    """

    view: View
    form: _Form


def _asked(health: Health, path: str, accept: str) -> _Asked | None:
    """What a path asks; ``None`` where it is not one of health's."""
    view = PATHS.get(path)
    if view is not None:
        as_json = path == "/health" or JSON in accept or "application/json" in accept
        return _Asked(view, "json" if as_json else "word")
    last = path.removeprefix("/health/")
    if last == path:
        return None
    if last == "page" and health.page:
        return _Asked("all", "page")
    if last == "metrics" and health.metrics:
        return _Asked("all", "metrics")
    return _Asked(last, "json") if last in health.views else None


def _is_asked(health: Health, asked: _Asked) -> bool:
    """Whether it has to be asked who may see details."""
    return health.details == "authorized" and asked.form != "word"


def _left(health: Health, until: float) -> float:
    return max(_LEAVE, until - health.clock.monotonic())


# ---------------------------------------------------------------------------------------------------- what is answered


def _written(health: Health, asked: _Asked, report: Report, said: object) -> Answer:
    details = health.details == "always" or (health.details == "authorized" and said is True)
    if asked.form in {"page", "metrics"} and not details:
        return _NO_SUCH_PATH
    if asked.form == "page":
        return Answer(200, PAGE, page(health, report).encode(), (("Content-Security-Policy", POLICY),))
    if asked.form == "metrics":
        return Answer(200, METRICS, metrics(health, report).encode())
    if asked.form == "json":
        return Answer(report.http_status, JSON, report.to_json(details=details).encode())
    return Answer(report.http_status, TEXT, f"{report.word}\n".encode())


_NO_SUCH_PATH: Final = Answer(404, TEXT, b"not found\n")
_WRONG_METHOD: Final = Answer(405, TEXT, b"method not allowed\n", (("Allow", ", ".join(_METHODS)),))
