"""Answers of this library as responses of Django, and the answering of a probe, sync and async."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponse

from resilient.health import Health
from resilient.health.answer import PATHS, Answer, answer, may_see, wants_json, wrong_method

__all__ = ["aprobe", "probe", "respond"]


def probe(request: HttpRequest, health: Health, path: str, authorize: Callable[[Any], object] | None) -> HttpResponse:
    """The response to one of the paths of `resilient.health.answer`."""
    if request.method not in {"GET", "HEAD"}:
        return respond(wrong_method())
    details = may_see(health.details, lambda: authorize is not None and authorize(request))
    return respond(answer(health.report(PATHS[path]), as_json=_json(request, path), details=details))


async def aprobe(
    request: HttpRequest, health: Health, path: str, authorize: Callable[[Any], object] | None
) -> HttpResponse:
    """The async face of `probe`."""
    if request.method not in {"GET", "HEAD"}:
        return respond(wrong_method())
    report = await health.areport(PATHS[path])
    details = health.details == "always"
    if health.details == "authorized":  # it may look at the user, and so at the database
        details = await sync_to_async(may_see)(health.details, lambda: authorize is not None and authorize(request))
    return respond(answer(report, as_json=_json(request, path), details=details))


def _json(request: HttpRequest, path: str) -> bool:
    return wants_json(path, request.META.get("HTTP_ACCEPT", ""))


def respond(given: Answer) -> HttpResponse:
    """The response that says what the answer says."""
    return HttpResponse(given.body, status=given.status, headers=dict(given.headers))
