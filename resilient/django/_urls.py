"""The health routes for a URL configuration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, URLResolver, path

from resilient.health import Health
from resilient.health.answer import PATHS, check_mount, no_such_path

__all__ = ["health_urls"]


def health_urls(
    health: Health, *, authorize: Callable[[HttpRequest], object] | None = None
) -> list[URLPattern | URLResolver]:
    """``livez``, ``readyz``, ``startupz`` and ``health`` as URL patterns, and ``health/<which>`` for the others.

    ``health/<which>`` answers a view or a group by its name, and ``health/page`` and ``health/metrics`` are there for
    those who may see details, where the `Health` was made with ``page=True`` and ``metrics=True``.

    Behind host validation and the redirect to https a probe that names the machine's address may be refused or sent
    elsewhere; `resilient.django.middleware.HealthMiddleware` answers before both.

    Args:
        health: What to report.
        authorize: Says of a request whether details may be seen, by returning True; asked where the `Health` was made
            with ``details="authorized"``.

    Raises:
        ConfigurationError: That is no `Health`, or ``authorize`` no function, or an async one.

    Examples:
        >>> [each.name for each in health_urls(Health())]
        ['livez', 'readyz', 'startupz', 'health', 'health-which']
    """
    check_mount(health, authorize)
    return [
        *(path(each[1:], _view(health, each, authorize), name=each[1:]) for each in PATHS),
        path("health/<str:which>", _view(health, "/health/", authorize), name="health-which"),
    ]


def _view(health: Health, asked: str, authorize: Callable[[Any], object] | None) -> Callable[..., HttpResponse]:
    from resilient.django._probe import probe, respond

    def view(request: HttpRequest, which: str = "") -> HttpResponse:
        return probe(request, health, asked + which, authorize) or respond(no_such_path())

    return view
