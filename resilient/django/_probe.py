"""Answers of this library as responses of Django, and the answering of a probe, sync and async."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponse

from resilient.health import Health
from resilient.health import answer as door

__all__ = ["aprobe", "probe", "respond"]


Authorize: TypeAlias = Callable[[Any], object]


def probe(request: HttpRequest, health: Health, path: str, authorize: Authorize | None) -> HttpResponse | None:
    """The response to one of the paths of `resilient.health.answer`; ``None`` to every other one."""
    leave = None if authorize is None else lambda: authorize(request)
    given = door.probe(health, path, str(request.method), request.META.get("HTTP_ACCEPT", ""), leave)
    return None if given is None else respond(given)


async def aprobe(request: HttpRequest, health: Health, path: str, authorize: Authorize | None) -> HttpResponse | None:
    """The async face of `probe`. What is asked for leave may look at the user, and so at the database: on a thread."""
    leave = None if authorize is None else lambda: sync_to_async(authorize)(request)
    given = await door.aprobe(health, path, str(request.method), request.META.get("HTTP_ACCEPT", ""), leave)
    return None if given is None else respond(given)


def respond(given: door.Answer) -> HttpResponse:
    """The response that says what the answer says."""
    return HttpResponse(given.body, status=given.status, headers=dict(given.headers))
