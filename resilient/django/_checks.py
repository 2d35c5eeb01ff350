"""What ``manage.py check`` finds wrong in the settings."""

from __future__ import annotations

from django import conf
from django.core import checks

from resilient.django._settings import CACHE, options, session_options
from resilient.errors import ConfigurationError

__all__ = ["problems"]

_SESSIONS = "resilient.django.sessions"
_SESSION_MIDDLEWARE = "resilient.django.middleware.SessionMiddleware"
_HEALTH_MIDDLEWARE = "resilient.django.middleware.HealthMiddleware"


def problems(**_: object) -> list[checks.CheckMessage]:
    """What is wrong with the settings, for ``manage.py check``."""
    try:
        options()
    except ConfigurationError as error:
        return [checks.Error(error.message, hint=error.advice, id="resilient.E001")]
    return [*_problems_of_caches(), *_problems_of_sessions(), *_problems_of_health()]


def _problems_of_health() -> list[checks.CheckMessage]:
    middleware = list(getattr(conf.settings, "MIDDLEWARE", ()))
    if _HEALTH_MIDDLEWARE not in middleware:
        return []
    found: list[checks.CheckMessage] = []
    if options().health is None:
        hint = "set RESILIENT['HEALTH'] to a resilient.health.Health, or to where it is: 'module:attr'"
        found.append(checks.Error("HealthMiddleware has nothing to report", hint=hint, id="resilient.E002"))
    if middleware[0] != _HEALTH_MIDDLEWARE:
        hint = "put it first, or probes may be refused for their host or redirected to https"
        found.append(checks.Warning("HealthMiddleware is not the first middleware", hint=hint, id="resilient.W001"))
    return found


def _problems_of_caches() -> list[checks.CheckMessage]:
    found: list[checks.CheckMessage] = []
    for alias, each in conf.settings.CACHES.items():
        if each.get("BACKEND") != CACHE:
            continue
        from resilient.django.cache import shared  # where it is asked for, as others need not load the cache

        try:
            shared(each.get("LOCATION", ""), each.get("OPTIONS") or {})
        except ConfigurationError as error:
            found.append(checks.Error(f"CACHES[{alias!r}]: {error.message}", hint=error.advice, id="resilient.E003"))
    return found


def _problems_of_sessions() -> list[checks.CheckMessage]:
    if conf.settings.SESSION_ENGINE != _SESSIONS:
        return []
    try:
        from resilient.django.sessions import keeper  # as above

        kept = keeper()
    except ConfigurationError as error:
        return [checks.Error(f"sessions: {error.message}", hint=error.advice, id="resilient.E004")]
    found: list[checks.CheckMessage] = []
    if not getattr(conf.settings, "DEBUG", False) and session_options().location is None:
        hint = "set RESILIENT['SESSIONS']['LOCATION'], or SESSION_CACHE_ALIAS to a cache of this library on a server"
        found.append(checks.Warning("sessions live in one process only", hint=hint, id="resilient.W002"))
    if _SESSION_MIDDLEWARE not in getattr(conf.settings, "MIDDLEWARE", ()):
        hint = f"put {_SESSION_MIDDLEWARE} in the place of Django's: while the server is away it answers 503"
        found.append(checks.Warning("an outage of the sessions would be a 500", hint=hint, id="resilient.W003"))
    if kept.sliding and not conf.settings.SESSION_SAVE_EVERY_REQUEST:
        hint = "set SESSION_SAVE_EVERY_REQUEST = True, so that the browser's cookie lives on with the session"
        found.append(checks.Warning("sessions slide, and their cookies do not", hint=hint, id="resilient.W004"))
    return found
