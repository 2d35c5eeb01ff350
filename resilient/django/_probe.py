"""Answers of this library as responses of Django, and the answering of a probe, sync and async."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponse

from resilient.health import Health
from resilient.health.answer import Answer, areply, asked, may_see, reply, wrong_method

__all__ = ["aprobe", "probe", "respond"]


Authorize: TypeAlias = Callable[[Any], object]


def probe(request: HttpRequest, health: Health, path: str, authorize: Authorize | None) -> HttpResponse | None:
    """The response to one of the paths of `resilient.health.answer`; ``None`` to every other one."""
    question = asked(health, path, request.META.get("HTTP_ACCEPT", ""))
    if question is None or request.method not in {"GET", "HEAD"}:
        return None if question is None else respond(wrong_method())
    details = question.form != "word" and may_see(health.details, _leave(request, authorize))
    return respond(reply(health, question, details=details))


async def aprobe(request: HttpRequest, health: Health, path: str, authorize: Authorize | None) -> HttpResponse | None:
    """The async face of `probe`."""
    question = asked(health, path, request.META.get("HTTP_ACCEPT", ""))
    if question is None or request.method not in {"GET", "HEAD"}:
        return None if question is None else respond(wrong_method())
    details = question.form != "word" and health.details == "always"
    if question.form != "word" and health.details == "authorized":  # it may look at the user, and so at the database
        details = await sync_to_async(may_see)(health.details, _leave(request, authorize))
    return respond(await areply(health, question, details=details))


def _leave(request: HttpRequest, authorize: Authorize | None) -> Callable[[], object]:
    return lambda: authorize is not None and authorize(request)


def respond(given: Answer) -> HttpResponse:
    """The response that says what the answer says."""
    return HttpResponse(given.body, status=given.status, headers=dict(given.headers))
